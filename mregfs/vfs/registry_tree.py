"""The registry as a file system: artifacts, collections, projects, versions and their files.

Decided here: which answers are at hand and which have to be waited for. Not decided here: what the
tree looks like (`tree`), how it is changed (`changing_tree`), bytes of files (`content`).

Between two awaits a task has this object's tables to itself; a view of the index is never held
across one.
"""

from collections.abc import Iterator
from functools import partial

from mregfs.errors import HostError, NotFoundError
from mregfs.model.state import State
from mregfs.ports.index import Index
from mregfs.registry.read.content import Content, OpenContent
from mregfs.vfs.answers import Answer, InThread
from mregfs.vfs.appearance import FOR_EVER, Node, NodeKind
from mregfs.vfs.attached import NAMES, Attached
from mregfs.vfs.changing_tree import ChangingTree
from mregfs.vfs.interface import Attributes, Caller, KernelNotices, OpenFile, OpenFlags
from mregfs.vfs.listing import Listing
from mregfs.vfs.nodes import Nodes
from mregfs.vfs.numbers import Space, handles_of
from mregfs.vfs.operations import FileOperations, decode_name
from mregfs.vfs.pending import PendingLinks
from mregfs.vfs.runner import Runner
from mregfs.vfs.tree import Tree
from mregfs.vfs.unchanging import no_attribute, stale
from mregfs.vfs.xattrs import PREFIX, ExtendedAttributes

__all__ = ["RegistryTree"]

_PREFIX = PREFIX.encode()


