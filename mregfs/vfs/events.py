"""`.mregfs/events`: one JSON line per log entry, blocking, pollable, any number of readers.

Decided here: where a reader stands in the log, what a read gives, when it blocks. Not decided here:
how the daemon learns of entries (`follower`). Called by `filesystem`.

A reader holds only its position; lines are made from the log when it asks for them, so a slow
reader costs nothing and holds up nobody.
"""

from collections.abc import Callable, Iterator
from select import POLLIN, POLLOUT, POLLRDNORM

import msgspec
import trio

from mregfs.errors import HostError, InvalidError
from mregfs.model.changes import Entry, event_line
from mregfs.ports import Caller

__all__ = ["EventReaders"]

_EAGAIN = 11
_O_NONBLOCK = 0o4000


class Reader(msgspec.Struct):
    """One open descriptor."""

    position: int
    """Sequence number of the last entry it got."""
    nonblocking: bool
    caller: Caller
    """Who opened it, with his groups."""
    rest: bytes = b""
    """What did not fit into the last read."""
    waker: Callable[[], None] | None = None
    """Of the last poll(2): the kernel keeps one per descriptor, for all who wait on it."""


class EventReaders:
    """All readers of one mount.

    Args:
        head: returns the newest entry that the index has; nothing later is told.
        entries_since: reads the log.
        may_read: tells whether a caller, whose groups are known, may read a project.
    """

    def __init__(
        self,
        head: Callable[[], int],
        entries_since: Callable[[int], Iterator[Entry]],
        may_read: Callable[[Caller, str], bool],
    ) -> None:
        self._head = head
        self._entries_since = entries_since
        self._may_read = may_read
        self._readers: dict[int, Reader] = {}
        self._news = trio.Event()

    def open(self, handle: int, flags: int, caller: Caller) -> None:
        """Add a reader that gets what comes from now on, in projects that he may read."""
        self._readers[handle] = Reader(self._head(), bool(flags & _O_NONBLOCK), caller)

    def close(self, handle: int) -> None:
        """Remove a reader."""
        self._readers.pop(handle, None)

    def write(self, handle: int, data: bytes) -> int:
        """Take `since N`: the reader gets entry N + 1 next.

        Raises:
            InvalidError: anything else, or a number beyond the end of the log.
        """
        words = data.decode(errors="replace").split()
        if len(words) != 2 or words[0] != "since" or not words[1].isdigit() or len(words[1]) > 18:
            raise InvalidError("events takes only 'since N'", "N is the number of a log entry")
        position = int(words[1])
        if position > self._head():
            raise InvalidError(f"the log ends at {self._head()}, before {position}")
        reader = self._readers[handle]
        reader.position, reader.rest = position, b""
        return len(data)

    async def read(self, handle: int, size: int) -> bytes:
        """Return whole lines as far as `size` goes; wait for the next entry when there is none.

        Cancelled: nothing was taken.

        Raises:
            HostError: EAGAIN, the descriptor does not block and there is nothing.
        """
        reader = self._readers[handle]
        while True:
            news = self._news
            data = self._take(reader, size)
            if data:
                return data
            if reader.nonblocking:
                raise HostError(_EAGAIN, "no log entry yet")
            await news.wait()

    def _take(self, reader: Reader, size: int) -> bytes:
        pieces = [reader.rest]
        length = len(reader.rest)
        head = self._head()  # no further: the log may be ahead of what the mount shows
        if length < size and reader.position < head:
            for entry in self._entries_since(reader.position):
                if entry.sequence > head:
                    break
                line = event_line(entry, lambda of: self._may_read(reader.caller, of))
                pieces.append(line)
                length += len(line)
                reader.position = entry.sequence
                if length >= size:
                    break
        data = b"".join(pieces)
        reader.rest = data[size:]
        return data[:size]

    def poll(self, handle: int, wake: Callable[[], None] | None) -> int:
        """Return the ready poll(2) events; `wake` is called once when a new entry comes."""
        reader = self._readers[handle]
        if wake is not None:
            reader.waker = wake
        ready = POLLOUT
        if reader.rest or reader.position < self._head():
            ready |= POLLIN | POLLRDNORM
        return ready

    def wake(self) -> None:
        """There are new entries: let every waiting reader look."""
        self._news.set()
        self._news = trio.Event()
        for reader in self._readers.values():
            waker, reader.waker = reader.waker, None
            if waker is not None:
                waker()
