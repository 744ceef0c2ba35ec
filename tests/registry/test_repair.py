"""What is damaged is made again, whatever it is; of what cannot be, the log says so."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

import mregfs
from mregfs.registry.keep.findings import Report
from tests.attack.commands import run_verb
from tests.registry.rig import write_files

pytestmark = pytest.mark.slow


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Five versions, some of which share bytes; their content is in the index."""
    path = tmp_path / "store"
    run("init", path)
    shared = os.urandom(3 << 20)
    for number in range(4):
        files = {
            "shared.bin": shared,
            "own.bin": os.urandom(400_000),
            "deep/er/config.json": b"%d" % number,
            "empty/.keep": b"",
        }
        write_files(tmp_path / f"v{number}", files)
        run("commit", tmp_path / f"v{number}", "mnist", "--store", path)
    run("ln", "mnist:v1", "mnist:best", "--store", path)
    with mregfs.Registry(path) as registry:
        for number in range(4):
            registry.open(f"mnist:v{number}", "own.bin").close()
    return path


@pytest.fixture(autouse=True)
def damage(expected_warnings: Any) -> None:
    expected_warnings.expect("shown as of log entry")


def run(*words: str | Path, code: int = 0) -> str:
    outcome = run_verb(words)
    assert code == outcome.code, outcome
    return outcome.output


def repair(store: Path, *words: str | Path, code: int = 0) -> str:
    """Say first what would be done, which changes nothing; then do it."""
    before = snapshot(store)
    run("fsck", "--repair", "--dry-run", *words, "--store", store, code=11)
    assert before == snapshot(store)
    said = run("fsck", "--repair", *words, "--store", store, code=code)
    if code == 0:
        run("fsck", *(word for word in words if word == "--data"), "--store", store)
    return said


def snapshot(store: Path) -> dict[str, bytes]:
    """Return all that is not an index or temporary."""
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in store.rglob("*")
        if path.is_file() and path.relative_to(store).parts[0] not in ("index", "tmp", "cache")
    }


def flip(path: Path, offset: int = -20) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(0o444)


