"""Objects of a hostile or buggy writer: an error that names the part, bounded; the rest goes on."""

import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard

import mregfs.cli.main
from mregfs.model.manifest import manifest_digest
from mregfs.registry.log.replay import entry_digest
from tests.attack.commands import Outcome, begin_call
from tests.registry.rig import write_files

pytestmark = pytest.mark.slow

MEMORY = 1 << 30
"""Of address space, which holds the index's map of 256 MiB too."""

LAST = 2


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    run("init", path)
    for number in range(LAST):
        write_files(tmp_path / f"v{number}", {"config": b"%d" % number, "big": bytes(70_000)})
        run("commit", tmp_path / f"v{number}", "mnist", "--store", path)
    return path


def run(*words: str | Path, code: int | None = 0) -> Outcome:
    """Run a verb in a process that has little memory."""

    def call() -> int:
        # A child of the tests' process, which may have much in memory already.
        own = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (own + MEMORY, own + MEMORY))
        return mregfs.cli.main.run([str(word) for word in words])

    outcome = begin_call(call).finish()
    assert [] == outcome.problems()
    assert code in (None, outcome.code), outcome
    return outcome


def forge(store: Path, change: Callable[[dict[str, Any]], None]) -> str:
    """Append an entry like the last one, but for a change; return its key."""
    before = (store / f"log/{LAST:020d}.json").read_bytes()
    entry = json.loads(before)
    entry |= {"sequence": LAST + 1, "previous": entry_digest(before), "at_ns": entry["at_ns"] + 1}
    for fact in entry["requests"][0]["changes"]:
        if fact["change"] == "version-logged":
            fact |= {"number": LAST, "digest": "5" * 64}
    entry["requests"][0]["changes"] = [
        fact for fact in entry["requests"][0]["changes"] if fact["change"] == "version-logged"
    ]
    change(entry)
    path = store / f"log/{LAST + 1:020d}.json"
    path.write_text(json.dumps(entry) + "\n")
    path.chmod(0o444)
    return f"log/{path.name}"


def fact_of(entry: dict[str, Any]) -> dict[str, Any]:
    fact: dict[str, Any] = entry["requests"][0]["changes"][0]
    return fact


