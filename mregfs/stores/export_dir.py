"""Copies of versions in a directory of the host.

Decided here: how files, symlinks and directories are written, and that an export which fails leaves
nothing. Not decided here: what is in a version. `api` names it.
"""

import errno
import fcntl
import os
import shutil
from types import TracebackType
from typing import Protocol, Self

from mregfs.errors import ExistsError, HostError, MregfsError, NoSpaceError

__all__ = ["ExportDirectory"]

_FICLONE = 0x40049409
_PIECE = 4 << 20


class Source(Protocol):
    """What is read of an open file of a version."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes at `offset`, verified."""
        ...

    def backing(self) -> int:
        """Return a descriptor of a file with just these bytes, or -1."""
        ...


class ExportDirectory:
    """A directory that does not exist yet or is empty, to be filled.

    A context manager: when the block fails, what it made is removed again.

    Raises:
        ExistsError: there is something already.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(path)
        self._made = False
        try:
            try:
                os.mkdir(self.path)
                self._made = True
            except FileExistsError:
                if not os.path.isdir(self.path) or os.listdir(self.path):
                    raise ExistsError(
                        f"{self.path} exists", "name a new or an empty directory"
                    ) from None
        except OSError as exc:
            raise _translated(exc, self.path) from exc

    def add_directory(self, path: str) -> None:
        """Make a directory; the one it is in was made before."""
        try:
            os.mkdir(self._at(path))
        except OSError as exc:
            raise _translated(exc, self._at(path)) from exc

    def add_symlink(self, path: str, target: str) -> None:
        """Make a symlink."""
        try:
            os.symlink(target, self._at(path))
        except OSError as exc:
            raise _translated(exc, self._at(path)) from exc

    def add_file(self, path: str, source: Source, *, executable: bool) -> None:
        """Write a file: a reflink where the file system can, else its bytes.

        Raises:
            CorruptError: the bytes are not those that were committed.
            NoSpaceError: it does not fit.
        """
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
        try:
            fd = os.open(self._at(path), flags, 0o777 if executable else 0o666)
            try:
                if not _reflink(source.backing(), fd):
                    for offset in range(0, source.size, _PIECE):
                        rest = memoryview(source.read(offset, _PIECE))
                        while rest:
                            rest = rest[os.write(fd, rest) :]
            finally:
                os.close(fd)
        except OSError as exc:
            raise _translated(exc, self._at(path)) from exc

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            return
        for name in os.listdir(self.path):
            full = self._at(name)
            if os.path.isdir(full) and not os.path.islink(full):
                shutil.rmtree(full, ignore_errors=True)
            else:
                os.unlink(full)
        if self._made:
            os.rmdir(self.path)

    def _at(self, path: str) -> str:
        return os.path.join(self.path, path)


def _reflink(source: int, target: int) -> bool:
    if source < 0:
        return False
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def _translated(exc: OSError, path: str) -> MregfsError:
    message = f"cannot write {path!r}: {exc.strerror or exc}"
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceError(message, "free some space, or export elsewhere")
    return HostError(exc.errno or errno.EIO, message)
