"""The index may lose the content of a version at any time: it is loaded again, and nobody notices.

`reindex` in another process does that to a mount.
"""

import errno
from collections.abc import Callable
from typing import Any

import pytest

from mregfs.errors import MregfsError
from mregfs.model.state import Put
from mregfs.registry.read.content import CONTENT_TABLES
from tests.vfs.rig import Rig

FILE = "artifacts/mnist/v0/config.json"


def lose(rig: Rig) -> None:
    """Take all content out of the index, as a rebuild does."""
    with rig.store.index.read() as view:
        puts = [Put(table, key, None) for table in CONTENT_TABLES for key, _ in view.scan(table)]
    assert puts
    rig.store.index.write(puts)


def losing_once(rig: Rig, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that loses all content before its first call of `function`."""
    calls: list[int] = []

    def lose_and_call(*args: Any) -> Any:
        if not calls:
            calls.append(1)
            lose(rig)
        return function(*args)

    return lose_and_call


async def test_a_name_is_not_denied_while_its_content_is_lost(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel would believe it for ever: also when it is lost between two looks."""
    await rig.commit("mnist", {"config.json": b"1"})
    monkeypatch.setattr(rig.store.content, "find", losing_once(rig, rig.store.content.find))
    assert (await rig.walk(FILE)).inode
    lose(rig)
    assert 0 == (await rig.walk("artifacts/mnist/v0/nothing")).inode
    assert 0 == (await rig.walk("artifacts/mnist/v0/" + "n" * 600)).inode


async def test_a_known_number_can_be_opened(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel opens what it knows without a lookup."""
    await rig.commit("mnist", {"config.json": b"1", "below/file": b"2"})
    known = await rig.walk(FILE)
    directory = await rig.walk("artifacts/mnist/v0/below")
    for _ in range(2):
        lose(rig)
        await rig.control("tag mnist:v0 +seen")  # now nothing is remembered of versions
        opened = await rig.fs.open(known.inode, 0, rig.caller)
        assert b"1" == await rig.fs.read(opened.handle, 0, 10)
        rig.fs.release(opened.handle)

        lose(rig)
        await rig.control("tag mnist:v0 -seen")
        handle = await rig.fs.opendir(directory.inode, rig.caller)
        assert [b"file"] == [name for name, _, _ in rig.fs.readdir(handle, 0)]
        rig.fs.releasedir(handle)

        lose(rig)
        await rig.control("tag mnist:v0 +seen")
        assert b"user.mregfs.digest" in await rig.fs.listxattr(known.inode, rig.caller)

    monkeypatch.setattr(rig.store.content, "open", losing_once(rig, rig.store.content.open))
    with pytest.raises(MregfsError) as caught:
        await rig.fs.open(known.inode, 0, rig.caller)
    assert errno.ESTALE == caught.value.errno  # Linux comes again by the name


async def test_a_known_number_is_asked_for_again_by_name(rig: Rig) -> None:
    """stat and readlink wait for nothing: at ESTALE Linux looks the name up, which loads it."""
    await rig.commit("mnist", {"config.json": b"1"})
    known = await rig.walk(FILE)
    lose(rig)
    await rig.control("tag mnist:v0 +seen")
    for ask in (rig.fs.getattr, rig.fs.readlink):
        with pytest.raises(MregfsError) as caught:
            ask(known.inode)
        assert errno.ESTALE == caught.value.errno
    assert known == await rig.walk(FILE)
    assert known == rig.fs.getattr(known.inode)


async def test_a_listing_does_not_end_early(rig: Rig) -> None:
    """Neither the read that is under way nor the next one of the same directory."""
    files = {f"file-{number:03}": b"" for number in range(600)}
    await rig.commit("mnist", files)
    handle = await rig.fs.opendir((await rig.walk("artifacts/mnist/v0")).inode, rig.caller)
    entries = rig.fs.readdir(handle, 0)
    listed = [next(entries) for _ in range(10)]
    lose(rig)
    listed += entries
    assert sorted(files) == [name.decode() for name, _, _ in listed]

    lose(rig)
    rest = [name.decode() for name, _, _ in rig.fs.readdir(handle, listed[9][2])]
    assert sorted(files)[10:] == rest
    rig.fs.releasedir(handle)


async def test_what_is_open_can_be_asked_for_its_attributes(rig: Rig) -> None:
    """fstat(2) of a file that is open: after its version was deleted, and while content is lost."""
    for number in range(2):
        await rig.commit("mnist", {"config.json": b"%d" % number})
    known = await rig.walk(FILE)
    handles = [(await rig.fs.open(known.inode, 0, rig.caller)).handle for _ in range(2)]
    lose(rig)
    await rig.control("tag mnist:v0 +seen")
    assert known == rig.fs.getattr(known.inode)
    assert (await rig.control("rm mnist:v0"))["ok"]
    assert known == rig.fs.getattr(known.inode)
    rig.fs.release(handles.pop())
    assert known == rig.fs.getattr(known.inode)
    rig.fs.release(handles.pop())
    with pytest.raises(MregfsError) as caught:
        rig.fs.getattr(known.inode)
    assert errno.ESTALE == caught.value.errno
