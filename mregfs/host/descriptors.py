"""The descriptors that this process may have: what users get of them, and what it keeps for itself.

Decided here: how many are kept, and what is said when the others are used up. Not decided here:
what they are open for. Whoever opens something that a user then holds claims its descriptor.

A descriptor is the lowest number that is free. So one with a high number says that all below it are
taken, and no counting is needed.
"""

import errno
import os
import resource

__all__ = ["RESERVE", "SHORTAGE", "claim", "is_claimable", "share"]

RESERVE = 64
"""Descriptors kept for what the process does itself: log entries, directories, imports. A quarter
of all when there are few."""

SHORTAGE = frozenset((errno.EMFILE, errno.ENFILE))
"""This process, or the host, has no descriptor left."""


def share(part: int) -> int:
    """Return a part of the descriptors that this process may have: `share(8)` is an eighth."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 30 if soft == resource.RLIM_INFINITY else soft // part


def is_claimable(descriptor: int) -> bool:
    """Tell whether a user may hold a descriptor: enough are left for this process itself."""
    limit = share(1)
    return descriptor < limit - min(RESERVE, limit // 4)


def claim(descriptor: int) -> int:
    """Return a descriptor that a user is to hold, or close it.

    Raises:
        OSError: EMFILE; what is left is this process's own.
    """
    if not is_claimable(descriptor):
        os.close(descriptor)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return descriptor
