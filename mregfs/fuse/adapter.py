"""The protocol adapter: requests of the kernel become calls of `FileSystem`, and nothing else.

Decided here: how a request's fields and an answer's fields correspond, which errno an exception
becomes, and when a waiting read gives up. Not decided here: what any request answers (`vfs/`), nor
which files go by passthrough (`passthrough`). Only `serve` makes an adapter; pyfuse3 calls it.

pyfuse3 ends the whole session on any exception but FUSEError, so every operation passes through
`_answers`, the one place where errors are translated and logged.
"""

import errno
import logging
import select
import stat
from collections.abc import Callable, Coroutine, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import trio

from mregfs.errors import (
    CorruptError,
    MregfsError,
    NoSpaceError,
    UnavailableError,
    UnsupportedError,
)
from mregfs.fuse.passthrough import Passthrough, ReadPath, pyfuse3
from mregfs.ports import Attributes, Caller, ChangedAttributes, OpenFile
from mregfs.vfs.surface import FileSystem

__all__ = ["Adapter"]

log = logging.getLogger(__name__)

_ALWAYS_READY = select.POLLIN | select.POLLOUT | select.POLLRDNORM | select.POLLWRNORM
"""What poll(2) tells of every ordinary file."""

_PATIENCE = 1.0
"""Seconds between two looks at a waiting read that nobody tells us about."""

_SIGKILL_PENDING = 1 << 8
"""SIGKILL in the masks of /proc/PID/status; every deadly signal sets it for each thread."""


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
        except MregfsError as exc:
            code = exc.errno
            if isinstance(exc, CorruptError):
                level = logging.ERROR
            elif code == errno.EIO or isinstance(exc, UnavailableError | NoSpaceError):
                level = logging.WARNING
            else:
                level = logging.DEBUG
            if isinstance(exc, UnavailableError) and name in _TRANSFERS:
                code = errno.EIO  # nobody expects EAGAIN from a blocking read or write
            if log.isEnabledFor(level):
                log.log(level, "%s(%s): %s", name, _spell(args), exc)
            raise pyfuse3.FUSEError(code) from None
        except pyfuse3.FUSEError:
            raise
        except Exception:
            log.exception("%s(%s) failed: this is a bug in mregfs", name, _spell(args))
            raise pyfuse3.FUSEError(errno.EIO) from None
        except trio.Cancelled:
            if not self.ending:
                raise
            # The session is over and its loop ends after this answer; without one the caller, and
            # whoever waits for a lock that it holds in the kernel, would stay blocked.
            raise pyfuse3.FUSEError(errno.ENODEV) from None

    return answer


_TRANSFERS = frozenset({"read", "write", "flush", "fsync", "fsyncdir"})


def _spell(args: Sequence[object]) -> str:
    return ", ".join(repr(a)[:80] for a in args if isinstance(a, int | bytes | None))


class _Context(Protocol):
    """What pyfuse3 tells of the process that makes a request."""

    @property
    def uid(self) -> int: ...
    @property
    def gid(self) -> int: ...
    @property
    def pid(self) -> int: ...
    @property
    def umask(self) -> int: ...


def _caller(context: _Context) -> Caller:
    return Caller(context.uid, context.gid, context.pid, context.umask)


