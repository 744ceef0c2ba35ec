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
import logging
import os
import platform
import sys
from collections.abc import Callable
from types import ModuleType

import msgspec

from mregfs.ports import OpenFile

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
    """An inode that is open: its mode, and what its handles share."""

    __slots__ = ("backing_id", "fd", "path", "users")

    def __init__(self, path: ReadPath) -> None:
        self.path = path
        self.users = 0
        self.backing_id = 0
        self.fd = -1


class Passthrough:
    """The open files of one mount. All calls come from the thread that serves it.

    Args:
        wanted: False turns passthrough off; the mount then works the same, only slower.
        on_interrupt: called with a request's number when the process that made it is interrupted.
    """

    def __init__(self, *, wanted: bool, on_interrupt: Callable[[int], None]) -> None:
        self._inodes: dict[int, _OpenInode] = {}
        self._handles: dict[int, int] = {}
        self._refused: dict[str, int] = {}
        self._wanted = wanted
        self._mounts = _native.figures()["mounts"] if _native else 0
        self._privileged = True
        self._usable: bool | None = None
        self.hooked = False
        """Whether requests pass through the extension, so that interrupts are seen."""
        if _native:
            _native.configure(wanted, on_interrupt)
        global _current
        _current = self

    def why_not(self) -> str:
        """Say why passthrough is not available, as a sentence; empty when it is."""
        if not self._wanted:
            return "passthrough is turned off by the option of the mount"
        if _native is None:
            return _why_not_loaded
        figures = _native.figures()
        if figures["mounts"] == self._mounts:
            return "pyfuse3 does not call through the extension"
        if figures["fd"] < 0:
            return "this libfuse has no fuse_session_custom_io: it is older than 3.13"
        if not figures["offered"]:
            return f"Linux {platform.release()} does not offer FUSE_PASSTHROUGH (6.9 and later do)"
        if not self._privileged:
            return "the daemon lacks CAP_SYS_ADMIN, without which Linux takes no backing files"
        return ""

    def mounted(self) -> None:
        """Note that pyfuse3 has mounted: only now can be seen whether it did so through us."""
        if _native is not None:
            figures = _native.figures()
            self.hooked = figures["mounts"] > self._mounts and figures["fd"] >= 0

    def request(self) -> tuple[int, int]:
        """Return number and process id of the request that is being handed over right now."""
        return _native.request() if _native else (0, 0)

    def opened(self, inode: int, opened: OpenFile) -> tuple[ReadPath, str]:
        """Settle how a new handle is served, just before the kernel is told of it.

        Returns:
            The read path, and why a backing descriptor that the vfs offered was not used ("" when
            it was, or when there was none).
        """
        if self._usable is None:  # INIT has been answered by now, and stays so
            self._usable = not self.why_not()
        known = self._inodes.get(inode)
        path = choose_read_path(known.path if known else None, opened, available=self._usable)
        reason = ""
        if path is ReadPath.PASSTHROUGH and known is None:
            backing_id = _native.backing_open(opened.backing)  # type: ignore[union-attr]
            if backing_id > 0:
                known = self._inodes[inode] = _OpenInode(path)
                known.backing_id = backing_id
                if opened.owned:
                    known.fd, opened.owned = opened.backing, False
            else:
                reason = self._refuse(-backing_id)
                path = ReadPath.CACHED
        elif path is ReadPath.CACHED and opened.backing >= 0:
            reason = self.why_not() or "the file is open by the cached path elsewhere"
        if path is not ReadPath.DIRECT:
            if known is None:
                known = self._inodes[inode] = _OpenInode(path)
            known.users += 1
            self._handles[opened.handle] = inode
            fd = known.fd if opened.owned or opened.backing < 0 else opened.backing
            if _native and (known.backing_id or fd >= 0):
                _native.bind(opened.handle, known.backing_id, fd)
        if opened.owned:
            os.close(opened.backing)
        return path, reason

    def released(self, handle: int) -> None:
        """Forget a handle; the last one of its inode gives the backing file back."""
        inode = self._handles.pop(handle, None)
        if inode is None:
            return
        known = self._inodes[inode]
        known.users -= 1
        if _native:
            _native.unbind(handle)
        if known.users:
            return
        del self._inodes[inode]
        if known.backing_id and _native:
            failed = _native.backing_close(known.backing_id)
            if failed:
                log.warning("Backing file of inode %d: close: %s", inode, os.strerror(-failed))
        if known.fd >= 0:
            os.close(known.fd)

    def state(self) -> PassthroughState:
        """Return the state of this mount for people."""
        reason = self.why_not()
        figures = _native.figures() if _native else {}
        return PassthroughState(
            available=not reason,
            reason=reason,
            extension=self.hooked,
            handles=sum(i.users for i in self._inodes.values() if i.backing_id),
            backings=sum(1 for i in self._inodes.values() if i.backing_id),
            refused=dict(self._refused),
            requests=figures.get("requests", {}),
        )

    def _refuse(self, code: int) -> str:
        if code == errno.EPERM:
            self._privileged = self._usable = False
            reason = self.why_not()
        elif code == errno.ELOOP:
            reason = "it lies on a stacked file system (overlayfs): no passthrough there"
        elif code in (errno.EOPNOTSUPP, errno.EBADF):
            reason = "its file system cannot back another one"
        else:
            reason = f"Linux refused the backing file: {os.strerror(code)}"
        if reason not in self._refused:
            log.info("Passthrough is not used for every file: %s", reason)
        self._refused[reason] = self._refused.get(reason, 0) + 1
        return reason


_current: Passthrough | None = None


def passthrough_state() -> PassthroughState:
    """Return the state of the mount that this process serves (or served last)."""
    if _current is not None:
        return _current.state()
    return PassthroughState(
        available=False,
        reason=_why_not_loaded or "nothing is mounted",
        extension=_native is not None,
    )
