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
from collections.abc import Iterator

from mregfs.errors import ConflictError, HostError, InvalidError, MregfsError, NotFoundError
from mregfs.model.manifest import path_problem, symlink_problem
from mregfs.ports import IntakeEntry

__all__ = ["Directories", "SourceTree", "remove_tree", "translated", "unchanged"]

_OPEN_DIRECTORIES = 32
_SECTOR = 512  # what st_blocks counts
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


class Directories:
    """A directory and all below it, however deep: reached without symlinks and without recursion.

    Keeps some of them open. Not thread-safe.

    Args:
        path: the directory at the top.
        unlock: give ourselves every right to each before opening it.

    Raises:
        OSError: the host refused, here and in every method.
    """

    def __init__(self, path: str, *, unlock: bool = False) -> None:
        self._unlock = unlock
        if unlock:
            with contextlib.suppress(OSError):
                os.chmod(path, 0o700)
        self._top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._open: OrderedDict[str, int] = OrderedDict()

    def descriptor(self, path: str) -> int:
        """Return a descriptor of the directory at a path; it is valid until the next call."""
        names = []
        while path and path not in self._open:
            path, _, name = path.rpartition("/")
            names.append(name)
        if path:
            self._open.move_to_end(path)
        fd = self._open[path] if path else self._top
        for name in reversed(names):
            if self._unlock:
                with contextlib.suppress(OSError):
                    os.chmod(name, 0o700, dir_fd=fd, follow_symlinks=False)
            fd = os.open(name, _DIRECTORY, dir_fd=fd)
            path = f"{path}/{name}" if path else name
            self._open[path] = fd
            if len(self._open) > _OPEN_DIRECTORIES:
                os.close(self._open.popitem(last=False)[1])
        return fd

    def walk(self) -> Iterator[tuple[str, int, list[os.DirEntry[str]]]]:
        """Yield each directory's path, descriptor and entries, before those that are in it."""
        pending = [""]
        while pending:
            path = pending.pop()
            fd = self.descriptor(path)
            with os.scandir(fd) as found:
                entries = list(found)
            below = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
            pending += [f"{path}/{name}" if path else name for name in below]
            yield path, fd, entries

    def look_again(self) -> None:
        """Keep only the top open: from now on a path means what stands there then."""
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    def close(self) -> None:
        """Let go of all of them."""
        self.look_again()
        if self._top >= 0:
            os.close(self._top)
            self._top = -1


class SourceTree:
    """One directory tree, as it was when it was scanned. Safe to use from several threads."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.found: dict[str, os.stat_result] = {}
        """What `scan` saw of each file."""
        self._directories: Directories | None = None
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
            self._directories = Directories(self.path)
            self._scan(self._directories, entries, problems)
            self._directories.look_again()
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

    def _scan(
        self, directories: Directories, entries: list[IntakeEntry], problems: list[str]
    ) -> None:
        pending = [""]
        while pending:
            directory = pending.pop()
            fd = directories.descriptor(directory)
            for name in os.listdir(fd):
                path = f"{directory}/{name}" if directory else name
                problem = path_problem(path)
                if problem:
                    problems.append(f"{os.fsencode(path)!r} {problem}")
                    continue
                found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                kind = stat.S_IFMT(found.st_mode)
                if kind == stat.S_IFREG:
                    self.found[path] = found
                    executable = bool(found.st_mode & 0o100)
                    sparse = found.st_blocks * _SECTOR < found.st_size
                    entries.append(
                        IntakeEntry(
                            path,
                            "file",
                            found.st_size,
                            executable,
                            links=found.st_nlink,
                            sparse=sparse,
                        )
                    )
                elif kind == stat.S_IFDIR:
                    entries.append(IntakeEntry(path, "directory"))
                    pending.append(path)
                elif kind == stat.S_IFLNK:
                    target = os.readlink(name, dir_fd=fd)
                    problem = symlink_problem(path, target)
                    if problem:
                        problems.append(f"{path!r} {problem}")
                    entries.append(IntakeEntry(path, "symlink", target=target))
                else:
                    problems.append(f"{path!r} {_STRANGE.get(kind, 'is no file')}")

    def open(self, path: str) -> int:
        """Open a scanned file for reading; the caller closes it.

        Raises:
            ConflictError: something else stands there by now.
        """
        directory, _, name = path.rpartition("/")
        assert self._directories is not None, "scanned first"
        try:
            with self._lock:
                fd = os.open(name, _FILE, dir_fd=self._directories.descriptor(directory))
        except OSError as exc:
            if exc.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
                raise _changed(path) from exc
            raise translated(exc, "cannot read", f"{self.path}/{path}") from exc
        if unchanged(self.found[path], os.fstat(fd)):
            return fd
        os.close(fd)
        raise _changed(path)

    def close(self) -> None:
        """Let go of the directory."""
        with self._lock:
            if self._directories is not None:
                self._directories.close()


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
    try:
        _remove(path, unlock=False)
    except PermissionError:
        _remove(path, unlock=True)


def _remove(path: str, *, unlock: bool) -> None:
    try:
        tree = Directories(path, unlock=unlock)
    except FileNotFoundError:
        return
    with contextlib.closing(tree):
        found = []
        for directory, fd, entries in tree.walk():
            found.append(directory)
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(entry.name, dir_fd=fd)
        while len(found) > 1:  # the last ones are deepest
            parent, _, name = found.pop().rpartition("/")
            os.rmdir(name, dir_fd=tree.descriptor(parent))
    os.rmdir(path)


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
