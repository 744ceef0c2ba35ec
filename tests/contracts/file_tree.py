"""What every tree of a mount (`vfs.interface.FileTree`) promises: subclass it, and give `shown`."""

import errno
import os
from stat import S_ISDIR, S_ISLNK, S_ISREG
from typing import Any

import msgspec
import pytest

from mregfs.errors import MregfsError, UnsupportedError
from mregfs.fuse.flags import open_flags
from mregfs.vfs.answers import settle
from mregfs.vfs.interface import Attributes, Caller, ChangedAttributes, FileTree
from mregfs.vfs.numbers import Space, space_of

ME = Caller(uid=os.geteuid(), gid=os.getegid())
READ = open_flags(os.O_RDONLY)


class Shown(msgspec.Struct):
    """A directory of a tree, and some of what is in it."""

    tree: FileTree
    space: Space
    directory: int
    file: bytes
    content: bytes
    below: bytes
    """A directory."""
    link: bytes | None = None
    target: bytes = b""
    unknown: int = 0
    """A number of this space that stands for nothing."""
    changes: bool = False
    """Whether anything can be made and changed here by file operations."""


class FileTreeContract:
    """One test a promise."""

    @pytest.fixture
    def shown(self) -> Shown:
        raise NotImplementedError

    async def test_a_name_and_its_number_tell_the_same(self, shown: Shown) -> None:
        for name, is_kind in ((shown.file, S_ISREG), (shown.below, S_ISDIR)):
            found = await look_up(shown, name)
            told = shown.tree.getattr(found.inode)

            assert is_kind(found.mode)
            assert (found.inode, found.mode, found.size) == (told.inode, told.mode, told.size)

    async def test_numbers_are_of_its_space(self, shown: Shown) -> None:
        """By that a request finds its tree, again and again."""
        found = await look_up(shown, shown.file)
        opened = await settle(shown.tree.open(found.inode, READ, ME))
        directory = await settle(shown.tree.opendir(shown.directory, ME))
        try:
            assert [shown.space] * 2 == [space_of(shown.directory), space_of(found.inode)]
            assert [shown.space] * 2 == [Space(n % len(Space)) for n in (opened.handle, directory)]
        finally:
            shown.tree.release(opened.handle)
            shown.tree.releasedir(directory)

    async def test_what_is_not_there_is_not_found(self, shown: Shown) -> None:
        """By an error, or by an entry without number that the kernel may keep."""
        for name in (b"nothing", b"vN", b"\xff"):
            code = 0
            try:
                found = await settle(shown.tree.lookup(shown.directory, name))
            except MregfsError as error:
                code = error.errno
            assert code in (errno.ENOENT, errno.EINVAL) or 0 == found.inode

    async def test_a_number_of_nothing_is_stale(self, shown: Shown) -> None:
        """At ESTALE Linux looks the path up again by itself; at ENOENT it would not."""
        for ask in (shown.tree.getattr, shown.tree.readlink):
            with pytest.raises(MregfsError) as caught:
                ask(shown.unknown)
            assert caught.value.errno in (errno.ESTALE, errno.EINVAL)

    async def test_a_listing_has_each_name_once_with_its_number(self, shown: Shown) -> None:
        listed = await list_directory(shown, 0)
        names = [name for name, _, _ in listed]

        assert {shown.file, shown.below} <= set(names)
        assert len(names) == len(set(names))
        assert not {b".", b".."} & set(names)
        for name, told, _ in listed:
            assert told.inode == (await look_up(shown, name)).inode

    async def test_a_listing_goes_on_from_each_position(self, shown: Shown) -> None:
        directory = await settle(shown.tree.opendir(shown.directory, ME))
        try:
            whole = [(name, after) for name, _, after in shown.tree.readdir(directory, 0)]
            for number, (_, after) in enumerate(whole, 1):
                rest = [name for name, _, _ in shown.tree.readdir(directory, after)]
                assert [name for name, _ in whole[number:]] == rest
        finally:
            shown.tree.releasedir(directory)

    async def test_a_file_is_read_from_anywhere(self, shown: Shown) -> None:
        found = await look_up(shown, shown.file)
        opened = await settle(shown.tree.open(found.inode, READ, ME))
        try:
            pieces = [
                await settle(shown.tree.read(opened.handle, offset, size))
                for offset, size in ((0, 1 << 16), (3, 4))
            ]
        finally:
            shown.tree.release(opened.handle)

        assert shown.content == pieces[0]
        if not opened.direct_io:  # a stream, whose reader has a place of its own
            assert shown.content[3:7] == pieces[1]

    async def test_each_open_has_a_handle_of_its_own(self, shown: Shown) -> None:
        """Asked twice is opened twice; one that is closed leaves the other alone."""
        found = await look_up(shown, shown.file)
        first, second = (shown.tree.open(found.inode, READ, ME) for _ in range(2))
        one, other = await settle(first), await settle(second)
        shown.tree.flush(one.handle)
        shown.tree.release(one.handle)

        assert one.handle != other.handle
        assert shown.content == await settle(shown.tree.read(other.handle, 0, 1 << 16))
        await settle(shown.tree.fsync(other.handle, data_only=False))
        shown.tree.release(other.handle)

    async def test_closing_again_is_harmless(self, shown: Shown) -> None:
        found = await look_up(shown, shown.file)
        opened = await settle(shown.tree.open(found.inode, READ, ME))
        directory = await settle(shown.tree.opendir(shown.directory, ME))
        await settle(shown.tree.fsyncdir(directory))
        for _ in range(2):
            shown.tree.release(opened.handle)
            shown.tree.releasedir(directory)

    async def test_ordinary_files_are_always_ready(self, shown: Shown) -> None:
        found = await look_up(shown, shown.file)
        opened = await settle(shown.tree.open(found.inode, READ, ME))
        try:
            assert shown.tree.poll(opened.handle, None)
        except UnsupportedError:
            pass
        finally:
            shown.tree.release(opened.handle)

    async def test_a_link_says_where_it_points(self, shown: Shown) -> None:
        if shown.link is not None:
            found = await look_up(shown, shown.link)

            assert S_ISLNK(found.mode)
            assert (shown.target, len(shown.target)) == (
                shown.tree.readlink(found.inode),
                found.size,
            )
        with pytest.raises(MregfsError):
            shown.tree.readlink((await look_up(shown, shown.file)).inode)

    async def test_an_attribute_that_is_not_there_is_no_data(self, shown: Shown) -> None:
        inode = (await look_up(shown, shown.file)).inode

        assert b"user.nothing" not in await settle(shown.tree.listxattr(inode, ME))
        with pytest.raises(MregfsError) as caught:
            await settle(shown.tree.getxattr(inode, b"user.nothing", ME))
        assert errno.ENODATA == caught.value.errno

    async def test_what_cannot_be_changed_is_refused(self, shown: Shown) -> None:
        """Each in words, and nothing of it happens."""
        if shown.changes:
            return
        tree, inode = shown.tree, (await look_up(shown, shown.below)).inode
        before = await list_directory(shown, 0)
        changes: list[Any] = [
            lambda: tree.create(shown.directory, b"new", 0o644, READ, ME),
            lambda: tree.mknod(shown.directory, b"new", 0o100644, 0, ME),
            lambda: tree.mkdir(shown.directory, b"new", 0o755, ME),
            lambda: tree.symlink(shown.directory, b"new", b"target", ME),
            lambda: tree.link(inode, shown.directory, b"new", ME),
            lambda: tree.unlink(shown.directory, shown.file, ME),
            lambda: tree.rmdir(shown.directory, shown.below, ME),
            lambda: tree.setattr(inode, ChangedAttributes(mode=0o777), None, ME),
            lambda: tree.setxattr(inode, b"user.x", b"1", ME),
            lambda: tree.removexattr(inode, b"user.x", ME),
        ]
        for change in changes:
            with pytest.raises(MregfsError) as caught:
                await settle(change())
            assert caught.value.errno in (errno.EPERM, errno.EROFS)
            assert str(caught.value)

        assert before == await list_directory(shown, 0)


async def look_up(shown: Shown, name: bytes) -> Attributes:
    return await settle(shown.tree.lookup(shown.directory, name))


async def list_directory(shown: Shown, start: int) -> list[tuple[bytes, Attributes, int]]:
    directory = await settle(shown.tree.opendir(shown.directory, ME))
    try:
        return list(shown.tree.readdir(directory, start))
    finally:
        shown.tree.releasedir(directory)
