"""What a Python program can see: versions, files, history, figures, and what happens next.

Decided here: how Python asks. Not decided here: the answers; each method is a line or two over a
use case. `Registry` is one of these; nobody else.
"""

import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from mregfs.api.reading import FileInfo, export_version, files_of, open_file
from mregfs.api.session import Session
from mregfs.errors import NotFoundError, UnavailableError
from mregfs.model.changes import event_line
from mregfs.registry.catalog import OwnerInfo, VersionInfo
from mregfs.registry.history import HistoryLine, history

if TYPE_CHECKING:
    from mregfs.registry.commit import CommitProgress
    from mregfs.registry.diff import Diff
    from mregfs.registry.usage import Usage

__all__ = ["Looking"]

POLL_SECONDS = 0.1
"""How often `events` and `wait` look for the next log entry: one stat each time."""


class Looking(Session):
    """Methods of `Registry` that change nothing."""

    # ---- looking

    def projects(self) -> list[str]:
        """Return all projects, as `entity/project`."""
        self._catch_up()
        return [str(project) for project in self._catalog.projects()]

    def artifacts(self, project: str | None = None) -> list[OwnerInfo]:
        """Return the artifacts of a project."""
        self._catch_up()
        return list(self._catalog.artifacts(self._project(project)))

    def collections(self, project: str | None = None) -> list[OwnerInfo]:
        """Return the collections of a project."""
        self._catch_up()
        return list(self._catalog.collections(self._project(project)))

    def get(self, ref: str) -> VersionInfo:
        """Return the version that a reference resolves to.

        Raises:
            NotFoundError: there is none.
        """
        self._catch_up()
        return self._catalog.version(self._locate(ref))

    def owner(self, name: str) -> OwnerInfo:
        """Return an artifact or collection.

        Raises:
            NotFoundError: there is none of that name.
        """
        self._catch_up()
        return self._catalog.owner(self._locate(name))

    def versions(self, name: str) -> Iterator[VersionInfo]:
        """Yield what an artifact or collection has, newest first.

        Raises:
            NotFoundError: there is none of that name.
        """
        self._catch_up()
        return self._catalog.versions(self._locate(name))

    def history(self, ref: str) -> Iterator[HistoryLine]:
        """Yield what happened to an alias, a version, an artifact or a collection, newest first.

        Raises:
            NotFoundError: there is no such thing.
        """
        self._catch_up()
        return history(self.store.log, self.store.index, self._locate(ref))

    def diff(self, a: str, b: str) -> "Diff":
        """Compare the files of two versions."""
        from mregfs.registry.diff import diff

        return diff(self.store.content, self._content_of(a), self._content_of(b))

    def usage(self, target: str | None = None) -> "Usage":
        """Return the space of a version, of an artifact or collection, or of the whole store."""
        from mregfs.registry.usage import select, usage, usage_of_all

        self._catch_up()
        index, content = self.store.index, self.store.content
        if target is None:
            return usage_of_all(index, content)
        return usage(index, content, select(index, self._locate(target)))

    def status(self) -> dict[str, Any]:
        """Return figures of the store."""
        self._catch_up()
        return self.store.facts() | self._catalog.figures()

    def path(self, ref: str, mountpoint: str | None = None) -> str:
        """Return the path of a version's own directory below a mount.

        Without `mountpoint`: relative to the top of a mount of this project.

        Raises:
            NotFoundError: there is no such version.
        """
        info = self.get(ref)
        path = f"artifacts/{info.artifact}/{info.version}"
        if info.project != str(self.project):
            path = f"projects/{info.project}/{path}"
        return path if mountpoint is None else os.path.join(mountpoint, path)

    # ---- reading

    def files(self, ref: str, path: str = "") -> Iterator[FileInfo]:
        """Yield the files, directories and symlinks of a version, at and below a path.

        Raises:
            NotFoundError: there is no such version or path.
        """
        return files_of(self.store.content, self._content_of(ref), path)

    def open(self, ref: str, path: str) -> BinaryIO:
        """Open a file of a version; the bytes that it gives are verified.

        Raises:
            NotFoundError: there is no such version or file.
        """
        return open_file(self.store.content, self._content_of(ref), path)

    def read(self, ref: str, path: str) -> bytes:
        """Return all bytes of a file of a version."""
        with self.open(ref, path) as file:
            return file.read()

    def export(
        self, ref: str, destination: str, *, progress: "CommitProgress | None" = None
    ) -> None:
        """Copy a version's files into a directory that does not exist yet, or is empty.

        Raises:
            ExistsError: there is something.
        """
        version = self._content_of(ref)
        done = 0

        def report(count: int) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress("export", done, version.size)

        export_version(self.store.content, version, destination, report)

    # ---- following

    def events(self, since: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield each log entry after `since` (by default from now on); waits for the next one."""
        done = self._catch_up() if since is None else since
        while True:
            for entry in self.store.log.entries(done):
                done = entry.sequence
                yield msgspec.json.decode(event_line(entry))
            time.sleep(POLL_SECONDS)

    def wait(
        self, ref: str, *, changed_from: str | None = None, timeout: float | None = None
    ) -> VersionInfo:
        """Wait until a reference resolves to something else than `changed_from`, and return it.

        Args:
            ref: what is waited for.
            changed_from: `vN`, a digest or a reference; None: until it resolves to anything.
            timeout: seconds.

        Raises:
            UnavailableError: the time is over.
        """
        location = self._locate(ref)
        unwanted = changed_from
        if changed_from is not None and set(changed_from) & set(":@/"):
            unwanted = self.get(changed_from).digest
        deadline = None if timeout is None else time.monotonic() + timeout
        seen = -1
        while True:
            head = self._catch_up()
            if head != seen:
                seen = head
                try:
                    info = self._catalog.version(location)
                except NotFoundError:
                    pass
                else:
                    if unwanted is None or not _is_meant(unwanted, info):
                        return info
            if deadline is not None and time.monotonic() >= deadline:
                raise UnavailableError(
                    f"{ref!r} did not change within {timeout:g} seconds", "wait again"
                )
            time.sleep(POLL_SECONDS)


def _is_meant(text: str, info: VersionInfo) -> bool:
    return text == info.number or (len(text) >= 4 and info.digest.startswith(text))
