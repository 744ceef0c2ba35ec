"""Follows the log: tells the kernel which names changed, and wakes the readers of `events`.

Decided here: which cached names and attributes a log entry makes stale. Not decided here: how
entries are learned of (`registry.log.tail`), how the kernel is told (`KernelNotices`), what an
entry means (`model.rules`). Runs on the event loop.
"""

from collections.abc import Callable, Sequence

from mregfs.model import changes as facts
from mregfs.model.names import LATEST
from mregfs.model.state import State
from mregfs.ports.index import Index
from mregfs.registry.log.tail import LogTail
from mregfs.vfs.interface import KernelNotices
from mregfs.vfs.numbers import PROJECTS
from mregfs.vfs.tree import Tree

__all__ = ["Follower", "changes_names"]


def changes_names(entry: facts.Entry) -> bool:
    """Tell whether an entry did more than move aliases, whose names and inodes stay."""
    return not all(
        isinstance(change, facts.AliasSet) and change.previous is not None
        for request in entry.requests
        for change in request.changes
    )


class Follower:
    """Takes entries from the tail of the log, and tells the kernel of them.

    Each of `on_news` is called after new entries, `on_access` when another may read or change
    something.
    """

    def __init__(
        self,
        tail: LogTail,
        index: Index,
        tree: Tree,
        notices: KernelNotices,
        on_news: Sequence[Callable[[], None]],
        on_access: Callable[[], None] = lambda: None,
    ) -> None:
        self._tail = tail
        self._index = index
        self._tree = tree
        self._notices = notices
        self._on_news = on_news
        self._on_access = on_access
        self._names = _OwnerNames(index)
        self.stale_names = 0
        """How many names the kernel was told to forget: grows when one came or went."""

    def follow(self) -> bool:
        """Tell the kernel about every entry that waits at the tail of the log; True if any."""
        entries = self._tail.waiting()
        for entry in entries:
            self._tree.changed_at_ns = entry.at_ns
            for request in entry.requests:
                for change in request.changes:
                    self._tell(change)
            self._tail.took(entry.sequence)
        if entries:
            for wake in self._on_news:
                wake()
        return bool(entries)

    def _tell(self, change: facts.Change) -> None:
        match change:
            case facts.AliasSet() if change.previous is not None:
                # The name stays, with its inode, and the target is read at each readlink.
                self._owner_changed(change.project, change.name)
            case facts.AliasSet() | facts.AliasDropped():
                self._name_changed(change.project, change.name, change.alias)
            case facts.VersionLogged():
                self._number_changed(change.project, change.artifact, change.number)
            case facts.VersionDeleted():
                self._tree.forget_versions()
                self._number_changed(change.project, change.artifact, change.number)
            case facts.Linked() | facts.Unlinked():
                self._number_changed(change.project, change.collection, change.number)
            case facts.ArtifactCreated():
                self._directory_changed(change.project, "artifact", change.name)
            case facts.CollectionCreated():
                self._directory_changed(change.project, "collection", change.name)
            case facts.CollectionRenamed():
                self._names.forget(change.project, change.name)
                self._directory_changed(change.project, "collection", change.name)
                self._directory_changed(change.project, "collection", change.new_name)
            case facts.OwnerDeleted():
                self._names.forget(change.project, change.name)
                self._directory_changed(change.project, "artifact", change.name)
                self._directory_changed(change.project, "collection", change.name)
            case facts.Tagged() | facts.Described() | facts.MetadataSet() | facts.DamageMarked():
                self._tree.forget_versions()
            case facts.AccessSet():
                self._access_changed(change.project)
            case facts.ProjectCreated():
                self._notices.forget_attributes(PROJECTS)
            case _:
                pass

    def _access_changed(self, project: str) -> None:
        """Let the kernel ask again what it refuses to whom: before that, what it is to be told."""
        self._tree.modes.refresh()
        self._on_access()
        with self._index.read() as view:
            inodes = list(self._tree.guarded(State(view), project))
        self.stale_names += 1  # who has changed it waits until the kernel knows
        for inode in inodes:
            self._notices.forget_attributes(inode)

    def _number_changed(self, project: str, owner: str, number: int) -> None:
        self._name_changed(project, owner, f"v{number}")
        self._name_changed(project, owner, LATEST)

    def _name_changed(self, project: str, owner: str, name: str) -> None:
        inode = self._owner_changed(project, owner)
        if inode is not None:
            self.stale_names += 1
            self._notices.forget_name(inode, name.encode())

    def _owner_changed(self, project: str, owner: str) -> int | None:
        inode = self._names.inode(project, owner)
        if inode is not None:
            self._notices.forget_attributes(inode)
        return inode

    def _directory_changed(self, project: str, kind: str, name: str) -> None:
        with self._index.read() as view:
            parent = self._tree.owner_directory(State(view), project, kind)
        if parent is not None:
            self.stale_names += 1
            self._notices.forget_name(parent, name.encode())
            self._notices.forget_attributes(parent)


class _OwnerNames:
    """Remembers the inodes of owners, which a deletion takes out of the index."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._inodes: dict[tuple[str, str], int] = {}

    def inode(self, project: str, name: str) -> int | None:
        with self._index.read() as view:
            owner = State(view).owner(project, name)
        if owner is not None:
            if len(self._inodes) > 10_000:
                self._inodes.clear()
            self._inodes[project, name] = owner.inode
            return owner.inode
        return self._inodes.get((project, name))

    def forget(self, project: str, name: str) -> None:
        self._inodes.pop((project, name), None)
