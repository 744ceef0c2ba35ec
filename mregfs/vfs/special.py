"""`.mregfs` and its files: `control`, `events`, `status` and the questions below `query`.

Decided here: which of them an inode or a handle is, what each reads and writes, what stat tells of
it. Not decided here: what a command does (`runner`), what a reader of `events` gets (`events`), how
a question is answered (`query`).

Between two awaits a task has this object's tables to itself.
"""

from collections.abc import Callable, Iterator
from enum import Enum, auto
from functools import partial
from select import POLLIN, POLLOUT
from stat import S_IFDIR, S_IFREG

import trio

from mregfs.errors import ForbiddenError, MregfsError, NotFoundError
from mregfs.model import paths
from mregfs.vfs.answers import Answer, InLoop, InThread
from mregfs.vfs.appearance import FOR_EVER, Appearance
from mregfs.vfs.control import ControlSessions
from mregfs.vfs.events import EventReaders
from mregfs.vfs.interface import Attributes, Caller, ChangedAttributes, OpenFile, OpenFlags
from mregfs.vfs.numbers import (
    CONTROL,
    CONTROLS,
    EVENTS,
    META,
    QUERIES,
    QUERY,
    STATUS,
    Space,
    handles_of,
)
from mregfs.vfs.operations import decode_name
from mregfs.vfs.query import QueryNames, Questions
from mregfs.vfs.runner import Runner
from mregfs.vfs.unchanging import Unchanging, stale

__all__ = ["SpecialTree"]


class Kind(Enum):
    """What something in `.mregfs` is."""

    META = auto()
    """The directory itself."""
    CONTROL = auto()
    EVENTS = auto()
    STATUS = auto()
    QUERY = auto()
    """`query`, and what is below it that another name follows."""
    ANSWER = auto()
    """A question below `query`: a file."""


_FIXED = {
    META: Kind.META,
    CONTROL: Kind.CONTROL,
    EVENTS: Kind.EVENTS,
    STATUS: Kind.STATUS,
    QUERY: Kind.QUERY,
}
_NAMES = {
    paths.CONTROL: CONTROL,
    paths.EVENTS: EVENTS,
    paths.QUERY: QUERY,
    paths.STATUS: STATUS,
}
_DIRECTORIES = (Kind.META, Kind.QUERY)


