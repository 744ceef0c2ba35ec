"""A line in the log for each call on a medium, at DEBUG.

Decided here: what a line says. Not decided here: where the log goes.
"""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from mregfs.errors import MregfsError
from mregfs.stores.wrapping.around import Call, Through

__all__ = ["Records"]

_T = TypeVar("_T")


class Records(Through):
    """Logs calls: how long each took, and what it failed with.

    Args:
        log: where.
        clock: tells the time in seconds.
    """

    def __init__(self, log: logging.Logger, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock

    def run(self, call: Call, function: Callable[[], _T]) -> _T:
        """Make a call, and log it."""
        start = self._clock()
        try:
            answer = function()
        except MregfsError as exc:
            took = self._clock() - start
            kind = type(exc).__name__
            self._log.debug("%s %s: %s after %.3f s", call.method, call.name, kind, took)
            raise
        self._log.debug("%s %s: %.3f s", call.method, call.name, self._clock() - start)
        return answer
