"""A disk whose every write and flush is remembered: one file in a file system of its own.

Decided here: what a disk is asked to do, in order, and how that is kept. Not decided here: what is
made of it (`power_cuts`). Run as a program: `logged_disk MOUNTPOINT SIZE LOG`; it writes `ready`.

`MOUNTPOINT/disk` is for a loop device; what is written into `MOUNTPOINT/mark` is put into the log
between the writes, so that it is known what was acknowledged by then.
"""

import errno
import os
import signal
import stat
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pyfuse3
import trio

__all__ = ["FLUSH", "MARK", "WRITE", "Record", "read_log"]

WRITE, FLUSH, MARK = range(3)
_HEAD = struct.Struct("<BQI")
_DISK, _MARK = 2, 3
_NAMES = {b"disk": _DISK, b"mark": _MARK}


@attrs.frozen
class Record:
    """Something that the disk was asked for: `data` at `offset`, or what the mark says."""

    kind: int
    offset: int
    data: bytes


def read_log(path: Path) -> Iterator[Record]:
    """Yield what the disk was asked for, in order."""
    with path.open("rb") as file:
        while head := file.read(_HEAD.size):
            kind, offset, size = _HEAD.unpack(head)
            yield Record(kind, offset, file.read(size))


class LoggedDisk(pyfuse3.Operations):
    def __init__(self, size: int, backing: int, log: int) -> None:
        super().__init__()
        self._size = size
        self._backing = backing
        self._log = log

    def _remember(self, kind: int, offset: int, data: bytes) -> None:
        os.writev(self._log, [_HEAD.pack(kind, offset, len(data)), data])

    async def getattr(self, inode: int, ctx: object = None) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(inode)
        directory = inode == pyfuse3.ROOT_INODE
        entry.st_mode = pyfuse3.ModeT(stat.S_IFDIR | 0o755 if directory else stat.S_IFREG | 0o600)
        entry.st_nlink = 2 if directory else 1
        entry.st_size = self._size if inode == _DISK else 0
        entry.st_blksize = 4096
        return entry

    async def lookup(
        self, parent_inode: int, name: bytes, ctx: object = None
    ) -> pyfuse3.EntryAttributes:
        if name not in _NAMES:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return await self.getattr(_NAMES[name])

    async def setattr(
        self, inode: int, attr: object, fields: object, fh: object, ctx: object
    ) -> pyfuse3.EntryAttributes:
        return await self.getattr(inode)

    async def open(self, inode: int, flags: int, ctx: object) -> pyfuse3.FileInfo:
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(inode), direct_io=inode == _MARK)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        return os.pread(self._backing, size, off)

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        if fh == _MARK:
            self._remember(MARK, 0, buf)
        else:
            os.pwrite(self._backing, buf, off)
            self._remember(WRITE, off, buf)
        return len(buf)

    async def fsync(self, fh: int, datasync: bool) -> None:
        self._remember(FLUSH, 0, b"")

    async def flush(self, fh: int) -> None:
        pass

    async def release(self, fh: int) -> None:
        pass


def main() -> None:
    """Serve the disk until SIGTERM."""
    mountpoint, size, log_path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    log = os.open(log_path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    backing = os.open(f"{log_path}.now", os.O_CREAT | os.O_RDWR, 0o600)
    os.ftruncate(backing, size)
    options = {*pyfuse3.default_options, "fsname=logged-disk"}
    pyfuse3.init(LoggedDisk(size, backing, log), mountpoint, options)  # type: ignore[arg-type]

    async def serve() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pyfuse3.main)
            with trio.open_signal_receiver(signal.SIGTERM) as signals:
                print("ready", flush=True)
                async for _ in signals:
                    nursery.cancel_scope.cancel()

    try:
        trio.run(serve)
    finally:
        pyfuse3.close(unmount=True)


if __name__ == "__main__":
    main()
