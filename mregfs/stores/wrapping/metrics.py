"""Counts, bytes and seconds of the calls on a medium.

Decided here: what is counted. Not decided here: who is shown it.
"""

import threading
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec

from mregfs.errors import ExistsError, MregfsError, NotFoundError
from mregfs.stores.wrapping.around import Call, Through

__all__ = ["CallFigures", "Metrics"]

_T = TypeVar("_T")


class CallFigures(msgspec.Struct):
    """The calls of one method so far."""

    calls: int = 0
    failed: int = 0
    """Of them; that something exists, or does not, is an answer and no failure."""
    bytes: int = 0
    """That went either way."""
    seconds: float = 0.0


class Metrics(Through):
    """Counts calls.

    Args:
        clock: tells the time in seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._methods: dict[str, CallFigures] = {}

    def run(self, call: Call, function: Callable[[], _T]) -> _T:
        """Make a call, and count it."""
        start = self._clock()
        failed = False
        try:
            return function()
        except (ExistsError, NotFoundError):
            raise
        except MregfsError:
            failed = True
            raise
        finally:
            took = self._clock() - start
            with self._lock:
                figures = self._methods.setdefault(call.method, CallFigures())
                figures.calls += 1
                figures.failed += failed
                figures.seconds += took

    def pass_bytes(self, call: Call, count: int) -> None:
        """Count bytes."""
        with self._lock:
            self._methods.setdefault(call.method, CallFigures()).bytes += count

    def figures(self) -> Mapping[str, CallFigures]:
        """Return what was counted so far, by method of the port."""
        with self._lock:
            return {name: msgspec.structs.replace(each) for name, each in self._methods.items()}
