"""A file system without a mount: the parts of a daemon over a store in a directory, and no kernel.

Decided here: how a test calls the file system as the kernel would, by path. Not decided here: what
is asked (the tests).
"""

import errno
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISDIR, S_ISLNK, S_ISREG
from typing import Any

import trio

from mregfs.api import Store, init_store, open_store
from mregfs.daemon import Mounted, MountOptions
from mregfs.errors import MregfsError
from mregfs.fuse.flags import open_flags, rename_mode
from mregfs.model.names import parse_project
from mregfs.vfs.answers import settle
from mregfs.vfs.interface import Attributes, Caller, FileTree
from mregfs.vfs.numbers import Space
from mregfs.vfs.router import Router

ROOT = 1
WRITE_ONLY = 1
READ_WRITE = 2


class RecordedNotices:
    """What the kernel would have been told."""

    def __init__(self) -> None:
        self.forget_all()

    def forget_all(self) -> None:
        self.names: list[tuple[int, bytes]] = []
        self.inodes: list[int] = []
        self.drained = 0
        self.told = trio.Event()

    def forget_name(self, parent: int, name: bytes) -> None:
        self.names.append((parent, name))
        self.told.set()

    def drain(self, timeout: float | None = None) -> bool:
        self.drained += 1
        return True

    def forget_attributes(self, inode: int) -> None:
        self.inodes.append(inode)


class Awaited:
    """A file system whose answers are waited for, however they are to be had."""

    def __init__(self, fs: Router) -> None:
        self._fs = fs

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._fs, name)
        if name in _AT_ONCE:
            return method

        async def call(*args: Any, **words: Any) -> Any:
            place, translated = _FLAGS.get(name, (0, int))
            if place:
                args = (*args[:place], translated(args[place]), *args[place + 1 :])
            return await settle(method(*args, **words))

        return call


_FLAGS: dict[str, tuple[int, Callable[[int], Any]]] = {
    "open": (1, open_flags),
    "create": (3, open_flags),
    "rename": (4, rename_mode),
}
"""Which argument is a number of the kernel's, and what becomes of it."""

_AT_ONCE = {"forget", "getattr", "readlink", "readdir", "release", "releasedir"}


