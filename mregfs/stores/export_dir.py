"""Copies of versions in a directory of the host.

Decided here: how files, symlinks and directories are written, and that an export which fails leaves
nothing. Not decided here: what is in a version.

Others may be able to rename what is in the destination. So each directory is known by its inode, is
reached from the one above it through no symlink, and nothing is removed but what was made here.
"""

import contextlib
import errno
import fcntl
import os
import stat
from types import TracebackType
from typing import Protocol, Self

from mregfs.errors import ExistsError, ForbiddenError, HostError, MregfsError
from mregfs.host import oserrors
from mregfs.host.listing import names_in

__all__ = ["ExportDirectory"]

_FICLONE = 0x40049409
_PIECE = 4 << 20
_SEARCH: int = getattr(os, "O_PATH", os.O_RDONLY)
"""Linux has a way to open a directory that one may not list."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC

_Identity = tuple[int, int]


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
        ForbiddenError: somebody exchanges directories meanwhile.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(path)
        self._parent = -1
        self._top_fd = -1
        self._open: tuple[str, int] = ("", -1)
        """The directory below the top that was used last."""
        self._made: dict[str, _Identity] = {}
        """Everything that was made here, in that order; the directory itself is the empty path."""
        try:
            self._begin()
        except OSError as exc:
            self._close()
            raise _translated(exc, self.path) from exc
        except MregfsError:
            self._close()
            raise

    def _begin(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            found = os.lstat(self.path)
            # As the kernel has it for sticky directories: a symlink of a third party is no order.
            if stat.S_ISLNK(found.st_mode) and found.st_uid in (0, os.geteuid()):
                self.path = os.path.realpath(self.path)
        above, name = os.path.split(self.path)
        name = name or "."
        self._parent = os.open(above, _SEARCH | os.O_DIRECTORY | os.O_CLOEXEC)
        made = True
        try:
            os.mkdir(name, dir_fd=self._parent)
        except FileExistsError:
            made = False
        try:
            self._top_fd = os.open(name, _DIRECTORY, dir_fd=self._parent)
        except NotADirectoryError:
            raise self._exists() from None
        if names_in(self._top_fd):
            raise self._exists()
        if made:
            found = os.fstat(self._top_fd)
            self._check_ours(found, self.path)
            self._made[""] = _identity(found)

    def _exists(self) -> ExistsError:
        return ExistsError(f"{self.path} exists", "name a new or an empty directory")

    def add_directory(self, path: str) -> None:
        """Make a directory; the one it is in was made before."""
        try:
            directory, name = self._reach(path)
            os.mkdir(name, dir_fd=directory)
            made_fd = os.open(name, _DIRECTORY, dir_fd=directory)
            try:
                found = os.fstat(made_fd)
                self._check_ours(found, self._at(path))
                if names_in(made_fd):
                    raise _exchanged(self._at(path))
                self._made[path] = _identity(found)
            finally:
                os.close(made_fd)
        except OSError as exc:
            raise _translated(exc, self._at(path)) from exc

    def add_symlink(self, path: str, target: str) -> None:
        """Make a symlink."""
        try:
            directory, name = self._reach(path)
            os.symlink(target, name, dir_fd=directory)
            self._made[path] = _identity(os.stat(name, dir_fd=directory, follow_symlinks=False))
        except OSError as exc:
            raise _translated(exc, self._at(path)) from exc

    def add_file(self, path: str, source: Source, *, executable: bool) -> None:
        """Write a file: a reflink where the file system can, else its bytes.

        Raises:
            CorruptError: the bytes are not those that were committed.
            NoSpaceError: it does not fit.
        """
        try:
            directory, name = self._reach(path)
            fd = os.open(name, _FILE, 0o777 if executable else 0o666, dir_fd=directory)
            try:
                self._made[path] = _identity(os.fstat(fd))
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
        try:
            if kind is not None:
                self._remove()
        finally:
            self._close()

    def _remove(self) -> None:
        """Remove what was made, the last first; what is something else by now stays."""
        for path, identity in reversed(self._made.items()):
            with contextlib.suppress(OSError, MregfsError):
                if path:
                    directory, name = self._reach(path)
                else:
                    directory, name = self._parent, os.path.basename(self.path)
                found = os.stat(name, dir_fd=directory, follow_symlinks=False)
                if _identity(found) == identity:
                    # A directory that somebody has put something into stays, too.
                    try:
                        os.unlink(name, dir_fd=directory)
                    except (IsADirectoryError, PermissionError):
                        os.rmdir(name, dir_fd=directory)

    # ---- reaching directories

    def _reach(self, path: str) -> tuple[int, str]:
        """Return the descriptor of the directory that holds a path, and its last component."""
        folder, _, name = path.rpartition("/")
        if not folder:
            return self._top_fd, name
        if self._open[0] != folder:
            descriptor = self._walk(folder)
            self._forget()
            self._open = (folder, descriptor)
        return self._open[1], name

    def _walk(self, folder: str) -> int:
        at = self._top_fd
        gone = ""
        for name in folder.split("/"):
            gone = f"{gone}/{name}" if gone else name
            try:
                below = os.open(name, _DIRECTORY, dir_fd=at)
            finally:
                if at != self._top_fd:
                    os.close(at)
            at = below
            if _identity(os.fstat(at)) != self._made.get(gone):
                os.close(at)
                raise _exchanged(self._at(gone))
        return at

    def _forget(self) -> None:
        _, descriptor = self._open
        self._open = ("", -1)
        if descriptor >= 0:
            os.close(descriptor)

    def _close(self) -> None:
        self._forget()
        for descriptor in (self._top_fd, self._parent):
            if descriptor >= 0:
                os.close(descriptor)
        self._top_fd = self._parent = -1

    def _check_ours(self, found: os.stat_result, path: str) -> None:
        if found.st_uid != os.geteuid():
            raise _exchanged(path)

    def _at(self, path: str) -> str:
        return os.path.join(self.path, path)


def _identity(found: os.stat_result) -> _Identity:
    return found.st_dev, found.st_ino


def _exchanged(path: str) -> ForbiddenError:
    return ForbiddenError(
        f"somebody put another directory at {path!r} while a version was exported to it",
        "export to a directory that only you can write in",
    )


def _reflink(source: int, target: int) -> bool:
    if source < 0:
        return False
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def _translated(exc: OSError, path: str) -> MregfsError:
    doing = f"cannot write {path!r}"
    if exc.errno in (errno.ELOOP, errno.ENOTDIR):
        return _exchanged(path)
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return oserrors.translated(exc, doing, no_space="free some space, or export elsewhere")
    return HostError(exc.errno or errno.EIO, f"{doing}: {exc.strerror or exc}")
