"""What comes from the kernel by the extension, and what goes back: requests and answers.

Decided here: which kinds of answers there are. Not decided here: which request gets which
(`fast_path`), nor what they are in bytes (`wire`). The extension knows these classes (`KINDS`).
"""

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from mregfs.vfs.interface import Caller

__all__ = [
    "DONE",
    "KINDS",
    "NOT_AT_HAND",
    "Answer",
    "ByThread",
    "Errno",
    "NotAtHand",
    "Reply",
    "Request",
    "Sent",
]


class Request(msgspec.Struct):
    """One request of the kernel."""

    unique: int
    """Its number, by which it is answered."""
    opcode: int
    uid: int
    gid: int
    pid: int
    """The thread that asks; 0 when nobody in particular does."""
    now: int = 0
    """Of a SETATTR: the times that are to be now (1, atime; 2, mtime), not what it gives."""
    inode: int = 0
    """What it is about, like `body` known of a request on the fast path only."""
    body: bytes = b""
    """What follows its header."""

    @property
    def caller(self) -> Caller:
        """Who makes it."""
        return Caller(self.uid, self.gid, self.pid)


class Reply(msgspec.Struct):
    """The request is answered, with these bytes after the header."""

    body: bytes


class Errno(msgspec.Struct):
    """The request has failed, or it is done and there is nothing to say (0)."""

    code: int


class NotAtHand(msgspec.Struct):
    """Nothing has happened: the request goes on to pyfuse3 and waits in the event loop."""


Sent: TypeAlias = Reply | Errno
"""What ends a request."""


class ByThread(msgspec.Struct):
    """A thread answers the request, and sends the answer by itself."""

    give: Callable[[], Sent]


Answer: TypeAlias = Reply | Errno | ByThread | NotAtHand

KINDS = (Reply, Errno, ByThread, NotAtHand)
"""Of answers, in the order in which the extension is told of them."""

DONE = Errno(0)
NOT_AT_HAND = NotAtHand()
