"""The inodes of the staging area that the kernel knows, and how each is reached on the host.

Decided here: what a node is called, which descriptor stands for it, when it is forgotten. Not
decided here: what a request does with it. Only `directory` uses this, and always under its lock.

A file needs no descriptor: it is reached through the descriptor of its directory and its name.
`NodeTable` hears of every change of a name, so names stay true. What loses its last name while the
kernel still knows it is *pinned* first: an O_PATH descriptor keeps the inode (and its number)
alive on the host. All other descriptors are a cache, closed when there are too many of them.
"""

import contextlib
import errno
import os
import stat
from collections import OrderedDict
from dataclasses import dataclass, field

from mregfs.ports import DRAFT_BIT

__all__ = ["Handle", "Node", "NodeTable"]

_WRITE_BITS = 0o222


@dataclass(eq=False, slots=True)
class Node:
    """One inode that the kernel knows, or a directory on the way to one."""

    number: int
    """Inode number as the kernel sees it: `DRAFT_BIT | number on the host`."""
    kind: int
    """The file type bits of its mode."""
    origin: bytes | None = None
    """Path on the host; only the staging directory of a project has one."""
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


@dataclass(eq=False, slots=True)
class Handle:
    """One open file or directory."""

    node: Node
    descriptor: int
    writable: bool = False
    """The descriptor can write, so that no commit gets a lease on the file."""
    listing: list[bytes] = field(default_factory=list)
    """The names in the directory when it was last read from the start."""


