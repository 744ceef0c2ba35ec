"""One whole file: complete and open for reading, or in the making.

Decided here: how bytes get into it (reflinks where the file system has them), and how it becomes
visible (`whole_files.md`). Not decided here: whether there is room for it.
"""

import contextlib
import errno
import fcntl
import os
from typing import Self

from mregfs.errors import CorruptError, InvalidError, MregfsError
from mregfs.host import oserrors
from mregfs.host.beneath import Beneath
from mregfs.host.page_cache import is_in_memory
from mregfs.ports.packs import PackFile
from mregfs.stores.ownership import DIRECTORY

__all__ = ["Draft", "WholeFile", "translated"]

_FICLONERANGE = 0x4020940D
_ALIGNED = 4096  # of ext4, xfs and btrfs by default; where it is more, the clone fails and we copy
_PIECE = 8 << 20


class WholeFile:
    """One complete file, open for reading (`ports.PackFile`). Safe to use from several threads."""

    def __init__(self, fd: int, path: str, size: int) -> None:
        self._fd = fd
        self._path = path
        self.size = size

    def backing(self) -> int:
        """Return the descriptor of the file; it stays valid until `close`."""
        if self._fd < 0:
            raise ValueError(f"{self._path} is closed")
        return self._fd

    def read(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes at `offset`; shorter only at the end.

        Raises:
            HostError: the disk failed.
        """
        try:
            return _read(self.backing(), offset, min(length, self.size - offset))
        except OSError as exc:
            raise translated(exc, "cannot read", self._path) from exc

    def is_cached(self, offset: int, length: int) -> bool:
        """Tell whether the first and the last of these bytes are in the page cache."""
        return is_in_memory(self.backing(), offset, length)

    def stamp(self) -> tuple[int, int]:
        """Return the file's size and when it was last written (mtime): a use changes its ctime."""
        found = os.fstat(self.backing())
        return found.st_size, found.st_mtime_ns

    def close(self) -> None:
        """Release the descriptor; calling it again does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class Draft:
    """A file in the making (`ports.WholeFileDraft`).

    It is as long as it will be from the start, so that whoever adds up what the cache takes counts
    it, and locked, so that what a crash left is told from what is under way.
    """

    def __init__(self, fd: int, name: str, target: str, size: int, top: Beneath) -> None:
        self._fd = fd
        self._name = name
        self._path = f"{top.path}/{name}"
        self._target = target
        self._size = size
        self._top = top
        self._end = 0
        self._clones = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def append(self, pack: PackFile, offset: int, length: int) -> None:
        """Append a run of bytes of a pack: by reflink where the file system can, else copied.

        Raises:
            NoSpaceError: the disk is full.
            HostError: the disk of the pack, or of the file, failed; it says which.
            CorruptError: the pack is too short.
        """
        if self._end + length > self._size:
            raise InvalidError(f"more than {self._size} bytes for {self._target!r}")
        source = pack.backing()
        if source is None:
            self._append_read(pack, offset, length)
            return
        if offset + length > pack.size:
            raise CorruptError("a pack is too short", "see which: mregfs fsck")
        end = offset + length
        if self._clones and offset % _ALIGNED == self._end % _ALIGNED:
            start = min(end, -(-offset // _ALIGNED) * _ALIGNED)
            stop = max(start, end // _ALIGNED * _ALIGNED)
            self._copy(source, offset, start - offset)
            if start < stop and not self._clone(source, start, stop - start):
                self._copy(source, start, stop - start)
            self._copy(source, stop, end - stop)
        else:
            self._copy(source, offset, length)

    def _clone(self, source: int, offset: int, length: int) -> bool:
        argument = (
            source.to_bytes(8, "little")
            + offset.to_bytes(8, "little")
            + length.to_bytes(8, "little")
            + self._end.to_bytes(8, "little")
        )
        try:
            fcntl.ioctl(self._fd, _FICLONERANGE, argument)
        except OSError as exc:
            if exc.errno in (errno.ENOSPC, errno.EDQUOT):
                raise translated(exc, "cannot write", self._path) from exc
            self._clones = False
            return False
        self._end += length
        return True

    def _copy(self, source: int, offset: int, length: int) -> None:
        end = offset + length
        while offset < end:
            piece = min(_PIECE, end - offset)
            try:
                count = os.copy_file_range(source, self._fd, piece, offset, self._end)
            except OSError:  # it is not for these two, or one of them failed: then we see which
                count = self._copy_by_hand(source, offset, piece)
            if not count:
                raise CorruptError("a pack is too short", "see which: mregfs fsck")
            offset += count
            self._end += count

    def _copy_by_hand(self, source: int, offset: int, length: int) -> int:
        try:
            data = os.pread(source, length, offset)
        except OSError as exc:
            raise translated(exc, "cannot read", _name_of(source)) from exc
        return self._write(data)

    def _append_read(self, pack: PackFile, offset: int, length: int) -> None:
        """Append what is no file of this host."""
        for start in range(offset, offset + length, _PIECE):
            size = min(_PIECE, offset + length - start)
            data = pack.read(start, size)
            if len(data) < size:
                raise CorruptError("a pack is too short", "see which: mregfs fsck")
            while data:
                count = self._write(data)
                data = data[count:]
                self._end += count

    def _write(self, data: bytes) -> int:
        try:
            return os.pwrite(self._fd, data, self._end)
        except OSError as exc:
            raise translated(exc, "cannot write", self._path) from exc

    def read(self, offset: int, length: int) -> bytes:
        """Return what `append` put there, to be verified."""
        try:
            return _read(self._fd, offset, min(length, self._end - offset))
        except OSError as exc:
            raise translated(exc, "cannot read", self._path) from exc

    def finish(self) -> None:
        """Make the file visible, whole, under its digest; it also survives a power cut whole.

        Raises:
            InvalidError: not all of its bytes were appended.
        """
        if self._end != self._size:
            raise InvalidError(f"{self._end} of {self._size} bytes for {self._target!r}")
        try:
            os.fsync(self._fd)  # or a power cut could leave a name with holes behind it
            with contextlib.suppress(FileExistsError):
                self._top.make_directory(self._target.rpartition("/")[0], DIRECTORY, durable=False)
            self._top.rename(self._name, self._target)
        except OSError as exc:
            raise translated(exc, "cannot write", f"{self._top.path}/{self._target}") from exc

    def close(self) -> None:
        """Give it up, unless it is finished."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(FileNotFoundError):
                self._top.unlink(self._name)
            os.close(fd)


def _name_of(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return "a pack"


def _read(fd: int, offset: int, length: int) -> bytes:
    data = os.pread(fd, max(length, 0), offset)
    while len(data) < length:
        more = os.pread(fd, length - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def translated(exc: OSError, doing: str, path: str) -> MregfsError:
    """Return what an error of the host is for the registry."""
    return oserrors.translated(
        exc,
        f"{doing} {path!r}",
        no_space="free some space, or lower cache_size",
        forbidden="use the cache as the owner of the store",
    )
