"""Whole-file copies: what is copied, what is verified, what is evicted, what a pin keeps."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mregfs.api import Registry, Store, init_store
from mregfs.errors import (
    CorruptError,
    NoSpaceError,
    NotFoundError,
    UnavailableError,
)
from mregfs.registry.keep.aliased import Aliased
from mregfs.registry.keep.coalesce import Stopped
from mregfs.stores.index_memory import IndexMemory
from tests.registry.rig import failing_reads, flip

MIB = 1 << 20
A, B, C = ("a" * 64, "ab" + "0" * 62, "c" * 64)


def two_versions(registry: Registry, directory: Path, size: int = 12 * MIB) -> dict[str, bytes]:
    """Commit a model, and one that differs in the middle: of that, the file is in pieces."""
    data = os.urandom(size)
    tuned = data[: size // 2 + 100] + os.urandom(5000) + data[size // 2 + 4100 :]
    for name, content in (("one", data), ("two", tuned)):
        (directory / name).mkdir()
        (directory / name / "model.bin").write_bytes(content)
        (directory / name / "small.txt").write_bytes(b"small")
        registry.commit(directory / name, "mnist")
    return {"v0": data, "v1": tuned}


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    init_store(tmp_path / "store")
    with Registry(tmp_path / "store") as registry:
        yield registry


@pytest.fixture
def models(registry: Registry, tmp_path: Path) -> dict[str, bytes]:
    return two_versions(registry, tmp_path)


def path_of(registry: Registry, version: str, name: str = "model.bin") -> str:
    """Return how a file would be read."""
    record = registry._way._loaded(registry._locate(f"mnist:{version}"))
    entry = registry.store.content.find_path(record, name)
    assert entry is not None
    with registry.store.content.open(record, entry.position) as opened:
        return opened.read_path


def backing(registry: Registry, version: str) -> bytes:
    """Return what the kernel would read."""
    record = registry._way._loaded(registry._locate(f"mnist:{version}"))
    entry = registry.store.content.find_path(record, "model.bin")
    assert entry is not None
    with registry.store.content.open(record, entry.position) as opened:
        return os.pread(opened.backing(), entry.size + 1, 0)


# ---- pins


def test_a_pinned_file_is_read_from_one_piece(registry, models):
    assert ["whole", "extents"] == [path_of(registry, each) for each in models]

    pin = registry.pin("mnist:v1")

    assert ("default/default/mnist:v1", 1, True) == (pin.version, pin.files, pin.complete)
    assert len(models["v1"]) == pin.size
    assert [pin] == registry.pinned()
    assert "coalesced" == path_of(registry, "v1")
    assert "inline" == path_of(registry, "v1", "small.txt")
    assert models["v1"] == backing(registry, "v1")
    assert models["v1"] == registry.read("mnist:v1", "model.bin")


def test_what_is_in_one_piece_anyway_needs_no_copy(registry, models):
    pin = registry.pin("mnist:v0")

    assert (0, 0, True) == (pin.files, pin.size, pin.complete)
    assert {} == registry.store.whole_files.files()


def test_pinning_twice_copies_once(registry, models):
    registry.pin("mnist:v1")
    before = {each.stat().st_ino for each in copies(registry)}
    registry.pin("mnist:v1")

    assert before == {each.stat().st_ino for each in copies(registry)}


def copies(registry: Registry) -> list[Path]:
    return [
        each
        for each in (Path(registry.store.host.cache.path) / "cache/whole").glob("??/*")
        if len(each.name) == 64
    ]


def test_unpinning_leaves_the_copy_until_others_need_its_room(registry, models):
    registry.pin("mnist:v1")
    registry.unpin("mnist:v1")

    assert [] == registry.pinned()
    assert "coalesced" == path_of(registry, "v1")

    registry.store.whole_files.set_limit(MIB)
    assert "extents" == path_of(registry, "v1")
    assert models["v1"] == registry.read("mnist:v1", "model.bin")


def test_a_pin_that_does_not_fit_is_refused_whole(registry, models):
    registry.store.whole_files.set_limit(4 * MIB)

    with pytest.raises(NoSpaceError, match="cache_size"):
        registry.pin("mnist:v1")
    assert [] == registry.pinned()
    assert [] == copies(registry)


def test_an_interrupted_pin_leaves_nothing(registry, models):
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        registry.pin("mnist:v1", progress=interrupt)
    assert [] == registry.pinned()
    assert 0 == registry.store.whole_files.figures().used


def test_damaged_packs_make_no_copy(registry, models):
    for pack in registry.store.packs.list():
        path = registry.store.packs.path_of(pack)
        if os.path.getsize(path) > 10 * MIB:
            flip(path, 3 * MIB)

    with pytest.raises(CorruptError, match="fsck"):
        registry.pin("mnist:v1")
    assert "extents" == path_of(registry, "v1")
    assert 0 == registry.store.whole_files.figures().used


def test_a_copy_of_the_wrong_size_is_not_used(registry, models):
    registry.pin("mnist:v1")
    (copy,) = copies(registry)
    copy.chmod(0o644)
    with copy.open("ab") as file:
        file.write(b"more")

    assert "extents" == path_of(registry, "v1")


def test_pins_and_copies_go_with_their_version(registry, models):
    registry.pin("mnist:v1")
    registry.remove("mnist:v1")
    registry.pin("mnist:v0")

    assert ["default/default/mnist:v0"] == [each.version for each in registry.pinned()]
    assert [] == copies(registry)
    with pytest.raises(NotFoundError):
        registry.unpin("mnist:v1")


def test_a_copy_stays_while_the_index_does_not_know_of_whom_it_is(registry, models):
    """As after a rebuild: content is indexed when it is first asked for."""
    registry.pin("mnist:v1")
    registry.unpin("mnist:v1")
    store = registry.store
    store.log.rebuild(IndexMemory())
    with store.index.read() as view:
        (digest,) = store.whole_files.files()
        assert view.get("file", bytes.fromhex(digest)) is None

    store.coalescer.sweep()

    assert 1 == len(copies(registry))
    assert "coalesced" == path_of(registry, "v1")


def test_with_copies_turned_off_none_is_used(registry, models, tmp_path):
    from mregfs.api import open_store

    registry.pin("mnist:v1")
    store = open_store(tmp_path / "store", coalesced=False)
    try:
        record = registry._way._loaded(registry._locate("mnist:v1"))
        entry = store.content.find_path(record, "model.bin")
        with store.content.open(record, entry.position) as opened:
            assert "extents" == opened.read_path
    finally:
        store.close()


# ---- what aliases point at


@pytest.fixture
def aliased(registry: Registry) -> Aliased:
    store = registry.store
    return Aliased(store.index, store.log.entries, store.coalescer)


def test_what_an_alias_points_at_gets_its_copies(registry, models, aliased):
    aliased.follow()
    assert "extents" == path_of(registry, "v1")  # `latest` alone is no reason

    registry.link("mnist:v1", "mnist:best")
    aliased.follow()
    assert "coalesced" == path_of(registry, "v1")


def test_aliases_of_collections_count_and_those_that_were_there_before(registry, models, aliased):
    registry.link("mnist:v1", "classifier:production")
    aliased.follow()

    assert "coalesced" == path_of(registry, "v1")


def test_what_an_alias_points_at_is_not_evicted_for_another(registry, tmp_path, aliased):
    two_versions(registry, tmp_path, 16 * MIB)
    (tmp_path / "three").mkdir()
    data = registry.read("mnist:v0", "model.bin")
    (tmp_path / "three/model.bin").write_bytes(data[:-50_000] + os.urandom(60_000))
    registry.commit(tmp_path / "three", "mnist")
    registry.store.whole_files.set_limit(24 * MIB)

    registry.link("mnist:v1", "mnist:best")
    aliased.follow()
    registry.link("mnist:v2", "mnist:good")
    aliased.follow()
    assert ["coalesced", "extents"] == [path_of(registry, each) for each in ("v1", "v2")]

    registry.remove("mnist:best")
    registry.link("mnist:v2", "mnist:better")
    aliased.follow()
    assert ["extents", "coalesced"] == [path_of(registry, each) for each in ("v1", "v2")]


def test_the_work_stops_when_nobody_waits_for_it_and_goes_on_later(registry, models, aliased):
    def stop(done: int, total: int) -> None:
        raise Stopped

    registry.link("mnist:v1", "mnist:best")
    with pytest.raises(Stopped):
        aliased.follow(stop)
    assert 0 == registry.store.whole_files.figures().used

    aliased.follow()
    assert "coalesced" == path_of(registry, "v1")


def test_a_damaged_version_does_not_stop_others(
    registry, models, aliased, expected_warnings, tmp_path
):
    expected_warnings.expect("has no whole-file copies|damaged")
    packs = registry.store.packs
    packs.delete(min(packs.list(), key=packs.size))
    other = tmp_path / "other"
    other.mkdir()
    two_versions(registry, other)
    registry.link("mnist:v3", "mnist:best")
    registry.link("mnist:v1", "mnist:first")
    aliased.follow()

    assert ["extents", "coalesced"] == [path_of(registry, each) for each in ("v1", "v3")]


def make_two(registry, tmp_path) -> Path:
    """Let aliases point at v3 and then at v1, both in pieces; return the largest pack of v1."""
    packs = registry.store.packs
    (tmp_path / "first").mkdir()
    two_versions(registry, tmp_path / "first")
    largest = packs.path_of(max(packs.list(), key=packs.size))
    (tmp_path / "second").mkdir()
    two_versions(registry, tmp_path / "second")
    registry.link("mnist:v3", "mnist:best")
    registry.link("mnist:v1", "mnist:first")
    return Path(largest)


def test_a_pack_that_cannot_be_read_does_not_stop_others(
    registry, aliased, expected_warnings, tmp_path, monkeypatch
):
    bad = make_two(registry, tmp_path)
    failing_reads(monkeypatch, bad)
    expected_warnings.expect(f"v1 .* has no whole-file copies: cannot read '{bad}'")
    aliased.follow()

    assert ["extents", "coalesced"] == [path_of(registry, each) for each in ("v1", "v3")]
    monkeypatch.undo()
    aliased.follow()
    assert "extents" == path_of(registry, "v1")  # an error of the disk is not asked for twice


@pytest.mark.parametrize("error", [NoSpaceError("full"), UnavailableError("no answer")])
@pytest.mark.parametrize("method", ["files", "coalesce"])
def test_what_may_succeed_later_is_tried_again(
    registry, aliased, tmp_path, monkeypatch, method, error
):
    make_two(registry, tmp_path)
    coalescer = registry.store.coalescer
    call = getattr(coalescer, method)

    def fail(version, *rest):
        if version.number == 1:
            raise error
        return call(version, *rest)

    monkeypatch.setattr(coalescer, method, fail)
    aliased.follow()
    reached = "coalesced" if method == "coalesce" else "extents"
    assert ["extents", reached] == [path_of(registry, each) for each in ("v1", "v3")]

    monkeypatch.undo()
    aliased.follow()
    assert ["coalesced", "coalesced"] == [path_of(registry, each) for each in ("v1", "v3")]


def test_the_store_keeps_its_cache_beside_its_packs(store: Store):
    assert str(store.address) == str(Path(store.whole_files.path).parents[1])
