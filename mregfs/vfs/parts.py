"""What a file system is made of.

Decided here: nothing; the daemon puts the parts together, `filesystem` uses them.
"""

from collections.abc import Callable

import msgspec

from mregfs.model.names import ProjectName
from mregfs.ports import Clock
from mregfs.ports.index import Index
from mregfs.registry.log.tail import LogTail
from mregfs.registry.read.content import Content
from mregfs.vfs.events import EventReaders
from mregfs.vfs.follower import Follower
from mregfs.vfs.gestures import Gestures
from mregfs.vfs.interface import Caller, DraftTree, KernelNotices
from mregfs.vfs.query import Questions
from mregfs.vfs.transactions import Transactions
from mregfs.vfs.tree import Tree
from mregfs.vfs.xattrs import Attributes as ExtendedAttributes

__all__ = ["Parts"]


class Parts(msgspec.Struct):
    """What a file system is made of; the daemon puts them together."""

    project: ProjectName
    index: Index
    tree: Tree
    content: Content
    drafts: DraftTree
    transactions: Transactions
    gestures: Gestures
    xattrs: ExtendedAttributes
    notices: KernelNotices
    with_groups: Callable[[Caller], Caller]
    """Look up the supplementary groups of a caller, while he waits for his answer."""
    clock: Clock
    tail: LogTail
    make_follower: Callable[[Callable[[], None]], Follower]
    make_events: Callable[[], EventReaders]
    status: Callable[[], bytes]
    questions: Questions
    read_only: bool = False
