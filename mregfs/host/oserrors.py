"""What an error of the operating system is for the registry.

Decided here: which of our errors an OSError becomes, and what a person can do about it. Not decided
here: what was being done, which the adapter that calls this says.
"""

import errno
import os

from mregfs.errors import (
    ExistsError,
    ForbiddenError,
    HostError,
    MregfsError,
    NoSpaceError,
    NotFoundError,
)

__all__ = ["translated"]

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.ELOOP)
_MISSING = (errno.ENOENT, errno.ENOTDIR)
_GONE = (errno.ESTALE, errno.ENODEV, errno.ENXIO)

_HINTS = {
    errno.EROFS: "remount the disk read-write",
    errno.EMFILE: "raise the limit of open files: ulimit -n",
    errno.ENFILE: "raise the host's limit of open files: sysctl fs.file-max",
    errno.EIO: "see the kernel's log: dmesg",
}


def translated(
    exc: OSError,
    doing: str,
    *,
    no_space: str = "free some space on that file system, or raise the quota",
    forbidden: str = "check who owns the store and its permissions",
    missing: str = "",
) -> MregfsError:
    """Return our error for one of the operating system.

    Args:
        exc: what the call raised.
        doing: what was being done, on which thing: `cannot read object 'log/1' in '/store'`.
        no_space: what to do when a disk or quota is full.
        forbidden: what to do when the kernel refuses.
        missing: what to do when it is not there.
    """
    code = exc.errno or errno.EIO
    reason = exc.strerror or str(exc)
    message = f"{doing}: {reason}"
    if code in _NO_SPACE:
        return NoSpaceError(message, no_space)
    if code in _FORBIDDEN:
        # Otherwise it is `beneath` that refuses, and says why and what to do.
        return ForbiddenError(message, forbidden if reason == os.strerror(code) else "")
    if code in _MISSING:
        return NotFoundError(message, missing)
    if code == errno.EEXIST:
        return ExistsError(message)
    if code in _GONE:
        return HostError(errno.EIO, message, "check that the disk is there and mounted")
    if code == errno.EIO and reason != os.strerror(code):
        return HostError(code, message)
    return HostError(code, message, _HINTS.get(code, _HINTS[errno.EIO]))
