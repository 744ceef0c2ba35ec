"""Looking at a registry in its store, by the index of this host.

Decided here: nothing; each method is a line or two over a use case.
"""

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from mregfs.api.reading import export_version, open_file
from mregfs.model.changes import event_of
from mregfs.model.names import ProjectName
from mregfs.model.records import VersionRecord
from mregfs.model.reference import Location
from mregfs.model.state import State
from mregfs.registry.read.catalog import Catalog
from mregfs.registry.read.files import files_of
from mregfs.registry.read.history import history
from mregfs.registry.read.results import Diff, FileInfo, HistoryLine, OwnerInfo, Usage, VersionInfo

if TYPE_CHECKING:
    from mregfs.wiring.store import Store

__all__ = ["InStore"]

POLL_SECONDS = 0.1
"""How often who waits looks for the next log entry: one stat each time."""


class InStore:
    """A `Way` by an open store."""

    def __init__(self, store: "Store") -> None:
        self._store = store
        self._catalog = Catalog(store.index)

    def head(self) -> int:
        """See `Way`."""
        return self._store.log.catch_up()

    def projects(self) -> list[str]:
        """See `Way`."""
        self.head()
        return [str(project) for project in self._catalog.projects()]

    def owners(self, project: ProjectName, kind: str) -> list[OwnerInfo]:
        """See `Way`."""
        self.head()
        if kind == "artifact":
            return list(self._catalog.artifacts(project))
        return list(self._catalog.collections(project))

    def owner(self, location: Location) -> OwnerInfo:
        """See `Way`."""
        self.head()
        return self._catalog.owner(location)

    def version(self, location: Location) -> VersionInfo:
        """See `Way`."""
        self.head()
        return self._catalog.version(location)

    def versions(self, location: Location) -> Iterator[VersionInfo]:
        """See `Way`."""
        self.head()
        return self._catalog.versions(location)

    def history(self, location: Location) -> Iterator[HistoryLine]:
        """See `Way`."""
        self.head()
        return history(self._store.log, self._store.index, location)

    def diff(self, a: Location, b: Location) -> Diff:
        """See `Way`."""
        from mregfs.registry.read.diff import diff

        return diff(self._store.content, self._loaded(a), self._loaded(b))

    def usage(self, location: Location | None) -> Usage:
        """See `Way`."""
        from mregfs.registry.read.usage import select, usage, usage_of_all

        self.head()
        index, content = self._store.index, self._store.content
        if location is None:
            return usage_of_all(index, content)
        return usage(index, content, select(index, location))

    def access(self, project: ProjectName | None) -> dict[str, Any]:
        """See `Way`."""
        from mregfs.model.rules.access import told_access

        self.head()
        with self._store.index.read() as view:
            return told_access(State(view), "" if project is None else str(project))

    def status(self) -> dict[str, Any]:
        """See `Way`."""
        self.head()
        return self._store.facts() | self._catalog.figures()

    def files(self, location: Location, path: str) -> Iterator[FileInfo]:
        """See `Way`."""
        return files_of(self._store.content, self._loaded(location), path)

    def open(self, location: Location, path: str) -> BinaryIO:
        """See `Way`."""
        return open_file(self._store.content, self._loaded(location), path)

    def export(
        self, location: Location, destination: str, progress: Callable[[int, int], None]
    ) -> None:
        """See `Way`."""
        version = self._loaded(location)
        done = 0

        def report(count: int) -> None:
            nonlocal done
            done += count
            progress(done, version.size)

        export_version(self._store.content, version, destination, report)

    def entries(self, since: int) -> Iterator[dict[str, Any]]:
        """See `Way`."""
        return map(event_of, self._store.log.entries(since))

    def pause(self, most: float | None = None) -> None:
        """See `Way`."""
        time.sleep(POLL_SECONDS if most is None else min(most, POLL_SECONDS))

    def close(self) -> None:
        """See `Way`."""
        self._store.close()

    def _loaded(self, location: Location) -> VersionRecord:
        self.head()
        version = self._catalog.resolve(location).version
        self._store.content.ensure(version)
        return version
