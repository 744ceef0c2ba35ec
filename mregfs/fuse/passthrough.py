"""Passthrough: the kernel reads and writes a backing file itself, in the daemon's place.

Decided here: which open files go by passthrough, which backing id they share, and why passthrough
is not there when it is not. Not decided here: which descriptor backs a file (the vfs), nor what the
kernel is told byte by byte (`_passthrough.c`; the protocol is in `passthrough.md`). The FUSE
adapter calls `Passthrough`, anyone may ask `passthrough_state`.

This module is the only one that imports pyfuse3: the extension has to be in the process before it,
so every other module of this room takes `pyfuse3` from here.
"""

import enum
import errno
import fcntl
import logging
import os
import platform
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from types import ModuleType

import msgspec

from mregfs.fuse.messages import KINDS, Answer, Request, Sent
from mregfs.vfs.interface import OpenFile

__all__ = [
    "Passthrough",
    "PassthroughState",
    "ReadPath",
    "choose_read_path",
    "passthrough_state",
    "pyfuse3",
]

log = logging.getLogger(__name__)

_TOO_LATE = "pyfuse3 was imported before mregfs.fuse, so its calls cannot be intercepted"


def _load() -> tuple[ModuleType | None, str]:
    """Load the extension where pyfuse3 will find it; say why not otherwise."""
    if "pyfuse3" in sys.modules:
        return None, _TOO_LATE
    flags = sys.getdlopenflags()
    sys.setdlopenflags(flags | os.RTLD_GLOBAL)
    try:
        from mregfs.fuse import _passthrough
    except ImportError as exc:
        return None, f"the extension mregfs.fuse._passthrough is not built ({exc})"
    finally:
        sys.setdlopenflags(flags)
    return _passthrough, ""


_native, _why_not_loaded = _load()

import pyfuse3  # noqa: E402 - the extension has to come first


class ReadPath(enum.Enum):
    """How the bytes of an open file reach a reader."""

    PASSTHROUGH = "passthrough"
    """The kernel reads the backing file; the daemon sees no request."""
    CACHED = "cached"
    """The daemon answers, the kernel keeps the pages."""
    DIRECT = "direct"
    """The daemon answers each read; nothing is kept."""


class PassthroughState(msgspec.Struct, frozen=True):
    """Whether passthrough works on this mount, for people and for `.mregfs/status`."""

    available: bool
    reason: str
    """Why it is not available, as a sentence; empty when it is."""
    extension: bool
    """Whether the extension serves the mount (also interrupts, holes and fallocate need it)."""
    handles: int = 0
    """Open handles that go by passthrough."""
    backings: int = 0
    """Backing files that the kernel holds for us."""
    refused: dict[str, int] = {}
    """Single files that were refused, by reason."""
    requests: dict[int, int] = {}
    """Requests received, by opcode of the FUSE protocol."""
    on_fast_path: int = 0
    """Those of them that were answered without pyfuse3 and the event loop."""


def choose_read_path(open_as: ReadPath | None, opened: OpenFile, *, available: bool) -> ReadPath:
    """Choose how one more open of an inode is served.

    One inode is either passthrough or cached while it is open, never both: the kernel answers EIO
    to an open that mixes them. DIRECT goes with CACHED, not with PASSTHROUGH.

    Args:
        open_as: how the inode is open already; None when it is not.
        opened: what the vfs says of the new handle.
        available: whether passthrough works on this mount.
    """
    if open_as is ReadPath.PASSTHROUGH:
        return ReadPath.PASSTHROUGH
    if opened.direct_io:
        return ReadPath.DIRECT
    if open_as is ReadPath.CACHED or opened.backing < 0 or not available:
        return ReadPath.CACHED
    return ReadPath.PASSTHROUGH


