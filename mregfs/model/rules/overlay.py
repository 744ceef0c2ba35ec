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

    A scan shows what was pending when it began; changes made meanwhile do not disturb it.
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
        above = self._pending_within(table, prefix, start, reverse)
        return _merge(above, below, reverse) if above else below

    def _pending_within(
        self, table: str, prefix: bytes, start: bytes, reverse: bool
    ) -> list[tuple[bytes, bytes | None]]:
        keys = self._keys.get(table, [])
        low = bisect_left(keys, prefix)
        high = bisect_right(keys, prefix, key=lambda key: key[: len(prefix)])
        if start and reverse:
            high = min(high, bisect_right(keys, start))
        elif start:
            low = max(low, bisect_left(keys, start))
        pending = self._pending.get(table, {})
        chosen = [(key, pending[key]) for key in keys[low:high]]
        return chosen[::-1] if reverse else chosen


def _merge(
    above: list[tuple[bytes, bytes | None]], below: Iterator[tuple[bytes, bytes]], reverse: bool
) -> Iterator[tuple[bytes, bytes]]:
    position = 0
    for key, value in below:
        while position < len(above) and (
            above[position][0] > key if reverse else above[position][0] < key
        ):
            upper, covering = above[position]
            position += 1
            if covering is not None:
                yield upper, covering
        if position < len(above) and above[position][0] == key:
            continue  # covered: the loop above, or the rest below, yields the pending value
        yield key, value
    for upper, covering in above[position:]:
        if covering is not None:
            yield upper, covering