def _entry(attributes: Attributes) -> pyfuse3.EntryAttributes:
    """Translate; inode 0 becomes a negative entry that the kernel may remember."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = attributes.inode
    entry.entry_timeout = attributes.entry_timeout
    entry.attr_timeout = attributes.attr_timeout
    entry.generation = attributes.generation
    entry.st_mode = attributes.mode
    entry.st_nlink = attributes.nlink
    entry.st_uid = attributes.uid
    entry.st_gid = attributes.gid
    entry.st_rdev = attributes.rdev
    entry.st_size = attributes.size
    entry.st_blocks = attributes.blocks
    entry.st_atime_ns = attributes.atime_ns
    entry.st_mtime_ns = attributes.mtime_ns
    entry.st_ctime_ns = attributes.ctime_ns
    return entry


class _Read:
    """A read that is being answered."""

    __slots__ = ("direct", "pid", "scope")

    def __init__(self, scope: trio.CancelScope, pid: int, *, direct: bool) -> None:
        self.scope = scope
        self.pid = pid
        self.direct = direct


class Adapter(pyfuse3.Operations):
    """Serves `fs` to pyfuse3.

    Args:
        fs: what is served.
        passthrough: whether the kernel may read and write backing files itself.
    """

    supports_dot_lookup = False
    enable_writeback_cache = False
    enable_acl = False

    def __init__(self, fs: FileSystem, *, passthrough: bool) -> None:
        super().__init__()
        self._fs = fs
        self._passthrough = Passthrough(wanted=passthrough, on_interrupt=self._interrupted)
        self._direct: set[int] = set()
        self._reads: dict[int, _Read] = {}
        self._unhooked = 0
        self.background: trio.Nursery | None = None
        """Where the adapter may start tasks of its own; set by `serve`."""
        self.ending = False
        """True once the session loop was told to end: what is cancelled now is still answered."""
        self.closed = False
        """True once no notification may be sent any more."""

    def mounted(self) -> None:
        """The session is set up: from now on requests arrive."""
        self._passthrough.mounted()

    def release_readers(self) -> None:
        """End every read that waits for news: each gets the end of the file."""
        self.ending = True
        for read in self._reads.values():
            if read.direct:
                read.scope.cancel()

    # ---- names

    @_answers
    async def lookup(
        self, parent_inode: int, name: bytes, ctx: _Context
    ) -> pyfuse3.EntryAttributes:
        """Find a name."""
        return _entry(await self._fs.lookup(parent_inode, name, _caller(ctx)))

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """Take back references; there is nobody to answer to."""
        for inode, count in inode_list:
            try:
                self._fs.forget(inode, count)
            except Exception:
                log.exception("forget(%d, %d) failed: this is a bug in mregfs", inode, count)

    @_answers
    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: _Context
    ) -> pyfuse3.EntryAttributes:
        """Make a file, FIFO, socket or device node."""
        return _entry(await self._fs.mknod(parent_inode, name, mode, rdev, _caller(ctx)))

    @_answers
    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: _Context
    ) -> pyfuse3.EntryAttributes:
        """Make a directory."""
        return _entry(await self._fs.mkdir(parent_inode, name, stat.S_IMODE(mode), _caller(ctx)))

    @_answers
    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: _Context
    ) -> pyfuse3.EntryAttributes:
        """Make a symlink."""
        return _entry(await self._fs.symlink(parent_inode, name, target, _caller(ctx)))

    @_answers
    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: _Context
    ) -> pyfuse3.EntryAttributes:
        """Make a hard link."""
        return _entry(await self._fs.link(inode, new_parent_inode, new_name, _caller(ctx)))

    @_answers
    async def unlink(self, parent_inode: int, name: bytes, ctx: _Context) -> None:
        """Remove a name."""
        await self._fs.unlink(parent_inode, name, _caller(ctx))

    @_answers
    async def rmdir(self, parent_inode: int, name: bytes, ctx: _Context) -> None:
        """Remove a directory."""
        await self._fs.rmdir(parent_inode, name, _caller(ctx))

    @_answers
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: _Context,
    ) -> None:
        """Move a name; `flags` are those of renameat2(2)."""
        await self._fs.rename(
            parent_inode_old, name_old, parent_inode_new, name_new, flags, _caller(ctx)
        )

    @_answers
    async def readlink(self, inode: int, ctx: _Context) -> bytes:
        """Return where a symlink points."""
        return await self._fs.readlink(inode)

    # ---- attributes

    @_answers
    async def getattr(self, inode: int, ctx: _Context) -> pyfuse3.EntryAttributes:
        """Answer stat(2)."""
        return _entry(await self._fs.getattr(inode))

    @_answers
    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: _Context,
    ) -> pyfuse3.EntryAttributes:
        """Change mode, owner, size or times."""
        changed = ChangedAttributes(
            mode=stat.S_IMODE(attr.st_mode) if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            size=attr.st_size if fields.update_size else None,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
        )
        return _entry(await self._fs.setattr(inode, changed, fh, _caller(ctx)))

    @_answers
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: _Context) -> None:
        """Set an extended attribute."""
        await self._fs.setxattr(inode, name, value, _caller(ctx))

    @_answers
    async def getxattr(self, inode: int, name: bytes, ctx: _Context) -> bytes:
        """Return an extended attribute."""
        return await self._fs.getxattr(inode, name)

    @_answers
    async def listxattr(self, inode: int, ctx: _Context) -> Sequence[bytes]:
        """Return the names of the extended attributes."""
        return await self._fs.listxattr(inode)

    @_answers
    async def removexattr(self, inode: int, name: bytes, ctx: _Context) -> None:
        """Remove an extended attribute."""
        await self._fs.removexattr(inode, name, _caller(ctx))

    @_answers
    async def access(self, inode: int, mode: int, ctx: _Context) -> bool:
        """Answer access(2); with default_permissions the kernel decides by itself."""
        return await self._fs.access(inode, mode, _caller(ctx))

    @_answers
    async def statfs(self, ctx: _Context) -> pyfuse3.StatvfsData:
        """Answer statvfs(3)."""
        figures = await self._fs.statfs()
        data = pyfuse3.StatvfsData()
        data.f_bsize = figures.block_size
        data.f_frsize = figures.fragment_size
        data.f_blocks = figures.blocks
        data.f_bfree = figures.blocks_free
        data.f_bavail = figures.blocks_available
        data.f_files = figures.files
        data.f_ffree = figures.files_free
        data.f_favail = figures.files_available
        data.f_namemax = figures.name_max
        return data

    # ---- open files

    @_answers
    async def open(self, inode: int, flags: int, ctx: _Context) -> pyfuse3.FileInfo:
        """Open a file."""
        opened = await self._fs.open(inode, flags, _caller(ctx))
        return self._file(inode, opened)

    @_answers
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: _Context
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        """Make and open a file in one step."""
        opened, attributes = await self._fs.create(
            parent_inode, name, stat.S_IMODE(mode), flags, _caller(ctx)
        )
        return self._file(attributes.inode, opened), _entry(attributes)

    def _file(self, inode: int, opened: OpenFile) -> pyfuse3.FileInfo:
        path, reason = self._passthrough.opened(inode, opened)
        if reason:
            self._fs.backing_refused(opened.handle, reason)
        if path is ReadPath.DIRECT:
            self._direct.add(opened.handle)
        return pyfuse3.FileInfo(
            fh=opened.handle,
            direct_io=path is ReadPath.DIRECT,
            keep_cache=opened.keep_cache,
            nonseekable=opened.nonseekable,
        )

    @_answers
    async def read(self, fh: int, off: int, size: int) -> bytes:
        """Read; a reader that is interrupted or killed while it waits gets EINTR."""
        direct = fh in self._direct
        if direct and self.ending:
            return b""
        hooked = self._passthrough.hooked
        if hooked:
            unique, pid = self._passthrough.request()
        else:
            self._unhooked += 1
            unique, pid = self._unhooked, 0
        with trio.CancelScope() as scope:
            if direct and not hooked:
                scope.deadline = trio.current_time() + _PATIENCE
            self._reads[unique] = _Read(scope, pid, direct=direct)
            try:
                return await self._fs.read(fh, off, size)
            finally:
                del self._reads[unique]
        if self.ending:
            return b""
        raise pyfuse3.FUSEError(errno.EINTR)

    @_answers
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        """Write, and return how many bytes."""
        return await self._fs.write(fh, off, buf)

    @_answers
    async def flush(self, fh: int) -> None:
        """A descriptor was closed; errors still reach close(2)."""
        await self._fs.flush(fh)

    @_answers
    async def fsync(self, fh: int, datasync: bool) -> None:
        """Make a file durable."""
        await self._fs.fsync(fh, data_only=datasync)

    @_answers
    async def release(self, fh: int) -> None:
        """The last descriptor of an open file was closed."""
        self._passthrough.released(fh)
        self._direct.discard(fh)
        await self._fs.release(fh)

    @_answers
    async def poll(
        self, inode: int, fh: int, poll_handle: pyfuse3.PollHandle | None, ctx: _Context
    ) -> int:
        """Answer poll(2); ENOSYS would turn it off for the whole mount."""
        try:
            return await self._fs.poll(fh, self._waker(poll_handle) if poll_handle else None)
        except UnsupportedError:
            return _ALWAYS_READY

    def _waker(self, handle: pyfuse3.PollHandle) -> Callable[[], None]:
        def wake() -> None:
            if self.closed:
                return
            try:
                handle.notify()
            except OSError as exc:
                log.debug("poll: notification: %s", exc)

        return wake

    # ---- directories

    @_answers
    async def opendir(self, inode: int, ctx: _Context) -> int:
        """Open a directory."""
        return await self._fs.opendir(inode, _caller(ctx))

    @_answers
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """List as many entries as fit from position `start_id`."""
        entries = self._fs.readdir(fh, start_id)
        listed = 0
        try:
            async for name, attributes, following in entries:
                fits = pyfuse3.readdir_reply(token, name, _entry(attributes), following)
                if not fits or name in {b".", b".."}:  # the kernel does not count these
                    self._fs.forget(attributes.inode, 1)
                if not fits:
                    break
                listed += 1
        except MregfsError:
            if not listed:  # what fits is handed over, the next call meets the error again
                raise
        finally:
            if hasattr(entries, "aclose"):
                await entries.aclose()

    @_answers
    async def releasedir(self, fh: int) -> None:
        """Close a directory."""
        await self._fs.releasedir(fh)

    @_answers
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """Make a directory durable."""
        await self._fs.fsyncdir(fh)

    # ---- interrupts

    def _interrupted(self, unique: int) -> None:
        """The process that waits for a read got a signal (called while a request is received).

        Who reads a file of news expects EINTR. Nobody expects it from an ordinary file, so there
        only a process that is being killed gets it.
        """
        read = self._reads.get(unique)
        if read is None:
            return
        if read.direct or _is_dying(read.pid):
            read.scope.cancel()
        elif self.background is not None:
            self.background.start_soon(self._watch, unique)

    async def _watch(self, unique: int) -> None:
        """The kernel tells of the first signal only, and a deadly one may follow it."""
        while (read := self._reads.get(unique)) is not None:
            if _is_dying(read.pid):
                read.scope.cancel()
                return
            await trio.sleep(_PATIENCE)


def _is_dying(pid: int) -> bool:
    """Tell whether a thread is being killed; False when it is not visible from here."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
            fields = dict(line.split(":", 1) for line in status)
    except OSError:
        return False
    pending = int(fields.get("SigPnd", "0"), 16) | int(fields.get("ShdPnd", "0"), 16)
    return bool(pending & _SIGKILL_PENDING)
