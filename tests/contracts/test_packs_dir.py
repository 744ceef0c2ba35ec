"""The packs in a directory keep the contract; and what they promise beyond."""

import errno
import itertools
import os
import pathlib
import tempfile
import threading

import pytest

from mregfs.errors import (
    ForbiddenError,
    HostError,
    NoSpaceError,
    NotFoundError,
)
from mregfs.host.beneath import Beneath
from mregfs.stores.packs_dir import PacksDirectory
from tests.contracts.pack_store import A, B, C, PackStoreContract


@pytest.fixture
def path(tmp_path):
    return tmp_path / "packs"


@pytest.fixture
def packs(path):
    packs = PacksDirectory(Beneath.at(path.parent))
    yield packs
    packs.close()


class TestPacksDirectory(PackStoreContract):
    @pytest.fixture
    def packs(self, path):
        packs = PacksDirectory(Beneath.at(path.parent))
        yield packs
        packs.close()


class TestPacksOnAnotherMount(PackStoreContract):
    """Files of another mount are copied when they are adopted."""

    @pytest.fixture
    def packs(self, path):
        packs = PacksDirectory(Beneath.at(path.parent))
        yield packs
        packs.close()

    @pytest.fixture
    def nearby(self):
        with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
            yield pathlib.Path(elsewhere)

    @pytest.mark.disk
    def test_a_file_of_another_mount_is_copied(self, packs, sealed):
        assert not packs.adopt(A, sealed(b"abc"))


def files_below(path: pathlib.Path) -> list[str]:
    return sorted(str(each.relative_to(path)) for each in path.rglob("*") if each.is_file())


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.disk
def test_what_is_in_memory_is_known(packs):
    """A guess by both ends of the range: what the medium has to be asked for takes a thread."""
    size = 4 << 20
    packs.create(A, [os.urandom(size)])
    packs.sync([A])
    with packs.open(A) as pack:
        pack.read(0, size)
        assert pack.is_cached(0, size)
        assert pack.is_cached(size - 1, 1)
        assert not pack.is_cached(0, size + 1)
        assert not pack.is_cached(size, 1)
        os.posix_fadvise(pack.backing(), 1 << 20, 0, os.POSIX_FADV_DONTNEED)
        assert pack.is_cached(0, 4096)
        assert not pack.is_cached(0, size)
        assert not pack.is_cached(2 << 20, 4096)


def test_list_names_all_packs_and_only_packs(packs, path):
    for pack in (C, A, B):
        packs.create(pack, [b"x"])
    (path / "aa" / "README").touch()
    (path / "lost+found").mkdir()
    (path / "bb").mkdir()
    (path / "bb" / A).touch()

    assert [A, B, C] == list(packs.list())


def test_packs_are_read_only_files_and_nothing_else_stays(packs, path):
    packs.create(A, [b"x"])

    assert [f"aa/{A}"] == files_below(path)
    found = (path / "aa" / A).stat()
    assert 0o444 == found.st_mode & 0o777
    assert 1 == found.st_nlink


@pytest.mark.usefixtures("umask_077")
def test_a_umask_keeps_nobody_from_reading_packs(packs, path):
    path.parent.chmod(0o755)
    packs.create(A, [b"x"])

    modes = [0o777 & place.stat().st_mode for place in (path, path / "aa", path / "aa" / A)]
    assert [0o755, 0o755, 0o444] == modes


def test_a_deleted_pack_stays_readable_where_it_is_open(packs):
    packs.create(A, [b"abc"])
    pack = packs.open(A)

    packs.delete(A)
    packs.delete(A)

    assert b"abc" == pack.read(0, 3)
    with pytest.raises(NotFoundError):
        packs.open(A)
    before = open_descriptors()
    pack.close()
    assert before - 1 == open_descriptors()


def test_sync_makes_files_durable_before_directories(packs, path, monkeypatch):
    for pack in (A, B, C):
        packs.create(pack, [b"x"])
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))

    packs.sync([A, B, C])

    files, directories, root = sorted(synced[:3]), sorted(synced[3:6]), synced[6:]
    assert [f"{path}/aa/{A}", f"{path}/ab/{B}", f"{path}/cc/{C}"] == files
    assert [f"{path}/aa", f"{path}/ab", f"{path}/cc"] == directories
    assert [str(path.parent), str(path)] == sorted(root)
    synced.clear()
    packs.sync([A])
    # The name of `packs` itself once: whoever made it may have done nothing else.
    assert [f"{path}/aa/{A}", f"{path}/aa", str(path)] == synced


def test_syncing_nothing_costs_nothing(packs, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda fd: pytest.fail("synced"))

    packs.sync([])


