"""A view of the index with changes on top that nobody has stored yet.

Decided here: how the two are merged. Not decided here: what is changed (`apply`). Whoever decides
several commands in one transaction puts the first one's outcome on top before deciding the next.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator

from mregfs.model.state import Put, View

__all__ = ["Overlay"]


class Overlay:
    """A View: what `apply` was given covers what the view below says.

    Scans are lazy. One that runs while changes are put on top goes on in order, and may or may not
    show what has changed ahead of it.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self._pending: dict[str, dict[bytes, bytes | None]] = {}
        self._keys: dict[str, list[bytes]] = {}  # of `_pending`, sorted

    def apply(self, puts: Iterable[tuple[str, bytes, bytes | None]]) -> None:
        """Put changes on top."""
        for table, key, value in puts:
            pending = self._pending.setdefault(table, {})
            if key not in pending:
                insort(self._keys.setdefault(table, []), key)
            pending[key] = value

    def puts(self) -> list[Put]:
        """Return all that is on top, one put per key, in the order of tables and keys."""
        return [
            Put(table, key, self._pending[table][key])
            for table in sorted(self._keys)
            for key in self._keys[table]
        ]

    def get(self, table: str, key: bytes) -> bytes | None:
        """Return the value under `key`, or None."""
        pending = self._pending.get(table)
        if pending is not None and key in pending:
            return pending[key]
        return self._view.get(table, key)

    def scan(
        self, table: str, prefix: bytes = b"", start: bytes = b"", *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) as `View.scan` does."""
        below = self._view.scan(table, prefix, start, reverse=reverse)
        keys = self._keys.get(table, [])
        if reverse:
            position = _end_of(keys, prefix)
            if start:
                position = min(position, bisect_right(keys, start))
            position -= 1
        else:
            position = bisect_left(keys, max(prefix, start))
        if not (0 <= position < len(keys) and keys[position].startswith(prefix)):
            return below  # nothing on top; most scans are of this kind
        return _merge(self._above(table, prefix, position, reverse), below, reverse)

    def _above(
        self, table: str, prefix: bytes, position: int, reverse: bool
    ) -> Iterator[tuple[bytes, bytes | None]]:
        keys, pending = self._keys[table], self._pending[table]
        while 0 <= position < len(keys) and keys[position].startswith(prefix):
            key = keys[position]
            yield key, pending[key]
            # Found anew each time: keys may have come in before this one.
            position = bisect_left(keys, key) - 1 if reverse else bisect_right(keys, key)


def _end_of(keys: list[bytes], prefix: bytes) -> int:
    """Return the position after the last key with a prefix."""
    stem = prefix.rstrip(b"\xff")
    return bisect_left(keys, stem[:-1] + bytes((stem[-1] + 1,))) if stem else len(keys)


def _merge(
    above: Iterator[tuple[bytes, bytes | None]],
    below: Iterator[tuple[bytes, bytes]],
    reverse: bool,
) -> Iterator[tuple[bytes, bytes]]:
    upper = next(above, None)
    for key, value in below:
        while upper is not None and (upper[0] > key if reverse else upper[0] < key):
            if upper[1] is not None:
                yield upper[0], upper[1]
            upper = next(above, None)
        if upper is None or upper[0] != key:
            yield key, value  # else it is covered: its turn comes above, in the next round
    while upper is not None:
        if upper[1] is not None:
            yield upper[0], upper[1]
        upper = next(above, None)
