"""Open files of the registry's tree: published files, `control`, `events`, `status`, `query`.

Decided here: what a handle reads and writes. Not decided here: bytes of files (`content`), what a
command does (`transactions`).
"""

from collections.abc import Callable
from functools import partial
from select import POLLIN, POLLOUT

import trio

from mregfs.errors import (
    ForbiddenError,
    HostError,
    ImmutableError,
    MregfsError,
    NotFoundError,
)
from mregfs.registry.read.content import OpenContent
from mregfs.vfs.control import ControlSessions, Outcome
from mregfs.vfs.events import EventReaders
from mregfs.vfs.interface import Caller, Later, OpenFile
from mregfs.vfs.parts import Parts
from mregfs.vfs.tree import Node, NodeKind, stale

__all__ = ["OpenFiles"]

_EISDIR = 21
_WRITING = 0o3


class OpenFiles:
    """The handle table of one mount. Between two awaits a task has it to itself."""

    def __init__(self, parts: Parts, events: EventReaders) -> None:
        self._questions = parts.questions
        self._content = parts.content
        self._events = events
        self._make_status = parts.status
        self._with_groups = parts.with_groups
        self._control = ControlSessions()
        self._files: dict[int, OpenContent] = {}
        self._nodes: dict[int, Node] = {}
        self._special: dict[int, NodeKind] = {}
        self._status: dict[int, bytes] = {}

    async def open(self, node: Node, handle: int, flags: int, caller: Caller) -> OpenFile:
        """Open a node under a fresh handle; the content of a version must be ready.

        Raises:
            MregfsError: it is no file, or not for writing.
        """
        opened = self.open_nowait(node, handle, flags, caller)
        if opened is None and node.kind is NodeKind.ANSWER:
            if not await self._questions.open(handle, node.inode, self._with_groups(caller)):
                raise stale(node.inode)
            self._special[handle] = node.kind
            opened = OpenFile(handle, direct_io=True)
        elif opened is None:
            self._status[handle] = await trio.to_thread.run_sync(self._make_status)
            self._special[handle] = node.kind
            opened = OpenFile(handle, direct_io=True)
        return opened

    def open_nowait(self, node: Node, handle: int, flags: int, caller: Caller) -> OpenFile | None:
        """Do what `open` does, or return None: what is read has to be made first.

        Raises:
            MregfsError: it is no file, or not for writing.
        """
        if node.version is not None:
            try:
                content = self._content.open(node.version, node.position)
            except NotFoundError:  # the index has lost it since it was ready: look it up again
                raise stale(node.inode) from None
            self._files[handle] = content
            self._nodes[handle] = node
            return OpenFile(handle, content.backing(), keep_cache=not content.watched)
        if node.kind is NodeKind.CONTROL:
            # Now, before he is answered: what is written later is written with his rights, though
            # he may have ended by then, and his process id may be somebody else's.
            self._control.open(handle, node.inode, flags, self._with_groups(caller))
        elif node.kind is NodeKind.EVENTS:
            self._events.open(handle, flags, self._with_groups(caller))
        elif node.kind in (NodeKind.STATUS, NodeKind.ANSWER):
            if flags & _WRITING:
                raise ForbiddenError(f"{node.kind.name.lower()} is only to be read")
            return None
        else:
            raise HostError(_EISDIR, "this is no file")
        self._special[handle] = node.kind
        return OpenFile(handle, direct_io=True)

    async def read(self, handle: int, offset: int, size: int) -> bytes:
        """Return up to `size` bytes at `offset`; waits only on `events` and on a cold disk."""
        data = self.read_nowait(handle, offset, size)
        if data is None:
            return await self._events.read(handle, size)
        return await trio.to_thread.run_sync(data) if callable(data) else data

    def read_nowait(self, handle: int, offset: int, size: int) -> bytes | Later[bytes] | None:
        """Return what `read` would, or what a thread is to do for it, or None: it would wait."""
        content = self._files.get(handle)
        if content is not None:
            data = content.read_cached(offset, size)
            return partial(content.read, offset, size) if data is None else data
        kind = self._special.get(handle)
        if kind is NodeKind.CONTROL:
            return self._control.read(handle, offset, size)
        if kind is NodeKind.EVENTS:
            return None
        if kind is NodeKind.ANSWER:
            return self._questions.read(handle, offset, size)
        return self._status[handle][offset : offset + size]

    def write(
        self, handle: int, data: bytes, command: Callable[[str, Caller], Outcome]
    ) -> int | Later[int]:
        """Take a write: `since N` on `events`, or a script on `control`, which `command` runs.

        What takes a thread raises MregfsError there, when the command failed and its writer cannot
        read the reply.
        """
        kind = self._special.get(handle)
        if kind is NodeKind.EVENTS:
            return self._events.write(handle, data)
        if kind is not NodeKind.CONTROL:
            raise ImmutableError("a published version never changes")
        return partial(self._run, handle, data, command)

    def _run(self, handle: int, data: bytes, command: Callable[[str, Caller], Outcome]) -> int:
        try:
            outcome = command(self._control.text(data), self._control.caller(handle))
        except MregfsError as error:
            self._control.failed(handle, error)
        else:
            self._control.succeeded(handle, outcome)
        return len(data)

    def keep_reason(self, caller: Caller, error: MregfsError) -> None:
        """Keep why a gesture failed, for its user's next `cat` of `control`."""
        self._control.keep_reason(caller, error)

    def control_inode(self) -> int:
        """Return the inode number of `control` for whoever looks it up now."""
        return self._control.inode()

    def node(self, inode: int) -> Node | None:
        """Return the published file that is open under this number, deleted or not; or None."""
        return next((node for node in self._nodes.values() if node.inode == inode), None)

    def release(self, handle: int) -> None:
        """Give a handle up."""
        content = self._files.pop(handle, None)
        if content is not None:
            del self._nodes[handle]
            content.close()
            return
        kind = self._special.pop(handle, None)
        if kind is NodeKind.CONTROL:
            self._control.close(handle)
        elif kind is NodeKind.EVENTS:
            self._events.close(handle)
        elif kind is NodeKind.ANSWER:
            self._questions.close(handle)
        self._status.pop(handle, None)

    def poll(self, handle: int, wake: Callable[[], None] | None) -> int:
        """Return the ready poll(2) events; only `events` is ever not ready."""
        if self._special.get(handle) is NodeKind.EVENTS:
            return self._events.poll(handle, wake)
        return POLLIN | POLLOUT
