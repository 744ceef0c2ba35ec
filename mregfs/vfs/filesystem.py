"""The file system: every request of the kernel, handed to the part that answers it.

Decided here: which requests go to the staging area and which to the registry's tree, what runs
inline and what in a worker thread, when the kernel is told of changes. Not decided here: what the
tree looks like (`tree`), what gestures mean (`gestures`). Implements `interface.FileSystem`.

Between two awaits a task has this object's tables to itself; a view of the index is never held
across one.
"""

import errno
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from select import POLLIN, POLLOUT

import trio

from mregfs.errors import ForbiddenError, HostError, ImmutableError, MregfsError, NotFoundError
from mregfs.model.commands import Command, CommitRequest
from mregfs.model.grammar import Statement, parse_script
from mregfs.model.names import ProjectName
from mregfs.model.paths import STAGING
from mregfs.model.state import State
from mregfs.vfs.control import Outcome
from mregfs.vfs.gestures import decode_name
from mregfs.vfs.interface import (
    DRAFT_BIT,
    Attributes,
    Caller,
    ChangedAttributes,
    FileSystemFigures,
    Later,
    OpenFile,
)
from mregfs.vfs.listing import Listing
from mregfs.vfs.open_files import OpenFiles
from mregfs.vfs.parts import Parts
from mregfs.vfs.pending import PENDING_BIT, PendingLink, PendingLinks, is_temporary
from mregfs.vfs.tree import FOR_EVER, Node, NodeKind, stale
from mregfs.vfs.xattrs import PREFIX

__all__ = ["RegistryFileSystem"]

log = logging.getLogger(__name__)

_PREFIX = PREFIX.encode()
_WRITING = 0o3
_O_TRUNC = 0o1000
_RENAME_NOREPLACE = 1
_DRAIN_LIMIT = 1.0
"""Seconds that a reply waits for the kernel to forget names; it takes well under a millisecond."""


