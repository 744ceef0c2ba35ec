"""The staging area on a directory of the host, one promise per test.

What it does in the long run, compared with a plain directory, is `machines/test_drafts_native`.
"""

import errno
import fcntl
import os
import shutil
import signal
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mregfs.drafts import DraftDirectory, nodes
from mregfs.errors import ConflictError, HostError, NotFoundError
from mregfs.fuse.flags import open_flags
from mregfs.host import calls
from mregfs.host.beneath import Beneath
from mregfs.vfs.interface import Attributes, Caller, ChangedAttributes, DraftTree, RenameMode
from mregfs.vfs.numbers import Space, inode_of_draft
from tests.contracts.file_tree import FileTreeContract, Shown

PROJECT = "default/default"
ME = Caller(uid=os.geteuid(), gid=os.getegid())
ALICE = Caller(uid=1001, gid=1002)
NOREPLACE, EXCHANGE = RenameMode.KEEP, RenameMode.EXCHANGE

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def opened(store: Path, name: str = "staging", **options: Any) -> DraftDirectory:
    with Beneath.at(store) as held:
        return DraftDirectory(held, name, **options)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[DraftDirectory]:
    tree = opened(tmp_path)
    yield tree
    tree.close()


@pytest.fixture
def host(tmp_path: Path) -> Path:
    return tmp_path / "staging" / PROJECT


@pytest.fixture
def root(tree: DraftDirectory) -> int:
    return tree.root(PROJECT).inode


@pytest.fixture
def draft(tree: DraftDirectory, root: int) -> int:
    return tree.mkdir(root, b"draft", 0o755, ME).inode


@contextmanager
def refused(code: int) -> Iterator[None]:
    with pytest.raises(HostError) as caught:
        yield
    assert errno.errorcode[code] == errno.errorcode[caught.value.errno]


def write(tree: DraftDirectory, parent: int, name: bytes, data: bytes = b"content") -> int:
    """Make a file, and return its inode number."""
    opened, attributes = tree.create(parent, name, 0o644, open_flags(os.O_WRONLY), ME)
    tree.write(opened.handle, 0, data, ME)
    tree.release(opened.handle)
    return attributes.inode


def read(tree: DraftDirectory, inode: int) -> bytes:
    opened = tree.open(inode, open_flags(os.O_RDONLY), ME)
    try:
        return tree.read(opened.handle, 0, 1 << 20)
    finally:
        tree.release(opened.handle)


def listed(tree: DraftDirectory, inode: int) -> list[bytes]:
    handle = tree.opendir(inode, ME)
    names = []
    for name, attributes, _ in tree.readdir(handle, 0):
        names.append(name)
        tree.forget(attributes.inode, 1)
    tree.releasedir(handle)
    return sorted(names)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class TestTree(FileTreeContract):
    """What every tree of a mount promises."""

    @pytest.fixture
    def shown(self, tree: DraftDirectory, draft: int) -> Shown:
        write(tree, draft, b"file")
        tree.mkdir(draft, b"below", 0o755, ME)
        tree.symlink(draft, b"link", b"file", ME)
        return Shown(
            tree,
            Space.DRAFTS,
            draft,
            b"file",
            b"content",
            b"below",
            link=b"link",
            target=b"file",
            unknown=inode_of_draft(1 << 40),
            changes=True,
        )


def test_it_is_a_draft_tree(tree: DraftDirectory) -> None:
    """The port is what it promises."""
    port: DraftTree = tree

    assert tree is port


class TestRoots:
    def test_layout(self, tree: DraftDirectory, root: int, draft: int, host: Path) -> None:
        """A draft is `<path>/<entity>/<project>/<draft>`; inode numbers carry the bit."""
        write(tree, draft, b"file")

        assert b"content" == (host / "draft" / "file").read_bytes()
        assert inode_of_draft(host.stat().st_ino) == root
        assert inode_of_draft((host / "draft").stat().st_ino) == draft

    def test_anybody_may_make_drafts(self, tree: DraftDirectory, root: int) -> None:
        """The staging directory of a project is like /tmp; the way to it on the host is closed."""
        assert 0o41777 == tree.getattr(root).mode

    def test_the_way_on_the_host_is_closed(self, tmp_path: Path, root: int) -> None:
        """Nobody bypasses the mount."""
        assert 0o700 == stat.S_IMODE((tmp_path / "staging").stat().st_mode)

    @pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
    def test_what_is_not_ours_to_make_is_not_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
    ) -> None:
        """A store on a read-only disk, or of somebody else, can still be mounted."""

        def refuse(*arguments: object, **options: object) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "mkdir", refuse)
        for there in (False, True):
            tree = opened(tmp_path, "none")
            with pytest.raises(NotFoundError, match="there are no drafts"):
                tree.root(PROJECT)
            assert {} == tree.drafts(PROJECT)
            assert tree.statfs().blocks > 0
            if not there:
                monkeypatch.undo()
                (tmp_path / "none").mkdir()
                monkeypatch.setattr(os, "mkdir", refuse)

    def test_what_is_there_is_kept(self, tmp_path: Path, tree: DraftDirectory, draft: int) -> None:
        """Drafts survive a restart of the daemon."""
        write(tree, draft, b"file")
        tree.close()

        again = opened(tmp_path)
        found = again.lookup(again.root(PROJECT).inode, b"draft")

        assert draft == found.inode
        assert [b"file"] == listed(again, found.inode)
        again.close()

    def test_project_of(self, tree: DraftDirectory, root: int, draft: int) -> None:
        """Only a staging directory tells its project."""
        assert [PROJECT, None, None] == [tree.project_of(i) for i in (root, draft, 7)]

    @pytest.mark.parametrize("project", ["", "one", "a/b/c", "../x", "a/.", "/a", "a/"])
    def test_no_project(self, tree: DraftDirectory, project: str) -> None:
        """A name that would lead elsewhere is refused."""
        with refused(errno.EINVAL):
            tree.root(project)

    def test_dots(self, tree: DraftDirectory, root: int, draft: int) -> None:
        """`.` and `..` are found, but never anything above a staging directory."""
        assert draft == tree.lookup(draft, b".").inode
        assert root == tree.lookup(draft, b"..").inode
        assert root == tree.lookup(root, b"..").inode

    def test_forgetting_the_root(self, tree: DraftDirectory, root: int) -> None:
        """The staging directory stays known."""
        tree.forget(root, 100)

        assert root == tree.getattr(root).inode


