"""The protocol adapter: requests of the kernel become calls of `FileSystem`, and nothing else.

Decided here: how a request's fields and an answer's fields correspond, which errno an exception
becomes, and when a waiting read gives up. Not decided here: what any request answers (`vfs/`),
which files go by passthrough (`passthrough`), nor which requests never come as far as pyfuse3
(`fast_path`).

pyfuse3 ends the whole session on any exception but FUSEError, so every operation passes through
`_answers` or `_answer_at_once`; `_errno_of` is the one place where errors are translated and
logged.
"""

import errno
import logging
import os
import select
import stat
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import trio

from mregfs.errors import (
    CorruptError,
    HostError,
    MregfsError,
    NoSpaceError,
    UnavailableError,
    UnsupportedError,
)
from mregfs.fuse.fast_path import FastPath, list_entries
from mregfs.fuse.flags import open_flags, rename_mode
from mregfs.fuse.messages import NOT_AT_HAND, Answer, ByThread, Errno, Request, Sent
from mregfs.fuse.passthrough import Passthrough, ReadPath, pyfuse3
from mregfs.fuse.translation import (
    Context,
    caller_of,
    changes_of,
    entry_of,
    statvfs_of,
)
from mregfs.fuse.waits import Waits
from mregfs.fuse.wire import READ, SETXATTR
from mregfs.fuse.workers import Workers
from mregfs.host.descriptors import SHORTAGE, is_claimable, share
from mregfs.vfs.answers import settle
from mregfs.vfs.interface import Attributes, Caller, FileSystem, OpenFile

__all__ = ["Adapter"]

log = logging.getLogger(__name__)

_ALWAYS_READY = select.POLLIN | select.POLLOUT | select.POLLRDNORM | select.POLLWRNORM
"""What poll(2) tells of every ordinary file."""

_READERS = 16
"""Threads that verify what is read, and wait for the disk."""
_WRITERS = 64
"""Threads for transactions; each commit under way has one."""
_TRANSACTIONS = 16
"""The same of those that come by pyfuse3."""
_SPELLED = 80
"""How much of a request stands in the log when it fails."""

_SHORTAGE_INTERVAL = 60.0
"""Seconds between two lines about descriptors that ran out."""

_P = ParamSpec("_P")
_R = TypeVar("_R")


