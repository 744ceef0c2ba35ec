"""Looking at a registry through a mount of it, and at nothing else: the store may be anywhere.

Decided here: what is asked of the mount, and what this process reads itself: bytes of files, from
the mount's own directories. Not decided here: how a question is asked (`asking`), what it is
answered with (`registry.read.answers`).
"""

import contextlib
import errno
import io
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Self

from mregfs.api.asking import Asking
from mregfs.api.stream import Stream
from mregfs.errors import (
    CorruptError,
    HostError,
    InvalidError,
    MregfsError,
    NotFoundError,
    UnavailableError,
)
from mregfs.model.names import ProjectName, check_name, parse_number, parse_project
from mregfs.model.paths import EVENTS, special
from mregfs.model.reference import Location
from mregfs.registry.read.results import Diff, FileInfo, HistoryLine, OwnerInfo, Usage, VersionInfo

__all__ = ["InMount"]

PATIENCE = 60.0
"""Seconds that who follows the log waits for a mount that went away."""

LONGEST_PAUSE = 1.0
"""Seconds without news after which one looks nevertheless."""

_BUFFER = 1 << 20


class InMount:
    """A `Way` through a mount.

    Args:
        point: where it is mounted.
    """

    def __init__(self, point: str) -> None:
        self.point = point
        self._asking = Asking(point)
        self._bell: _Bell | None = None

    def head(self) -> int:
        """See `Way`."""
        return self._patiently(self._asking.head)

    def projects(self) -> list[str]:
        """See `Way`."""
        return list(self._asking.each(str, "projects"))

    def owners(self, project: ProjectName, kind: str) -> list[OwnerInfo]:
        """See `Way`."""
        found = self._asking.each(OwnerInfo, "ls", project=str(project))
        return [owner for owner in found if owner.kind == kind]

    def owner(self, location: Location) -> OwnerInfo:
        """See `Way`."""
        return self._asking.one(OwnerInfo, "show", [location.as_owner().text])

    def version(self, location: Location) -> VersionInfo:
        """See `Way`."""
        info = self._asking.one(VersionInfo, "show", [location.as_version().text])
        try:
            check_name(info.artifact)
            parse_project(info.project)
        except InvalidError as exc:
            raise self._made_up(exc.message) from exc
        if parse_number(info.version) is None:
            raise self._made_up(f"{info.version!r} is no version")
        return info

    def versions(self, location: Location) -> Iterator[VersionInfo]:
        """See `Way`."""
        return self._asking.each(VersionInfo, "ls", [location.as_owner().text])

    def history(self, location: Location) -> Iterator[HistoryLine]:
        """See `Way`."""
        return self._asking.each(HistoryLine, "history", [location.text])

    def diff(self, a: Location, b: Location) -> Diff:
        """See `Way`; compared here, as tensors are in the files."""
        from mregfs.registry.read.diff import changed_tensors, compare

        first, second = self._directory(a), self._directory(b)

        def tensors(path: str, was: FileInfo, info: FileInfo) -> tuple[str, ...]:
            with _File(first, path) as old, _File(second, path) as new:
                return changed_tensors(old, new)

        files = (((each.path, each) for each in self.files(place, "")) for place in (a, b))
        return compare(next(files), next(files), tensors)

    def usage(self, location: Location | None) -> Usage:
        """See `Way`."""

        return self._asking.one(Usage, "du", [] if location is None else [location.text])

    def access(self, project: ProjectName | None) -> dict[str, Any]:
        """See `Way`."""
        return self._asking.one(dict[str, Any], "access", [str(project)] if project else [])

    def status(self) -> dict[str, Any]:
        """See `Way`; says also by which mount."""
        return self._asking.one(dict[str, Any], "status") | {"through": self.point}

    def files(self, location: Location, path: str) -> Iterator[FileInfo]:
        """See `Way`."""
        found = self._asking.each(FileInfo, "ls", [location.as_version().text, path])
        return map(self._checked, found)

    def open(self, location: Location, path: str) -> BinaryIO:
        """See `Way`."""
        return io.BufferedReader(Stream(_File(self._directory(location), path), path), _BUFFER)

    def export(
        self, location: Location, destination: str, progress: Callable[[int, int], None]
    ) -> None:
        """See `Way`."""
        from mregfs.wiring.exports import open_export

        info = self.version(location)
        fixed = Location(
            parse_project(info.project), info.artifact, number=parse_number(info.version)
        )
        directory = self._directory(fixed)
        done = 0
        with open_export(destination) as target:
            for entry in self.files(fixed, ""):
                if entry.kind == "directory":
                    target.add_directory(entry.path)
                elif entry.kind == "symlink":
                    target.add_symlink(entry.path, entry.target)
                else:
                    with _File(directory, entry.path) as source:
                        target.add_file(entry.path, source, executable=entry.executable)
                    done += entry.size
                    progress(done, info.size)

    def entries(self, since: int) -> Iterator[dict[str, Any]]:
        """See `Way`."""
        self._listen()
        while True:
            try:
                for event in self._asking.entries(since):
                    since = event["sequence"]
                    yield event
            except UnavailableError:
                self.head()  # it comes back, or this raises
            else:
                return

    def pause(self, most: float | None = None) -> None:
        """See `Way`; the mount's `events` tells when there is something."""
        self._listen().wait(LONGEST_PAUSE if most is None else min(most, LONGEST_PAUSE))

    def close(self) -> None:
        """See `Way`."""
        if self._bell is not None:
            self._bell.stop()
            self._bell = None

    def _listen(self) -> "_Bell":
        if self._bell is None:
            self._bell = _Bell(special(self.point, EVENTS))
        return self._bell

    def _patiently(self, ask: Callable[[], int]) -> int:
        """Ask again as long as a mount may come back: its daemon was started anew, say."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return ask()
            except UnavailableError:
                if self._bell is None or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def _checked(self, info: FileInfo) -> FileInfo:
        """Return what is told of a file; it becomes a path of this host when it is exported.

        Raises:
            CorruptError: no version has a file like that.
        """
        from mregfs.model.manifest import path_problem, symlink_problem

        problem = path_problem(info.path)
        if not problem and info.kind == "symlink":
            problem = symlink_problem(info.path, info.target)
        if problem:
            raise self._made_up(f"a path, {info.path!r}, {problem}")
        return info

    def _made_up(self, what: str) -> CorruptError:
        return CorruptError(
            f"the mount {self.point!r} contradicts itself: {what}", "ask who mounted it"
        )

    def _directory(self, location: Location) -> str:
        """Return the path of a version's own directory, which stays that version."""
        found = self._asking.one(dict[str, str], "path", [location.as_version().text])
        path = found.get("path", "")
        if path.startswith("/") or ".." in path.split("/") or not path:
            raise UnavailableError(f"the mount {self.point!r} gave no path", "mount it again")
        return f"{self.point}/{path}"


