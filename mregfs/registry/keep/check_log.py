"""Checks the log, its checkpoints, and that the index is what the log says.

Decided here: which of two entries that do not fit is called changed, what is compared with what
(`check.md`). Not decided here: what an entry does (`model.rules`).
"""

from collections.abc import Iterable, Iterator
from itertools import zip_longest

from mregfs.errors import CorruptError, MregfsError, NotFoundError
from mregfs.model.changes import Entry, decode_entry, entry_key
from mregfs.model.checkpoint import Checkpoint, checkpoint_sequence, decode_checkpoint
from mregfs.model.rules import Overlay, apply_entry
from mregfs.model.state import STATE_TABLES, Put, View
from mregfs.ports.index import Index
from mregfs.ports.objects import ObjectStore
from mregfs.registry.keep.findings import CheckProgress, Findings
from mregfs.registry.log.replay import NO_DIGEST, Head, entry_digest, read_head, rows_after

__all__ = ["LogCheck"]

_BATCH = 2048  # entries that share a transaction of the fresh index

_RESTORE = "mregfs fsck --repair writes it again, from the index or a copy of the store"

_Row = tuple[str, bytes, bytes]


class LogCheck:
    """Replays the log from its first entry into an empty index.

    Args:
        objects: of the store.
        live: the host's index.
        fresh: an empty one, to be filled.
    """

    def __init__(
        self,
        objects: ObjectStore,
        live: Index,
        fresh: Index,
        findings: Findings,
        progress: CheckProgress,
    ) -> None:
        self._objects = objects
        self._live = live
        self._fresh = fresh
        self._findings = findings
        self._progress = progress
        self._batch: list[tuple[Entry, bytes]] = []
        self._digest: str | None = NO_DIGEST
        self._next = 1
        self._at_ns = 0
        self._doubted: set[int] = set()
        self._checkpoints: dict[int, Checkpoint] = {}
        self._witnesses: dict[int, list[tuple[str, str]]] = {}
        self.sound = True
        """Every entry so far is there and follows from the one before it."""

    def run(self) -> None:
        """Check all entries and checkpoints."""
        with self._live.read() as view:
            head = read_head(view)
        if head.sequence:
            self._add_witness("the index of this host", head)
        self._read_checkpoints()
        keys = list(self._objects.list("log/"))
        for done, key in enumerate(keys):
            self._look_at(key)
            if done % 1000 == 0:
                self._progress("log", done, len(keys))
        self._flush()
        self._findings.entries = len(keys)
        self._look_at_the_end()

    def compare(self) -> None:
        """Compare the host's index with the log; it has been brought up to the log's end."""
        with self._live.read() as view:
            head = read_head(view)
            while self._next <= head.sequence and self.sound:  # appended meanwhile
                self._look_at(entry_key(self._next))
            self._flush()
            if not self.sound:
                return
            if head.sequence < self._next - 1:
                self._findings.should(
                    "index",
                    f"the index of this host is at log entry {head.sequence} of {self._next - 1}",
                    "nothing: the next command brings it up to date",
                )
                return
            with self._fresh.read() as fresh:
                wrong = _difference(_rows(view), _rows(fresh))
        if wrong:
            self._findings.must(
                "index",
                f"the index of this host is not what the log says: {wrong}",
                "rebuild it: mregfs reindex",
            )

    # ---- entries

    def _look_at(self, key: str) -> None:
        sequence = _sequence(key)
        if sequence is None:
            self._findings.should("log", f"{key} is no log entry", "move it elsewhere", [key])
            return
        if sequence > self._next:
            self._lost(self._next, sequence - 1)
            self._digest = None
        try:
            data = self._objects.get(key)
        except NotFoundError:
            self._lost(sequence, sequence)
            self._next, self._digest = sequence + 1, None
            return
        self._next = sequence + 1
        before, self._digest = self._digest, entry_digest(data)
        for who, digest in self._witnesses.pop(sequence, []):
            if digest != self._digest:
                self._changed(sequence, f"{who} knew it with another digest")
        try:
            entry = decode_entry(data, key)
            if entry.sequence != sequence:
                raise CorruptError(f"{key} says that it is entry {entry.sequence}")
        except CorruptError as exc:
            self.sound = False
            self._doubted.add(sequence)
            self._findings.must("log", exc.message, _RESTORE, [key], keys=[key])
            return
        if before is not None and entry.previous != before:
            self._changed(sequence - 1, f"entry {sequence} was appended to one with another digest")
        if self.sound and entry.at_ns <= self._at_ns:
            self.sound = False
            what = f"{key} says that it is older than the entry before it"
            self._findings.must("log", what, _RESTORE, [key], keys=[key])
        self._at_ns = entry.at_ns
        if self.sound:
            self._batch.append((entry, data))
            if len(self._batch) >= _BATCH or sequence in self._checkpoints:
                self._flush()

    def _lost(self, first: int, last: int) -> None:
        self.sound = False
        keys = [entry_key(number) for number in range(first, min(last + 1, first + 1000))]
        what = f"{keys[0]} is" if first == last else f"log entries {first} to {last} are"
        self._findings.must("log", f"{what} missing", _RESTORE, keys, keys=keys)

    def _changed(self, sequence: int, why: str) -> None:
        self.sound = False
        if sequence in self._doubted:
            return
        self._doubted.add(sequence)
        key = entry_key(sequence)
        self._findings.must("log", f"{key} was changed: {why}", _RESTORE, [key], keys=[key])

    def _flush(self) -> None:
        """Apply what was read to the fresh index, and compare it with a checkpoint made there."""
        batch, self._batch = self._batch, []
        if not batch:
            return
        with self._fresh.read() as view:
            overlay = Overlay(view)
            head = Head()
            for entry, data in batch:
                try:
                    overlay.apply(apply_entry(overlay, entry))
                    overlay.apply(rows_after(entry, data))
                except MregfsError as exc:
                    self.sound = False
                    self._doubted.add(entry.sequence)
                    key = entry_key(entry.sequence)
                    self._findings.must("log", f"{key}: {exc.message}", _RESTORE, [key], keys=[key])
                    break
                head = Head.of(entry, data)
            puts: list[Put] = overlay.puts()
        if head.sequence:
            self._fresh.write(puts, applied=head.sequence)
            self._compare_checkpoint(head.sequence)

    def _look_at_the_end(self) -> None:
        """Whoever knew of an entry that there is not: the end of the log is lost."""
        for sequence, witnesses in sorted(self._witnesses.items()):
            if sequence >= self._next:
                self.sound = False
                self._findings.must(
                    "log",
                    f"the log ends at entry {self._next - 1}, but {witnesses[0][0]} knew entry "
                    f"{sequence}",
                    _RESTORE,
                    keys := [entry_key(each) for each in range(self._next, sequence + 1)][:1000],
                    keys=keys,
                )
                break

    def _add_witness(self, who: str, head: Head) -> None:
        self._witnesses.setdefault(head.sequence, []).append((who, head.digest))

    # ---- checkpoints

    def _read_checkpoints(self) -> None:
        for key in self._objects.list("checkpoints/"):
            sequence = checkpoint_sequence(key)
            if sequence is None:
                continue
            try:
                checkpoint = decode_checkpoint(self._objects.get(key), key)
                head = _head_of(checkpoint)
            except NotFoundError:
                continue  # replaced by a newer one meanwhile
            except CorruptError as exc:
                self._findings.should(
                    "checkpoint",
                    exc.message,
                    "delete it: replay takes another one",
                    [key],
                    keys=[key],
                )
                continue
            self._checkpoints[sequence] = checkpoint
            self._add_witness(key, head)

    def _compare_checkpoint(self, sequence: int) -> None:
        checkpoint = self._checkpoints.pop(sequence, None)
        if checkpoint is None:
            return
        with self._fresh.read() as fresh:
            wrong = _difference(checkpoint.rows(), _rows(fresh))
        if wrong:
            self._findings.must(
                "checkpoint",
                f"the checkpoint at entry {sequence} is not what the log says: {wrong}",
                "delete it, and rebuild the index of every host: mregfs reindex",
                keys := [f"checkpoints/{sequence:020d}.zst"],
                keys=keys,
            )


