"""The trees of a mount keep what each tree promises, by themselves and behind the router."""

import pytest

from mregfs.vfs.control import usage_text
from mregfs.vfs.numbers import META, Space, inode_of_draft
from tests.contracts.file_tree import FileTreeContract, Shown
from tests.vfs.rig import Rig


async def draft(rig: Rig) -> int:
    """Make a draft with a file, a directory and a link, and return its number."""
    await rig.write("staging/draft/file", b"0123456789")
    await rig.write("staging/draft/below/inner", b"inner")
    await rig.symlink("file", "staging/draft/link")
    return (await rig.walk("staging/draft")).inode


@pytest.fixture
def alone() -> bool:
    """Whether a tree is asked by itself; else the router is."""
    return True


class TestVersion(FileTreeContract):
    """The registry's tree, inside of a version."""

    @pytest.fixture
    async def shown(self, rig: Rig, *, alone: bool) -> Shown:
        await draft(rig)
        assert (await rig.control("commit draft mnist"))["ok"]
        inode = (await rig.walk("artifacts/mnist/v0")).inode
        return Shown(
            rig.tree_of(Space.REGISTRY) if alone else rig.router,
            Space.REGISTRY,
            inode,
            b"file",
            b"0123456789",
            b"below",
            link=b"link",
            target=b"file",
            unknown=inode + 100,
        )


class TestSpecial(FileTreeContract):
    """`.mregfs` and its files."""

    @pytest.fixture
    async def shown(self, rig: Rig, *, alone: bool) -> Shown:
        return Shown(
            rig.tree_of(Space.SPECIAL) if alone else rig.router,
            Space.SPECIAL,
            META,
            b"control",
            usage_text().encode(),
            b"query",
            unknown=META + 15,
        )


class TestDrafts(FileTreeContract):
    """The staging area, as a mount makes it."""

    @pytest.fixture
    async def shown(self, rig: Rig, *, alone: bool) -> Shown:
        return Shown(
            rig.tree_of(Space.DRAFTS) if alone else rig.router,
            Space.DRAFTS,
            await draft(rig),
            b"file",
            b"0123456789",
            b"below",
            link=b"link",
            target=b"file",
            unknown=inode_of_draft(1 << 40),
            changes=True,
        )


class Routed:
    @pytest.fixture
    def alone(self) -> bool:
        return False


class TestVersionRouted(Routed, TestVersion): ...


class TestSpecialRouted(Routed, TestSpecial): ...


class TestDraftsRouted(Routed, TestDrafts): ...
