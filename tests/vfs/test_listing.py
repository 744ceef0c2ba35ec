"""Directories: order, positions, and attributes."""

import errno

import pytest

from mregfs.errors import MregfsError
from mregfs.model.commands import CreateCollection, LogVersion, Principal
from mregfs.model.names import DEFAULT_PROJECT
from tests.vfs.rig import Rig


def log_versions(rig: Rig, artifact: str, count: int) -> None:
    """Log versions without content, a few hundred in each entry."""
    for start in range(0, count, 500):
        rig.store.log.submit(
            [
                LogVersion(DEFAULT_PROJECT, artifact, f"{number:064x}", f"{number:032x}", 10, 1, 1)
                for number in range(start, min(start + 500, count))
            ],
            Principal("tests", privileged=True),
        )


async def test_versions_are_listed_by_number(rig: Rig) -> None:
    """v2 stands before v10, aliases after the versions."""
    log_versions(rig, "mnist", 1200)
    await rig.control("ln mnist:v7 mnist:best")

    assert [*(f"v{n}" for n in range(1200)), "best", "latest"] == await rig.names("artifacts/mnist")


async def test_a_listing_goes_on_from_any_position(rig: Rig) -> None:
    """Each position leads to exactly the rest, also when something came and went meanwhile."""
    log_versions(rig, "mnist", 300)
    rig.store.log.submit(
        [CreateCollection(DEFAULT_PROJECT, f"c{n:03}") for n in range(300)],
        Principal("tests", privileged=True),
    )
    for path in ("artifacts/mnist", "collections", "", "projects", "projects/default", ".mregfs"):
        inode = (await rig.walk(path)).inode
        handle = await rig.fs.opendir(inode, rig.caller)
        whole = [(name, position) for name, _, position in rig.fs.readdir(handle, 0)]
        for place in {0, len(whole) // 2, len(whole) - 1}:
            rest = [name for name, _, _ in rig.fs.readdir(handle, whole[place][1])]
            assert [name for name, _ in whole[place + 1 :]] == rest
        rig.fs.releasedir(handle)


async def test_attributes_agree_between_lookup_and_listing(rig: Rig) -> None:
    """readdirplus gives the kernel what lookup and getattr would."""
    await rig.commit("mnist", {"a/b": b"1", "c": b"", "d/e/f": b"22"})
    await rig.control("ln mnist:v0 c:production")
    todo = [""]
    while todo:
        path = todo.pop()
        handle = await rig.fs.opendir((await rig.walk(path)).inode, rig.caller)
        for name, attributes, _ in rig.fs.readdir(handle, 0):
            below = f"{path}/{name.decode()}"
            assert attributes == await rig.walk(below), below
            assert attributes.inode == rig.fs.getattr(attributes.inode).inode
            if attributes.mode & 0o170000 == 0o040000:
                todo.append(below)


async def test_absent_names_in_versions_are_remembered_and_others_not(rig: Rig) -> None:
    """The kernel may cache that a version lacks a name, not that a growing directory does."""
    await rig.commit("mnist", {"a": b"1"})
    version = (await rig.walk("artifacts/mnist/v0")).inode
    absent = await rig.fs.lookup(version, b"nothing")
    assert (0, True) == (absent.inode, absent.entry_timeout > 1000)

    with pytest.raises(MregfsError) as caught:
        await rig.walk("artifacts/mnist/v1")
    assert errno.ENOENT == caught.value.errno


async def test_extended_attributes(rig: Rig) -> None:
    """Versions, collections and files tell what the registry knows of them."""
    await rig.commit(
        "mnist", {"a": b"1"}, "--alias best --metadata '{\"accuracy\": 0.9}' --tag good"
    )
    await rig.control("ln mnist:v0 c:production")

    async def attributes(path: str) -> dict[str, str]:
        inode = (await rig.walk(path)).inode
        return {
            name.decode(): (await rig.fs.getxattr(inode, name, rig.caller)).decode()
            for name in await rig.fs.listxattr(inode, rig.caller)
        }

    version = await attributes("artifacts/mnist/v0")
    assert "best,latest" == version["user.mregfs.aliases"]
    assert '{"accuracy":0.9}' == version["user.mregfs.metadata"]
    assert "default/default/c:v0" == version["user.mregfs.links"]
    assert "1" == version["user.mregfs.size"]
    assert {"user.mregfs.digest", "user.mregfs.read_path"} == set(
        await attributes("artifacts/mnist/v0/a")
    )
    assert (
        '{"latest":"v0","production":"v0"}'
        == (await attributes("collections/c"))["user.mregfs.aliases"]
    )
    with pytest.raises(MregfsError) as caught:
        await rig.fs.getxattr((await rig.walk("artifacts")).inode, b"user.other", rig.caller)
    assert errno.ENODATA == caught.value.errno
