"""A seeded random machine that does the same things to two directories and compares what happens.

Decided here: which operations there are, how often each is tried, what must be equal afterwards.
Not decided here: what the two directories are. Used by `test_drafts_native` (the staging area's
adapter against a plain directory) and through a real mount (two plain directories, one of them in
the mount, several users).

What is compared: every result and errno; type, mode, owner, group, link count, size, device
number; content; extended attributes; names; a time stamp when it was set explicitly, else only
that it is recent. Sizes of directories and access times are the host's own business.
"""

import contextlib
import ctypes
import errno
import mmap
import os
import random
import stat
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

__all__ = ["ROOT", "HostSide", "Machine", "Side", "User", "shape"]

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
_RECENT_NS = 1_000_000_000 * 1_000_000_000  # time stamps that the machine sets lie before 2001
_DIRECTORIES = ("a", "b", "c")
_LEAVES = (*_DIRECTORIES, "f", "g", "h", "i", "s", "t")
_SLOTS = 6
_SIZE = 70_000  # crosses pages and the 64 KiB border


class User(NamedTuple):
    """Who makes the system calls."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


_libc = ctypes.CDLL(None, use_errno=True)

ROOT = User(os.geteuid(), os.getegid())


class Side(Protocol):
    """One of the two directories. Paths are relative; every method raises what has an `errno`."""

    def open(self, slot: int, path: str, flags: int, mode: int) -> None: ...
    def close(self, slot: int) -> None: ...
    def pread(self, slot: int, offset: int, size: int) -> bytes: ...
    def pwrite(self, slot: int, offset: int, data: bytes) -> int: ...
    def mmap_write(self, slot: int, offset: int, data: bytes) -> None: ...
    def ftruncate(self, slot: int, size: int) -> None: ...
    def fstat(self, slot: int) -> tuple[Any, ...]: ...
    def fchmod(self, slot: int, mode: int) -> None: ...
    def fsync(self, slot: int) -> None: ...
    def mkdir(self, path: str, mode: int) -> None: ...
    def rmdir(self, path: str) -> None: ...
    def unlink(self, path: str) -> None: ...
    def rename(self, path: str, new_path: str, flags: int) -> None: ...
    def link(self, path: str, new_path: str) -> None: ...
    def symlink(self, target: str, path: str) -> None: ...
    def readlink(self, path: str) -> str: ...
    def mknod(self, path: str, mode: int, device: int) -> None: ...
    def chmod(self, path: str, mode: int) -> None: ...
    def chown(self, path: str, uid: int, gid: int, *, follow: bool) -> None: ...
    def utime(self, path: str, atime_ns: int, mtime_ns: int, *, follow: bool) -> None: ...
    def truncate(self, path: str, size: int) -> None: ...
    def setxattr(self, path: str, name: str, value: bytes, flags: int) -> None: ...
    def getxattr(self, path: str, name: str) -> bytes: ...
    def listxattr(self, path: str) -> list[str]: ...
    def removexattr(self, path: str, name: str) -> None: ...
    def stat(self, path: str, *, follow: bool) -> tuple[Any, ...]: ...
    def listdir(self, path: str) -> list[str]: ...
    def read_file(self, path: str) -> bytes: ...
    def write_file(self, path: str, data: bytes, flags: int) -> int: ...


def shape(found: Any) -> tuple[Any, ...]:
    """Reduce a stat result to what must be equal on both sides."""
    mode = found.st_mode
    special = stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
    return (
        oct(mode),
        found.st_nlink,
        found.st_uid,
        found.st_gid,
        None if stat.S_ISDIR(mode) else found.st_size,
        found.st_rdev if special else 0,
        found.st_mtime_ns if found.st_mtime_ns < _RECENT_NS else "recent",
    )


class HostSide:
    """A directory that is reached with system calls: a plain one, or one in a mount."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._slots: dict[int, int] = {}

    def at(self, path: str) -> str:
        return os.path.join(self.path, path) if path else self.path

    def open(self, slot: int, path: str, flags: int, mode: int) -> None:
        self._slots[slot] = os.open(self.at(path), flags, mode)

    def close(self, slot: int) -> None:
        os.close(self._slots.pop(slot))

    def pread(self, slot: int, offset: int, size: int) -> bytes:
        return os.pread(self._slots[slot], size, offset)

    def pwrite(self, slot: int, offset: int, data: bytes) -> int:
        return os.pwrite(self._slots[slot], data, offset)

    def mmap_write(self, slot: int, offset: int, data: bytes) -> None:
        with mmap.mmap(self._slots[slot], offset + len(data)) as mapped:
            mapped[offset : offset + len(data)] = data
            mapped.flush()

    def ftruncate(self, slot: int, size: int) -> None:
        os.ftruncate(self._slots[slot], size)

    def fstat(self, slot: int) -> tuple[Any, ...]:
        return shape(os.fstat(self._slots[slot]))

    def fchmod(self, slot: int, mode: int) -> None:
        os.fchmod(self._slots[slot], mode)

    def fsync(self, slot: int) -> None:
        os.fdatasync(self._slots[slot])

    def mkdir(self, path: str, mode: int) -> None:
        os.mkdir(self.at(path), mode)

    def rmdir(self, path: str) -> None:
        os.rmdir(self.at(path))

    def unlink(self, path: str) -> None:
        os.unlink(self.at(path))

    def rename(self, path: str, new_path: str, flags: int) -> None:
        if not flags:
            os.rename(self.at(path), self.at(new_path))
        else:
            _renameat2(self.at(path), self.at(new_path), flags)

    def link(self, path: str, new_path: str) -> None:
        os.link(self.at(path), self.at(new_path), follow_symlinks=False)

    def symlink(self, target: str, path: str) -> None:
        os.symlink(target, self.at(path))

    def readlink(self, path: str) -> str:
        return os.readlink(self.at(path))

    def mknod(self, path: str, mode: int, device: int) -> None:
        os.mknod(self.at(path), mode, device)

    def chmod(self, path: str, mode: int) -> None:
        os.chmod(self.at(path), mode)

    def chown(self, path: str, uid: int, gid: int, *, follow: bool) -> None:
        os.chown(self.at(path), uid, gid, follow_symlinks=follow)

    def utime(self, path: str, atime_ns: int, mtime_ns: int, *, follow: bool) -> None:
        os.utime(self.at(path), ns=(atime_ns, mtime_ns), follow_symlinks=follow)

    def truncate(self, path: str, size: int) -> None:
        os.truncate(self.at(path), size)

    def setxattr(self, path: str, name: str, value: bytes, flags: int) -> None:
        os.setxattr(self.at(path), name, value, flags, follow_symlinks=False)

    def getxattr(self, path: str, name: str) -> bytes:
        return os.getxattr(self.at(path), name, follow_symlinks=False)

    def listxattr(self, path: str) -> list[str]:
        return sorted(os.listxattr(self.at(path), follow_symlinks=False))

    def removexattr(self, path: str, name: str) -> None:
        os.removexattr(self.at(path), name, follow_symlinks=False)

    def stat(self, path: str, *, follow: bool) -> tuple[Any, ...]:
        return shape(os.stat(self.at(path), follow_symlinks=follow))

    def listdir(self, path: str) -> list[str]:
        return sorted(os.listdir(self.at(path)))

    def read_file(self, path: str) -> bytes:
        with open(self.at(path), "rb", opener=_open_nonblocking) as file:
            return file.read()

    def write_file(self, path: str, data: bytes, flags: int) -> int:
        descriptor = os.open(self.at(path), os.O_WRONLY | os.O_NONBLOCK | flags, 0o666)
        try:
            return os.write(descriptor, data)
        finally:
            os.close(descriptor)