def setting(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda entry: fact_of(entry).update(fields)


def deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


ENTRIES: dict[str, Callable[[dict[str, Any]], None]] = {
    "a name that climbs": setting(artifact="../x"),
    "a name with a slash": setting(artifact="a/b"),
    "an empty name": setting(artifact=""),
    "dots": setting(artifact=".."),
    "control characters": setting(artifact="a\x1b[2Jb"),
    "a NUL": setting(artifact="a\0b"),
    "a name of 10 MB": setting(artifact="a" * (10 << 20)),
    "a project that climbs": setting(project="../.."),
    "no project": setting(project="abc"),
    "a number of -1": setting(number=-1),
    "a number of 2^70": setting(number=2**70),
    "a number of 2^80": setting(number=2**80),
    "a size of 2^80": setting(size=2**80),
    "metadata 900 deep": setting(metadata=deep(900)),
    "no requests": lambda entry: entry.update(requests=[]),
    "no changes": lambda entry: entry["requests"][0].update(changes=[]),
    "a time that goes back": lambda entry: entry.update(at_ns=1),
    "a time of -1": lambda entry: entry.update(at_ns=-1),
    "a time of 2^80": lambda entry: entry.update(at_ns=2**80),
    "a layout that is a path": setting(layout="../../../../etc/passwd"),
    "an unknown change": setting(change="obey"),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_is_refused_by_name_and_all_before_it_is_shown(store: Path, name: str) -> None:
    key = forge(store, ENTRIES[name])
    for fresh in (False, True):
        if fresh:
            shutil.rmtree(store / "index")
        for words in (("ls", "mnist"), ("show", "mnist:v1"), ("du",), ("status",)):
            outcome = run(*words, "--store", store)
            assert words != ("status",) or key in outcome.output
            assert "\x1b" not in outcome.output
            assert len(outcome.output) < 20_000
        assert key in run("tag", "mnist:v0", "x", "--store", store, code=11).output
    assert key in run("fsck", "--store", store, code=11).output
    run("fsck", "--repair", "--store", store)  # it is taken away, as nobody can have built on it
    run("tag", "mnist:v0", "x", "--store", store)


def test_metadata_3000_deep(store: Path) -> None:
    """More than the writer of this test can write by itself."""
    key = forge(store, setting(metadata={"deep": "HERE"}))
    path = store / key
    text = path.read_text().replace('"HERE"', '{"a":' * 3000 + "1" + "}" * 3000)
    path.unlink()
    path.write_text(text)
    assert key in run("status", "--store", store).output
    assert key in run("fsck", "--store", store, code=11).output


def file_entry(path: str) -> dict[str, Any]:
    return {"path": path, "kind": "file", "size": 1, "digest": "1" * 64}


MANIFESTS: dict[str, list[dict[str, Any]]] = {
    "a path that climbs": [file_entry("../x")],
    "an absolute path": [file_entry("/etc/x")],
    "a path twice": [file_entry("a"), file_entry("a")],
    "unsorted paths": [file_entry("b"), file_entry("a")],
    "a file as a directory": [file_entry("a"), file_entry("a/b")],
    "no directory": [file_entry("a/b")],
    "a symlink that climbs": [{"path": "a", "kind": "symlink", "target": "../../x"}],
    "a size of -1": [{**file_entry("a"), "size": -1}],
    "a size of 2^80": [{**file_entry("a"), "size": 2**80}],
    "a NUL": [file_entry("a\0b")],
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_costs_its_own_version(store: Path, name: str) -> None:
    data = msgspec.json.encode({"entries": MANIFESTS[name], "format": 1}) + b"\n"
    digest = manifest_digest(data)
    path = store / f"manifests/{digest[:2]}/{digest}"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    count = len(MANIFESTS[name])
    forge(store, setting(digest=digest, size=count, files=count, entries=count))
    check_only_the_last_is_lost(store, digest)


EXTENTS: dict[str, tuple[int, list[Any]]] = {
    "beyond its pack": (70_000, [(0, 1 << 40, 70_000)]),
    "overflowing": (70_000, [(0, (1 << 63) - 1, 70_000)]),
    "of 2^63 bytes": (1 << 62, [(0, 0, (1 << 63) - 1)]),
    "in no pack": (70_000, [(7, 0, 70_000)]),
    "before its pack": (70_000, [(0, -5, 70_000)]),
    "of no bytes": (70_000, [(0, 0, 0)]),
}


@pytest.mark.parametrize("name", EXTENTS)
def test_a_layout_costs_its_own_version(store: Path, name: str) -> None:
    size, extents = EXTENTS[name]
    layout = "7" * 32
    whole = next(path for path in (store / "packs").glob("??/*"))
    packs = [(bytes.fromhex(whole.name), whole.stat().st_size, [])]
    last = json.loads((store / f"log/{LAST:020d}.json").read_text())
    digest = fact_of({"requests": [{"changes": [
        fact for fact in last["requests"][0]["changes"] if fact["change"] == "version-logged"
    ]}]})["digest"]  # fmt: skip
    document = [1, packs, [(1, size, None, extents, b"", []), (2, 1, b"1", [], b"", [])]]
    (store / f"layouts/{layout}").write_bytes(msgspec.msgpack.encode(document))
    forge(store, setting(digest=digest, layout=layout))
    check_only_the_last_is_lost(store, layout)


def check_only_the_last_is_lost(store: Path, part: str) -> None:
    """Reading it is an error that names the part; everything else is as it was."""
    assert f"v{LAST}" in run("ls", "mnist", "--store", store).output
    said = run("export", f"mnist:v{LAST}", store.parent / "out", "--store", store, code=11)
    assert part in said.output
    run("export", "mnist:v1", store.parent / "good", "--store", store)
    assert b"1" == (store.parent / "good/config").read_bytes()
    said = run("fsck", "--store", store, code=11)
    assert part in said.output
    run("fsck", "--repair", "--store", store)
    assert "damage" in run("show", f"mnist:v{LAST}", "--store", store).output
    run("fsck", "--store", store)


@pytest.mark.parametrize("header", [True, False])
def test_a_checkpoint_that_unpacks_to_gigabytes_is_passed_over(
    store: Path, *, header: bool
) -> None:
    compressor = zstandard.ZstdCompressor(level=19).compressobj()
    pieces = []
    if header:
        says = {"format": 1, "schema": 3, "sequence": 2, "rows": 1, "size": 4 << 30}
        pieces.append(
            compressor.compress(msgspec.json.encode({**says, "digest": "0" * 64}) + b"\n")
        )
    for _ in range(1024):
        pieces.append(compressor.compress(bytes(4 << 20)))  # noqa: PERF401
    bomb = b"".join([*pieces, compressor.flush()])
    assert len(bomb) < 1 << 20
    (store / "checkpoints").mkdir()
    path = store / f"checkpoints/{2:020d}.zst"
    path.write_bytes(bomb)
    path.chmod(0o444)
    shutil.rmtree(store / "index")

    assert "mnist" in run("ls", "--store", store).output
    assert path.name in run("fsck", "--store", store).output
    run("fsck", "--repair", "--store", store)
    assert path.stat().st_size < 1 << 16