def _sequence(key: str) -> int | None:
    digits = key.removeprefix("log/").removesuffix(".json")
    if (
        len(digits) == 20
        and digits.isascii()
        and digits.isdigit()
        and key == entry_key(int(digits))
    ):
        return int(digits)
    return None


def _head_of(checkpoint: Checkpoint) -> Head:
    for table, key, value in checkpoint.rows():
        if table == "meta":
            head = read_head(_OneRow(key, value))
            if head.sequence == checkpoint.sequence:
                return head
    raise CorruptError(f"the checkpoint at entry {checkpoint.sequence} does not say of which log")


class _OneRow:
    """A view of one row."""

    def __init__(self, key: bytes, value: bytes) -> None:
        self._key = key
        self._value = value

    def get(self, table: str, key: bytes) -> bytes | None:
        return self._value if key == self._key else None

    def scan(
        self, table: str, prefix: bytes = b"", start: bytes = b"", *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        return iter([(self._key, self._value)])


def _rows(view: View) -> Iterator[_Row]:
    for table in STATE_TABLES:
        for key, value in view.scan(table):
            yield table, bytes(key), bytes(value)


def _difference(one: Iterable[_Row], other: Iterable[_Row]) -> str:
    """Return where two states differ first; empty when they do not."""
    for a, b in zip_longest(one, other):
        if a is None or b is None or a != b:
            table = min(each[0] for each in (a, b) if each is not None)
            return f"they differ in the table {table!r}"
    return ""
