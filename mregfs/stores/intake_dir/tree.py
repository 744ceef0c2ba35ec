"""Looking at a directory tree that others may change meanwhile.

Decided here: what may be in a version and what not, and that no symlink is followed, so that a
directory swapped for a symlink leads nowhere. Not decided here: what is done with the files. Only
`intake` calls this.
"""

import contextlib
import errno
import os
import stat
import threading
from collections import OrderedDict

from mregfs.errors import ConflictError, HostError, InvalidError, MregfsError, NotFoundError
from mregfs.model.manifest import path_problem, symlink_problem
from mregfs.ports import IntakeEntry

__all__ = ["SourceTree", "translated"]

_OPEN_DIRECTORIES = 32
_NAMED = 20  # offending paths that a message lists
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a FIFO that took a file's place must not make us wait.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY

_STRANGE = {
    stat.S_IFSOCK: "is a socket",
    stat.S_IFIFO: "is a FIFO",
    stat.S_IFCHR: "is a device",
    stat.S_IFBLK: "is a device",
}


class SourceTree:
    """One directory tree, as it was when it was scanned. Safe to use from several threads."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.found: dict[str, os.stat_result] = {}
        """What `scan` saw of each file."""
        self._root = -1
        self._directories: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()

    def scan(self) -> list[IntakeEntry]:
        """List everything below the directory.

        Raises:
            InvalidError: something cannot be in a version; all of it is named.
            NotFoundError: there is no such directory.
        """
        entries: list[IntakeEntry] = []
        problems: list[str] = []
        try:
            self._root = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._scan(os.open(".", _DIRECTORY, dir_fd=self._root), "", entries, problems)
        except OSError as exc:
            raise translated(exc, "cannot read", self.path) from exc
        if problems:
            problems.sort()
            more = len(problems) - _NAMED
            listed = "; ".join(problems[:_NAMED]) + (f"; and {more} more" if more > 0 else "")
            raise InvalidError(
                f"{self.path} cannot become a version: {listed}", "remove or replace these"
            )
        return entries

    def _scan(self, fd: int, prefix: str, entries: list[IntakeEntry], problems: list[str]) -> None:
        directories = []
        try:
            for name in os.listdir(fd):
                path = prefix + name
                problem = path_problem(path)
                if problem:
                    problems.append(f"{os.fsencode(path)!r} {problem}")
                    continue
                found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                kind = stat.S_IFMT(found.st_mode)
                if kind == stat.S_IFREG:
                    self.found[path] = found
                    executable = bool(found.st_mode & 0o100)
                    entries.append(
                        IntakeEntry(path, "file", found.st_size, executable, links=found.st_nlink)
                    )
                elif kind == stat.S_IFDIR:
                    entries.append(IntakeEntry(path, "directory"))
                    directories.append(name)
                elif kind == stat.S_IFLNK:
                    target = os.readlink(name, dir_fd=fd)
                    problem = symlink_problem(path, target)
                    if problem:
                        problems.append(f"{path!r} {problem}")
                    entries.append(IntakeEntry(path, "symlink", target=target))
                else:
                    problems.append(f"{path!r} {_STRANGE.get(kind, 'is no file')}")
            for name in directories:
                below = os.open(name, _DIRECTORY, dir_fd=fd)
                self._scan(below, f"{prefix}{name}/", entries, problems)
        finally:
            os.close(fd)

    def open(self, path: str) -> int:
        """Open a scanned file for reading; the caller closes it.

        Raises:
            ConflictError: something else stands there by now.
        """
        directory, _, name = path.rpartition("/")
        try:
            with self._lock:
                fd = os.open(name, _FILE, dir_fd=self._directory(directory))
        except OSError as exc:
            if exc.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
                raise _changed(path) from exc
            raise translated(exc, "cannot read", f"{self.path}/{path}") from exc
        if unchanged(self.found[path], os.fstat(fd)):
            return fd
        os.close(fd)
        raise _changed(path)

    def _directory(self, path: str) -> int:
        """Under the lock: return a descriptor of a directory, reached without symlinks."""
        if not path:
            return self._root
        fd = self._directories.get(path)
        if fd is None:
            parent, _, name = path.rpartition("/")
            fd = os.open(name, _DIRECTORY, dir_fd=self._directory(parent))
            self._directories[path] = fd
            if len(self._directories) > _OPEN_DIRECTORIES:
                os.close(self._directories.popitem(last=False)[1])
        return fd

    def close(self) -> None:
        """Let go of the directory."""
        with self._lock:
            for fd in self._directories.values():
                os.close(fd)
            self._directories.clear()
            if self._root >= 0:
                os.close(self._root)
                self._root = -1


def unchanged(before: os.stat_result, after: os.stat_result) -> bool:
    """Tell whether a file is the same, with the same content as far as the kernel tells."""
    return (
        before.st_ino == after.st_ino
        and before.st_dev == after.st_dev
        and before.st_size == after.st_size
        and before.st_mtime_ns == after.st_mtime_ns
    )


def remove_tree(path: str) -> None:
    """Remove a directory and all below it, also where its owner took away the right to.

    Raises:
        OSError: something is left.
    """
    import shutil

    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except PermissionError:
        for directory, names, _ in os.walk(path):
            for name in (".", *names):
                with contextlib.suppress(OSError):
                    os.chmod(os.path.join(directory, name), 0o700, follow_symlinks=False)
        shutil.rmtree(path)


def _changed(path: str) -> ConflictError:
    return ConflictError(
        f"{path!r} changed while it was being committed", "commit again when it is finished"
    )


def translated(exc: OSError, doing: str, path: str) -> MregfsError:
    """Return our error for one of the host's."""
    message = f"{doing} {path!r}: {exc.strerror or exc}"
    if exc.errno == errno.ENOENT:
        return NotFoundError(message)
    return HostError(exc.errno or errno.EIO, message)
