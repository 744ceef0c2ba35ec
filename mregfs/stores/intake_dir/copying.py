"""Copies of files: as reflinks where the file system has them, else byte for byte.

Decided here: how. Not decided here: which files. Only `intake` calls this.
"""

import errno
import fcntl
import os

__all__ = ["copy"]

_FICLONE = 0x40049409
_PIECE = 64 << 20  # bytes per call, so that an interrupt is noticed


def copy(source: int, target: int) -> None:
    """Copy a file to an empty one, both open.

    Raises:
        OSError: the host refused.
    """
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        pass
    else:
        return
    offset = 0
    while True:
        try:
            count = os.copy_file_range(source, target, _PIECE, offset, offset)
        except OSError as exc:
            if exc.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            os.lseek(target, offset, os.SEEK_SET)
            count = os.sendfile(target, source, offset, _PIECE)
        if count == 0:
            return
        offset += count
