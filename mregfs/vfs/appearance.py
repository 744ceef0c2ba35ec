"""What a node of the registry's tree is, and what the kernel is told of it.

Decided here: targets of symlinks, modes and times, how long the kernel may remember what, which
inodes show who may read and change a project. Not decided here: which node a number or a name is
(`tree`), who may do what (`modes`).
"""

from collections.abc import Iterator
from enum import Enum, auto
from stat import S_IFDIR, S_IFLNK, S_IFREG

import msgspec

from mregfs.errors import NotFoundError
from mregfs.model import paths
from mregfs.model.names import ProjectName
from mregfs.model.records import (
    AliasRecord,
    ArtifactRecord,
    LinkRecord,
    OwnerRecord,
    VersionRecord,
)
from mregfs.model.state import State
from mregfs.registry.read.content import FileEntry
from mregfs.vfs.interface import Attributes
from mregfs.vfs.modes import Modes
from mregfs.vfs.numbers import (
    ARTIFACTS,
    COLLECTIONS,
    CONTROL,
    EVENTS,
    META,
    OWN_ENTITY,
    PROJECTS,
    QUERY,
    ROOT,
    SELF,
    STATUS,
)

__all__ = ["FOR_EVER", "Appearance", "Node", "NodeKind"]

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


class Appearance:
    """What one mount of one project shows of nodes."""

    def __init__(self, project: ProjectName, modes: Modes) -> None:
        self.project = str(project)
        self.modes = modes
        self.changed_at_ns = 0
        """When the log last grew: the mtime of directories that have no record of their own."""

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