class Machine:
    """Does random operations on both sides and fails at the first difference.

    Args:
        seed: the same seed does the same operations.
        left: the native directory; the machine looks at it to choose what makes sense.
        right: what is being tested.
        users: who makes the calls, each time a random one; several need a privileged process.
        strict: False leaves out the cases in which the FUSE protocol does not tell enough for
            the native answer when users lack rights: a write by somebody outside the group takes
            away a set-group-id bit that stands without group execution (an old sign for locking),
            and chown(-1, -1) of another's set-user-id file is EPERM. Also left out are
            writes to files with set-id bits by root and by mappings, which take those away, too.
        awkward: also try paths that end in `/`, `/.` or `/..`, which only a kernel understands.
    """

    def __init__(
        self,
        seed: int,
        left: HostSide,
        right: Side,
        users: Sequence[User] = (ROOT,),
        *,
        strict: bool = True,
        awkward: bool = False,
    ) -> None:
        self.seed = seed
        self.left = left
        self.right = right
        self.users = users
        self.strict = strict
        self.awkward = awkward
        self.steps = 0
        self.succeeded = 0
        self._random = random.Random(seed)
        self._open: dict[int, int] = {}  # slot: flags
        self._known: list[str] = []
        self._recent: deque[str] = deque(maxlen=25)
        self._weights = _WEIGHTS

    def run(self, count: int, *, compare_every: int = 500) -> None:
        """Do `count` operations, and compare the whole trees now and then and at the end."""
        for _ in range(count):
            self.step()
            if self.steps % compare_every == 0:
                self.compare()
        for slot in list(self._open):
            self._both("close", slot)
            del self._open[slot]
        self.compare()

    def step(self) -> None:
        """Do one random operation on both sides."""
        if self.steps % 40 == 0:
            self._known = self._walk()
        self.steps += 1
        names, weights = zip(*self._weights.items(), strict=True)
        getattr(self, f"_{self._random.choices(names, weights)[0]}")()

    def compare(self) -> None:
        """Fail unless both trees are equal: names, attributes, contents, extended attributes."""
        pending = [""]
        while pending:
            path = pending.pop()
            kind = self._same("stat", path, follow=False)[1]
            mode = int(kind[0], 8)
            self._same("listxattr", path)
            if stat.S_ISREG(mode):
                self._same("read_file", path)
            elif stat.S_ISLNK(mode):
                self._same("readlink", path)
            elif stat.S_ISDIR(mode):
                names = self._same("listdir", path)[1]
                pending += [os.path.join(path, name) for name in names]

    # ---- doing it twice -----------------------------------------------------------------------

    def _both(
        self, operation: str, *args: Any, users: Sequence[User] = (), **kwargs: Any
    ) -> tuple[str, Any]:
        """Do it on both sides as one random user; fail when the results differ."""
        user = self._random.choice(users or self.users)
        shown = ", ".join(_short(arg) for arg in [*args, *kwargs.values()])
        self._recent.append(f"{self.steps}: {operation}({shown}) as {user.uid}")
        with _acting_as(user):
            results = [_outcome(side, operation, args, kwargs) for side in (self.left, self.right)]
        self._recent[-1] += f" -> {_short(results[0])}"
        if results[0] != results[1]:
            self._fail(f"{operation}({shown}) as {user}", results)
        self.succeeded += results[0][0] == "ok"
        return results[0]

    def _same(self, operation: str, *args: Any, **kwargs: Any) -> tuple[str, Any]:
        """Look at both sides with the process's own rights."""
        results = [_outcome(side, operation, args, kwargs) for side in (self.left, self.right)]
        if results[0] != results[1]:
            self._fail(f"comparing: {operation}{args}", results)
        return results[0]

    def _fail(self, what: str, results: list[tuple[str, Any]]) -> None:
        history = "\n  ".join(self._recent)
        raise AssertionError(
            f"seed {self.seed}, step {self.steps}: {what}\n"
            f"  native: {_short(results[0], 600)}\n  tested: {_short(results[1], 600)}\n"
            f"  before:\n  {history}"
        )

    # ---- choosing -------------------------------------------------------------------------------

    def _walk(self) -> list[str]:
        known = []
        for directory, directories, files in os.walk(self.left.path):
            below = os.path.relpath(directory, self.left.path)
            known += [os.path.normpath(os.path.join(below, name)) for name in directories + files]
        return sorted(known)

    def _path(self) -> str:
        end = ""
        if self.awkward and self._random.random() < 0.05:
            end = self._random.choice(("/", "/.", "/.."))
        return self._name() + end

    def _name(self) -> str:
        if self._known and self._random.random() < 0.6:
            return self._random.choice(self._known)
        if self._random.random() < 0.01:
            return self._random.choice(_LEAVES) * 256  # ENAMETOOLONG
        depth = self._random.choice((0, 0, 1, 1, 2))
        return "/".join(
            [*self._random.choices(_DIRECTORIES, k=depth), self._random.choice(_LEAVES)]
        )

    def _mode(self) -> int:
        if self._random.random() < 0.6:
            return self._random.choice((0o644, 0o666, 0o755, 0o777))
        mode = self._random.getrandbits(12)
        locking = mode & stat.S_ISGID and not self.strict
        return mode | stat.S_IXGRP if locking else mode

    def _data(self) -> bytes:
        size = self._random.choice((0, 1, 10, 100, 4096, 5000, self._random.randrange(20_000)))
        return self._random.randbytes(size)

    def _offset(self) -> int:
        return self._random.choice((0, 1, 4096, self._random.randrange(_SIZE)))

    def _slot(self, *, mapped: bool = False) -> int | None:
        slots = [
            slot
            for slot, flags in self._open.items()
            if not mapped or flags & os.O_ACCMODE == os.O_RDWR
        ]
        return self._random.choice(slots) if slots else None

    def _opens_special(self, path: str, *, writes: bool) -> bool:
        """Tell whether an open would reach a device, a FIFO, or (for reading) a directory."""
        try:
            mode = os.stat(self.left.at(path)).st_mode
        except OSError:
            return False
        return not (stat.S_ISREG(mode) or (stat.S_ISDIR(mode) and writes))

    # ---- the operations -------------------------------------------------------------------------

    def _open_file(self) -> None:
        slot = self._random.randrange(_SLOTS)
        if slot in self._open:
            self._both("close", slot)
            del self._open[slot]
        flags = self._random.choice((os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR))
        for flag, chance in (
            (os.O_CREAT, 0.6),
            (os.O_EXCL, 0.1),
            (os.O_TRUNC, 0.15),
            (os.O_APPEND, 0.15),
            (os.O_NOFOLLOW, 0.1),
        ):
            if self._random.random() < chance:
                flags |= flag
        path, mode = self._path(), self._mode()
        if flags & os.O_EXCL and not flags & os.O_CREAT:
            flags &= ~os.O_EXCL
        if self._opens_special(path, writes=flags & os.O_ACCMODE != os.O_RDONLY):
            return
        if self._both("open", slot, path, flags, mode)[0] == "ok":
            self._open[slot] = flags

    def _close_file(self) -> None:
        slot = self._slot()
        if slot is not None:
            self._both("close", slot)
            del self._open[slot]

    def _pread(self) -> None:
        slot = self._slot()
        if slot is not None:
            self._both("pread", slot, self._offset(), self._random.randrange(_SIZE))

    def _pwrite(self) -> None:
        slot = self._slot()
        if slot is not None:
            spared = self._is_spared(slot)
            users = [user for user in self.users if not spared or user != ROOT]
            self._both("pwrite", slot, self._offset(), self._data(), users=users)

    def _is_spared(self, slot: int) -> bool:
        mode = int(self._same("fstat", slot)[1][0], 8)
        return not self.strict and bool(mode & (stat.S_ISUID | stat.S_ISGID))

    def _mmap_write(self) -> None:
        slot, data = self._slot(mapped=True), self._data()
        if slot is not None and data and not self._is_spared(slot):
            size = self._same("fstat", slot)[1][4]
            if size > len(data):
                self._both("mmap_write", slot, self._random.randrange(size - len(data)), data)

    def _ftruncate(self) -> None:
        slot = self._slot()
        if slot is not None:
            self._both("ftruncate", slot, self._offset())

    def _fstat(self) -> None:
        slot = self._slot()
        if slot is not None:
            self._both("fstat", slot)

    def _fchmod(self) -> None:
        slot = self._slot()
        if slot is not None:
            self._both("fchmod", slot, self._mode())

    def _fsync(self) -> None:
        slot = self._slot()
        if slot is not None:
            self._both("fsync", slot)

    def _mkdir(self) -> None:
        self._both("mkdir", self._path(), self._mode())

    def _rmdir(self) -> None:
        self._both("rmdir", self._path())

    def _unlink(self) -> None:
        self._both("unlink", self._path())

    def _rename(self) -> None:
        flags = self._random.choice((0, 0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE))
        self._both("rename", self._path(), self._path(), flags)

    def _link(self) -> None:
        self._both("link", self._path(), self._path())

    def _symlink(self) -> None:
        target = self._random.choice((*_LEAVES, "a/f", "b/g", "c/s", "./h", "nowhere"))
        self._both("symlink", target, self._path())

    def _readlink(self) -> None:
        self._both("readlink", self._path())

    def _mknod(self) -> None:
        kind = self._random.choice((stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFREG, stat.S_IFCHR))
        device = os.makedev(1, 3) if kind == stat.S_IFCHR else 0
        self._both("mknod", self._path(), kind | self._mode(), device)

    def _chmod(self) -> None:
        self._both("chmod", self._path(), self._mode())

    def _open_up(self) -> None:
        """Give users something to do: after a while everything is closed to them."""
        known = [path for path in self._known if os.path.isdir(self.left.at(path))]
        if len(self.users) > 1 and known:
            self._same("chmod", self._random.choice(known), 0o777)

    def _chown(self) -> None:
        ids = (-1, *(user.uid for user in self.users), *(user.gid for user in self.users), 1001)
        uid, gid = self._random.choice(ids), self._random.choice(ids)
        if uid == gid == -1 and not self.strict:
            return
        self._both("chown", self._path(), uid, gid, follow=self._random.random() < 0.5)

    def _utime(self) -> None:
        times = [self._random.randrange(_RECENT_NS) for _ in range(2)]
        self._both("utime", self._path(), *times, follow=self._random.random() < 0.5)

    def _truncate(self) -> None:
        self._both("truncate", self._path(), self._offset())

    def _setxattr(self) -> None:
        name = self._random.choice(("user.one", "user.two", "user.three"))
        flags = self._random.choice((0, 0, os.XATTR_CREATE, os.XATTR_REPLACE))
        self._both("setxattr", self._path(), name, self._data()[:100], flags)

    def _getxattr(self) -> None:
        self._both("getxattr", self._path(), self._random.choice(("user.one", "user.two")))

    def _listxattr(self) -> None:
        self._both("listxattr", self._path())

    def _removexattr(self) -> None:
        self._both("removexattr", self._path(), self._random.choice(("user.one", "user.two")))

    def _stat(self) -> None:
        self._both("stat", self._path(), follow=self._random.random() < 0.5)

    def _listdir(self) -> None:
        self._both("listdir", self._path())

    def _read_file(self) -> None:
        path = self._path()
        if not self._opens_special(path, writes=False):
            self._both("read_file", path)

    def _write_file(self) -> None:
        path = self._path()
        flags = self._random.choice((0, os.O_CREAT, os.O_CREAT | os.O_TRUNC, os.O_APPEND))
        if not self._opens_special(path, writes=True):
            self._both("write_file", path, self._data(), flags)


