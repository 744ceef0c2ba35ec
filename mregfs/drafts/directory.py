"""The staging area on a directory of the host: `<path>/<entity>/<project>/<draft>/…`.

Decided here: which system calls each request makes, and as whom. Not decided here: who may do what
(the kernel's default_permissions, and the host's own rules for the caller), what becomes of a draft
that is committed (`committing`).

The way to a directory is walked by this process, by descriptors and through no symlink. What is
changed, opened or read is so by a system call with the caller's credentials (`acting`). Looking a
name up and stat(2) are this process's own: the kernel answers them for others from what it was
told, so the right to search a directory is judged there.

Names are remembered. Other mounts of the store change the same directories, so what a name leads to
is compared with the inode that is meant (`reach`). One lock covers the tables and quick system
calls; data, fsync and the last close of a file, which frees its blocks, happen outside of it.
"""

import errno
import os
import stat
from collections.abc import Callable

from mregfs.drafts import reach
from mregfs.drafts.acting import Acting
from mregfs.drafts.attributes import AttributeRequests
from mregfs.drafts.giving import EVERYBODY_MAKES_DRAFTS, Giving, Shown
from mregfs.drafts.nodes import Node, NodeTable
from mregfs.drafts.open_files import OPEN_FLAGS, OpenFileRequests
from mregfs.drafts.requests import NOT_OURS, PERMISSIONS, translated
from mregfs.errors import HostError, NotFoundError
from mregfs.host import calls
from mregfs.host.beneath import Beneath
from mregfs.vfs.interface import (
    Attributes,
    Caller,
    FileSystemFigures,
    OpenFile,
    OpenFlags,
    RenameMode,
)

__all__ = ["DraftDirectory"]

_RENAMES = {
    RenameMode.REPLACE: 0,
    RenameMode.KEEP: calls.RENAME_NOREPLACE,
    RenameMode.EXCHANGE: calls.RENAME_EXCHANGE,
}
_DEFAULT_LIST = b"system.posix_acl_default"


