"""What the daemon finds out about the process that asks it for something.

Decided here: where a caller sees the mount, when his groups are fetched. Not decided here: what he
may do (`model.rules.access`), how /proc is read (`host.callers`, `host.mount_table`).
"""

import contextlib

from msgspec.structs import replace

from mregfs.fuse import mountpoint as mountpoints
from mregfs.host import mount_table
from mregfs.host.callers import groups_of_process
from mregfs.vfs.interface import Caller

__all__ = ["places_of", "with_groups"]


def places_of(pid: int, mountpoint: str) -> set[str]:
    """Return the paths by which a process sees the mount, which is at `mountpoint` for us."""
    places = {mountpoint}
    own = mountpoints.find(path=mountpoint)
    if not own:
        return places
    with contextlib.suppress(OSError):  # the caller has ended, or is in a name space unknown to us
        places.update(
            entry.path
            for entry in mount_table.read(f"/proc/{pid or 'self'}/mountinfo")
            if entry.device == own[-1].device and entry.top == "/"
        )
    return places


def with_groups(caller: Caller) -> Caller:
    """Return a caller with his groups; where they are not known he must wait for his answer."""
    if caller.groups is not None:
        return caller
    return replace(caller, groups=groups_of_process(caller.pid))
