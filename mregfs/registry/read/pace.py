"""How fast bytes are read that nobody waits for.

Decided here: how a rate is held. Not decided here: what is read (`check_data`, `verifier`).
"""

from collections.abc import Callable

from mregfs.ports import Clock

__all__ = ["Pace"]


class Pace:
    """Keeps a reader at a rate.

    Args:
        rate: bytes a second; 0: as fast as it goes.
        clock: tells the time.
        pause: waits for some seconds.
    """

    def __init__(self, rate: int, clock: Clock, pause: Callable[[float], object]) -> None:
        self._rate = rate
        self._clock = clock
        self._pause = pause
        self._due = 0.0

    def spend(self, count: int) -> None:
        """Wait until `count` more bytes may have been read; time that was not used is lost."""
        if self._rate:
            now = self._clock() / 1e9
            self._due = max(self._due, now) + count / self._rate
            if self._due > now:
                self._pause(self._due - now)
