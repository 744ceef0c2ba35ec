"""The wire format of FUSE, as far as requests are answered at once (`fast_path`).

Decided here: how values of the ports are laid out in bytes, and where the fields of a request are.
Not decided here: what is answered. Structures, numbers and flags are those of linux/fuse.h,
protocol 7.9 and later, in the processor's own byte order.
"""

import struct
from collections.abc import Iterator

from mregfs.vfs.interface import Attributes

__all__ = [
    "BATCH_FORGET",
    "DIRECT_IO",
    "FLUSH",
    "FORGET",
    "GETATTR",
    "GETXATTR",
    "KEEP_CACHE",
    "LOOKUP",
    "NONSEEKABLE",
    "OPEN",
    "OPENDIR",
    "READ",
    "READDIRPLUS",
    "READLINK",
    "RELEASE",
    "RELEASEDIR",
    "SETXATTR",
    "WRITE",
    "attr_out",
    "direntplus",
    "entry_out",
    "flags_of",
    "forgets",
    "handle_of",
    "open_out",
    "range_of",
    "write_of",
    "write_out",
    "xattr_of",
    "xattr_size_out",
]

LOOKUP = 1
FORGET = 2
GETATTR = 3
READLINK = 5
OPEN = 14
READ = 15
WRITE = 16
RELEASE = 18
SETXATTR = 21
GETXATTR = 22
FLUSH = 25
OPENDIR = 27
RELEASEDIR = 29
BATCH_FORGET = 42
READDIRPLUS = 44

DIRECT_IO = 1 << 0
"""Flag of an open file, like the next two."""
KEEP_CACHE = 1 << 1
NONSEEKABLE = 1 << 2

_BLOCK_SIZE = 4096
"""What stat(2) recommends for I/O; the same as from pyfuse3."""

_SECOND = 10**9
_U64 = (1 << 64) - 1
_U32 = (1 << 32) - 1

_ENTRY = struct.Struct("=QQQQII QQQQQQ IIIIIIIIII")  # fuse_entry_out, its fuse_attr included
_OPENED = struct.Struct("=QIi")  # fuse_open_out
_LISTED = struct.Struct("=QQII")  # fuse_dirent without the name
_FORGET = struct.Struct("=QQ")  # fuse_forget_one
_HANDLE = struct.Struct("=Q")
_U32_FIELD = struct.Struct("=I")
_TWO = struct.Struct("=II")  # fuse_getxattr_in, before the name, and fuse_getxattr_out
_WRITE_IN = 40  # bytes of fuse_write_in; the data follow
_RANGE = struct.Struct("=QQI")  # the first fields of fuse_read_in


# ---- answers


def entry_out(found: Attributes) -> bytes:
    """Lay out the answer to LOOKUP; inode 0 is a negative entry."""
    entry, entry_ns = _timeout(found.entry_timeout)
    attr, attr_ns = _timeout(found.attr_timeout)
    atime, atime_ns = divmod(found.atime_ns, _SECOND)
    mtime, mtime_ns = divmod(found.mtime_ns, _SECOND)
    ctime, ctime_ns = divmod(found.ctime_ns, _SECOND)
    return _ENTRY.pack(
        found.inode,
        found.generation,
        entry,
        attr,
        entry_ns,
        attr_ns,
        found.inode,
        found.size,
        found.blocks,
        atime & _U64,  # before 1970: two's complement
        mtime & _U64,
        ctime & _U64,
        atime_ns,
        mtime_ns,
        ctime_ns,
        found.mode,
        found.nlink,
        found.uid,
        found.gid,
        found.rdev & _U32,
        _BLOCK_SIZE,
        0,
    )


def _timeout(seconds: float) -> tuple[int, int]:
    whole = int(seconds)
    return whole, int((seconds - whole) * _SECOND)


def attr_out(found: Attributes) -> bytes:
    """Lay out the answer to GETATTR: how long it is valid, padding, the attributes."""
    entry = entry_out(found)
    return entry[24:32] + entry[36:40] + bytes(4) + entry[40:]


def open_out(handle: int, flags: int = 0) -> bytes:
    """Lay out the answer to OPEN and OPENDIR."""
    return _OPENED.pack(handle, flags, 0)


def direntplus(name: bytes, found: Attributes, following: int) -> bytes:
    """Lay out one entry of the answer to READDIRPLUS; `following` is the next one's position."""
    kind = found.mode >> 12
    entry = entry_out(found) + _LISTED.pack(found.inode, following, len(name), kind) + name
    return entry + bytes(-len(entry) % 8)


def write_out(size: int) -> bytes:
    """Lay out the answer to WRITE: how many bytes were written."""
    return _TWO.pack(size, 0)


def xattr_size_out(size: int) -> bytes:
    """Lay out the answer to a GETXATTR that only asks for the size."""
    return _TWO.pack(size, 0)


# ---- requests


def handle_of(body: bytes) -> int:
    """Return the handle of FLUSH, RELEASE and RELEASEDIR: their first field."""
    handle: int = _HANDLE.unpack_from(body)[0]
    return handle


def range_of(body: bytes) -> tuple[int, int, int]:
    """Return handle, offset and size of READ and READDIRPLUS: their first fields."""
    handle, offset, size = _RANGE.unpack_from(body)
    return handle, offset, size


def write_of(body: bytes) -> tuple[int, int, bytes]:
    """Return handle, offset and data of WRITE."""
    handle, offset, size = _RANGE.unpack_from(body)
    return handle, offset, body[_WRITE_IN : _WRITE_IN + size]


def flags_of(body: bytes) -> int:
    """Return the open(2) flags of OPEN."""
    flags: int = _U32_FIELD.unpack_from(body)[0]
    return flags


def xattr_of(body: bytes) -> tuple[int, bytes]:
    """Return the room for the value (0: only its size is asked for) and the name, of GETXATTR."""
    return _U32_FIELD.unpack_from(body)[0], body[8:-1]


def forgets(opcode: int, inode: int, body: bytes) -> Iterator[tuple[int, int]]:
    """Yield (inode, count) of FORGET and BATCH_FORGET."""
    if opcode == FORGET:
        yield inode, _HANDLE.unpack_from(body)[0]
        return
    (count,) = _U32_FIELD.unpack_from(body)
    for number in range(count):
        yield _FORGET.unpack_from(body, 8 + number * _FORGET.size)
