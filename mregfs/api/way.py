"""A way to look at a registry: what `Registry` needs to show what there is.

Decided here: what every way can do. Not decided here: how. There are two: the store itself
(`in_store`), and a mount of it (`in_mount`), for those who may not open the store or do not see it.
Both give the same types.
"""

from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Protocol

from mregfs.model.names import ProjectName
from mregfs.model.reference import Location
from mregfs.registry.read.results import Diff, FileInfo, HistoryLine, OwnerInfo, Usage, VersionInfo

__all__ = ["Way"]


class Way(Protocol):
    """Looks at a registry. Each call sees what is there when it is made.

    What yields has looked for its first item before it returns: what does not exist is told then.
    """

    def head(self) -> int:
        """Return the number of the newest log entry."""
        ...

    def projects(self) -> list[str]:
        """Return all projects, as `entity/project`."""
        ...

    def owners(self, project: ProjectName, kind: str) -> list[OwnerInfo]:
        """Return the artifacts, or the collections, of a project, by name."""
        ...

    def owner(self, location: Location) -> OwnerInfo:
        """Return an artifact or collection.

        Raises:
            NotFoundError: there is none.
        """
        ...

    def version(self, location: Location) -> VersionInfo:
        """Return what a reference resolves to.

        Raises:
            NotFoundError: nothing.
        """
        ...

    def versions(self, location: Location) -> Iterator[VersionInfo]:
        """Yield what an artifact or collection has, newest first.

        Raises:
            NotFoundError: there is none of that name.
        """
        ...

    def history(self, location: Location) -> Iterator[HistoryLine]:
        """Yield what happened, newest first.

        Raises:
            NotFoundError: there is no such thing.
        """
        ...

    def diff(self, a: Location, b: Location) -> Diff:
        """Compare the files of two versions, and the tensors in them."""
        ...

    def usage(self, location: Location | None) -> Usage:
        """Return the space that versions take."""
        ...

    def access(self, project: ProjectName | None) -> dict[str, Any]:
        """Return who may read and change a project, or the store (None)."""
        ...

    def status(self) -> dict[str, Any]:
        """Return figures of the store."""
        ...

    def files(self, location: Location, path: str) -> Iterator[FileInfo]:
        """Yield what is at and below a path of a version."""
        ...

    def open(self, location: Location, path: str) -> BinaryIO:
        """Open a file of a version."""
        ...

    def export(
        self, location: Location, destination: str, progress: Callable[[int, int], None]
    ) -> None:
        """Copy a version's files into a new directory; tell of bytes done and of all bytes."""
        ...

    def entries(self, since: int) -> Iterator[dict[str, Any]]:
        """Yield the log entries after `since` that there are now, as events."""
        ...

    def pause(self, most: float | None = None) -> None:
        """Wait until something may have happened, but no longer than `most` seconds."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...
