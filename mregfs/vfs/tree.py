"""The registry as a tree of inodes: what a number stands for, names below it, what stat tells.

Decided here: the shape of the mount (artifacts, collections, projects), symlink targets, modes, how
long the kernel may remember what. Not decided here: what a change does (`operations`), what is in
the other trees (`attached`), bytes of files (`content`). Each call reads one view of the index and
holds none.

Inode numbers of everything in the log are allocated by `model.rules` and live in the index.
"""

from collections.abc import Iterator
from enum import Enum, auto
from stat import S_IFDIR, S_IFLNK, S_IFREG

import msgspec

from mregfs.errors import NotFoundError
from mregfs.model import paths
from mregfs.model.names import ProjectName, parse_number
from mregfs.model.records import (
    AliasRecord,
    ArtifactRecord,
    LinkRecord,
    OwnerRecord,
    VersionRecord,
)
from mregfs.model.state import State
from mregfs.registry.read.content import Content, FileEntry
from mregfs.vfs.interface import Attributes
from mregfs.vfs.modes import Modes
from mregfs.vfs.numbers import (
    ARTIFACTS,
    COLLECTIONS,
    CONTROL,
    EVENTS,
    FIRST_FREE,
    META,
    OWN_ENTITY,
    PROJECTS,
    QUERY,
    ROOT,
    SELF,
    STATUS,
)
from mregfs.vfs.unchanging import stale

__all__ = [
    "FOR_EVER",
    "Node",
    "NodeKind",
    "Tree",
]

FOR_EVER = 3.0e8
"""Seconds (about ten years): for what never changes, or is invalidated by name when it does."""


class NodeKind(Enum):
    """What a node of the tree is."""

    ROOT = auto()
    PROJECT = auto()
    """`projects/ENTITY/PROJECT`: the same shape as the root."""
    ARTIFACTS = auto()
    COLLECTIONS = auto()
    PROJECTS = auto()
    ENTITY = auto()
    SELF = auto()
    """The mount's own project below `projects`: a symlink to the root."""
    OWNER = auto()
    """The directory of an artifact or a collection."""
    VERSION = auto()
    """A version's directory, or what is inside of one (`position` > 0)."""
    LINK = auto()
    ALIAS = auto()


class Node(msgspec.Struct, frozen=True):
    """One node of the tree: its kind, its number, and the record behind it."""

    kind: NodeKind
    inode: int
    project: str = ""
    """`entity/project` of what belongs to a project; the entity for ENTITY."""
    owner: OwnerRecord | None = None
    version: VersionRecord | None = None
    position: int = 0
    entry: FileEntry | None = None
    link: LinkRecord | None = None
    alias: AliasRecord | None = None

    @property
    def is_known(self) -> bool:
        """False when this is inside of a version whose content has to be loaded first."""
        return self.entry is not None or not self.position


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


