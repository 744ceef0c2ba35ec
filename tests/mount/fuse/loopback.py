"""A small file system over a host directory, and a program that serves it, for mount tests.

The tree is a real `DraftDirectory`; a few files in its root are special. Run as a program, it takes
one JSON object with the arguments of `Settings`, writes `ready` when the mount answers, and ends on
SIGTERM.
"""

import errno
import json
import logging
import os
import signal
import stat
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

if __name__ == "__main__" and '"extension":false' in sys.argv[1]:
    sys.modules["mregfs.fuse._passthrough"] = None  # type: ignore[assignment] # as if not built

import msgspec
import trio

from mregfs.drafts import DraftDirectory
from mregfs.errors import HostError, MregfsError, UnavailableError, UnsupportedError
from mregfs.fuse.notices import Notices
from mregfs.fuse.passthrough import passthrough_state, pyfuse3
from mregfs.fuse.serve import serve
from mregfs.host.beneath import Beneath
from mregfs.vfs.answers import Answer, InLoop, InThread, settle
from mregfs.vfs.interface import (
    Attributes,
    Caller,
    ChangedAttributes,
    FileSystemFigures,
    OpenFile,
    OpenFlags,
    RenameMode,
)
from mregfs.vfs.numbers import Space, handles_of

PROJECT = "default/default"


class Settings(msgspec.Struct):
    host: str
    mountpoint: str
    source: str = "loopback"
    passthrough: bool = True
    backed: bool = True
    """Whether files are offered for passthrough at all."""
    wavering: bool = False
    """Whether every third open offers none: as when a file is being fetched."""
    owned: bool = False
    """Whether files opened for reading come with a descriptor for the adapter to close."""
    keep_cache: bool = False
    """Whether what the kernel knows of a file stays valid from one open to the next."""
    hollow: bool = False
    """Whether a change of nothing leaves set-id bits alone, which chown(2) does not."""
    allow_other: bool = False
    read_only: bool = False
    grace: float = 5.0
    options: list[str] = []
    uid: int = 0
    """Who serves it; 0 is root."""
    fails: str = ""
    """What goes wrong: `ready` (the callback raises) or `loop` (the session loop does)."""
    extension: bool = True
    """False: as if `_passthrough` were not built."""
    fast_path: bool = True
    """False: pyfuse3 gets every request, though answers are at hand."""
    at_once: bool = True
    """False: no answer is ever at hand, so that pyfuse3 gets every request."""


NEWS = 2
BOOM = 3
STATE = 4
STALE = 5
LATER = 6
ABSENT = 7
PATIENT = 10
"""The first of ninety: of one file the kernel has one write at a time under way."""
SLOW = 100
"""The first of a thousand: what is being read cannot be opened by the next test."""
_LAST_SPECIAL = SLOW + 1000
_SPECIAL = {
    b".news": NEWS,
    b".boom": BOOM,
    b".state": STATE,
    b".stale": STALE,
    b".later": LATER,
    b".absent": ABSENT,
}
_SLOW_SIZE = 1 << 20

_T = TypeVar("_T")


def _is_real(handle: int) -> bool:
    """Tell whether a handle is the draft tree's."""
    return handle & 3 == Space.DRAFTS


