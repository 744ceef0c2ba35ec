"""Replay: from log entries and checkpoints to the index.

Decided here: that an index belongs to this log, that each entry follows from the one before it,
where replay starts, what of a checkpoint is believed (`log.md` §3), what an index is worth when the
log is damaged (`log.md` §5). Not decided here: what an entry does (`model.rules`), when one is
appended (`log`).
"""

import errno
import logging
import struct
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec
from blake3 import blake3

from mregfs.errors import (
    CorruptError,
    ExistsError,
    HostError,
    MregfsError,
    NotFoundError,
    UnsupportedError,
)
from mregfs.model.changes import Entry, decode_entry, entry_key
from mregfs.model.checkpoint import (
    MAX_CHECKPOINT_SIZE,
    Checkpoint,
    checkpoint_key,
    checkpoint_sequence,
    decode_checkpoint,
    encode_checkpoint,
)
from mregfs.model.state import STATE_TABLES, Put, View, pack_number
from mregfs.ports.index import Index
from mregfs.ports.objects import ObjectStore

__all__ = ["Head", "Progress", "Replay", "entry_digest", "read_head", "read_recent", "rows_after"]

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with the entries done and their total."""

NO_DIGEST = "0" * 64
"""What the first entry has as digest of the entry before."""

BATCH = 256
"""Entries that share a transaction of the index during a long replay: a hundred times fewer."""

KEPT_CHECKPOINTS = 3

KEPT_ENTRIES = 1000
"""Newest entries whose bytes the index has, so that a damaged one can be written again. As many as
there are from one checkpoint to the next: those have them too."""

MAX_KEPT = 128 << 10
"""Bytes of an entry beyond which it is not among them; most have 1 KiB."""

_WAY_OUT = (
    "mregfs fsck --repair writes what is missing again, from the index or from a copy of the store;"
    " mregfs reindex --accept-log gives it up and takes the log as it is"
)

_HEAD_KEY = b"head"
_HEAD = struct.Struct(">QQ32s")


class Head(msgspec.Struct, frozen=True):
    """The last entry of the log that a view of the index has."""

    sequence: int = 0
    at_ns: int = 0
    digest: str = NO_DIGEST
    """Of the entry's bytes."""

    @classmethod
    def of(cls, entry: Entry, data: bytes) -> "Head":
        """Return the head after this entry, whose bytes are `data`."""
        return cls(entry.sequence, entry.at_ns, entry_digest(data))

    def put(self) -> Put:
        """Return the change of the index that remembers it."""
        row = _HEAD.pack(self.sequence, self.at_ns, bytes.fromhex(self.digest))
        return Put("meta", _HEAD_KEY, row)


def read_head(view: View) -> Head:
    """Return the head that belongs to the state of a view."""
    row = view.get("meta", _HEAD_KEY)
    if row is None:
        return Head()
    sequence, at_ns, digest = _HEAD.unpack(row)
    return Head(sequence, at_ns, digest.hex())


def rows_after(entry: Entry, data: bytes) -> list[Put]:
    """Return what the index remembers of an entry itself, besides what the entry does."""
    puts = [Head.of(entry, data).put()]
    if len(data) <= MAX_KEPT:
        puts.append(Put("recent", pack_number(entry.sequence), data))
    if entry.sequence > KEPT_ENTRIES:
        puts.append(Put("recent", pack_number(entry.sequence - KEPT_ENTRIES), None))
    return puts


def read_recent(view: View, sequence: int) -> bytes | None:
    """Return the bytes of an entry, if it is among the newest that a view has."""
    found = view.get("recent", pack_number(sequence))
    return None if found is None else bytes(found)


def entry_digest(data: bytes) -> str:
    """Return the digest by which the next entry names the one with these bytes."""
    return blake3(data).hexdigest()