class RegistryTree(ChangingTree):
    """The registry's tree of one mount of one project of one store."""

    def __init__(
        self,
        index: Index,
        tree: Tree,
        content: Content,
        operations: FileOperations,
        xattrs: ExtendedAttributes,
        pending: PendingLinks,
        attached: Attached,
        runner: Runner,
        notices: KernelNotices,
    ) -> None:
        nodes = Nodes(index, tree, content, attached)
        super().__init__(index, tree, nodes, operations, pending, runner, notices)
        self._content = content
        self._xattrs = xattrs
        self._attached = attached
        self._numbers = handles_of(Space.REGISTRY)
        self._open: dict[int, tuple[OpenContent, Node]] = {}
        self._handles: dict[int, dict[int, Node]] = {}
        """The published files that are open, deleted or not: by inode, then by handle."""
        self._listings: dict[int, Listing] = {}

    def _known(self, state: State, inode: int) -> Node:
        """Return what a number stands for, or stood for and is open; from what is at hand.

        Raises:
            HostError: ESTALE, nothing, or its content is to be loaded: the next lookup does it.
        """
        node: Node | None
        try:
            node = self._tree.node(state, inode)
        except HostError:
            node = None
        if node is None or not node.is_known:
            node = next(iter(self._handles.get(inode, {}).values()), None)
        if node is None:
            raise stale(inode)
        return node

    # ---- names and attributes

    def lookup(self, parent: int, name: bytes) -> Answer[Attributes]:
        """Find a name; at once, unless the content of a version is not in the index."""
        text = decode_name(name)
        with self._index.read() as view:
            state = State(view)
            node = self._tree.node(state, parent)
            ready = node.version is None or self._nodes.is_ready(node)
            found = self._lookup(state, node, name, text) if ready else None
        if found is None:
            return self._nodes.when_ready(parent, partial(self.lookup, parent, name))
        return found

    def _lookup(self, state: State, parent: Node, name: bytes, text: str) -> Attributes | None:
        found = self._tree.lookup(state, parent, text)
        if found is not None:
            return self._tree.attributes(state, found)
        if parent.version is not None:
            # The kernel believes it for ever: so only if the content is there, and lacks the name.
            lacks = self._content.lacks(parent.version, parent.position, text)
            return Attributes(0, 0, entry_timeout=FOR_EVER) if lacks else None
        if parent.kind is NodeKind.OWNER:
            pending = self._pending.find(parent.inode, name)
            if pending is not None:
                return self._pending.attributes(pending)
        elif text in NAMES and text in self._attached.names(parent):
            return self._attached.find(parent, text)
        raise NotFoundError(f"{text!r} does not exist")

    def getattr(self, inode: int) -> Attributes:
        """Answer stat(2)."""
        with self._index.read() as view:
            state = State(view)
            return self._tree.attributes(state, self._known(state, inode))

    def readlink(self, inode: int) -> bytes:
        """Return where a symlink points, by the index: so a move shows at once."""
        with self._index.read() as view:
            state = State(view)
            return self._tree.readlink(state, self._known(state, inode)).encode()

    # ---- files

    def open(self, inode: int, flags: OpenFlags, caller: Caller) -> Answer[OpenFile]:
        """Open a published file, for reading."""
        node = self._nodes.node(inode)
        if node.kind is not NodeKind.VERSION:
            return super().open(inode, flags, caller)
        if flags.writes or flags.truncates:
            raise self._operations.refuse_change(node)
        if not self._nodes.is_ready(node) or node.version is None:
            return self._nodes.when_ready(inode, partial(self.open, inode, flags, caller))
        try:
            content = self._content.open(node.version, node.position)
        except NotFoundError:  # the index has lost it since it was ready: look it up again
            raise stale(inode) from None
        handle = next(self._numbers)
        self._open[handle] = content, node
        self._handles.setdefault(inode, {})[handle] = node
        return OpenFile(handle, content.backing(), keep_cache=not content.watched)

    def read(self, handle: int, offset: int, size: int) -> Answer[bytes]:
        """Read; at once what is cached, else in a thread: the disk may be cold."""
        content = self._open[handle][0]
        data = content.read_cached(offset, size)
        return InThread(partial(content.read, offset, size)) if data is None else data

    def write(
        self, handle: int, offset: int, data: bytes, caller: Caller | None = None
    ) -> Answer[int]:
        """Refuse: a published version never changes."""
        raise self._operations.refuse_change(self._open[handle][1])

    def release(self, handle: int) -> None:
        """Close a file."""
        opened = self._open.pop(handle, None)
        if opened is None:
            return
        content, node = opened
        handles = self._handles[node.inode]
        del handles[handle]
        if not handles:
            del self._handles[node.inode]
        content.close()

    # ---- directories

    def opendir(self, inode: int, caller: Caller) -> Answer[int]:
        """Open a directory; at once, unless the content of a version is not in the index."""
        node = self._nodes.node(inode)
        if not self._nodes.is_ready(node):
            return self._nodes.when_ready(inode, partial(self.opendir, inode, caller))
        handle = next(self._numbers)
        self._listings[handle] = Listing(
            self._index, self._tree, node, self._pending, self._attached
        )
        return handle

    def readdir(self, handle: int, start: int) -> Iterator[tuple[bytes, Attributes, int]]:
        """List an open directory from a position."""
        return self._listings[handle].entries(start)

    def releasedir(self, handle: int) -> None:
        """Close a directory."""
        self._listings.pop(handle, None)

    # ---- extended attributes

    def getxattr(self, inode: int, name: bytes, caller: Caller) -> Answer[bytes]:
        """Return an extended attribute; in a thread what costs more than reads of the index."""
        if not name.startswith(_PREFIX):
            raise no_attribute(name)
        with self._index.read() as view:
            state = State(view)
            node = self._tree.node(state, inode)
            if not self._nodes.is_ready(node):
                return self._nodes.when_ready(inode, partial(self.getxattr, inode, name, caller))
            if not self._xattrs.is_slow(name):
                return self._xattr(state, node, name)
        return InThread(partial(self._slow_xattr, node, name))

    def _slow_xattr(self, node: Node, name: bytes) -> bytes:
        with self._index.read() as view:
            return self._xattr(State(view), node, name)

    def _xattr(self, state: State, node: Node, name: bytes) -> bytes:
        value = self._xattrs.value(state, node, name[len(_PREFIX) :].decode(errors="replace"))
        if value is None:
            raise no_attribute(name)
        return value

    def listxattr(self, inode: int, caller: Caller) -> Answer[list[bytes]]:
        """Return the names of the extended attributes."""
        node = self._nodes.node(inode)
        if not self._nodes.is_ready(node):
            return self._nodes.when_ready(inode, partial(self.listxattr, inode, caller))
        return [f"{PREFIX}{name}".encode() for name in self._xattrs.names(node)]
