"""The guard of a mount: ends the requests that a killed daemon would leave unanswered for ever.

Decided here: when a daemon counts as stuck in its own end, and how its requests are ended. Not
decided here: for how long there is a guard (`serve` starts and ends it). A program of its own, run
with `-I -S`: it imports nothing of mregfs, and has 4 MB of its own.

What a killed process had open is closed when its last thread ends. The thread of the notices may
wait in the kernel for a lock, whose holder waits for an answer of this very daemon: neither ends,
/dev/fuse stays open, and nobody gets ENOTCONN (passthrough.md, *When the daemon is killed*).
"""

import ctypes
import os
import select
import signal
import sys

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1
_MNT_FORCE = 1
_UMOUNT_NOFOLLOW = 8

_PATIENCE = 1.0
"""Seconds that a killed daemon has to end by itself; it takes some milliseconds."""


def main(daemon: int, device: str, place: str) -> None:
    """Wait for the end of the parent's main thread; if the parent does not end with it, abort.

    Args:
        daemon: the parent's process id.
        device: `major:minor` of its mount.
        place: the mount point.
    """
    # A service manager sends SIGTERM to all of a service: the daemon then needs its guard yet.
    signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGUSR1)
    try:
        process = os.pidfd_open(daemon)
    except OSError:  # it has ended already
        return
    while os.getppid() == daemon:
        if signal.sigwaitinfo([signal.SIGUSR1]).si_pid == daemon:
            break
    ended, _, _ = select.select([process], [], [], _PATIENCE)
    if not ended and not _abort_connection(device):
        _force(libc, device, place)


def _abort_connection(device: str) -> bool:
    """Abort by fusectl, which also an ordinary user may; False where that is not mounted."""
    major, minor = device.split(":")
    connection = os.makedev(int(major), int(minor))
    try:
        with open(f"/sys/fs/fuse/connections/{connection}/abort", "w", encoding="ascii") as file:
            file.write("1")
    except OSError:
        return False
    return True


def _force(libc: ctypes.CDLL, device: str, place: str) -> None:
    """Abort by an unmount, which fails: for the mount is in use, by us."""
    try:
        held = os.open(place, os.O_PATH | os.O_NOFOLLOW)
        if _device_of(held) == device:  # and not of another mount there by now
            libc.umount2(os.fsencode(place), _MNT_FORCE | _UMOUNT_NOFOLLOW)
    except OSError:  # it was unmounted
        pass


def _device_of(descriptor: int) -> str:
    """Return `major:minor` of the mount that a descriptor is on; the mount is not asked."""
    with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as lines:
        number = next((line.split()[1] for line in lines if line.startswith("mnt_id:")), "")
    with open("/proc/self/mountinfo", "rb") as mounts:
        for mount in mounts:
            fields = mount.decode("utf-8", "replace").split(" ", 3)
            if fields[0] == number:
                return fields[2]
    return ""


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
