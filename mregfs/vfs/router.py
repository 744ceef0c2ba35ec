"""The file system: each request of the kernel goes to the tree whose inode or handle it is about.

Decided here: nothing but that. A request about two trees goes to `crossing`.
"""

from collections.abc import Callable, Iterator

from mregfs.vfs.answers import Answer
from mregfs.vfs.crossing import Crossing
from mregfs.vfs.interface import (
    Attributes,
    Caller,
    ChangedAttributes,
    DraftTree,
    FileSystemFigures,
    FileTree,
    OpenFile,
    OpenFlags,
    RenameMode,
)
from mregfs.vfs.numbers import Space, spaces_by_inode

__all__ = ["Router"]

_SPACES = len(Space) - 1


class Router:
    """All trees of one mount. `refused` counts why passthrough was refused for files."""

    def __init__(
        self,
        registry: FileTree,
        special: FileTree,
        pending: FileTree,
        drafts: DraftTree,
        crossing: Crossing,
        refused: dict[str, int],
    ) -> None:
        self._drafts = drafts
        self._crossing = crossing
        self._handles: tuple[FileTree, ...] = (registry, special, pending, drafts)
        """By the space of a handle: its lowest bits."""
        spaces, self._shift = spaces_by_inode()
        self._inodes = tuple(self._handles[space] for space in spaces)
        """By the highest bits of an inode number."""
        self._refused = refused

    def backing_refused(self, handle: int, reason: str) -> None:
        """Count it, for `status`."""
        self._refused[reason] = self._refused.get(reason, 0) + 1

    # ---- by inode

    def _tree(self, inode: int) -> FileTree:
        return self._inodes[inode >> self._shift]

    def lookup(self, parent: int, name: bytes) -> Answer[Attributes]:
        """Find a name."""
        return self._inodes[parent >> self._shift].lookup(parent, name)

    def forget(self, inode: int, count: int) -> None:
        """Take back references."""
        self._inodes[inode >> self._shift].forget(inode, count)

    def getattr(self, inode: int) -> Attributes:
        """Answer stat(2)."""
        return self._inodes[inode >> self._shift].getattr(inode)

    def setattr(
        self, inode: int, changed: ChangedAttributes, handle: int | None, caller: Caller
    ) -> Attributes:
        """Change attributes."""
        return self._tree(inode).setattr(inode, changed, handle, caller)

    def readlink(self, inode: int) -> bytes:
        """Return where a symlink points."""
        return self._inodes[inode >> self._shift].readlink(inode)

    def mknod(self, parent: int, name: bytes, mode: int, rdev: int, caller: Caller) -> Attributes:
        """Make a file of any kind."""
        return self._tree(parent).mknod(parent, name, mode, rdev, caller)

    def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller) -> Answer[Attributes]:
        """Make a directory."""
        return self._tree(parent).mkdir(parent, name, mode, caller)

    def symlink(
        self, parent: int, name: bytes, target: bytes, caller: Caller
    ) -> Answer[Attributes]:
        """Make a symlink."""
        return self._tree(parent).symlink(parent, name, target, caller)

    def unlink(self, parent: int, name: bytes, caller: Caller) -> Answer[None]:
        """Remove a name."""
        return self._tree(parent).unlink(parent, name, caller)

    def rmdir(self, parent: int, name: bytes, caller: Caller) -> Answer[None]:
        """Remove a directory."""
        return self._tree(parent).rmdir(parent, name, caller)

    def create(
        self, parent: int, name: bytes, mode: int, flags: OpenFlags, caller: Caller
    ) -> tuple[OpenFile, Attributes]:
        """Make a file and open it."""
        return self._tree(parent).create(parent, name, mode, flags, caller)

    def open(self, inode: int, flags: OpenFlags, caller: Caller) -> Answer[OpenFile]:
        """Open a file."""
        return self._inodes[inode >> self._shift].open(inode, flags, caller)

    def opendir(self, inode: int, caller: Caller) -> Answer[int]:
        """Open a directory."""
        return self._inodes[inode >> self._shift].opendir(inode, caller)

    def setxattr(self, inode: int, name: bytes, value: bytes, caller: Caller) -> None:
        """Set an extended attribute."""
        self._tree(inode).setxattr(inode, name, value, caller)

    def getxattr(self, inode: int, name: bytes, caller: Caller) -> Answer[bytes]:
        """Return an extended attribute."""
        return self._inodes[inode >> self._shift].getxattr(inode, name, caller)

    def listxattr(self, inode: int, caller: Caller) -> Answer[list[bytes]]:
        """Return the names of the extended attributes."""
        return self._tree(inode).listxattr(inode, caller)

    def removexattr(self, inode: int, name: bytes, caller: Caller) -> None:
        """Remove an extended attribute."""
        self._tree(inode).removexattr(inode, name, caller)

    # ---- by two inodes

    def rename(
        self,
        parent: int,
        name: bytes,
        new_parent: int,
        new_name: bytes,
        mode: RenameMode,
        caller: Caller,
    ) -> Answer[None]:
        """Move a name, within a tree or from one to another."""
        tree = self._tree(parent)
        if tree is self._tree(new_parent):
            return tree.rename(parent, name, new_parent, new_name, mode, caller)
        return self._crossing.rename(parent, name, new_parent, new_name, mode, caller)

    def link(self, inode: int, parent: int, name: bytes, caller: Caller) -> Attributes:
        """Make a hard link."""
        tree = self._tree(parent)
        if tree is self._tree(inode):
            return tree.link(inode, parent, name, caller)
        raise self._crossing.refuse_link(parent)

    # ---- by handle

    def read(self, handle: int, offset: int, size: int) -> Answer[bytes]:
        """Read."""
        return self._handles[handle & _SPACES].read(handle, offset, size)

    def write(
        self, handle: int, offset: int, data: bytes, caller: Caller | None = None
    ) -> Answer[int]:
        """Write. A write to `control` is a transaction."""
        return self._handles[handle & _SPACES].write(handle, offset, data, caller)

    def flush(self, handle: int) -> None:
        """Note that a descriptor was closed."""
        self._handles[handle & _SPACES].flush(handle)

    def fsync(self, handle: int, *, data_only: bool) -> Answer[None]:
        """Make a file durable."""
        return self._handles[handle & _SPACES].fsync(handle, data_only=data_only)

    def release(self, handle: int) -> None:
        """Close a file."""
        self._handles[handle & _SPACES].release(handle)

    def poll(self, handle: int, wake: Callable[[], None] | None) -> int:
        """Return the ready poll(2) events."""
        return self._handles[handle & _SPACES].poll(handle, wake)

    def readdir(self, handle: int, start: int) -> Iterator[tuple[bytes, Attributes, int]]:
        """List an open directory from a position."""
        return self._handles[handle & _SPACES].readdir(handle, start)

    def releasedir(self, handle: int) -> None:
        """Close a directory."""
        self._handles[handle & _SPACES].releasedir(handle)

    def fsyncdir(self, handle: int) -> Answer[None]:
        """Make a directory durable."""
        return self._handles[handle & _SPACES].fsyncdir(handle)

    # ---- of all of it

    def statfs(self) -> FileSystemFigures:
        """Return the figures of the file system that the store is on."""
        return self._drafts.statfs()
