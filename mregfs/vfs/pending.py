"""Symlinks on their way to become an alias: made under another name, then renamed over it.

Decided here: which names are on their way (`ln -sfn` and `os.replace` make a symlink under a
temporary name first), and that they live in memory only: they never reach the log. Not decided
here: what the rename means (`operations`), what an alias is (`tree`).
"""

import errno
import itertools
import re
from stat import S_IFLNK

import msgspec

from mregfs.errors import ExistsError, HostError, ImmutableError, MregfsError
from mregfs.model.state import State
from mregfs.ports import Clock
from mregfs.ports.index import Index
from mregfs.vfs.interface import Attributes, Caller, ChangedAttributes
from mregfs.vfs.numbers import PENDING
from mregfs.vfs.tree import Tree
from mregfs.vfs.unchanging import Unchanging, stale

__all__ = ["PendingLinks", "is_temporary"]

# GNU ln, mv and install: gnulib's force_symlinkat tries names of "Cu" and six of these characters.
_GNU = re.compile(rb"Cu[A-Za-z0-9]{6}")


def is_temporary(name: bytes) -> bool:
    """Tell whether a symlink of this name is only a step of an atomic replacement."""
    return name.startswith(b".") or _GNU.fullmatch(name) is not None


class PendingLink(msgspec.Struct):
    """One symlink in memory. Once renamed over an alias it stands for that alias for good."""

    inode: int
    directory: int
    name: bytes
    target: bytes
    uid: int
    gid: int
    at_ns: int
    alias: int | None = None
    """After the rename the alias's inode: the kernel may go on using the link's own a while."""


class PendingLinks(Unchanging):
    """All pending symlinks of a mount. A restart forgets them, as `/tmp` would.

    As a tree it answers for their inodes; their names are in directories of the registry's.
    """

    def __init__(self, index: Index, tree: Tree, clock: Clock, *, read_only: bool) -> None:
        self._index = index
        self._tree = tree
        self._clock = clock
        self._read_only = read_only
        self._numbers = itertools.count(PENDING + 1)
        self._by_inode: dict[int, PendingLink] = {}
        self._by_name: dict[tuple[int, bytes], PendingLink] = {}

    def make(self, directory: int, name: bytes, target: bytes, caller: Caller) -> PendingLink:
        """Keep a new symlink.

        Raises:
            ExistsError: there is one of that name.
            ImmutableError: the mount is read-only.
        """
        if self._read_only:
            raise ImmutableError("this mount is read-only")
        if (directory, name) in self._by_name:
            raise ExistsError(f"{name.decode(errors='replace')!r} exists already")
        inode, now = next(self._numbers), self._clock()
        link = PendingLink(inode, directory, name, target, caller.uid, caller.gid, now)
        self._by_inode[link.inode] = link
        self._by_name[directory, name] = link
        return link

    def find(self, directory: int, name: bytes) -> PendingLink | None:
        """Return the symlink of that name, or None."""
        return self._by_name.get((directory, name))

    def refuse_change(self, inode: int) -> MregfsError:
        """Return the error of a change of extended attributes."""
        return HostError(errno.EOPNOTSUPP, "a symbolic link has no attributes of its own")

    def setattr(
        self, inode: int, changed: ChangedAttributes, handle: int | None, caller: Caller
    ) -> Attributes:
        """Change nothing: `cp -a` sets times of the links it makes."""
        return self.getattr(inode)

    def getattr(self, inode: int) -> Attributes:
        """Return what stat tells of the symlink with that inode number, or of its alias.

        Raises:
            HostError: ESTALE, there is no such symlink, or its alias is gone.
        """
        link = self._known(inode)
        if link.alias is None:
            return self.attributes(link)
        with self._index.read() as view:
            state = State(view)
            attributes = self._tree.attributes(state, self._tree.node(state, link.alias))
        attributes.inode = inode
        return attributes

    def readlink(self, inode: int) -> bytes:
        """Return where the symlink with that inode number points, or its alias.

        Raises:
            HostError: ESTALE, there is no such symlink, or its alias is gone.
        """
        link = self._known(inode)
        if link.alias is None:
            return link.target
        with self._index.read() as view:
            state = State(view)
            return self._tree.readlink(state, self._tree.node(state, link.alias)).encode()

    def _known(self, inode: int) -> PendingLink:
        link = self._by_inode.get(inode)
        if link is None:
            raise stale(inode)
        return link

    def names(self, directory: int) -> list[tuple[bytes, "PendingLink"]]:
        """Return what is pending in a directory, sorted by name."""
        return sorted(
            (name, link) for (where, name), link in self._by_name.items() if where == directory
        )

    def remove(self, link: PendingLink) -> None:
        """Take the name away; the inode goes when the kernel forgets it."""
        self._by_name.pop((link.directory, link.name), None)

    def becomes_alias(self, link: PendingLink, owner: int, alias: str) -> None:
        """The symlink was renamed over an alias: what the kernel still asks is about the alias.

        About that one, not about its name, which may be another's by then.
        """
        self.remove(link)
        with self._index.read() as view:
            found = State(view).alias(owner, alias)
        link.alias = 0 if found is None else found.inode

    def move(self, link: PendingLink, directory: int, name: bytes) -> None:
        """Rename it to another temporary name."""
        self.remove(link)
        link.directory, link.name = directory, name
        self._by_name[directory, name] = link

    def forget(self, inode: int, count: int) -> None:
        """The kernel no longer knows the inode."""
        link = self._by_inode.get(inode)
        if link is not None and self._by_name.get((link.directory, link.name)) is not link:
            del self._by_inode[inode]

    @staticmethod
    def attributes(link: PendingLink) -> Attributes:
        """Return what stat tells; the kernel remembers nothing of it."""
        return Attributes(
            link.inode,
            S_IFLNK | 0o777,
            size=len(link.target),
            uid=link.uid,
            gid=link.gid,
            atime_ns=link.at_ns,
            mtime_ns=link.at_ns,
            ctime_ns=link.at_ns,
        )