def _answers(
    operation: Callable[Concatenate["Adapter", _P], Coroutine[Any, Any, _R]],
) -> Callable[Concatenate["Adapter", _P], Coroutine[Any, Any, _R]]:
    """Make whatever `operation` raises an errno, and write the one log line of a failed request."""
    name = operation.__name__

    @wraps(operation)
    async def answer(self: "Adapter", /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return await operation(self, *args, **kwargs)
        except pyfuse3.FUSEError:
            raise
        except Exception as exc:
            raise pyfuse3.FUSEError(_errno_of(exc, name, args)) from None
        except trio.Cancelled:
            if not self._ending:
                raise
            # The session is over and its loop ends after this answer; without one the caller, and
            # whoever waits for a lock that it holds in the kernel, would stay blocked.
            raise pyfuse3.FUSEError(errno.ENODEV) from None

    return answer


def _errno_of(exc: Exception, name: str, args: Sequence[object]) -> int:
    """Return what an error of the operation `name` becomes, and log it."""
    if (
        isinstance(exc, OSError) and exc.errno is not None and exc.errno in SHORTAGE
    ):  # also of an import, which needs one
        exc = HostError(exc.errno, os.strerror(exc.errno))
    if not isinstance(exc, MregfsError):
        log.error("%s(%s) failed: this is a bug in mregfs", name, _spell(args), exc_info=exc)
        return errno.EIO
    code = exc.errno
    if isinstance(exc, CorruptError):
        level = logging.ERROR
    elif code == errno.EIO or isinstance(exc, UnavailableError | NoSpaceError):
        level = logging.WARNING
    else:
        level = logging.DEBUG
    if code in SHORTAGE:
        _shortage.tell(os.strerror(code))
    if log.isEnabledFor(level):
        log.log(level, "%s(%s): %s", name, _spell(args), exc)
    if isinstance(exc, UnavailableError) and name in _TRANSFERS:
        return errno.EIO  # nobody expects EAGAIN from a blocking read or write
    return code


class _Shortage:
    """Tells the operator that descriptors ran out; once in a while, as users may try all day."""

    def __init__(self) -> None:
        self._quiet_until = 0.0

    def tell(self, reason: str) -> None:
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + _SHORTAGE_INTERVAL
            log.warning(
                "%s: users are refused to open more until some files are closed; raise the limit of"
                " open files (ulimit -n, LimitNOFILE=), which is %d",
                reason,
                share(1),
            )


_shortage = _Shortage()

_TRANSFERS = frozenset({"read", "write", "flush", "fsync", "fsyncdir"})


def _spell(args: Sequence[object]) -> str:
    return ", ".join(repr(a)[:_SPELLED] for a in args if isinstance(a, int | bytes | None))


class Adapter(pyfuse3.Operations):
    """Serves `fs` to pyfuse3.

    Args:
        fs: what is served.
        passthrough: whether the kernel may read and write backing files itself.
        fast_path: whether requests may be answered before pyfuse3 sees them.
    """

    supports_dot_lookup = False
    enable_writeback_cache = False
    enable_acl = False

    def __init__(self, fs: FileSystem, *, passthrough: bool, fast_path: bool = True) -> None:
        super().__init__()
        self._fs = fs
        self._waits = Waits()
        self._passthrough = Passthrough(wanted=passthrough, on_interrupt=self._waits.interrupted)
        self._fast_path = FastPath(fs, self._passthrough, self._settle_path, self._forget)
        self._uses_fast_path = fast_path
        self._readers = Workers(_READERS, "mregfs-read")
        # Commits may take minutes; they must not use up the threads that readers wait for.
        self._writers = Workers(_WRITERS, "mregfs-write")
        self._transactions = trio.CapacityLimiter(_TRANSACTIONS)
        self._ending = False
        self._closed = False

    def mounted(self) -> None:
        """The session is set up: from now on requests arrive."""
        self._passthrough.mounted()
        if self._uses_fast_path:
            self._passthrough.answer_by(self._answer_at_once, self._fast_path.operations)

    def watch_in(self, nursery: trio.Nursery) -> None:
        """Tell where tasks of the adapter's own may run."""
        self._waits.background = nursery

    def closed(self) -> None:
        """The session is about to be closed: no request is answered, no poller woken any more."""
        self._closed = True
        self._passthrough.ended()

    def end(self) -> None:
        """The session is about to end: nobody waits for news any more."""
        self._ending = True
        self._waits.end()

    def _answer_at_once(self, request: Request) -> Answer:
        """Answer a request that has just been received, have a thread do it, or let it pass."""
        operation = self._fast_path.operations[request.opcode]
        try:
            answer = operation(request)
        except Exception as exc:
            return Errno(_errno_of(exc, operation.__name__, (request.inode, request.body)))
        if isinstance(answer, ByThread):
            what = (request.inode, request.body[:_SPELLED])
            workers = self._readers if request.opcode == READ else self._writers
            job = partial(self._answer_by_thread, answer, request.unique, operation.__name__, what)
            try:
                workers.submit(job)
            except RuntimeError:
                return NOT_AT_HAND  # the host has no thread for us now
        return answer

    def _answer_by_thread(
        self, answer: ByThread, unique: int, name: str, what: Sequence[object]
    ) -> None:
        sent: Sent
        try:
            sent = answer.give()
        except Exception as exc:
            sent = Errno(_errno_of(exc, name, what))
        self._passthrough.answer(unique, sent)

    def wait_for_threads(self, timeout: float) -> None:
        """Wait until no thread works on an answer any more, at most `timeout` seconds."""
        deadline = time.monotonic() + timeout
        self._readers.join(timeout)
        self._writers.join(max(0.0, deadline - time.monotonic()))

    def finish(self) -> None:
        """Wait for transactions, however long they take; a read that hangs is left behind."""
        if not self._readers.join(0):
            log.warning("A read did not end in time: its disk does not answer")
        self._writers.join()

    # ---- names

    @_answers
    async def lookup(self, parent_inode: int, name: bytes, ctx: Context) -> pyfuse3.EntryAttributes:
        """Find a name."""
        return entry_of(await settle(self._fs.lookup(parent_inode, name)))

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """Take back references; there is nobody to answer to."""
        self._forget(inode_list)

    def _forget(self, counts: Iterable[tuple[int, int]]) -> None:
        for inode, count in counts:
            try:
                self._fs.forget(inode, count)
            except Exception:
                log.exception("forget(%d, %d) failed: this is a bug in mregfs", inode, count)

    @_answers
    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: Context
    ) -> pyfuse3.EntryAttributes:
        """Make a file, FIFO, socket or device node."""
        return entry_of(self._fs.mknod(parent_inode, name, mode, rdev, caller_of(ctx)))

    @_answers
    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: Context
    ) -> pyfuse3.EntryAttributes:
        """Make a directory."""
        return entry_of(
            await settle(self._fs.mkdir(parent_inode, name, stat.S_IMODE(mode), caller_of(ctx)))
        )

    @_answers
    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: Context
    ) -> pyfuse3.EntryAttributes:
        """Make a symlink."""
        return entry_of(await settle(self._fs.symlink(parent_inode, name, target, caller_of(ctx))))

    @_answers
    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: Context
    ) -> pyfuse3.EntryAttributes:
        """Make a hard link."""
        return entry_of(self._fs.link(inode, new_parent_inode, new_name, caller_of(ctx)))

    @_answers
    async def unlink(self, parent_inode: int, name: bytes, ctx: Context) -> None:
        """Remove a name."""
        await settle(self._fs.unlink(parent_inode, name, caller_of(ctx)))

    @_answers
    async def rmdir(self, parent_inode: int, name: bytes, ctx: Context) -> None:
        """Remove a directory."""
        await settle(self._fs.rmdir(parent_inode, name, caller_of(ctx)))

    @_answers
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: Context,
    ) -> None:
        """Move a name; `flags` are those of renameat2(2)."""
        caller, mode = caller_of(ctx), rename_mode(flags)
        await settle(
            self._fs.rename(parent_inode_old, name_old, parent_inode_new, name_new, mode, caller)
        )

    @_answers
    async def readlink(self, inode: int, ctx: Context) -> bytes:
        """Return where a symlink points."""
        return self._fs.readlink(inode)

    # ---- attributes

    @_answers
    async def getattr(self, inode: int, ctx: Context) -> pyfuse3.EntryAttributes:
        """Answer stat(2)."""
        return entry_of(self._fs.getattr(inode))

    @_answers
    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: Context,
    ) -> pyfuse3.EntryAttributes:
        """Change mode, owner, size or times."""
        request = self._passthrough.request()
        changed = changes_of(attr, fields, request.now if request else 0)
        return entry_of(self._fs.setattr(inode, changed, fh, caller_of(ctx)))

    @_answers
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: Context) -> None:
        """Set an extended attribute."""
        self._fs.setxattr(inode, name, value, caller_of(ctx))

    @_answers
    async def getxattr(self, inode: int, name: bytes, ctx: Context) -> bytes:
        """Return an extended attribute."""
        request = self._passthrough.request()
        # pyfuse3 asks for itself whether an attribute is there that must not be, or must, before
        # it is set: who sets it need not be allowed to read.
        checking = request is not None and request.opcode == SETXATTR
        caller = Caller() if checking else caller_of(ctx)
        return await settle(self._fs.getxattr(inode, name, caller))

    @_answers
    async def listxattr(self, inode: int, ctx: Context) -> Sequence[bytes]:
        """Return the names of the extended attributes."""
        return await settle(self._fs.listxattr(inode, caller_of(ctx)))

    @_answers
    async def removexattr(self, inode: int, name: bytes, ctx: Context) -> None:
        """Remove an extended attribute."""
        self._fs.removexattr(inode, name, caller_of(ctx))

    @_answers
    async def access(self, inode: int, mode: int, ctx: Context) -> bool:
        """Answer access(2); with default_permissions the kernel decides by itself."""
        return True

    @_answers
    async def statfs(self, ctx: Context) -> pyfuse3.StatvfsData:
        """Answer statvfs(3)."""
        return statvfs_of(self._fs.statfs())

    # ---- open files

    @_answers
    async def open(self, inode: int, flags: int, ctx: Context) -> pyfuse3.FileInfo:
        """Open a file."""
        opened = await settle(self._fs.open(inode, open_flags(flags), caller_of(ctx)))
        return self._file(inode, opened)

    @_answers
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: Context
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        """Make and open a file in one step."""
        opened, attributes = self._fs.create(
            parent_inode, name, stat.S_IMODE(mode), open_flags(flags), caller_of(ctx)
        )
        return self._file(attributes.inode, opened), entry_of(attributes)

    def _file(self, inode: int, opened: OpenFile) -> pyfuse3.FileInfo:
        return pyfuse3.FileInfo(
            fh=opened.handle,
            direct_io=self._settle_path(inode, opened) is ReadPath.DIRECT,
            keep_cache=opened.keep_cache,
            nonseekable=opened.nonseekable,
        )

    def _settle_path(self, inode: int, opened: OpenFile) -> ReadPath:
        """Settle how a file that was just opened is served."""
        if opened.backing >= 0 and not is_claimable(opened.backing):
            self._fs.release(opened.handle)
            if opened.owned:
                os.close(opened.backing)
            raise HostError(errno.EMFILE, os.strerror(errno.EMFILE))
        path, reason = self._passthrough.opened(inode, opened)
        if reason:
            self._fs.backing_refused(opened.handle, reason)
        return path

    @_answers
    async def read(self, fh: int, off: int, size: int) -> bytes:
        """Read; a reader that is interrupted or killed while it waits gets EINTR."""
        request = self._passthrough.request()
        unique, pid = (request.unique, request.pid) if request else (0, 0)
        direct = self._passthrough.inode_of(fh) is None
        return await self._waits.read(
            partial(self._read, fh, off, size), unique=unique, pid=pid, direct=direct
        )

    async def _read(self, handle: int, offset: int, size: int) -> bytes:
        return await settle(self._fs.read(handle, offset, size))

    @_answers
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        """Write, and return how many bytes."""
        request = self._passthrough.request()
        known = request is not None and request.pid  # what is mapped, nobody in particular writes
        caller = request.caller if request and known else None
        return await settle(self._fs.write(fh, off, buf, caller), self._transactions)

    @_answers
    async def flush(self, fh: int) -> None:
        """A descriptor was closed; errors still reach close(2)."""
        self._fs.flush(fh)

    @_answers
    async def fsync(self, fh: int, datasync: bool) -> None:
        """Make a file durable."""
        await settle(self._fs.fsync(fh, data_only=datasync))

    @_answers
    async def release(self, fh: int) -> None:
        """The last descriptor of an open file was closed."""
        self._passthrough.released(fh)
        self._fs.release(fh)

    @_answers
    async def poll(
        self,
        inode: int,
        fh: int,
        poll_handle: pyfuse3.PollHandle | None,
        ctx: Context,
    ) -> int:
        """Answer poll(2); ENOSYS would turn it off for the whole mount."""
        try:
            return self._fs.poll(fh, self._waker(poll_handle) if poll_handle else None)
        except UnsupportedError:
            return _ALWAYS_READY

    def _waker(self, handle: pyfuse3.PollHandle) -> Callable[[], None]:
        def wake() -> None:
            if self._closed:
                return
            try:
                handle.notify()
            except OSError as exc:
                log.debug("poll: notification: %s", exc)

        return wake

    # ---- directories

    @_answers
    async def opendir(self, inode: int, ctx: Context) -> int:
        """Open a directory."""
        return await settle(self._fs.opendir(inode, caller_of(ctx)))

    @_answers
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """List as many entries as fit from position `start_id`."""

        def add(name: bytes, attributes: Attributes, following: int) -> bool:
            fits: bool = pyfuse3.readdir_reply(token, name, entry_of(attributes), following)
            return fits

        list_entries(self._fs, fh, start_id, add)

    @_answers
    async def releasedir(self, fh: int) -> None:
        """Close a directory."""
        self._fs.releasedir(fh)

    @_answers
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """Make a directory durable."""
        await settle(self._fs.fsyncdir(fh))
