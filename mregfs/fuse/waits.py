"""Reads that wait: who may stop waiting, and with what answer.

Decided here: when a read that the file system has not answered is given up. Not decided here: when
there is something to read (the vfs).

The kernel tells of a signal to a process that waits in read(2), but gives up by itself only what no
daemon has seen yet: without an answer a process cannot even be killed.
"""

import errno
from collections.abc import Awaitable, Callable

import trio

from mregfs.fuse.passthrough import pyfuse3

__all__ = ["Waits", "is_dying"]

_PATIENCE = 1.0
"""Seconds between two looks at a waiting read that nobody tells us about."""

_SIGKILL_PENDING = 1 << 8
"""SIGKILL in the masks of /proc/PID/status; every deadly signal sets it for each thread."""


class _Read:
    """A read that is being answered."""

    __slots__ = ("direct", "pid", "scope")

    def __init__(self, scope: trio.CancelScope, pid: int, *, direct: bool) -> None:
        self.scope = scope
        self.pid = pid
        self.direct = direct


class Waits:
    """The reads that are being answered."""

    def __init__(self) -> None:
        self._reads: dict[int, _Read] = {}
        self._uncounted = 0
        self._over = False
        self.background: trio.Nursery | None = None
        """Where a read may be watched; set by `serve`."""

    async def read(
        self,
        function: Callable[[], Awaitable[bytes]],
        *,
        unique: int,
        pid: int,
        direct: bool,
    ) -> bytes:
        """Await `function()`, unless the reader is to wait no longer.

        Args:
            function: the file system's read; what it would have returned is lost when it is
                cancelled, so it takes nothing away before it returns.
            unique: the request's number; 0 when interrupts cannot be seen.
            pid: the thread that reads; 0 when it is not known.
            direct: the file is an event file: its readers expect to be interrupted.

        Raises:
            FUSEError: EINTR, the reader was interrupted.
        """
        if direct and self._over:
            return b""
        blind = unique == 0
        if blind:
            self._uncounted -= 1
            unique = self._uncounted
        with trio.CancelScope() as scope:
            if direct and blind:  # readers retry: so they are interruptible, if lazily
                scope.deadline = trio.current_time() + _PATIENCE
            self._reads[unique] = _Read(scope, pid, direct=direct)
            try:
                return await function()
            finally:
                del self._reads[unique]
        if self._over:
            return b""
        raise pyfuse3.FUSEError(errno.EINTR)

    def end(self) -> None:
        """Give everybody who waits for news, now or later, the end of the file."""
        self._over = True
        for read in self._reads.values():
            if read.direct:
                read.scope.cancel()

    def interrupted(self, unique: int) -> None:
        """A signal came for the process that waits (called while a request is received).

        Readers of an event file expect EINTR. Nobody expects it from an ordinary file, so there
        only a process that is being killed gets it.
        """
        read = self._reads.get(unique)
        if read is None:
            return
        if read.direct or is_dying(read.pid):
            read.scope.cancel()
        elif self.background is not None:
            self.background.start_soon(self._watch, unique)

    async def _watch(self, unique: int) -> None:
        """The kernel tells of the first signal only, and a deadly one may follow it."""
        while (read := self._reads.get(unique)) is not None:
            if is_dying(read.pid):
                read.scope.cancel()
                return
            await trio.sleep(_PATIENCE)


def is_dying(pid: int) -> bool:
    """Tell whether a thread is being killed; False when it is unknown (0), or not visible here."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
            fields = dict(line.split(":", 1) for line in status)
    except OSError:
        return False
    pending = int(fields.get("SigPnd", "0"), 16) | int(fields.get("ShdPnd", "0"), 16)
    return bool(pending & _SIGKILL_PENDING)