class TestErrors:
    def test_errno_and_path(self, tree: DraftDirectory, draft: int) -> None:
        """An error has the host's errno and names the path."""
        with pytest.raises(HostError, match=r"'default/default/draft/no': No such file") as caught:
            tree.lookup(draft, b"no")

        assert errno.ENOENT == caught.value.errno

    def test_unknown_inode(self, tree: DraftDirectory) -> None:
        """An inode number that was never given is stale."""
        with refused(errno.ESTALE):
            tree.getattr(inode_of_draft(1))

    def test_unknown_handle(self, tree: DraftDirectory) -> None:
        """A handle that was never given is a bad descriptor; releasing it does no harm."""
        with refused(errno.EBADF):
            tree.read(99, 0, 1)
        tree.release(99)

    def test_name_too_long(self, tree: DraftDirectory, draft: int) -> None:
        """Limits are the host's."""
        with refused(errno.ENAMETOOLONG):
            tree.mkdir(draft, b"n" * 256, 0o755, ME)

    def test_full_directory(self, tree: DraftDirectory, root: int, draft: int) -> None:
        """A directory with something in it stays, and can still be used."""
        write(tree, draft, b"file")

        with refused(errno.ENOTEMPTY):
            tree.rmdir(root, b"draft", ME)

        assert [b"file"] == listed(tree, draft)

    def test_wrong_kind(self, tree: DraftDirectory, root: int, draft: int) -> None:
        """unlink is for files, rmdir for directories."""
        write(tree, draft, b"file")

        with refused(errno.EISDIR):
            tree.unlink(root, b"draft", ME)
        with refused(errno.ENOTDIR):
            tree.rmdir(draft, b"file", ME)

    def test_changed_behind_our_back(self, tree: DraftDirectory, draft: int, host: Path) -> None:
        """Another file under a known name is never taken for the known one."""
        inode = write(tree, draft, b"file")
        (host / "draft" / "other").write_bytes(b"other")
        (host / "draft" / "other").rename(host / "draft" / "file")

        with refused(errno.ESTALE):
            tree.open(inode, open_flags(os.O_RDONLY), ME)
        assert b"other" == read(tree, tree.lookup(draft, b"file").inode)


class TestOwnership:
    """What is created belongs to the caller, as if the caller had made the system call."""

    @pytest.fixture
    def open_to_all(self, tree: DraftDirectory, draft: int) -> int:
        tree.setattr(draft, ChangedAttributes(mode=0o777), None, ME)
        return draft

    @needs_root
    def test_owner(self, tree: DraftDirectory, open_to_all: int) -> None:
        draft = open_to_all
        opened, attributes = tree.create(draft, b"file", 0o640, open_flags(os.O_RDWR), ALICE)
        tree.release(opened.handle)
        made = [
            attributes,
            tree.mkdir(draft, b"dir", 0o750, ALICE),
            tree.symlink(draft, b"link", b"target", ALICE),
            tree.mknod(draft, b"fifo", stat.S_IFIFO | 0o600, 0, ALICE),
        ]
        device = tree.mknod(draft, b"null", stat.S_IFCHR | 0o600, os.makedev(1, 3), ME)

        assert [(1001, 1002)] * 4 == [(each.uid, each.gid) for each in made]
        assert [0o100640, 0o40750, 0o120777, 0o10600] == [each.mode for each in made]
        assert (0o20600, os.makedev(1, 3)) == (device.mode, device.rdev)
        with refused(errno.EPERM):
            tree.mknod(draft, b"zero", stat.S_IFCHR | 0o600, os.makedev(1, 5), ALICE)

    @needs_root
    def test_set_id_bits(self, tree: DraftDirectory, open_to_all: int) -> None:
        """What is made has the set-id bits that its maker asked for."""
        draft = open_to_all
        opened, attributes = tree.create(draft, b"file", 0o6755, open_flags(os.O_RDWR), ALICE)
        tree.release(opened.handle)

        assert 0o106755 == attributes.mode
        assert 0o41777 == tree.mkdir(draft, b"dir", 0o1777, ALICE).mode

    @needs_root
    def test_set_group_id_directory(self, tree: DraftDirectory, draft: int) -> None:
        """It hands on its group, and to directories the bit too."""
        tree.setattr(draft, ChangedAttributes(gid=77, mode=0o2777), None, ME)

        opened, file = tree.create(draft, b"file", 0o644, open_flags(os.O_RDWR), ALICE)
        tree.release(opened.handle)
        directory = tree.mkdir(draft, b"dir", 0o755, ALICE)
        link = tree.symlink(draft, b"link", b"target", ALICE)

        assert (0o100644, 1001, 77) == (file.mode, file.uid, file.gid)
        assert (0o42755, 1001, 77) == (directory.mode, directory.uid, directory.gid)
        assert (1001, 77) == (link.uid, link.gid)

    @pytest.mark.parametrize("caller", [ME, pytest.param(ALICE, marks=needs_root)])
    def test_umask_of_the_daemon(self, tmp_path: Path, caller: Caller) -> None:
        """The kernel has applied the caller's umask; the daemon's own does not count.

        Nor does it change, not even for a moment: the daemon's other files depend on it.
        """
        before = os.umask(0o077)
        try:
            tree = opened(tmp_path)
            draft = tree.root(PROJECT).inode
            handle, file = tree.create(draft, b"file", 0o666, open_flags(os.O_RDWR), caller)
            directory = tree.mkdir(draft, b"dir", 0o777, caller)
            node = tree.mknod(draft, b"node", stat.S_IFREG | 0o644, 0, caller)
        finally:
            assert 0o077 == os.umask(before)
        tree.release(handle.handle)
        tree.close()

        assert [0o100666, 0o40777, 0o100644] == [file.mode, directory.mode, node.mode]
        assert {(caller.uid, caller.gid)} == {(a.uid, a.gid) for a in (file, directory, node)}

    def test_mode_without_rights(self, tree: DraftDirectory, draft: int) -> None:
        """A file is open for its maker whatever its mode."""
        opened, attributes = tree.create(draft, b"file", 0, open_flags(os.O_RDWR), ME)

        assert 0o100000 == attributes.mode
        assert 4 == tree.write(opened.handle, 0, b"data", ME)
        assert b"data" == tree.read(opened.handle, 0, 10)
        tree.release(opened.handle)

    @needs_root
    def test_unprivileged(self, tmp_path: Path) -> None:
        """Without privilege everything belongs to the daemon, and no create fails for that."""
        (tmp_path / "store").mkdir()
        os.chown(tmp_path / "store", 1001, 1002)
        for parent in (tmp_path, *tmp_path.parents[:-1]):
            parent.chmod(parent.stat().st_mode | 0o011)
        os.setegid(1002)
        os.seteuid(1001)
        try:
            tree = opened(tmp_path / "store")
            root = tree.root(PROJECT).inode
            handle, file = tree.create(
                root, b"file", 0o4755, open_flags(os.O_RDWR), Caller(uid=5, gid=6)
            )
            tree.release(handle.handle)
            directory = tree.mkdir(root, b"dir", 0o755, ALICE)
            with refused(errno.EPERM):
                tree.setattr(file.inode, ChangedAttributes(uid=5), None, ALICE)
            tree.close()
        finally:
            os.seteuid(0)
            os.setegid(0)

        assert (0o104755, 1001, 1002) == (file.mode, file.uid, file.gid)
        assert (0o40755, 1001, 1002) == (directory.mode, directory.uid, directory.gid)