def cut(path: Path) -> None:
    path.chmod(0o644)
    os.truncate(path, path.stat().st_size // 2)
    path.chmod(0o444)


def change(path: Path) -> None:
    """Damage a value of an entry, not its form."""
    data = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(data.replace(b'"at_ns":1', b'"at_ns":2', 1))
    path.chmod(0o444)


HARM: dict[str, Callable[[Path], None]] = {
    "flipped": flip,
    "cut": cut,
    "lost": Path.unlink,
}


@pytest.mark.parametrize("harm", [*HARM, "changed"])
@pytest.mark.parametrize("which", [1, 3, -1])
def test_a_log_entry_is_written_again(store: Path, harm: str, which: int) -> None:
    whole = snapshot(store)
    entry = sorted((store / "log").iterdir())[which - 1 if which > 0 else which]
    {**HARM, "changed": change}[harm](entry)
    if entry.exists() and entry.read_bytes() == whole[f"log/{entry.name}"]:
        pytest.skip("this entry does not have what is changed")

    said = repair(store)

    assert f"write log/{entry.name} again, from the index" in said
    found = snapshot(store)
    assert whole == {name: data for name, data in found.items() if name in whole}
    assert run("tag", "mnist:v0", "good", "--store", store)


def test_several_last_entries_are_written_again(store: Path) -> None:
    whole = snapshot(store)
    for entry in sorted((store / "log").iterdir())[-3:]:
        entry.unlink()
    run("tag", "mnist:v0", "good", "--store", store, code=11)
    repair(store)
    assert whole == snapshot(store)


def test_a_host_without_an_index_takes_entries_from_a_copy(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "copy", symlinks=True)
    shutil.rmtree(store / "index")
    whole = snapshot(store)
    flip(store / "log/00000000000000000002.json", 30)
    run("ls", "--store", store, code=11)
    run("fsck", "--repair", "--store", store, code=11)
    shutil.rmtree(store / "index")
    said = repair(store, "--from", tmp_path / "copy")
    assert "from the copy of the store" in said
    assert whole == {name: data for name, data in snapshot(store).items() if name in whole}


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("folder", ["manifests", "layouts"])
def test_manifests_and_layouts_are_made_from_the_index(
    store: Path, tmp_path: Path, folder: str, harm: str
) -> None:
    expected = contents(store)
    for path in sorted((store / folder).rglob("*")):
        if path.is_file():
            HARM[harm](path)
    said = repair(store)
    assert f"write {folder}/" in said
    shutil.rmtree(store / "index")
    assert expected == contents(store)
    run("fsck", "--data", "--store", store)


def contents(store: Path) -> dict[str, bytes]:
    found = {}
    with mregfs.Registry(store, read_only=True) as registry:
        for number in range(4):
            for path in ("shared.bin", "own.bin", "deep/er/config.json"):
                with registry.open(f"mnist:v{number}", path) as file:
                    found[f"v{number}/{path}"] = file.read()
    return found


def packs_of(store: Path) -> list[Path]:
    return sorted(path for path in (store / "packs").glob("??/*") if path.is_file())


@pytest.mark.parametrize("harm", HARM)
def test_a_pack_is_taken_from_a_copy_of_the_store(store: Path, tmp_path: Path, harm: str) -> None:
    expected = contents(store)
    shutil.copytree(store, tmp_path / "copy", symlinks=True)
    whole = snapshot(store)
    for pack in packs_of(store):
        HARM[harm](pack)
    said = repair(store, "--data", "--from", tmp_path / "copy")
    assert "from the copy of the store" in said
    assert whole == snapshot(store)
    assert expected == contents(store)


def test_a_pack_is_made_from_other_versions(store: Path, tmp_path: Path) -> None:
    """Here: of another artifact, which was committed when the bytes could not be shared."""
    pack = max(packs_of(store), key=lambda path: path.stat().st_size)
    hidden = tmp_path / "hidden"
    os.rename(pack, hidden)  # so that the next commit stores its own
    run("commit", tmp_path / "v0", "other", "--store", store)
    os.rename(hidden, pack)
    expected = contents(store)
    for offset in (5, 2_500_000):
        flip(pack, offset)
    said = repair(store, "--data")
    assert "from other versions" in said
    assert expected == contents(store)


@pytest.fixture
def parted(store: Path, tmp_path: Path) -> Path:
    """The store with a model whose v1 has most blocks of v0; a whole copy of it is in the cache."""
    random = Random(8)  # where content is cut decides what is shared
    data = random.randbytes(6 << 20)
    tuned = data[: 4 << 20] + random.randbytes(70_000) + data[4 << 20 :]
    for number, content in enumerate((data, tuned)):
        write_files(tmp_path / f"tuned{number}", {"model.bin": content})
        run("commit", tmp_path / f"tuned{number}", "tuned", "--store", store)
    run("pin", "tuned:v1", "--store", store)
    return store


def copies_of(store: Path) -> list[Path]:
    return [
        path
        for path in (store / "cache/whole").rglob("*")
        if path.is_file() and path.stat().st_size >= 6 << 20
    ]


def tuned(store: Path, tmp_path: Path) -> None:
    """Check that both versions are what was committed."""
    for number in range(2):
        expected = (tmp_path / f"tuned{number}/model.bin").read_bytes()
        with (
            mregfs.Registry(store, read_only=True) as registry,
            registry.open(f"tuned:v{number}", "model.bin") as file,
        ):
            assert expected == file.read()


def test_a_bad_copy_in_the_cache_is_deleted(parted: Path, tmp_path: Path) -> None:
    """The version loses nothing: its bytes are in packs."""
    (copy,) = copies_of(parted)
    flip(copy)

    said = repair(parted, "--data")

    assert "delete the copy " in said
    assert [] == copies_of(parted)
    tuned(parted, tmp_path)


def test_a_pack_is_made_from_whole_copies(parted: Path, tmp_path: Path) -> None:
    """Also where the copy is of another file that has the block."""
    first = max(packs_of(parted), key=lambda path: path.stat().st_size)
    assert 6 << 20 == first.stat().st_size
    flip(first, 100)

    said = repair(parted, "--data")

    assert f"make pack {first.name} again, from the cache" in said
    assert 1 == len(copies_of(parted))
    copies_of(parted)[0].unlink()
    tuned(parted, tmp_path)


def test_a_bad_copy_is_no_source(parted: Path, tmp_path: Path) -> None:
    """Nothing is put in place that was not verified; what is lost is marked, the copy goes."""
    first = max(packs_of(parted), key=lambda path: path.stat().st_size)
    flip(first, 100)
    (copy,) = copies_of(parted)
    flip(copy, 100)

    said = repair(parted, "--data")

    assert "from the cache" not in said
    assert [] == copies_of(parted)
    assert json.loads(run("show", "tuned:v0", "--json", "--store", parted))["damage"]


@pytest.mark.parametrize("table", ["alias", "version", "blocks"])
@pytest.mark.parametrize("harm", ["changed", "lost"])
def test_the_index_is_made_from_the_log(store: Path, table: str, harm: str) -> None:
    """A row that differs from what the log says, or is not there."""
    expected = contents(store)
    shown = run("show", "mnist:best", "--json", "--store", store)
    with mregfs.Registry(store) as registry:
        index = registry.store.index
        with index.read() as view:
            key, value = next(iter(view.scan(table)))
            bad = bytes(value)[:-1] + bytes([value[-1] ^ 1]) if harm == "changed" else None
        index.write([(table, bytes(key), bad)])

    said = run("ls", "mnist", "--store", store, code=11 if bad and table == "version" else 0)
    if bad and table == "version":
        assert "a record in the index of this host is damaged" in said
        assert "mregfs reindex" in said
    said = repair(store)

    assert "rebuild the index of this host" in said
    assert shown == run("show", "mnist:best", "--json", "--store", store)
    assert expected == contents(store)


def test_what_cannot_be_repaired_is_marked_and_all_else_goes_on(
    store: Path, tmp_path: Path
) -> None:
    """Content that is committed again is a version again; a copy that turns up mends the mark."""
    shutil.copytree(store, tmp_path / "copy", symlinks=True)
    own = next(pack for pack in packs_of(store) if 400_000 <= pack.stat().st_size < 3 << 20)
    flip(own, 1000)
    assert "is damaged" in repair(store, "--data")
    shown = [json.loads(run("show", f"mnist:v{n}", "--json", "--store", store)) for n in range(4)]
    (bad,) = [number for number, each in enumerate(shown) if each["damage"]]
    assert "blocks" in shown[bad]["damage"]
    assert "damaged" in run("show", f"mnist:v{bad}", "--store", store)
    assert "damaged" in run("history", f"mnist:v{bad}", "--store", store)
    assert "known: marked as damaged" in run("fsck", "--data", "--store", store)

    again = run("commit", tmp_path / f"v{bad}", "mnist", "--json", "--store", store)
    assert json.loads(again)["created"]
    run("fsck", "--store", store)
    run("fsck", "--repair", "--data", "--from", tmp_path / "copy", "--store", store)
    assert not json.loads(run("show", f"mnist:v{bad}", "--json", "--store", store))["damage"]


def test_checkpoints_and_leftovers(store: Path) -> None:
    with mregfs.Registry(store) as registry:
        registry.store.log.checkpoint()
    (checkpoint,) = (store / "checkpoints").iterdir()
    flip(checkpoint, 100)
    left = store / "tmp/left"
    left.write_bytes(b"x")
    os.utime(left, (0, 0))
    with mregfs.Registry(store) as registry:
        steps: list[str] = []
        report: Report = registry.repair(lambda step: steps.append(step.what))
    assert [f"delete checkpoints/{checkpoint.name}, which is damaged", "remove tmp/left",
            "write a checkpoint"] == steps  # fmt: skip
    assert () == report.findings
    assert not left.exists()


def test_another_store_is_no_copy(store: Path, tmp_path: Path) -> None:
    run("init", tmp_path / "other")
    said = run("fsck", "--repair", "--from", tmp_path / "other", "--store", store, code=5)
    assert "not a copy of this one" in said
