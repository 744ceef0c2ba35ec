"""Appending: how an entry gets into the log exactly once.

Decided here: the order of deciding, appending and applying, what a store's answer means, how
requests that arrive together share an entry (`log.md` §1). Not decided here: what a command leads
to (`model.rules`), how entries of others reach the index (`replay`).
"""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

from mregfs.errors import (
    ConflictError,
    ExistsError,
    HostError,
    InvalidError,
    MregfsError,
    NoSpaceError,
    NotFoundError,
    UnavailableError,
)
from mregfs.model.changes import (
    ENTRY_GRAIN,
    MAX_ENTRY_SIZE,
    Change,
    Entry,
    LayoutReplaced,
    PacksRetired,
    Request,
    VersionDeleted,
    decode_entry,
    encode_entry,
    entry_key,
)
from mregfs.model.commands import (
    Command,
    DeleteOwner,
    DeleteVersion,
    DropAlias,
    Principal,
    Unlink,
)
from mregfs.model.features import Features, require
from mregfs.model.rules import Overlay, Stamp, apply_changes, apply_entry, decide
from mregfs.model.state import Put, State, View
from mregfs.ports import Clock
from mregfs.ports.index import Index
from mregfs.ports.objects import ObjectStore
from mregfs.registry.log.receipt import Receipt
from mregfs.registry.log.replay import Replay, read_head, rows_after

__all__ = ["Appender"]

log = logging.getLogger(__name__)

MAX_RACES = 1000
"""Lost races in a row before an append gives up; each one means that somebody else's succeeded."""

APPEND_LIMIT_NS = 60 * 10**9
"""How long an append asks a store that does not answer whether its entry arrived."""

_DELETING = (DeleteOwner, DeleteVersion, DropAlias, Unlink)
"""Commands that a full disk does not stop, as long as there is a reserve."""

_DELETIONS = (VersionDeleted, PacksRetired, LayoutReplaced)
"""What lets bytes go, now or later."""

_MAX_ATTEMPTS = 100  # bounds the same when the clock stands still
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 2.0


class _Waiting:
    """A request on its way: what is asked, later the outcome."""

    def __init__(self, commands: Sequence[Command], principal: Principal, reason: str) -> None:
        self.commands = tuple(commands)
        self.principal = principal
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