class TestOpenFiles:
    def test_backing(self, tree: DraftDirectory, draft: int) -> None:
        """The kernel may use the descriptor; it stays ours."""
        opened, _ = tree.create(draft, b"file", 0o644, open_flags(os.O_RDWR), ME)

        assert not opened.owned
        assert 5 == os.pwrite(opened.backing, b"12345", 0)
        assert b"345" == tree.read(opened.handle, 2, 10)
        tree.release(opened.handle)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(opened.backing)

    def test_append(self, tree: DraftDirectory, draft: int) -> None:
        """The kernel says where each WRITE goes, also for a file opened to append."""
        inode = write(tree, draft, b"file", b"12345")
        opened = tree.open(inode, open_flags(os.O_WRONLY | os.O_APPEND | os.O_DIRECT), ME)

        tree.write(opened.handle, 1, b"x", ME)
        tree.release(opened.handle)

        assert b"1x345" == read(tree, inode)

    def test_truncate_at_open(self, tree: DraftDirectory, draft: int) -> None:
        """O_TRUNC only arrives here when the kernel leaves it to us."""
        inode = write(tree, draft, b"file")

        tree.release(tree.open(inode, open_flags(os.O_WRONLY | os.O_TRUNC), ME).handle)

        assert 0 == tree.getattr(inode).size

    def test_create_finds_a_file(self, tree: DraftDirectory, draft: int) -> None:
        """Without O_EXCL what was made meanwhile is opened; with it, that is an error."""
        inode = write(tree, draft, b"file")

        opened, attributes = tree.create(draft, b"file", 0o600, open_flags(os.O_RDWR), ME)
        assert (inode, 0o100644) == (attributes.inode, attributes.mode)
        assert b"content" == tree.read(opened.handle, 0, 10)
        tree.release(opened.handle)
        with refused(errno.EEXIST):
            tree.create(draft, b"file", 0o600, open_flags(os.O_RDWR | os.O_EXCL), ME)

    def test_rights_of_a_handle(self, tree: DraftDirectory, draft: int) -> None:
        """Reading what was opened for writing, and the other way round, is EBADF."""
        inode = write(tree, draft, b"file")
        reader, writer = (
            tree.open(inode, open_flags(os.O_RDONLY), ME),
            tree.open(inode, open_flags(os.O_WRONLY), ME),
        )

        with refused(errno.EBADF):
            tree.write(reader.handle, 0, b"x", ME)
        with refused(errno.EBADF):
            tree.read(writer.handle, 0, 1)
        for opened in (reader, writer):
            tree.release(opened.handle)

    def test_symlink_is_not_followed(self, tree: DraftDirectory, draft: int) -> None:
        """The kernel follows links; here they are not files."""
        inode = tree.symlink(draft, b"link", b"/etc/passwd", ME).inode

        with refused(errno.ELOOP):
            tree.open(inode, open_flags(os.O_RDONLY), ME)
        for changed in (ChangedAttributes(mode=0o600), ChangedAttributes(size=0)):
            with refused(errno.EOPNOTSUPP):
                tree.setattr(inode, changed, None, ME)

    def test_sync(self, tree: DraftDirectory, draft: int) -> None:
        """Files and directories can be made durable."""
        opened, _ = tree.create(draft, b"file", 0o644, open_flags(os.O_RDWR), ME)
        tree.fsync(opened.handle, data_only=True).give()
        tree.fsync(opened.handle, data_only=False).give()
        tree.release(opened.handle)
        handle = tree.opendir(draft, ME)
        tree.fsyncdir(handle).give()
        tree.releasedir(handle)