class LoopbackFileSystem:
    """The root shows the draft tree, and these files, which are not listed:

    * `.news`: a read waits until somebody writes; poll tells of it
    * `.slow0`, `.slow1`, …: ordinary files that are never read to the end of a request
    * `.later`: a thread answers reads, once somebody writes; then it raises if that was `fail`
    * `.absent`: what holds it does not answer: nothing but open and stat succeeds
    * `.patient0`, `.patient1`, …: a thread takes a write, for as many seconds as it says; `half`
      is written by half, `fail` raises
    * `.boom`: a read raises what no file system should
    * `.state`: figures as JSON
    * `.stuck`: making a directory of this name is never answered
    * `.stale`: attributes that the kernel keeps for an hour; a write makes the size 1 larger
    """

    def __init__(self, settings: Settings, notices: Notices) -> None:
        self._settings = settings
        self._notices = notices
        where, name = os.path.split(settings.host)
        with Beneath.at(where) as store:
            self._tree = DraftDirectory(store, name)
        self._root = self._tree.root(PROJECT).inode
        self._handles: dict[int, int] = {}
        self._texts: dict[int, bytes] = {}
        self._numbers = handles_of(Space.SPECIAL)
        self._news = trio.Event()
        self._news_text = b""
        self._wakes: list[Callable[[], None]] = []
        self._stale_size = 1
        self._later = threading.Event()
        self._later_text = b""
        self.references: Counter[int] = Counter()
        """What the kernel has to take back, by inode; the files above are not counted."""
        self.calls: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()

    def _real(self, inode: int) -> int:
        return self._root if inode == 1 else inode

    def _shown(self, attributes: Attributes) -> Attributes:
        if attributes.inode == self._root:
            attributes.inode = 1
        return attributes

    def _known(self, attributes: Attributes) -> Attributes:
        """Count what the kernel is told of for the first time, or once more."""
        self.references[self._shown(attributes).inode] += 1
        return attributes

    def _special(self, inode: int) -> Attributes:
        long = inode >= SLOW or inode == ABSENT
        size = _SLOW_SIZE if long else self._stale_size if inode == STALE else 0
        timeout = 3600.0 if inode == STALE else 0.0
        return Attributes(
            inode, stat.S_IFREG | 0o666, size, entry_timeout=timeout, attr_timeout=timeout
        )

    def _perhaps(self, answer: Callable[..., _T], *args: Any) -> Answer[_T]:
        """Answer at once, or say that the answer has to be waited for."""
        if self._settings.at_once:
            return answer(*args)

        async def wait() -> _T:
            return await settle(answer(*args))

        return InLoop(wait)

    def lookup(self, parent: int, name: bytes) -> Answer[Attributes]:
        return self._perhaps(self._lookup, parent, name)

    def _lookup(self, parent: int, name: bytes) -> Attributes:
        self.calls["lookup"] += 1
        if parent == 1 and name in _SPECIAL:
            return self._special(_SPECIAL[name])
        if parent == 1 and name.startswith(b".patient"):
            return self._special(PATIENT + int(name[8:]))
        if parent == 1 and name.startswith(b".slow"):
            return self._special(SLOW + int(name[5:]))
        if name == b".nothing":
            return Attributes(0, 0, entry_timeout=3600.0)
        return self._known(self._tree.lookup(self._real(parent), name))

    def forget(self, inode: int, count: int) -> None:
        if inode > _LAST_SPECIAL:
            self.references[inode] -= count
            self._tree.forget(inode, count)

    def getattr(self, inode: int) -> Attributes:
        self.calls["getattr"] += 1
        if 1 < inode <= _LAST_SPECIAL:
            return self._special(inode)
        return self._shown(self._tree.getattr(self._real(inode)))

    def setattr(
        self, inode: int, changed: ChangedAttributes, handle: int | None, caller: Caller
    ) -> Attributes:
        self.calls["setattr"] += 1
        if 1 < inode <= _LAST_SPECIAL:
            return self._special(inode)
        if self._settings.hollow and changed == ChangedAttributes():
            return self._shown(self._tree.getattr(self._real(inode)))
        return self._shown(self._tree.setattr(self._real(inode), changed, handle, caller))

    def readlink(self, inode: int) -> bytes:
        return self._tree.readlink(inode)

    def mknod(self, parent: int, name: bytes, mode: int, rdev: int, caller: Caller) -> Attributes:
        return self._known(self._tree.mknod(self._real(parent), name, mode, rdev, caller))

    def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller) -> Answer[Attributes]:
        if name == b".stuck":
            return InLoop(trio.sleep_forever)
        return self._known(self._tree.mkdir(self._real(parent), name, mode, caller))

    def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Attributes:
        return self._known(self._tree.symlink(self._real(parent), name, target, caller))

    def link(self, inode: int, parent: int, name: bytes, caller: Caller) -> Attributes:
        return self._known(self._tree.link(inode, self._real(parent), name, caller))

    def unlink(self, parent: int, name: bytes, caller: Caller) -> None:
        self._tree.unlink(self._real(parent), name, caller)

    def rmdir(self, parent: int, name: bytes, caller: Caller) -> None:
        self._tree.rmdir(self._real(parent), name, caller)

    def rename(
        self,
        parent: int,
        name: bytes,
        new_parent: int,
        new_name: bytes,
        mode: RenameMode,
        caller: Caller,
    ) -> None:
        self._tree.rename(self._real(parent), name, self._real(new_parent), new_name, mode, caller)

    def create(
        self, parent: int, name: bytes, mode: int, flags: OpenFlags, caller: Caller
    ) -> tuple[OpenFile, Attributes]:
        opened, attributes = self._tree.create(self._real(parent), name, mode, flags, caller)
        return self._offered(opened, flags), self._known(attributes)

    def open(self, inode: int, flags: OpenFlags, caller: Caller) -> Answer[OpenFile]:
        return self._perhaps(self._open, inode, flags, caller)

    def _open(self, inode: int, flags: OpenFlags, caller: Caller) -> OpenFile:
        self.calls["open"] += 1
        if 1 < inode <= _LAST_SPECIAL:
            handle = next(self._numbers)
            self._handles[handle] = inode
            self._texts[handle] = self._state() if inode == STATE else b""
            return OpenFile(handle, direct_io=inode < SLOW and inode != ABSENT)
        return self._offered(self._tree.open(inode, flags, caller), flags)

    def _offered(self, opened: OpenFile, flags: OpenFlags) -> OpenFile:
        opened.keep_cache = self._settings.keep_cache
        self.calls["offered"] += 1
        wavers = self._settings.wavering and self.calls["offered"] % 3 == 0
        if wavers or not self._settings.backed:
            opened.backing = -1
        elif self._settings.owned and not flags.writes:
            opened.backing = os.dup(opened.backing)
            opened.owned = True
        return opened

    def read(self, handle: int, offset: int, size: int) -> Answer[bytes]:
        return self._perhaps(self._read, handle, offset, size)

    def _read(self, handle: int, offset: int, size: int) -> Answer[bytes]:
        if _is_real(handle):
            self.calls["read"] += 1
            return self._tree.read(handle, offset, size)
        inode = self._handles[handle]
        if inode == NEWS:
            return InLoop(partial(self._read_news, size))
        if inode >= SLOW:
            return InLoop(trio.sleep_forever)
        if inode == BOOM:
            raise ValueError("boom")
        if inode == ABSENT:
            raise UnavailableError("it does not answer")
        if inode == STATE:
            return self._texts[handle][offset : offset + size]
        if inode == LATER:
            return InThread(partial(self._read_later, offset, size))
        return b""

    async def _read_news(self, size: int) -> bytes:
        await self._news.wait()
        return self._news_text[:size]

    def _read_later(self, offset: int, size: int) -> bytes:
        self.calls["later"] += 1
        self._later.wait()
        if self._later_text == b"fail":
            raise HostError(errno.ENXIO, "it was to fail")
        return self._later_text[offset : offset + size]

    def _state(self) -> bytes:
        state = {
            "passthrough": msgspec.to_builtins(passthrough_state(), str_keys=True),
            "calls": self.calls,
            "refused": self.refused,
            "references": sum(n for inode, n in self.references.items() if inode > _LAST_SPECIAL),
            "descriptors": len(os.listdir("/proc/self/fd")),
            "tasks": trio.lowlevel.current_statistics().tasks_living,
        }
        return json.dumps(state).encode()

    def write(
        self, handle: int, offset: int, data: bytes, caller: Caller | None = None
    ) -> Answer[int]:
        return self._perhaps(self._write, handle, offset, data, caller)

    def _write(self, handle: int, offset: int, data: bytes, caller: Caller | None) -> Answer[int]:
        if _is_real(handle):
            self.calls["write"] += 1
            return self._tree.write(handle, offset, data, caller)
        inode = self._handles[handle]
        if inode == ABSENT:
            raise UnavailableError("it does not answer")
        if PATIENT <= inode < SLOW:
            return InThread(partial(self._write_later, data))
        if inode == STALE:
            self._stale_size += 1
            self._notices.forget_attributes(STALE)
            self._notices.forget_name(1, b".nothing")
        elif inode == LATER:
            self._later_text = data
            self._later.set()
        elif inode == NEWS:
            self._news_text = data
            self._news.set()
            self._news = trio.Event()
            for wake in self._wakes:
                wake()
            self._wakes.clear()
        return len(data)

    def _write_later(self, data: bytes) -> int:
        self.calls["patient"] += 1
        if data == b"fail":
            raise HostError(errno.ENXIO, "it was to fail")
        if data == b"half":
            return len(data) // 2
        time.sleep(float(data))
        return len(data)

    def flush(self, handle: int) -> None:
        self.calls["flush"] += 1
        if self._handles.get(handle) == ABSENT:
            raise UnavailableError("it does not answer")

    def fsync(self, handle: int, *, data_only: bool) -> Answer[None]:
        self.calls["fsync"] += 1
        if self._handles.get(handle) == ABSENT:
            raise UnavailableError("it does not answer")
        return self._tree.fsync(handle, data_only=data_only) if _is_real(handle) else None

    def release(self, handle: int) -> None:
        self.calls["release"] += 1
        if _is_real(handle):
            self._tree.release(handle)
        else:
            del self._handles[handle], self._texts[handle]

    def poll(self, handle: int, wake: Callable[[], None] | None) -> int:
        self.calls["poll"] += 1
        if self._handles.get(handle) != NEWS:
            raise UnsupportedError("an ordinary file")
        if wake is not None:
            self._wakes.append(wake)
        return 1 if self._news_text else 0

    def opendir(self, inode: int, caller: Caller) -> Answer[int]:
        return self._perhaps(self._tree.opendir, self._real(inode), caller)

    def readdir(self, handle: int, start: int) -> Iterator[tuple[bytes, Attributes, int]]:
        self.calls["readdir"] += 1
        for name, found, following in self._tree.readdir(handle, start):
            yield name, self._known(found), following

    def releasedir(self, handle: int) -> None:
        self._tree.releasedir(handle)

    def fsyncdir(self, handle: int) -> Answer[None]:
        return self._tree.fsyncdir(handle)

    def setxattr(self, inode: int, name: bytes, value: bytes, caller: Caller) -> None:
        self._tree.setxattr(self._real(inode), name, value, caller)

    def getxattr(self, inode: int, name: bytes, caller: Caller) -> Answer[bytes]:
        return self._perhaps(self._getxattr, inode, name, caller)

    def _getxattr(self, inode: int, name: bytes, caller: Caller) -> bytes:
        self.calls["getxattr"] += 1
        if 1 < inode <= _LAST_SPECIAL:
            raise HostError(errno.ENODATA, "no attributes here")
        return self._tree.getxattr(self._real(inode), name, caller)

    def listxattr(self, inode: int, caller: Caller) -> list[bytes]:
        return self._tree.listxattr(self._real(inode), caller)

    def removexattr(self, inode: int, name: bytes, caller: Caller) -> None:
        self._tree.removexattr(self._real(inode), name, caller)

    def statfs(self) -> FileSystemFigures:
        return self._tree.statfs()

    def backing_refused(self, handle: int, reason: str) -> None:
        self.refused[reason] += 1


