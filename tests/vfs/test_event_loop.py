"""What the event loop must not do: wait for the store. Everybody would wait with it."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio

from mregfs.ports.objects import ObjectStore
from mregfs.ports.packs import PackStore
from mregfs.stores.objects_dir import ObjectsDirectory
from mregfs.stores.packs_dir import PacksDirectory
from tests.vfs.rig import Rig

LOCAL = {"open_local"}
"""What a pack store may be asked on the loop: for the local file that the kernel is to read."""


def methods(port: type) -> Iterator[str]:
    return (name for name in vars(port) if not name.startswith("_"))


@pytest.fixture
def entered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The methods of the store's adapters that were called in this thread since the fixture."""
    found: list[str] = []
    loop = threading.get_ident()

    def watched(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **words: Any) -> Any:
            if threading.get_ident() == loop:
                found.append(name)
            return method(*args, **words)

        return call

    for port, adapter in ((ObjectStore, ObjectsDirectory), (PackStore, PacksDirectory)):
        for name in methods(port):
            if port is ObjectStore or name not in LOCAL:
                method = watched(f"{adapter.__name__}.{name}", getattr(adapter, name))
                monkeypatch.setattr(adapter, name, method)
    return found


def test_the_watch_sees_who_enters(rig: Rig, entered: list[str]) -> None:
    """The check itself can fail: what this thread asks of the store is noticed."""
    assert not rig.store.objects.exists("log/nothing")
    list(rig.store.packs.list())

    assert ["ObjectsDirectory.exists", "PacksDirectory.list"] == entered


async def test_no_request_enters_the_store_on_the_loop(rig: Rig, entered: list[str]) -> None:
    """Commits, moves, looks, reads, events and what others append: all of it leaves the loop."""
    other = Rig(rig.store)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.runner.follow)
        handle = (await rig.fs.open((await rig.walk(".mregfs/events")).inode, 2, rig.caller)).handle
        await rig.commit("mnist", {"a": b"1" * 100_000, "b/c": b"2"}, "--alias best")
        await rig.control("ln -sf mnist:v0 c:production")
        await rig.write("staging/run/a", b"2" * 100_000)
        await rig.rename("staging/run", "artifacts/mnist/next")
        await rig.symlink("../../artifacts/mnist/v1", "collections/c/.new")
        await rig.rename("collections/c/.new", "collections/c/production")
        await rig.unlink("collections/c/production")
        await rig.tree()
        await rig.read(".mregfs/status")
        await rig.read(".mregfs/query/history")
        version = (await rig.walk("artifacts/mnist/v1")).inode
        for name in await rig.fs.listxattr(version, rig.caller):
            await rig.fs.getxattr(version, name, rig.caller)
        await rig.fs.write(handle, 0, b"since 0")
        await other.control("ln -sf mnist:v1 c:production")
        with trio.fail_after(5):
            while b'"production"' not in await rig.fs.read(handle, 0, 1 << 20):
                pass
        nursery.cancel_scope.cancel()

    assert [] == entered