class TestWithoutAName:
    """What lost its last name works on as natively, as long as the kernel knows it."""

    @pytest.mark.parametrize("opened_first", [True, False])
    def test_unlinked(self, tree: DraftDirectory, draft: int, opened_first: bool) -> None:
        inode = write(tree, draft, b"file")
        handle = tree.open(inode, open_flags(os.O_RDWR), ME).handle if opened_first else 0
        tree.unlink(draft, b"file", ME)
        handle = handle or tree.open(inode, open_flags(os.O_RDWR), ME).handle

        assert b"content" == tree.read(handle, 0, 10)
        assert 2 == tree.write(handle, 0, b"CO", ME)
        assert 0 == tree.getattr(inode).nlink
        tree.setattr(inode, ChangedAttributes(size=3, mode=0o600), handle, ME)
        tree.release(handle)
        assert b"COn" == read(tree, inode)
        changed = tree.setattr(inode, ChangedAttributes(size=1, mtime_ns=5), None, ME)
        assert (1, 0o100600, 5) == (changed.size, changed.mode, changed.mtime_ns)
        tree.setxattr(inode, b"user.key", b"value", ME)
        assert b"value" == tree.getxattr(inode, b"user.key", ME)
        with refused(errno.ENOENT):
            tree.link(inode, draft, b"again", ME)
        assert [] == listed(tree, draft)

    def test_forgotten(self, tree: DraftDirectory, draft: int, host: Path) -> None:
        """Then its descriptor is closed, and its number may come back for something else."""
        before = descriptors()
        inode = write(tree, draft, b"file")
        tree.unlink(draft, b"file", ME)
        assert before < descriptors()
        tree.forget(inode, 1)

        assert before >= descriptors() - 1  # the directory's own may be new
        with refused(errno.ESTALE):
            tree.getattr(inode)

    def test_replaced(self, tree: DraftDirectory, draft: int) -> None:
        """A rename over an open file leaves the open one alone."""
        old, new = write(tree, draft, b"old", b"old"), write(tree, draft, b"new", b"new")
        opened = tree.open(old, open_flags(os.O_RDONLY), ME)

        tree.rename(draft, b"new", draft, b"old", RenameMode.REPLACE, ME)

        assert b"old" == tree.read(opened.handle, 0, 10)
        assert 0 == tree.getattr(old).nlink
        tree.release(opened.handle)
        assert b"new" == read(tree, tree.lookup(draft, b"old").inode)
        assert b"new" == read(tree, new)

    def test_one_of_two_names(self, tree: DraftDirectory, draft: int) -> None:
        """A hard-linked file is reached by its other name, without a descriptor."""
        inode = write(tree, draft, b"one")
        assert (inode, 2) == (tree.link(inode, draft, b"two", ME).inode, tree.getattr(inode).nlink)
        before = descriptors()

        tree.unlink(draft, b"one", ME)

        assert before == descriptors()
        assert (b"content", 1) == (read(tree, inode), tree.getattr(inode).nlink)

    def test_unknown_other_name(self, tree: DraftDirectory, draft: int, host: Path) -> None:
        """A name that the kernel never looked up does not matter: the node is pinned."""
        inode = write(tree, draft, b"one")
        os.link(host / "draft" / "one", host / "draft" / "two")

        tree.unlink(draft, b"one", ME)

        assert (b"content", 1) == (read(tree, inode), tree.getattr(inode).nlink)
        assert 2 == tree.link(inode, draft, b"three", ME).nlink
        assert inode == tree.lookup(draft, b"two").inode

    def test_removed_directory(self, tree: DraftDirectory, draft: int) -> None:
        """It stays what it was, empty, and nothing can be made in it."""
        inode = tree.mkdir(draft, b"dir", 0o755, ME).inode
        handle = tree.opendir(inode, ME)
        tree.rmdir(draft, b"dir", ME)

        assert (0, []) == (tree.getattr(inode).nlink, listed(tree, inode))
        assert [] == list(tree.readdir(handle, 0))
        with refused(errno.ENOENT):
            tree.mkdir(inode, b"sub", 0o755, ME)
        with refused(errno.ENOENT):
            tree.lookup(inode, b"sub")
        tree.releasedir(handle)

    def test_removed_symlink(self, tree: DraftDirectory, draft: int) -> None:
        """It still says where it pointed."""
        inode = tree.symlink(draft, b"link", b"target", ME).inode
        tree.unlink(draft, b"link", ME)

        assert b"target" == tree.readlink(inode)

    def test_failed_removal(self, tree: DraftDirectory, root: int, draft: int) -> None:
        """What a rename could not replace is still reached by its name."""
        other = tree.mkdir(root, b"other", 0o755, ME).inode
        write(tree, other, b"file")

        with refused(errno.ENOTEMPTY):
            tree.rename(root, b"draft", root, b"other", RenameMode.REPLACE, ME)

        tree.rename(root, b"other", root, b"moved", RenameMode.REPLACE, ME)
        assert [b"file"] == listed(tree, other)


class TestRename:
    def test_below_a_moved_directory(self, tree: DraftDirectory, root: int, draft: int) -> None:
        """Known files follow their directory, also from draft to draft."""
        directory = tree.mkdir(draft, b"dir", 0o755, ME).inode
        file = write(tree, directory, b"file")
        other = tree.mkdir(root, b"other", 0o755, ME).inode

        tree.rename(draft, b"dir", other, b"moved", RenameMode.REPLACE, ME)

        assert b"content" == read(tree, file)
        assert other == tree.lookup(directory, b"..").inode
        assert [[], [b"moved"]] == [listed(tree, draft), listed(tree, other)]

    def test_a_draft(self, tree: DraftDirectory, root: int, draft: int) -> None:
        """Drafts themselves may be renamed and removed."""
        tree.rename(root, b"draft", root, b"better", RenameMode.REPLACE, ME)
        assert draft == tree.lookup(root, b"better").inode
        tree.rmdir(root, b"better", ME)

        assert [] == listed(tree, root)

    def test_noreplace(self, tree: DraftDirectory, draft: int) -> None:
        write(tree, draft, b"one")
        two = write(tree, draft, b"two", b"2")

        with refused(errno.EEXIST):
            tree.rename(draft, b"one", draft, b"two", NOREPLACE, ME)
        tree.rename(draft, b"one", draft, b"three", NOREPLACE, ME)

        assert [b"three", b"two"] == listed(tree, draft)
        assert b"2" == read(tree, two)

    def test_exchange(self, tree: DraftDirectory, draft: int) -> None:
        """Two names change places, of different kinds too."""
        file = write(tree, draft, b"file")
        directory = tree.mkdir(draft, b"dir", 0o755, ME).inode
        below = write(tree, directory, b"below", b"below")

        tree.rename(draft, b"file", draft, b"dir", EXCHANGE, ME)

        assert file == tree.lookup(draft, b"dir").inode
        assert directory == tree.lookup(draft, b"file").inode
        assert [b"content", b"below"] == [read(tree, file), read(tree, below)]
        with refused(errno.ENOENT):
            tree.rename(draft, b"file", draft, b"no", EXCHANGE, ME)

    def test_over_another_link(self, tree: DraftDirectory, draft: int) -> None:
        """rename(2) leaves two links of one file both alone."""
        inode = write(tree, draft, b"one")
        tree.link(inode, draft, b"two", ME)

        tree.rename(draft, b"one", draft, b"two", RenameMode.REPLACE, ME)

        assert [b"one", b"two"] == listed(tree, draft)
        tree.unlink(draft, b"one", ME)
        assert b"content" == read(tree, inode)

    def test_into_itself(self, tree: DraftDirectory, root: int, draft: int) -> None:
        with refused(errno.EINVAL):
            tree.rename(root, b"draft", draft, b"inner", RenameMode.REPLACE, ME)