class DraftDirectory(Giving, AttributeRequests, OpenFileRequests):
    """The staging area in a directory of a store; what is there already is kept.

    Args:
        store: the store's directory; it stays the caller's.
        name: of the directory in it; made if need be, for this process's user only. If it is not
            ours to make, there are no drafts.
        max_descriptors: how many descriptors to keep open only for speed; by default a quarter
            of what the process may open, at most 4096.
        shown: group and mode of a project's staging directory, and whether its drafts are private.
    """

    def __init__(
        self,
        store: Beneath,
        name: str = "staging",
        *,
        max_descriptors: int | None = None,
        shown: Callable[[str], Shown] = lambda project: EVERYBODY_MAKES_DRAFTS,
    ) -> None:
        super().__init__(store, name, max_descriptors=max_descriptors, shown=shown)

    # ---- names ------------------------------------------------------------------------------

    def root(self, project: str) -> Attributes:
        """Return (and make, if need be) the staging directory; it needs no `forget`."""
        origin = self._origin(project)
        with self._locked("open the staging directory of", None, os.fsencode(project)) as table:
            try:
                try:
                    node = table.admit_root(origin)
                except FileNotFoundError:
                    self._staging.make(origin)
                    node = table.admit_root(origin)
                self._share(origin)
            except OSError as error:
                if error.errno in NOT_OURS:
                    raise NotFoundError(f"there are no drafts: {error}") from error
                raise
            return self._attributes(node, table.stat(node))

    def project_of(self, inode: int) -> str | None:
        """Return "entity/name" when `inode` is the staging directory of a project, else None."""
        with self._locked("stat", inode) as table:
            node = table.get(inode)
            return None if node is None or node.origin is None else os.fsdecode(node.origin)

    def lookup(self, parent: int, name: bytes) -> Attributes:
        """Find `name`; also `.` and `..`, but not above a project's staging directory."""
        with self._locked("look up", parent, name) as table:
            directory = table.alive(parent)
            if name in (b".", b".."):
                above = directory if name == b"." else None
                node = above or next((up for up, _ in directory.names), directory)
                found = table.stat(node)
            else:
                descriptor = table.descriptor(directory)
                try:
                    node, found = table.child(directory, descriptor, name)
                except FileNotFoundError:
                    # Removed, not by us: another mount may have made it anew by now.
                    if directory.names and os.fstat(descriptor).st_nlink == 0:
                        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE)) from None
                    raise
            node.lookups += 1
            return self._attributes(node, found)

    def forget(self, inode: int, count: int) -> None:
        """Take back `count` lookups."""
        with self._locked("forget", None) as table:
            node = table.get(inode)
            if node is not None:
                node.lookups = max(0, node.lookups - count)
                table.reap(node)

    def mknod(self, parent: int, name: bytes, mode: int, rdev: int, caller: Caller) -> Attributes:
        """Make a file of any kind that is neither directory nor symlink."""

        def make(acting: Acting, directory: int) -> None:
            acting(calls.mknod, directory, name, mode, rdev, self._umask)

        with self._locked("make", parent, name) as table:
            return self._made(table, parent, name, mode, caller, make)[1]

    def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller) -> Attributes:
        """Make a directory."""

        def make(acting: Acting, directory: int) -> None:
            acting(calls.mkdir, directory, name, mode & PERMISSIONS, self._umask)

        with self._locked("make the directory", parent, name) as table:
            above = table.alive(parent).origin
            if above is not None and self._shown(os.fsdecode(above))[2]:
                mode &= 0o1700
            return self._made(table, parent, name, mode, caller, make)[1]

    def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Attributes:
        """Make a symbolic link that says `target`."""

        def make(acting: Acting, directory: int) -> None:
            acting(calls.symlink, target, directory, name)

        with self._locked("make the link", parent, name) as table:
            return self._made(table, parent, name, 0, caller, make)[1]

    def link(self, inode: int, parent: int, name: bytes, caller: Caller) -> Attributes:
        """Give a file one more name."""
        acting = self._actors.of(caller)
        with self._locked("link", parent, name) as table:
            node, directory = table.alive(inode), table.alive(parent)
            self._refuse_frozen(node, directory)
            descriptor = table.descriptor(directory)
            with reach.held(table, node, acting) as source:
                path, flags = calls.path_of(source), calls.AT_SYMLINK_FOLLOW
                acting(calls.link, calls.AT_FDCWD, path, descriptor, name, flags)
            found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            try:
                reach.still_ours(table, node)  # a commit by another process may have ended
            except OSError:
                if table.is_same(node, found):
                    acting(calls.unlink, descriptor, name, 0)
                raise
            node = table.admit(directory, name, found)
            node.lookups += 1
            return self._attributes(node, found)

    def unlink(self, parent: int, name: bytes, caller: Caller) -> None:
        """Remove a name of anything but a directory."""
        self._remove(parent, name, caller, 0)

    def rmdir(self, parent: int, name: bytes, caller: Caller) -> None:
        """Remove an empty directory."""
        self._remove(parent, name, caller, calls.AT_REMOVEDIR)

    def rename(
        self,
        parent: int,
        name: bytes,
        new_parent: int,
        new_name: bytes,
        mode: RenameMode,
        caller: Caller,
    ) -> None:
        """Rename, also from draft to draft; all modes are the host's."""
        with self._locked("rename", parent, name) as table:
            source, target = table.alive(parent), table.alive(new_parent)
            self._refuse_frozen(
                source, target, source.children.get(name), target.children.get(new_name)
            )
            if mode is RenameMode.REPLACE:
                table.pin(target, new_name)
            old, new = table.descriptor(source), table.descriptor(target)
            self._actors.of(caller)(calls.rename, old, name, new, new_name, _RENAMES[mode])
            if mode is RenameMode.EXCHANGE:
                table.swapped(source, name, target, new_name)
            else:
                table.moved(source, name, target, new_name)

    def statfs(self) -> FileSystemFigures:
        """Say what statvfs(3) says of the host's file system."""
        try:
            return self._staging.figures()
        except OSError as error:
            raise translated(error, f"stat the file system of {self._staging.path!r}") from error

    def create(
        self, parent: int, name: bytes, mode: int, flags: OpenFlags, caller: Caller
    ) -> tuple[OpenFile, Attributes]:
        """Make a regular file and open it, whatever its mode; or open the one that is there."""
        opened = -1
        wanted = mode & PERMISSIONS

        def make(acting: Acting, directory: int) -> int:
            nonlocal opened
            how = flags.host & OPEN_FLAGS | os.O_CREAT | os.O_EXCL
            opened = acting(calls.open_at, directory, name, how, wanted)
            if wanted & self._umask and not _has_default_list(directory):
                acting(calls.chmod, opened, wanted)  # our umask has taken what he asked for
            return opened

        with self._locked("create", parent, name) as table:
            try:
                node, attributes = self._made(table, parent, name, mode, caller, make)
            except FileExistsError:
                if flags.exclusive:
                    raise
            except BaseException:
                if opened >= 0:
                    os.close(opened)
                raise
            else:
                return self._opened(node, opened, flags.host, caller), attributes
        attributes = self.lookup(parent, name)  # somebody made it since the kernel looked
        try:
            return self.open(attributes.inode, flags, caller), attributes
        except HostError:
            self.forget(attributes.inode, 1)
            raise

    # ---- what they share ----------------------------------------------------------------------

    def _made(
        self,
        table: NodeTable,
        parent: int,
        name: bytes,
        mode: int,
        caller: Caller,
        make: Callable[[Acting, int], int | None],
    ) -> tuple[Node, Attributes]:
        """Let `make` make something under `name`, as the caller: it is his at once.

        It may return a descriptor of that.
        """
        directory = table.alive(parent)
        self._refuse_frozen(directory)
        descriptor = table.descriptor(directory)
        acting = self._actors.of(caller)
        if mode & stat.S_ISGID:
            acting.learn_groups()
        opened = make(acting, descriptor)
        if opened is None:
            found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        else:
            found = os.fstat(opened)
        node = table.admit(directory, name, found, new=True)
        node.lookups += 1
        return node, self._attributes(node, found)

    def _remove(self, parent: int, name: bytes, caller: Caller, flags: int) -> None:
        with self._locked("remove", parent, name) as table:
            directory = table.alive(parent)
            self._refuse_frozen(directory, directory.children.get(name))
            table.pin(directory, name)
            self._actors.of(caller)(calls.unlink, table.descriptor(directory), name, flags)
            table.vanished(directory, name)


def _has_default_list(directory: int) -> bool:
    """Tell whether what is made in a directory gets its mode from an access control list of it."""
    try:
        return bool(calls.getxattr(None, calls.path_of(directory), _DEFAULT_LIST))
    except OSError:
        return False
