"""What a Python program can see: versions, files, history, figures, and what happens next.

Decided here: how Python asks. Not decided here: the answers, which a `Way` gives.
"""

import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from mregfs.api.connection import Connection
from mregfs.errors import NotFoundError, UnavailableError
from mregfs.model import paths
from mregfs.registry.read.results import Diff, FileInfo, HistoryLine, OwnerInfo, Usage, VersionInfo

if TYPE_CHECKING:
    from mregfs.registry.write.progress import CommitProgress

__all__ = ["Looking"]


class Looking(Connection):
    """Methods of `Registry` that change nothing."""

    # ---- looking

    def head(self) -> int:
        """Return the number of the newest log entry."""
        return self._way.head()

    @property
    def store_id(self) -> str:
        """What tells one store from another, wherever it is."""
        return str(self.store.id if self._store else self.status().get("id"))

    def projects(self) -> list[str]:
        """Return all projects, as `entity/project`."""
        return self._way.projects()

    def artifacts(self, project: str | None = None) -> list[OwnerInfo]:
        """Return the artifacts of a project."""
        return self._way.owners(self._project(project), "artifact")

    def collections(self, project: str | None = None) -> list[OwnerInfo]:
        """Return the collections of a project."""
        return self._way.owners(self._project(project), "collection")

    def get(self, ref: str) -> VersionInfo:
        """Return the version that a reference resolves to.

        Raises:
            NotFoundError: there is none.
        """
        return self._way.version(self._locate(ref))

    def owner(self, name: str) -> OwnerInfo:
        """Return an artifact or collection.

        Raises:
            NotFoundError: there is none of that name.
        """
        return self._way.owner(self._locate(name))

    def versions(self, name: str) -> Iterator[VersionInfo]:
        """Yield what an artifact or collection has, newest first.

        Raises:
            NotFoundError: there is none of that name.
        """
        return self._way.versions(self._locate(name))

    def history(self, ref: str) -> Iterator[HistoryLine]:
        """Yield what happened to an alias, a version, an artifact or a collection, newest first.

        Raises:
            NotFoundError: there is no such thing.
        """
        return self._way.history(self._locate(ref))

    def diff(self, a: str, b: str) -> Diff:
        """Compare the files of two versions."""
        return self._way.diff(self._locate(a), self._locate(b))

    def usage(self, target: str | None = None) -> Usage:
        """Return the space of a version, of an artifact or collection, or of the whole store."""
        return self._way.usage(None if target is None else self._locate(target))

    def access(self, project: str | None = None) -> dict[str, Any]:
        """Return who may read and change a project, or the store (None).

        Raises:
            ForbiddenError: you may not read that project.
        """
        return self._way.access(None if project is None else self._project(project))

    def status(self) -> dict[str, Any]:
        """Return figures of the store."""
        return self._way.status()

    def path(self, ref: str, mountpoint: str | None = None) -> str:
        """Return the path of a version's own directory below a mount.

        Without `mountpoint`: relative to the top of a mount of this project.

        Raises:
            NotFoundError: there is no such version.
        """
        info = self.get(ref)
        path = paths.join(
            paths.ARTIFACTS, info.artifact, info.version, project=info.project, own=self.project
        )
        return path if mountpoint is None else os.path.join(mountpoint, path)

    # ---- reading

    def files(self, ref: str, path: str = "") -> Iterator[FileInfo]:
        """Yield the files, directories and symlinks of a version, at and below a path.

        Raises:
            NotFoundError: there is no such version or path.
        """
        return self._way.files(self._locate(ref), path)

    def open(self, ref: str, path: str) -> BinaryIO:
        """Open a file of a version; the bytes that it gives are verified, by store or mount.

        Raises:
            NotFoundError: there is no such version or file.
        """
        return self._way.open(self._locate(ref), path)

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

        def report(done: int, total: int) -> None:
            if progress is not None:
                progress("export", done, total)

        self._way.export(self._locate(ref), destination, report)

    # ---- following

    def log(self, since: int = 0) -> Iterator[dict[str, Any]]:
        """Yield the log entries after `since` that there are now, as `events` does."""
        return self._way.entries(since)

    def events(self, since: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield each log entry after `since` (by default from now on); waits for the next one."""
        done = self._way.head() if since is None else since
        while True:
            for event in self._way.entries(done):
                done = event["sequence"]
                yield event
            self._way.pause()

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
            head = self._way.head()
            if head != seen:
                seen = head
                try:
                    info = self._way.version(location)
                except NotFoundError:
                    pass
                else:
                    if unwanted is None or not _is_meant(unwanted, info):
                        return info
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise UnavailableError(
                    f"{ref!r} did not change within {timeout:g} seconds", "wait again"
                )
            self._way.pause(left)


def _is_meant(text: str, info: VersionInfo) -> bool:
    return text == info.number or (len(text) >= 4 and info.digest.startswith(text))
