"""A commit whose log entry is not there yet: what it has done, and how that ends either way.

Decided here: what is undone when a commit fails, and what is left alone while nobody knows whether
it did (`commit.md` §5). Not decided here: how the intake puts a draft back.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Self

from mregfs.errors import MregfsError
from mregfs.model.layout import layout_key
from mregfs.ports.intake import Intake
from mregfs.ports.objects import ObjectStore
from mregfs.ports.packs import PackStore
from mregfs.registry.log.log import Log

__all__ = ["Unsettled"]

log = logging.getLogger(__name__)


class Unsettled:
    """What one commit has done to the host and to the store. It ends once, by `done` or `abort`.

    Whoever makes a commit notes here what he is about to do, so that it can be undone.

    Args:
        registry_log: is asked what became of the commit.
        objects: in which layouts are.
        packs: of the store.
        intake: what is committed.
        protect: called with the new packs once the version is in the log for good.

    Attributes:
        since: the log's head when the commit began.
        layout: the id of its layout; empty as long as there is nothing that an entry could name.
        layout_stored: whether the layout may be in the store.
        adopted: packs that files of the draft become.
        written: all new packs so far, also those not finished.
        published: called when the version is in the log; puts its content into the index.
    """

    def __init__(
        self,
        registry_log: Log,
        objects: ObjectStore,
        packs: PackStore,
        intake: Intake,
        protect: Callable[[Sequence[str]], None],
    ) -> None:
        self._log = registry_log
        self._objects = objects
        self._packs = packs
        self._intake = intake
        self._protect = protect
        self._ended = False
        self.since = 0
        self.layout = ""
        self.layout_stored = False
        self.adopted: frozenset[str] = frozenset()
        self.written: list[str] = []
        self.published: Callable[[], None] = lambda: None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Undo what was done when something is raised, whatever it is."""
        if exc_info[0] is not None:
            self.abort()

    def done(self) -> None:
        """The transaction is in the log: give up the draft, put the content into the index."""
        if self._ended:
            return
        self._ended = True
        try:
            if self.layout_stored and self._log.has_layout(self.layout, self.since) is False:
                # Somebody committed the same content meanwhile: ours is not needed.
                self._delete(self.written)
            elif self.layout_stored:
                self.published()
        except MregfsError as exc:
            log.warning("the commit succeeded, but left something behind: %s", exc)
        self._intake.release()
        if self.written:
            self._protect(self.written)

    def abort(self) -> None:
        """The transaction failed: put the draft back as it was, delete what was stored.

        Safe at any point, also when it turns out that the transaction is in the log after all, or
        that nobody can say: then all stays where it is until that is known.
        """
        if self._ended:
            return
        try:
            known = self._log.has_layout(self.layout, self.since)
        except MregfsError as exc:
            log.warning("cannot tell whether the commit succeeded: %s", exc)
            known = None
        if known:
            self.done()
            return
        self._ended = True
        if known is None:
            self._intake.abandon()
            return
        try:
            # Those adopted are the intake's to take back.
            self._delete([pack for pack in self.written if pack not in self.adopted])
        except MregfsError as exc:
            log.warning("a failed commit left something for gc: %s", exc)
        finally:
            self._intake.restore()

    def _delete(self, packs: Sequence[str]) -> None:
        for pack in packs:
            self._packs.delete(pack)
        if self.layout_stored:
            self._objects.delete(layout_key(self.layout))
