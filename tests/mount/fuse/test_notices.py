"""Promises of the notices: what the vfs says has changed, the kernel forgets."""

import errno
import os
import select
import subprocess
import threading
import time
from pathlib import Path

import pytest

from mregfs.fuse.notices import Notices

SOON = 10.0


def test_attributes_that_the_kernel_would_keep_are_forgotten(loopbacks):
    loopback = loopbacks().start()
    assert 1 == (loopback.path / ".stale").stat().st_size
    file = os.open(loopback.path / ".stale", os.O_WRONLY)
    os.write(file, b"x")
    deadline = time.monotonic() + SOON
    while (loopback.path / ".stale").stat().st_size == 1:
        assert time.monotonic() < deadline
    os.close(file)

    assert 2 == (loopback.path / ".stale").stat().st_size
    assert 0 == loopback.stop()


def test_a_negative_entry_is_cached_until_the_name_is_forgotten(loopbacks):
    loopback = loopbacks().start()
    names = [loopback.path / ".nothing"] * 5
    assert [False] * 5 == [name.exists() for name in names]
    looked = loopback.state()["calls"]["lookup"]
    assert [False] * 5 == [name.exists() for name in names]
    again = loopback.state()["calls"]["lookup"]
    assert again - looked <= 1  # of .state itself

    file = os.open(loopback.path / ".stale", os.O_WRONLY)
    os.write(file, b"x")
    deadline = time.monotonic() + SOON
    while loopback.state()["calls"]["lookup"] == again:
        assert not names[0].exists()
        assert time.monotonic() < deadline
    os.close(file)
    assert 0 == loopback.stop()


def test_notices_while_the_directory_is_busy_block_nobody(loopbacks):
    """Names are invalidated while other processes make and remove entries in the same directory."""
    loopback = loopbacks().start()
    stop = threading.Event()

    def churn(number):
        count = 0
        while not stop.is_set():
            path = loopback.path / f"{number}-{count}"
            path.mkdir()
            path.rmdir()
            count += 1

    threads = [threading.Thread(target=churn, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    file = os.open(loopback.path / ".stale", os.O_WRONLY)
    for _ in range(500):
        os.write(file, b"x")
    stop.set()
    for thread in threads:
        thread.join(SOON)
        assert not thread.is_alive()
    os.close(file)

    assert 501 == (loopback.path / ".stale").stat().st_size
    assert 0 == loopback.stop()


def test_a_killed_daemon_leaves_nobody_waiting(loopbacks):
    """Not even when a notice waits for a lock, whose holder waits for an answer of the daemon.

    The kernel then never sees the end of a process that has /dev/fuse open.
    """
    loopback = loopbacks().start()
    errors = []

    def make():
        try:
            (loopback.path / ".stuck").mkdir()
        except OSError as exc:
            errors.append(exc.errno)

    maker = threading.Thread(target=make, daemon=True)
    file = os.open(loopback.path / ".stale", os.O_WRONLY)
    try:
        maker.start()
        while not waits_for_a_lock(loopback.daemon.pid):
            os.write(file, b"x")
        loopback.daemon.kill()
        maker.join(SOON)

        assert [errno.ECONNABORTED] == errors
        with pytest.raises(OSError, match="not connected"):
            os.statvfs(loopback.path)
        assert f" {loopback.path} " in Path("/proc/self/mountinfo").read_text()
    finally:
        subprocess.run(["umount", "-f", "-l", loopback.path], check=True)
        os.close(file)


def waits_for_a_lock(pid):
    """Tell whether a thread is in uninterruptible sleep, and stays there."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        for _ in range(10):
            if (task / "stat").read_text().rpartition(")")[2].split()[0] != "D":
                break
            time.sleep(0.01)
        else:
            return True
    return False


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_the_guard_ends_with_the_daemon(loopbacks, end):
    """However that ends."""
    loopback = loopbacks().start()
    (guard,) = wait_for_children(loopback.daemon.pid)
    process = os.pidfd_open(guard)
    getattr(loopback, end)()

    assert [process] == select.select([process], [], [], SOON)[0]
    os.close(process)


def wait_for_children(pid):
    deadline = time.monotonic() + SOON
    while not (found := Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        assert time.monotonic() < deadline
    return [int(each) for each in found]


def test_before_the_start_and_after_the_stop_they_are_dropped():
    notices = Notices()
    notices.forget_name(1, b"x")
    notices.forget_attributes(1)

    assert notices.drain(0)
    assert notices.stop(0)
