"""The task that makes whole-file copies while the mount is served (`coalesce = aliased`).

Decided here: when it looks, and that it never keeps a request or the end of the mount waiting. Not
decided here: which files get a copy (`registry.keep.aliased`). The daemon puts it into its
nursery, and the follower wakes it.
"""

import logging
from collections.abc import Callable

import trio

from mregfs.errors import MregfsError
from mregfs.registry.keep.coalesce import CoalesceProgress, Stopped

__all__ = ["Coalescing"]

log = logging.getLogger(__name__)

_PAUSE = 0.2
"""Seconds between two looks: a burst of alias moves is one piece of work."""


class Coalescing:
    """Works in a thread of its own, one piece of work at a time.

    Args:
        follow: does what there is to do; calls its argument now and then.
        wanted: tells whether anybody could use a copy; asked before each piece of work.
    """

    def __init__(
        self, follow: Callable[[CoalesceProgress], None], wanted: Callable[[], bool]
    ) -> None:
        self._follow = follow
        self._wanted = wanted
        self._news = trio.Event()
        self._news.set()
        self._ending = False
        self._thread = trio.CapacityLimiter(1)

    def wake(self) -> None:
        """There may be something to do."""
        self._news.set()

    def end(self) -> None:
        """Let what is under way stop at its next step; to be called before `run` is cancelled."""
        self._ending = True

    async def run(self) -> None:
        """Work until cancelled. What is complete stays, what is not leaves nothing behind."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            if self._wanted():
                try:
                    await trio.to_thread.run_sync(
                        self._follow, self._progress, limiter=self._thread
                    )
                except Stopped:
                    return
                except MregfsError as exc:
                    log.warning("whole-file copies are not made: %s", exc)
            await trio.sleep(_PAUSE)

    def _progress(self, done: int, total: int) -> None:
        if self._ending:
            raise Stopped
