"""Replay: from log entries and checkpoints to the index.

Decided here: that an index belongs to this log, that each entry follows from the one before it,
where replay starts, what of a checkpoint is believed (`log.md` §3). Not decided here: what an entry
does (`model.rules`), when one is appended (`log`). Only `log` calls this.
"""

import logging
import struct
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec
from blake3 import blake3

from mregfs.errors import CorruptError, ExistsError, NotFoundError
from mregfs.model.changes import Entry, decode_entry, entry_key
from mregfs.model.checkpoint import (
    Checkpoint,
    checkpoint_key,
    checkpoint_sequence,
    decode_checkpoint,
    encode_checkpoint,
)
from mregfs.model.state import STATE_TABLES
from mregfs.ports import Index, ObjectStore, Put, View

__all__ = ["Head", "Progress", "Replay", "entry_digest", "read_head"]

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with the entries done and their total."""

NO_DIGEST = "0" * 64
"""What the first entry has as digest of the entry before."""

BATCH = 256
"""Entries that share a transaction of the index during a long replay: a hundred times fewer."""

KEPT_CHECKPOINTS = 3

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


def entry_digest(data: bytes) -> str:
    """Return the digest by which the next entry names the one with these bytes."""
    return blake3(data).hexdigest()


class Replay:
    """The reading side of the log of one store. Safe to use from several threads and processes."""

    def __init__(self, objects: ObjectStore, index: Index) -> None:
        self._objects = objects
        self._index = index
        self._attached = False

    def catch_up(self, progress: Progress | None = None, total: int = 0) -> int:
        """Bring the index up to the head of the log, and return the head's sequence number.

        Raises:
            CorruptError: an entry is damaged, or does not follow from the one before it; or the
                index is empty and the log cannot fill it, as an entry is missing.
        """
        if not self._attached:
            self._attach()
        while True:
            applied = self._index.applied()
            if applied == 0:
                self._require_entries()
            if not self._objects.exists(entry_key(applied + 1)):
                return applied
            if applied == 0 and self._load_checkpoint():
                continue
            self._apply_batch(applied)
            if progress is not None:
                progress(self._index.applied(), total)

    def entry(self, sequence: int) -> Entry:
        """Return one entry.

        Raises:
            NotFoundError: the log is not that long.
            CorruptError: it is damaged.
        """
        key = entry_key(sequence)
        return _decoded(self._objects.get(key), key, sequence)

    def entries(self, since: int) -> Iterator[Entry]:
        """Yield the entries after `since`, up to the head; read as they are taken.

        Raises:
            CorruptError: an entry is damaged, or does not follow from the one before it.
        """
        digest = ""
        for sequence, key, data in self._read(since):
            entry = _decoded(data, key, sequence)
            if digest:
                _check_chain(entry, digest, key)
            digest = entry_digest(data)
            yield entry

    def applied(self, head: Head, puts: Iterable[Put], expected: int) -> None:
        """Put an entry that was just appended into the index.

        When another process was faster, or the index cannot be written, the next `catch_up` finds
        all as it must be: the entry is in the log.
        """
        self._index.write([*puts, head.put()], expected=expected, applied=head.sequence)

    def rebuild(self, fresh: Index, progress: Progress | None = None) -> int:
        """Fill the index again from checkpoint and log, and return the head's sequence number.

        All is put together in `fresh`, an empty index, and exchanged in one transaction: whoever
        reads meanwhile sees the state before or the state after, and never one of the past.

        Cancelled: the index is as it was.
        """
        if not self._attached:
            self._attach()  # which says so when the index is ahead of the log
        total = max(self._sequences(), default=0)
        self._require_entries()
        replay = Replay(self._objects, fresh)
        exchanged = False
        while not exchanged:
            applied = self._index.applied()
            head = replay.catch_up(progress, total)
            with fresh.read() as view:
                puts = [Put(table, *row) for table in STATE_TABLES for row in view.scan(table)]
            exchanged = self._index.write(puts, expected=applied, applied=head, anew=True)
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
        """Empty an index that is of another log, or of a longer one than there is (any more)."""
        applied = self._index.applied()
        with self._index.read() as view:
            head = read_head(view)
        found = NO_DIGEST
        if head.sequence:
            try:
                found = entry_digest(self._objects.get(entry_key(head.sequence)))
            except NotFoundError:
                found = "nothing"
        if found != head.digest or head.sequence < applied:
            log.warning("the index is not of this log (at entry %d): rebuilding it", applied)
            self._index.clear()
        self._attached = True

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
        """Apply the next entries, unless another process or thread is doing it already."""
        from mregfs.model.rules import Overlay, apply_entry

        read = [item for item, _ in zip(self._read(applied), range(BATCH), strict=False)]
        with self._index.read() as view:
            head = read_head(view)
            if head.sequence != applied:
                return
            overlay = Overlay(view)
            for sequence, key, data in read:
                entry = _decoded(data, key, sequence)
                _check_chain(entry, head.digest, key)
                overlay.apply(apply_entry(overlay, entry))
                head = Head.of(entry, data)
            puts = overlay.puts()
        self.applied(head, puts, applied)

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
                checkpoint = decode_checkpoint(self._objects.get(key), key)
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


def _check_chain(entry: Entry, digest: str, key: str) -> None:
    if entry.previous != digest:
        raise CorruptError(
            f"{key} does not follow from the entry before it: it names {entry.previous[:16]}…, "
            f"the entry before it is {digest[:16]}…",
            "the log was changed by other means; run mregfs fsck",
        )
