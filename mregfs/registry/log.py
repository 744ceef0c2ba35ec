"""The log: the only way anything in a registry changes, and the way every process learns of it.

Decided here: how an entry is appended exactly once, how entries reach the index, how requests that
arrive together share an entry (`log.md`). Not decided here: what a command leads to
(`model.rules`), the form of entries and checkpoints (`format.md`). The use cases, the daemon and
the Python API call this, from any thread.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from mregfs.errors import (
    ConflictError,
    ExistsError,
    HostError,
    InvalidError,
    MregfsError,
    NotFoundError,
    UnavailableError,
)
from mregfs.model.changes import (
    MAX_ENTRY_SIZE,
    Change,
    Entry,
    Request,
    VersionLogged,
    decode_entry,
    encode_entry,
    entry_key,
)
from mregfs.model.commands import Asker, Command
from mregfs.model.state import State
from mregfs.ports import Clock, Index, ObjectStore, Put, View
from mregfs.registry.replay import Head, Progress, Replay, read_head

if TYPE_CHECKING:
    from mregfs.model.rules import Stamp

__all__ = ["Log", "Receipt"]

log = logging.getLogger(__name__)

MAX_RACES = 1000
"""Lost races in a row before an append gives up; each one means that somebody else's succeeded."""

APPEND_LIMIT_NS = 60 * 10**9
"""How long an append asks a store that does not answer whether its entry arrived."""

_MAX_ATTEMPTS = 100  # bounds the same when the clock stands still
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 2.0

CHECKPOINT_EVERY = 1000
"""Entries. Replay does some 10 000 a second, so opening without an index stays below a second."""

CHEAP_CHECKPOINT = 5000
"""Up to this entry a checkpoint takes less than a commit's own fsyncs, and any process writes it.
Later ones are left to processes that call `checkpoint_due` when they have time."""


class Receipt(msgspec.Struct, frozen=True):
    """What became of a transaction."""

    sequence: int
    """The log entry that holds it; the head of the log when nothing had to change."""
    results: tuple[dict[str, Any], ...]
    """One for each command."""
    entry: Entry | None
    """None when nothing had to change."""


