"""Opening a draft's file in order to change it, while another process may make it a version.

Decided here: how an open for writing neither waits for a commit nor gets hold of what has become a
pack. Not decided here: which files are whose (`NodeTable.own_place`), what a draft that this mount
commits itself refuses. Only `directory` calls this, under its lock; errors are OSError.
"""

import errno
import os
import stat

from mregfs.stores.drafts_dir.nodes import Node, NodeTable

__all__ = ["can_write", "open_file", "truncate"]


def can_write(flags: int) -> bool:
    """Tell whether a descriptor opened like this can write, which O_TRUNC alone does not say."""
    return flags & os.O_ACCMODE in (os.O_WRONLY, os.O_RDWR)


def open_file(table: NodeTable, node: Node, flags: int) -> int:
    """Open a file for writing, or with O_TRUNC; EBUSY while a commit holds a lease on it."""
    path, follow = table.own_place(node)
    try:
        # O_NONBLOCK: do not wait until the lease ends, for there is a lock that others wait for.
        how = flags & ~os.O_TRUNC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
        descriptor = os.open(path, how)
    except BlockingIOError:
        raise _failure(errno.EBUSY) from None
    try:
        # A commit may have ended since the first look. It takes the draft's names away before it
        # lets go of its leases: where the open met none, a second look tells. So cut only now.
        table.own_place(node)
        if flags & os.O_TRUNC:
            if can_write(flags):
                os.ftruncate(descriptor, 0)
            else:
                truncate(table, node, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def truncate(table: NodeTable, node: Node, size: int) -> None:
    """Do what truncate(2) does, under the same conditions as `open_file`."""
    if node.kind != stat.S_IFREG:
        raise _failure(errno.EISDIR if node.kind == stat.S_IFDIR else errno.EINVAL)
    descriptor = open_file(table, node, os.O_WRONLY)
    try:
        os.ftruncate(descriptor, size)
    finally:
        os.close(descriptor)


def _failure(code: int) -> OSError:
    return OSError(code, os.strerror(code))