class _File:
    """An open file of a version, in the mount.

    Raises:
        NotFoundError: there is none.
        InvalidError: it is a directory, or symlinks lead in a circle.
    """

    def __init__(self, directory: str, path: str) -> None:
        self.name = path
        parts = [name for name in path.split("/") if name not in ("", ".")]
        if ".." in parts:
            raise NotFoundError(f"there is no {path!r}", "list the files: mregfs ls REF")
        try:
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
            self._descriptor = os.open("/".join((directory, *parts)), flags)
        except OSError as exc:
            raise _translated(exc, path) from exc
        try:
            self.size = os.fstat(self._descriptor).st_size
            os.read(self._descriptor, 0)
        except OSError as exc:
            os.close(self._descriptor)
            raise _translated(exc, path) from exc

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes at `offset`.

        Raises:
            CorruptError: they are not what was committed.
        """
        pieces = []
        try:
            while length > 0 and (piece := os.pread(self._descriptor, length, offset)):
                pieces.append(piece)
                offset += len(piece)
                length -= len(piece)
        except OSError as exc:
            raise _translated(exc, self.name) from exc
        return b"".join(pieces)

    def backing(self) -> int:
        """Return -1: what is behind the mount is nobody's to know."""
        return -1

    def close(self) -> None:
        """Close it."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _translated(exc: OSError, path: str) -> MregfsError:
    if exc.errno in (errno.ENOENT, errno.ENOTDIR):
        return NotFoundError(f"there is no {path!r}", "list the files: mregfs ls REF")
    if exc.errno == errno.EISDIR:
        return InvalidError(f"{path!r} is a directory, not a file")
    if exc.errno == errno.ELOOP:
        return InvalidError(f"symlinks lead in a circle at {path!r}")
    if exc.errno == errno.EIO:
        return CorruptError(f"{path!r} cannot be read", "see the log of the mount's daemon")
    if exc.errno in (errno.ENOTCONN, errno.ECONNABORTED):
        return UnavailableError(f"the mount went away while {path!r} was read", "mount it again")
    return HostError(exc.errno or errno.EIO, f"cannot read {path!r}: {exc.strerror}")


class _Bell:
    """Rings when `events` of a mount has something new.

    A thread of its own waits there: what a hung daemon does not answer keeps nobody else waiting.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._rang = threading.Event()
        self._stopped = False
        threading.Thread(target=self._listen, name="mregfs-events", daemon=True).start()

    def wait(self, seconds: float) -> None:
        """Wait until it has rung since the last wait, or that long."""
        self._rang.wait(seconds)
        self._rang.clear()

    def stop(self) -> None:
        """Let the thread end, soon."""
        self._stopped = True

    def _listen(self) -> None:
        while not self._stopped:
            with contextlib.suppress(OSError):
                descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                try:
                    self._drain(descriptor)
                finally:
                    os.close(descriptor)
            self._rang.set()
            time.sleep(0.1)

    def _drain(self, descriptor: int) -> None:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        while not self._stopped:
            if poller.poll(1000):
                with contextlib.suppress(BlockingIOError):
                    if not os.read(descriptor, 1 << 16):
                        return
                self._rang.set()
