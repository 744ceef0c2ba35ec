"""A tree that refuses whatever it does not say otherwise: what most trees answer to most requests.

Decided here: what the answer is to a request that means nothing to a tree. Not decided here: what
trees answer to the others, nor in which words they refuse a change.
"""

import errno
from abc import abstractmethod
from collections.abc import Callable, Iterator

from mregfs.errors import HostError, MregfsError, UnsupportedError
from mregfs.vfs.answers import Answer
from mregfs.vfs.interface import (
    Attributes,
    Caller,
    ChangedAttributes,
    FileSystemFigures,
    FileTree,
    OpenFile,
    OpenFlags,
    RenameMode,
)

__all__ = ["Unchanging", "no_attribute", "stale"]


class Unchanging(FileTree):
    """Refuses what would change something, and has nothing to open, list or follow."""

    def refuse_new(self, parent: int, what: str) -> MregfsError:
        """Return the error of a request to make `what` in a directory; here there are none."""
        return HostError(errno.ENOTDIR, "this is no directory")

    @abstractmethod
    def refuse_change(self, inode: int) -> MregfsError:
        """Return the error of a request to change what a number stands for."""

    def refuse_removal(self, parent: int, name: bytes) -> MregfsError:
        """Return the error of a request to remove or rename a name; here there are none."""
        return HostError(errno.ENOTDIR, "this is no directory")

    # ---- names

    def lookup(self, parent: int, name: bytes) -> Answer[Attributes]:
        """Refuse: there are no directories."""
        raise HostError(errno.ENOTDIR, "this is no directory")

    def forget(self, inode: int, count: int) -> None:
        """Take back references: nobody counts them."""

    def readlink(self, inode: int) -> bytes:
        """Refuse: there are no symbolic links."""
        raise HostError(errno.EINVAL, "not a symbolic link")

    def mknod(self, parent: int, name: bytes, mode: int, rdev: int, caller: Caller) -> Attributes:
        """Refuse."""
        raise self.refuse_new(parent, "a file")

    def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller) -> Answer[Attributes]:
        """Refuse."""
        raise self.refuse_new(parent, "a directory")

    def symlink(
        self, parent: int, name: bytes, target: bytes, caller: Caller
    ) -> Answer[Attributes]:
        """Refuse."""
        raise self.refuse_new(parent, "a symbolic link")

    def link(self, inode: int, parent: int, name: bytes, caller: Caller) -> Attributes:
        """Refuse."""
        raise self.refuse_new(parent, "a file")

    def unlink(self, parent: int, name: bytes, caller: Caller) -> Answer[None]:
        """Refuse."""
        raise self.refuse_removal(parent, name)

    def rmdir(self, parent: int, name: bytes, caller: Caller) -> Answer[None]:
        """Refuse."""
        raise self.refuse_removal(parent, name)

    def rename(
        self,
        parent: int,
        name: bytes,
        new_parent: int,
        new_name: bytes,
        mode: RenameMode,
        caller: Caller,
    ) -> Answer[None]:
        """Refuse."""
        raise self.refuse_removal(parent, name)

    # ---- attributes

    def setattr(
        self, inode: int, changed: ChangedAttributes, handle: int | None, caller: Caller
    ) -> Attributes:
        """Refuse."""
        raise self.refuse_change(inode)

    def setxattr(self, inode: int, name: bytes, value: bytes, caller: Caller) -> None:
        """Refuse."""
        raise self.refuse_change(inode)

    def removexattr(self, inode: int, name: bytes, caller: Caller) -> None:
        """Refuse."""
        raise self.refuse_change(inode)

    def getxattr(self, inode: int, name: bytes, caller: Caller) -> Answer[bytes]:
        """Refuse: there are no extended attributes."""
        raise no_attribute(name)

    def listxattr(self, inode: int, caller: Caller) -> Answer[list[bytes]]:
        """Return that there are no extended attributes."""
        return []

    # ---- what is open

    def create(
        self, parent: int, name: bytes, mode: int, flags: OpenFlags, caller: Caller
    ) -> tuple[OpenFile, Attributes]:
        """Refuse."""
        raise self.refuse_new(parent, "a file")

    def open(self, inode: int, flags: OpenFlags, caller: Caller) -> Answer[OpenFile]:
        """Refuse: there are no files."""
        raise HostError(errno.EISDIR, "this is no file")

    def read(self, handle: int, offset: int, size: int) -> Answer[bytes]:
        """Refuse: nothing is open."""
        raise _no_handle(handle)

    def write(
        self, handle: int, offset: int, data: bytes, caller: Caller | None = None
    ) -> Answer[int]:
        """Refuse: nothing is open."""
        raise _no_handle(handle)

    def flush(self, handle: int) -> None:
        """Do nothing: nothing is held back."""

    def fsync(self, handle: int, *, data_only: bool) -> Answer[None]:
        """Do nothing: nothing is held back."""

    def release(self, handle: int) -> None:
        """Do nothing: nothing is open."""

    def poll(self, handle: int, wake: Callable[[], None] | None) -> int:
        """Say that this is an ordinary file."""
        raise UnsupportedError("only events tells when it can be read")

    def opendir(self, inode: int, caller: Caller) -> Answer[int]:
        """Refuse: there are no directories."""
        raise HostError(errno.ENOTDIR, "this is no directory")

    def readdir(self, handle: int, start: int) -> Iterator[tuple[bytes, Attributes, int]]:
        """Refuse: nothing is open."""
        raise _no_handle(handle)

    def releasedir(self, handle: int) -> None:
        """Do nothing: nothing is open."""

    def fsyncdir(self, handle: int) -> Answer[None]:
        """Do nothing: nothing is held back."""

    def statfs(self) -> FileSystemFigures:
        """Refuse: what is free is known of the staging area alone."""
        raise UnsupportedError("this tree has no size of its own")


def stale(inode: int) -> HostError:
    """Return the error for an inode number that stands for nothing any more.

    At ESTALE, and not at ENOENT, Linux looks every name of the path up again by itself, once: who
    comes by a name that by now stands for something else gets that.
    """
    return HostError(errno.ESTALE, f"inode {inode} does not exist any more", "open it again")


def no_attribute(name: bytes) -> HostError:
    """Return the error for an extended attribute that there is not."""
    return HostError(errno.ENODATA, f"there is no attribute {name.decode(errors='replace')!r}")


def _no_handle(handle: int) -> HostError:
    return HostError(errno.EBADF, f"nothing is open as {handle}")
