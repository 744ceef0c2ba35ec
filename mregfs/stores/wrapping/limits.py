"""So many calls at a time, so many bytes a second.

Decided here: who waits, and that a call made while another one is under way in the same thread
waits for nobody: it is a part of that one. Not decided here: how many.
"""

import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from mregfs.stores.wrapping.around import Call, Through

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Limits"]

_T = TypeVar("_T")


class Limits(Through):
    """Keeps calls within limits, of all threads together. One may stand around several adapters.

    Args:
        calls: at a time.
        rate: bytes a second, both ways together; 0: as many as there are.
        clock: tells the time in seconds.
        sleep: waits for some seconds.
    """

    def __init__(
        self,
        calls: int,
        rate: int = 0,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._free = threading.BoundedSemaphore(calls)
        self._inside = threading.local()
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._due = 0.0

    def run(self, call: Call, function: Callable[[], _T]) -> _T:
        """Make a call when its turn comes."""
        if getattr(self._inside, "call", False):
            return function()
        with self._turn():
            return function()

    @contextmanager
    def _turn(self) -> "Iterator[None]":
        with self._free:
            self._inside.call = True
            try:
                yield
            finally:
                self._inside.call = False

    def pass_bytes(self, call: Call, count: int) -> None:
        """Wait until so many more bytes may pass; time that was not used is lost."""
        if not self._rate:
            return
        with self._lock:
            now = self._clock()
            self._due = max(self._due, now) + count / self._rate
            wait = self._due - now
        self._sleep(wait)
