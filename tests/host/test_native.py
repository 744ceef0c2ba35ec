"""System calls as another user: the kernel refuses what it would refuse that user himself."""

import os
import signal
import stat
import threading
from pathlib import Path

import pytest

from mregfs.host import _native
from mregfs.host.callers import Credentials, groups_of_process, why_not_for_others

ALICE = Credentials(4711, 4711)
MEMBER = Credentials(4711, 4711, (4800,))

pytestmark = pytest.mark.skipif(bool(why_not_for_others()), reason="acts as other users")


@pytest.fixture
def place(tmp_path: Path):
    """A directory of alice's in one that only root may enter."""
    (tmp_path / "roots").mkdir(mode=0o700)
    (tmp_path / "roots/alices").mkdir()
    os.chown(tmp_path / "roots/alices", 4711, 4711)
    descriptor = os.open(tmp_path / "roots/alices", os.O_PATH)
    yield descriptor
    os.close(descriptor)


def test_what_is_made_is_the_callers_at_once(place):
    os.close(_native.open(ALICE, place, b"file", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640))
    _native.mkdir(ALICE, place, b"directory", 0o750)
    _native.symlink(ALICE, b"target", place, b"link")
    _native.mknod(ALICE, place, b"pipe", stat.S_IFIFO | 0o600, 0)

    for name in ("file", "directory", "link", "pipe"):
        found = os.stat(name, dir_fd=place, follow_symlinks=False)
        assert (4711, 4711) == (found.st_uid, found.st_gid), name


def test_the_kernel_refuses_what_the_caller_may_not(place, tmp_path):
    os.chmod(f"/proc/self/fd/{place}", 0o555)
    os.chown(f"/proc/self/fd/{place}", 0, 0)
    with pytest.raises(PermissionError):
        _native.mkdir(ALICE, place, b"directory", 0o755)
    (tmp_path / "roots/alices/secret").write_bytes(b"")
    (tmp_path / "roots/alices/secret").chmod(0o600)
    secret = os.open("secret", os.O_PATH, dir_fd=place)
    try:
        for call in (
            lambda: _native.open(ALICE, place, b"secret", os.O_RDONLY, 0),
            lambda: _native.chmod(ALICE, secret, 0o644),
            lambda: _native.chown(ALICE, secret, 4711, 4711),
            lambda: _native.utimens(ALICE, secret, 0, 0),
            lambda: _native.access(ALICE, place, b"secret", os.R_OK, 0),
            lambda: _native.setxattr(ALICE, b"/proc/self/fd/%d" % secret, b"user.a", b"", 0),
        ):
            with pytest.raises(PermissionError):
                call()
    finally:
        os.close(secret)

    assert 0o600 == stat.S_IMODE(os.stat("secret", dir_fd=place).st_mode)


def test_devices_are_not_for_callers(place):
    with pytest.raises(PermissionError):
        _native.mknod(ALICE, place, b"device", stat.S_IFCHR | 0o666, os.makedev(1, 3))


def test_groups_open_what_is_theirs(place, tmp_path):
    groups_file = tmp_path / "roots/alices/groups"
    groups_file.write_bytes(b"")
    groups_file.chmod(0o660)
    os.chown(groups_file, 0, 4800)
    with pytest.raises(PermissionError):
        _native.open(Credentials(4711, 4711, ()), place, b"groups", os.O_RDWR, 0)
    os.close(_native.open(MEMBER, place, b"groups", os.O_RDWR, 0))


def test_credentials_are_given_back_in_all_cases(place):
    before = _credentials()
    _native.mkdir(MEMBER, place, b"directory", 0o755)
    with pytest.raises(FileExistsError):
        _native.mkdir(MEMBER, place, b"directory", 0o755)
    with pytest.raises((TypeError, OverflowError)):
        _native.mkdir((4711, 2**40, None), place, b"other", 0o755)

    assert before == _credentials()


def test_other_threads_keep_theirs(place):
    seen = set()
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            seen.add(_credentials())

    thread = threading.Thread(target=look)
    thread.start()
    for number in range(300):
        _native.mkdir(MEMBER, place, b"%d" % number, 0o755)
    stop.set()
    thread.join()

    assert {_credentials()} == seen


def _credentials() -> tuple[str, ...]:
    with open(f"/proc/self/task/{threading.get_native_id()}/status") as status:
        wanted = ("Uid:", "Gid:", "Groups:", "CapEff:")
        return tuple(line for line in status if line.startswith(wanted))


def test_groups_are_read_of_the_process():
    assert tuple(os.getgroups()) == groups_of_process(os.getpid())
    assert () == groups_of_process(0)


def test_groups_of_a_process_with_very_many() -> None:
    """Its status is longer than what is read of it at a time."""
    groups = tuple(range(100_000, 120_000))
    ready, told = os.pipe()
    child = os.fork()
    if not child:
        os.setgroups(groups)
        os.write(told, b"x")
        signal.pause()
    try:
        os.read(ready, 1)
        assert groups == groups_of_process(child)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(told)
