"""Whom a mount lets in, as what they act there, and what they get of a disk: where it is not plain.

A daemon that cannot act for others lets nobody else write. One that does not see a caller's process
knows of his user and group, and takes him to be in no other.
"""

import ctypes
import errno
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.attack.people import Person, answer_of
from tests.mount.conftest import MakeMount, Mount

TEAM = 64210
NOBODY = 64209
MIB = 1 << 20


@pytest.fixture
def mount(make_mount: MakeMount) -> Mount:
    made = make_mount(options=("--allow-other",))
    made.path.parent.chmod(0o755)
    made.init()
    made.cli("access", "--writers", "*")
    return made


def _tried(mount: Mount, *program: str) -> tuple[int, str]:
    """Try to mount with a program before the words of the command; return how that ended."""
    done = subprocess.run(
        [*program, "mount", mount.store, mount.path, "--allow-other", "--foreground"],
        env=mount.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("lacking", ["setuid", "setgid", "chown", "fowner", "dac_override"])
def test_a_daemon_that_lacks_a_capability_lets_nobody_else_write(
    mount: Mount, lacking: str
) -> None:
    drop = f"-{lacking}"
    mregfs = (sys.executable, "-m", "mregfs")
    code, said = _tried(mount, "setpriv", "--bounding-set", drop, "--inh-caps", drop, *mregfs)
    assert 7 == code, said
    assert f"CAP_{lacking.upper()}" in said
    assert "--read-only" in said
    assert not mount.mounted()


def test_a_daemon_without_the_extension_lets_nobody_else_write(mount: Mount) -> None:
    without = (
        "import sys; sys.modules['mregfs.host._native'] = None\n"
        "from mregfs.__main__ import main; main()"
    )
    code, said = _tried(mount, sys.executable, "-c", without)
    assert 7 == code, said
    assert "mregfs.host._native is not built" in said
    assert not mount.mounted()


def write_new(path: str) -> tuple[int, int]:
    """Make a file; return whose it is."""
    with open(path, "x") as file:
        file.write("x")
        found = os.fstat(file.fileno())
    return found.st_uid, found.st_gid


def test_a_caller_outside_the_name_space_has_no_group_but_his_own(mount: Mount) -> None:
    """His process has no number that the daemon could look at; nobody else's groups are taken."""
    mount.runner = ("unshare", "--pid", "--fork", "--kill-child")
    mount.start()
    mount.runner = ()
    alice = Person("alice", 64201, (TEAM,))
    try:
        top = mount.path / "staging/draft"
        top.mkdir()
        os.chown(top, 0, TEAM)
        top.chmod(0o775)
        assert "EACCES" == answer_of(alice, write_new, f"{top}/hers")
        alice.do(os.mkdir, f"{mount.path}/staging/own")
        assert (64201, 64201) == alice.do(write_new, f"{mount.path}/staging/own/file")
        assert 64201 == (mount.store / "staging/default/default/own/file").stat().st_uid
    finally:
        alice.end()
        assert mount.daemon is not None
        parent = mount.daemon.pid  # unshare(1) passes no signal on
        (daemon,) = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        os.kill(int(daemon), signal.SIGTERM)
        mount.daemon.wait(30)


# ---- mounts that show other numbers of users


AT_FDCWD, AT_EMPTY_PATH = -100, 0x1000
OPEN_TREE_CLONE, MOVE_MOUNT_F_EMPTY_PATH = 1, 4
MOUNT_ATTR_IDMAP = 0x100000
OPEN_TREE, MOVE_MOUNT, MOUNT_SETATTR = 428, 429, 442  # the same on every architecture
CLONE_NEWUSER = 0x10000000

_libc = ctypes.CDLL(None, use_errno=True)


def _call(number: int, *words: object) -> int:
    result: int = _libc.syscall(number, *words)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


@contextmanager
def _shifted(by: int) -> Iterator[int]:
    """Give a descriptor of a user name space whose users have other numbers outside."""
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        try:
            _libc.unshare(CLONE_NEWUSER)
            os.write(ready[1], b"x")
            os.close(done[1])
            os.read(done[0], 1)
        finally:
            os._exit(0)
    try:
        os.read(ready[0], 1)
        for table in ("uid_map", "gid_map"):
            Path(f"/proc/{child}/{table}").write_text(f"0 {by} 65536")
        descriptor = os.open(f"/proc/{child}/ns/user", os.O_RDONLY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
    finally:
        os.close(done[1])
        os.waitpid(child, 0)
        for end in (*ready, done[0]):
            os.close(end)


def show_with_other_numbers(source: Path, target: Path, by: int) -> None:
    """Mount a directory once more, with the numbers of its users shifted."""
    tree = _call(OPEN_TREE, AT_FDCWD, os.fsencode(source), OPEN_TREE_CLONE)
    try:
        with _shifted(by) as space:
            attributes = struct.pack("=QQQQ", MOUNT_ATTR_IDMAP, 0, 0, space)
            _call(MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH, attributes, len(attributes))
        _call(MOVE_MOUNT, tree, b"", AT_FDCWD, os.fsencode(target), MOVE_MOUNT_F_EMPTY_PATH)
    finally:
        os.close(tree)


def test_a_mount_cannot_be_shown_with_other_numbers(mount: Mount, tmp_path: Path) -> None:
    """Who the kernel says that a caller is, he is everywhere."""
    for name in ("directory", "shown"):
        (tmp_path / name).mkdir()
    try:
        show_with_other_numbers(tmp_path / "directory", tmp_path / "shown", 100_000)
    except OSError as error:
        pytest.skip(f"this file system cannot be shown so either: {error}")
    subprocess.run(["umount", tmp_path / "shown"], check=True)
    mount.start()
    with pytest.raises(OSError, match="Invalid argument"):
        show_with_other_numbers(mount.path, tmp_path / "shown", 100_000)


def test_a_store_that_is_shown_with_other_numbers_is_as_closed(
    mount: Mount, tmp_path: Path
) -> None:
    """Whose it is counts as it is shown; and where numbers are the same, all is as elsewhere."""
    shown = tmp_path / "shown"
    shown.mkdir()
    try:
        show_with_other_numbers(mount.store, shown, 100_000)
    except OSError as error:
        pytest.skip(f"this file system cannot be shown so: {error}")
    own, mount.store = mount.store, shown
    code, said = _tried(mount, sys.executable, "-m", "mregfs")
    assert (7, True) == (code, "belongs to uid 100000" in said), said
    subprocess.run(["umount", shown], check=True)
    mount.store = own
    try:
        show_with_other_numbers(mount.store, shown, 0)
    except OSError as error:
        pytest.skip(f"this file system cannot be shown so: {error}")
    alice, bob = Person("alice", 64201), Person("bob", 64202)
    mount.store = shown
    mount.environment["MREGFS_STORE"] = str(shown)
    try:
        mount.start()
        top = f"{mount.path}/staging/draft"
        alice.do(os.mkdir, top)
        assert (64201, 64201) == alice.do(write_new, f"{top}/hers")
        assert "EACCES" == answer_of(bob, write_new, f"{top}/his")
    finally:
        alice.end()
        bob.end()
        assert 0 == mount.stop()
        subprocess.run(["umount", "-l", shown], check=True)


# ---- what a file system keeps in reserve


@contextmanager
def disk_with_a_reserve(place: Path) -> Iterator[Path]:
    """Mount a disk of 64 MiB, of which a quarter is for the user whom most hosts call nobody."""
    image, point = place / "image", place / "disk"
    with image.open("wb") as file:
        file.truncate(64 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "25", image], check=True)
    point.mkdir()
    options = "loop,resuid=65534,resgid=65534"
    subprocess.run(["mount", "-o", options, image, point], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", "-l", point], check=True)


def fill(path: str, piece: int) -> int:
    """Write until there is no room; return the size of the file."""
    with open(path, "xb", 0) as file:
        while True:
            try:
                if file.write(b"\1" * piece) == 0:
                    return file.tell()
            except OSError as full:
                if full.errno != errno.ENOSPC:
                    raise
                return file.tell()


def allocate(path: str, piece: int) -> int:
    """Have blocks given until there are none; return the size of the file."""
    with open(path, "xb", 0) as file:
        size = 0
        while True:
            try:
                os.posix_fallocate(file.fileno(), size, piece)
                size += piece
            except OSError as full:
                if full.errno != errno.ENOSPC:
                    raise
                return size


@pytest.mark.slow
@pytest.mark.parametrize("piece", [4096, MIB])
@pytest.mark.parametrize("operation", [fill, allocate])
def test_nobody_gets_the_reserve(
    make_mount: MakeMount, tmp_path: Path, operation: object, piece: int
) -> None:
    """No more than natively, by passthrough and without: the reserve is for another."""
    assert callable(operation)
    with disk_with_a_reserve(tmp_path) as disk:
        mount = make_mount(options=("--allow-other",))
        mount.path.parent.chmod(0o755)
        mount.store = disk / "store"
        mount.environment["MREGFS_STORE"] = str(mount.store)
        mount.init()
        mount.cli("access", "--writers", "*")
        mount.start()
        nobody = Person("nobody", NOBODY)
        try:
            plain = disk / "plain"
            plain.mkdir()
            plain.chmod(0o777)
            natively = nobody.do(operation, f"{plain}/file", piece)
            (plain / "file").unlink()
            os.sync()
            time.sleep(0.1)
            nobody.do(os.mkdir, f"{mount.path}/staging/draft")
            came = nobody.do(operation, f"{mount.path}/staging/draft/file", piece)
            assert natively > 30 * MIB
            assert abs(came - natively) <= 2 * MIB, (came, natively)
            kept_for = Person("for whom it is kept", 65534)
            try:
                assert kept_for.do(operation, f"{plain}/more", piece) > 8 * MIB
            finally:
                kept_for.end()
        finally:
            nobody.end()
            mount.stop()
