"""Requests that are answered at once, before libfuse, pyfuse3 and the event loop see them.

Decided here: which requests, and what each field of their answers is. Not decided here: whether the
file system can answer without waiting (it says None when it cannot: then the request goes on to
pyfuse3 and `adapter`), and what an error becomes (`adapter`).

A round through the event loop costs more than such an answer (passthrough.md, *Answers at once*).
"""

import errno
from collections.abc import Callable

from mregfs.errors import MregfsError
from mregfs.fuse import wire
from mregfs.fuse.passthrough import Passthrough, ReadPath
from mregfs.vfs.answers import InThread
from mregfs.vfs.interface import Attributes, Caller, FileSystem, OpenFile

__all__ = ["Express", "list_entries"]

Answer = bytes | int | None
"""What is sent; or 0 for a mere success; or None: the request has to take the long way."""

Deferred = Callable[[], bytes | int]
"""An answer that takes a thread."""


class Express:
    """Answers requests of the kernel from what `fs` knows without waiting.

    Args:
        fs: what is served.
        passthrough: the open files of the mount.
        settle: says how a file that was just opened is served.
    """

    def __init__(
        self,
        fs: FileSystem,
        passthrough: Passthrough,
        settle: Callable[[int, OpenFile], ReadPath],
    ) -> None:
        self._fs = fs
        self._passthrough = passthrough
        self._settle = settle
        self.operations: dict[int, Callable[[int, bytes, Caller], Answer | Deferred]] = {
            wire.LOOKUP: self.lookup,
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
        }
        """What is answered, by opcode: from inode, body of the request, and who made it."""

    def lookup(self, inode: int, body: bytes, caller: Caller) -> Answer:
        """Find a name."""
        found = self._fs.lookup(inode, body[:-1])
        return wire.entry_out(found) if isinstance(found, Attributes) else None

    def getattr(self, inode: int, body: bytes, caller: Caller) -> Answer:
        """Answer stat(2)."""
        return wire.attr_out(self._fs.getattr(inode))

    def readlink(self, inode: int, body: bytes, caller: Caller) -> Answer:
        """Return where a symlink points."""
        return self._fs.readlink(inode)

    def open(self, inode: int, body: bytes, caller: Caller) -> Answer:
        """Open a file."""
        opened = self._fs.open(inode, wire.open_flags(body), caller)
        if not isinstance(opened, OpenFile):
            return None
        direct = self._settle(inode, opened) is ReadPath.DIRECT
        return wire.open_out(
            opened.handle,
            (wire.DIRECT_IO if direct else 0)
            | (wire.KEEP_CACHE if opened.keep_cache else 0)
            | (wire.NONSEEKABLE if opened.nonseekable else 0),
        )

    def read(self, inode: int, body: bytes, caller: Caller) -> Answer | Deferred:
        """Read what need not be waited for, or leave it to a thread."""
        data = self._fs.read(*wire.range_of(body))
        if isinstance(data, InThread):
            return data.give
        return data if isinstance(data, bytes) else None

    def write(self, inode: int, body: bytes, caller: Caller) -> Answer | Deferred:
        """Write; what is mapped, nobody in particular does."""
        handle, offset, data = wire.write_of(body)
        written = self._fs.write(handle, offset, data, caller if caller.pid else None)
        if isinstance(written, InThread):
            later = written.give
            return lambda: wire.write_out(later())
        return wire.write_out(written) if isinstance(written, int) else None

    def flush(self, inode: int, body: bytes, caller: Caller) -> Answer:
        """A descriptor was closed."""
        self._fs.flush(wire.handle_of(body))
        return 0

    def release(self, inode: int, body: bytes, caller: Caller) -> Answer:
        """The last descriptor of an open file was closed."""
        handle = wire.handle_of(body)
        self._passthrough.released(handle)
        self._fs.release(handle)
        return 0

    def getxattr(self, inode: int, body: bytes, caller: Caller) -> Answer:
        """Return an extended attribute, or how long it is."""
        room, name = wire.xattr_of(body)
        value = self._fs.getxattr(inode, name, caller)
        if not isinstance(value, bytes):
            return None
        if room == 0:
            return wire.xattr_size_out(len(value))
        return value if len(value) <= room else errno.ERANGE

    def opendir(self, inode: int, body: bytes, caller: Caller) -> Answer:
        """Open a directory."""
        handle = self._fs.opendir(inode, caller)
        return wire.open_out(handle) if isinstance(handle, int) else None

    def readdirplus(self, inode: int, body: bytes, caller: Caller) -> Answer:
        """List as many entries as fit, with their attributes."""
        handle, start, room = wire.range_of(body)
        entries: list[bytes] = []

        def add(name: bytes, found: Attributes, following: int) -> bool:
            nonlocal room
            entry = wire.direntplus(name, found, following)
            room -= len(entry)
            if room >= 0:
                entries.append(entry)
            return room >= 0

        list_entries(self._fs, handle, start, add)
        return b"".join(entries)

    def releasedir(self, inode: int, body: bytes, caller: Caller) -> Answer:
        """Close a directory."""
        self._fs.releasedir(wire.handle_of(body))
        return 0


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
