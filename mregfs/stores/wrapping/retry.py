"""Asks again when a medium does not answer.

Decided here: what is asked again (what ended in UnavailableError, and can be), how often, after how
long. Not decided here: what an adapter calls unavailable, nor what the log does when an append
stays in doubt (`registry/log/log.md` §1).
"""

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from mregfs.errors import UnavailableError
from mregfs.stores.wrapping.around import Call, Through

__all__ = ["Retry"]

log = logging.getLogger(__name__)

_T = TypeVar("_T")


class Retry(Through):
    """Makes a call again, up to some attempts; each pause is at most twice the one before.

    A pause is a random part of its length, so that those who failed together do not come again
    together.

    Args:
        attempts: in all.
        first: seconds of the first pause, at most.
        longest: seconds of any pause, at most.
        sleep: waits for some seconds.
        chance: gives a number from 0 to 1.
    """

    def __init__(
        self,
        *,
        attempts: int = 5,
        first: float = 0.2,
        longest: float = 5.0,
        sleep: Callable[[float], object] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._attempts = attempts
        self._first = first
        self._longest = longest
        self._sleep = sleep
        self._chance = chance

    def run(self, call: Call, function: Callable[[], _T]) -> _T:
        """Make a call until it is answered.

        Raises:
            UnavailableError: no attempt was answered.
        """
        if call.once:
            return function()
        for number in range(self._attempts - 1):
            try:
                return function()
            except UnavailableError as exc:
                longest = min(self._longest, self._first * 2**number)
                pause = longest * self._chance()
                log.info("%s %s again in %.2f s: %s", call.method, call.name, pause, exc)
                self._sleep(pause)
        return function()
