"""The log: the only way anything in a registry changes, and the way every process learns of it.

Decided here: when a checkpoint is due, that looking goes on when the log cannot be followed
(`log.md`). Not decided here: how an entry is appended (`append`) and reaches the index (`replay`),
the form of entries (`format.md`). Any thread may use a log.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from mregfs.errors import (
    CorruptError,
    HostError,
    MregfsError,
    NoSpaceError,
    NotFoundError,
    UnsupportedError,
)
from mregfs.model.changes import Entry, VersionLogged
from mregfs.model.checkpoint import MAX_CHECKPOINT_SIZE
from mregfs.model.commands import Command, Principal
from mregfs.model.features import Features
from mregfs.ports import Clock
from mregfs.ports.index import Index
from mregfs.ports.objects import ObjectStore
from mregfs.registry.log.receipt import Receipt
from mregfs.registry.log.replay import Progress, Replay

if TYPE_CHECKING:
    from mregfs.registry.log.append import Appender

__all__ = ["Log", "Receipt"]

log = logging.getLogger(__name__)

CHECKPOINT_EVERY = 1000
"""Entries. Replay does some 10 000 a second, so opening without an index stays below a second."""

CHEAP_CHECKPOINT = 5000
"""Up to this entry a checkpoint takes less than a commit's own fsyncs, and any process writes it.
Later ones are left to processes that call `checkpoint_due` when they have time."""


_PASSED_OVER = (CorruptError, HostError, NoSpaceError, NotFoundError, UnsupportedError)
"""What keeps the log from being followed, and nobody from looking at what the index knows."""


class Log:
    """The log of one store, as this process sees it.

    Args:
        objects: of the store.
        index: of this host.
        clock: tells the time.
        new_id: makes random ids.
        host: what entries say about where they come from.
        pause: waits for some seconds.
        identify: raises when the store is not there any more, or another one is in its place.
        features: that `store.json` names.
        checkpoint_limit: tells how many bytes of a checkpoint this process has the memory for.
        free_reserve: gives up the room that is kept for deleting; False when there is none.

    Attributes:
        trouble: why the index is not at the end of the log, since the last `catch_up`; or None.
    """

    def __init__(
        self,
        objects: ObjectStore,
        index: Index,
        *,
        clock: Clock,
        new_id: Callable[[], str],
        host: str,
        pause: Callable[[float], None] | None = None,
        identify: Callable[[], None] = lambda: None,
        features: Features = MappingProxyType({}),
        checkpoint_limit: Callable[[], int] = lambda: MAX_CHECKPOINT_SIZE,
        free_reserve: Callable[[], bool] = lambda: False,
    ) -> None:
        self.trouble: MregfsError | None = None
        self._index = index
        self._replay = replay = Replay(
            objects, index, identify=identify, checkpoint_limit=checkpoint_limit
        )
        self._appender_made: Appender | None = None
        self._making = threading.Lock()

        def make_appender() -> "Appender":
            # Imported late: who only reads never needs the rules, a sixth of what `api` imports.
            from mregfs.registry.log.append import Appender

            return Appender(
                objects,
                index,
                replay,
                clock=clock,
                new_id=new_id,
                host=host,
                features=features,
                pause=pause,
                free_reserve=free_reserve,
            )

        self._make_appender = make_appender

    # ---- reading

    def catch_up(self, *, strict: bool = False) -> int:
        """Bring the index up to the head of the log, and return the last entry that it has.

        When there is nothing new it costs two `exists`. When the log is damaged, or the store is
        gone, what the index knows stays: `trouble` says why there is no more, and so does one line
        at ERROR. Nothing can be appended then.

        Raises:
            MregfsError: the log cannot be followed, and the index knows nothing; or `strict`.
        """
        try:
            head = self._replay.catch_up()
        except _PASSED_OVER as exc:
            applied = self._index.applied()
            if applied == 0 or strict:
                raise
            if self.trouble is None or str(exc) != str(self.trouble):
                log.error("the registry is shown as of log entry %d, as %s", applied, exc)
            self.trouble = exc
            return applied
        if self.trouble is not None:
            log.info("the log can be followed again, at entry %d", head)
            self.trouble = None
        return head

    def entries(self, since: int) -> Iterator[Entry]:
        """Yield the entries after `since`, up to the head; read as they are taken.

        Raises:
            CorruptError: an entry is damaged, or does not follow from the one before it.
        """
        return (entry for entry, _ in self._replay.entries(since))

    def sized_entries(self, since: int) -> Iterator[tuple[Entry, int]]:
        """Yield what `entries` does, each with its size in bytes.

        Raises:
            CorruptError: an entry is damaged, or does not follow from the one before it.
        """
        return self._replay.entries(since)

    def entry(self, sequence: int) -> Entry:
        """Return one entry.

        Raises:
            NotFoundError: the log is not that long.
            CorruptError: it is damaged.
        """
        return self._replay.entry(sequence)

    def has_layout(self, layout: str, since: int) -> bool | None:
        """Tell whether an entry after `since` makes a version with this layout.

        None: an append of this process is still in doubt, and could be that entry.
        """
        doubtful = self._appender_made.doubtful if self._appender_made else 0
        if layout:
            for entry in self.entries(since):
                doubtful = 0 if entry.sequence >= doubtful else doubtful
                for request in entry.requests:
                    for change in request.changes:
                        if isinstance(change, VersionLogged) and change.layout == layout:
                            return True
        return None if layout and doubtful > since else False

    # ---- appending

    def rehearse(self, commands: Sequence[Command], principal: Principal) -> None:
        """Ask the rules whether these commands may be carried out now; nothing changes.

        Raises:
            MregfsError: they may not.
        """
        self._appender.rehearse(commands, principal)

    def submit(
        self, commands: Sequence[Command], principal: Principal, reason: str = ""
    ) -> Receipt:
        """Carry out all commands or none, as one transaction in one log entry.

        Requests of several threads that wait at the same time share an entry; each one is decided
        on top of those before it, and one that is refused is refused alone.

        Raises:
            UnavailableError: the store did not say whether the entry arrived. It may have: look
                before trying again.
            MregfsError: refused by a rule; nothing changed.
        """
        receipt = self._appender.submit(commands, principal, reason)
        self.trouble = None
        if receipt.entry is not None:
            self._checkpoint_if_cheap(receipt.sequence)
        return receipt

    @property
    def _appender(self) -> "Appender":
        with self._making:
            if self._appender_made is None:
                self._appender_made = self._make_appender()
            return self._appender_made

    # ---- checkpoints

    def checkpoint_due(self) -> bool:
        """Tell whether it is time for a checkpoint; a daemon asks now and then, and writes one."""
        return self._index.applied() - self._replay.last_checkpoint() >= CHECKPOINT_EVERY

    def checkpoint(self) -> int:
        """Store the state as a checkpoint; return its sequence number (0: the log is empty)."""
        return self._replay.checkpoint()

    def rebuild(
        self, fresh: Index, progress: Progress | None = None, *, accept_log: bool = False
    ) -> int:
        """Fill the index again from checkpoint and log, by way of an empty one; return the head.

        Others may go on reading and appending meanwhile. With `accept_log` the log is believed
        although the index knows more.

        Raises:
            CorruptError: the log cannot be replayed; the index is as it was.
        """
        head = self._replay.rebuild(fresh, progress, accept_log=accept_log)
        self.trouble = None
        return head

    def _checkpoint_if_cheap(self, sequence: int) -> None:
        if sequence % CHECKPOINT_EVERY == 0 and sequence <= CHEAP_CHECKPOINT:
            try:
                self._replay.checkpoint()
            except MregfsError as exc:
                log.warning("no checkpoint at entry %d: %s", sequence, exc)