async def break_off(*limits: int, main: Callable[..., Awaitable[None]] = pyfuse3.main) -> None:
    """The session loop, which fails after a second."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(main, *limits)
        await trio.sleep(1)
        raise OSError(errno.EPROTO, "the device")


async def run(settings: Settings) -> None:
    """Serve until SIGTERM."""
    stop = trio.Event()
    notices = Notices()

    async def listen() -> None:
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                stop.set()

    def ready() -> None:
        if settings.fails == "ready":
            raise HostError(errno.EIO, "not ready")
        print("ready", flush=True)

    if settings.fails == "loop":
        pyfuse3.main = break_off
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await serve(
            LoopbackFileSystem(settings, notices),
            settings.mountpoint,
            source=settings.source,
            options=settings.options,
            read_only=settings.read_only,
            allow_other=settings.allow_other,
            passthrough=settings.passthrough,
            fast_path=settings.fast_path,
            notices=notices,
            on_ready=ready,
            stop=stop,
            grace=settings.grace,
        )
        nursery.cancel_scope.cancel()


def main() -> None:
    settings = msgspec.json.decode(sys.argv[1], type=Settings)
    logging.basicConfig(level=logging.INFO)
    if settings.uid:
        os.setgroups([])
        os.setgid(settings.uid)
        os.setuid(settings.uid)
    Path(settings.host).mkdir(exist_ok=True)
    try:
        trio.run(run, settings)
    except BaseExceptionGroup as group:  # not except*, which before Python 3.11.4 raises groups
        if group.split(MregfsError)[1] is not None:
            raise
        sys.exit(f"{group.exceptions[0]!r}")
    print("ended", flush=True)


if __name__ == "__main__":
    main()