class Replay:
    """The reading side of the log of one store. Safe to use from several threads and processes.

    Args:
        objects: of the store.
        index: of this host.
        identify: reads the store's id again; called when an entry that was there is not any more.
        checkpoint_limit: tells how many bytes of a checkpoint this process has the memory for.
    """

    def __init__(
        self,
        objects: ObjectStore,
        index: Index,
        *,
        identify: Callable[[], None] = lambda: None,
        checkpoint_limit: Callable[[], int] = lambda: MAX_CHECKPOINT_SIZE,
    ) -> None:
        self._objects = objects
        self._index = index
        self._identify = identify
        self._checkpoint_limit = checkpoint_limit
        self._attached = False

    def catch_up(self, progress: Progress | None = None, total: int = 0) -> int:
        """Bring the index up to the head of the log, and return the head's sequence number.

        What cannot be applied leaves the index as the entries before it made it.

        Raises:
            CorruptError: an entry is damaged or missing, or does not follow from the one before
                it; or the index knows entries that the log has not (any more).
            HostError: the store is not there any more.
        """
        if not self._attached:
            self._attach()
        fresh = self._index.applied() == 0
        while True:
            applied = self._index.applied()
            if applied == 0:
                self._require_entries()
            if not self._objects.exists(entry_key(applied + 1)):
                self._require_last(applied)
                return applied
            if applied == 0 and self._load_checkpoint():
                continue
            try:
                self._apply_batch(applied)
            except CorruptError as exc:
                if fresh:
                    self._give_up_half(exc)
                raise
            if progress is not None:
                progress(self._index.applied(), total)

    def entry(self, sequence: int) -> Entry:
        """Return one entry; the index has the newest, also when the log has lost them.

        Raises:
            NotFoundError: the log is not that long.
            CorruptError: it is damaged.
        """
        key = entry_key(sequence)
        with self._index.read() as view:
            data = read_recent(view, sequence)
        return _decoded(self._objects.get(key) if data is None else data, key, sequence)

    def entries(self, since: int) -> Iterator[tuple[Entry, int]]:
        """Yield the entries after `since`, up to the head, and their sizes in bytes.

        Raises:
            CorruptError: an entry is damaged, or does not follow from the one before it.
        """
        head: Head | None = None
        for sequence, key, data in self._read(since):
            entry = _decoded(data, key, sequence)
            if head is not None:
                _check_chain(entry, head, key)
            head = Head.of(entry, data)
            yield entry, len(data)

    def applied(self, puts: Iterable[Put], expected: int, head: int) -> None:
        """Put an entry that was just appended into the index, with its `rows_after`.

        When another process was faster, or the index cannot be written, the next `catch_up` finds
        all as it must be: the entry is in the log.
        """
        self._index.write(puts, expected=expected, applied=head)

    def rebuild(
        self, fresh: Index, progress: Progress | None = None, *, accept_log: bool = False
    ) -> int:
        """Fill the index again from checkpoint and log, and return the head's sequence number.

        All is put together in `fresh`, an empty index, and exchanged in one transaction: whoever
        reads meanwhile sees the state before or the state after, and never one of the past.

        With `accept_log` the log is believed although the index knows more, or something else.

        Cancelled: the index is as it was.

        Raises:
            CorruptError: the log cannot be replayed to its end, or does not have what the index
                knows; the index is as it was.
        """
        if not (self._attached or accept_log):
            self._attach()
        total = max(self._sequences(), default=0)
        self._require_entries()
        replay = Replay(self._objects, fresh, checkpoint_limit=self._checkpoint_limit)
        exchanged = False
        while not exchanged:
            applied = self._index.applied()
            head = replay.catch_up(progress, total)
            if head < applied and not accept_log:
                self._require_last(applied)
            with fresh.read() as view:
                puts = [Put(table, *row) for table in STATE_TABLES for row in view.scan(table)]
            exchanged = self._index.write(puts, expected=applied, applied=head, anew=True)
        self._attached = True
        return self.catch_up()

    def require_head(self, sequence: int) -> bool:
        """Check that no entry is missing after this one; False: the log has grown meanwhile.

        Raises:
            CorruptError: the entry after it is missing, but there are later ones.
        """
        later = next(self._sequences(sequence), None)
        if later is None:
            return True
        self._require_entry(sequence + 1, later)
        return False

    # ---- entries

    def _attach(self) -> None:
        """Check that the index is of this log, and not of more of it than there is.

        An index of another log that others have gone on with is filled anew. One that knows what
        the log has not is kept: it may be all that is left of it.

        Raises:
            CorruptError: the log has lost its end, or its last entry was changed.
            HostError: the store is not there.
        """
        applied = self._index.applied()
        head = self._head()
        if applied == 0:
            self._attached = True
            return
        key, found = entry_key(applied), self._digest_of(applied)
        if head.sequence != applied:  # the index contradicts itself
            self._replace(applied)
        elif found != head.digest:
            previous = self._previous_of(applied + 1)
            if not found and previous != head.digest:
                self._require_last(applied)
            elif previous == found:
                self._replace(applied)
            elif previous != head.digest:
                raise CorruptError(
                    f"{key} is not the entry that the index of this host knows: it was damaged, or "
                    "another log was put in its place",
                    _WAY_OUT,
                )
        self._attached = True

    def _previous_of(self, sequence: int) -> str | None:
        """Return the digest that an entry has of the one before it; None: it says nothing."""
        key = entry_key(sequence)
        try:
            return _decoded(self._objects.get(key), key, sequence).previous
        except (NotFoundError, CorruptError):
            return None

    def _replace(self, applied: int) -> None:
        """Exchange the index's state for that of a log which is another one, when that is sound.

        In one transaction: should the log turn out to be damaged, the index is as it was.
        """
        from mregfs.model.rules import Overlay, apply_entry

        log.warning("the index is not of this log (at entry %d): rebuilding it", applied)
        overlay, head = Overlay(_Nothing()), Head()
        for sequence, key, data in self._read(0):
            entry = _decoded(data, key, sequence)
            _check_time(entry, head, key)
            _check_chain(entry, head, key)
            overlay.apply(apply_entry(overlay, entry))
            overlay.apply(rows_after(entry, data))
            head = Head.of(entry, data)
        puts = [put for put in overlay.puts() if put.value is not None]
        self._index.write(puts, expected=applied, applied=head.sequence, anew=True)

    def _require_last(self, sequence: int) -> None:
        """Check that the log still has the last entry that the index knows.

        Raises:
            CorruptError: it has not.
            HostError: it is the store that is not there any more.
        """
        if sequence and self._objects.exists(entry_key(sequence)):
            return
        try:
            self._identify()
        except MregfsError as exc:
            raise HostError(
                errno.EIO,
                f"the store cannot be reached any more: {exc.message}",
                "bring it back (mount its disk, undo the move): then all goes on",
            ) from exc
        if sequence and not self._objects.exists(entry_key(sequence)):
            last = max(self._sequences(), default=0)
            raise CorruptError(
                f"the log ends at entry {last}, but the index of this host knows entry {sequence}",
                _WAY_OUT,
            )

    def _give_up_half(self, failure: CorruptError) -> None:
        """Empty an index again that was empty before, when it has but the beginning of the log.

        What follows the damaged entry is lost to who has no other index, and half of a log must not
        pass for all of it. An entry that its writer made like that is no such hole, as the next
        one's digest of it shows: nobody can have built on it, and what was before it is the state.
        So is the last one of the log.
        """
        applied = self._index.applied()
        found, _ = self._read_batch(self._head())
        bad = applied + len(found) + 1
        previous = self._previous_of(bad + 1)
        if self._objects.exists(entry_key(bad + 1)) and previous != self._digest_of(bad):
            self._index.write([], expected=applied, applied=0, anew=True)
            raise CorruptError(
                f"{failure.message}; there are later entries, and no index or checkpoint of them",
                "mregfs fsck --repair --from COPY takes it from a copy of the store",
            ) from failure

    def _head(self) -> Head:
        with self._index.read() as view:
            return read_head(view)

    def _digest_of(self, sequence: int) -> str:
        try:
            return entry_digest(self._objects.get(entry_key(sequence)))
        except NotFoundError:
            return ""

    def _sequences(self, after: int = 0) -> Iterator[int]:
        """Yield the numbers of the entries that the store has after this one, in order."""
        for key in self._objects.list("log/", entry_key(after)):
            digits = key[4:24]
            if digits.isdecimal() and key == entry_key(int(digits)):
                yield int(digits)

    def _require_entries(self) -> None:
        """Check that the log can fill an empty index: from its newest checkpoint, without a gap.

        Before anything is in the index: half of a log must not pass for all of it.

        Raises:
            CorruptError: an entry is missing.
        """
        sequences = list(self._sequences())
        if not sequences or sequences[-1] == len(sequences):
            return
        known = set(sequences)
        checkpoints = (checkpoint_sequence(key) or 0 for key in self._checkpoints())
        expected = next((each for each in checkpoints if each in known), 0) + 1
        for sequence in sequences[bisect_left(sequences, expected) :]:
            while expected < sequence:
                self._require_entry(expected, sequences[-1])
                expected += 1
            expected += 1

    def _require_entry(self, sequence: int, later: int) -> None:
        # A list may lack what was created while it was made; an entry precedes all later ones.
        key = entry_key(sequence)
        if not self._objects.exists(key):
            raise CorruptError(
                f"{key} is missing from the store, which has {entry_key(later)}",
                "restore it from a backup; mregfs fsck says what else is missing",
            )

    def _read(self, since: int) -> Iterator[tuple[int, str, bytes]]:
        sequence = since + 1
        while True:
            key = entry_key(sequence)
            try:
                data = self._objects.get(key)
            except NotFoundError:
                return
            yield sequence, key, data
            sequence += 1

    def _apply_batch(self, applied: int) -> None:
        """Apply the next entries, unless another process or thread is doing it already.

        Those before a damaged one are applied; the next call then begins with that one.

        Raises:
            CorruptError: the first of them is damaged.
        """
        from mregfs.model.rules import Overlay, apply_entry

        with self._index.read() as view:
            head = read_head(view)
            if head.sequence != applied:
                return
            found, failure = self._read_batch(head)
            overlay = Overlay(view)
            for entry, data in found:
                try:
                    puts = apply_entry(overlay, entry)
                except CorruptError as exc:
                    failure = exc
                    break
                overlay.apply(puts)
                overlay.apply(rows_after(entry, data))
                head = Head.of(entry, data)
            puts = overlay.puts()
        if failure is not None and head.sequence == applied:
            raise failure
        self.applied(puts, applied, head.sequence)

    def _read_batch(
        self, head: Head
    ) -> tuple[list[tuple[Entry, bytes]], CorruptError | UnsupportedError | None]:
        """Return the next entries that are sound, and what is wrong with the one after them.

        One more is read than is returned: an entry that the next one does not follow from is not
        sound itself.
        """
        found: list[tuple[Entry, bytes]] = []
        read = self._read(head.sequence)
        for (sequence, key, data), _ in zip(read, range(BATCH + 1), strict=False):
            try:
                entry = _decoded(data, key, sequence)
                _check_time(entry, head, key)
            except (CorruptError, UnsupportedError) as exc:
                return found, exc
            try:
                _check_chain(entry, head, key)
            except CorruptError as exc:
                return found[:-1], exc
            head = Head.of(entry, data)
            found.append((entry, data))
        return found[:BATCH], None

    # ---- checkpoints

    def checkpoint(self) -> int:
        """Store the state of the index as a checkpoint, and return its sequence number.

        Costs about a second for 100 000 versions. Older checkpoints but two are deleted.
        """
        with self._index.read() as view:
            sequence = read_head(view).sequence
            if sequence == 0:
                return 0
            data = encode_checkpoint(
                sequence,
                ((table, key, value) for table in STATE_TABLES for key, value in view.scan(table)),
            )
        try:
            self._objects.create(checkpoint_key(sequence), data)
        except ExistsError:
            return sequence
        for key in self._checkpoints()[KEPT_CHECKPOINTS:]:
            self._objects.delete(key)
        return sequence

    def last_checkpoint(self) -> int:
        """Return the entry of the newest checkpoint; 0 when there is none."""
        keys = self._checkpoints()
        return (checkpoint_sequence(keys[0]) or 0) if keys else 0

    def _checkpoints(self) -> list[str]:
        """Return the keys of all checkpoints, newest first."""
        keys = self._objects.list("checkpoints/")
        return sorted((key for key in keys if checkpoint_sequence(key)), reverse=True)

    def _load_checkpoint(self) -> bool:
        """Fill an empty index from the newest sound checkpoint; False when there is none."""
        for key in self._checkpoints():
            try:
                data = self._objects.get(key)
                checkpoint = decode_checkpoint(data, key, self._checkpoint_limit())
                puts = [Put(*row) for row in checkpoint.rows()]
                self._check_checkpoint(checkpoint, puts, key)
            except (CorruptError, NotFoundError) as exc:
                log.warning("not using a checkpoint: %s", exc)
                continue
            # False: another process filled the index meanwhile, which is as good.
            self._index.write(puts, expected=0, applied=checkpoint.sequence)
            return True
        return False

    def _check_checkpoint(self, checkpoint: Checkpoint, puts: Sequence[Put], key: str) -> None:
        """Check that a checkpoint is of this log.

        Raises:
            CorruptError: it is not.
            NotFoundError: the log is shorter than it says.
        """
        rows = [put.value for put in puts if put.table == "meta" and put.key == _HEAD_KEY]
        found = entry_digest(self._objects.get(entry_key(checkpoint.sequence)))
        row = rows[0] if rows else None
        if row is None or len(row) != _HEAD.size or _HEAD.unpack(row)[2].hex() != found:
            raise CorruptError(f"{key} is of another log")


def _decoded(data: bytes, key: str, sequence: int) -> Entry:
    entry = decode_entry(data, key)
    if entry.sequence != sequence:
        raise CorruptError(
            f"{key} says that it is entry {entry.sequence}",
            "the log was changed by other means; run mregfs fsck",
        )
    return entry


def _check_chain(entry: Entry, head: Head, key: str) -> None:
    if entry.previous != head.digest:
        raise CorruptError(
            f"{entry_key(entry.sequence - 1)} was changed, or {key} is of another log: it names "
            f"{entry.previous[:16]}… as the entry before it, which is {head.digest[:16]}…",
            "the log was changed by other means; run mregfs fsck",
        )


def _check_time(entry: Entry, head: Head, key: str) -> None:
    if entry.at_ns <= head.at_ns:
        raise CorruptError(
            f"{key} says that it is older than the entry before it",
            "the log was changed by other means; run mregfs fsck",
        )


class _Nothing:
    """The view of an empty index."""

    def get(self, table: str, key: bytes) -> None:
        return None

    def scan(
        self, table: str, prefix: bytes = b"", start: bytes = b"", *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        return iter(())
