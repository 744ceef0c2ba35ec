"""Nodes of the registry's tree, and how to wait for what is not in the index yet.

Decided here: when a node can be told of, and that whoever needs the content of a version loads it.
Not decided here: what a node is (`tree`), how content is loaded (`registry.read.content`).
"""

from collections.abc import Callable
from typing import TypeVar

import trio

from mregfs.errors import ForbiddenError, NotFoundError
from mregfs.model.state import State
from mregfs.ports.index import Index
from mregfs.registry.read.content import Content
from mregfs.vfs.answers import Answer, InLoop, settle
from mregfs.vfs.appearance import Node
from mregfs.vfs.attached import Attached
from mregfs.vfs.operations import decode_name
from mregfs.vfs.tree import Tree

__all__ = ["Nodes"]

_T = TypeVar("_T")


class Nodes:
    """The nodes of one mount, each from a view of the index of its own."""

    def __init__(self, index: Index, tree: Tree, content: Content, attached: Attached) -> None:
        self._index = index
        self._tree = tree
        self._content = content
        self._attached = attached
        # The store may be far away; those who wait for it leave the other threads to the others.
        self._loading = trio.CapacityLimiter(16)

    def node(self, inode: int) -> Node:
        """Return what a number stands for.

        Raises:
            HostError: ESTALE, nothing (any more).
        """
        with self._index.read() as view:
            return self._tree.node(State(view), inode)

    def is_ready(self, node: Node) -> bool:
        """Tell whether all of a node is in the index: the content of its version, too."""
        return node.version is None or (node.is_known and self._content.ready(node.version))

    def when_ready(self, inode: int, again: Callable[[], Answer[_T]]) -> InLoop[_T]:
        """Answer as `again` does when the content of a version is in the index."""

        async def wait() -> _T:
            await self.ready(inode)
            return await settle(again())

        return InLoop(wait)

    async def ready(self, inode: int) -> Node:
        """Return what a number stands for, with the content of its version in the index."""
        while not self.is_ready(node := self.node(inode)):
            if node.version is not None and not self._content.ready(node.version):
                await trio.to_thread.run_sync(
                    self._content.ensure, node.version, limiter=self._loading
                )
        return node

    async def child(self, parent: int, name: bytes) -> Node:
        """Return what has a name in a directory.

        Raises:
            NotFoundError: nothing.
            ForbiddenError: another tree begins there.
        """
        text = decode_name(name)
        node = await self.ready(parent)
        with self._index.read() as view:
            found = self._tree.lookup(State(view), node, text)
        if found is not None:
            return found
        if text in self._attached.names(node):
            raise ForbiddenError(f"{text!r} is part of every mount and stays where it is")
        raise NotFoundError(f"{text!r} does not exist")