def test_descriptors_stay_open_up_to_the_limit(path):
    packs = PacksDirectory(Beneath.at(path.parent), open_packs=2)
    before = open_descriptors()
    ids = [f"{number:032x}" for number in range(5)]
    for pack in ids:
        packs.create(pack, [pack.encode()])
        packs.open(pack).close()
    assert before + 2 == open_descriptors()

    held = [packs.open(pack) for pack in ids]
    assert [pack.encode() for pack in ids] == [each.read(0, 99) for each in held]
    for each in held:
        each.close()

    assert before + 2 == open_descriptors()
    packs.close()
    assert before == open_descriptors()
    packs.open(ids[0]).close()
    assert before == open_descriptors()


def test_descriptors_of_packs_deleted_elsewhere_are_released(packs, path):
    for pack in (A, B):
        packs.create(pack, [b"x"])
        packs.open(pack).close()
    held = packs.open(A)
    before = open_descriptors()

    for pack in (A, B):
        with Beneath.at(path.parent) as top:
            PacksDirectory(top).delete(pack)

    assert 2 == packs.release_deleted()
    assert before - 1 == open_descriptors()
    assert b"x" == held.read(0, 1)
    held.close()
    assert before - 2 == open_descriptors()
    assert 0 == packs.release_deleted()


def test_threads_share_descriptors_without_mixing_packs_up(path):
    """The cache is smaller than the number of packs, so descriptors are closed and reused."""
    packs = PacksDirectory(Beneath.at(path.parent), open_packs=2)
    ids = [f"{number:032x}" for number in range(6)]
    for pack in ids:
        packs.create(pack, [pack.encode() * 10])
    failures: list[object] = []

    def read(seed: int) -> None:
        for turn in range(300):
            pack = ids[(turn * seed) % len(ids)]
            with packs.open(pack) as opened:
                if opened.read(320 - 32, 32) != pack.encode():
                    failures.append(pack)

    before = open_descriptors()
    threads = [threading.Thread(target=read, args=(seed,)) for seed in (1, 2, 3, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [] == failures
    packs.close()
    assert before == open_descriptors()


def test_what_crashes_left_is_swept_after_a_day(packs, path):
    (path / "tmp").mkdir(parents=True)
    for name, age in (("old", 2 * 86400), ("young", 3600)):
        left = path / "tmp" / name
        left.touch()
        modified = left.stat().st_mtime - age
        os.utime(left, (modified, modified))

    packs.create(A, [b"x"])

    assert [f"aa/{A}", "tmp/young"] == files_below(path)


def test_after_a_kill_every_pack_is_whole(packs, path, start):
    piece = os.urandom(1 << 16)

    def write() -> None:
        for number in itertools.count():
            PacksDirectory(Beneath.at(path.parent)).create(f"{number:032x}", [piece, piece])

    child = start(write)
    while f"{9:032x}" not in packs.list():
        pass
    os.kill(child, 9)
    os.waitpid(child, 0)

    for pack in packs.list():
        with packs.open(pack) as opened:
            assert piece + piece == opened.read(0, 1 << 20)


def test_a_store_that_was_removed_is_not_made_and_not_empty(tmp_path):
    path = tmp_path / "gone"
    path.mkdir()
    packs = PacksDirectory(Beneath.at(path))
    path.rmdir()

    for use in (packs.open, packs.size, lambda pack: packs.create(pack, [b"x"]),
                lambda pack: packs.sync([pack]), lambda pack: list(packs.list())):  # fmt: skip
        with pytest.raises(HostError, match="removed") as caught:
            use(A)
        assert errno.EIO == caught.value.errno

    assert not path.exists()


def test_a_full_disk_stores_nothing_and_loses_nothing(small_disk):
    packs = PacksDirectory(Beneath.at(small_disk))
    packs.create(A, [bytes(1 << 20)])
    free = packs.free_bytes()
    assert 0 < free <= 1 << 20

    with pytest.raises(NoSpaceError):
        packs.create(B, itertools.repeat(bytes(1 << 16)))

    assert [A] == list(packs.list())
    assert [f"aa/{A}"] == files_below(small_disk / "packs")
    assert free == pytest.approx(packs.free_bytes(), abs=1 << 14)
    packs.create(B, [b"works again"])


def test_packs_of_another_user_can_be_read_but_not_written(packs, path, as_nobody):
    for each in path.parents:  # pytest's own directories are its user's alone
        if not each.stat().st_mode & 0o001:
            each.chmod(0o755)
    packs.create(A, [b"x"])

    def use() -> None:
        theirs = PacksDirectory(Beneath.at(path.parent))
        with theirs.open(A) as pack:
            assert b"x" == pack.read(0, 1)
        for change in (lambda: theirs.create(B, []), lambda: theirs.delete(A)):
            with pytest.raises(ForbiddenError, match="permissions"):
                change()

    as_nobody(use)


def test_a_file_is_adopted_by_a_second_name(packs, path, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    with file.open("rb") as opened:
        assert packs.adopt(A, opened.fileno())

    assert [f"aa/{A}"] == files_below(path)
    assert 2 == file.stat().st_nlink
