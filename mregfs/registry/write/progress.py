"""How far a commit is, for whoever waits for it.

Decided here: which stages are reported, and what their totals are. Not decided here: what is shown.
"""

from collections.abc import Callable

__all__ = ["CommitProgress", "Meters"]

CommitProgress = Callable[[str, int, int], None]
"""Called with the stage (`copy`, `hash`, `store`), bytes done, and their total; in the caller's
thread. What it raises ends the commit."""


class Meters:
    """Counts the bytes of each stage of one commit.

    Args:
        progress: is told; None: nobody is.
        total: of all files, in bytes.
    """

    def __init__(self, progress: CommitProgress | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._done = {"copy": 0, "hash": 0, "store": 0}

    def copied(self, count: int) -> None:
        """So many bytes more were copied, of files that cannot be taken as they are."""
        self._add("copy", count, self._total)

    def hashed(self, count: int) -> None:
        """So many bytes more were digested."""
        self._add("hash", count, self._total)

    def stored(self, count: int) -> None:
        """So many bytes more were written; how many there will be nobody knows before."""
        self._add("store", count, 0)

    def _add(self, stage: str, count: int, total: int) -> None:
        self._done[stage] = done = self._done[stage] + count
        if self._progress is not None:
            self._progress(stage, done, max(total, done))
