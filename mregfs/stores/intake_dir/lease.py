"""Read leases: how the kernel tells whether anybody can write a file.

Decided here: what its answers mean. Not decided here: what is done about a busy file.

A read lease is refused (EAGAIN) while any descriptor, here or in another process, or any shared
writable mapping can change the file; the descriptor of the lease itself must be read-only. While
it is held, an open for writing waits, and `held` says no from then on (fcntl(2), F_SETLEASE).
"""

import contextlib
import errno
import fcntl
import os
import signal

__all__ = ["Busy", "Unleasable", "give_back", "held", "take"]


class Busy(Exception):  # noqa: N818
    """Somebody can write the file now."""


class Unleasable(Exception):  # noqa: N818
    """The kernel does not say: another user's file, or a network file system."""


def take(fd: int) -> None:
    """Take a read lease on a read-only descriptor; closing it gives the lease back.

    Raises:
        Busy: the file is open for writing, or mapped writable.
        Unleasable: there are no leases for this file.
    """
    try:
        # The signal of a broken lease would otherwise be SIGIO, which ends a process. This one is
        # ignored unless somebody asked for it.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as exc:
        # An NFS client says EAGAIN for every file that it has no delegation of.
        if exc.errno == errno.EAGAIN and not _is_remote(fd):
            raise Busy from None
        raise Unleasable from None


def give_back(fd: int) -> None:
    """Let writers go on at once, also while another thread is writing the file to the disk."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def held(fd: int) -> bool:
    """Tell whether the lease is still whole: nobody tried to open the file for writing."""
    return fcntl.fcntl(fd, fcntl.F_GETLEASE) == fcntl.F_RDLCK


def _is_remote(fd: int) -> bool:
    device = os.fstat(fd).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace", newline="\n") as mounts:
        for line in mounts:
            fields, _, tail = line.partition(" - ")
            if fields.split(" ", 3)[2] == wanted:
                return tail.startswith(("nfs", "cifs", "smb", "ceph", "9p", "lustre", "gpfs"))
    return False
