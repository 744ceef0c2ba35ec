"""One open directory of the registry's tree, read piece by piece.

Decided here: the order of entries (names; versions by number, then aliases) and what a position
means, so that a listing can go on where it stopped while the directory changes. Not decided here:
what the entries are (`tree`, `attached`).

Never loads a directory at once: each read takes a batch from one view of the index.
"""

import contextlib
import heapq
from collections.abc import Iterator
from operator import itemgetter

from mregfs.errors import NotFoundError
from mregfs.model.state import State
from mregfs.ports.index import Index
from mregfs.vfs.appearance import Node, NodeKind
from mregfs.vfs.attached import Attached
from mregfs.vfs.interface import Attributes
from mregfs.vfs.pending import PendingLinks
from mregfs.vfs.tree import Tree

__all__ = ["Listing"]

_BATCH = 128
"""Entries made per view; a 128 KiB readdirplus reply holds about 700 names of two letters."""

_ALIASES = 1 << 60
"""Positions from here on are aliases, then pending links; below are numbers."""


class Listing:
    """The entries of one directory, from any position that was given out before."""

    def __init__(
        self,
        index: Index,
        tree: Tree,
        node: Node,
        pending: PendingLinks,
        attached: Attached,
    ) -> None:
        self._index = index
        self._tree = tree
        self._node = node
        self._pending = pending
        self._attached = attached
        self._names: list[str] = []
        self._tail: list[bytes] = []

    def entries(self, start: int) -> Iterator[tuple[bytes, Attributes, int]]:
        """Yield (name, attributes, position of the next) from position `start`."""
        kind = self._node.kind
        if kind is NodeKind.OWNER:
            yield from self._owned(start)
        elif kind is NodeKind.VERSION:
            yield from self._contents(start)
        else:
            yield from self._named(start)

    def _contents(self, start: int) -> Iterator[tuple[bytes, Attributes, int]]:
        for node in self._tree.contents(self._node, start):
            assert node.entry is not None
            with self._index.read() as view:
                attributes = self._tree.attributes(State(view), node)
            yield node.entry.name.encode(), attributes, node.position

    def _owned(self, start: int) -> Iterator[tuple[bytes, Attributes, int]]:
        owner = self._node.owner
        assert owner is not None
        position = start
        while position < _ALIASES:
            batch = []
            with self._index.read() as view:
                state = State(view)
                for number, node in self._tree.numbered(state, owner, position):
                    attributes = self._tree.attributes(state, node)
                    batch.append((f"v{number}".encode(), attributes, number + 1))
                    if len(batch) == _BATCH:
                        break
            yield from batch
            position = batch[-1][2] if len(batch) == _BATCH else _ALIASES
        if start < _ALIASES:
            with self._index.read() as view:
                aliases = [name.encode() for name, _ in self._tree.aliases(State(view), owner)]
            self._tail = aliases + [name for name, _ in self._pending.names(owner.inode)]
        yield from self._owned_tail(owner.inode, position - _ALIASES)

    def _owned_tail(self, owner: int, first: int) -> Iterator[tuple[bytes, Attributes, int]]:
        for place in range(first, len(self._tail)):
            name = self._tail[place]
            pending = self._pending.find(owner, name)
            if pending is not None:
                yield name, self._pending.attributes(pending), _ALIASES + place + 1
                continue
            with self._index.read() as view:
                state = State(view)
                node = self._tree.lookup(state, self._node, name.decode(errors="replace"))
                if node is None:
                    continue
                attributes = self._tree.attributes(state, node)
            yield name, attributes, _ALIASES + place + 1

    def _named(self, start: int) -> Iterator[tuple[bytes, Attributes, int]]:
        """Go by name; position N stands for "after the Nth name given out"."""
        if start == 0:
            self._names.clear()
        place = min(start, len(self._names))
        while True:
            after = self._names[place - 1] if place else ""
            batch: list[tuple[str, Attributes]] = []
            with self._index.read() as view:
                state = State(view)
                for name, node in self._children(state, after):
                    if node is not None:
                        batch.append((name, self._tree.attributes(state, node)))
                    else:
                        with contextlib.suppress(NotFoundError):
                            batch.append((name, self._attached.find(self._node, name)))
                    if len(batch) == _BATCH:
                        break
            for name, attributes in batch:
                del self._names[place:]
                self._names.append(name)
                place += 1
                yield name.encode(), attributes, place
            if len(batch) < _BATCH:
                return

    def _children(self, state: State, after: str) -> Iterator[tuple[str, Node | None]]:
        """Yield the tree's children, and in their places the names at which other trees begin."""
        own: Iterator[tuple[str, Node | None]] = self._tree.children(state, self._node, after)
        names = [name for name in self._attached.names(self._node) if name > after]
        if not names:
            return own
        return heapq.merge(own, [(name, None) for name in names], key=itemgetter(0))
