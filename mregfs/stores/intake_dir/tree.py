"""Looking at a directory tree that others may change meanwhile.

Decided here: what may be in a version and what not, and that no symlink is followed, so that a
directory swapped for a symlink leads nowhere. Not decided here: what is done with the files.
"""

import contextlib
import errno
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from mregfs.errors import (
    ConflictError,
    HostError,
    InvalidError,
    MregfsError,
    NoSpaceError,
    NotFoundError,
)
from mregfs.host.following import open_followed
from mregfs.host.listing import entries_in, names_in
from mregfs.model.manifest import path_problem, symlink_problem
from mregfs.ports.intake import IntakeEntry

__all__ = [
    "DIRECTORY",
    "Directories",
    "Guard",
    "SourceFile",
    "SourceTree",
    "listed",
    "remove_tree",
    "translated",
    "unchanged",
]

_OPEN_DIRECTORIES = 16
_LONGEST_TEXT = 1 << 20  # of a file that says that it is empty
_SECTOR = 512  # what st_blocks counts
_NAMED = 20  # paths that a message lists
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
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
        top: a descriptor of the directory at the top; it is ours to close.
        unlock: give ourselves every right to each before it is used.

    Raises:
        OSError: the host refused, here and in every method.
    """

    def __init__(self, top: int, *, unlock: bool = False) -> None:
        self._top = top
        self._unlock = unlock
        self._open: OrderedDict[str, int] = OrderedDict()
        if unlock:
            os.fchmod(top, 0o700)

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
            fd = os.open(name, DIRECTORY, dir_fd=fd)
            path = f"{path}/{name}" if path else name
            self._open[path] = fd
            if self._unlock:
                os.fchmod(fd, 0o700)
            if len(self._open) > _OPEN_DIRECTORIES:
                os.close(self._open.popitem(last=False)[1])
        return fd

    def walk(self) -> Iterator[tuple[str, int, list[os.DirEntry[str]]]]:
        """Yield path, descriptor and entries of each directory, those above before those below."""
        pending = [""]
        while pending:
            path = pending.pop()
            fd = self.descriptor(path)
            with entries_in(fd) as found:
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


class Guard(Protocol):
    """What is asked on the way through a tree; for a draft, `taking` answers."""

    def enter(self, descriptor: int, path: str) -> None:
        """A directory is about to be listed.

        Raises:
            OSError, MregfsError: it may not be.
        """
        ...

    def may_read(self, descriptor: int, name: str, found: os.stat_result) -> bool:
        """Tell whether a file, found in an open directory, may be read."""
        ...


class SourceTree:
    """One directory tree, as it was when it was scanned. Safe to use from several threads.

    Args:
        path: for messages.
        open_top: opens the directory at the top.
        room: bytes that the file system of the store has; a larger file is refused.
        guard: who is asked about each directory and file.
    """

    def __init__(
        self, path: str, open_top: Callable[[], int], room: int, guard: Guard | None = None
    ) -> None:
        self.path = path
        self.found: dict[str, os.stat_result] = {}
        """What `scan` saw of each file."""
        self.others: set[str] = set()
        """The paths of everything else."""
        self._open_top = open_top
        self._room = room
        self._guard = guard
        self._directories: Directories | None = None
        self._lock = threading.Lock()

    def scan(self) -> list[IntakeEntry]:
        """List everything below the directory.

        Raises:
            InvalidError: something cannot be in a version; all of it is named.
            NoSpaceError: a file is larger than the store's file system.
            HostError: EACCES, files that may not be read; all are named.
            NotFoundError: there is no such directory.
        """
        entries: list[IntakeEntry] = []
        problems: list[str] = []
        unreadable: list[str] = []
        try:
            self._directories = Directories(self._open_top())
            self._scan(self._directories, entries, problems, unreadable)
            self._directories.look_again()
        except OSError as exc:
            raise translated(exc, "cannot read", self.path) from exc
        if unreadable:
            raise HostError(
                errno.EACCES,
                f"you may not read all of {self.path}: {listed(unreadable)}",
                "ask whoever owns these, or commit as somebody who may",
            )
        if problems:
            problems.sort()
            more = len(problems) - _NAMED
            named = "; ".join(problems[:_NAMED]) + (f"; and {more} more" if more > 0 else "")
            raise InvalidError(
                f"{self.path} cannot become a version: {named}", "remove or replace these"
            )
        self._check_room()
        return entries

    def _check_room(self) -> None:
        """Refuse what never fits, before hours are spent on it."""
        large = [path for path, found in self.found.items() if found.st_size > self._room]
        if large:
            raise NoSpaceError(
                f"{self.path} cannot become a version: {listed(large)} would not fit into the "
                "store's file system",
                "remove these, or make it larger",
            )

    def _scan(
        self,
        directories: Directories,
        entries: list[IntakeEntry],
        problems: list[str],
        unreadable: list[str],
    ) -> None:
        guard = self._guard
        pending = [""]
        while pending:
            directory = pending.pop()
            fd = directories.descriptor(directory)
            if guard is not None:
                guard.enter(fd, directory)
            for name in names_in(fd):
                path = f"{directory}/{name}" if directory else name
                problem = path_problem(path)
                if problem:
                    problems.append(f"{os.fsencode(path)!r} {problem}")
                    continue
                found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                kind = stat.S_IFMT(found.st_mode)
                if kind == stat.S_IFREG:
                    self.found[path] = found
                    entries.append(_file_entry(path, found))
                    if guard is not None and not guard.may_read(fd, name, found):
                        unreadable.append(path)
                    continue
                self.others.add(path)
                if kind == stat.S_IFDIR:
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

    def knows(self, path: str, inode: int) -> bool:
        """Tell whether a path was scanned; of a file, whether it is that one still."""
        found = self.found.get(path)
        return path in self.others if found is None else found.st_ino == inode

    def close(self) -> None:
        """Let go of the directory."""
        with self._lock:
            if self._directories is not None:
                self._directories.close()


class SourceFile(SourceTree):
    """A file alone, as if it were in a directory of its own: nothing is made for that.

    Args:
        path: where it is; symlinks are followed, as `host.following` says.
        room: as above.
    """

    def __init__(self, path: str, room: int) -> None:
        super().__init__(path, lambda: -1, room)
        self._name = os.path.basename(path)
        self._fd = -1

    def scan(self) -> list[IntakeEntry]:
        """Open the file; it is the only entry.

        Raises:
            InvalidError: it is something else, or its name or size cannot be in a version.
            NotFoundError: there is none.
        """
        try:
            self._fd = open_followed(self.path, _FILE)
        except OSError as exc:
            raise translated(exc, "cannot read", self.path) from exc
        found = os.fstat(self._fd)
        problem = path_problem(self._name)
        if not stat.S_ISREG(found.st_mode):
            kind = stat.S_IFMT(found.st_mode)
            problem = _STRANGE.get(kind, "is neither a file nor a directory")
        if problem:
            raise InvalidError(f"{self.path!r} {problem}", "import a file or a directory")
        if not found.st_size:
            self._keep_text()
            found = os.fstat(self._fd)
        self.found[self._name] = found
        self._check_room()
        return [_file_entry(self._name, found)]

    def _keep_text(self) -> None:
        """Keep what a file says that has no size: those of /proc are made when they are read."""
        try:
            text = os.read(self._fd, _LONGEST_TEXT + 1)
            while 0 < len(text) <= _LONGEST_TEXT and (piece := os.read(self._fd, _LONGEST_TEXT)):
                text += piece
            if not text:
                return
            kept_fd = os.memfd_create("import")
            try:
                with open(kept_fd, "wb", closefd=False) as file:
                    file.write(text)
                reading = os.open(f"/proc/self/fd/{kept_fd}", _FILE & ~os.O_NOFOLLOW)
            finally:
                os.close(kept_fd)
        except OSError as exc:
            raise translated(exc, "cannot read", self.path) from exc
        os.close(self._fd)
        self._fd = reading
        if len(text) > _LONGEST_TEXT:
            raise InvalidError(f"{self.path!r} does not end", "import a file or a directory")

    def open(self, path: str) -> int:
        """Open the file once more, whatever its name leads to by now.

        Raises:
            ConflictError: it changed.
        """
        try:
            # By another open file description, as a lease belongs to one.
            fd = os.open(f"/proc/self/fd/{self._fd}", _FILE & ~os.O_NOFOLLOW)
        except OSError as exc:
            raise translated(exc, "cannot read", self.path) from exc
        if unchanged(self.found[path], os.fstat(fd)):
            return fd
        os.close(fd)
        raise _changed(path)

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _file_entry(path: str, found: os.stat_result) -> IntakeEntry:
    return IntakeEntry(
        path,
        "file",
        found.st_size,
        bool(found.st_mode & stat.S_IXUSR),
        links=found.st_nlink,
        sparse=found.st_blocks * _SECTOR < found.st_size,
    )


def unchanged(before: os.stat_result, after: os.stat_result) -> bool:
    """Tell whether a file is the same, with the same content as far as the kernel tells."""
    return (
        before.st_ino == after.st_ino
        and before.st_dev == after.st_dev
        and before.st_size == after.st_size
        and before.st_mtime_ns == after.st_mtime_ns
    )


def remove_tree(top: int, known: Callable[[str, int], bool] | None = None) -> bool:
    """Empty a directory, also where its owner took away the right to; it stays itself.

    Args:
        top: a descriptor of the directory; it is ours to close.
        known: what may be removed, by path and inode number; by default everything.

    Returns:
        Whether nothing is left in it.

    Raises:
        OSError: something cannot be removed.
    """
    complete = True
    with contextlib.closing(Directories(top, unlock=True)) as tree:
        found = []
        for directory, fd, entries in tree.walk():
            found.append(directory)
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    continue
                path = f"{directory}/{entry.name}" if directory else entry.name
                if known is not None and not known(path, entry.inode()):
                    complete = False
                    continue
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(entry.name, dir_fd=fd)
        while len(found) > 1:  # the last ones are deepest
            parent, _, name = found.pop().rpartition("/")
            try:
                os.rmdir(name, dir_fd=tree.descriptor(parent))
            except OSError as exc:
                if exc.errno != errno.ENOTEMPTY or complete:
                    raise
    return complete


def listed(paths: Iterable[str]) -> str:
    """Return some paths for a message, sorted, and how many more there are."""
    found = sorted(paths)
    more = len(found) - _NAMED
    return ", ".join(map(repr, found[:_NAMED])) + (f" and {more} more" if more > 0 else "")


def _changed(path: str) -> ConflictError:
    return ConflictError(
        f"{path!r} changed while it was being committed", "commit again when it is finished"
    )


def translated(exc: OSError, doing: str, path: str) -> MregfsError:
    """Return our error for one of the host's."""
    message = f"{doing} {path!r}: {exc.strerror or exc}"
    if exc.errno == errno.ENOENT:
        return NotFoundError(message)
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceError(message, "free some space on that file system")
    return HostError(exc.errno or errno.EIO, message)