class RegistryFileSystem:
    """One mount of one project of one store."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._index = parts.index
        self._tree = parts.tree
        self._content = parts.content
        self._drafts = parts.drafts
        self._gestures = parts.gestures
        self._pending = PendingLinks(parts.index, parts.tree)
        events = parts.make_events()
        self._files = OpenFiles(parts, events)
        self._follower = parts.make_follower(events.wake)
        self._listings: dict[int, Listing] = {}
        self._refused: dict[str, int] = {}
        self._next_handle = 2
        # Commits may take minutes; they must not use up the threads that others wait for.
        self._writers = trio.CapacityLimiter(16)

    async def follow(self) -> None:
        """Watch the log for what others append, until cancelled; then its thread has ended."""
        tail, loop = self._parts.tail, trio.lowlevel.current_trio_token()

        def on_news() -> None:
            loop.run_sync_soon(self._follow_quietly, idempotent=True)

        alone = trio.CapacityLimiter(1)
        try:
            await trio.to_thread.run_sync(tail.run, on_news, abandon_on_cancel=True, limiter=alone)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(tail.stop)

    @property
    def refused(self) -> dict[str, int]:
        """Why passthrough was refused for files, and how often."""
        return dict(self._refused)

    # ---- helpers

    def _node(self, state: State, inode: int) -> Node:
        return self._tree.node(state, inode)

    def _new_handle(self) -> int:
        self._next_handle += 2  # even; the drafts' handles are made odd
        return self._next_handle

    async def _run(self, statements: Sequence[Statement], caller: Caller) -> Outcome:
        try:
            run = partial(self._parts.transactions.run, statements, caller, caller.pid)
            return await trio.to_thread.run_sync(run, limiter=self._writers)
        except MregfsError as exc:
            self._files.keep_reason(caller, exc)
            raise
        finally:
            self._follower.follow()

    async def _gesture(self, commands: Sequence[Command], caller: Caller) -> None:
        await self._run([Statement(command=command) for command in commands], caller)

    def _is_ready(self, node: Node) -> bool:
        return node.version is None or (node.is_known and self._content.ready(node.version))

    async def _ready(self, node: Node) -> None:
        if node.version is not None and not self._content.ready(node.version):
            await trio.to_thread.run_sync(self._content.ensure, node.version)

    async def _loaded(self, inode: int) -> Node:
        """Return what a number stands for, with the content of its version in the index."""
        while not self._is_ready(node := self._in_registry(inode)):
            await self._ready(node)
        return node

    # ---- lookup and attributes

    async def lookup(self, parent: int, name: bytes, caller: Caller) -> Attributes:
        """See `FileSystem.lookup`."""
        while (found := self.lookup_nowait(parent, name, caller)) is None:
            await self._loaded(parent)
        return found

    def lookup_nowait(self, parent: int, name: bytes, caller: Caller) -> Attributes | None:
        """See `FileSystem.lookup`; None when the content of a version is not in the index."""
        if parent & DRAFT_BIT:
            return self._drafts.lookup(parent, name)
        text = decode_name(name)
        with self._index.read() as view:
            state = State(view)
            node = self._node(state, parent)
            if not self._is_ready(node):
                return None
            return self._lookup(state, node, name, text)

    def _lookup(self, state: State, parent: Node, name: bytes, text: str) -> Attributes | None:
        found = self._tree.lookup(state, parent, text)
        if found is not None:
            if found.kind is NodeKind.CONTROL:
                found = self._node(state, self._files.control_inode())
            return self._tree.attributes(state, found)
        if parent.version is not None:
            # The kernel believes it for ever: so only if the content is there, and lacks the name.
            lacks = self._content.lacks(parent.version, parent.position, text)
            return Attributes(0, 0, entry_timeout=FOR_EVER) if lacks else None
        if parent.kind is NodeKind.OWNER:
            pending = self._pending.find(parent.inode, name)
            if pending is not None:
                return self._pending.attributes(pending)
        elif text == STAGING and parent.kind in (NodeKind.ROOT, NodeKind.PROJECT):
            return self._staging(parent)
        raise NotFoundError(f"{text!r} does not exist")

    def _staging(self, parent: Node) -> Attributes:
        attributes = self._drafts.root(parent.project)
        attributes.entry_timeout = FOR_EVER
        return attributes

    def forget(self, inode: int, count: int) -> None:
        """See `FileSystem.forget`."""
        if inode & DRAFT_BIT:
            self._drafts.forget(inode, count)
        elif inode & PENDING_BIT:
            self._pending.forget(inode)

    def getattr(self, inode: int) -> Attributes:
        """See `FileSystem`."""
        if inode & DRAFT_BIT:
            return self._drafts.getattr(inode)
        if inode & PENDING_BIT:
            return self._pending.stat(inode)
        with self._index.read() as view:
            state = State(view)
            return self._tree.attributes(state, self._known(state, inode))

    def _known(self, state: State, inode: int) -> Node:
        """Return what a number stands for, or stood for and is open; from what is at hand.

        Raises:
            HostError: ESTALE, nothing, or its content is to be loaded: the next lookup does it.
        """
        try:
            node = self._node(state, inode)
        except HostError:
            node = None
        if node is None or not node.is_known:
            node = self._files.node(inode)
        if node is None:
            raise stale(inode)
        return node

    async def setattr(
        self, inode: int, changed: ChangedAttributes, handle: int | None, caller: Caller
    ) -> Attributes:
        """See `FileSystem`."""
        if inode & DRAFT_BIT:
            own = None if handle is None else handle >> 1
            return self._drafts.setattr(inode, changed, own, caller)
        if inode & PENDING_BIT:
            return self._pending.stat(inode)  # `cp -a` sets times of the links it makes
        with self._index.read() as view:
            state = State(view)
            node = self._node(state, inode)
            special = node.kind in (NodeKind.CONTROL, NodeKind.EVENTS)
            if not special or changed.mode is not None or changed.uid is not None:
                raise self._gestures.refuse_change(node)
            return self._tree.attributes(state, node)  # `echo … >` truncates first

    def readlink(self, inode: int) -> bytes:
        """See `FileSystem`. Targets are read from the index each time: a move shows at once."""
        if inode & DRAFT_BIT:
            return self._drafts.readlink(inode)
        if inode & PENDING_BIT:
            return self._pending.readlink(inode)
        with self._index.read() as view:
            state = State(view)
            return self._tree.readlink(state, self._known(state, inode)).encode()

    async def access(self, inode: int, mode: int, caller: Caller) -> bool:
        """See `FileSystem`; permissions are the kernel's own business (default_permissions)."""
        return True

    async def statfs(self) -> FileSystemFigures:
        """See `FileSystem`: the figures of the file system that the store is on."""
        return self._drafts.figures()

    # ---- changes of the tree

    def _in_registry(self, inode: int) -> Node:
        with self._index.read() as view:
            return self._node(State(view), inode)

    async def mknod(
        self, parent: int, name: bytes, mode: int, rdev: int, caller: Caller
    ) -> Attributes:
        """See `FileSystem`."""
        if parent & DRAFT_BIT:
            return self._drafts.mknod(parent, name, mode, rdev, caller)
        raise self._gestures.refuse_new(self._in_registry(parent))

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, caller: Caller
    ) -> tuple[OpenFile, Attributes]:
        """See `FileSystem`."""
        if parent & DRAFT_BIT:
            opened, attributes = self._drafts.create(parent, name, mode, flags, caller)
            opened.handle = opened.handle << 1 | 1
            return opened, attributes
        raise self._gestures.refuse_new(self._in_registry(parent))

    async def link(self, inode: int, parent: int, name: bytes, caller: Caller) -> Attributes:
        """See `FileSystem`."""
        if inode & DRAFT_BIT and parent & DRAFT_BIT:
            return self._drafts.link(inode, parent, name, caller)
        if parent & DRAFT_BIT:
            raise HostError(errno.EXDEV, "a published file cannot be hard-linked", "copy it")
        raise self._gestures.refuse_new(self._in_registry(parent))

    async def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller) -> Attributes:
        """See `FileSystem`."""
        if parent & DRAFT_BIT:
            return self._drafts.mkdir(parent, name, mode, caller)
        text = decode_name(name)
        commands = self._gestures.mkdir(self._in_registry(parent), text)
        await self._gesture(commands, caller)
        return await self.lookup(parent, name, caller)

    async def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Attributes:
        """See `FileSystem`."""
        if parent & DRAFT_BIT:
            return self._drafts.symlink(parent, name, target, caller)
        node = self._in_registry(parent)
        if node.kind is NodeKind.OWNER and is_temporary(name):
            if self._parts.read_only:
                raise ImmutableError("this mount is read-only")
            made = self._pending.make(parent, name, target, caller, self._parts.clock())
            return self._pending.attributes(made)
        commands = self._gestures.symlink(node, decode_name(name), decode_name(target), caller)
        await self._gesture(commands, caller)
        return await self.lookup(parent, name, caller)

    async def unlink(self, parent: int, name: bytes, caller: Caller) -> None:
        """See `FileSystem`."""
        if parent & DRAFT_BIT:
            self._drafts.unlink(parent, name, caller)
            return
        pending = self._pending.find(parent, name)
        if pending is not None:
            self._pending.remove(pending)
            return
        commands = self._gestures.unlink(await self._child(parent, name))
        await self._gesture(commands, caller)

    async def rmdir(self, parent: int, name: bytes, caller: Caller) -> None:
        """See `FileSystem`."""
        if parent & DRAFT_BIT:
            self._drafts.rmdir(parent, name, caller)
            return
        if name == STAGING.encode():
            raise ForbiddenError("the staging area is part of every mount")
        commands = self._gestures.rmdir(await self._child(parent, name))
        await self._gesture(commands, caller)

    async def _child(self, parent: int, name: bytes) -> Node:
        text = decode_name(name)
        node = await self._loaded(parent)
        with self._index.read() as view:
            found = self._tree.lookup(State(view), node, text)
        if found is None:
            raise NotFoundError(f"{text!r} does not exist")
        return found

    async def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int, caller: Caller
    ) -> None:
        """See `FileSystem`."""
        if parent & DRAFT_BIT and new_parent & DRAFT_BIT:
            self._drafts.rename(parent, name, new_parent, new_name, flags, caller)
            return
        if flags & ~_RENAME_NOREPLACE:
            raise HostError(errno.EINVAL, "names of the registry cannot be exchanged")
        if parent & DRAFT_BIT:
            await self._rename_draft(parent, name, new_parent, new_name, caller)
            return
        pending = self._pending.find(parent, name)
        if pending is not None:
            await self._rename_pending(pending, new_parent, new_name, flags, caller)
            return
        source = await self._child(parent, name)
        if new_parent & DRAFT_BIT:
            raise ImmutableError("what is published cannot be moved into the staging area")
        commands = self._gestures.rename(
            source, self._in_registry(new_parent), decode_name(new_name)
        )
        await self._gesture(commands, caller)
        # The kernel has moved its entry; the registry may have given the name another inode.
        self._parts.notices.forget_name(new_parent, new_name)

    async def _rename_draft(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, caller: Caller
    ) -> None:
        artifact = self._gestures.commit_target(
            self._in_registry(new_parent), decode_name(new_name)
        )
        project = self._drafts.project_of(parent)
        if project is None:
            raise ForbiddenError(
                "only a whole draft can become a version",
                "move the directory directly below staging/",
            )
        entity, _, short = project.partition("/")
        request = CommitRequest(
            project=ProjectName(entity, short), draft=decode_name(name), artifact=artifact
        )
        await self._run([Statement(command=request)], caller)
        self._parts.notices.forget_name(new_parent, new_name)

    async def _rename_pending(
        self, pending: PendingLink, new_parent: int, new_name: bytes, flags: int, caller: Caller
    ) -> None:
        if new_parent & DRAFT_BIT:
            raise ForbiddenError("an alias cannot be moved into the staging area")
        directory = self._in_registry(new_parent)
        if is_temporary(new_name) and directory.kind is NodeKind.OWNER:
            self._pending.move(pending, new_parent, new_name)
            return
        text = decode_name(new_name)
        if flags & _RENAME_NOREPLACE:
            with self._index.read() as view:
                if self._tree.lookup(State(view), directory, text) is not None:
                    raise HostError(errno.EEXIST, f"{text!r} exists already")
        target = decode_name(pending.target)
        await self._gesture(self._gestures.symlink(directory, text, target, caller), caller)
        self._pending.becomes_alias(pending, new_parent, text)
        self._parts.notices.forget_name(new_parent, new_name)

    # ---- files

    async def open(self, inode: int, flags: int, caller: Caller) -> OpenFile:
        """See `FileSystem`."""
        opened = self.open_nowait(inode, flags, caller)
        if opened is not None:
            return opened
        node = await self._loaded(inode)
        return await self._files.open(node, self._new_handle(), flags, caller)

    def open_nowait(self, inode: int, flags: int, caller: Caller) -> OpenFile | None:
        """See `FileSystem`."""
        if inode & DRAFT_BIT:
            opened = self._drafts.open(inode, flags, caller)
            opened.handle = opened.handle << 1 | 1
            return opened
        node = self._in_registry(inode)
        if node.kind is NodeKind.VERSION and flags & (_WRITING | _O_TRUNC):
            raise ImmutableError("a published version never changes")
        if not self._is_ready(node):
            return None
        return self._files.open_nowait(node, self._new_handle(), flags, caller)

    async def read(self, handle: int, offset: int, size: int) -> bytes:
        """See `FileSystem`."""
        if handle & 1:
            return self._drafts.read(handle >> 1, offset, size)
        return await self._files.read(handle, offset, size)

    def read_nowait(self, handle: int, offset: int, size: int) -> bytes | Later[bytes] | None:
        """See `FileSystem`."""
        if handle & 1:
            return self._drafts.read(handle >> 1, offset, size)
        return self._files.read_nowait(handle, offset, size)

    async def write(
        self, handle: int, offset: int, data: bytes, caller: Caller | None = None
    ) -> int:
        """See `FileSystem`. A write to `control` is a transaction."""
        written = self.write_nowait(handle, offset, data, caller)
        if callable(written):
            return await trio.to_thread.run_sync(written, limiter=self._writers)
        return written

    def write_nowait(
        self, handle: int, offset: int, data: bytes, caller: Caller | None = None
    ) -> int | Later[int]:
        """See `FileSystem`."""
        if handle & 1:
            return self._drafts.write(handle >> 1, offset, data, caller)
        loop = trio.lowlevel.current_trio_token()
        requester = 0 if caller is None else caller.pid
        return self._files.write(
            handle, data, lambda text, opener: self._command(text, opener, requester, loop)
        )

    def _command(
        self, text: str, caller: Caller, requester: int, loop: trio.lowlevel.TrioToken
    ) -> Outcome:
        """Run a script; in a thread."""
        statements = parse_script(
            text, self._parts.project, lambda path: self._gestures.strip(path, caller)
        )
        # Before the transaction: another task may follow its entry before this one does.
        stale_names = self._follower.stale_names
        outcome = self._parts.transactions.run(statements, caller, requester)
        if outcome.keeps_names:
            loop.run_sync_soon(self._follow_quietly)
            return outcome
        trio.from_thread.run_sync(self._follow_quietly, trio_token=loop)
        for inode in outcome.consumed:  # not the name: its directory may be locked for a commit
            self._parts.notices.forget_attributes(inode)
        if outcome.consumed or self._follower.stale_names != stale_names:
            # A gesture changes the kernel's own entry; after a command it must forget the name
            # before its writer looks. That takes no lock which the writer of `control` holds.
            self._parts.notices.drain(_DRAIN_LIMIT)
        return outcome

    def _follow_quietly(self) -> None:
        """Tell the kernel of what is new; what cannot be told now is told at the next entry."""
        try:
            self._follower.follow()
        except MregfsError as exc:
            log.error("the kernel is not told of what is new: %s", exc)

    def flush(self, handle: int) -> None:
        """See `FileSystem`; nothing is held back, so there is nothing to flush."""

    async def fsync(self, handle: int, *, data_only: bool) -> None:
        """See `FileSystem`."""
        if handle & 1:
            await trio.to_thread.run_sync(
                lambda: self._drafts.fsync(handle >> 1, data_only=data_only)
            )

    def release(self, handle: int) -> None:
        """See `FileSystem`."""
        if handle & 1:
            self._drafts.release(handle >> 1)
        else:
            self._files.release(handle)

    async def poll(self, handle: int, wake: Callable[[], None] | None) -> int:
        """See `FileSystem`."""
        if handle & 1:
            return POLLIN | POLLOUT
        return self._files.poll(handle, wake)

    def backing_refused(self, handle: int, reason: str) -> None:
        """See `FileSystem`; counted for `status`."""
        self._refused[reason] = self._refused.get(reason, 0) + 1

    # ---- directories

    async def opendir(self, inode: int, caller: Caller) -> int:
        """See `FileSystem`."""
        while (handle := self.opendir_nowait(inode, caller)) is None:
            await self._loaded(inode)
        return handle

    def opendir_nowait(self, inode: int, caller: Caller) -> int | None:
        """See `FileSystem`."""
        if inode & DRAFT_BIT:
            return self._drafts.opendir(inode, caller) << 1 | 1
        node = self._in_registry(inode)
        if not self._is_ready(node):
            return None
        handle = self._new_handle()
        self._listings[handle] = Listing(
            self._index, self._tree, node, self._pending, self._staging
        )
        return handle

    def readdir(self, handle: int, start: int) -> Iterator[tuple[bytes, Attributes, int]]:
        """See `FileSystem`."""
        if handle & 1:
            return self._drafts.readdir(handle >> 1, start)
        return self._listings[handle].entries(start)

    def releasedir(self, handle: int) -> None:
        """See `FileSystem`."""
        if handle & 1:
            self._drafts.releasedir(handle >> 1)
        else:
            self._listings.pop(handle, None)

    async def fsyncdir(self, handle: int) -> None:
        """See `FileSystem`."""
        if handle & 1:
            await trio.to_thread.run_sync(self._drafts.fsyncdir, handle >> 1)

    # ---- extended attributes

    async def getxattr(self, inode: int, name: bytes, caller: Caller) -> bytes:
        """See `FileSystem`."""
        value = self.getxattr_nowait(inode, name, caller)
        if value is None:
            node = await self._loaded(inode)
            value = await trio.to_thread.run_sync(self._xattr, node, name)
        return value

    def getxattr_nowait(self, inode: int, name: bytes, caller: Caller) -> bytes | None:
        """See `FileSystem`."""
        if inode & DRAFT_BIT:
            return self._drafts.getxattr(inode, name, caller)
        if inode & PENDING_BIT or not name.startswith(_PREFIX):
            raise _no_attribute(name)
        node = self._in_registry(inode)
        if self._parts.xattrs.is_slow(name) or not self._is_ready(node):
            return None
        return self._xattr(node, name)

    def _xattr(self, node: Node, name: bytes) -> bytes:
        key = name[len(_PREFIX) :].decode(errors="replace")
        with self._index.read() as view:
            value = self._parts.xattrs.value(State(view), node, key)
        if value is None:
            raise _no_attribute(name)
        return value

    async def listxattr(self, inode: int, caller: Caller) -> list[bytes]:
        """See `FileSystem`."""
        if inode & DRAFT_BIT:
            return self._drafts.listxattr(inode, caller)
        if inode & PENDING_BIT:
            return []
        names = self._parts.xattrs.names(await self._loaded(inode))
        return [f"{PREFIX}{name}".encode() for name in names]

    async def setxattr(self, inode: int, name: bytes, value: bytes, caller: Caller) -> None:
        """See `FileSystem`."""
        if inode & DRAFT_BIT:
            self._drafts.setxattr(inode, name, value, caller)
            return
        raise self._refuse_xattr(inode)

    async def removexattr(self, inode: int, name: bytes, caller: Caller) -> None:
        """See `FileSystem`."""
        if inode & DRAFT_BIT:
            self._drafts.removexattr(inode, name, caller)
            return
        raise self._refuse_xattr(inode)

    def _refuse_xattr(self, inode: int) -> MregfsError:
        if inode & PENDING_BIT:
            return HostError(errno.EOPNOTSUPP, "a symbolic link has no attributes of its own")
        return self._gestures.refuse_change(self._in_registry(inode))


def _no_attribute(name: bytes) -> MregfsError:
    return HostError(errno.ENODATA, f"there is no attribute {name.decode(errors='replace')!r}")
