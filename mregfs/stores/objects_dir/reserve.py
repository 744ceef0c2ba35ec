"""Room on the disk that is kept for deleting: an allocated file that is given up when it is needed.

Decided here: how much, and when it is taken. Not decided here: which changes may use it
(`registry/log/append`). `ObjectsDirectory` has one; `api` fills it.
"""

import contextlib
import logging
import os

from mregfs.host.beneath import Beneath

__all__ = ["RESERVE_SIZE", "Reserve"]

log = logging.getLogger(__name__)

RESERVE_SIZE = 2 << 20
"""Bytes: a log entry, the pages of the index that a deletion changes, and the file system's own."""

_PLENTY = 8 * RESERVE_SIZE
"""Free bytes from which on the reserve is taken: it must not be what fills a disk."""

NAME = "tmp/reserve"


class Reserve:
    """The reserve of one store.

    Args:
        top: the directory of the store; whoever opened it closes it.
    """

    def __init__(self, top: Beneath) -> None:
        self._top = top

    def fill(self) -> None:
        """Take the reserve, unless it is there, or the disk has little room. Never raises."""
        with contextlib.suppress(OSError):
            if self._top.exists(NAME) and self._top.stat(NAME).st_size == RESERVE_SIZE:
                return
            figures = os.fstatvfs(self._top.fd)
            if figures.f_bavail * figures.f_frsize < _PLENTY:
                return
            fd = self._top.open(NAME, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                os.posix_fallocate(fd, 0, RESERVE_SIZE)
            finally:
                os.close(fd)

    def release(self) -> bool:
        """Give the reserve up, so that its room can be used; False when there is none."""
        try:
            if self._top.stat(NAME).st_size == 0:
                return False
            self._top.unlink(NAME)
            os.fsync(self._top.fd)
        except OSError:
            return False
        log.warning("the disk of %s is full: deleting goes on from the reserve", self._top.path)
        return True
