"""The closed set of errors, each with one errno and one exit code.

Decided here: which kinds of failure exist and what a caller may do about each. Not decided here:
when they happen. Every package may raise them; adapters translate what their drivers raise at the
call that caused it. A message says what, which, and what to do.
"""

import errno

__all__ = [
    "ConflictError",
    "CorruptError",
    "ExistsError",
    "ForbiddenError",
    "HostError",
    "ImmutableError",
    "InvalidError",
    "MregfsError",
    "NoSpaceError",
    "NotEmptyError",
    "NotFoundError",
    "UnavailableError",
    "UnsupportedError",
]


class MregfsError(Exception):
    """What every failure of the registry derives from; never raised itself.

    Args:
        message: what failed, on which thing.
        hint: what the person can do about it; may be empty.
    """

    errno: int = errno.EIO
    exit_code: int = 1
    position: int | None = None
    """Which command of a transaction was refused, counted from 0; None: not one in particular."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def reply(self) -> dict[str, object]:
        """Return what the mount's files answer in place of what was asked."""
        return {
            "ok": False,
            "error": type(self).__name__,
            "errno": self.errno,
            "exit_code": self.exit_code,
            "message": self.message,
            "hint": self.hint,
        }

    def __str__(self) -> str:
        return f"{self.message}: {self.hint}" if self.hint else self.message


class NotFoundError(MregfsError):
    """The thing named does not exist."""

    errno = errno.ENOENT
    exit_code = 3


class ExistsError(MregfsError):
    """The name is taken."""

    errno = errno.EEXIST
    exit_code = 4


class InvalidError(MregfsError):
    """The request makes no sense as written: a bad name, a type mismatch, malformed JSON."""

    errno = errno.EINVAL
    exit_code = 5


class ImmutableError(MregfsError):
    """A write to something published, or to anything on a read-only mount."""

    errno = errno.EROFS
    exit_code = 6


class ForbiddenError(MregfsError):
    """A rule says that this caller may not."""

    errno = errno.EPERM
    exit_code = 7


class ConflictError(MregfsError):
    """Something is in use, or is no longer what the caller expected: look again, then decide."""

    errno = errno.EBUSY
    exit_code = 8


class UnavailableError(MregfsError):
    """What holds the data does not answer now; the only kind that is retried."""

    errno = errno.EAGAIN
    exit_code = 9


class NoSpaceError(MregfsError):
    """A disk, a quota or a limit is full."""

    errno = errno.ENOSPC
    exit_code = 10


class CorruptError(MregfsError):
    """Bytes are not what their digest says; never retried, logged at ERROR."""

    errno = errno.EIO
    exit_code = 11


class NotEmptyError(MregfsError):
    """A container still holds something."""

    errno = errno.ENOTEMPTY
    exit_code = 12


class UnsupportedError(MregfsError):
    """An operation, an option or a format version that this program does not know."""

    errno = errno.EOPNOTSUPP
    exit_code = 13


class HostError(MregfsError):
    """The host's file system or kernel refused; carries the errno it gave.

    Drafts behave errno for errno like the native file system, so this is the one class whose
    errno belongs to the instance. What it refuses to this user ends a program as ForbiddenError
    does.
    """

    exit_code = 14

    def __init__(self, code: int, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.errno = code
        if code in (errno.EACCES, errno.EPERM):
            self.exit_code = ForbiddenError.exit_code