class TestAttributes:
    def test_times(self, tree: DraftDirectory, draft: int) -> None:
        """Nanoseconds, also before 1970; the time that is not given stays."""
        inode = write(tree, draft, b"file")

        tree.setattr(inode, ChangedAttributes(atime_ns=1_000_000_007, mtime_ns=-5), None, ME)
        tree.setattr(inode, ChangedAttributes(mtime_ns=17), None, ME)
        first = tree.getattr(inode)
        tree.setattr(inode, ChangedAttributes(atime_ns=18), None, ME)
        second = tree.getattr(inode)

        assert (1_000_000_007, 17) == (first.atime_ns, first.mtime_ns)
        assert (18, 17) == (second.atime_ns, second.mtime_ns)

    def test_times_of_a_symlink(self, tree: DraftDirectory, draft: int) -> None:
        """Those of the link itself, wherever it points."""
        inode = tree.symlink(draft, b"link", b"nowhere", ME).inode

        assert 9 == tree.setattr(inode, ChangedAttributes(mtime_ns=9), None, ME).mtime_ns

    @needs_root
    def test_owner_before_mode(self, tree: DraftDirectory, draft: int) -> None:
        """chown takes set-id bits away, as natively; a mode given with it comes after."""
        inode = write(tree, draft, b"file")
        tree.setattr(inode, ChangedAttributes(mode=0o6755), None, ME)

        assert 0o100755 == tree.setattr(inode, ChangedAttributes(uid=5), None, ME).mode
        changed = tree.setattr(inode, ChangedAttributes(gid=6, mode=0o4711), None, ME)
        assert (0o104711, 5, 6) == (changed.mode, changed.uid, changed.gid)

    def test_nothing_changed(self, tree: DraftDirectory, draft: int) -> None:
        """chown(-1, -1) changes nothing but the ctime."""
        inode = write(tree, draft, b"file")
        before = tree.setattr(inode, ChangedAttributes(mtime_ns=1), None, ME)
        after = tree.setattr(inode, ChangedAttributes(), None, ME)

        assert before.ctime_ns <= after.ctime_ns
        assert (before.mode, before.mtime_ns) == (after.mode, after.mtime_ns)

    @pytest.mark.disk
    def test_sizes(self, tree: DraftDirectory, draft: int) -> None:
        """Through a handle or not; limits and kinds are the host's."""
        inode = write(tree, draft, b"file")
        reader = tree.open(inode, open_flags(os.O_RDONLY), ME)

        assert 4 == tree.setattr(inode, ChangedAttributes(size=4), reader.handle, ME).size
        with refused(errno.EFBIG):
            tree.setattr(inode, ChangedAttributes(size=1 << 62), None, ME)
        with refused(errno.EISDIR):
            tree.setattr(draft, ChangedAttributes(size=0), None, ME)
        tree.release(reader.handle)

    def test_timeouts(self, tree: DraftDirectory, draft: int) -> None:
        """Names are remembered; attributes of files are not: a mapping changes them unseen."""
        inode = write(tree, draft, b"file")
        file, directory = tree.lookup(draft, b"file"), tree.getattr(draft)

        assert inode == file.inode
        assert (0.0, 1.0) == (file.attr_timeout, directory.attr_timeout)
        assert file.entry_timeout > 0

    def test_xattrs(self, tree: DraftDirectory, draft: int) -> None:
        """On files and directories, by name; missing ones are ENODATA."""
        for inode in (write(tree, draft, b"file"), draft):
            tree.setxattr(inode, b"user.one", b"1", ME)
            tree.setxattr(inode, b"user.\xff", b"", ME)
            assert [b"user.one", b"user.\xff"] == sorted(tree.listxattr(inode, ME))
            assert b"1" == tree.getxattr(inode, b"user.one", ME)
            tree.removexattr(inode, b"user.one", ME)
            for call in (tree.getxattr, tree.removexattr):
                with refused(errno.ENODATA):
                    call(inode, b"user.one", ME)

    def test_xattrs_of_a_symlink(self, tree: DraftDirectory, draft: int) -> None:
        """Never those of what it points to."""
        write(tree, draft, b"file")
        inode = tree.symlink(draft, b"link", b"file", ME).inode

        with refused(errno.EPERM):
            tree.setxattr(inode, b"user.one", b"1", ME)
        assert [] == tree.listxattr(inode, ME)

    def test_no_access_control_lists(self, tree: DraftDirectory, draft: int) -> None:
        for call in (
            lambda: tree.setxattr(draft, b"system.posix_acl_default", b"", ME),
            lambda: tree.getxattr(draft, b"system.posix_acl_access", ME),
            lambda: tree.removexattr(draft, b"system.posix_acl_access", ME),
        ):
            with refused(errno.EOPNOTSUPP):
                call()

    def test_figures(self, tree: DraftDirectory, tmp_path: Path) -> None:
        figures, native = tree.statfs(), os.statvfs(tmp_path)

        assert (native.f_frsize, native.f_blocks) == (figures.fragment_size, figures.blocks)
        assert 255 == figures.name_max


class TestReadingDirectories:
    @pytest.fixture
    def names(self, tree: DraftDirectory, draft: int) -> list[bytes]:
        names = [b"file%d" % number for number in range(10)]
        for name in names:
            tree.forget(write(tree, draft, name), 1)
        return names

    def test_positions(self, tree: DraftDirectory, draft: int, names: list[bytes]) -> None:
        """One may go on from any position that was given."""
        handle = tree.opendir(draft, ME)
        whole = [(name, position) for name, _, position in tree.readdir(handle, 0)]

        assert names == sorted(name for name, _ in whole)
        for index, (_, position) in enumerate(whole):
            rest = [(name, after) for name, _, after in tree.readdir(handle, position)]
            assert whole[index + 1 :] == rest
        tree.releasedir(handle)

    def test_removed_meanwhile(self, tree: DraftDirectory, draft: int, names: list[bytes]) -> None:
        """What is gone is left out; `rm -r` removes while it reads."""
        handle = tree.opendir(draft, ME)
        entries = tree.readdir(handle, 0)
        first, _, position = next(entries)
        entries.close()
        for name in names[:5]:
            tree.unlink(draft, name, ME)

        rest = [name for name, _, _ in tree.readdir(handle, position)]

        assert sorted(set(names[5:]) - {first}) == sorted(rest)
        tree.releasedir(handle)

    def test_read_again(self, tree: DraftDirectory, draft: int, names: list[bytes]) -> None:
        """From position 0 (rewinddir) what was made meanwhile is there."""
        handle = tree.opendir(draft, ME)
        list(tree.readdir(handle, 0))
        tree.mkdir(draft, b"new", 0o755, ME)

        assert {*names, b"new"} == {name for name, _, _ in tree.readdir(handle, 0)}
        tree.releasedir(handle)

    def test_lookups(self, tree: DraftDirectory, draft: int, names: list[bytes]) -> None:
        """Each entry counts as one lookup from the moment it is yielded."""
        before = tree.known_count
        handle = tree.opendir(draft, ME)
        for _, attributes, _ in tree.readdir(handle, 0):
            assert before + 1 == tree.known_count
            tree.forget(attributes.inode, 1)
        tree.releasedir(handle)

        assert before == tree.known_count