class _Waiting:
    """A request on its way: what is asked, later the outcome."""

    def __init__(self, commands: Sequence[Command], asker: Asker, reason: str) -> None:
        self.commands = tuple(commands)
        self.asker = asker
        self.reason = reason
        self.changes: tuple[Change, ...] = ()
        self.results: tuple[dict[str, Any], ...] = ()
        self.receipt: Receipt | None = None
        self.error: BaseException | None = None

    @property
    def settled(self) -> bool:
        return self.receipt is not None or self.error is not None


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)


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
        pause: Callable[[float], None] = _pause,
    ) -> None:
        self._objects = objects
        self._index = index
        self._clock = clock
        self._new_id = new_id
        self._host = host
        self._pause = pause
        self._replay = Replay(objects, index)
        self._queue: list[_Waiting] = []
        self._queue_lock = threading.Lock()
        self._turn = threading.Lock()
        self._delivery = threading.RLock()
        self._callbacks: list[Callable[[Entry], None]] = []
        self._delivered = 0
        self._doubtful = 0

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
        doubtful = self._doubtful
        if layout:
            for entry in self.entries(since):
                doubtful = 0 if entry.sequence >= doubtful else doubtful
                for request in entry.requests:
                    for change in request.changes:
                        if isinstance(change, VersionLogged) and change.layout == layout:
                            return True
        return None if layout and doubtful > since else False

    # ---- appending

    def rehearse(self, commands: Sequence[Command], asker: Asker) -> None:
        """Ask the rules whether these commands may be carried out now; nothing changes.

        Raises:
            MregfsError: they may not.
        """
        from mregfs.model.rules import Stamp

        waiting = _Waiting(commands, asker, "")
        with self._index.read() as view:
            head = read_head(view)
            self._decide_all(view, [waiting], Stamp(head.sequence + 1, head.at_ns + 1, ""))
        if waiting.error is not None:
            raise waiting.error

    def submit(self, commands: Sequence[Command], asker: Asker, reason: str = "") -> Receipt:
        """Carry out all commands or none, as one transaction in one log entry.

        Requests of several threads that wait at the same time share an entry; each one is decided
        on top of those before it, and one that is refused is refused alone.

        Raises:
            UnavailableError: the store did not say whether the entry arrived. It may have: look
                before trying again.
            MregfsError: refused by a rule; nothing changed.
        """
        waiting = _Waiting(commands, asker, reason)
        with self._queue_lock:
            self._queue.append(waiting)
        with self._turn:
            if not waiting.settled:
                with self._queue_lock:
                    batch, self._queue = self._queue, []
                self._settle(batch)
        if waiting.error is not None:
            raise waiting.error
        receipt = waiting.receipt
        assert receipt is not None
        try:
            self._deliver(receipt.sequence)
        except MregfsError as exc:
            log.warning("subscribers learn of entry %d later: %s", receipt.sequence, exc)
        if receipt.entry is not None:
            self._checkpoint_if_cheap(receipt.sequence)
        return receipt

    def _settle(self, batch: list[_Waiting]) -> None:
        try:
            self._commit(batch)
        except MregfsError as exc:
            for waiting in batch:
                if not waiting.settled:
                    waiting.error = exc
        finally:
            # An interrupt or a bug: the other threads must not take their turn as the leader of
            # requests that this one may have appended.
            for waiting in batch:
                if not waiting.settled:
                    waiting.error = UnavailableError(
                        "the append was interrupted", "see mregfs history whether it was made"
                    )

    def _commit(self, batch: list[_Waiting]) -> None:
        """Append one entry with all requests of the batch that the rules accept."""
        # Here and below: who only reads never needs the rules, a sixth of what `api` imports.
        from mregfs.model.rules import Stamp, apply_entry

        for _ in range(MAX_RACES):
            base = self._replay.catch_up()
            with self._index.read() as view:
                head = read_head(view)
                if head.sequence < base:
                    continue  # the index is being rebuilt
                at_ns = max(self._clock(), head.at_ns + 1)
                changed = self._decide_all(view, batch, Stamp(head.sequence + 1, at_ns, ""))
                entry = Entry(
                    sequence=head.sequence + 1,
                    previous=head.digest,
                    transaction=self._new_id(),
                    at_ns=at_ns,
                    host=self._host,
                    requests=tuple(
                        Request(each.asker.author, each.changes, each.reason) for each in changed
                    ),
                )
                key = entry_key(entry.sequence)
                data = encode_entry(entry)
                if len(data) > MAX_ENTRY_SIZE:
                    break
                # Applied before it is appended, from its bytes: what replay could not apply never
                # gets into the log.
                entry = decode_entry(data, key)
                puts = apply_entry(view, entry) if changed else []
            if not changed:
                _settle_all(batch, head.sequence, None)
                return
            if self._append(key, data):
                self._apply(entry, data, puts, head.sequence)
                _settle_all(batch, entry.sequence, entry)
                return
        else:
            raise ConflictError(
                "other writers were faster a thousand times in a row", "try again later"
            )
        if len(changed) == 1:
            changed[0].error = InvalidError(
                f"the transaction is too large for a log entry ({len(data)} bytes)",
                "split the transaction",
            )
            _settle_all(batch, head.sequence, None)
            return
        self._commit(batch[: len(batch) // 2])
        self._commit(batch[len(batch) // 2 :])

    def _decide_all(self, view: View, batch: list[_Waiting], stamp: "Stamp") -> list[_Waiting]:
        """Decide each request on top of those before it; return the ones that change something."""
        from mregfs.model.rules import Overlay, Stamp, apply_changes, decide

        overlay = Overlay(view)
        changed = []
        for waiting in batch:
            waiting.changes, waiting.results, waiting.error = (), (), None
            attempt = Overlay(overlay)
            own = Stamp(stamp.sequence, stamp.at_ns, waiting.asker.author, waiting.reason)
            changes: list[Change] = []
            results: list[dict[str, Any]] = []
            try:
                for command in waiting.commands:
                    decision = decide(State(attempt), command, waiting.asker)
                    attempt.apply(apply_changes(attempt, decision.changes, own))
                    changes += decision.changes
                    results.append(decision.result)
            except MregfsError as exc:
                exc.position = len(results)
                waiting.error = exc
                continue
            waiting.changes, waiting.results = tuple(changes), tuple(results)
            if changes:
                overlay.apply(attempt.puts())
                changed.append(waiting)
        return changed

    def _append(self, key: str, data: bytes) -> bool:
        """Create the entry; False when somebody else's has its place.

        When the store does not answer, the same bytes are sent to the same key until it can be
        read: the entry may have arrived although the answer did not.

        Raises:
            UnavailableError: the store did not answer in time; the entry may have arrived.
        """
        deadline = self._clock() + APPEND_LIMIT_NS
        pause = _FIRST_PAUSE
        failure: MregfsError
        for _ in range(_MAX_ATTEMPTS):
            try:
                self._objects.create(key, data)
                return True
            except (ExistsError, UnavailableError, HostError) as exc:
                failure = exc
            try:
                return self._objects.get(key) == data  # it holds our transaction id, or another's
            except NotFoundError:
                if isinstance(failure, HostError):
                    raise failure from None  # a disk's error: nothing arrived, nothing will
            except UnavailableError as exc:
                failure = exc
            if self._clock() >= deadline:
                break
            self._pause(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        self._doubtful = int(key[4:24])
        raise UnavailableError(
            f"the store did not say whether it has {key}",
            "the change may have been made: look (mregfs history) before trying again",
        )

    def _apply(self, entry: Entry, data: bytes, puts: Sequence[Put], expected: int) -> None:
        try:
            self._replay.applied(Head.of(entry, data), puts, expected)
        except MregfsError as exc:
            # The entry is in the log: that is what the caller asked for. `catch_up` tries again.
            log.error("entry %d is in the log, but not in the index: %s", entry.sequence, exc)

    # ---- checkpoints

    def checkpoint_due(self) -> bool:
        """Tell whether it is time for a checkpoint; a daemon asks now and then, and writes one."""
        return self._index.applied() - self._replay.last_checkpoint() >= CHECKPOINT_EVERY

    def checkpoint(self) -> int:
        """Store the state as a checkpoint; return its sequence number (0: the log is empty)."""
        return self._replay.checkpoint()

    def rebuild(self, progress: Progress | None = None) -> int:
        """Empty the index and fill it again from checkpoint and log; return the head."""
        head = self._replay.rebuild(progress)
        self._deliver(head)
        return head

    def _checkpoint_if_cheap(self, sequence: int) -> None:
        if sequence % CHECKPOINT_EVERY == 0 and sequence <= CHEAP_CHECKPOINT:
            try:
                self._replay.checkpoint()
            except MregfsError as exc:
                log.warning("no checkpoint at entry %d: %s", sequence, exc)


def _settle_all(batch: list[_Waiting], sequence: int, entry: Entry | None) -> None:
    for each in batch:
        if each.error is None:
            each.receipt = Receipt(sequence, each.results, entry if each.changes else None)
