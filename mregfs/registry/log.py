"""The log: the only way anything in a registry changes, and the way every process learns of it.

Decided here: who is told of an entry, when a checkpoint is due (`log.md`). Not decided here: how an
entry is appended (`append`) and reaches the index (`replay`), the form of entries (`format.md`).
The use cases, the daemon and the Python API call this, from any thread.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from mregfs.errors import MregfsError
from mregfs.model.changes import Entry, VersionLogged
from mregfs.model.commands import Command, Principal
from mregfs.ports import Clock, Index, ObjectStore
from mregfs.registry.receipt import Receipt
from mregfs.registry.replay import Progress, Replay

if TYPE_CHECKING:
    from mregfs.registry.append import Appender

__all__ = ["Log", "Receipt"]

log = logging.getLogger(__name__)

CHECKPOINT_EVERY = 1000
"""Entries. Replay does some 10 000 a second, so opening without an index stays below a second."""

CHEAP_CHECKPOINT = 5000
"""Up to this entry a checkpoint takes less than a commit's own fsyncs, and any process writes it.
Later ones are left to processes that call `checkpoint_due` when they have time."""


class Log:
    """The log of one store, as this process sees it."""

    def __init__(
        self,
        objects: ObjectStore,
        index: Index,
        *,
        clock: Clock,
        new_id: Callable[[], str],
        host: str,
        pause: Callable[[float], None] | None = None,
    ) -> None:
        self._index = index
        self._replay = replay = Replay(objects, index)
        self._appender_made: Appender | None = None
        self._making = threading.Lock()

        def make_appender() -> "Appender":
            # Imported late: who only reads never needs the rules, a sixth of what `api` imports.
            from mregfs.registry.append import Appender

            return Appender(
                objects, index, replay, clock=clock, new_id=new_id, host=host, pause=pause
            )

        self._make_appender = make_appender
        self._delivery = threading.RLock()
        self._callbacks: list[Callable[[Entry], None]] = []
        self._delivered = 0

    # ---- reading

    def catch_up(self) -> int:
        """Bring the index up to the head of the log, and return the head's sequence number.

        When there is nothing new it costs one `exists`.

        Raises:
            CorruptError: an entry is damaged, or does not follow from the one before it.
        """
        head = self._replay.catch_up()
        self._deliver(head)
        return head

    def entries(self, since: int) -> Iterator[Entry]:
        """Yield the entries after `since`, up to the head; read as they are taken.

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

    def subscribe(self, callback: Callable[[Entry], None]) -> Callable[[], None]:
        """Have `callback` called with each entry from now on, once and in order.

        It is called in whichever thread appends or catches up, without a lock of the log's that
        would keep it from reading or appending; it must not raise.

        Returns:
            What ends the subscription.
        """
        with self._delivery:
            if not self._callbacks:
                self._delivered = self._replay.catch_up()
            self._callbacks = [*self._callbacks, callback]

        def unsubscribe() -> None:
            with self._delivery:
                self._callbacks = [each for each in self._callbacks if each is not callback]

        return unsubscribe

    def _deliver(self, head: int) -> None:
        """Tell the subscribers about every entry up to `head`, whichever process applied it."""
        with self._delivery:
            if not self._callbacks:
                return
            while self._delivered < head:
                entry = self._replay.entry(self._delivered + 1)
                self._delivered += 1
                for callback in self._callbacks:
                    callback(entry)

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
        try:
            self._deliver(receipt.sequence)
        except MregfsError as exc:
            log.warning("subscribers learn of entry %d later: %s", receipt.sequence, exc)
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

    def rebuild(self, fresh: Index, progress: Progress | None = None) -> int:
        """Fill the index again from checkpoint and log, by way of an empty one; return the head.

        Others may go on reading and appending meanwhile.
        """
        head = self._replay.rebuild(fresh, progress)
        self._deliver(head)
        return head

    def _checkpoint_if_cheap(self, sequence: int) -> None:
        if sequence % CHECKPOINT_EVERY == 0 and sequence <= CHEAP_CHECKPOINT:
            try:
                self._replay.checkpoint()
            except MregfsError as exc:
                log.warning("no checkpoint at entry %d: %s", sequence, exc)
