"""The nodes of drafts that are being committed, or became versions.

Decided here: what stays of a draft's directories while a commit has them, and for how long their
numbers are kept from others afterwards. Not decided here: what a request is refused (`committing`).
"""

import contextlib
import os
import stat
import time
from collections.abc import Iterator

from mregfs.drafts.nodes import Node, NodeTable

__all__ = ["FreezableTable"]

_MOST_KEPT = 256
"""Directories of one draft."""

_REST = 2.0
"""Seconds, and more than the kernel trusts an entry for."""


class FreezableTable(NodeTable):
    """A table of nodes, some of which belong to drafts that are being committed."""

    def committing(self, *nodes: Node | None) -> tuple[str, str] | None:
        """Return project and name of the frozen draft that holds (or is) one of the nodes."""
        pending = [node for node in nodes if node is not None] if self.frozen else []
        while pending:
            node = pending.pop()
            if node in self.frozen:
                return self.frozen[node]
            pending.extend(parent for parent, _ in node.names)
        return None

    def freeze(self, top: Node, project: str, draft: str) -> None:
        """Take note that a draft is being committed: its directory may get another name meanwhile.

        It is reached by descriptor from now on, and its directories look as they do now.
        """
        self.descriptor(top)
        self._evictable.pop(top, None)
        kept = self._kept[top] = []
        for node in self._below(top):
            if node.kind == stat.S_IFDIR:
                with contextlib.suppress(OSError):
                    found = self.find(node)[2]
                    node.shown = found.st_mode, found.st_uid, found.st_gid
                    if len(kept) < _MOST_KEPT:
                        kept.append(os.dup(self.descriptor(node)))
                self._trim_now()
        self.frozen[top] = project, draft

    def thaw(self, top: Node) -> None:
        """Take note that the commit of a draft failed."""
        del self.frozen[top]
        self.closing += self._kept.pop(top, [])
        for node in self._below(top):
            node.shown = None
        if top.names:
            self._evictable[top] = None
        self.reap(top)

    def _below(self, top: Node) -> Iterator[Node]:
        pending = [top]
        while pending:
            node = pending.pop()
            yield node
            pending.extend(node.children.values())

    def bury(self, top: Node) -> None:
        """Take note that a whole directory became part of a version."""
        above = [parent for parent, _ in top.names]
        for parent, name in list(top.names):
            self.detach(parent, name)
        buried = [top]
        for node in buried:  # grows meanwhile
            for name, child in list(node.children.items()):
                self.detach(node, name)
                if not child.names:
                    buried.append(child)
        self._resting.append((time.monotonic() + _REST, self._kept.pop(top, [])))
        for node in buried:
            node.gone = True
            self._close(node)
        for node in buried + above:
            self.reap(node)
