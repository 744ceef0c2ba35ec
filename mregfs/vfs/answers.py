"""What an operation of a file system gives: the answer itself, or how it is to be had.

Decided here: the three kinds of answers. Not decided here: which operation gives which (the trees),
by whose thread an answer is given (`fuse/`).

An operation is a plain method and does at once what waits for nobody. Otherwise it has done nothing
yet, and says what to do: so it may be asked again, and the answer thrown away.
"""

from collections.abc import Awaitable, Callable
from typing import Generic, TypeAlias, TypeVar

import msgspec
import trio

__all__ = ["Answer", "InLoop", "InThread", "settle"]

_T = TypeVar("_T")


class InThread(msgspec.Struct, Generic[_T], frozen=True):
    """An answer that takes as long as a disk does, or a transaction, and nothing but a thread."""

    give: Callable[[], _T]
    """Call it once, in any thread. Raises only MregfsError."""


class InLoop(msgspec.Struct, Generic[_T], frozen=True):
    """An answer that has to be waited for by a task of the event loop."""

    wait: Callable[[], Awaitable[_T]]
    """Await it once. Raises only MregfsError. Cancelled: as the operation says."""


Answer: TypeAlias = _T | InThread[_T] | InLoop[_T]


async def settle(answer: Answer[_T], limiter: trio.CapacityLimiter | None = None) -> _T:
    """Return an answer, however it is to be had."""
    if isinstance(answer, InThread):
        return await trio.to_thread.run_sync(answer.give, limiter=limiter)
    if isinstance(answer, InLoop):
        return await answer.wait()
    return answer
