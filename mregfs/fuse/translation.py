"""Values of the protocol: what pyfuse3 calls the things that the ports have names for.

Decided here: which field is which. Not decided here: anything else.
"""

import stat

from mregfs.fuse.passthrough import pyfuse3
from mregfs.vfs.interface import Attributes, Caller, ChangedAttributes, FileSystemFigures

__all__ = ["Context", "caller_of", "changes_of", "entry_of", "statvfs_of"]


Context = pyfuse3.RequestContext
"""What is told of the process that makes a request."""


def caller_of(context: Context) -> Caller:
    """Translate what is told of the process that makes a request."""
    return Caller(context.uid, context.gid, context.pid, context.umask)


def entry_of(attributes: Attributes) -> pyfuse3.EntryAttributes:
    """Translate; inode 0 becomes a negative entry that the kernel may remember."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = attributes.inode
    entry.entry_timeout = attributes.entry_timeout
    entry.attr_timeout = attributes.attr_timeout
    entry.generation = attributes.generation
    entry.st_mode = attributes.mode
    entry.st_nlink = attributes.nlink
    entry.st_uid = attributes.uid
    entry.st_gid = attributes.gid
    entry.st_rdev = attributes.rdev
    entry.st_size = attributes.size
    entry.st_blocks = attributes.blocks
    entry.st_atime_ns = attributes.atime_ns
    entry.st_mtime_ns = attributes.mtime_ns
    entry.st_ctime_ns = attributes.ctime_ns
    return entry


def changes_of(
    attr: pyfuse3.EntryAttributes, fields: pyfuse3.SetattrFields, now: int
) -> ChangedAttributes:
    """Translate a setattr request; `now` says of which times pyfuse3 has made the present."""
    return ChangedAttributes(
        mode=stat.S_IMODE(attr.st_mode) if fields.update_mode else None,
        uid=attr.st_uid if fields.update_uid else None,
        gid=attr.st_gid if fields.update_gid else None,
        size=attr.st_size if fields.update_size else None,
        atime_ns=attr.st_atime_ns if fields.update_atime else None,
        mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
        atime_now=bool(now & 1),
        mtime_now=bool(now & 2),
    )


def statvfs_of(figures: FileSystemFigures) -> pyfuse3.StatvfsData:
    """Translate the answer to statvfs(3)."""
    data = pyfuse3.StatvfsData()
    data.f_bsize = figures.block_size
    data.f_frsize = figures.fragment_size
    data.f_blocks = figures.blocks
    data.f_bfree = figures.blocks_free
    data.f_bavail = figures.blocks_available
    data.f_files = figures.files
    data.f_ffree = figures.files_free
    data.f_favail = figures.files_available
    data.f_namemax = figures.name_max
    return data
