"""`.mregfs/query/COMMAND`: a name that is looked up, and read as the answer to what it asks.

Decided here: how a name becomes a question, which numbers such names have, that each `open` is
answered anew, how much of answers one user may hold. Not decided here: the questions
(`model.queries`) and the answers (`registry.read.answers`).

Nothing is ever listed. A number lives as long as it is among the newest `MAX_NAMES`; whoever comes
later gets ESTALE, at which Linux looks the name up again by itself.
"""

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable

import msgspec
import trio

from mregfs.errors import MregfsError, NotFoundError, UnavailableError
from mregfs.model.queries import is_query, unspell
from mregfs.registry.read.answers import Answers
from mregfs.vfs.interface import Caller
from mregfs.vfs.numbers import QUERIES, QUERY

__all__ = ["QueryNames", "Questions"]

MAX_NAMES = 4096
"""Names that are remembered; each has 255 bytes at most."""

MAX_HELD = 16 << 20
"""Bytes of answers that one user may have open."""

THREADS = 2
"""Questions that are answered at a time: more would only make the mount itself wait for Python."""


class QueryNames:
    """The names below `query` that were looked up last."""

    def __init__(self) -> None:
        self._next = 0
        self._numbers: dict[tuple[int, bytes], int] = {}
        self._names: OrderedDict[int, tuple[int, bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, parent: int, name: bytes) -> int:
        """Return the number of a name; an odd one is that of a file.

        Raises:
            NotFoundError: no question begins so.
        """
        if parent == QUERY and not is_query(name):
            raise NotFoundError(
                f"{name!r} is not a query", "see what can be asked: cat .mregfs/query/help"
            )
        with self._lock:
            number = self._numbers.get((parent, name))
            if number is None:
                self._next += 1
                number = QUERIES | self._next << 1 | (not name.endswith(b"%"))
                self._numbers[parent, name] = number
                self._names[number] = (parent, name)
                if len(self._names) > MAX_NAMES:
                    _, oldest = self._names.popitem(last=False)
                    del self._numbers[oldest]
            else:
                self._names.move_to_end(number)
            return number

    def text(self, number: int) -> str | None:
        """Return the text that a name and those before it stand for; None: it is forgotten.

        Raises:
            InvalidError: it is malformed or too long.
        """
        names: list[bytes] = []
        with self._lock:
            while number != QUERY:
                found = self._names.get(number)
                if found is None:
                    return None
                number, name = found
                names.append(name)
        return unspell(names[::-1])


class Questions:
    """The answers that are open, and who has them."""

    def __init__(
        self, answers: Answers, names: QueryNames, may_read: Callable[[Caller, str], bool]
    ) -> None:
        self._answers = answers
        self._names = names
        self._may_read = may_read
        self._open: dict[int, tuple[int, bytes]] = {}
        self._held: Counter[int] = Counter()
        self._threads = trio.CapacityLimiter(THREADS)

    async def open(self, handle: int, number: int, caller: Caller) -> bool:
        """Answer what a name asks; False when the name is forgotten.

        Raises:
            UnavailableError: this user has too much open.
        """
        answer = await trio.to_thread.run_sync(self._answer, number, caller, limiter=self._threads)
        if answer is None:
            return False
        if self._held[caller.uid] and self._held[caller.uid] + len(answer) > MAX_HELD:
            raise UnavailableError(
                f"answers of {self._held[caller.uid]} bytes are open", "close some first"
            )
        self._held[caller.uid] += len(answer)
        self._open[handle] = caller.uid, answer
        return True

    def _answer(self, number: int, caller: Caller) -> bytes | None:
        try:
            text = self._names.text(number)
        except MregfsError as error:
            return msgspec.json.encode(error.reply()) + b"\n"
        if text is None:
            return None
        return self._answers.answer(text, lambda project: self._may_read(caller, project))

    def read(self, handle: int, offset: int, size: int) -> bytes:
        """Return a piece of an answer."""
        return self._open[handle][1][offset : offset + size]

    def close(self, handle: int) -> None:
        """Let go of an answer."""
        found = self._open.pop(handle, None)
        if found is not None:
            uid, answer = found
            self._held[uid] -= len(answer)
            if self._held[uid] <= 0:
                del self._held[uid]
