"""The registry as a tree of inodes: what a number stands for, and the names below it.

Decided here: the shape of the mount (artifacts, collections, projects). Not decided here: what stat
tells of a node (`appearance`), what a change does (`operations`), what is in the other trees
(`attached`), bytes of files (`content`). Each call reads one view of the index and holds none.

Inode numbers of everything in the log are allocated by `model.rules` and live in the index.
"""

from collections.abc import Iterator

from mregfs.model import paths
from mregfs.model.names import ProjectName, parse_number
from mregfs.model.records import ArtifactRecord, OwnerRecord, VersionRecord
from mregfs.model.state import State
from mregfs.registry.read.content import Content, FileEntry
from mregfs.vfs.appearance import Appearance, Node, NodeKind
from mregfs.vfs.modes import Modes
from mregfs.vfs.numbers import (
    ARTIFACTS,
    COLLECTIONS,
    FIRST_FREE,
    OWN_ENTITY,
    PROJECTS,
    ROOT,
    SELF,
)
from mregfs.vfs.unchanging import stale

__all__ = ["Tree"]

_FIXED = {
    ROOT: NodeKind.ROOT,
    ARTIFACTS: NodeKind.ARTIFACTS,
    COLLECTIONS: NodeKind.COLLECTIONS,
    PROJECTS: NodeKind.PROJECTS,
    SELF: NodeKind.SELF,
    OWN_ENTITY: NodeKind.ENTITY,
}
_ROOT_NAMES = {
    paths.ARTIFACTS: ARTIFACTS,
    paths.COLLECTIONS: COLLECTIONS,
    paths.PROJECTS: PROJECTS,
}
_PROJECT_NAMES = {paths.ARTIFACTS: 1, paths.COLLECTIONS: 2}
_MAX_CACHED = 1 << 16