class Rig:
    """One file system, driven by paths."""

    def __init__(self, store: Store, project: str = "default/default", **options: bool) -> None:
        self.store = store
        self.notices = RecordedNotices()
        mounted = Mounted(
            store,
            parse_project(project),
            MountOptions(
                store=str(store.address), mountpoint="/models", project=project, **options
            ),
            self.notices,
        )
        self.fs: Any = Awaited(mounted.file_system)
        self.runner = mounted.runner
        self.router = mounted.file_system
        self.special: Any = self.tree_of(Space.SPECIAL)
        self.caller = Caller(0, 0, 0, 0o022)

    def tree_of(self, space: Space) -> FileTree:
        """Return one of the trees behind the router."""
        return self.router._handles[space]

    # ---- paths

    async def walk(self, path: str) -> Attributes:
        """Return the attributes at a path; symlinks are not followed."""
        found = self.fs.getattr(ROOT)
        for name in path.split("/"):
            if name:
                found = await self.fs.lookup(found.inode, name.encode())
        return found

    async def parent(self, path: str) -> tuple[int, bytes]:
        above, _, name = path.rpartition("/")
        return (await self.walk(above)).inode, name.encode()

    async def resolve(self, path: str) -> str:
        """Follow symlinks as the kernel does; return the path that they lead to."""
        done: list[str] = []
        todo = [name for name in path.split("/") if name]
        for _ in range(100):
            if not todo:
                return "/".join(done)
            name = todo.pop(0)
            if name == "..":
                done.pop()
                continue
            found = await self.walk("/".join([*done, name]))
            if S_ISLNK(found.mode):
                target = self.fs.readlink(found.inode).decode()
                todo = [part for part in target.split("/") if part not in ("", ".")] + todo
            else:
                done.append(name)
        raise AssertionError(f"{path} goes round in circles")

    # ---- calls

    async def symlink(self, target: str, path: str) -> Attributes:
        parent, name = await self.parent(path)
        return await self.fs.symlink(parent, name, target.encode(), self.caller)

    async def rename(self, old: str, new: str, flags: int = 0) -> None:
        parent, name = await self.parent(old)
        new_parent, new_name = await self.parent(new)
        await self.fs.rename(parent, name, new_parent, new_name, flags, self.caller)

    async def mkdir(self, path: str) -> Attributes:
        parent, name = await self.parent(path)
        return await self.fs.mkdir(parent, name, 0o755, self.caller)

    async def rmdir(self, path: str) -> None:
        parent, name = await self.parent(path)
        await self.fs.rmdir(parent, name, self.caller)

    async def unlink(self, path: str) -> None:
        parent, name = await self.parent(path)
        await self.fs.unlink(parent, name, self.caller)

    async def readlink(self, path: str) -> str:
        return self.fs.readlink((await self.walk(path)).inode).decode()

    async def read(self, path: str) -> bytes:
        found = await self.walk(path)
        opened = await self.fs.open(found.inode, 0, self.caller)
        try:
            return await self.fs.read(opened.handle, 0, 1 << 20)
        finally:
            self.fs.release(opened.handle)

    async def write(self, path: str, data: bytes) -> None:
        """Write a new file of a draft, and make the directories above it."""
        above = Path(path).parent
        for directory in reversed([above, *above.parents][:-1]):
            try:
                await self.walk(str(directory))
            except MregfsError as error:
                if error.errno != errno.ENOENT:
                    raise
                await self.mkdir(str(directory))
        parent, name = await self.parent(path)
        opened, _ = await self.fs.create(parent, name, 0o644, WRITE_ONLY, self.caller)
        await self.fs.write(opened.handle, 0, data)
        self.fs.release(opened.handle)

    async def names(self, path: str, start: int = 0) -> list[str]:
        found = await self.walk(path)
        handle = await self.fs.opendir(found.inode, self.caller)
        try:
            return [name.decode() for name, _, _ in self.fs.readdir(handle, start)]
        finally:
            self.fs.releasedir(handle)

    async def control(self, script: str) -> dict[str, object]:
        """Write a script on the control file, and return the reply."""
        found = await self.walk(".mregfs/control")
        opened = await self.fs.open(found.inode, READ_WRITE, self.caller)
        await self.fs.write(opened.handle, 0, script.encode())
        reply = await self.fs.read(opened.handle, len(script), 1 << 20)
        self.fs.release(opened.handle)
        return json.loads(reply)

    async def commit(self, artifact: str, files: dict[str, bytes], words: str = "") -> str:
        """Write a draft and commit it; return the version's name."""
        for path, data in files.items():
            await self.write(f"staging/draft/{path}", data)
        reply = await self.control(f"commit draft {artifact} {words}")
        assert reply["ok"], reply
        return reply["results"][0]["version"]  # type: ignore[index]

    async def tree(self, path: str = "") -> dict[str, str]:
        """Return everything below a path: what each name is, or holds, or points at."""
        found: dict[str, str] = {}
        for name in await self.names(path):
            below = f"{path}/{name}".lstrip("/")
            mode = (await self.walk(below)).mode
            if S_ISDIR(mode):
                found[below] = "directory"
                found |= await self.tree(below)
            elif S_ISLNK(mode):
                found[below] = f"-> {await self.readlink(below)}"
            elif S_ISREG(mode) and not below.startswith(".mregfs"):
                found[below] = (await self.read(below)).decode()
        return found


@contextmanager
def open_rig(directory: Path, project: str = "default/default", **options: bool) -> Iterator[Rig]:
    """Make a store in a directory (if there is none yet) and a file system over it."""
    path = directory / "store"
    if not path.exists():
        init_store(path)
    store = open_store(path)
    try:
        yield Rig(store, project, **options)
    finally:
        store.close()
