"""`.mregfs/events`: one JSON line per log entry, blocking, pollable, any number of readers.

Decided here: where a reader stands in the log, what a read gives, when it blocks. Not decided here:
how the daemon learns of entries (`registry.log.tail`).

A reader holds only its position; lines are made from the log when it asks for them, so a slow
reader costs nothing and holds up nobody. One that is far behind is read for in a thread.
"""

import errno
from collections.abc import Callable, Sequence
from itertools import islice
from select import POLLIN, POLLOUT, POLLRDNORM

import msgspec
import trio

from mregfs.errors import HostError, InvalidError
from mregfs.model.changes import Entry, event_line
from mregfs.registry.log.tail import LogTail
from mregfs.vfs.interface import Caller, OpenFlags

__all__ = ["EventReaders"]

_READ_AHEAD = 64
"""Entries that are read from the log at a time for a reader that is far behind."""


class Reader(msgspec.Struct):
    """One open descriptor."""

    position: int
    """Sequence number of the last entry it got."""
    blocks: bool
    caller: Caller
    """Who opened it, with his groups."""
    rest: bytes = b""
    """What did not fit into the last read."""
    waker: Callable[[], None] | None = None
    """Of the last poll(2): the kernel keeps one per descriptor, for all who wait on it."""


class EventReaders:
    """All readers of one mount.

    Args:
        tail: of the log. Nothing is told before the kernel knows of it.
        may_read: tells whether a caller, whose groups are known, may read a project.
    """

    def __init__(
        self,
        tail: LogTail,
        may_read: Callable[[Caller, str], bool],
    ) -> None:
        self._tail = tail
        self._may_read = may_read
        self._readers: dict[int, Reader] = {}
        self._news = trio.Event()
        self._reading = trio.CapacityLimiter(4)

    def open(self, handle: int, flags: OpenFlags, caller: Caller) -> None:
        """Add a reader that gets what comes from now on, in projects that he may read."""
        self._readers[handle] = Reader(self._tail.head, flags.blocks, caller)

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
        if position > self._tail.head:
            raise InvalidError(f"the log ends at {self._tail.head}, before {position}")
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
            entries = self._tail.at_hand(reader.position)
            if entries is None:
                entries = await trio.to_thread.run_sync(
                    self._read_log, reader.position, limiter=self._reading
                )
            position = reader.position
            data = self._take(reader, entries, size)
            if data:
                return data
            if reader.position > position:  # only what this reader may not see
                continue
            if not reader.blocks:
                raise HostError(errno.EAGAIN, "no log entry yet")
            await news.wait()

    def _read_log(self, position: int) -> list[Entry]:
        """Return some entries after one from the log; in a thread."""
        return list(islice(self._tail.entries(position), _READ_AHEAD))

    def _take(self, reader: Reader, entries: Sequence[Entry], size: int) -> bytes:
        pieces = [reader.rest]
        length = len(reader.rest)
        if length < size:
            for entry in entries:
                if entry.sequence > self._tail.taken:
                    break
                if entry.sequence <= reader.position:  # another read has had it meanwhile
                    continue
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
        if reader.rest or reader.position < self._tail.taken:
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