_WEIGHTS = {
    "open_file": 10,
    "close_file": 3,
    "pread": 5,
    "pwrite": 7,
    "mmap_write": 3,
    "ftruncate": 3,
    "fstat": 4,
    "fchmod": 2,
    "fsync": 1,
    "mkdir": 6,
    "rmdir": 3,
    "unlink": 4,
    "rename": 8,
    "link": 4,
    "symlink": 2,
    "readlink": 2,
    "mknod": 2,
    "chmod": 3,
    "open_up": 4,
    "chown": 3,
    "utime": 3,
    "truncate": 3,
    "setxattr": 3,
    "getxattr": 2,
    "listxattr": 1,
    "removexattr": 2,
    "stat": 5,
    "listdir": 3,
    "read_file": 4,
    "write_file": 7,
}


def _outcome(side: Any, operation: str, args: Any, kwargs: Any) -> tuple[str, Any]:
    try:
        return "ok", getattr(side, operation)(*args, **kwargs)
    except Exception as error:
        code = getattr(error, "errno", None)
        if code is None:
            raise
        return "failed", errno.errorcode[code]


@contextlib.contextmanager
def _acting_as(user: User) -> Iterator[None]:
    if user == ROOT:
        yield
        return
    groups = os.getgroups()
    os.setgroups(list(user.groups))
    os.setegid(user.gid)
    os.seteuid(user.uid)
    try:
        yield
    finally:
        os.seteuid(ROOT.uid)
        os.setegid(ROOT.gid)
        os.setgroups(groups)


def _open_nonblocking(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _renameat2(path: str, new_path: str, flags: int) -> None:
    if _libc.renameat2(-100, os.fsencode(path), -100, os.fsencode(new_path), flags) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _short(value: Any, limit: int = 60) -> str:
    shown = repr(value)
    return shown if len(shown) <= limit else f"{shown[:limit]}…({len(shown)})"
