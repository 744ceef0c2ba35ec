"""The whole files in a directory keep the contract; and what they promise beyond."""

import errno
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mregfs.errors import HostError, NoSpaceError
from mregfs.host.beneath import Beneath
from mregfs.stores.whole_files_dir import WholeFilesDirectory, default_limit
from tests.contracts.host_cache import LIMIT, A, B, FileOfThisHost, WholeFilesContract
from tests.registry.rig import failing_reads

MIB = 1 << 20


class TestWholeFilesDirectory(WholeFilesContract):
    @pytest.fixture
    def whole(self, tmp_path):
        whole = WholeFilesDirectory(Beneath.at(tmp_path))
        whole.set_limit(LIMIT)
        return whole

    def not_used_for_long(self, whole, digests):
        for number, digest in enumerate(digests):
            os.utime(f"{whole.path}/{digest[:2]}/{digest}", (1000 + number, 1000))


@pytest.fixture
def whole(tmp_path: Path) -> WholeFilesDirectory:
    return WholeFilesDirectory(Beneath.at(tmp_path))


@pytest.fixture
def add(whole: WholeFilesDirectory, tmp_path: Path) -> Callable[..., bool]:
    def add(digest: str, size: int, keep: tuple[str, ...] = ()) -> bool:
        pack = FileOfThisHost(tmp_path / "pack", bytes(size))
        draft = whole.create(digest, size, keep)
        if draft is not None:
            with draft:
                draft.append(pack, 0, size)
                draft.finish()
        pack.close()
        return draft is not None

    return add


@pytest.mark.parametrize("offset", [0, 1])  # as for reflinks, and not so
def test_an_error_says_whether_reading_or_writing_failed(whole, tmp_path, monkeypatch, offset):
    pack = FileOfThisHost(tmp_path / "pack", bytes(3 * 4096))
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
        pack = FileOfThisHost(disk / "pack", data)
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
