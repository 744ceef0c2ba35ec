"""Who makes a request, and whether this process can act with that user's own rights.

Decided here: how the supplementary groups of a caller are learnt, and on what acting for others
depends. Not decided here: what a caller asks for, what the registry's rules say of him.
"""

import contextlib
import os
from typing import NamedTuple

try:
    from mregfs.host import _native

    _why_not_built = ""
except ImportError as exc:
    _why_not_built = str(exc)

__all__ = [
    "CAP_SYS_RESOURCE",
    "Credentials",
    "give_up_privileges",
    "groups_of_process",
    "why_not_for_others",
]

CAP_SYS_RESOURCE = 24  # linux/capability.h

_NEEDED = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_FOWNER": 3,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
}
"""To act as another user, to walk to what only he may enter, and to take over what he commits."""

_STATUS_SIZE = 4096
"""Bytes of /proc/PID/status that are read at a time. It has 1500, and more with many groups, of
which Linux allows 65536."""


class Credentials(NamedTuple):
    """What the kernel asks of a process that uses a file: the `who` of `_native`'s calls."""

    uid: int
    gid: int
    groups: tuple[int, ...] | None = None
    """Supplementary groups; None: those of this process, which a daemon gives up at its start."""


def groups_of_process(pid: int) -> tuple[int, ...]:
    """Return the supplementary groups of a process; none when it has ended or cannot be seen.

    True of the caller of a request only while he waits for its answer: his number may be given to
    another process as soon as he has ended.
    """
    if pid <= 0:  # outside of this process's pid name space
        return ()
    try:
        return tuple(map(int, _status_field(f"/proc/{pid}/status", b"Groups").split()))
    except OSError:
        return ()


def _status_field(path: str, name: bytes) -> bytes:
    """Return what a status file of proc(5) says after a name; empty when it lacks the name."""
    with open(path, "rb", buffering=0) as status:
        text = status.read(_STATUS_SIZE)
        while True:
            _, _, rest = text.partition(b"\n" + name + b":")
            value, end, _ = rest.partition(b"\n")
            if end or not (more := status.read(_STATUS_SIZE)):
                return value
            text += more


def why_not_for_others() -> str:
    """Return why this process cannot make system calls as other users; empty when it can."""
    if _why_not_built:
        return f"mregfs.host._native is not built ({_why_not_built})"
    # Of this thread: another one may be acting for somebody, with fewer.
    effective = int(_status_field("/proc/thread-self/status", b"CapEff"), 16)
    lacking = [name for name, number in _NEEDED.items() if not effective >> number & 1]
    if lacking:
        return f"this process lacks {', '.join(lacking)}"
    with contextlib.suppress(OSError), open("/proc/self/setgroups", encoding="ascii") as setgroups:
        if setgroups.read().strip() == "deny":
            return "setgroups(2) is denied in this user namespace"
    return ""


def give_up_privileges() -> None:
    """Give up what a daemon that acts for others must not lend them; before any thread is started.

    Its supplementary groups would be everybody's. CAP_SYS_RESOURCE lets a write take the blocks
    that a file system keeps in reserve, and pass quotas.
    """
    if why_not_for_others():
        return
    os.setgroups([])
    _native.drop_capability(CAP_SYS_RESOURCE)
