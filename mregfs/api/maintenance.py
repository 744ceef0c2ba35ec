"""What a Python program can ask for the good of what is stored: pins, checks, the index.

Decided here: how Python says it. Not decided here: what happens then (`coalesce`).
"""

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

from mregfs.model.reference import Location

if TYPE_CHECKING:
    from mregfs.registry.keep.check import CheckProgress, Report
    from mregfs.registry.keep.coalesce import Pin
    from mregfs.registry.keep.repair import Step
    from mregfs.wiring.store import Store

__all__ = ["Maintenance"]


class Maintenance(ABC):
    """Methods of `Registry` that change nothing of what the registry says."""

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

    def reindex(
        self,
        progress: Callable[[int, int], None] | None = None,
        *,
        accept_log: bool = False,
    ) -> int:
        """Build the index of this host anew from the log; return the number of log entries.

        Mounts and other processes may go on using it meanwhile. With `accept_log` what the index
        knows and the log has not (any more) is given up.

        Raises:
            CorruptError: the log cannot be replayed, or the index knows more; nothing changed.
        """
        return self.store.log.rebuild(self.store.fresh_index(), progress, accept_log=accept_log)

    def fsck(
        self,
        *refs: str,
        data: bool = False,
        rate: int = 0,
        progress: "CheckProgress | None" = None,
    ) -> "Report":
        """Check the log and all versions, or those that references or names of owners say.

        Nothing is changed. A damaged log is best checked by a registry that was opened
        `read_only`: others look at it when they are opened.

        Args:
            refs: what to check; none: everything, also what is left over.
            data: read all stored bytes again and verify them.
            rate: bytes a second at most; 0: as fast as it goes.
            progress: called now and then with stage, done and total.
        """
        from mregfs.api.repairing import checker_of
        from mregfs.registry.keep.check import Pace

        with self.store.open_scanner() as scanner:
            return checker_of(self.store).check(
                [self._locate(ref) for ref in refs],
                scanner=scanner if data else None,
                pace=Pace(rate, time.time_ns, time.sleep),
                progress=progress or (lambda stage, done, total: None),
            )

    def repair(
        self,
        tell: "Callable[[Step], None]",
        *,
        copy: str | os.PathLike[str] | None = None,
        data: bool = False,
        dry_run: bool = False,
        progress: "CheckProgress | None" = None,
    ) -> "Report":
        """Repair what is damaged, where anything is left to do it from; return what is found then.

        Of a version that cannot be repaired the log says so, and all else goes on.

        Args:
            tell: told of each step before it is done.
            copy: a copy of the store, such as a backup, to take from.
            data: look at every byte, too.
            dry_run: only tell.
            progress: called now and then while something is checked.
        """
        from mregfs.api.repairing import Repairer

        if not dry_run:
            self._check_writable()
        silent: CheckProgress = lambda stage, done, total: None  # noqa: E731
        repairer = Repairer(
            self.store, tell, dry_run=dry_run, data=data, progress=progress or silent
        )
        return repairer.run(copy)

    # ---- what Registry has

    @property
    @abstractmethod
    def store(self) -> "Store":
        """The open store."""

    @abstractmethod
    def _catch_up(self) -> int: ...

    @abstractmethod
    def _locate(self, text: str) -> Location: ...

    @abstractmethod
    def _check_writable(self) -> None: ...
