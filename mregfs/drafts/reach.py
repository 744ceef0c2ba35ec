"""How a request gets hold of a known inode, as its caller and through no symlink.

Decided here: that what is opened is the inode that the kernel asked about, that the host judges the
caller's rights, and that nothing of what has become a pack is changed. Not decided here: what a
draft that this mount commits itself refuses. All of it happens under the lock of `directory`;
errors are OSError.

An inode is opened by a name of it, relative to its directory, with the caller's credentials: so he
needs what the host asks of him for both, also when another mount has changed that meanwhile, and
nothing comes of a directory that a commit of another mount has taken. The number is compared on
the descriptor. A descriptor that is there already leads to the inode, too, past its directory: for
attributes, where the kernel asks for the owner, and for what has no name (any more).
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from mregfs.drafts.acting import Acting
from mregfs.drafts.nodes import Node, NodeTable, stale
from mregfs.host import calls

__all__ = ["can_write", "held", "open_directory", "open_file", "still_ours", "truncate"]

_WRITE_BITS = 0o222
_HELD = os.O_PATH | os.O_NOFOLLOW


def can_write(flags: int) -> bool:
    """Tell whether a descriptor opened like this can write, which O_TRUNC alone does not say."""
    return flags & os.O_ACCMODE in (os.O_WRONLY, os.O_RDWR)


def open_directory(table: NodeTable, node: Node, acting: Acting) -> int:
    """Open a directory for reading."""
    path = calls.path_of(table.descriptor(node))
    return acting(calls.open_at, calls.AT_FDCWD, path, os.O_RDONLY | os.O_DIRECTORY, 0)


def open_file(table: NodeTable, node: Node, flags: int, acting: Acting) -> int:
    """Open a file; for writing, or with O_TRUNC: EBUSY while a commit holds a lease on it."""
    changes = can_write(flags) or bool(flags & os.O_TRUNC)
    # O_NONBLOCK: do not wait until the lease ends, for there is a lock that others wait for.
    how = flags & ~os.O_TRUNC | os.O_NONBLOCK
    try:
        descriptor = _open(table, node, how, acting, changes=changes)
    except BlockingIOError:
        raise _failure(errno.EBUSY) from None
    if not changes:
        return descriptor
    try:
        # A commit may have ended since the first look. It takes the draft's names away before it
        # lets go of its leases: where the open met none, a second look tells. So cut only now.
        still_ours(table, node)
        if flags & os.O_TRUNC:
            if can_write(flags):
                acting(calls.ftruncate, descriptor, 0)
            else:
                truncate(table, node, 0, acting)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def truncate(table: NodeTable, node: Node, size: int, acting: Acting) -> None:
    """Do what truncate(2) does, under the same conditions as `open_file`."""
    if node.kind != stat.S_IFREG:
        raise _failure(errno.EISDIR if node.kind == stat.S_IFDIR else errno.EINVAL)
    descriptor = open_file(table, node, os.O_WRONLY, acting)
    try:
        acting(calls.ftruncate, descriptor, size)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def held(
    table: NodeTable, node: Node, acting: Acting, *, changes: bool = True, to_chmod: bool = False
) -> Iterator[int]:
    """Give a descriptor of the inode, for its attributes; it may be an O_PATH one.

    Args:
        table: where the node is known.
        node: the inode.
        acting: for whom.
        changes: it is to be changed, which the kernel leaves to its owner; not only looked at.
        to_chmod: its mode, or its owner: see `_from_descriptor`.
    """
    if node.kind == stat.S_IFDIR:
        yield table.descriptor(node)
        return
    if changes:
        for handle in node.handles:
            if handle.writable:  # no commit can have taken it
                yield handle.descriptor
                return
    refused: OSError = stale()
    try:
        descriptor = _by_name(table, node, _HELD, acting)
    except PermissionError as error:  # a descriptor needs no right to its directory
        refused, descriptor = error, -1
    if descriptor < 0:
        yield _from_descriptor(table, node, acting, refused, changes=changes, to_chmod=to_chmod)
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def still_ours(table: NodeTable, node: Node) -> None:
    """Fail with ESTALE unless the node is surely no pack: see `_from_descriptor`."""
    if node.kind != stat.S_IFREG or any(handle.writable for handle in node.handles):
        return
    if node.names:
        with contextlib.suppress(OSError):
            table.find(node)
            return
    descriptor = table.any_descriptor(node)
    if descriptor < 0 or _may_be_a_pack(descriptor):
        raise stale()


def _open(table: NodeTable, node: Node, flags: int, acting: Acting, *, changes: bool) -> int:
    refused: OSError = stale()
    try:
        descriptor = _by_name(table, node, flags | os.O_NOFOLLOW, acting)
    except PermissionError as error:
        refused, descriptor = error, -1
    if descriptor < 0:
        known = _from_descriptor(table, node, acting, refused, changes=changes, data=True)
        path = calls.path_of(known)
        descriptor = acting(calls.open_at, calls.AT_FDCWD, path, flags, 0)
    return descriptor


def _by_name(table: NodeTable, node: Node, flags: int, acting: Acting) -> int:
    """Open the node by one of its names; -1 when none leads to it any more.

    Raises:
        OSError: as the host gave it for this very inode.
    """
    failed: OSError | None = None
    for parent, name in list(node.names):
        directory = table.descriptor(parent)
        try:
            descriptor = acting(calls.open_at, directory, name, flags, 0)
        except OSError as error:
            try:
                found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            except FileNotFoundError:
                pass
            else:
                if table.is_same(node, found):
                    failed = error
                    continue
        else:
            if table.is_same(node, os.fstat(descriptor)):
                return descriptor
            os.close(descriptor)
        table.detach(parent, name)  # somebody changed the directory behind our back
    if failed is not None:
        raise failed
    return -1


def _from_descriptor(
    table: NodeTable,
    node: Node,
    acting: Acting,
    refused: OSError,
    *,
    changes: bool,
    to_chmod: bool = False,
    data: bool = False,
) -> int:
    """Return a descriptor of the node that is there already, if it may serve; else raise `refused`.

    A commit by another process gives a draft's file a second name, takes its owner and its write
    bits, and removes the first name (`../registry/write/commit.md` §3). A descriptor leads to the
    file all the same. The kernel refuses changes by other users, but they may read what they could
    not read before. The daemon's user is refused nothing: so for him a descriptor
    serves only for what no commit can have taken, that is, what has no name at all or has write
    bits, which are not trusted `to_chmod` or chown: they could be taken between this look and a
    change that gives them back.
    """
    descriptor = table.any_descriptor(node)
    if descriptor < 0:
        raise refused
    if node.kind != stat.S_IFREG:
        return descriptor
    if acting.owns:
        if changes and _may_be_a_pack(descriptor, to_chmod=to_chmod):
            raise refused
        return descriptor
    if changes and not data:
        return descriptor
    for handle in node.handles:
        if handle.uid == acting.uid:  # what he opens again he could read before
            return handle.descriptor
    if os.fstat(descriptor).st_nlink:
        raise refused
    return descriptor


def _may_be_a_pack(descriptor: int, *, to_chmod: bool = False) -> bool:
    found = os.fstat(descriptor)
    return bool(found.st_nlink) and (to_chmod or not found.st_mode & _WRITE_BITS)


def _failure(code: int) -> OSError:
    return OSError(code, os.strerror(code))
