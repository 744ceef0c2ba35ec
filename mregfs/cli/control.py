"""Talks to the control file of a live mount: command lines out, JSON back.

Decided here: how a reply or its failure comes back as results or as an error of ours. Not decided
here: what is written (`session`, `transfer`), what it means (`model.grammar`, in the daemon). A
change that goes this way is seen through the mount when the call returns.
"""

import os
from collections.abc import Callable
from threading import Thread
from typing import Any

import msgspec

from mregfs import errors
from mregfs.api.asking import Failure
from mregfs.host.mounts import Mount
from mregfs.model.paths import CONTROL, special

__all__ = ["MountGoneError", "transact"]

MAX_WRITE = 1 << 20
"""Bytes: a longer write(2) reaches the daemon in pieces, and one write is one transaction."""

MAX_REPLY = 64 << 20
"""Bytes; the reply to a transaction has a few hundred."""

TICK = 0.1
"""Seconds between two calls of `waiting`."""


class MountGoneError(Exception):
    """The control file could not be opened: nothing was asked of this mount."""


class _Reply(Failure, kw_only=True):
    ok: bool
    sequence: int = 0
    results: list[dict[str, Any]] = msgspec.field(default_factory=list)


class _Exchange(Thread):
    """Writes and reads in a thread of its own.

    A system call into FUSE that the daemon has seen cannot be interrupted. So the main thread only
    waits: it hears of Ctrl-C, and can say what that means, even when a mount hangs.
    """

    def __init__(self, descriptor: int, data: bytes) -> None:
        super().__init__(daemon=True)
        self._descriptor = descriptor
        self._data = data
        self.reply = bytearray()
        self.error: OSError | None = None

    def run(self) -> None:
        """Write the command, and read the reply to its end."""
        try:
            os.write(self._descriptor, self._data)
            while len(self.reply) <= MAX_REPLY and (piece := os.read(self._descriptor, 1 << 20)):
                self.reply += piece
        except OSError as exc:
            self.error = exc
        finally:
            os.close(self._descriptor)


def transact(
    mount: Mount, script: str, waiting: Callable[[], None] | None = None
) -> list[dict[str, Any]]:
    """Run a script as one transaction through a mount, and return one result per command.

    Args:
        mount: it is the mount's own project that names without a project are in.
        script: lines of the control file's grammar.
        waiting: called again and again while there is no answer.

    Raises:
        MountGoneError: the mount takes no commands (dead, read-only, not ours to write).
        MregfsError: what the registry answered; nothing changed.
        KeyboardInterrupt: Ctrl-C; the daemon has got the command, and the message says so.
    """
    data = script.encode()
    if len(data) > MAX_WRITE:
        raise errors.InvalidError(
            f"the command takes {len(data)} bytes", f"use at most {MAX_WRITE}; put more into a file"
        )
    try:
        descriptor = os.open(special(mount.point, CONTROL), os.O_RDWR | os.O_CLOEXEC)
    except OSError as exc:
        raise MountGoneError(exc.strerror) from exc
    exchange = _Exchange(descriptor, data)
    try:
        exchange.start()
        while exchange.is_alive():
            exchange.join(TICK if waiting else None)
            if waiting:
                waiting()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"the daemon of the mount {mount.point!r} gives a commit up if it still can, "
            "and has done anything shorter: see mregfs ls, or mregfs history NAME"
        ) from None
    if exchange.error is not None:
        raise errors.UnavailableError(
            f"the mount {mount.point!r} went away ({exchange.error.strerror})",
            "mount it again, and see with mregfs history whether the change was made",
        ) from exchange.error
    return _results(bytes(exchange.reply), mount)


def _results(data: bytes, mount: Mount) -> list[dict[str, Any]]:
    try:
        reply = msgspec.json.decode(data, type=_Reply)
    except msgspec.DecodeError as exc:
        raise errors.UnavailableError(
            f"the mount {mount.point!r} gave no answer ({exc})", "unmount it, and mount it again"
        ) from exc
    if not reply.ok:
        raise reply.as_error()
    return reply.results
