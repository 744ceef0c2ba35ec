"""What a Python program can ask for the good of this host's copy of things: pins, the index.

Decided here: how Python says it. Not decided here: what happens then (`coalesce`). `Registry` is
one of these; nobody else.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

from mregfs.api.store import Store
from mregfs.model.reference import Location

if TYPE_CHECKING:
    from mregfs.registry.coalesce import Pin

__all__ = ["Upkeep"]


class Upkeep(ABC):
    """Methods of `Registry` that change nothing of what the registry says."""

    store: Store

    def pin(self, ref: str, *, progress: Callable[[int, int], None] | None = None) -> "Pin":
        """Keep the files of a version in one piece on this host, so that the kernel reads them.

        Raises:
            NoSpaceError: the cache, or the disk, has no room for the copies.
        """
        self._catch_up()
        self._check_writable()
        return self.store.coalescer.pin(self._locate(ref), progress)

    def unpin(self, ref: str) -> "Pin":
        """Let the copies that `pin` made be evicted when others need the room."""
        self._catch_up()
        self._check_writable()
        return self.store.coalescer.unpin(self._locate(ref))

    def pinned(self) -> "list[Pin]":
        """Return the versions that are pinned on this host."""
        self._catch_up()
        return self.store.coalescer.pinned()

    def reindex(self, progress: Callable[[int, int], None] | None = None) -> int:
        """Build the index of this host anew from the log; return the number of log entries."""
        return self.store.log.rebuild(progress)

    # ---- what Registry has

    @abstractmethod
    def _catch_up(self) -> int: ...

    @abstractmethod
    def _locate(self, text: str) -> Location: ...

    @abstractmethod
    def _check_writable(self) -> None: ...