class SpecialTree(Unchanging):
    """The files of one mount that are no data."""

    def __init__(
        self,
        appearance: Appearance,
        runner: Runner,
        control: ControlSessions,
        events: EventReaders,
        names: QueryNames,
        questions: Questions,
        status: Callable[[], bytes],
        with_groups: Callable[[Caller], Caller],
    ) -> None:
        self._appearance = appearance
        self._runner = runner
        self._control = control
        self._events = events
        self._query_names = names
        self._questions = questions
        self._make_status = status
        self._with_groups = with_groups
        self._numbers = handles_of(Space.SPECIAL)
        self._open: dict[int, Kind] = {}
        self._status: dict[int, bytes] = {}

    def _kind(self, inode: int) -> Kind:
        kind = _FIXED.get(inode)
        if kind is not None:
            return kind
        if inode & QUERIES == QUERIES:
            return Kind.ANSWER if inode & 1 else Kind.QUERY
        if inode < CONTROLS:
            raise stale(inode)
        return Kind.CONTROL

    # ---- names and attributes

    def lookup(self, parent: int, name: bytes) -> Attributes:
        """Find a name; below `query` it is made a question."""
        text = decode_name(name)
        if self._kind(parent) is Kind.QUERY:
            return self.getattr(self._query_names.find(parent, name))
        inode = _NAMES.get(text)
        if inode is None or parent != META:
            raise NotFoundError(f"{text!r} does not exist")
        return self.getattr(self._control.inode() if inode == CONTROL else inode)

    def getattr(self, inode: int) -> Attributes:
        """Answer stat(2). Sizes are 0: the files are read with direct I/O."""
        kind = self._kind(inode)
        modes = self._appearance.modes
        own = modes.control() if kind is Kind.CONTROL else modes.directory(self._appearance.project)
        if kind in _DIRECTORIES:
            mode = S_IFDIR | (own.mode & 0o555)
        elif kind in (Kind.CONTROL, Kind.EVENTS):
            mode = S_IFREG | (own.mode & 0o666)
        else:
            mode = S_IFREG | (own.mode & 0o444)
        if kind is Kind.EVENTS:
            mode |= (mode & 0o444) >> 1  # who may read may say `since N`
        at_ns = self._appearance.changed_at_ns
        return Attributes(
            inode,
            mode,
            uid=own.uid,
            gid=own.gid,
            atime_ns=at_ns,
            mtime_ns=at_ns,
            ctime_ns=at_ns,
            # The names below `query` are without number.
            entry_timeout=0.0 if inode & QUERIES == QUERIES else FOR_EVER,
            # When modes change, the kernel is told of the first `control` alone.
            attr_timeout=0.0 if kind is Kind.CONTROL and inode != CONTROL else FOR_EVER,
        )

    def setattr(
        self, inode: int, changed: ChangedAttributes, handle: int | None, caller: Caller
    ) -> Attributes:
        """Do nothing to a file that is written to, as `echo … >` truncates it first."""
        written = self._kind(inode) in (Kind.CONTROL, Kind.EVENTS)
        if not written or (changed.mode, changed.uid) != (None, None):
            raise self.refuse_change(inode)
        return self.getattr(inode)

    # ---- what is refused

    def refuse_new(self, parent: int, what: str) -> MregfsError:
        """Return the error of a request to make `what` in a directory."""
        return ForbiddenError(
            f"{what} cannot be made here", "write files into a draft below staging/"
        )

    def refuse_change(self, inode: int) -> MregfsError:
        """Return the error of a request to change what a number stands for."""
        return ForbiddenError("the registry keeps the attributes of its own directories")

    def refuse_removal(self, parent: int, name: bytes) -> MregfsError:
        """Return the error of a request to remove or rename a name."""
        return ForbiddenError("this is part of every mount and cannot be removed")

    # ---- files

    def open(self, inode: int, flags: OpenFlags, caller: Caller) -> Answer[OpenFile]:
        """Open a file; what `status` and an answer say is made first."""
        kind = self._kind(inode)
        if kind in _DIRECTORIES:
            return super().open(inode, flags, caller)
        if kind in (Kind.STATUS, Kind.ANSWER):
            if flags.writes:
                raise ForbiddenError(f"{kind.name.lower()} is read-only")
            make = self._open_status if kind is Kind.STATUS else self._open_answer
            return InLoop(partial(make, inode, caller))
        handle = next(self._numbers)
        # Now, before he is answered: what is written later is written with his rights, though he
        # may have ended by then, and his process id may be somebody else's.
        known = self._with_groups(caller)
        if kind is Kind.CONTROL:
            self._control.open(handle, inode, flags, known)
        else:
            self._events.open(handle, flags, known)
        return self._opened(handle, kind)

    def _opened(self, handle: int, kind: Kind) -> OpenFile:
        self._open[handle] = kind
        return OpenFile(handle, direct_io=True)

    async def _open_status(self, inode: int, caller: Caller) -> OpenFile:
        status = await trio.to_thread.run_sync(self._make_status)
        handle = next(self._numbers)
        self._status[handle] = status
        return self._opened(handle, Kind.STATUS)

    async def _open_answer(self, inode: int, caller: Caller) -> OpenFile:
        handle = next(self._numbers)
        if not await self._questions.open(handle, inode, self._with_groups(caller)):
            raise stale(inode)
        return self._opened(handle, Kind.ANSWER)

    def read(self, handle: int, offset: int, size: int) -> Answer[bytes]:
        """Read; waits on `events` alone, until there is news."""
        kind = self._open[handle]
        if kind is Kind.CONTROL:
            return self._control.read(handle, offset, size)
        if kind is Kind.EVENTS:
            return InLoop(partial(self._events.read, handle, size))
        if kind is Kind.ANSWER:
            return self._questions.read(handle, offset, size)
        return self._status[handle][offset : offset + size]

    def write(
        self, handle: int, offset: int, data: bytes, caller: Caller | None = None
    ) -> Answer[int]:
        """Take `since N` on `events`, or a script on `control`.

        A script raises MregfsError when it failed and its writer cannot read the reply.
        """
        if self._open[handle] is Kind.EVENTS:
            return self._events.write(handle, data)
        loop = trio.lowlevel.current_trio_token()
        requester = 0 if caller is None else caller.pid
        return InThread(partial(self._script, handle, data, requester, loop))

    def _script(
        self, handle: int, data: bytes, requester: int, loop: trio.lowlevel.TrioToken
    ) -> int:
        control = self._control
        try:
            text = control.script(handle, data)
            if text is None:
                return len(data)
            outcome = self._runner.script(text, control.caller(handle), requester, loop)
        except MregfsError as error:
            control.failed(handle, error)
        else:
            control.succeeded(handle, outcome)
        return len(data)

    def release(self, handle: int) -> None:
        """Close a file."""
        kind = self._open.pop(handle, None)
        if kind is Kind.CONTROL:
            self._control.close(handle)
        elif kind is Kind.EVENTS:
            self._events.close(handle)
        elif kind is Kind.ANSWER:
            self._questions.close(handle)
        else:
            self._status.pop(handle, None)

    def poll(self, handle: int, wake: Callable[[], None] | None) -> int:
        """Return the ready poll(2) events; only `events` is ever not ready."""
        if self._open[handle] is Kind.EVENTS:
            return self._events.poll(handle, wake)
        return POLLIN | POLLOUT

    # ---- directories

    def opendir(self, inode: int, caller: Caller) -> Answer[int]:
        """Open a directory. Nothing below `query` is ever listed."""
        kind = self._kind(inode)
        if kind not in _DIRECTORIES:
            return super().opendir(inode, caller)
        handle = next(self._numbers)
        self._open[handle] = kind
        return handle

    def readdir(self, handle: int, start: int) -> Iterator[tuple[bytes, Attributes, int]]:
        """List an open directory from a position."""
        names = sorted(_NAMES) if self._open[handle] is Kind.META else []
        for place, name in enumerate(names[start:], start + 1):
            yield name.encode(), self.getattr(_NAMES[name]), place

    def releasedir(self, handle: int) -> None:
        """Close a directory."""
        self._open.pop(handle, None)
