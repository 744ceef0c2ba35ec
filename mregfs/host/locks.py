"""Locks on files, flock(2): waited for no longer than is sensible.

Decided here: how long, and that who holds a lock is named. Not decided here: which files are
locked; whoever cannot write one cannot open it (`beneath`, and the modes that the adapters give).
"""

import contextlib
import fcntl
import os
import time

from mregfs.errors import UnavailableError

__all__ = ["PATIENCE_SECONDS", "holders", "lock", "try_lock", "unlock"]

PATIENCE_SECONDS = 10.0
"""Nobody of us holds a lock that others wait for longer than some seconds."""

_SHORTEST, _LONGEST = 0.0005, 0.05


def try_lock(fd: int, *, shared: bool = False) -> bool:
    """Lock an open file, unless somebody else has locked it otherwise."""
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock(fd: int, path: str, *, shared: bool = False, seconds: float | None = None) -> None:
    """Lock an open file; `path` names it in the message.

    Raises:
        UnavailableError: somebody else holds it for too long; it says who.
    """
    deadline = time.monotonic() + (PATIENCE_SECONDS if seconds is None else seconds)
    pause = _SHORTEST
    while not try_lock(fd, shared=shared):
        if time.monotonic() > deadline:
            found = holders(fd)
            held = f"is locked by {' and '.join(found)}" if found else "stays locked"
            raise UnavailableError(f"{path} {held}", "end that process, or wait for it")
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST)


def unlock(fd: int) -> None:
    """Unlock and close a file."""
    # Said, not left to close(2): a child may have inherited the descriptor, and the lock with it.
    with contextlib.suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


def holders(fd: int) -> list[str]:
    """Return who holds a lock on an open file, as `process 42 (mregfs mount …)`; maybe nobody.

    Those of other pid name spaces and of other hosts are not known.
    """
    found = os.fstat(fd)
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
    exact: list[int] = []
    alike: list[int] = []
    try:
        with open("/proc/locks", encoding="ascii") as table:
            for line in table:
                # 1: FLOCK  ADVISORY  WRITE 1234 08:01:262151 0 EOF; waiting ones have -> behind 1:
                fields = line.split()
                if fields[1:2] != ["FLOCK"] or len(fields) < 6:
                    continue
                place, _, inode = fields[5].rpartition(":")
                if inode == str(found.st_ino):
                    # Btrfs and overlayfs tell stat(2) another device than this table.
                    (exact if place == device else alike).append(int(fields[4]))
    except (OSError, ValueError):
        return []
    pids = dict.fromkeys(pid for pid in exact or alike if pid > 0)
    return [f"process {pid}{_command_of(pid)}" for pid in pids]


def _command_of(pid: int) -> str:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        words = file.read(4096).rstrip(b"\0").split(b"\0")
        command = " ".join(word.decode("utf-8", "replace") for word in words)
        if command:
            return f" ({command[:200]!r})"
    return ""