class Tree(Appearance):
    """The read side of one mount of one project."""

    def __init__(self, project: ProjectName, content: Content, modes: Modes) -> None:
        super().__init__(project, modes)
        self._entity = project.entity
        self._project_name = project.project
        self._content = content
        self._versions: dict[int, Node] = {}

    # ---- numbers to nodes

    def node(self, state: State, inode: int) -> Node:
        """Return what an inode number stands for; see `Node.is_known`.

        Raises:
            HostError: ESTALE, it stands for nothing (any more).
        """
        if inode < FIRST_FREE:
            kind = _FIXED.get(inode)
            if kind is None:
                raise stale(inode)
            project = self._entity if kind is NodeKind.ENTITY else self.project
            return Node(kind, inode, project)
        cached = self._versions.get(inode)
        if cached is not None:
            return cached
        found = state.inode_at_or_below(inode)
        if found is None:
            raise stale(inode)
        base, record = found
        offset = inode - base
        if record.kind == "version":
            version = state.version(record.parent, record.number)
            if version is not None and offset <= version.entries:
                return self._version_node(version, offset)
        elif record.kind == "project":
            entity = state.inode(record.parent)
            if entity is not None and offset in (0, 1, 2):
                kind = (NodeKind.PROJECT, NodeKind.ARTIFACTS, NodeKind.COLLECTIONS)[offset]
                return Node(kind, inode, f"{entity.name}/{record.name}")
        elif offset == 0:
            if record.kind == "entity":
                return Node(NodeKind.ENTITY, inode, record.name)
            node = self._owned_node(state, inode, record.kind, record.parent, record)
            if node is not None:
                return node
        raise stale(inode)

    def _owned_node(
        self, state: State, inode: int, kind: str, parent: int, record: object
    ) -> Node | None:
        if kind in ("artifact", "collection"):
            owner = state.owner_by_inode(inode)
            return None if owner is None else Node(NodeKind.OWNER, inode, owner.project, owner)
        owner = state.owner_by_inode(parent)
        if owner is None:
            return None
        if kind == "link":
            link = state.link(parent, getattr(record, "number", 0))
            return (
                None
                if link is None
                else Node(NodeKind.LINK, inode, owner.project, owner, link=link)
            )
        if kind == "alias":
            alias = state.alias(parent, getattr(record, "name", ""))
            if alias is not None and alias.inode == inode:
                return Node(NodeKind.ALIAS, inode, owner.project, owner, alias=alias)
        return None

    def _version_node(self, version: VersionRecord, position: int) -> Node:
        if not position:
            return self._remember(version, 0, None)
        entry = self._content.entry(version, position)
        if entry is None and self._content.ready(version):
            entry = self._content.entry(version, position)  # it was loaded between the two looks
            if entry is None:
                raise stale(version.inode + position)
        if entry is None:
            return Node(
                NodeKind.VERSION, version.inode + position, version=version, position=position
            )
        return self._remember(version, position, entry)

    def _remember(self, version: VersionRecord, position: int, entry: FileEntry | None) -> Node:
        node = Node(
            NodeKind.VERSION,
            version.inode + position,
            version=version,
            position=position,
            entry=entry,
        )
        if len(self._versions) >= _MAX_CACHED:
            self._versions.clear()
        self._versions[node.inode] = node
        return node

    def forget_versions(self) -> None:
        """Drop what is remembered of versions: one was deleted, or its record changed."""
        self._versions.clear()

    # ---- names

    def lookup(self, state: State, parent: Node, name: str) -> Node | None:
        """Return the node called `name` below `parent`, or None. Drafts are not found here."""
        kind = parent.kind
        if kind is NodeKind.VERSION:
            assert parent.version is not None
            entry = self._content.find(parent.version, parent.position, name)
            return None if entry is None else self._remember(parent.version, entry.position, entry)
        if kind is NodeKind.OWNER:
            assert parent.owner is not None
            return self._lookup_owned(state, parent.owner, name)
        if kind is NodeKind.ARTIFACTS or kind is NodeKind.COLLECTIONS:
            wanted = "artifact" if kind is NodeKind.ARTIFACTS else "collection"
            owner = state.owner(parent.project, name, wanted)
            return (
                None if owner is None else Node(NodeKind.OWNER, owner.inode, owner.project, owner)
            )
        if kind is NodeKind.ROOT and name in _ROOT_NAMES:
            return self.node(state, _ROOT_NAMES[name])
        if kind is NodeKind.PROJECT and name in _PROJECT_NAMES:
            return self.node(state, parent.inode + _PROJECT_NAMES[name])
        if kind is NodeKind.PROJECTS:
            return self._entity_node(state, name)
        if kind is NodeKind.ENTITY:
            return self._project_node(state, parent.project, name)
        return None

    def _lookup_owned(self, state: State, owner: OwnerRecord, name: str) -> Node | None:
        number = parse_number(name)
        if number is None:
            alias = state.alias(owner.inode, name)
            return (
                None
                if alias is None
                else Node(NodeKind.ALIAS, alias.inode, owner.project, owner, alias=alias)
            )
        if isinstance(owner, ArtifactRecord):
            version = state.version(owner.inode, number)
            return None if version is None else self._remember(version, 0, None)
        link = state.link(owner.inode, number)
        return (
            None
            if link is None
            else Node(NodeKind.LINK, link.inode, owner.project, owner, link=link)
        )

    def _entity_node(self, state: State, name: str) -> Node | None:
        if name == self._entity:
            return Node(NodeKind.ENTITY, OWN_ENTITY, name)
        entity = state.entity(name)
        return None if entity is None else Node(NodeKind.ENTITY, entity.inode, name)

    def _project_node(self, state: State, entity: str, name: str) -> Node | None:
        if f"{entity}/{name}" == self.project:
            return Node(NodeKind.SELF, SELF, self.project)
        project = state.project(f"{entity}/{name}")
        return (
            None if project is None else Node(NodeKind.PROJECT, project.inode, f"{entity}/{name}")
        )

    # ---- listing

    def children(self, state: State, parent: Node, after: str) -> Iterator[tuple[str, Node]]:
        """Yield (name, node) of a directory whose entries go by name, from the first one > `after`.

        For all directories but those of versions, artifacts and collections.
        """
        start = after + "\0" if after else ""
        kind = parent.kind
        if kind is NodeKind.ROOT:
            for name in sorted(_ROOT_NAMES):
                if name > after:
                    yield name, self.node(state, _ROOT_NAMES[name])
        elif kind is NodeKind.PROJECT:
            for name, offset in _PROJECT_NAMES.items():
                if name > after:
                    yield name, self.node(state, parent.inode + offset)
        elif kind is NodeKind.ARTIFACTS or kind is NodeKind.COLLECTIONS:
            owners: Iterator[OwnerRecord] = (
                state.artifacts(parent.project, start)
                if kind is NodeKind.ARTIFACTS
                else state.collections(parent.project, start)
            )
            for owner in owners:
                yield owner.name, Node(NodeKind.OWNER, owner.inode, owner.project, owner)
        elif kind is NodeKind.PROJECTS:
            own_pending = self._entity > after
            for entity in state.entities(start):
                if own_pending and entity.name >= self._entity:
                    own_pending = False
                    yield self._entity, Node(NodeKind.ENTITY, OWN_ENTITY, self._entity)
                if entity.name != self._entity:
                    yield entity.name, Node(NodeKind.ENTITY, entity.inode, entity.name)
            if own_pending:
                yield self._entity, Node(NodeKind.ENTITY, OWN_ENTITY, self._entity)
        elif kind is NodeKind.ENTITY:
            yield from self._projects(state, parent.project, after, start)

    def _projects(
        self, state: State, entity: str, after: str, start: str
    ) -> Iterator[tuple[str, Node]]:
        own_pending = entity == self._entity and self._project_name > after
        own = Node(NodeKind.SELF, SELF, self.project)
        for project in state.projects(entity, start):
            if own_pending and project.name >= self._project_name:
                own_pending = False
                yield self._project_name, own
            full = f"{entity}/{project.name}"
            if full != self.project:
                yield project.name, Node(NodeKind.PROJECT, project.inode, full)
        if own_pending:
            yield self._project_name, own

    def numbered(self, state: State, owner: OwnerRecord, start: int) -> Iterator[tuple[int, Node]]:
        """Yield (number, node) of an owner's versions or links, from number `start` up."""
        if isinstance(owner, ArtifactRecord):
            for version in state.versions(owner.inode, start):
                node = Node(NodeKind.VERSION, version.inode, owner.project, version=version)
                yield version.number, node
        else:
            for link in state.links(owner.inode, start):
                yield link.number, Node(NodeKind.LINK, link.inode, owner.project, owner, link=link)

    def aliases(self, state: State, owner: OwnerRecord) -> list[tuple[str, Node]]:
        """Return (name, node) of an owner's aliases, sorted by name."""
        return [
            (alias.name, Node(NodeKind.ALIAS, alias.inode, owner.project, owner, alias=alias))
            for alias in state.aliases(owner.inode)
        ]

    def contents(self, node: Node, after: int) -> Iterator[Node]:
        """Yield what is in a directory of a version, from the first position > `after`.

        Loads the content when the index has lost it since the directory was opened.
        """
        assert node.version is not None
        start = ""
        if after:
            self._content.ensure(node.version)
            last = self._content.entry(node.version, after)
            if last is None:
                raise stale(node.inode)
            start = last.name + "\0"
        for entry in self._content.children(node.version, node.position, start):
            yield self._remember(node.version, entry.position, entry)
