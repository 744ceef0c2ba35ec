"""The catalog: what there is, as one tells it to people and programs.

Decided here: what is said of a version, artifact or collection. Not decided here: what a reference
resolves to (`model.state`), how it is printed (`cli`).
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from mregfs.model.bounds import said_of
from mregfs.model.names import ProjectName
from mregfs.model.records import ArtifactRecord, CollectionRecord, OwnerRecord, Parent
from mregfs.model.reference import Location
from mregfs.model.state import Resolved, State
from mregfs.ports.index import Index
from mregfs.registry.read.results import OwnerInfo, VersionInfo

__all__ = ["Catalog", "OwnerInfo", "VersionInfo"]

_BATCH = 100  # records read under one view

_T = TypeVar("_T")


class Catalog:
    """Reads the state of a registry, each answer from one consistent view."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def version(self, location: Location) -> VersionInfo:
        """Return what a reference resolves to.

        Raises:
            NotFoundError: nothing.
            InvalidError: a digest prefix fits several.
        """
        with self._index.read() as view:
            state = State(view)
            return _version(state, state.resolve(location))

    def resolve(self, location: Location) -> Resolved:
        """Return the records behind a reference.

        Raises:
            NotFoundError: nothing.
            InvalidError: a digest prefix fits several.
        """
        with self._index.read() as view:
            return State(view).resolve(location)

    def owner(self, location: Location) -> OwnerInfo:
        """Return the artifact or collection that a reference names.

        Raises:
            NotFoundError: there is none of that name.
        """
        with self._index.read() as view:
            state = State(view)
            return _owner(state, state.find_owner(location))

    def projects(self) -> list[ProjectName]:
        """Return all projects in which anything was ever made."""
        with self._index.read() as view:
            return [ProjectName(each.entity, each.name) for each in State(view).projects()]

    def figures(self, may_read: Callable[[str], bool] = lambda project: True) -> dict[str, Any]:
        """Return how many of everything there are in the projects that may be read; and who may.

        `readers` and `writers` are those of the store, where no project says otherwise.
        """
        from mregfs.model.rules.access import access_of

        artifacts = collections = versions = 0
        with self._index.read() as view:
            state = State(view)
            access = access_of(state)
            projects = [f"{each.entity}/{each.name}" for each in state.projects()]
            projects = list(filter(may_read, projects))
            for name in projects:
                counts = [artifact.count for artifact in state.artifacts(name)]
                artifacts += len(counts)
                versions += sum(counts)
                collections += sum(1 for _ in state.collections(name))
        return {
            "projects": len(projects),
            "artifacts": artifacts,
            "collections": collections,
            "versions": versions,
            "readers": access.readers,
            "writers": access.writers,
        }

    def artifacts(self, project: ProjectName, after: str = "") -> Iterator[OwnerInfo]:
        """Yield the artifacts of a project, by name, from the first one > `after`."""
        return self._owners(lambda state, start: state.artifacts(project, start), after)

    def collections(self, project: ProjectName, after: str = "") -> Iterator[OwnerInfo]:
        """Yield the collections of a project, by name, from the first one > `after`."""
        return self._owners(lambda state, start: state.collections(project, start), after)

    def versions(self, location: Location, before: int | None = None) -> Iterator[VersionInfo]:
        """Yield what an artifact or collection has, newest first; only numbers < `before`.

        Raises:
            NotFoundError: there is none of that name.
        """
        with self._index.read() as view:
            owner = State(view).find_owner(location)
        return self._versions(owner, -1 if before is None else before)

    def _owners(
        self, list_from: Callable[[State, str], Iterator[OwnerRecord]], after: str
    ) -> Iterator[OwnerInfo]:
        start = f"{after}\0" if after else ""
        while True:
            with self._index.read() as view:
                state = State(view)
                found = [_owner(state, each) for each in _some(list_from(state, start))]
            yield from found
            if len(found) < _BATCH:
                return
            start = found[-1].name + "\0"

    def _versions(self, owner: OwnerRecord, last: int) -> Iterator[VersionInfo]:
        while last != 0:
            with self._index.read() as view:
                state = State(view)
                numbers = [each for each in _some(_numbers(state, owner, last)) if each != last]
                found = [_version(state, state.resolve_number(owner, each)) for each in numbers]
            yield from found
            if not found:
                return
            last = numbers[-1]


def _some(items: Iterator[_T]) -> list[_T]:
    return [item for item, _ in zip(items, range(_BATCH), strict=False)]


def _numbers(state: State, owner: OwnerRecord, start: int) -> Iterator[int]:
    """Yield numbers downwards from `start`, or from the newest when that is negative."""
    start = max(start, 0)
    if isinstance(owner, ArtifactRecord):
        return (each.number for each in state.versions(owner.inode, start, reverse=True))
    return (each.number for each in state.links(owner.inode, start, reverse=True))


def _version(state: State, resolved: Resolved) -> VersionInfo:
    artifact, version, owner, number = resolved
    return VersionInfo(
        project=artifact.project,
        artifact=artifact.name,
        version=f"v{version.number}",
        owner=f"{owner.project}/{owner.name}",
        number=f"v{number}",
        digest=version.digest,
        size=version.size,
        files=version.files,
        created_at_ns=version.created_at_ns,
        author=version.author,
        **said_of(version),
        parents=tuple(_parent(parent) for parent in version.parents),
        aliases=tuple(state.aliases_of(owner.inode, number)),
        links=tuple(_links(state, artifact.inode, version.number)),
        damage=version.damage,
    )


def _parent(parent: Parent) -> str:
    return f"{parent.project}/{parent.artifact}:v{parent.number}"


def _links(state: State, artifact: int, version: int) -> Iterator[str]:
    for inode, number in state.links_to(artifact, version):
        owner = state.owner_by_inode(inode)
        if isinstance(owner, CollectionRecord):
            yield f"{owner.project}/{owner.name}:v{number}"


def _owner(state: State, owner: OwnerRecord) -> OwnerInfo:
    return OwnerInfo(
        kind=owner.kind,
        project=owner.project,
        name=owner.name,
        type=owner.type,
        description=owner.description,
        tags=owner.tags,
        metadata=owner.metadata,
        aliases={each.name: f"v{each.number}" for each in state.aliases(owner.inode)},
        protections={name: each.group for name, each in state.protections(owner.inode)},
        versions=owner.count,
        created_at_ns=owner.created_at_ns,
        changed_at_ns=owner.changed_at_ns,
        author=owner.author,
    )
