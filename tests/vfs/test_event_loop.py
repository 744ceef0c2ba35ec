"""What the event loop must not do: wait for the store. Everybody would wait with it."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from mregfs.ports.objects import ObjectStore
from mregfs.ports.packs import PackStore
from mregfs.stores.objects_dir import ObjectsDirectory
from mregfs.stores.packs_dir import PacksDirectory
from tests.contracts.sleeping_store import _Bucket
from tests.far_store import far_away
from tests.vfs.rig import Rig, open_rig

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
    for name in ("call", "names"):
        monkeypatch.setattr(_Bucket, name, watched(f"bucket {name}", getattr(_Bucket, name)))
    return found


@pytest.fixture(params=["here", "far away"])
def any_rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    """A file system over a store on this host, and over one whose medium has to be asked."""
    if request.param == "here":
        with open_rig(tmp_path) as made:
            yield made
    else:
        with far_away(0.001), open_rig(tmp_path) as made:
            yield made


def test_the_watch_sees_who_enters(rig: Rig, entered: list[str]) -> None:
    """The check itself can fail: what this thread asks of the store is noticed."""
    assert not rig.store.objects.exists("log/nothing")
    list(rig.store.packs.list())

    assert ["ObjectsDirectory.exists", "PacksDirectory.list"] == entered


def test_the_watch_sees_who_enters_a_store_far_away(tmp_path: Path, entered: list[str]) -> None:
    with far_away(0), open_rig(tmp_path) as rig:
        entered.clear()
        assert not rig.store.objects.exists("log/nothing")
        list(rig.store.packs.list())

    assert ["bucket call", "bucket names"] == entered


async def test_the_status_answers_when_the_store_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many wait for the store: they have threads of their own."""
    gate, call = threading.Event(), _Bucket.call
    gate.set()

    def wait_and_call(bucket: _Bucket, key: str) -> dict[str, bytes]:
        gate.wait(60)
        return call(bucket, key)

    monkeypatch.setattr(_Bucket, "call", wait_and_call)
    with far_away(0), open_rig(tmp_path) as rig:
        await rig.commit("mnist", {"a": b"1"})
        rig.store.index.clear()
        rig.store.log.catch_up()
        version = (await rig.walk("artifacts/mnist/v0")).inode
        gate.clear()
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(rig.fs.lookup, version, b"a")
            for _ in range(10):
                await trio.lowlevel.checkpoint()
            try:
                with trio.fail_after(10):
                    assert json.loads(await rig.read(".mregfs/status"))["sequence"] == 1
            finally:
                gate.set()


async def test_no_request_enters_the_store_on_the_loop(any_rig: Rig, entered: list[str]) -> None:
    """Commits, moves, looks, reads, events and what others append: all of it leaves the loop."""
    rig, other = any_rig, Rig(any_rig.store)
    entered.clear()
    large = b"3" * 3_000_000
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.runner.follow)
        handle = (await rig.fs.open((await rig.walk(".mregfs/events")).inode, 2, rig.caller)).handle
        files = {"a": b"1" * 100_000, "b/c": b"2", "large": large}
        await rig.commit("mnist", files, "--alias best")
        await rig.control("ln -sf mnist:v0 c:production")
        await rig.write("staging/run/a", b"2" * 100_000)
        await rig.rename("staging/run", "artifacts/mnist/next")
        await rig.symlink("../../artifacts/mnist/v1", "collections/c/.new")
        await rig.rename("collections/c/.new", "collections/c/production")
        await rig.unlink("collections/c/production")
        await rig.tree()
        for _ in range(2):
            assert large[: 1 << 20] == await rig.read("artifacts/mnist/v0/large")
        assert json.loads(await rig.read(".mregfs/status"))["lag"] == 0
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
