"""The inodes of the staging area that the kernel knows, and how each is reached on the host.

Decided here: what a node is called, which descriptor stands for it, when it is forgotten. Not
decided here: what a request does with it. All of it happens under the lock of `directory`.

A file needs no descriptor: it is reached through the descriptor of its directory and its name.
`NodeTable` hears of every change of a name, so names stay true. What loses its last name while the
kernel still knows it is *pinned* first: an O_PATH descriptor keeps the inode (and its number)
alive on the host. All other descriptors are a cache, closed when there are too many of them.
"""

import contextlib
import errno
import os
import stat
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from mregfs.host.calls import Who
from mregfs.vfs.numbers import inode_of_draft

__all__ = ["Handle", "Node", "NodeTable", "number_of", "stale"]


@dataclass(eq=False, slots=True)
class Node:
    """One inode that the kernel knows, or a directory on the way to one."""

    number: int
    """Inode number as the kernel sees it: that on the host, in the space of drafts."""
    kind: int
    """The file type bits of its mode."""
    origin: bytes | None = None
    """"entity/name"; only the staging directory of a project has one."""
    names: set[tuple["Node", bytes]] = field(default_factory=set)
    """Every (directory, name) known to lead here; a directory has at most one."""
    children: dict[bytes, "Node"] = field(default_factory=dict)
    """The known nodes in this directory; the other side of `names`."""
    handles: list["Handle"] = field(default_factory=list)
    """What is open; the descriptor of any of them leads here too."""
    lookups: int = 0
    """References that the kernel holds."""
    descriptor: int = -1
    """An O_PATH descriptor, or -1."""
    generation: int = 0
    """Grows when the host gives the number to another file while the kernel knows this one."""
    gone: bool = False
    """It became part of a version: only what is open can still be read."""
    shown: tuple[int, int, int] | None = None
    """Mode, user and group of a directory in a frozen draft: the commit changes the host's."""


@dataclass(eq=False, slots=True)
class Handle:
    """One open file or directory."""

    node: Node
    descriptor: int
    writable: bool = False
    """The descriptor can write, so that no commit gets a lease on the file."""
    who: Who = None
    """With whose credentials it was opened."""
    uid: int = -1
    """The user that these make it."""
    listing: list[bytes] = field(default_factory=list)
    """The names in the directory when it was last read from the start."""


