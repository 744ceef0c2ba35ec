"""A draft of more directories than the mount keeps the numbers of, when it becomes a version."""

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import MakeMount, Mount

MANY = 700
"""Directories; 256 of a draft keep their numbers for two seconds (`drafts/nodes.py`)."""

GONE = (errno.ENOENT, errno.ESTALE, errno.EIO)


@pytest.fixture
def mount(make_mount: MakeMount, tmp_path: Path) -> Iterator[Mount]:
    """A store on a file system with so few inodes that it uses numbers again at once."""
    disk = tmp_path / "disk"
    disk.mkdir()
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-N", "4000", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, disk], check=True)
    try:
        made: Mount = make_mount()
        made.store = disk / "store"
        made.environment["MREGFS_STORE"] = str(made.store)
        made.init()
        made.start()
        yield made
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_number_that_the_host_uses_again_is_another_directory(mount: Mount) -> None:
    """What is held of the old one is gone, and shows nothing of the new one."""
    old, new = mount.path / "staging/old", mount.path / "staging/new"
    for number in range(MANY):
        (old / f"d{number}").mkdir(parents=True)
        (old / f"d{number}/mine").write_bytes(b"")
    held = [os.open(old / f"d{number}", os.O_PATH) for number in range(MANY)]
    numbers = {os.fstat(fd).st_ino for fd in held}
    top = os.open(old, os.O_PATH)
    mount.control("commit old mnist\n")

    new.mkdir()
    for number in range(MANY):
        (new / f"n{number}").mkdir()
        (new / f"n{number}/secret").write_bytes(b"%d" % number)

    made = {entry.name: entry.stat().st_ino for entry in os.scandir(new)}
    if not numbers & set(made.values()):
        pytest.skip("the host used no number again this time")
    for number, fd in enumerate(held):
        assert _answer(lambda fd=fd: os.listdir(f"/proc/self/fd/{fd}")) in GONE
        assert _answer(lambda fd=fd: os.mkdir("late", dir_fd=fd)) in GONE
        path = f"d{number}/secret"
        assert _answer(lambda path=path: os.stat(path, dir_fd=top)) in GONE
    for number in range(MANY):
        assert ["secret"] == os.listdir(new / f"n{number}")
        assert b"%d" % number == (new / f"n{number}/secret").read_bytes()
    for fd in (*held, top):
        os.close(fd)
    assert MANY == len(os.listdir(mount.path / "artifacts/mnist/v0"))


def _answer(call: Callable[[], object]) -> object:
    try:
        return call()
    except OSError as exc:
        return exc.errno
