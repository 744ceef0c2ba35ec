"""Copies in one piece: what is copied, what is verified, what is evicted, what a pin keeps."""

import errno
import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mregfs.api import Registry, Store, init_store
from mregfs.errors import (
    CorruptError,
    HostError,
    InvalidError,
    NoSpaceError,
    NotFoundError,
    UnavailableError,
)
from mregfs.host.beneath import Beneath
from mregfs.registry.keep.aliased import Aliased
from mregfs.registry.keep.coalesce import Stopped
from mregfs.stores.index_memory import IndexMemory
from mregfs.stores.whole_files_dir import WholeFilesDirectory, default_limit
from tests.registry.rig import flip

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
        for each in (Path(registry.store.path) / "cache/whole").glob("??/*")
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
    expected_warnings.expect("is not made whole|damaged")
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
    expected_warnings.expect(f"v1 .* is not made whole: cannot read '{bad}'")
    aliased.follow()

    assert ["extents", "coalesced"] == [path_of(registry, each) for each in ("v1", "v3")]
    monkeypatch.undo()
    aliased.follow()
    assert "extents" == path_of(registry, "v1")  # an error of the disk is not asked for twice


def failing_reads(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Let a disk fail that holds one file."""
    inode = path.stat().st_ino
    for name in ("pread", "copy_file_range"):
        call = getattr(os, name)

        def fail(fd: int, *rest: Any, call: Callable[..., Any] = call) -> Any:
            if os.fstat(fd).st_ino == inode:
                raise OSError(errno.EIO, "Input/output error")
            return call(fd, *rest)

        monkeypatch.setattr(os, name, fail)

    def fail_to_clone(*arguments: Any) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "ioctl", fail_to_clone)


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


# ---- the cache itself


class Bytes:
    """A pack that is a file."""

    def __init__(self, path: Path, data: bytes) -> None:
        path.write_bytes(data)
        self._fd = os.open(path, os.O_RDONLY)
        self.size = len(data)

    def backing(self) -> int:
        return self._fd

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._fd, length, offset)

    def close(self) -> None:
        os.close(self._fd)


@pytest.fixture
def whole(tmp_path: Path) -> WholeFilesDirectory:
    return WholeFilesDirectory(Beneath.at(tmp_path))


@pytest.fixture
def add(whole: WholeFilesDirectory, tmp_path: Path) -> Callable[..., bool]:
    def add(digest: str, size: int, keep: tuple[str, ...] = ()) -> bool:
        pack = Bytes(tmp_path / "pack", bytes(size))
        draft = whole.create(digest, size, keep)
        if draft is not None:
            with draft:
                draft.append(pack, 0, size)
                draft.finish()
        pack.close()
        return draft is not None

    return add


def test_nothing_is_seen_before_it_is_finished(whole, tmp_path):
    pack = Bytes(tmp_path / "pack", b"abcdef")
    draft = whole.create(A, 4)
    draft.append(pack, 1, 2)

    assert whole.open(A) is None
    assert b"bc" == draft.read(0, 4)
    assert 4 == whole.figures().used
    with pytest.raises(InvalidError):
        draft.finish()
    with pytest.raises(InvalidError):
        draft.append(pack, 0, 3)
    with pytest.raises(CorruptError):
        draft.append(pack, 5, 2)

    draft.append(pack, 4, 2)
    draft.finish()
    draft.close()
    with_bytes = whole.open(A)
    assert b"bcef" == with_bytes.read(0, 100)
    assert 4 == with_bytes.size
    with_bytes.close()
    pack.close()


@pytest.mark.parametrize("offset", [0, 1])  # as for reflinks, and not so
def test_an_error_says_whether_reading_or_writing_failed(whole, tmp_path, monkeypatch, offset):
    pack = Bytes(tmp_path / "pack", bytes(3 * 4096))
    draft = whole.create(A, 2 * 4096)
    failing_reads(monkeypatch, tmp_path / "pack")
    with pytest.raises(HostError, match=r"cannot read '.*/pack': Input/output error") as caught:
        draft.append(pack, offset, 4096)
    assert errno.EIO == caught.value.errno

    monkeypatch.undo()
    monkeypatch.setattr(os, "copy_file_range", _refuse)
    monkeypatch.setattr(os, "pwrite", _refuse)
    with pytest.raises(NoSpaceError, match=rf"cannot write '.*/{A}\..*': No space left"):
        draft.append(pack, offset, 4096)
    draft.close()
    pack.close()


def _refuse(*arguments: Any) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_what_was_unused_longest_is_evicted_first(whole, add):
    whole.set_limit(100)
    for number, digest in enumerate((A, B)):
        add(digest, 40)
        os.utime(f"{whole.path}/{digest[:2]}/{digest}", (1000 + number, 1000))
    whole.open(A).close()

    assert add(C, 60)
    assert {A: 40, C: 60} == whole.files()


def test_pinned_and_kept_files_stay(whole, add):
    whole.set_limit(100)
    whole.pin("x", [A])
    add(A, 40)
    add(B, 40)

    assert not add(C, 40, keep=(B,))
    assert {A: 40, B: 40} == whole.files()
    assert not add(C, 80)
    assert {A: 40, B: 40} == whole.files()  # nothing is evicted in vain
    assert add(C, 60)
    assert {A: 40, C: 60} == whole.files()
    assert (100, 100, 2, 40) == tuple(
        getattr(whole.figures(), name) for name in ("limit", "used", "files", "pinned")
    )


def test_the_limit_counts_what_others_are_making(whole, add, tmp_path):
    other = WholeFilesDirectory(Beneath.at(tmp_path))
    whole.set_limit(100)
    draft = other.create(A, 80)

    assert not add(B, 40)
    draft.close()
    assert add(B, 40)


def test_what_a_crash_left_makes_room(whole, add):
    whole.set_limit(100)
    draft = whole.create(A, 80)
    os.close(draft._fd)  # as the end of the process does

    assert 80 == whole.figures().used
    assert add(B, 40)
    assert 40 == whole.figures().used


def test_an_open_file_outlives_its_eviction(whole, add):
    add(A, 40)
    opened = whole.open(A)
    whole.delete(A)

    assert bytes(40) == opened.read(0, 40)
    opened.close()
    assert whole.open(A) is None


def test_unreadable_pins_are_none(whole, add, expected_warnings):
    whole.pin("x", [A])
    (Path(whole.path) / "pins.json").write_text("{")
    expected_warnings.expect("nothing is pinned")

    assert {} == whole.pins()


def test_nothing_is_made_where_the_disk_is_not(tmp_path):
    (tmp_path / "store").mkdir()
    whole = WholeFilesDirectory(Beneath.at(tmp_path / "store"))
    (tmp_path / "store").rmdir()

    assert whole.open(A) is None
    assert {} == whole.files()
    whole.set_limit(None)
    assert [] == list(tmp_path.iterdir())


def test_the_default_is_a_tenth_and_not_more_than_32_gib():
    assert 10 << 30 == default_limit(100 << 30)
    assert 32 << 30 == default_limit(10 << 40)


def test_a_full_disk_makes_no_copy_and_no_error(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "mregfs-test", disk], check=True)
    try:
        whole = WholeFilesDirectory(Beneath.at(disk))
        whole.set_limit(100 * MIB)
        assert whole.create(A, 3 * MIB) is None
        assert 0 == whole.figures().used
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.slow
def test_reflinks_take_no_space(tmp_path):
    """On XFS what is equally aligned is shared with the packs; the rest is copied."""
    if os.geteuid() != 0 or shutil.which("mkfs.xfs") is None:
        pytest.skip("needs root and mkfs.xfs")
    image, disk = tmp_path / "image", tmp_path / "disk"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(400 * MIB)
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, disk], check=True)
    try:
        whole = WholeFilesDirectory(Beneath.at(disk))
        data = os.urandom(16 * MIB + 1000)
        pack = Bytes(disk / "pack", data)
        os.fsync(pack.backing())
        before = os.statvfs(disk).f_bfree
        with whole.create(A, 12 * MIB + 77) as draft:
            draft.append(pack, 100, 12 * MIB + 77)  # not aligned alike: copied
            draft.finish()
        with whole.create(B, 16 * MIB + 1000) as draft:
            draft.append(pack, 0, 10 * MIB + 5)
            draft.append(pack, 10 * MIB + 5, 6 * MIB + 995)
            draft.finish()
        opened = whole.open(B)
        assert data == opened.read(0, 20 * MIB)
        opened.close()
        opened = whole.open(A)
        assert data[100 : 100 + 12 * MIB + 77] == opened.read(0, 20 * MIB)
        opened.close()
        pack.close()
        block = os.statvfs(disk).f_bsize
        taken = (before - os.statvfs(disk).f_bfree) * block
        assert taken < 16 * MIB
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_the_store_keeps_its_cache_beside_its_packs(store: Store):
    assert os.path.dirname(store.packs_path) == str(Path(store.whole_files.path).parents[1])
