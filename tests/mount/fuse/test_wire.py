"""The answers that are laid out by hand say what the kernel's own structures say."""

import ctypes
import os
import struct

from hypothesis import given
from hypothesis import strategies as st

from mregfs.fuse import wire
from mregfs.vfs.interface import Attributes

U32, U64 = ctypes.c_uint32, ctypes.c_uint64


class Attr(ctypes.Structure):
    """struct fuse_attr of linux/fuse.h."""

    _fields_ = [
        *((name, U64) for name in ("ino", "size", "blocks", "atime", "mtime", "ctime")),
        *((name, U32) for name in ("atimensec", "mtimensec", "ctimensec", "mode", "nlink")),
        *((name, U32) for name in ("uid", "gid", "rdev", "blksize", "flags")),
    ]


class EntryOut(ctypes.Structure):
    """struct fuse_entry_out."""

    _fields_ = [
        *((name, U64) for name in ("nodeid", "generation", "entry_valid", "attr_valid")),
        ("entry_valid_nsec", U32),
        ("attr_valid_nsec", U32),
        ("attr", Attr),
    ]


class AttrOut(ctypes.Structure):
    """struct fuse_attr_out."""

    _fields_ = [("attr_valid", U64), ("attr_valid_nsec", U32), ("dummy", U32), ("attr", Attr)]


class Dirent(ctypes.Structure):
    """struct fuse_dirent, without the name."""

    _fields_ = [("ino", U64), ("off", U64), ("namelen", U32), ("type", U32)]


whole = st.integers(0, (1 << 32) - 1)
large = st.integers(0, (1 << 63) - 1)
moments = st.integers(-(10**18), 10**19)
seconds = st.floats(0, 3.0e8, allow_nan=False)
attributes = st.builds(
    Attributes,
    inode=large,
    mode=whole,
    size=large,
    nlink=whole,
    uid=whole,
    gid=whole,
    rdev=large,
    blocks=large,
    atime_ns=moments,
    mtime_ns=moments,
    ctime_ns=moments,
    generation=large,
    entry_timeout=seconds,
    attr_timeout=seconds,
)


def assert_same(found: Attributes, attr: Attr) -> None:
    assert (found.inode, found.size, found.blocks) == (attr.ino, attr.size, attr.blocks)
    assert (found.mode, found.nlink, found.uid, found.gid) == (
        attr.mode,
        attr.nlink,
        attr.uid,
        attr.gid,
    )
    assert found.rdev & 0xFFFFFFFF == attr.rdev
    for expected, high, low in (
        (found.atime_ns, attr.atime, attr.atimensec),
        (found.mtime_ns, attr.mtime, attr.mtimensec),
        (found.ctime_ns, attr.ctime, attr.ctimensec),
    ):
        assert expected == ctypes.c_int64(high).value * 10**9 + low


@given(attributes)
def test_an_entry(found: Attributes) -> None:
    data = wire.entry_out(found)
    entry = EntryOut.from_buffer_copy(data)

    assert ctypes.sizeof(EntryOut) == len(data)
    assert (found.inode, found.generation) == (entry.nodeid, entry.generation)
    for expected, high, low in (
        (found.entry_timeout, entry.entry_valid, entry.entry_valid_nsec),
        (found.attr_timeout, entry.attr_valid, entry.attr_valid_nsec),
    ):
        assert low < 10**9
        assert abs(expected - high - low / 1e9) < 1e-6
    assert_same(found, entry.attr)


@given(attributes)
def test_attributes(found: Attributes) -> None:
    data = wire.attr_out(found)
    answer = AttrOut.from_buffer_copy(data)

    assert ctypes.sizeof(AttrOut) == len(data)
    assert int(found.attr_timeout) == answer.attr_valid
    assert_same(found, answer.attr)


@given(st.binary(min_size=1, max_size=255), attributes, large)
def test_an_entry_of_a_directory(name: bytes, found: Attributes, following: int) -> None:
    data = wire.direntplus(name, found, following)
    start = ctypes.sizeof(EntryOut)
    listed = Dirent.from_buffer_copy(data, start)
    start += ctypes.sizeof(Dirent)

    assert 0 == len(data) % 8
    assert (found.inode, following, len(name)) == (listed.ino, listed.off, listed.namelen)
    assert found.mode >> 12 == listed.type
    assert name == data[start : start + len(name)]
    assert not any(data[start + len(name) :])


def test_requests() -> None:
    read = struct.pack("=QQIIQII", 7, 1 << 40, 4096, 0, 0, os.O_RDONLY, 0)
    write = struct.pack("=QQIIQII", 7, 5, 3, 0, 0, os.O_WRONLY, 0) + b"abc"

    assert (7, 1 << 40, 4096) == wire.range_of(read)
    assert 7 == wire.handle_of(read)
    assert (7, 5, b"abc") == wire.write_of(write)
    assert os.O_RDWR == wire.flags_of(struct.pack("=II", os.O_RDWR, 0))
    assert (100, b"user.x") == wire.xattr_of(struct.pack("=II", 100, 0) + b"user.x\0")
    assert [(9, 3)] == list(wire.forgets(wire.FORGET, 9, struct.pack("=Q", 3)))
    batch = struct.pack("=IIQQQQ", 2, 0, 9, 3, 10, 1)
    assert [(9, 3), (10, 1)] == list(wire.forgets(wire.BATCH_FORGET, 0, batch))
