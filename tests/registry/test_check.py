"""fsck: each kind of damage is found and named; a sound store has none; nothing is changed."""

import os
import shutil
from pathlib import Path
from random import Random

import pytest

from mregfs.api import Registry, init_store
from mregfs.errors import NotFoundError
from mregfs.model.changes import entry_key
from mregfs.model.digest import BLOCK
from mregfs.registry.keep.check import Pace, Report
from mregfs.stores.scanner_direct import DirectScanner
from tests.registry.rig import flip

MIB = 1 << 20


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two artifacts, a collection, a file in pieces, a checkpoint."""
    directory = tmp_path_factory.mktemp("sound")
    init_store(directory / "store")
    random = Random(5)  # where content is cut decides what is shared
    data = random.randbytes(12 * MIB)
    tuned = data[: 6 * MIB + 100] + random.randbytes(5000) + data[6 * MIB + 4100 :]
    with Registry(directory / "store") as registry:
        for name, content in (("one", data), ("two", tuned)):
            (directory / name).mkdir()
            (directory / name / "model.bin").write_bytes(content)
            (directory / name / "notes.txt").write_bytes(b"tiny" if name == "one" else bytes(9000))
            registry.commit(directory / name, "mnist")
        registry.commit(directory / "two", "copy")
        registry.link("mnist:v1", "classifier:production")
        registry.store.log.checkpoint()
        registry.tag("mnist:v0", ["old"])
    return directory / "store"


@pytest.fixture
def store(sound: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(sound, tmp_path / "store"))


def check(store: Path, *refs: str, data: bool = False) -> Report:
    with Registry(store, read_only=True) as registry:
        return registry.fsck(*refs, data=data)


def musts(report: Report) -> list[tuple[str, str]]:
    assert report.damaged == any(each.must for each in report.findings)
    return [(each.kind, each.what) for each in report.findings if each.must]


def files_below(store: Path) -> dict[str, bytes]:
    """Return all that is the store's; the index is this host's."""
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in store.rglob("*")
        if path.is_file() and "index" not in path.parts
    }


def packs(store: Path) -> list[Path]:
    """Return the packs, the largest first."""
    found = [path for path in (store / "packs").rglob("*") if path.is_file()]
    return sorted(found, key=lambda path: -path.stat().st_size)


# ---- nothing wrong


def test_a_sound_store_has_no_findings_and_is_not_changed(store):
    before = files_below(store)
    report = check(store, data=True)

    assert () == report.findings
    assert (3, 6) == (report.versions, report.files)
    assert report.entries == len(list((store / "log").iterdir()))
    assert report.packs == len(packs(store))
    assert report.bytes_read >= 12 * MIB
    assert before == files_below(store)


def test_what_is_shared_is_read_once(store):
    with Registry(store) as registry:
        content = registry.usage()
    assert check(store, data=True).bytes_read < content.logical - 10 * MIB


def test_references_narrow_it_down(store):
    assert 1 == check(store, "mnist:v0").versions
    assert 2 == check(store, "mnist").versions
    assert 1 == check(store, "classifier").versions
    with pytest.raises(NotFoundError):
        check(store, "nothing")


# ---- the log


def test_a_changed_entry_is_named(store):
    path = store / entry_key(2)
    flip(path, path.read_bytes().index(b'"at_ns":') + 12)
    found = musts(check(store))

    assert any(what.startswith(f"{entry_key(2)} was changed: entry 3") for _, what in found)
    assert {"log"} == {kind for kind, _ in found}


def test_a_changed_last_entry_is_known_by_the_index(store):
    last = max((store / "log").iterdir())
    flip(last, last.read_bytes().index(b'"at_ns":') + 12)
    ((kind, what),) = musts(check(store))

    assert "log" == kind
    assert f"log/{last.name} was changed: the index of this host" in what


def test_a_gap_is_named(store):
    (store / entry_key(2)).unlink()

    assert ("log", f"{entry_key(2)} is missing") in musts(check(store))


def test_a_lost_end_is_known_by_the_index(store):
    last = max((store / "log").iterdir())
    last.unlink()
    ((kind, what),) = musts(check(store))

    assert "log" == kind
    assert "the index of this host knew entry" in what


def test_an_entry_that_is_no_json_is_named(store):
    path = store / entry_key(1)
    path.chmod(0o644)
    path.write_bytes(b"{")

    assert any(kind == "log" and entry_key(1) in what for kind, what in musts(check(store)))


def test_a_damaged_checkpoint_loses_nothing(store):
    (path,) = (store / "checkpoints").iterdir()
    flip(path, path.stat().st_size // 2)
    report = check(store)

    assert [("checkpoint", False)] == [(each.kind, each.must) for each in report.findings]
    assert (f"checkpoints/{path.name}",) == report.findings[0].names


def test_an_index_that_says_something_else_is_found(store):
    with Registry(store) as registry:
        index = registry.store.index
        with index.read() as view:
            key, value = next(view.scan("alias"))
        index.write([("alias", bytes(key), bytes(value)[:-1] + b"x")])
        ((kind, what),) = musts(registry.fsck())
        assert "index" == kind
        assert "'alias'" in what

        registry.reindex()
        assert [] == musts(registry.fsck())


def test_content_in_the_index_that_is_something_else_is_found(store):
    with Registry(store) as registry:
        for ref in ("mnist:v0", "mnist:v1"):
            registry.store.content.ensure(registry._way._loaded(registry._locate(ref)))
        index = registry.store.index
        with index.read() as view:
            key, value = next(view.scan("blocks"))
        index.write([("blocks", bytes(key), bytes([value[0] ^ 1]) + bytes(value)[1:])])

        assert [("index", True)] == [
            (kind, "'blocks'" in what) for kind, what in musts(registry.fsck())
        ]


# ---- what is in versions


def test_a_missing_manifest_is_named(store):
    with Registry(store) as registry:
        digest = registry.get("mnist:v0").digest
    (store / f"manifests/{digest[:2]}/{digest}").unlink()

    assert [
        ("manifest", f"manifests/{digest[:2]}/{digest} of default/default/mnist:v0 is missing")
    ] == (musts(check(store)))


def test_a_changed_manifest_is_named(store):
    with Registry(store) as registry:
        digest = registry.get("mnist:v0").digest
    flip(store / f"manifests/{digest[:2]}/{digest}", 30)
    ((kind, what),) = musts(check(store))

    assert "manifest" == kind
    assert digest in what
    assert "mnist:v0" in what


@pytest.mark.parametrize("size", [0, 40])
def test_a_truncated_layout_is_named(store, size):
    with Registry(store) as registry:
        layout = registry._way._loaded(registry._locate("mnist:v1")).layout
    path = store / "layouts" / layout
    path.chmod(0o644)
    os.truncate(path, size)
    ((kind, what),) = musts(check(store))

    assert "layout" == kind
    assert layout in what
    assert "mnist:v1" in what


def test_a_layout_with_other_digests_is_named(store):
    with Registry(store) as registry:
        record = registry._way._loaded(registry._locate("mnist:v0"))
        entry = registry.store.content.find_path(record, "model.bin")
        with registry.store.index.read() as view:
            blocks = bytes(view.get("blocks", (record.inode + entry.position).to_bytes(8, "big")))
    path = store / "layouts" / record.layout
    flip(path, path.read_bytes().index(blocks) + 33)
    ((kind, what),) = musts(check(store))

    assert "layout" == kind
    assert "model.bin" in what


def test_a_missing_pack_and_its_versions_are_named(store):
    pack = packs(store)[0]
    pack.unlink()
    (finding,) = [each for each in check(store, data=True).findings if each.must]

    assert "pack" == finding.kind
    assert f"pack {pack.name} is missing" in finding.what
    assert {f"default/default/{name}" for name in ("mnist:v0", "mnist:v1", "copy:v0")} == set(
        finding.names
    )


def test_a_short_pack_is_named(store):
    pack = packs(store)[0]
    pack.chmod(0o644)
    os.truncate(pack, 5 * MIB)
    ((kind, what),) = musts(check(store, data=True))

    assert "pack" == kind
    assert f"pack {pack.name} has {5 * MIB} bytes instead of {12 * MIB}, " in what


def test_a_flipped_bit_is_found_in_the_data_only(store):
    pack = packs(store)[0]
    flip(pack, 3 * MIB + 17)

    assert [] == musts(check(store))
    findings = [each for each in check(store, data=True).findings if each.must]
    assert {"data"} == {each.kind for each in findings}
    assert any(
        "default/default/mnist:v0 model.bin is damaged in 1 of 12" in f.what for f in findings
    )
    (both,) = [each for each in findings if " and 1 more are damaged in 1 of 13" in each.what]
    names = {f"default/default/{name} model.bin" for name in ("mnist:v1", "copy:v0")}
    assert names == set(both.names[:2])
    assert "delete the versions, commit them again" in both.advice
    assert all(f"byte {3 * BLOCK}: pack {pack.name}" in each.what for each in findings)
    assert 2 == len(findings)  # v1 has that block too


def test_a_flipped_bit_in_a_copy_is_found(store):
    with Registry(store) as registry:
        registry.pin("mnist:v1")
    (copy,) = (path for path in (store / "cache/whole").rglob("*") if len(path.name) == 64)
    assert () == check(store, data=True).findings
    flip(copy, 7 * MIB)
    ((kind, what),) = musts(check(store, data=True))

    assert "copy" == kind
    assert copy.name in what


# ---- what only takes space


def test_orphans_are_notes(store):
    with Registry(store) as registry:
        registry.remove("mnist:v0", force=True)
        registry.remove("copy:v0", force=True)
    (store / "packs/ff").mkdir(exist_ok=True)
    (store / "packs/ff" / ("f" * 32)).write_bytes(b"lost")
    report = check(store)

    assert not report.damaged
    found = {each.kind: each.names for each in report.findings}
    assert {"pack", "layout", "manifest"} == found.keys()
    assert ("f" * 32) in found["pack"]
    assert 2 == len(found["layout"])
    assert 1 == len(found["manifest"])  # that of `copy` is also v1's


def test_temporary_files_are_notes_when_they_are_old(store):
    (store / "packs/tmp").mkdir(exist_ok=True)
    for name in ("old", "new"):
        (store / "packs/tmp" / name).write_bytes(b"x")
    os.utime(store / "packs/tmp/old", (1, 1))
    (finding,) = check(store).findings

    assert ("leftover", False, ("packs/tmp/old",)) == (finding.kind, finding.must, finding.names)


# ---- reading


def test_a_rate_is_kept():
    now = [0]
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += int(seconds * 1e9)

    pace = Pace(1000, lambda: now[0], pause)
    for _ in range(10):
        pace.spend(100)
    now[0] += 10**9
    pace.spend(100)

    assert pytest.approx(1.1) == sum(pauses)
    Pace(0, lambda: 0, pause).spend(10**12)
    assert 11 == len(pauses)


class Opened:
    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY)
        self.size = os.fstat(self._fd).st_size

    def backing(self) -> int:
        return self._fd

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._fd, length, offset)

    def close(self) -> None:
        os.close(self._fd)


@pytest.mark.parametrize("directory", ["", "/dev/shm"])
def test_the_scanner_reads_what_is_there(tmp_path, directory):
    """Past the page cache on a disk, otherwise on tmpfs; from any offset."""
    path = Path(directory or tmp_path) / f"mregfs-scan-{os.getpid()}"
    data = os.urandom(9 * MIB + 1234)
    path.write_bytes(data)
    try:
        file = Opened(path)
        with DirectScanner() as scanner:
            for offset, length in (
                (0, MIB),
                (5000, 10),
                (8 * MIB - 5, 100),
                (9 * MIB, MIB),
                (0, 0),
            ):
                assert data[offset : offset + length] == scanner.read(file, offset, length)
            assert b"" == scanner.read(file, len(data), 10)
            assert data == scanner.read(file, 0, len(data))
        file.close()
    finally:
        path.unlink()
