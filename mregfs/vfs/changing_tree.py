"""File operations on the registry's tree: what `mkdir`, `ln`, `mv`, `rm` and `rmdir` lead to.

Decided here: which operations are done in memory (temporary symlinks), which are transactions, and
when the kernel is told of them. Not decided here: what operations mean (`operations`), how they are
carried out (`runner`).
"""

import errno
from collections.abc import Callable, Sequence
from functools import partial

from mregfs.errors import ForbiddenError, HostError, ImmutableError, MregfsError
from mregfs.model.commands import Command
from mregfs.model.state import State
from mregfs.ports.index import Index
from mregfs.vfs.answers import Answer, InLoop, settle
from mregfs.vfs.appearance import Node, NodeKind
from mregfs.vfs.interface import Attributes, Caller, KernelNotices, RenameMode
from mregfs.vfs.nodes import Nodes
from mregfs.vfs.operations import FileOperations, decode_name
from mregfs.vfs.pending import PendingLink, PendingLinks, is_temporary
from mregfs.vfs.runner import Runner
from mregfs.vfs.tree import Tree
from mregfs.vfs.unchanging import Unchanging

__all__ = ["ChangingTree"]


class ChangingTree(Unchanging):
    """The registry's tree as far as operations change it."""

    def __init__(
        self,
        index: Index,
        tree: Tree,
        nodes: Nodes,
        operations: FileOperations,
        pending: PendingLinks,
        runner: Runner,
        notices: KernelNotices,
    ) -> None:
        self._index = index
        self._tree = tree
        self._nodes = nodes
        self._operations = operations
        self._pending = pending
        self._runner = runner
        self._notices = notices

    def node(self, inode: int) -> Node:
        """Return what a number stands for."""
        return self._nodes.node(inode)

    # ---- what is refused

    def refuse_new(self, parent: int, what: str) -> MregfsError:
        """Return the error of a request to make `what` in a directory."""
        return self._operations.refuse_new(self._nodes.node(parent), what)

    def refuse_change(self, inode: int) -> MregfsError:
        """Return the error of a request to change what a number stands for."""
        return self._operations.refuse_change(self._nodes.node(inode))

    async def refuse_crossing(self, parent: int, name: bytes, *, to_drafts: bool) -> None:
        """Raise the error of a rename into another tree."""
        if to_drafts and self._pending.find(parent, name) is not None:
            raise ForbiddenError("an alias cannot be moved into the staging area")
        node = await self._nodes.child(parent, name)
        if to_drafts:
            raise ImmutableError("what is published cannot be moved into the staging area")
        raise self._operations.refuse_rename(node)

    # ---- operations

    def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller) -> InLoop[Attributes]:
        """Create a collection, or an artifact that has no version yet."""
        commands = self._operations.mkdir(self._nodes.node(parent), decode_name(name))
        return InLoop(partial(self._made, commands, parent, name, caller))

    def symlink(
        self, parent: int, name: bytes, target: bytes, caller: Caller
    ) -> Answer[Attributes]:
        """Point an alias at a version, or keep a symlink that is on its way to become one."""
        node = self._nodes.node(parent)
        if node.kind is NodeKind.OWNER and is_temporary(name):
            return self._pending.attributes(self._pending.make(parent, name, target, caller))
        commands = self._operations.symlink(node, decode_name(name), decode_name(target), caller)
        return InLoop(partial(self._made, commands, parent, name, caller))

    async def _made(
        self, commands: Sequence[Command], parent: int, name: bytes, caller: Caller
    ) -> Attributes:
        await self._runner.commands(commands, caller)
        return await settle(self.lookup(parent, name))

    def unlink(self, parent: int, name: bytes, caller: Caller) -> Answer[None]:
        """Drop an alias, or take a link out of a collection."""
        pending = self._pending.find(parent, name)
        if pending is not None:
            self._pending.remove(pending)
            return None
        return InLoop(partial(self._remove, self._operations.unlink, parent, name, caller))

    def rmdir(self, parent: int, name: bytes, caller: Caller) -> InLoop[None]:
        """Remove an empty collection or artifact."""
        return InLoop(partial(self._remove, self._operations.rmdir, parent, name, caller))

    async def _remove(
        self,
        operation: Callable[[Node], Sequence[Command]],
        parent: int,
        name: bytes,
        caller: Caller,
    ) -> None:
        await self._runner.commands(operation(await self._nodes.child(parent, name)), caller)

    def rename(
        self,
        parent: int,
        name: bytes,
        new_parent: int,
        new_name: bytes,
        mode: RenameMode,
        caller: Caller,
    ) -> Answer[None]:
        """Rename a collection or an alias, or put a symlink that was on its way in its place."""
        if mode is RenameMode.EXCHANGE:
            raise HostError(errno.EINVAL, "names of the registry cannot be exchanged")
        pending = self._pending.find(parent, name)
        if pending is None:
            return InLoop(partial(self._rename, parent, name, new_parent, new_name, caller))
        directory = self._nodes.node(new_parent)
        if is_temporary(new_name) and directory.kind is NodeKind.OWNER:
            self._pending.move(pending, new_parent, new_name)
            return None
        exclusive = mode is RenameMode.KEEP
        return InLoop(
            partial(self._rename_pending, pending, directory, new_name, caller, exclusive=exclusive)
        )

    async def _rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, caller: Caller
    ) -> None:
        source = await self._nodes.child(parent, name)
        commands = self._operations.rename(
            source, self._nodes.node(new_parent), decode_name(new_name)
        )
        await self._runner.commands(commands, caller)
        # The kernel has moved its entry; the registry may have given the name another inode.
        self._notices.forget_name(new_parent, new_name)

    async def _rename_pending(
        self, pending: PendingLink, directory: Node, name: bytes, caller: Caller, *, exclusive: bool
    ) -> None:
        text = decode_name(name)
        if exclusive:
            with self._index.read() as view:
                if self._tree.lookup(State(view), directory, text) is not None:
                    raise HostError(errno.EEXIST, f"{text!r} exists already")
        target = decode_name(pending.target)
        commands = self._operations.symlink(directory, text, target, caller)
        await self._runner.commands(commands, caller)
        self._pending.becomes_alias(pending, directory.inode, text)
        self._notices.forget_name(directory.inode, name)
