"""Talks to the control file of a live mount: command lines out, JSON back.

Decided here: how a reply or its failure comes back as results or as an error of ours. Not decided
here: what is written (`session`, `intake`), what it means (`model.grammar`, in the daemon). A change
that goes this way is seen through the mount when the call returns.
"""

import errno
import os
from typing import Any

import msgspec

from mregfs import errors
from mregfs.cli.place import Mount

__all__ = ["MountGoneError", "transact"]

_MOST = 64 << 20
"""Bytes of a reply that are read at most: that of a transaction is a few hundred bytes."""


class MountGoneError(Exception):
    """The control file could not be opened: nothing was asked of this mount."""


class _Reply(msgspec.Struct):
    ok: bool
    sequence: int = 0
    results: list[dict[str, Any]] = []
    error: str = ""
    errno: int = errno.EIO
    message: str = ""
    hint: str = ""


def transact(mount: Mount, script: str) -> list[dict[str, Any]]:
    """Run a script as one transaction through a mount, and return one result per command.

    Raises:
        MountGoneError: the mount takes no commands (dead, read-only, not ours to write).
        MregfsError: what the registry answered; nothing changed.
    """
    try:
        descriptor = os.open(f"{mount.point}/.mregfs/control", os.O_RDWR | os.O_CLOEXEC)
    except OSError as exc:
        raise MountGoneError(str(exc)) from exc
    try:
        data = script.encode()
        if os.write(descriptor, data) != len(data):
            raise errors.InvalidError("the command is too long", "split it into several")
        reply = bytearray()
        while piece := os.read(descriptor, 1 << 20):
            reply += piece
            if len(reply) > _MOST:
                raise errors.UnavailableError(f"{mount.point!r} gave a reply without an end")
    except OSError as exc:
        raise errors.UnavailableError(
            f"the mount {mount.point!r} went away ({exc.strerror})",
            "see with mregfs history whether the change was made, then mount again",
        ) from exc
    finally:
        os.close(descriptor)
    return _results(bytes(reply), mount)


def _results(data: bytes, mount: Mount) -> list[dict[str, Any]]:
    try:
        reply = msgspec.json.decode(data, type=_Reply)
    except msgspec.DecodeError as exc:
        raise errors.UnavailableError(
            f"the mount {mount.point!r} gave no answer ({exc})", "unmount it, and mount it again"
        ) from exc
    if reply.ok:
        return reply.results
    if reply.error == "HostError":
        raise errors.HostError(reply.errno, reply.message, reply.hint)
    kind = getattr(errors, reply.error, None) if reply.error in errors.__all__ else None
    raise (kind or errors.UnavailableError)(reply.message, reply.hint)
