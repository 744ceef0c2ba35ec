"""The contract of the index: what a host knows of a log, in named tables.

Decided here: what an adapter promises (`tests/contracts/test_index.py`). Not decided here: how
(`stores.index_lmdb`), or what is in the tables (`model.state`, `registry.read.rows`).
"""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from mregfs.model.state import Put, View

__all__ = ["Index"]


class Index(Protocol):
    """The index of one store on this host. Deletable: replay of the log rebuilds it."""

    def read(self) -> AbstractContextManager[View]:
        """Open a consistent view; microseconds. Hold it briefly and never across `await`."""

    def write(
        self,
        puts: Iterable[Put],
        *,
        expected: int | None = None,
        applied: int | None = None,
        anew: bool = False,
    ) -> bool:
        """Apply all `puts` in one transaction, and set the applied sequence number to `applied`.

        With `expected`, first compare: when the applied sequence number is not `expected` (another
        process was faster), change nothing and return False. With `anew`, empty all tables before,
        in the same transaction: no view ever sees less than what was there, or what is put.

        Raises:
            NoSpaceError: the disk is full; nothing changed.
        """

    def reserve(self, puts: Sequence[Put]) -> None:
        """Have room for a `write` of these; NoSpaceError when there is none."""

    def applied(self) -> int:
        """Return the sequence number of the last applied log entry; 0 for an empty index."""

    def clear(self) -> None:
        """Empty all tables in one transaction and set the applied sequence number to 0."""

    def close(self) -> None:
        """Release the index; calling it again does nothing."""