class NodeTable:
    """All known nodes; keeps at most about `limit` descriptors that could be opened again.

    Not thread-safe. Raises OSError as the host gave it, and ESTALE for what cannot be reached.
    Descriptors to be closed are collected in `closing`, because the last close of a large file
    takes long: close them without the lock.
    """

    def __init__(self, limit: int) -> None:
        self.closing: list[int] = []
        self.frozen: dict[Node, tuple[str, str]] = {}
        """The drafts that are being committed: project and name."""
        self._limit = limit
        self._nodes: dict[int, Node] = {}
        self._evictable: OrderedDict[Node, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._nodes)

    def get(self, number: int) -> Node | None:
        """Return the node that the kernel calls `number`, in whatever state."""
        return self._nodes.get(number)

    def readable(self, number: int) -> Node:
        """Return the node, if anything can still be learnt about it."""
        node = self._nodes.get(number)
        if node is None or (node.gone and not node.handles):
            raise _stale()
        return node

    def alive(self, number: int) -> Node:
        """Return the node, unless it became part of a version."""
        node = self._nodes.get(number)
        if node is None or node.gone:
            raise _stale()
        return node

    def admit_root(self, origin: bytes) -> Node:
        """Return the node of a project's staging directory; it is never forgotten."""
        number = _number(os.stat(origin))
        node = self._nodes.get(number)
        if node is None or node.origin != origin:
            node = self._nodes[number] = Node(number, stat.S_IFDIR, origin)
        return node

    def admit(self, parent: Node, name: bytes, found: os.stat_result, *, new: bool = False) -> Node:
        """Return the node of what stat(2) just found under `name`, and remember the name.

        With `new` it was just created: a node of that number is a left-over of another file.
        """
        number, kind = _number(found), stat.S_IFMT(found.st_mode)
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

    def place(self, node: Node) -> tuple[bytes, bool]:
        """Return an absolute path that leads to the node, and whether to follow its last link."""
        descriptor = self._any_descriptor(node)
        if descriptor >= 0:
            return b"/proc/self/fd/%d" % descriptor, True
        directory, name, _ = self._find(node)
        return b"/proc/self/fd/%d/%b" % (directory, name), False

    def own_place(self, node: Node, *, to_chmod: bool = False) -> tuple[bytes, bool]:
        """Return what `place` does, for changes: never the place of what became a pack meanwhile.

        A commit by another process gives a draft's file a second name, takes its write bits, and
        removes the first one (`../../registry/commit.md` §3). A descriptor leads to the file all
        the same, so it serves only for what no commit can have taken: what is being written, has
        no name at all, or has write bits, which are not trusted `to_chmod` or chown: they could be
        taken between this look and a change that gives them back.
        """
        if node.kind != stat.S_IFREG:
            return self.place(node)
        for handle in node.handles:
            if handle.writable:
                return b"/proc/self/fd/%d" % handle.descriptor, True
        if node.names:
            with contextlib.suppress(OSError):
                directory, name, _ = self._find(node)
                return b"/proc/self/fd/%d/%b" % (directory, name), False
        descriptor = self._any_descriptor(node)
        if descriptor < 0:
            raise _stale()
        found = os.fstat(descriptor)
        if found.st_nlink and (to_chmod or not found.st_mode & _WRITE_BITS):
            raise _stale()
        return b"/proc/self/fd/%d" % descriptor, True

    def stat(self, node: Node) -> os.stat_result:
        """Return what the host says about the node now."""
        descriptor = self._any_descriptor(node)
        return os.fstat(descriptor) if descriptor >= 0 else self._find(node)[2]

    def pin(self, parent: Node, name: bytes) -> None:
        """Get ready for `name` to vanish: its node stays reachable if this is its last name."""
        node = parent.children.get(name)
        if node is not None and len(node.names) == 1 and (node.lookups or node.handles):
            self.descriptor(node)

    def vanished(self, parent: Node, name: bytes) -> None:
        """Take note that `name` leads nowhere any more."""
        node = parent.children.get(name)
        if node is not None:
            self._detach(parent, name)
            self.reap(node)
            self.reap(parent)

    def moved(self, parent: Node, name: bytes, new_parent: Node, new_name: bytes) -> None:
        """Take note that `name` was renamed, over whatever had the new name."""
        node, replaced = parent.children.get(name), new_parent.children.get(new_name)
        if node is not None and node is replaced:
            return  # two links of one file: rename(2) leaves both
        if replaced is not None:
            self._detach(new_parent, new_name)
        if node is not None:
            self._detach(parent, name)
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
            self._detach(parent, name)
        if other is not None:
            self._detach(other_parent, other_name)
            self._attach(parent, name, other)
        if one is not None:
            self._attach(other_parent, other_name, one)
        self.reap(parent)
        self.reap(other_parent)

    def bury(self, top: Node) -> None:
        """Take note that a whole directory became part of a version."""
        above = [parent for parent, _ in top.names]
        for parent, name in list(top.names):
            self._detach(parent, name)
        buried = [top]
        for node in buried:  # grows meanwhile
            for name, child in list(node.children.items()):
                self._detach(node, name)
                if not child.names:
                    buried.append(child)
        for node in buried:
            node.gone = True
            self._close(node)
        for node in buried + above:
            self.reap(node)

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
                self._detach(parent, name)
                pending.append(parent)
            self._close(node)

    def trim(self) -> None:
        """Close what was not used for longest, while there are too many descriptors."""
        while len(self._evictable) > self._limit:
            self._close(next(iter(self._evictable)))

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

    def committing(self, *nodes: Node | None) -> tuple[str, str] | None:
        """Return project and name of the frozen draft that holds (or is) one of the nodes."""
        pending = [node for node in nodes if node is not None] if self.frozen else []
        while pending:
            node = pending.pop()
            if node in self.frozen:
                return self.frozen[node]
            pending.extend(parent for parent, _ in node.names)
        return None

    def close(self) -> None:
        """Forget everything and collect all descriptors for closing."""
        for node in self._nodes.values():
            self.closing.extend(handle.descriptor for handle in node.handles)
            self._close(node)
        self._nodes.clear()
        self.frozen.clear()

    def _any_descriptor(self, node: Node) -> int:
        if node.descriptor >= 0 or not node.handles:
            return self.descriptor(node) if node.kind == stat.S_IFDIR else node.descriptor
        return node.handles[0].descriptor

    def _open(self, node: Node) -> None:
        if node.origin is None:
            directory, name, _ = self._find(node)
            node.descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=directory)
        else:
            node.descriptor = os.open(node.origin, os.O_PATH | os.O_DIRECTORY)
            if _number(os.fstat(node.descriptor)) != node.number:
                self._close(node)
                raise _stale()
        self._evictable[node] = None

    def _find(self, node: Node) -> tuple[int, bytes, os.stat_result]:
        for parent, name in list(node.names):
            directory = self.descriptor(parent)
            try:
                found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            except FileNotFoundError:
                pass
            else:
                if _number(found) == node.number and stat.S_IFMT(found.st_mode) == node.kind:
                    return directory, name, found
            self._detach(parent, name)  # somebody changed the directory behind our back
        raise _stale()

    def _attach(self, parent: Node, name: bytes, node: Node) -> None:
        if parent.children.get(name) is node:
            return
        if name in parent.children:
            self._detach(parent, name)
        if node.kind == stat.S_IFDIR:
            for former_parent, former_name in list(node.names):
                self._detach(former_parent, former_name)
        parent.children[name] = node
        node.names.add((parent, name))
        if node.descriptor >= 0:
            self._evictable[node] = None

    def _detach(self, parent: Node, name: bytes) -> None:
        node = parent.children.pop(name)
        node.names.discard((parent, name))
        if not node.names:
            self._evictable.pop(node, None)

    def _renew(self, node: Node, kind: int) -> None:
        for parent, name in list(node.names):
            self._detach(parent, name)
        for name in list(node.children):
            self._detach(node, name)
        self._close(node)
        self.frozen.pop(node, None)  # that was another draft
        node.kind = kind
        node.generation += 1
        node.gone = False

    def _close(self, node: Node) -> None:
        self._evictable.pop(node, None)
        if node.descriptor >= 0:
            self.closing.append(node.descriptor)
            node.descriptor = -1


def _number(found: os.stat_result) -> int:
    return DRAFT_BIT | (found.st_ino & (DRAFT_BIT - 1))


def _stale() -> OSError:
    return OSError(errno.ESTALE, os.strerror(errno.ESTALE))
