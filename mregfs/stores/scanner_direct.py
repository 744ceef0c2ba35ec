"""Reads packs past the page cache: what the disk has, whatever the kernel remembers.

Decided here: O_DIRECT where the file system has it, else read and forget (POSIX_FADV_DONTNEED);
what is no file of this host is read as it always is. Not decided here: what is read.

O_DIRECT finds what has rotted on the disk under a page that is still good in memory, and leaves the
pages of models that are being served where they are.
"""

import errno
import mmap
import os
from typing import Self

from mregfs.errors import HostError
from mregfs.ports.packs import PackFile

__all__ = ["DirectScanner"]

WINDOW = 8 << 20
"""Bytes read at a time: an NVMe disk is at full speed from 1 MiB on, a spinning one from 4."""

_ALIGNMENT = 4096

_NO_DIRECT = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOENT, errno.EACCES)


class DirectScanner:
    """Reads one pack after the other, each mostly forwards. For one thread."""

    def __init__(self) -> None:
        self._buffer = mmap.mmap(-1, WINDOW)
        self._file: PackFile | None = None
        self._fd = -1
        self._start = 0
        self._filled = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the last file."""
        if self._fd >= 0:
            os.close(self._fd)
        self._file, self._fd, self._filled = None, -1, 0

    def read(self, pack: PackFile, offset: int, length: int) -> bytes:
        """Return up to `length` bytes at `offset`; shorter only at the end of the pack.

        Raises:
            HostError: the disk failed.
        """
        backing = pack.backing()
        if backing is None:
            return pack.read(offset, length)
        try:
            if pack is not self._file:
                self.close()
                self._fd = _open_direct(backing)
                self._file = pack
            end = min(offset + length, pack.size)
            if self._fd < 0:
                data = pack.read(offset, max(0, end - offset))
                os.posix_fadvise(backing, offset, len(data), os.POSIX_FADV_DONTNEED)
                return data
            pieces = []
            while offset < end:
                if not self._start <= offset < self._start + self._filled:
                    self._fill(offset)
                    if not self._start <= offset < self._start + self._filled:
                        break
                skip = offset - self._start
                piece = self._buffer[skip : min(self._filled, skip + end - offset)]
                pieces.append(piece)
                offset += len(piece)
            return b"".join(pieces)
        except OSError as exc:
            self._filled = 0
            raise HostError(
                exc.errno or errno.EIO, f"cannot read: {exc.strerror}", "see dmesg"
            ) from exc

    def _fill(self, offset: int) -> None:
        self._filled = 0
        self._start = offset // _ALIGNMENT * _ALIGNMENT
        self._filled = os.preadv(self._fd, [self._buffer], self._start)


def _open_direct(fd: int) -> int:
    """Open the file once more, past the page cache; -1 where its file system has no such thing."""
    try:
        opened = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError as exc:
        if exc.errno in _NO_DIRECT:
            return -1
        raise
    return opened
