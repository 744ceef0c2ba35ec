"""Whom a mount lets in, as what they act there, and what they get of a disk: where it is not plain.

A daemon that cannot act for others lets nobody else write. One that does not see a caller's process
knows of his user and group, and takes him to be in no other.
"""

import errno
import os
import signal
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


# ---- what a file system keeps in reserve


@contextmanager
def disk_with_a_reserve(place: Path) -> Iterator[Path]:
    """Mount a disk of 64 MiB, of which a quarter is root's."""
    image, point = place / "image", place / "disk"
    with image.open("wb") as file:
        file.truncate(64 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "25", image], check=True)
    point.mkdir()
    subprocess.run(["mount", "-o", "loop", image, point], check=True)
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
@pytest.mark.parametrize("gesture", [fill, allocate])
def test_nobody_gets_the_reserve(
    make_mount: MakeMount, tmp_path: Path, gesture: object, piece: int
) -> None:
    """No more than natively, by passthrough and without: the reserve is there for root."""
    assert callable(gesture)
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
            natively = nobody.do(gesture, f"{plain}/file", piece)
            (plain / "file").unlink()
            os.sync()
            time.sleep(0.1)
            nobody.do(os.mkdir, f"{mount.path}/staging/draft")
            came = nobody.do(gesture, f"{mount.path}/staging/draft/file", piece)
            assert natively > 30 * MIB
            assert abs(came - natively) <= 2 * MIB, (came, natively)
            root = Person("root", 0)
            try:
                assert root.do(gesture, f"{plain}/roots", piece) > 8 * MIB
            finally:
                root.end()
        finally:
            nobody.end()
            mount.stop()