class TestMemory:
    def test_nothing_stays(self, tree: DraftDirectory, root: int) -> None:
        """What the kernel forgot is forgotten, in whatever order; descriptors are closed."""
        before = descriptors()
        inodes = [tree.mkdir(root, b"draft", 0o755, ME).inode]
        for depth in range(20):
            inodes.append(tree.mkdir(inodes[-1], b"dir%d" % depth, 0o755, ME).inode)
        inodes.append(write(tree, inodes[-1], b"file"))
        tree.link(inodes[-1], inodes[3], b"other", ME)
        inodes.append(inodes[-1])

        for inode in inodes:  # parents first: the way to a known file stays known
            assert b"content" == read(tree, inodes[-1])
            tree.forget(inode, 1)

        assert 1 == tree.known_count
        assert before >= descriptors()

    def test_few_descriptors(self, tmp_path: Path) -> None:
        """Descriptors of directories are opened again when needed, however deep."""
        tree = opened(tmp_path, "few", max_descriptors=3)
        inode = tree.root(PROJECT).inode
        before = descriptors()
        directories = [inode]
        for _ in range(1200):
            directories.append(tree.mkdir(directories[-1], b"d", 0o755, ME).inode)
        file = write(tree, directories[-1], b"file")
        tree.getattr(inode)
        assert before + 4 >= descriptors()

        assert b"content" == read(tree, file)
        tree.rename(directories[100], b"d", directories[0], b"moved", RenameMode.REPLACE, ME)
        tree.getattr(inode)
        assert b"content" == read(tree, file)
        tree.getattr(inode)
        assert before + 4 >= descriptors()
        tree.close()
        subprocess.run(["rm", "-r", tmp_path / "few"], check=True)  # too deep for Python's rmtree

    def test_reused_number(self, tree: DraftDirectory, root: int, draft: int, host: Path) -> None:
        """A number that the host gives anew while the kernel knows the old gets a generation."""
        old = {write(tree, draft, b"file%d" % number): number for number in range(20)}
        tree.freeze(PROJECT, "draft")
        for path in (host / "draft").iterdir():
            path.unlink()
        (host / "draft").rmdir()
        tree.consumed(PROJECT, "draft")

        again = tree.mkdir(root, b"again", 0o755, ME).inode
        made = [tree.mknod(again, b"%d" % n, stat.S_IFREG | 0o644, 0, ME) for n in range(50)]

        reused = [attributes for attributes in made if attributes.inode in old]
        for attributes in reused:
            assert attributes.generation > 0
            tree.forget(attributes.inode, 2)
            with refused(errno.ESTALE):
                tree.getattr(attributes.inode)

    def test_threads(self, tree: DraftDirectory, draft: int) -> None:
        """Requests may come from several threads at once."""
        failures: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for turn in range(50):
                    name, new = b"%d-%d" % (number, turn), b"%d" % number
                    inode = write(tree, draft, name)
                    tree.rename(draft, name, draft, new, RenameMode.REPLACE, ME)
                    listed(tree, draft)
                    tree.unlink(draft, new, ME)
                    tree.forget(inode, 1)
            except BaseException as error:  # noqa: BLE001 - shown by the main thread
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert [] == failures
        assert 2 == tree.known_count


