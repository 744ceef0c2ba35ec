"""Numbers of open(2) and renameat2(2), as the kernel sends them, become values with names.

Decided here: which number means what. Not decided here: what is done about it (the trees).
"""

import errno
import os
from functools import lru_cache

from mregfs.errors import HostError
from mregfs.vfs.interface import OpenFlags, RenameMode

__all__ = ["open_flags", "rename_mode"]

_RENAMES = {0: RenameMode.REPLACE, 1: RenameMode.KEEP, 2: RenameMode.EXCHANGE}
"""RENAME_NOREPLACE is 1, RENAME_EXCHANGE 2."""


@lru_cache(maxsize=256)
def open_flags(number: int) -> OpenFlags:
    """Return what the flags of an open mean. Access mode 3 asks for the right to both."""
    mode = number & os.O_ACCMODE
    return OpenFlags(
        reads=mode != os.O_WRONLY,
        writes=mode != os.O_RDONLY,
        truncates=bool(number & os.O_TRUNC),
        exclusive=bool(number & os.O_EXCL),
        blocks=not number & os.O_NONBLOCK,
        host=number,
    )


def rename_mode(number: int) -> RenameMode:
    """Return what the flags of a rename mean.

    Raises:
        HostError: EINVAL, no file system here knows them.
    """
    mode = _RENAMES.get(number)
    if mode is None:
        raise HostError(errno.EINVAL, f"a rename with flags {number:#x} is not known")
    return mode
