"""The fast path: requests that are answered before libfuse, pyfuse3 and the event loop see them.

Decided here: which requests, and what each field of their answers is. Not decided here: whether the
file system can answer without waiting (what it cannot goes on to pyfuse3 and `adapter`), and what
an error becomes (`adapter`). Why there are two paths, and what holds for both: `protocol.md`.
"""

import errno
from collections.abc import Callable, Iterable
from functools import partial

from mregfs.errors import MregfsError
from mregfs.fuse import wire
from mregfs.fuse.flags import open_flags
from mregfs.fuse.messages import DONE, NOT_AT_HAND, Answer, ByThread, Errno, Reply, Request, Sent
from mregfs.fuse.passthrough import Passthrough, ReadPath
from mregfs.vfs.answers import InThread
from mregfs.vfs.interface import Attributes, FileSystem, OpenFile

__all__ = ["FastPath", "list_entries"]


class FastPath:
    """Answers requests of the kernel from what `fs` knows without waiting.

    Args:
        fs: what is served.
        passthrough: the open files of the mount.
        settle_path: says how a file that was just opened is served.
        forget: takes back references to inodes, and raises nothing.
    """

    def __init__(
        self,
        fs: FileSystem,
        passthrough: Passthrough,
        settle_path: Callable[[int, OpenFile], ReadPath],
        forget: Callable[[Iterable[tuple[int, int]]], None],
    ) -> None:
        self._fs = fs
        self._passthrough = passthrough
        self._settle_path = settle_path
        self._forget = forget
        self.operations: dict[int, Callable[[Request], Answer]] = {
            wire.LOOKUP: self.lookup,
            wire.FORGET: self.forget,
            wire.GETATTR: self.getattr,
            wire.READLINK: self.readlink,
            wire.OPEN: self.open,
            wire.READ: self.read,
            wire.WRITE: self.write,
            wire.FLUSH: self.flush,
            wire.RELEASE: self.release,
            wire.GETXATTR: self.getxattr,
            wire.OPENDIR: self.opendir,
            wire.READDIRPLUS: self.readdirplus,
            wire.RELEASEDIR: self.releasedir,
            wire.BATCH_FORGET: self.forget,
        }
        """What is answered, by opcode."""

    def lookup(self, request: Request) -> Answer:
        """Find a name."""
        found = self._fs.lookup(request.inode, request.body[:-1])
        return Reply(wire.entry_out(found)) if isinstance(found, Attributes) else NOT_AT_HAND

    def forget(self, request: Request) -> Answer:
        """Take back references; there is nobody to answer to."""
        self._forget(wire.forgets(request.opcode, request.inode, request.body))
        return DONE

    def getattr(self, request: Request) -> Answer:
        """Answer stat(2)."""
        return Reply(wire.attr_out(self._fs.getattr(request.inode)))

    def readlink(self, request: Request) -> Answer:
        """Return where a symlink points."""
        return Reply(self._fs.readlink(request.inode))

    def open(self, request: Request) -> Answer:
        """Open a file."""
        inode = request.inode
        opened = self._fs.open(inode, open_flags(wire.flags_of(request.body)), request.caller)
        if not isinstance(opened, OpenFile):
            return NOT_AT_HAND
        direct = self._settle_path(inode, opened) is ReadPath.DIRECT
        flags = (
            (wire.DIRECT_IO if direct else 0)
            | (wire.KEEP_CACHE if opened.keep_cache else 0)
            | (wire.NONSEEKABLE if opened.nonseekable else 0)
        )
        return Reply(wire.open_out(opened.handle, flags))

    def read(self, request: Request) -> Answer:
        """Read what need not be waited for, or leave it to a thread."""
        data = self._fs.read(*wire.range_of(request.body))
        if isinstance(data, bytes):
            return Reply(data)
        return ByThread(partial(_read, data)) if isinstance(data, InThread) else NOT_AT_HAND

    def write(self, request: Request) -> Answer:
        """Write; what is mapped, nobody in particular does."""
        handle, offset, data = wire.write_of(request.body)
        caller = request.caller if request.pid else None
        written = self._fs.write(handle, offset, data, caller)
        if isinstance(written, int):
            return Reply(wire.write_out(written))
        return ByThread(partial(_write, written)) if isinstance(written, InThread) else NOT_AT_HAND

    def flush(self, request: Request) -> Answer:
        """A descriptor was closed."""
        self._fs.flush(wire.handle_of(request.body))
        return DONE

    def release(self, request: Request) -> Answer:
        """The last descriptor of an open file was closed."""
        handle = wire.handle_of(request.body)
        self._passthrough.released(handle)
        self._fs.release(handle)
        return DONE

    def getxattr(self, request: Request) -> Answer:
        """Return an extended attribute, or how long it is."""
        room, name = wire.xattr_of(request.body)
        value = self._fs.getxattr(request.inode, name, request.caller)
        if not isinstance(value, bytes):
            return NOT_AT_HAND
        if room == 0:
            return Reply(wire.xattr_size_out(len(value)))
        return Reply(value) if len(value) <= room else Errno(errno.ERANGE)

    def opendir(self, request: Request) -> Answer:
        """Open a directory."""
        handle = self._fs.opendir(request.inode, request.caller)
        return Reply(wire.open_out(handle)) if isinstance(handle, int) else NOT_AT_HAND

    def readdirplus(self, request: Request) -> Answer:
        """List as many entries as fit, with their attributes."""
        handle, start, room = wire.range_of(request.body)
        entries: list[bytes] = []

        def add(name: bytes, found: Attributes, following: int) -> bool:
            nonlocal room
            entry = wire.direntplus(name, found, following)
            room -= len(entry)
            if room >= 0:
                entries.append(entry)
            return room >= 0

        list_entries(self._fs, handle, start, add)
        return Reply(b"".join(entries))

    def releasedir(self, request: Request) -> Answer:
        """Close a directory."""
        self._fs.releasedir(wire.handle_of(request.body))
        return DONE


def _read(data: InThread[bytes]) -> Sent:
    return Reply(data.give())


def _write(written: InThread[int]) -> Sent:
    return Reply(wire.write_out(written.give()))


def list_entries(
    fs: FileSystem, handle: int, start: int, add: Callable[[bytes, Attributes, int], bool]
) -> None:
    """Hand the entries of an open directory to `add`, from position `start`, while they fit.

    `add` gets name, attributes and the next position, and tells whether the entry did fit.
    """
    listed = 0
    try:
        for name, attributes, following in fs.readdir(handle, start):
            if not add(name, attributes, following):
                fs.forget(attributes.inode, 1)
                return
            listed += 1
    except MregfsError:
        if not listed:  # what fits is handed over, the next call meets the error again
            raise
