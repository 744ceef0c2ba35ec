"""Drafts behave as the host's own file system does: thousands of operations, side by side.

`DraftSide` stands in for the kernel: it walks paths, follows symlinks, counts lookups, forgets
them at random moments, and otherwise hands every operation to the adapter as a request.
"""

import errno
import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from mregfs.drafts import DraftDirectory
from mregfs.errors import HostError
from mregfs.fuse.flags import open_flags, rename_mode
from mregfs.host.beneath import Beneath
from mregfs.vfs.interface import Attributes, Caller, ChangedAttributes, OpenFile
from tests.machines.native_machine import ROOT, HostSide, Machine, shape

PROJECT = "default/default"
CALLER = Caller(uid=ROOT.uid, gid=ROOT.gid)
MAX_SYMLINKS = 40
LARGEST_MASK = 0o777


def fail(code: int) -> HostError:
    return HostError(code, os.strerror(code))


def _protects(what: str) -> int:
    return int(Path(f"/proc/sys/fs/protected_{what}").read_text())


class DraftSide:
    """What the kernel would ask of a `DraftDirectory` for each system call."""

    def __init__(self, tree: DraftDirectory, seed: int) -> None:
        self.tree = tree
        self.root = tree.root(PROJECT).inode
        self._random = Random(seed)
        self._lookups: Counter[int] = Counter()
        self._slots: dict[int, tuple[OpenFile, int, int]] = {}  # opened, inode, flags
        self._umask = os.umask(0)
        os.umask(self._umask)

    # ---- what the kernel does before and after a request

    def drop_caches(self) -> None:
        """Forget everything that is not open."""
        held = {inode for _, inode, _ in self._slots.values()}
        inodes = [inode for inode in self._lookups if inode not in held]
        self._random.shuffle(inodes)
        for inode in inodes:
            self.tree.forget(inode, self._lookups.pop(inode))

    def _known(self, attributes: Attributes) -> Attributes:
        self._lookups[attributes.inode] += 1
        return attributes

    def _lookup(self, parent: int, name: str) -> Attributes:
        return self._known(self.tree.lookup(parent, os.fsencode(name)))

    def _maybe(self, parent: int, name: str) -> Attributes | None:
        try:
            return self._lookup(parent, name)
        except HostError as error:
            if error.errno != errno.ENOENT:
                raise
            return None

    def _parent(self, path: str, start: int | None = None, links: int = 0) -> tuple[int, str]:
        """Walk to the last component, and return its directory and name."""
        inode = start or self.root
        *above, last = path.split("/")
        for name in above:
            inode = self._step(inode, name, links).inode
            if not stat.S_ISDIR(self.tree.getattr(inode).mode):
                raise fail(errno.ENOTDIR)
        return inode, last

    def _step(self, inode: int, name: str, links: int) -> Attributes:
        """Go to `name`, through symlinks."""
        found = self._lookup(inode, name)
        if not stat.S_ISLNK(found.mode):
            return found
        if links >= MAX_SYMLINKS:
            raise fail(errno.ELOOP)
        target = self._follow(inode, found)
        directory, last = self._parent(target, inode, links + 1)
        return self._step(directory, last, links + 1)

    def _follow(self, parent: int, link: Attributes) -> str:
        """Read a link; in a directory like /tmp only one's own or its owner's (proc(5))."""
        if _protects("symlinks") and self._foreign(parent, link, stat.S_IWOTH):
            raise fail(errno.EACCES)
        return os.fsdecode(self.tree.readlink(link.inode))

    def _foreign(self, parent: int, found: Attributes, writable: int) -> bool:
        directory = self.tree.getattr(parent)
        shared = directory.mode & stat.S_ISVTX and directory.mode & writable
        return bool(shared) and found.uid not in (directory.uid, CALLER.uid)

    def _check_reuse(self, parent: int, found: Attributes) -> None:
        """Refuse O_CREAT of what somebody else put into a directory like /tmp (proc(5))."""
        level = _protects("regular") if stat.S_ISREG(found.mode) else 1
        groups = stat.S_IWGRP if level > 1 else 0
        if level and self._foreign(parent, found, stat.S_IWOTH | groups):
            raise fail(errno.EACCES)

    def _find(self, path: str, *, follow: bool = True) -> Attributes:
        if not path:
            return self.tree.getattr(self.root)
        inode, name = self._parent(path)
        return self._step(inode, name, 0) if follow else self._lookup(inode, name)

    def _set(self, attributes: Attributes, slot: int | None = None, **changed: Any) -> None:
        handle = None if slot is None else self._slots[slot][0].handle
        self.tree.setattr(attributes.inode, ChangedAttributes(**changed), handle, CALLER)

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_") and name in _OPERATIONS and self._random.random() < 0.05:
            self.drop_caches()
        return object.__getattribute__(self, name)

    # ---- open files

    def open(self, slot: int, path: str, flags: int, mode: int) -> None:
        inode, name = self._parent(path)
        for links in range(MAX_SYMLINKS + 1):
            found = self._maybe(inode, name)
            if found is None:
                if not flags & os.O_CREAT:
                    raise fail(errno.ENOENT)
                opened, found = self.tree.create(
                    inode, os.fsencode(name), mode & ~self._umask, open_flags(flags), CALLER
                )
                self._known(found)
                self._slots[slot] = opened, found.inode, flags
                return
            if flags & os.O_EXCL:
                raise fail(errno.EEXIST)
            if not stat.S_ISLNK(found.mode) or flags & os.O_NOFOLLOW:
                break
            inode, name = self._parent(self._follow(inode, found), inode, links + 1)
        else:
            raise fail(errno.ELOOP)
        if stat.S_ISDIR(found.mode):
            raise fail(errno.EISDIR)
        if flags & os.O_CREAT:
            self._check_reuse(inode, found)
        if stat.S_ISLNK(found.mode):
            raise fail(errno.ELOOP)
        flags &= ~(os.O_CREAT | os.O_EXCL)
        if flags & os.O_TRUNC and self._random.random() < 0.5:
            self._set(found, size=0)
            flags &= ~os.O_TRUNC
        self._slots[slot] = (
            self.tree.open(found.inode, open_flags(flags), CALLER),
            found.inode,
            flags,
        )

    def close(self, slot: int) -> None:
        self.tree.release(self._slots.pop(slot)[0].handle)

    def pread(self, slot: int, offset: int, size: int) -> bytes:
        return self.tree.read(self._slots[slot][0].handle, offset, size)

    def pwrite(self, slot: int, offset: int, data: bytes) -> int:
        opened, inode, flags = self._slots[slot]
        if flags & os.O_APPEND:
            offset = self.tree.getattr(inode).size
        return self.tree.write(opened.handle, offset, data, CALLER)

    def mmap_write(self, slot: int, offset: int, data: bytes) -> None:
        assert os.pwrite(self._slots[slot][0].backing, data, offset) == len(data)

    def ftruncate(self, slot: int, size: int) -> None:
        _, inode, flags = self._slots[slot]
        if flags & os.O_ACCMODE == os.O_RDONLY:
            raise fail(errno.EINVAL)
        self._set(Attributes(inode, 0), slot, size=size)

    def fstat(self, slot: int) -> tuple[Any, ...]:
        return self._shape(self.tree.getattr(self._slots[slot][1]))

    def fchmod(self, slot: int, mode: int) -> None:
        self._set(Attributes(self._slots[slot][1], 0), slot, mode=mode)

    def fsync(self, slot: int) -> None:
        self.tree.fsync(self._slots[slot][0].handle, data_only=True).give()

    # ---- names

    def mkdir(self, path: str, mode: int) -> None:
        inode, name = self._parent(path)
        self._maybe(inode, name)
        mode &= (LARGEST_MASK | stat.S_ISVTX) & ~self._umask
        self._known(self.tree.mkdir(inode, os.fsencode(name), mode, CALLER))

    def rmdir(self, path: str) -> None:
        inode, name = self._parent(path)
        self._lookup(inode, name)
        self.tree.rmdir(inode, os.fsencode(name), CALLER)

    def unlink(self, path: str) -> None:
        inode, name = self._parent(path)
        self._lookup(inode, name)
        self.tree.unlink(inode, os.fsencode(name), CALLER)

    def rename(self, path: str, new_path: str, flags: int) -> None:
        inode, name = self._parent(path)
        new_inode, new_name = self._parent(new_path)
        self._lookup(inode, name)
        self._maybe(new_inode, new_name)
        self.tree.rename(
            inode, os.fsencode(name), new_inode, os.fsencode(new_name), rename_mode(flags), CALLER
        )

    def link(self, path: str, new_path: str) -> None:
        found = self._find(path, follow=False)
        inode, name = self._parent(new_path)
        self._known(self.tree.link(found.inode, inode, os.fsencode(name), CALLER))

    def symlink(self, target: str, path: str) -> None:
        inode, name = self._parent(path)
        self._maybe(inode, name)
        target_bytes = os.fsencode(target)
        self._known(self.tree.symlink(inode, os.fsencode(name), target_bytes, CALLER))

    def readlink(self, path: str) -> str:
        found = self._find(path, follow=False)
        if not stat.S_ISLNK(found.mode):
            raise fail(errno.EINVAL)
        return os.fsdecode(self.tree.readlink(found.inode))

    def mknod(self, path: str, mode: int, device: int) -> None:
        inode, name = self._parent(path)
        self._maybe(inode, name)
        mode &= ~self._umask
        self._known(self.tree.mknod(inode, os.fsencode(name), mode, device, CALLER))

    # ---- attributes

    def chmod(self, path: str, mode: int) -> None:
        self._set(self._find(path), mode=mode)

    def chown(self, path: str, uid: int, gid: int, *, follow: bool) -> None:
        found = self._find(path, follow=follow)
        self._set(found, uid=None if uid < 0 else uid, gid=None if gid < 0 else gid)

    def utime(self, path: str, atime_ns: int, mtime_ns: int, *, follow: bool) -> None:
        self._set(self._find(path, follow=follow), atime_ns=atime_ns, mtime_ns=mtime_ns)

    def truncate(self, path: str, size: int) -> None:
        found = self._find(path)
        if stat.S_ISDIR(found.mode):
            raise fail(errno.EISDIR)
        if not stat.S_ISREG(found.mode):
            raise fail(errno.EINVAL)
        self._set(found, size=size)

    def setxattr(self, path: str, name: str, value: bytes, flags: int) -> None:
        found = self._find(path, follow=False)
        key = os.fsencode(name)
        if not (stat.S_ISREG(found.mode) or stat.S_ISDIR(found.mode)):
            raise fail(errno.EPERM)
        if flags:
            try:
                self.tree.getxattr(found.inode, key, CALLER)
            except HostError:
                if flags & os.XATTR_REPLACE:
                    raise
            else:
                if flags & os.XATTR_CREATE:
                    raise fail(errno.EEXIST)
        self.tree.setxattr(found.inode, key, value, CALLER)

    def getxattr(self, path: str, name: str) -> bytes:
        return self.tree.getxattr(self._find(path, follow=False).inode, os.fsencode(name), CALLER)

    def listxattr(self, path: str) -> list[str]:
        found = self._find(path, follow=False)
        return sorted(map(os.fsdecode, self.tree.listxattr(found.inode, CALLER)))

    def removexattr(self, path: str, name: str) -> None:
        self.tree.removexattr(self._find(path, follow=False).inode, os.fsencode(name), CALLER)

    def stat(self, path: str, *, follow: bool) -> tuple[Any, ...]:
        return self._shape(self._find(path, follow=follow))

    def listdir(self, path: str) -> list[str]:
        return sorted(self._listed(path))

    def _listed(self, path: str) -> Iterator[str]:
        """Read a directory in small steps, as the kernel does, not taking the last of each."""
        found = self._find(path)
        if not stat.S_ISDIR(found.mode):
            raise fail(errno.ENOTDIR)
        handle = self.tree.opendir(found.inode, CALLER)
        position, end = 0, False
        while not end:
            room = self._random.randrange(1, 5)
            end = True
            for name, attributes, following in self.tree.readdir(handle, position):
                if room == 0:
                    self.tree.forget(attributes.inode, 1)
                    end = False
                    break
                self._known(attributes)
                yield os.fsdecode(name)
                position, room = following, room - 1
        self.tree.releasedir(handle)

    def read_file(self, path: str) -> bytes:
        found = self._find(path)
        opened = self.tree.open(found.inode, open_flags(os.O_RDONLY), CALLER)
        try:
            return self.tree.read(opened.handle, 0, 1 << 20)
        finally:
            self.tree.release(opened.handle)

    def write_file(self, path: str, data: bytes, flags: int) -> int:
        self.open(-1, path, os.O_WRONLY | flags, 0o666)
        try:
            return self.pwrite(-1, 0, data)
        finally:
            self.close(-1)

    @staticmethod
    def _shape(attributes: Attributes) -> tuple[Any, ...]:
        return shape(
            SimpleNamespace(
                st_mode=attributes.mode,
                st_nlink=attributes.nlink,
                st_uid=attributes.uid,
                st_gid=attributes.gid,
                st_size=attributes.size,
                st_rdev=attributes.rdev,
                st_mtime_ns=attributes.mtime_ns,
            )
        )


_OPERATIONS = frozenset(vars(DraftSide)) - {"drop_caches", "open", "close"}


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(
    ("seed", "count", "max_descriptors"),
    [
        (1, 400, None),
        pytest.param(2, 8000, None, marks=pytest.mark.slow),
        pytest.param(3, 8000, 2, marks=pytest.mark.slow),
        pytest.param(4, 8000, 0, marks=pytest.mark.slow),
    ],
)
def test_drafts_are_native(
    tmp_path: Path, seed: int, count: int, max_descriptors: int | None
) -> None:
    """Every result, errno and attribute is what a plain directory gives; nothing leaks."""
    native = tmp_path / "native"
    native.mkdir()
    before = descriptors()
    with Beneath.at(tmp_path) as store:
        tree = DraftDirectory(store, max_descriptors=max_descriptors)
    tested = DraftSide(tree, seed)
    native.chmod(stat.S_IMODE(tree.getattr(tested.root).mode))
    machine = Machine(seed, HostSide(native), tested)

    machine.run(count)

    assert machine.succeeded > count / 4
    tested.drop_caches()
    assert tree.known_count == 1  # the staging directory itself
    tree.close()
    assert before == descriptors()
