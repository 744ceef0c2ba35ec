"""An index in memory: the fake that rules and use cases are tested over.

Decided here: nothing that the port does not say, and LMDB's limits on keys, so that what works
here works there. Not decided here: persistence; all is lost with the process. Tests may use it; it
is held to the same contract tests as `index_lmdb`.
"""

import bisect
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Self

from mregfs.errors import InvalidError
from mregfs.model.state import Put

__all__ = ["IndexMemory"]

MAX_KEY_SIZE = 511
"""What LMDB takes."""


class _Table:
    """One table: a dict, and its keys sorted."""

    __slots__ = ("keys", "rows")

    def __init__(self, rows: dict[bytes, bytes], keys: list[bytes]) -> None:
        self.rows = rows
        self.keys = keys

    def copy(self) -> "_Table":
        return _Table(self.rows.copy(), self.keys.copy())

    def put(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            if self.rows.pop(key, None) is not None:
                del self.keys[bisect.bisect_left(self.keys, key)]
            return
        if key not in self.rows:
            bisect.insort(self.keys, key)
        self.rows[key] = bytes(value)


_EMPTY = _Table({}, [])


class _View:
    """The tables as they were when the view was opened; also the context manager around itself."""

    __slots__ = ("_closed", "_index", "_tables")

    def __init__(self, index: "IndexMemory") -> None:
        self._index = index
        self._tables: dict[str, _Table] = {}
        self._closed = True

    def __enter__(self) -> Self:
        with self._index._lock:
            self._tables = self._index._tables
            self._index._private = None
        self._closed = False
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._closed = True

    def get(self, table: str, key: bytes) -> bytes | None:
        return self._table(table).rows.get(key)

    def scan(
        self, table: str, prefix: bytes = b"", start: bytes = b"", *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        found = self._table(table)
        if reverse:
            position = _end_of(found.keys, prefix)
            if start:
                position = min(position, bisect.bisect_right(found.keys, start))
            positions: Iterable[int] = range(position - 1, -1, -1)
        else:
            first = bisect.bisect_left(found.keys, max(prefix, start))
            positions = range(first, len(found.keys))
        for position in positions:
            key = found.keys[position]
            if not key.startswith(prefix):
                return
            yield key, found.rows[key]
            if self._closed:
                raise RuntimeError("the view of this scan is closed")

    def _table(self, table: str) -> _Table:
        if self._closed:
            raise RuntimeError("this view of the index is closed")
        return self._tables.get(table, _EMPTY)


class IndexMemory:
    """Tables in dicts. A view keeps the tables it was opened on; a write after it copies first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tables: dict[str, _Table] = {}
        self._private: set[str] | None = set()
        """The tables that no view can see; None when a view can see even the dict of tables."""
        self._applied = 0

    def read(self) -> _View:
        """Open a consistent view."""
        return _View(self)

    def write(
        self,
        puts: Iterable[Put],
        *,
        expected: int | None = None,
        applied: int | None = None,
        anew: bool = False,
    ) -> bool:
        """Apply all `puts` at once, unless the applied sequence number is not `expected`.

        With `anew`, to empty tables.

        Raises:
            InvalidError: a key is empty or over 511 bytes; nothing changed.
        """
        changes = list(puts)
        for table, key, _ in changes:
            if not 0 < len(key) <= MAX_KEY_SIZE:
                raise InvalidError(
                    f"a key of {len(key)} bytes does not fit table {table!r} of the index",
                    f"keys have 1 to {MAX_KEY_SIZE} bytes",
                )
        with self._lock:
            if expected is not None and self._applied != expected:
                return False
            if anew:
                self._tables, self._private = {}, set()
            if self._private is None:
                self._tables = dict(self._tables)
                self._private = set()
            for table, key, value in changes:
                if table not in self._private:
                    self._tables[table] = self._tables.get(table, _EMPTY).copy()
                    self._private.add(table)
                self._tables[table].put(key, value)
            if applied is not None:
                self._applied = applied
        return True

    def reserve(self, puts: Sequence[Put]) -> None:
        """Do nothing: memory is never full here."""

    def applied(self) -> int:
        """Return the sequence number of the last applied log entry; 0 for an empty index."""
        return self._applied

    def clear(self) -> None:
        """Empty all tables and set the applied sequence number to 0."""
        with self._lock:
            self._tables = {}
            self._private = set()
            self._applied = 0

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


def _end_of(keys: list[bytes], prefix: bytes) -> int:
    """Return the position after the last key that begins with `prefix`."""
    stripped = prefix.rstrip(b"\xff")
    if not stripped:
        return len(keys)
    return bisect.bisect_left(keys, stripped[:-1] + bytes([stripped[-1] + 1]))
