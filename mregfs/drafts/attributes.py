"""Attributes of what is in drafts: stat(2), chmod(2) and its like, symlinks, extended attributes.

Decided here: which system calls these requests make, and as whom. Not decided here: how an inode is
reached on the host (`reach`), who may do what (the kernel and the host).
"""

import errno
import os
import stat
from collections.abc import Callable
from types import EllipsisType
from typing import TypeVar

from mregfs.drafts import reach
from mregfs.drafts.acting import Acting
from mregfs.drafts.nodes import Node, NodeTable
from mregfs.drafts.requests import PERMISSIONS, Requests
from mregfs.host import calls
from mregfs.vfs.interface import Attributes, Caller, ChangedAttributes

__all__ = ["AttributeRequests"]

_ACL = b"system.posix_acl_"
_FOR_ADMINISTRATORS = b"trusted."
_NOTHING = ChangedAttributes()

_R = TypeVar("_R")


class AttributeRequests(Requests):
    """The requests about attributes."""

    def getattr(self, inode: int) -> Attributes:
        """Say what stat(2) says, also of what was removed and is still open or known."""
        with self._locked("stat", inode) as table:
            node = table.readable(inode)
            return self._attributes(node, table.stat(node))

    def setattr(
        self, inode: int, changed: ChangedAttributes, handle: int | None, caller: Caller
    ) -> Attributes:
        """Change what is given; the size first, because only that may fail for lack of space."""
        acting = self._actors.of(caller)
        with self._locked("change", inode) as table:
            node = table.alive(inode)
            self._refuse_frozen(node)
            if node.kind == stat.S_IFLNK and (changed.mode, changed.size) != (None, None):
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
            if changed.size is not None:
                self._truncate(table, node, changed.size, handle, acting)
            if changed != ChangedAttributes(size=changed.size) or changed == _NOTHING:
                to_chmod = (changed.mode, changed.uid, changed.gid) != (None, None, None)
                with reach.held(table, node, acting, to_chmod=to_chmod) as descriptor:
                    self._change(descriptor, changed, acting)
            return self._attributes(node, table.stat(node))

    def _truncate(
        self, table: NodeTable, node: Node, size: int, handle: int | None, acting: Acting
    ) -> None:
        opened = None if handle is None else self._handles.get(handle)
        if opened is not None and opened.writable:
            acting(calls.ftruncate, opened.descriptor, size)
        else:
            reach.truncate(table, node, size, acting)

    def _change(self, descriptor: int, changed: ChangedAttributes, acting: Acting) -> None:
        """Change owner, mode and times of what is open."""
        if changed.uid is not None or changed.gid is not None:
            uid = -1 if changed.uid is None else changed.uid
            gid = -1 if changed.gid is None else changed.gid
            acting(calls.chown, descriptor, uid, gid)
        elif changed == _NOTHING:
            # chown(-1, -1), which renews the ctime, and takes set-id bits away. The kernel asks
            # for that before some writes, and those take them away in any case.
            try:
                acting(calls.chown, descriptor, -1, -1)
            except PermissionError:
                pass
        if changed.mode is not None:  # after chown, which takes set-id bits away
            if changed.mode & stat.S_ISGID:
                acting.learn_groups()
            acting(calls.chmod, descriptor, changed.mode & PERMISSIONS)
        times: list[int | EllipsisType | None] = [
            ... if changed.atime_now else changed.atime_ns,
            ... if changed.mtime_now else changed.mtime_ns,
        ]
        if times != [None, None]:
            acting(calls.utimens, descriptor, *times)

    def readlink(self, inode: int) -> bytes:
        """Return where a symbolic link points, as written."""
        with self._locked("read the link", inode) as table:
            node = table.alive(inode)
            if node.descriptor >= 0:
                return os.readlink(b"", dir_fd=node.descriptor)
            descriptor = table.open_by_name(node)
            try:
                return os.readlink(b"", dir_fd=descriptor)
            finally:
                os.close(descriptor)

    def setxattr(self, inode: int, name: bytes, value: bytes, caller: Caller) -> None:
        """Set an extended attribute; access control lists are not supported."""
        self._attribute(inode, name, caller, "set", calls.setxattr, name, value, 0)

    def getxattr(self, inode: int, name: bytes, caller: Caller) -> bytes:
        """Return the value of an extended attribute."""
        return self._attribute(inode, name, caller, "get", calls.getxattr, name)

    def listxattr(self, inode: int, caller: Caller) -> list[bytes]:
        """Return the names of all extended attributes."""
        names = self._attribute(inode, b"", caller, "list", calls.listxattr).split(b"\0")[:-1]
        hidden = (_ACL, _FOR_ADMINISTRATORS) if caller.uid else (_ACL,)
        return [name for name in names if not name.startswith(hidden)]

    def removexattr(self, inode: int, name: bytes, caller: Caller) -> None:
        """Remove an extended attribute."""
        self._attribute(inode, name, caller, "remove", calls.removexattr, name)

    def _attribute(
        self,
        inode: int,
        name: bytes,
        caller: Caller,
        action: str,
        call: Callable[..., _R],
        *args: bytes | int,
    ) -> _R:
        """Make a system call for an extended attribute, or for all."""
        acting = self._actors.of(caller)
        changes = action in ("set", "remove")
        with self._locked(f"{action} an extended attribute of", inode) as table:
            if name.startswith(_ACL):
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
            node = table.alive(inode)
            if changes:
                self._refuse_frozen(node)
            with reach.held(table, node, acting, changes=changes) as descriptor:
                return acting(call, calls.path_of(descriptor), *args)
