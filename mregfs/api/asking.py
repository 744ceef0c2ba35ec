"""Asks a mount a question: writes it as a name of `.mregfs/query`, reads the JSON that is there.

Decided here: how an answer or its failure comes back, how long one is waited for. Not decided here:
the questions (`model.queries`). `cli.control` shares what a failure is.
"""

import errno
import os
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import msgspec

from mregfs import errors
from mregfs.errors import (
    CorruptError,
    ForbiddenError,
    HostError,
    MregfsError,
    UnavailableError,
    UnsupportedError,
)
from mregfs.host.mounts import in_time
from mregfs.model.paths import QUERY, STATUS, special
from mregfs.model.queries import query_text, spell

__all__ = ["Asking", "Failure"]

TIMEOUT = 30.0
"""Seconds for one answer; the mount gives itself two, and others may ask at the same time."""

MAX_ANSWER = 64 << 20
"""Bytes of one answer that are read; a mount gives about 1 MiB."""

MAX_PATH = 3000
"""Bytes of a path that is opened at once; Linux takes 4095, macOS 1023 of a shorter one."""

FIRST = 100
"""Items of the first answer to a list: most who ask look at few."""

_T = TypeVar("_T")


class Failure(msgspec.Struct, kw_only=True):
    """What a mount answers in place of what was asked."""

    error: str = ""
    errno: int = errno.EIO
    message: str = ""
    hint: str = ""

    def as_error(self) -> MregfsError:
        """Return the error, of the class it had on the other side."""
        if self.error == "HostError":
            return HostError(self.errno, self.message, self.hint)
        kind = getattr(errors, self.error) if self.error in errors.__all__ else None
        found: MregfsError = (kind or UnavailableError)(self.message, self.hint)
        return found


class _Reply(Failure, kw_only=True):
    ok: bool
    sequence: int = 0
    result: msgspec.Raw = msgspec.Raw()
    more: str | None = None


class Asking:
    """Asks one mount.

    Args:
        point: where it is mounted.
    """

    def __init__(self, point: str) -> None:
        self.point = point

    def one(
        self, kind: type[_T], name: str, operands: Iterable[str] = (), **options: str | int
    ) -> _T:
        """Return the answer to a question.

        Raises:
            MregfsError: what the mount answered, or why it gave no answer.
        """
        reply = self._ask(query_text(name, operands, **options))
        return self._decode(reply.result, kind)

    def head(self) -> int:
        """Return the number of the newest log entry that the mount shows."""
        return self._ask("help").sequence

    def each(
        self, kind: type[_T], name: str, operands: Iterable[str] = (), **options: str | bool
    ) -> Iterator[_T]:
        """Yield the items of a list, answer by answer; the first answer is there at once.

        Raises:
            MregfsError: as for `one`.
        """
        operands = tuple(operands)
        first = self._ask(query_text(name, operands, limit=FIRST, **options))

        def items(reply: _Reply) -> Iterator[_T]:
            after = ""
            while True:
                yield from self._decode(reply.result, list[kind])  # type: ignore[valid-type]
                if reply.more is None:
                    return
                if reply.more == after:
                    raise CorruptError(
                        f"the mount {self.point!r} gave the same page twice", "mount it again"
                    )
                after = reply.more
                reply = self._ask(query_text(name, operands, after=after, **options))

        return items(first)

    def entries(self, since: int) -> Iterator[dict[str, Any]]:
        """Yield the log entries after a number that there are now."""
        while True:
            reply = self._ask(query_text("log", since=since))
            found = self._decode(reply.result, list[dict[str, Any]])
            yield from found
            if reply.more is None or not found:
                return
            since = found[-1]["sequence"]

    def _ask(self, text: str) -> _Reply:
        names = spell(text)

        def read() -> bytes | MregfsError:
            try:
                return _read(special(self.point, QUERY), names)
            except OSError as exc:
                return self._why_not(exc)

        data = in_time(read, TIMEOUT)
        if data is None:
            raise UnavailableError(
                f"the mount {self.point!r} does not answer",
                f"unmount it with: mregfs umount --lazy {self.point}",
            )
        if isinstance(data, MregfsError):
            raise data
        reply = self._decode(data, _Reply)
        if not reply.ok:
            raise reply.as_error()
        return reply

    def _decode(self, data: bytes | msgspec.Raw, kind: type[_T]) -> _T:
        try:
            return msgspec.json.decode(data, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise UnavailableError(
                f"the mount {self.point!r} gave no answer ({exc})",
                "check that it runs the same version of mregfs",
            ) from exc

    def _why_not(self, exc: OSError) -> MregfsError:
        what = f"the mount {self.point!r}"
        if exc.errno in (errno.EACCES, errno.EPERM):
            return ForbiddenError(f"{what} cannot be opened by this user", "ask who mounted it")
        if exc.errno in (errno.ENOENT, errno.ENOTDIR):
            if os.path.lexists(special(self.point, STATUS)):
                return UnsupportedError(
                    f"{what} does not know this query", "mount it with a newer mregfs"
                )
            return UnavailableError(f"nothing is mounted on {self.point!r}", "mount it again")
        if exc.errno in (errno.ENOTCONN, errno.ECONNABORTED):
            return UnavailableError(f"{what} is dead", "mount it again")
        return UnavailableError(f"{what} did not answer ({exc.strerror})", "ask again")


def _read(top: str, names: list[str]) -> bytes:
    path = "/".join((top, *names))
    if len(path) <= MAX_PATH:
        return _read_all(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    directory = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in names[:-1]:
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
            os.close(directory)
            directory = below
        return _read_all(os.open(names[-1], os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory))
    finally:
        os.close(directory)


def _read_all(descriptor: int) -> bytes:
    try:
        data = bytearray()
        while len(data) <= MAX_ANSWER and (piece := os.read(descriptor, 1 << 20)):
            data += piece
        return bytes(data)
    finally:
        os.close(descriptor)