class NodeTable:
    """All known nodes; keeps at most about `limit` descriptors that could be opened again.

    Not thread-safe. Raises OSError as the host gave it, and ESTALE for what cannot be reached.
    Descriptors to be closed are collected in `closing`, because the last close of a large file
    takes long: close them without the lock.

    Args:
        limit: how many descriptors to keep.
        open_root: opens the staging directory of a project with O_PATH.
    """

    def __init__(self, limit: int, open_root: Callable[[bytes], int]) -> None:
        self.closing: list[int] = []
        self.frozen: dict[Node, tuple[str, str]] = {}
        """The drafts that are being committed: project and name."""
        self._kept: dict[Node, list[int]] = {}
        """Descriptors of the directories of drafts that are being committed."""
        self._resting: deque[tuple[float, list[int]]] = deque()
        """The same of drafts that became versions, and until when they are kept: for as long as the
        kernel may come by the draft's name to its directories, no other gets their numbers."""
        self._limit = limit
        self._open_root = open_root
        self._nodes: dict[int, Node] = {}
        self._evictable: OrderedDict[Node, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._nodes)

    def get(self, number: int) -> Node | None:
        """Return the node that the kernel calls `number`, in whatever state."""
        return self._nodes.get(number)

    def roots(self) -> list[Node]:
        """Return the staging directories that were opened so far."""
        return [node for node in self._nodes.values() if node.origin is not None]

    def readable(self, number: int) -> Node:
        """Return the node, if anything can still be learnt about it."""
        node = self._nodes.get(number)
        if node is None or (node.gone and not node.handles):
            raise stale()
        return node

    def alive(self, number: int) -> Node:
        """Return the node, unless it became part of a version."""
        node = self._nodes.get(number)
        if node is None or node.gone:
            raise stale()
        return node

    def admit_root(self, origin: bytes) -> Node:
        """Return the node of a project's staging directory; it is never forgotten."""
        descriptor = self._open_root(origin)
        number = number_of(os.fstat(descriptor))
        node = self._nodes.get(number)
        if node is None or node.origin != origin:
            for former in [each for each in self.roots() if each.origin == origin]:
                former.origin = None  # of a store that was removed
                self.reap(former)
            node = self._nodes[number] = Node(number, stat.S_IFDIR, origin)
        if node.descriptor >= 0:
            self.closing.append(descriptor)
        else:
            node.descriptor = descriptor
            self._evictable[node] = None
        return node

    def admit(self, parent: Node, name: bytes, found: os.stat_result, *, new: bool = False) -> Node:
        """Return the node of what stat(2) just found under `name`, and remember the name.

        With `new` it was just created: a node of that number is a left-over of another file.
        """
        number, kind = number_of(found), stat.S_IFMT(found.st_mode)
        node = self._nodes.get(number)
        if node is None:
            node = self._nodes[number] = Node(number, kind)
        elif new or node.gone or node.kind != kind:
            self._renew(node, kind)
        self._attach(parent, name, node)
        return node

    def descriptor(self, node: Node) -> int:
        """Return an O_PATH descriptor of the node; it stays valid during this request."""
        if node.descriptor < 0:
            way = [node]
            while way[-1].names and (above := next(iter(way[-1].names))[0]).descriptor < 0:
                way.append(above)
            for step in reversed(way):
                self._open(step)
        elif node in self._evictable:
            self._evictable.move_to_end(node)
        return node.descriptor

    def any_descriptor(self, node: Node) -> int:
        """Return a descriptor that there is of the node, or -1; a directory always has one."""
        if node.descriptor >= 0 or not node.handles:
            return self.descriptor(node) if node.kind == stat.S_IFDIR else node.descriptor
        return node.handles[0].descriptor

    def find(self, node: Node) -> tuple[int, bytes, os.stat_result]:
        """Return a directory's descriptor, the node's name there, and what stat(2) says of it."""
        for parent, name in list(node.names):
            directory = self.descriptor(parent)
            try:
                found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            except FileNotFoundError:
                pass
            else:
                if self.is_same(node, found):
                    return directory, name, found
            self.detach(parent, name)  # somebody changed the directory behind our back
        raise stale()

    def child(self, parent: Node, descriptor: int, name: bytes) -> tuple[Node, os.stat_result]:
        """Return the node of a name in the directory that is open, and what stat(2) says of it."""
        known = parent.children.get(name) if self.frozen else None
        if known is not None and known in self.frozen:  # its commit holds the name
            return known, self.stat(known)
        found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        return self.admit(parent, name, found), found

    def is_same(self, node: Node, found: os.stat_result) -> bool:
        """Tell whether the host says this of the node."""
        return number_of(found) == node.number and stat.S_IFMT(found.st_mode) == node.kind

    def stat(self, node: Node) -> os.stat_result:
        """Return what the host says about the node now."""
        descriptor = self.any_descriptor(node)
        return os.fstat(descriptor) if descriptor >= 0 else self.find(node)[2]

    def pin(self, parent: Node, name: bytes) -> None:
        """Get ready for `name` to vanish: its node stays reachable if this is its last name."""
        node = parent.children.get(name)
        if node is not None and len(node.names) == 1 and (node.lookups or node.handles):
            self.descriptor(node)

    def vanished(self, parent: Node, name: bytes) -> None:
        """Take note that `name` leads nowhere any more."""
        node = parent.children.get(name)
        if node is not None:
            self.detach(parent, name)
            self.reap(node)
            self.reap(parent)

    def moved(self, parent: Node, name: bytes, new_parent: Node, new_name: bytes) -> None:
        """Take note that `name` was renamed, over whatever had the new name."""
        node, replaced = parent.children.get(name), new_parent.children.get(new_name)
        if node is not None and node is replaced:
            return  # two links of one file: rename(2) leaves both
        if replaced is not None:
            self.detach(new_parent, new_name)
        if node is not None:
            self.detach(parent, name)
            self._attach(new_parent, new_name, node)
        if replaced is not None:
            self.reap(replaced)
        self.reap(parent)
        self.reap(new_parent)

    def swapped(self, parent: Node, name: bytes, other_parent: Node, other_name: bytes) -> None:
        """Take note that two names changed places."""
        one, other = parent.children.get(name), other_parent.children.get(other_name)
        if one is other:
            return
        if one is not None:
            self.detach(parent, name)
        if other is not None:
            self.detach(other_parent, other_name)
            self._attach(parent, name, other)
        if one is not None:
            self._attach(other_parent, other_name, one)
        self.reap(parent)
        self.reap(other_parent)

    def reap(self, node: Node) -> None:
        """Drop the node, and directories that only led to it, when nobody needs them."""
        pending = [node]
        while pending:
            node = pending.pop()
            needed = node.lookups or node.handles or node.children or node in self.frozen
            if needed or node.origin is not None or self._nodes.get(node.number) is not node:
                continue
            del self._nodes[node.number]
            for parent, name in list(node.names):
                self.detach(parent, name)
                pending.append(parent)
            self._close(node)

    def trim(self) -> None:
        """Close what was not used for longest, while there are too many descriptors."""
        while self._resting and self._resting[0][0] < time.monotonic():
            self.closing += self._resting.popleft()[1]
        while len(self._evictable) > self._limit:
            self._close(next(iter(self._evictable)))

    def _trim_now(self) -> None:
        self.trim()
        for descriptor in self.closing:
            os.close(descriptor)
        self.closing.clear()

    def ways(self, node: Node) -> list[tuple[Node, list[bytes]]]:
        """Return every known way to the node: a project's staging directory, names from there."""
        if node.origin is not None:
            return [(node, [])]
        ways = []
        for parent, name in node.names:
            step, way = parent, [name]
            while step.names:
                step, name_of_step = next(iter(step.names))
                way.append(name_of_step)
            ways.append((step, way[::-1]))
        return ways

    def close(self) -> None:
        """Forget everything and collect all descriptors for closing."""
        for node in self._nodes.values():
            self.closing.extend(handle.descriptor for handle in node.handles)
            self._close(node)
        for descriptors in (*self._kept.values(), *(kept for _, kept in self._resting)):
            self.closing += descriptors
        self._kept.clear()
        self._resting.clear()
        self._nodes.clear()
        self.frozen.clear()

    def _open(self, node: Node) -> None:
        if node.origin is None:
            node.descriptor = self.open_by_name(node)
        else:
            node.descriptor = self._open_root(node.origin)
            if number_of(os.fstat(node.descriptor)) != node.number:
                self._close(node)
                raise stale()
        self._evictable[node] = None

    def open_by_name(self, node: Node) -> int:
        """Open the node with O_PATH, by one of its names."""
        for parent, name in list(node.names):
            with contextlib.suppress(FileNotFoundError):
                directory = self.descriptor(parent)
                descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=directory)
                if self.is_same(node, os.fstat(descriptor)):
                    return descriptor
                os.close(descriptor)
            self.detach(parent, name)  # somebody changed the directory behind our back
        raise stale()

    def _attach(self, parent: Node, name: bytes, node: Node) -> None:
        if parent.children.get(name) is node:
            return
        if name in parent.children:
            self.detach(parent, name)
        if node.kind == stat.S_IFDIR:
            for former_parent, former_name in list(node.names):
                self.detach(former_parent, former_name)
        parent.children[name] = node
        node.names.add((parent, name))
        if node.descriptor >= 0:
            self._evictable[node] = None

    def detach(self, parent: Node, name: bytes) -> None:
        """Take note that a name does not lead to its node any more."""
        node = parent.children.pop(name)
        node.names.discard((parent, name))
        if not node.names:
            self._evictable.pop(node, None)

    def _renew(self, node: Node, kind: int) -> None:
        for parent, name in list(node.names):
            self.detach(parent, name)
        for name in list(node.children):
            self.detach(node, name)
        self._close(node)
        self.frozen.pop(node, None)  # that was another draft
        self.closing += self._kept.pop(node, [])
        node.kind = kind
        node.generation += 1
        node.gone = False
        node.shown = None

    def _close(self, node: Node) -> None:
        self._evictable.pop(node, None)
        if node.descriptor >= 0:
            self.closing.append(node.descriptor)
            node.descriptor = -1


def number_of(found: os.stat_result) -> int:
    """Return the inode number of what stat(2) found on the host, as the kernel sees it."""
    return inode_of_draft(found.st_ino)


def stale() -> OSError:
    """Return the error of what cannot be reached: the kernel then looks its path up again."""
    return OSError(errno.ESTALE, os.strerror(errno.ESTALE))