class TestFreezing:
    """While a draft is being committed nothing in it changes."""

    @pytest.fixture
    def file(self, tree: DraftDirectory, draft: int) -> int:
        return write(tree, draft, b"file")

    def test_path(self, tree: DraftDirectory, draft: int, host: Path) -> None:
        assert str(host / "draft") == tree.freeze(PROJECT, "draft")

    def test_no_draft(self, tree: DraftDirectory, root: int) -> None:
        """Only a directory is a draft."""
        write(tree, root, b"file")
        for project, name in ((PROJECT, "none"), (PROJECT, "file"), ("other/project", "draft")):
            with pytest.raises(NotFoundError, match="no draft"):
                tree.freeze(project, name)

    def test_twice(self, tree: DraftDirectory, draft: int) -> None:
        tree.freeze(PROJECT, "draft")

        with pytest.raises(ConflictError, match="being committed already"):
            tree.freeze(PROJECT, "draft")

    def test_open_for_writing(self, tree: DraftDirectory, root: int, draft: int) -> None:
        """All files open for writing are named, by every name they have in the draft."""
        directory = tree.mkdir(draft, b"dir", 0o755, ME).inode
        other = tree.mkdir(root, b"other", 0o755, ME).inode
        handles = [
            tree.create(parent, name, 0o644, open_flags(os.O_WRONLY), ME)[0].handle
            for parent, name in [(directory, b"z"), (draft, b"b"), (other, b"c"), (draft, b"gone")]
        ]
        linked, attributes = tree.create(other, b"linked", 0o644, open_flags(os.O_RDWR), ME)
        tree.link(attributes.inode, draft, b"a", ME)
        tree.unlink(draft, b"gone", ME)
        reader = tree.open(write(tree, draft, b"read"), open_flags(os.O_RDONLY), ME).handle

        assert {"draft": 3, "other": 2} == tree.drafts(PROJECT)
        with pytest.raises(ConflictError, match="open for writing: a, b, dir/z:"):
            tree.freeze(PROJECT, "draft")
        for handle in (*handles, linked.handle):
            tree.release(handle)
        assert {"draft": 0, "other": 0} == tree.drafts(PROJECT)
        tree.freeze(PROJECT, "draft")
        tree.release(reader)

    def test_changes(self, tree: DraftDirectory, root: int, draft: int, file: int) -> None:
        """Every change of the draft or below is EBUSY, and thawing ends that."""
        directory = tree.mkdir(draft, b"dir", 0o755, ME).inode
        other = tree.mkdir(root, b"other", 0o755, ME).inode
        outside = write(tree, other, b"outside")
        reader = tree.open(file, open_flags(os.O_RDONLY), ME).handle
        tree.freeze(PROJECT, "draft")

        changes = [
            lambda: tree.create(directory, b"new", 0o644, open_flags(os.O_RDWR), ME),
            lambda: tree.mknod(draft, b"new", stat.S_IFREG | 0o644, 0, ME),
            lambda: tree.mkdir(directory, b"new", 0o755, ME),
            lambda: tree.symlink(directory, b"new", b"target", ME),
            lambda: tree.link(outside, directory, b"new", ME),
            lambda: tree.link(file, other, b"new", ME),
            lambda: tree.unlink(draft, b"file", ME),
            lambda: tree.rmdir(draft, b"dir", ME),
            lambda: tree.rmdir(root, b"draft", ME),
            lambda: tree.rename(draft, b"file", draft, b"new", RenameMode.REPLACE, ME),
            lambda: tree.rename(draft, b"file", other, b"new", RenameMode.REPLACE, ME),
            lambda: tree.rename(other, b"outside", directory, b"new", RenameMode.REPLACE, ME),
            lambda: tree.rename(root, b"draft", root, b"new", RenameMode.REPLACE, ME),
            lambda: tree.rename(root, b"other", root, b"draft", EXCHANGE, ME),
            lambda: tree.open(file, open_flags(os.O_WRONLY), ME),
            lambda: tree.open(file, open_flags(os.O_RDONLY | os.O_TRUNC), ME),
            lambda: tree.setattr(file, ChangedAttributes(size=0), None, ME),
            lambda: tree.setattr(file, ChangedAttributes(mode=0o600), reader, ME),
            lambda: tree.setattr(draft, ChangedAttributes(mode=0o700), None, ME),
            lambda: tree.setxattr(file, b"user.one", b"1", ME),
            lambda: tree.removexattr(file, b"user.one", ME),
        ]
        for change in changes:
            with pytest.raises(HostError, match="draft 'draft' is being committed") as caught:
                change()
            assert errno.EBUSY == caught.value.errno
        assert b"content" == read(tree, file)
        assert [b"dir", b"file"] == listed(tree, draft)
        write(tree, other, b"free")

        tree.thaw(PROJECT, "draft")
        tree.thaw(PROJECT, "draft")
        tree.rename(draft, b"file", other, b"moved", RenameMode.REPLACE, ME)
        tree.release(reader)

    def test_consumed(
        self, tree: DraftDirectory, root: int, draft: int, file: int, host: Path, tmp_path: Path
    ) -> None:
        """Afterwards what is open can be read, and nothing else is left of the draft."""
        directory = tree.mkdir(draft, b"dir", 0o755, ME).inode
        nested = write(tree, directory, b"nested")
        other = tree.mkdir(root, b"other", 0o755, ME).inode
        shared = tree.link(write(tree, draft, b"shared"), other, b"shared", ME).inode
        reader = tree.open(file, open_flags(os.O_RDONLY), ME).handle
        tree.freeze(PROJECT, "draft")
        (host / "draft" / "file").rename(tmp_path / "pack")
        (host / "draft" / "dir" / "nested").unlink()
        (host / "draft" / "dir").rmdir()
        (host / "draft" / "shared").unlink()
        (host / "draft").rmdir()

        tree.consumed(PROJECT, "draft")

        assert b"content" == tree.read(reader, 0, 10)
        assert 7 == tree.getattr(file).size
        for change in (
            lambda: tree.open(file, open_flags(os.O_WRONLY), ME),
            lambda: tree.setattr(file, ChangedAttributes(size=0), reader, ME),
            lambda: tree.link(file, other, b"stolen", ME),
            lambda: tree.setxattr(file, b"user.one", b"1", ME),
            lambda: tree.lookup(draft, b"file"),
            lambda: tree.mkdir(directory, b"new", 0o755, ME),
            lambda: tree.getattr(nested),
            lambda: tree.getattr(draft),
        ):
            with refused(errno.ESTALE):
                change()
        tree.release(reader)
        with refused(errno.ESTALE):
            tree.getattr(file)
        assert b"content" == read(tree, shared) == (tmp_path / "pack").read_bytes()
        assert {"other": 0} == tree.drafts(PROJECT)
        again = tree.mkdir(root, b"draft", 0o755, ME)
        write(tree, again.inode, b"file", b"new")
        assert b"content" == (tmp_path / "pack").read_bytes()

    def test_consumed_when_its_number_is_in_use_again(
        self,
        tree: DraftDirectory,
        root: int,
        draft: int,
        host: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The host may give the number to the next draft before the commit is over."""
        tree.freeze(PROJECT, "draft")
        (host / "draft").rmdir()
        given = nodes.number_of
        monkeypatch.setattr(
            nodes, "number_of", lambda found: root if given(found) == root else draft
        )

        assert draft == tree.mkdir(root, b"draft", 0o755, ME).inode
        tree.consumed(PROJECT, "draft")
        write(tree, draft, b"file")

    def test_a_file_gets_the_number_of_a_directory_that_was_consumed(
        self,
        tree: DraftDirectory,
        root: int,
        draft: int,
        host: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """It looks like a file, not like the directory did during the commit."""
        directory = tree.mkdir(draft, b"dir", 0o755, ME).inode
        tree.freeze(PROJECT, "draft")
        (host / "draft" / "dir").rmdir()
        (host / "draft").rmdir()
        tree.consumed(PROJECT, "draft")
        other = tree.mkdir(root, b"other", 0o755, ME).inode
        given = nodes.number_of
        monkeypatch.setattr(
            nodes,
            "number_of",
            lambda found: given(found) if stat.S_ISDIR(found.st_mode) else directory,
        )

        made = tree.create(other, b"file", 0o640, open_flags(os.O_WRONLY), ME)[1]
        assert (directory, stat.S_IFREG | 0o640) == (made.inode, made.mode)

    def test_no_drafts(self, tree: DraftDirectory, root: int) -> None:
        """Files directly in the staging directory are no drafts; a new project has none."""
        write(tree, root, b"file")

        assert [{}, {}] == [tree.drafts(PROJECT), tree.drafts("other/project")]


class TestCommitsOfOthers:
    """Another mount of the store, or a command, makes a draft a version: its files are packs."""

    @pytest.fixture
    def file(self, tree: DraftDirectory, draft: int) -> int:
        return write(tree, draft, b"file")

    @pytest.fixture
    def commit(self, host: Path, tmp_path: Path) -> Callable[[], Path]:
        """Do to the draft what a commit does; return the pack."""

        def run() -> Path:
            pack = tmp_path / "pack"
            (host / "draft" / "file").chmod(0o444)
            os.link(host / "draft" / "file", pack)
            shutil.rmtree(host / "draft")
            return pack

        return run

    @pytest.mark.parametrize("known_by", ["name", "descriptor", "handle"])
    def test_what_became_a_pack_is_left_alone(
        self,
        tree: DraftDirectory,
        root: int,
        draft: int,
        file: int,
        commit: Callable[[], Path],
        known_by: str,
    ) -> None:
        """However this mount reaches the file, until it has noticed."""
        other = tree.mkdir(root, b"other", 0o755, ME).inode
        if known_by == "handle":
            tree.open(file, open_flags(os.O_RDONLY), ME)
        elif known_by == "descriptor":
            tree.mkdir(draft, b"dir", 0o755, ME)
            with refused(errno.ENOTDIR):  # it was pinned for that
                tree.rename(draft, b"dir", draft, b"file", RenameMode.REPLACE, ME)
        pack = commit()
        before = pack.stat()

        for change in (
            lambda: tree.open(file, open_flags(os.O_WRONLY), ME),
            lambda: tree.open(file, open_flags(os.O_RDWR | os.O_TRUNC), ME),
            lambda: tree.open(file, open_flags(os.O_RDONLY | os.O_TRUNC), ME),
            lambda: tree.setattr(file, ChangedAttributes(size=0), None, ME),
            lambda: tree.setattr(file, ChangedAttributes(mode=0o644), None, ME),
            lambda: tree.setattr(file, ChangedAttributes(uid=1001), None, ME),
            lambda: tree.setattr(file, ChangedAttributes(mtime_ns=5), None, ME),
            lambda: tree.setxattr(file, b"user.key", b"value", ME),
            lambda: tree.link(file, other, b"stolen", ME),
        ):
            with refused(errno.ESTALE):
                change()
        assert b"content" == pack.read_bytes()
        after = pack.stat()
        assert before[:7] == after[:7]
        assert before.st_mtime_ns == after.st_mtime_ns

    @pytest.mark.parametrize(
        "flags", [os.O_WRONLY, os.O_RDWR | os.O_TRUNC, os.O_RDONLY | os.O_TRUNC, None]
    )
    def test_a_commit_that_ends_while_a_file_is_opened(
        self,
        tree: DraftDirectory,
        file: int,
        commit: Callable[[], Path],
        monkeypatch: pytest.MonkeyPatch,
        flags: int | None,
    ) -> None:
        """Whoever has found the file already, and opens it, finds out before anything changes."""
        packs = self.commit_after(monkeypatch, "open_at", commit)
        before = descriptors()

        with refused(errno.ESTALE):
            if flags is None:
                tree.setattr(file, ChangedAttributes(size=0), None, ME)
            else:
                tree.open(file, open_flags(flags), ME)

        assert [b"content"] == [pack.read_bytes() for pack in packs]
        assert before >= descriptors() - 1  # the directory's own may be new

    def commit_after(
        self, monkeypatch: pytest.MonkeyPatch, call: str, commit: Callable[[], Path]
    ) -> list[Path]:
        """Commit right after the next system call of that name; fill in the pack then."""
        real = getattr(calls, call)
        packs: list[Path] = []

        def call_then_commit(*args: Any, **more: Any) -> Any:
            done = real(*args, **more)
            monkeypatch.undo()
            packs.append(commit())
            return done

        monkeypatch.setattr(calls, call, call_then_commit)
        return packs

    def test_a_commit_that_ends_while_a_file_is_linked(
        self,
        tree: DraftDirectory,
        root: int,
        file: int,
        commit: Callable[[], Path],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The other name would be one to change the pack by."""
        other = tree.mkdir(root, b"other", 0o755, ME).inode
        packs = self.commit_after(monkeypatch, "link", commit)

        with refused(errno.ESTALE):
            tree.link(file, other, b"stolen", ME)

        assert [1] == [pack.stat().st_nlink for pack in packs]
        assert [] == listed(tree, other)

    def test_write_bits_are_not_given_by_a_descriptor(
        self, tree: DraftDirectory, draft: int, file: int, host: Path, tmp_path: Path
    ) -> None:
        """A commit that just ends may be taking them; what else has them may be written."""
        os.link(host / "draft" / "file", tmp_path / "other")
        handle = tree.open(file, open_flags(os.O_RDONLY), ME).handle
        tree.unlink(draft, b"file", ME)

        for changed in (ChangedAttributes(mode=0o666), ChangedAttributes(uid=1001)):
            with refused(errno.ESTALE):
                tree.setattr(file, changed, handle, ME)
        assert 5 == tree.setattr(file, ChangedAttributes(size=5), handle, ME).size
        assert 0o100644 == (tmp_path / "other").stat().st_mode

    @pytest.mark.parametrize("handle", [False, True])
    def test_a_lease_makes_nobody_wait(
        self, tree: DraftDirectory, file: int, host: Path, *, handle: bool
    ) -> None:
        """All requests would wait for the lock that the one who waits has."""
        lease = os.open(host / "draft" / "file", os.O_RDONLY)
        own = tree.open(file, open_flags(os.O_RDONLY), ME).handle if handle else None
        fcntl.fcntl(lease, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(lease, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        try:
            for change in (
                lambda: tree.setattr(file, ChangedAttributes(size=0), own, ME),
                lambda: tree.open(file, open_flags(os.O_WRONLY), ME),
                lambda: tree.open(file, open_flags(os.O_RDONLY | os.O_TRUNC), ME),
            ):
                with refused(errno.EBUSY):
                    change()
            assert fcntl.F_RDLCK != fcntl.fcntl(lease, fcntl.F_GETLEASE)  # the commit notices
        finally:
            os.close(lease)
        assert b"content" == (host / "draft" / "file").read_bytes()
        assert 0 == tree.setattr(file, ChangedAttributes(size=0), own, ME).size

    def test_a_read_only_file_without_a_name(self, tree: DraftDirectory, draft: int) -> None:
        """It has no write bits, as a pack, but no name either: it is its owner's."""
        opened, attributes = tree.create(draft, b"file", 0o444, open_flags(os.O_RDWR), ME)
        tree.unlink(draft, b"file", ME)
        tree.release(tree.open(attributes.inode, open_flags(os.O_WRONLY), ME).handle)
        tree.release(opened.handle)

        assert 5 == tree.setattr(attributes.inode, ChangedAttributes(size=5), None, ME).size


def test_truncating_by_opening_is_not_writing(tree: DraftDirectory, draft: int) -> None:
    """Nothing can be written by such a descriptor, so it keeps no draft from being committed."""
    inode = write(tree, draft, b"file")
    handle = tree.open(inode, open_flags(os.O_RDONLY | os.O_TRUNC), ME).handle

    assert (0, {"draft": 0}) == (tree.getattr(inode).size, tree.drafts(PROJECT))
    assert 5 == tree.setattr(inode, ChangedAttributes(size=5), handle, ME).size


def test_attributes_are_the_hosts(tree: DraftDirectory, draft: int, host: Path) -> None:
    """Everything that stat(2) tells is passed on."""
    inode = write(tree, draft, b"file", b"x" * 10_000)
    native = os.stat(host / "draft" / "file")

    assert Attributes(
        inode=inode,
        mode=native.st_mode,
        size=10_000,
        nlink=1,
        uid=native.st_uid,
        gid=native.st_gid,
        rdev=0,
        blocks=native.st_blocks,
        atime_ns=native.st_atime_ns,
        mtime_ns=native.st_mtime_ns,
        ctime_ns=native.st_ctime_ns,
        entry_timeout=1.0,
    ) == tree.getattr(inode)


def test_a_directory_that_was_removed_behind_our_back(
    tree: DraftDirectory, root: int, draft: int, host: Path
) -> None:
    """Another mount may have made it anew: ESTALE lets Linux look the path up again."""
    with refused(errno.ENOENT):
        tree.lookup(draft, b"file")
    write(tree, draft, b"known")
    (host / "draft" / "known").unlink()
    (host / "draft").rmdir()
    with refused(errno.ESTALE):
        tree.lookup(draft, b"file")