class Tree:
    """The read side of one mount of one project."""

    def __init__(self, project: ProjectName, content: Content, modes: Modes) -> None:
        self.project = str(project)
        self._entity = project.entity
        self._project_name = project.project
        self._content = content
        self.modes = modes
        self._versions: dict[int, Node] = {}
        self.changed_at_ns = 0
        """When the log last grew: the mtime of directories that have no record of their own."""

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

    # ---- what stat and readlink tell

    def readlink(self, state: State, node: Node) -> str:
        """Return where a symlink points: relative, so that a mount works wherever it is bound.

        Raises:
            NotFoundError: it is gone.
        """
        if node.kind is NodeKind.ALIAS:
            assert node.alias is not None
            return f"v{node.alias.number}"
        if node.kind is NodeKind.LINK:
            assert node.link is not None
            artifact = state.artifact_by_inode(node.link.artifact)
            return self._path_between(node.project, artifact, node.link.version)
        if node.kind is NodeKind.SELF:
            return "../.."
        if node.entry is not None and node.entry.kind == "symlink":
            return node.entry.target
        raise NotFoundError("not a symbolic link")

    def _path_between(self, project: str, artifact: ArtifactRecord, number: int) -> str:
        names = (paths.ARTIFACTS, artifact.name, f"v{number}")
        if artifact.project == project:
            return f"../../{paths.join(*names)}"
        here = paths.join(paths.COLLECTIONS, "NAME", project=project, own=self.project)
        up = "../" * len(here.split("/"))
        return f"{up}{paths.join(*names, project=artifact.project, own=self.project)}"

    def path(self, node: Node) -> str:
        """Return the path of an artifact's or collection's directory from the top of the mount."""
        assert node.owner is not None
        home = paths.directory_of(node.owner.kind)
        return paths.join(home, node.owner.name, project=node.project, own=self.project)

    def attributes(self, state: State, node: Node) -> Attributes:
        """Return what stat tells of a node, and how long the kernel may believe it."""
        kind = node.kind
        if kind is NodeKind.VERSION:
            return self._version_attributes(node)
        own = self.modes.directory(self.project if kind is NodeKind.ENTITY else node.project)
        attributes = Attributes(
            node.inode,
            S_IFDIR | (own.mode & 0o777),
            uid=own.uid,
            gid=own.gid,
            entry_timeout=FOR_EVER,
            attr_timeout=FOR_EVER,
        )
        at_ns = self.changed_at_ns
        if kind in (NodeKind.ALIAS, NodeKind.LINK, NodeKind.SELF):
            attributes.mode = S_IFLNK | 0o777
            attributes.size = len(self.readlink(state, node).encode())
            if node.alias is not None:
                at_ns = node.alias.moved_at_ns
                attributes.attr_timeout = 0.0  # its target's length and its mtime move with it
            elif node.link is not None:
                at_ns = node.link.created_at_ns
        elif kind is NodeKind.OWNER:
            assert node.owner is not None
            at_ns = node.owner.changed_at_ns or node.owner.created_at_ns
        elif kind not in (NodeKind.ARTIFACTS, NodeKind.COLLECTIONS):
            attributes.mode = S_IFDIR | (own.mode & 0o555)
        attributes.atime_ns = attributes.mtime_ns = attributes.ctime_ns = at_ns
        return attributes

    def _version_attributes(self, node: Node) -> Attributes:
        own, version, entry = self.modes, node.version, node.entry
        assert version is not None
        at_ns = version.created_at_ns
        # Who may reach it is for the directories above to say: so it never changes.
        mode, size = S_IFDIR | 0o555, 0
        if entry is not None:
            size = entry.size
            if entry.kind == "symlink":
                mode, size = S_IFLNK | 0o777, len(entry.target.encode())
            elif entry.kind == "file":
                mode = S_IFREG | (0o555 if entry.executable else 0o444)
        return Attributes(
            node.inode,
            mode,
            size,
            1,
            own.uid,
            own.gid,
            0,
            (size + 511) >> 9,
            at_ns,
            at_ns,
            at_ns,
            0,
            FOR_EVER,
            FOR_EVER,
        )

    # ---- where a change shows

    def guarded(self, state: State, project: str) -> Iterator[int]:
        """Yield the inodes that show who may read and change a project; all, if it is empty."""
        if project in ("", self.project):
            yield from (ROOT, ARTIFACTS, COLLECTIONS, PROJECTS, META, EVENTS, STATUS, QUERY)
            yield from (SELF, OWN_ENTITY)
        yield CONTROL
        for record in state.projects():
            name = f"{record.entity}/{record.name}"
            if project in ("", name):
                yield from (record.inode, record.inode + 1, record.inode + 2)
                yield from (owner.inode for owner in state.artifacts(name))
                yield from (owner.inode for owner in state.collections(name))

    def owner_directory(self, state: State, project: str, kind: str) -> int | None:
        """Return the inode of the `artifacts` or `collections` directory of a project."""
        if project == self.project:
            return ARTIFACTS if kind == "artifact" else COLLECTIONS
        record = state.project(project)
        return None if record is None else record.inode + (1 if kind == "artifact" else 2)