class _OpenInode:
    """An inode that is open: how, and what its handles share."""

    __slots__ = ("backing_id", "fd", "path", "users")

    def __init__(self, path: ReadPath) -> None:
        self.path = path
        self.users = 0
        self.backing_id = 0
        """One for all handles: the kernel refuses a second backing file of an open inode."""
        self.fd = -1
        """A descriptor that the vfs gave away; kept because holes and reflinks need one."""


class Passthrough:
    """The open files of one mount. All calls come from the thread that serves it.

    Args:
        wanted: False turns passthrough off; the mount then works the same, only slower.
        on_interrupt: called with a request's number when the process that made it is interrupted.
    """

    def __init__(self, *, wanted: bool, on_interrupt: Callable[[int], None]) -> None:
        self._inodes: dict[int, _OpenInode] = {}
        self._handles: dict[int, int] = {}
        self._refused: Counter[str] = Counter()
        self._wanted = wanted
        self._reason: str | None = None
        self._mounts = _native.figures()["mounts"] if _native else 0
        self.hooked = False
        """Whether requests pass through the extension, so that interrupts are seen."""
        if _native:
            _native.configure(wanted, on_interrupt)
        global _current
        _current = self

    def mounted(self) -> None:
        """Note that pyfuse3 has mounted: only now can be seen whether it did so through us."""
        if _native:
            figures = _native.figures()
            self.hooked = figures["mounts"] > self._mounts and figures["hooked"]

    def answer_by(self, function: Callable[[Request], Answer], opcodes: Iterable[int]) -> None:
        """Have requests of some kinds answered by `function` before anyone else sees them.

        After `ByThread`, `answer` is going to be called; after `NotAtHand` the request passes.
        """
        if _native and self.hooked:
            bits = sum(1 << opcode for opcode in opcodes)
            _native.answer_by(function, bits, Request, KINDS)

    def answer(self, unique: int, answer: Sent) -> None:
        """Send the answer to a request; from any thread. Does nothing when the session is over."""
        if _native:
            _native.answer(unique, answer)

    def ended(self) -> None:
        """Note that the session is closed; what the kernel held for us is gone with it."""
        self.hooked = False
        for known in self._inodes.values():
            if known.fd >= 0:
                os.close(known.fd)
        self._inodes.clear()
        self._handles.clear()
        if _native:
            _native.configure(False, None)

    def why_not(self) -> str:
        """Say why passthrough is not available, as a sentence; empty when it is."""
        if not self._wanted:
            return "passthrough is turned off by an option of the mount"
        if _native is None:
            return _why_not_loaded
        figures = _native.figures()
        if figures["mounts"] == self._mounts:
            return "pyfuse3 did not mount through the extension"
        if not self.hooked:
            return "this libfuse has no fuse_session_custom_io (3.14 and later have it)"
        if not figures["offered"]:
            return f"Linux {platform.release()} does not offer FUSE_PASSTHROUGH (6.9 and later do)"
        if _native.backing_open(-1, False) == -errno.EPERM:
            return "the daemon lacks CAP_SYS_ADMIN, without which Linux takes no backing files"
        return ""

    def request(self) -> Request | None:
        """Tell of the request that is being handed over right now; None without the extension.

        Its inode and body are not told: pyfuse3 has them.
        """
        return Request(*_native.request()) if _native and self.hooked else None

    def inode_of(self, handle: int) -> int | None:
        """Return the inode of an open handle that is not DIRECT."""
        return self._handles.get(handle)

    def opened(self, inode: int, opened: OpenFile) -> tuple[ReadPath, str]:
        """Settle how a new handle is served, just before the kernel is told of it.

        Returns:
            The read path, and why a backing descriptor that the vfs offered was not used ("" when
            it was, or when there was none).
        """
        known = self._inodes.get(inode)
        offered = opened.backing >= 0
        reason = self._why_not_this(opened.backing) if offered and known is None else ""
        path = choose_read_path(known.path if known else None, opened, available=not reason)
        keep = False
        if path is not ReadPath.DIRECT:
            if known is None:
                known = self._inodes[inode] = _OpenInode(path)
                if path is ReadPath.PASSTHROUGH:
                    reason = self._back(known, opened)
                keep = opened.owned and known.backing_id > 0
            elif path is ReadPath.CACHED and offered:
                reason = "the file is open by the cached path already"
            known.users += 1
            self._handles[opened.handle] = inode
            fd = opened.backing if offered and not opened.owned else known.fd
            if _native and (known.backing_id or fd >= 0):
                _native.bind(opened.handle, known.backing_id, fd)
            path = known.path
        if opened.owned and not keep:
            os.close(opened.backing)
        if reason and reason != self._reason:
            self._count(reason)
        return path, reason

    def released(self, handle: int) -> None:
        """Forget a handle; the last one of its inode gives the backing file back."""
        inode = self._handles.pop(handle, None)
        if inode is None:
            return
        if _native:
            _native.unbind(handle)
        known = self._inodes[inode]
        known.users -= 1
        if known.users:
            return
        del self._inodes[inode]
        if _native and known.backing_id:
            failed = _native.backing_close(known.backing_id)
            if failed:
                log.warning("Backing file of inode %d: close: %s", inode, os.strerror(-failed))
        if known.fd >= 0:
            os.close(known.fd)

    def state(self) -> PassthroughState:
        """Return the state of this mount for people; may be called from any thread."""
        reason = self.why_not()
        figures = _native.figures() if _native else {}
        backed = [known.users for known in list(self._inodes.values()) if known.backing_id]
        return PassthroughState(
            available=not reason,
            reason=reason,
            extension=self.hooked,
            handles=sum(backed),
            backings=len(backed),
            refused=dict(self._refused),
            requests=figures.get("requests", {}),
            on_fast_path=figures.get("at_once", 0),
        )

    def _why_not_this(self, backing: int) -> str:
        if self._reason is None:  # INIT has been answered by now, and stays so
            self._reason = self.why_not()
        if self._reason:
            return self._reason
        if os.fstat(backing).st_mode & (stat.S_ISUID | stat.S_ISGID):
            return "it is setuid or setgid, and writes must take that away"
        return ""

    def _back(self, known: _OpenInode, opened: OpenFile) -> str:
        """Give the kernel the backing file; on refusal make the inode cached, and say why."""
        assert _native is not None
        backing_id = _open_backing(_native, opened.backing, lent=opened.lent)
        if backing_id > 0:
            known.backing_id = backing_id
            known.fd = opened.backing if opened.owned else -1
            return ""
        known.path = ReadPath.CACHED
        code = -backing_id
        if code == errno.ELOOP:
            return "it lies on a stacked file system (overlayfs): no passthrough there"
        if code in (errno.EOPNOTSUPP, errno.EBADF):
            return "its file system cannot back another one"
        return f"Linux refused the backing file: {os.strerror(code)}"

    def _count(self, reason: str) -> None:
        if not self._refused[reason]:
            log.info("Not every file goes by passthrough: %s", reason)
        self._refused[reason] += 1


def _open_backing(native: ModuleType, descriptor: int, *, lent: bool) -> int:
    """Give the kernel a file by a descriptor that only reads; return the id, or -errno.

    The kernel keeps what it is given until the last handle closes. One that could write would count
    as a writer all that time, and no commit would get its lease.
    """
    if not fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE:
        return int(native.backing_open(descriptor, lent))
    try:
        reading = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_NONBLOCK)
    except OSError as exc:
        return -(exc.errno or errno.EIO)
    try:
        return int(native.backing_open(reading, lent))
    finally:
        os.close(reading)


_current: Passthrough | None = None


def passthrough_state() -> PassthroughState:
    """Return the state of the mount that this process serves (or served last)."""
    if _current is not None:
        return _current.state()
    return PassthroughState(
        available=False, reason=_why_not_loaded or "nothing is mounted", extension=False
    )