class Appender:
    """The writing side of the log of one store. Safe to use from several threads.

    Attributes:
        doubtful: the sequence number of an append whose outcome nobody knows; 0 when there is none.
    """

    def __init__(
        self,
        objects: ObjectStore,
        index: Index,
        replay: Replay,
        *,
        clock: Clock,
        new_id: Callable[[], str],
        host: str,
        features: Features,
        pause: Callable[[float], None] | None = None,
        free_reserve: Callable[[], bool] = lambda: False,
    ) -> None:
        self.doubtful = 0
        self._free_reserve = free_reserve
        self._objects = objects
        self._index = index
        self._replay = replay
        self._clock = clock
        self._new_id = new_id
        self._host = host
        self._features = features
        self._pause = pause or _pause
        self._queue: list[_Waiting] = []
        self._queue_lock = threading.Lock()
        self._turn = threading.Lock()
        self._checked = False

    def rehearse(self, commands: Sequence[Command], principal: Principal) -> None:
        """Ask the rules whether these commands may be carried out now; nothing changes.

        Raises:
            MregfsError: they may not.
        """
        waiting = _Waiting(commands, principal, "")
        with self._index.read() as view:
            head = read_head(view)
            self._decide_all(view, [waiting], Stamp(head.sequence + 1, head.at_ns + 1, ""))
        if waiting.error is not None:
            raise waiting.error

    def submit(self, commands: Sequence[Command], principal: Principal, reason: str) -> Receipt:
        """Do what `Log.submit` promises, but for telling the subscribers."""
        try:
            return self._submit(commands, principal, reason)
        except NoSpaceError:
            deletes = all(isinstance(each, _DELETING) for each in commands)
            if not deletes or not self._free_reserve():
                raise
        return self._submit(commands, principal, reason)

    def _submit(self, commands: Sequence[Command], principal: Principal, reason: str) -> Receipt:
        waiting = _Waiting(commands, principal, reason)
        with self._queue_lock:
            self._queue.append(waiting)
        with self._turn:
            if not waiting.settled:
                with self._queue_lock:
                    batch, self._queue = self._queue, []
                self._settle(batch)
        if waiting.error is not None:
            raise waiting.error
        assert waiting.receipt is not None
        return waiting.receipt

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
        for _ in range(MAX_RACES):
            base = self._replay.catch_up()
            with self._index.read() as view:
                head = read_head(view)
                if head.sequence < base:
                    continue  # the index is being rebuilt
                at_ns = max(self._clock(), head.at_ns + 1)
                changed = self._decide_all(view, batch, Stamp(head.sequence + 1, at_ns, ""))
                if not changed:
                    _settle_all(batch, head.sequence, None)
                    return
                entry = Entry(
                    sequence=head.sequence + 1,
                    previous=head.digest,
                    transaction=self._new_id(),
                    at_ns=at_ns,
                    host=self._host,
                    requests=tuple(
                        Request(
                            each.principal.author or each.principal.user,
                            each.changes,
                            each.reason,
                            each.principal.user,
                        )
                        for each in changed
                    ),
                )
                key = entry_key(entry.sequence)
                data = encode_entry(entry, grain=ENTRY_GRAIN)
                if len(data) > MAX_ENTRY_SIZE:
                    break
                # Applied before it is appended, from its bytes: what replay could not apply never
                # gets into the log.
                entry = decode_entry(data, key)
                puts = [*apply_entry(view, entry), *rows_after(entry, data)]
            if not self._checked:
                self._checked = self._replay.require_head(head.sequence)
                if not self._checked:
                    continue
            self._index.reserve(puts)  # or the change would be made, and shown much later
            if self._append(key, data):
                self._apply(entry.sequence, puts, head.sequence)
                _settle_all(batch, entry.sequence, entry, len(data))
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

    def _decide_all(self, view: View, batch: list[_Waiting], stamp: Stamp) -> list[_Waiting]:
        """Decide each request on top of those before it; return the ones that change something."""
        overlay = Overlay(view)
        features = {**self._features, **State(view).features()}
        changed = []
        for waiting in batch:
            waiting.changes, waiting.results, waiting.error = (), (), None
            attempt = Overlay(overlay)
            own = Stamp(stamp.sequence, stamp.at_ns, waiting.principal.signature, waiting.reason)
            changes: list[Change] = []
            results: list[dict[str, Any]] = []
            try:
                require(features, "write", "the store")
                for command in waiting.commands:
                    decision = decide(State(attempt), command, waiting.principal)
                    if any(isinstance(change, _DELETIONS) for change in decision.changes):
                        require(features, "delete", "the store")
                    changes += decision.changes
                    results.append(decision.result)
                    if waiting is not batch[-1] or len(results) < len(waiting.commands):
                        # Nothing is decided on top of the last one of all.
                        attempt.apply(apply_changes(attempt, decision.changes, own))
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
        self.doubtful = int(key[4:24])
        raise UnavailableError(
            f"the store did not say whether it has {key}",
            "the change may have been made: look (mregfs history) before trying again",
        )

    def _apply(self, sequence: int, puts: Sequence[Put], expected: int) -> None:
        try:
            self._replay.applied(puts, expected, sequence)
        except MregfsError as exc:
            # The entry is in the log: that is what the caller asked for. `catch_up` tries again.
            log.error("entry %d is in the log, but not in the index: %s", sequence, exc)


def _settle_all(batch: list[_Waiting], sequence: int, entry: Entry | None, size: int = 0) -> None:
    for each in batch:
        if each.error is None:
            each.receipt = Receipt(sequence, each.results, entry if each.changes else None, size)
