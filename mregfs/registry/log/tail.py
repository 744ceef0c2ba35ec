"""The tail of the log: one thread follows the log, so that the event loop of a mount never does.

Decided here: how often the store is asked for news, how many of the newest entries are kept in
memory, that none is dropped before it has been taken. Not decided here: how entries reach the index
(`replay`), what they mean to a mount (`vfs.follower`). Each mount has one.

`LogTail` calls the store in its own thread and in the threads of writers. What the event loop calls
(`waiting`, `took`, `at_hand`, `head`, `taken`) never blocks on the store.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from mregfs.errors import MregfsError
from mregfs.model.changes import Entry
from mregfs.ports import Clock
from mregfs.ports.index import Index
from mregfs.registry.log.log import Log
from mregfs.registry.log.receipt import Receipt

__all__ = ["LogTail"]

log = logging.getLogger(__name__)

INTERVAL = 0.05
"""Seconds between two looks for entries of other processes; they must show within 0.1 s."""

KEPT_ENTRIES = 1024
"""Newest entries that are kept decoded, for readers that are a little behind."""

KEPT_BYTES = 8 << 20
"""Encoded bytes of them; decoded they take a few times as much."""


class LogTail:
    """The newest entries of one log, in memory. Safe to use from several threads.

    Args:
        registry_log: the log.
        index: of this host. Nothing is told that it does not have yet.
        clock: nanoseconds; of any epoch.
        interval: seconds between two looks.
    """

    def __init__(
        self, registry_log: Log, index: Index, clock: Clock, interval: float = INTERVAL
    ) -> None:
        self._log = registry_log
        self._index = index
        self._clock = clock
        self._interval = interval
        self._kept: deque[tuple[Entry, int]] = deque()
        self._bytes = 0
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self._ended = threading.Event()
        self._ended.set()
        self._checked_at = clock()
        self._head = self._taken = index.applied()

    # ---- for the event loop

    @property
    def head(self) -> int:
        """The sequence number of the newest entry that is at hand."""
        return self._head

    @property
    def taken(self) -> int:
        """The sequence number of the last entry that was taken."""
        return self._taken

    def waiting(self) -> Sequence[Entry]:
        """Return the entries that are at hand and were not taken, in order."""
        return self.at_hand(self._taken) or ()

    def took(self, sequence: int) -> None:
        """The entries up to this one are taken: they may be dropped now."""
        with self._lock:
            self._taken = max(self._taken, sequence)
            self._drop()

    def at_hand(self, since: int) -> Sequence[Entry] | None:
        """Return the entries after `since` up to `head`; None when not all of them are kept."""
        with self._lock:
            count = max(self._head - since, 0)
            if count > len(self._kept):
                return None
            newest = [entry for entry, _ in islice(reversed(self._kept), count)]
        newest.reverse()
        return newest

    def checked_ago(self) -> float:
        """Return the seconds since the store last told what its newest entry is."""
        return (self._clock() - self._checked_at) / 1e9

    # ---- for threads that may wait for the store

    def entries(self, since: int) -> Iterator[Entry]:
        """Yield the entries after `since`, up to `head`; from memory, else from the store.

        Raises:
            CorruptError: an entry is damaged, or does not follow from the one before it.
        """
        head = self._head
        kept = self.at_hand(since)
        if kept is not None:
            yield from kept
            return
        for entry in self._log.entries(since):
            if entry.sequence > head:
                return
            yield entry

    def offer(self, receipt: Receipt) -> None:
        """Add the entry of a transaction of this process, if it is the next one.

        Otherwise the thread of the tail fetches it soon, with those before it.
        """
        if receipt.entry is not None and not self._add(receipt.entry, receipt.size):
            self._wake.set()

    def reach(self, receipt: Receipt) -> None:
        """Have the entry of a transaction of this process at hand, and all before it.

        Raises:
            MregfsError: they cannot be read now. The thread of the tail tries again.
        """
        self.offer(receipt)
        while self._head < receipt.sequence <= self._index.applied():
            if not self._fetch():
                return

    def _fetch(self) -> bool:
        """Read some of what the index has and is not at hand; False when nothing came."""
        before, applied = self._head, self._index.applied()
        if before < applied:
            for entry, size in self._log.sized_entries(before):
                if entry.sequence > applied:
                    break
                self._add(entry, size)
                if self._is_full():
                    break
        return self._head > before

    def _add(self, entry: Entry, size: int) -> bool:
        with self._lock:
            if entry.sequence != self._head + 1:
                return entry.sequence <= self._head
            self._kept.append((entry, size))
            self._bytes += size
            self._head = entry.sequence
            self._drop()
            return True

    def _drop(self) -> None:
        while self._kept and self._kept[0][0].sequence <= self._taken:
            if len(self._kept) <= KEPT_ENTRIES and self._bytes <= KEPT_BYTES:
                return
            self._bytes -= self._kept.popleft()[1]

    def _is_full(self) -> bool:
        """Tell whether who takes entries must do so before more are read."""
        return len(self._kept) > KEPT_ENTRIES or self._bytes > KEPT_BYTES

    # ---- the thread

    def run(self, on_news: Callable[[], None]) -> None:
        """Follow the log until `stop`; `on_news` is called when entries wait to be taken."""
        failure = ""
        self._ended.clear()
        try:
            while not self._stopping:
                try:
                    self._look()
                    failure = ""
                except MregfsError as exc:
                    if str(exc) != failure:  # what is served already goes on being served
                        log.error("the log cannot be followed: %s", exc)
                    failure = str(exc)
                if self._head > self._taken:
                    on_news()
                self._wake.wait(self._interval)
                self._wake.clear()
        finally:
            self._ended.set()

    def _look(self) -> None:
        self._log.catch_up()
        if self._log.trouble is None:
            self._checked_at = self._clock()
        if not self._is_full():
            self._fetch()

    def stop(self) -> None:
        """End `run`, and wait until it has ended: as long as a call of the store takes."""
        self._stopping = True
        self._wake.set()
        self._ended.wait()
