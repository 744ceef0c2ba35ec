"""Open files and directories of drafts: data, what makes it durable, listings.

Decided here: which system calls these requests make, and as whom. Not decided here: how an inode is
opened on the host (`reach`), which handles keep a draft from being committed (`committing`).
"""

import os
from collections.abc import Callable, Iterator
from functools import partial

from mregfs.drafts import reach
from mregfs.drafts.nodes import Handle, Node
from mregfs.drafts.requests import Requests
from mregfs.errors import UnsupportedError
from mregfs.host import calls
from mregfs.host.listing import names_in
from mregfs.vfs.answers import InThread
from mregfs.vfs.interface import Attributes, Caller, OpenFile, OpenFlags

__all__ = ["OPEN_FLAGS", "OpenFileRequests"]

OPEN_FLAGS = os.O_ACCMODE | os.O_SYNC | os.O_DSYNC | os.O_NOATIME | os.O_TRUNC
"""What an open takes over from the caller. Under passthrough the kernel opens the backing file
again with the caller's own flags; elsewhere each WRITE comes with its offset, which O_APPEND
would override, and from unaligned memory, which O_DIRECT would refuse."""


class OpenFileRequests(Requests):
    """The requests about what is open."""

    def open(self, inode: int, flags: OpenFlags, caller: Caller) -> OpenFile:
        """Open a file; `backing` belongs to the tree and lasts until `release`."""
        acting = self._actors.of(caller)
        with self._locked("open", inode) as table:
            node = table.alive(inode)
            if reach.can_write(flags.host) or flags.truncates:
                self._refuse_frozen(node)
            descriptor = reach.open_file(table, node, flags.host & OPEN_FLAGS, acting)
            return self._opened(node, descriptor, flags.host, caller)

    def read(self, handle: int, offset: int, size: int) -> bytes:
        """Return up to `size` bytes at `offset`; fewer only at the end of the file."""
        with self._unlocked("read", handle) as opened:
            return os.pread(opened.descriptor, size, offset)

    def write(self, handle: int, offset: int, data: bytes, caller: Caller | None = None) -> int:
        """Write at `offset`, and return how many bytes found room."""
        with self._unlocked("write", handle) as opened:
            who = opened.who if caller is None else self._actors.of(caller).who
            return calls.pwrite(who, opened.descriptor, data, offset)

    def flush(self, handle: int) -> None:
        """Do nothing: nothing is held back."""

    def fsync(self, handle: int, *, data_only: bool) -> InThread[None]:
        """Make the file durable."""
        return InThread(partial(self._sync, handle, os.fdatasync if data_only else os.fsync))

    def _sync(self, handle: int, call: Callable[[int], None]) -> None:
        with self._unlocked("sync", handle) as opened:
            call(opened.descriptor)

    def poll(self, handle: int, wake: Callable[[], None] | None) -> int:
        """Say that this is an ordinary file."""
        raise UnsupportedError("only events tells when it can be read")

    def release(self, handle: int) -> None:
        """Close a handle; it stops counting as open before its descriptor is closed."""
        with self._locked("release", None) as table:
            opened = self._handles.pop(handle, None)
            if opened is not None:
                opened.node.handles.remove(opened)
                table.closing.append(opened.descriptor)
                table.reap(opened.node)

    def opendir(self, inode: int, caller: Caller) -> int:
        """Open a directory for reading."""
        with self._locked("open the directory", inode) as table:
            node = table.alive(inode)
            descriptor = reach.open_directory(table, node, self._actors.of(caller))
            return self._opened(node, descriptor, os.O_RDONLY, caller).handle

    def readdir(self, handle: int, start: int) -> Iterator[tuple[bytes, Attributes, int]]:
        """Yield (name, attributes, position of the next entry); `.` and `..` are left out.

        Position 0 reads the names anew. What was removed since then is skipped. An entry counts
        as one lookup from the moment it is yielded: `forget` the one that is not taken.
        """
        with self._unlocked("read the directory", handle) as opened:
            if start == 0:
                opened.listing = [os.fsencode(name) for name in names_in(opened.descriptor)]
        listing = opened.listing
        for position in range(start, len(listing)):
            name = listing[position]
            with self._locked("stat", opened.node.number, name) as table:
                try:
                    node, found = table.child(opened.node, opened.descriptor, name)
                except FileNotFoundError:
                    continue
                node.lookups += 1
                attributes = self._attributes(node, found)
            yield name, attributes, position + 1

    def releasedir(self, handle: int) -> None:
        """Close a directory's handle."""
        self.release(handle)

    def fsyncdir(self, handle: int) -> InThread[None]:
        """Make the names in a directory durable."""
        return self.fsync(handle, data_only=False)

    def _opened(self, node: Node, descriptor: int, flags: int, caller: Caller) -> OpenFile:
        number = next(self._handle_numbers)
        acting = self._actors.of(caller)
        self._handles[number] = handle = Handle(
            node, descriptor, reach.can_write(flags), acting.who, acting.uid
        )
        node.handles.append(handle)
        return OpenFile(handle=number, backing=descriptor, lent=True)
