"""Promises of the adapter: every error is an errno, every operation means what the kernel meant."""

import ctypes
import errno
import logging
import os
import shutil
import stat
import subprocess

import pytest
import trio

from mregfs.errors import (
    CorruptError,
    HostError,
    ImmutableError,
    NoSpaceError,
    NotFoundError,
    UnavailableError,
)
from mregfs.fuse.adapter import Adapter
from mregfs.fuse.fast_path import list_entries
from mregfs.fuse.flags import open_flags, rename_mode
from mregfs.fuse.passthrough import ReadPath, choose_read_path, pyfuse3
from mregfs.vfs.answers import InLoop
from mregfs.vfs.interface import Attributes, OpenFile, RenameMode

CONTEXT = pyfuse3.RequestContext()


class Raises:
    """A file system that fails in one way."""

    def __init__(self, error):
        self.error = error

    def lookup(self, parent, name):
        raise self.error

    def read(self, handle, offset, size):
        raise self.error

    def write(self, handle, offset, data, caller):
        raise self.error

    def flush(self, handle):
        raise self.error

    def fsync(self, handle, *, data_only):
        raise self.error

    def fsyncdir(self, handle):
        raise self.error

    def open(self, inode, flags, caller):
        raise self.error

    def listxattr(self, inode, caller):
        return InLoop(trio.sleep_forever)

    def forget(self, inode, count):
        raise self.error


def adapter(error):
    return Adapter(Raises(error), passthrough=False)


@pytest.mark.parametrize(
    ("error", "code", "level"),
    [
        (NotFoundError("it is not there"), errno.ENOENT, logging.DEBUG),
        (ImmutableError("it never changes"), errno.EROFS, logging.DEBUG),
        (HostError(errno.ENODATA, "no attribute"), errno.ENODATA, logging.DEBUG),
        (HostError(errno.EIO, "the disk"), errno.EIO, logging.WARNING),
        (NoSpaceError("full"), errno.ENOSPC, logging.WARNING),
        (UnavailableError("no answer"), errno.EAGAIN, logging.WARNING),
        (CorruptError("wrong bytes"), errno.EIO, logging.ERROR),
        (KeyError("a bug"), errno.EIO, logging.ERROR),
    ],
)
async def test_an_error_is_its_errno_and_one_log_line(
    error, code, level, caplog, expected_warnings
):
    expected_warnings.expect("lookup")
    with (
        caplog.at_level(logging.DEBUG, "mregfs"),
        pytest.raises(pyfuse3.FUSEError) as caught,
    ):
        await adapter(error).lookup(7, b"name", CONTEXT)

    assert code == caught.value.errno
    (record,) = caplog.records
    assert level == record.levelno
    assert "lookup(7, b'name')" in record.getMessage()


@pytest.mark.parametrize(
    ("name", "arguments", "code"),
    [
        ("read", (4, 0, 10), errno.EIO),
        ("write", (4, 0, b"data"), errno.EIO),
        ("flush", (4,), errno.EIO),
        ("fsync", (4, False), errno.EIO),
        ("fsyncdir", (4, False), errno.EIO),
        ("open", (4, 0, CONTEXT), errno.EAGAIN),
    ],
)
async def test_an_open_file_answers_eio_when_the_store_does_not(
    name, arguments, code, expected_warnings
):
    """EAGAIN from a blocking read, write or close is nothing that programs expect."""
    expected_warnings.expect(name)
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await getattr(adapter(UnavailableError("no answer")), name)(*arguments)

    assert code == caught.value.errno


async def test_a_failing_forget_does_not_end_the_session(expected_warnings):
    expected_warnings.expect("forget")
    await adapter(ValueError("a bug")).forget([(1, 1), (2, 1)])


async def test_cancellation_passes_until_the_session_ends():
    served = adapter(None)
    with trio.move_on_after(0) as scope:
        await served.listxattr(7, CONTEXT)
    assert scope.cancelled_caught

    served.end()
    with trio.move_on_after(0), pytest.raises(pyfuse3.FUSEError) as caught:
        await served.listxattr(7, CONTEXT)
    assert errno.ENODEV == caught.value.errno


@pytest.mark.parametrize(
    ("open_as", "opened", "available", "path"),
    [
        (None, OpenFile(1, backing=5), True, ReadPath.PASSTHROUGH),
        (None, OpenFile(1, backing=5), False, ReadPath.CACHED),
        (None, OpenFile(1), True, ReadPath.CACHED),
        (None, OpenFile(1, direct_io=True), True, ReadPath.DIRECT),
        (ReadPath.CACHED, OpenFile(1, backing=5), True, ReadPath.CACHED),
        (ReadPath.CACHED, OpenFile(1, direct_io=True), True, ReadPath.DIRECT),
        (ReadPath.PASSTHROUGH, OpenFile(1, backing=5), True, ReadPath.PASSTHROUGH),
        (ReadPath.PASSTHROUGH, OpenFile(1), True, ReadPath.PASSTHROUGH),
        (ReadPath.PASSTHROUGH, OpenFile(1, direct_io=True), True, ReadPath.PASSTHROUGH),
    ],
)
def test_an_inode_is_never_open_in_two_ways(open_as, opened, available, path):
    assert path is choose_read_path(open_as, opened, available=available)


@pytest.mark.parametrize(
    ("number", "reads", "writes"),
    [
        (os.O_RDONLY, True, False),
        (os.O_WRONLY, False, True),
        (os.O_RDWR, True, True),
        (3, True, True),
    ],
)
def test_flags_of_open_have_names(number, reads, writes):
    """Access mode 3, for ioctl(2) alone, asks for the right to both."""
    flags = open_flags(number | os.O_TRUNC | os.O_NONBLOCK)

    assert (reads, writes) == (flags.reads, flags.writes)
    assert (True, False, False) == (flags.truncates, flags.blocks, flags.exclusive)
    assert open_flags(number | os.O_EXCL).exclusive


def test_flags_of_rename_have_names():
    assert [RenameMode.REPLACE, RenameMode.KEEP, RenameMode.EXCHANGE] == [
        rename_mode(number) for number in range(3)
    ]
    for unknown in (3, 4, 8):
        with pytest.raises(HostError) as caught:
            rename_mode(unknown)
        assert errno.EINVAL == caught.value.errno


# ---- through a mount


def test_names_behave_as_on_the_host(place):
    (place / "dir").mkdir(mode=0o750)
    (place / "dir/file").write_text("x")
    os.link(place / "dir/file", place / "hard")
    os.symlink("dir/file", place / "soft")
    os.mkfifo(place / "fifo")
    os.rename(place / "hard", place / "dir/moved")

    assert {"dir", "soft", "fifo"} == set(os.listdir(place))
    assert 0o750 == stat.S_IMODE((place / "dir").stat().st_mode)
    assert ("dir/file", "x") == (os.readlink(place / "soft"), (place / "soft").read_text())
    assert 2 == (place / "dir/file").stat().st_nlink
    with pytest.raises(OSError, match="Directory not empty"):
        os.rmdir(place / "dir")
    with pytest.raises(FileNotFoundError):
        (place / "nothing").read_text()
    with pytest.raises(FileExistsError):
        (place / "dir").mkdir()
    (place / "dir/moved").unlink()
    (place / "dir/file").unlink()
    (place / "dir").rmdir()


def test_renameat2_flags_arrive(place):
    (place / "a").write_text("a")
    (place / "b").write_text("b")
    exchange, no_replace = 2, 1
    libc = ctypes.CDLL(None, use_errno=True)
    names = [os.fsencode(place / name) for name in "ab"]
    at_cwd = -100

    assert -1 == libc.renameat2(at_cwd, names[0], at_cwd, names[1], no_replace)
    assert errno.EEXIST == ctypes.get_errno()
    assert 0 == libc.renameat2(at_cwd, names[0], at_cwd, names[1], exchange)
    assert ("b", "a") == ((place / "a").read_text(), (place / "b").read_text())


def test_programs_see_an_io_error_when_the_store_does_not_answer(loopback):
    """Whatever they do with the open file, closing it included."""
    file = os.open(loopback.path / ".absent", os.O_RDWR)
    for use in (
        lambda: os.read(file, 10),
        lambda: os.write(file, b"x"),
        lambda: os.fsync(file),
        lambda: os.close(file),
    ):
        with pytest.raises(OSError) as caught:
            use()
        assert errno.EIO == caught.value.errno


@pytest.mark.parametrize("path", [{}, {"at_once": False}, {"fast_path": False}])
def test_what_was_listed_is_forgotten_with_its_names(loopbacks, wait_until, path):
    """Each reference that the kernel was given comes back: neither lost nor counted twice."""
    loopback = loopbacks(**path).start()
    top = loopback.path / "top"
    (top / "below").mkdir(parents=True)
    for number in range(500):
        (top / f"below/a-rather-long-name-of-an-entry-{number:05}").touch()
    (top / "link").symlink_to("below")
    os.mkfifo(top / "fifo")
    os.link(top / "fifo", top / "second")
    for _ in range(3):
        subprocess.run(["ls", "-lRa", top], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["find", top, "-name", "*"], check=True, stdout=subprocess.DEVNULL)
    assert loopback.state()["references"] > 500

    shutil.rmtree(top)
    wait_until(lambda: 0 == loopback.state()["references"], "every reference was taken back")


class Entries:
    """A directory of three whose reading fails after some; counts what is taken back."""

    def __init__(self, whole):
        self.whole = whole
        self.forgotten = []

    def readdir(self, handle, start):
        for number in range(start, 3):
            if number == self.whole:
                raise UnavailableError("no answer")
            yield b"name-%d" % number, Attributes(number + 10, stat.S_IFREG), number + 1

    def forget(self, inode, count):
        self.forgotten.append((inode, count))


def listed(fs, start, room):
    """Return the names that `list_entries` hands over when `room` of them fit."""
    names = []

    def add(name, attributes, following):
        names.append(name)
        return len(names) <= room

    list_entries(fs, 4, start, add)
    return names[:room]


def test_what_does_not_fit_is_given_back():
    entries = Entries(whole=3)
    assert [b"name-0", b"name-1"] == listed(entries, 0, 2)
    assert [(12, 1)] == entries.forgotten
    assert [b"name-2"] == listed(entries, 2, 2)
    assert [(12, 1)] == entries.forgotten


def test_a_listing_that_breaks_off_hands_over_what_it_has():
    """The error is the answer to the next call, not lost; and no entry is lost either."""
    entries = Entries(whole=2)
    assert [b"name-0", b"name-1"] == listed(entries, 0, 5)
    with pytest.raises(UnavailableError):
        listed(entries, 2, 5)


def test_a_listing_is_resumed_where_it_was_left(place):
    """A position that telldir(3) gave is good for seekdir(3), also far from the beginning."""
    for number in range(600):
        (place / f"a-rather-long-name-of-an-entry-{number:05}").touch()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.opendir.restype = libc.readdir.restype = ctypes.c_void_p
    libc.telldir.restype = ctypes.c_long
    for function in (libc.readdir, libc.telldir, libc.closedir):
        function.argtypes = [ctypes.c_void_p]
    libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
    directory = libc.opendir(os.fsencode(place))
    name_at = 19  # of struct dirent

    def rest():
        names = []
        while entry := libc.readdir(directory):
            names.append(ctypes.string_at(entry + name_at))
        return names

    try:
        for _ in range(300):
            assert libc.readdir(directory)
        position = libc.telldir(directory)
        second_half = rest()
        libc.seekdir(directory, position)
        again = rest()
    finally:
        libc.closedir(directory)

    assert 300 == len(set(second_half))
    assert second_half == again


def test_a_large_directory_is_listed_whole(place):
    names = {f"a-rather-long-name-of-an-entry-{number:05}" for number in range(1000)}
    for name in names:
        (place / name).touch()

    assert names == set(os.listdir(place))
    with os.scandir(place) as entries:
        assert names == {entry.name for entry in entries if entry.is_file()}


def test_attributes_are_set(place):
    file = place / "file"
    file.write_bytes(b"12345")
    os.chmod(file, 0o640)
    os.utime(file, ns=(1_000_000_001, 2_000_000_002))
    os.truncate(file, 3)
    os.utime(file, ns=(1_000_000_001, 2_000_000_002))
    os.chown(file, 12, 34)
    found = file.stat()

    assert (0o640, 3, 12, 34) == (
        stat.S_IMODE(found.st_mode),
        found.st_size,
        found.st_uid,
        found.st_gid,
    )
    assert (1_000_000_001, 2_000_000_002) == (found.st_atime_ns, found.st_mtime_ns)


def test_extended_attributes(place):
    file = place / "file"
    file.touch()
    os.setxattr(file, "user.one", b"1")
    os.setxattr(file, "user.two", b"2" * 1000)

    assert {"user.one", "user.two"} <= set(os.listxattr(file))
    assert b"2" * 1000 == os.getxattr(file, "user.two")
    with pytest.raises(OSError, match="No data available"):
        os.getxattr(file, "user.none")
    with pytest.raises(FileExistsError):
        os.setxattr(file, "user.one", b"x", os.XATTR_CREATE)
    os.removexattr(file, "user.one")
    assert "user.one" not in os.listxattr(file)


def test_statvfs_is_the_hosts(loopback, place):
    assert os.statvfs(loopback.host).f_blocks == os.statvfs(place).f_blocks


def test_truncating_and_exclusive_opens(place):
    (place / "file").write_bytes(b"12345")
    with (place / "file").open("wb"):
        assert 0 == (place / "file").stat().st_size
    with pytest.raises(FileExistsError):
        (place / "file").open("x")


def test_permissions_are_the_kernels_own(place):
    (place / "secret").write_text("x")
    (place / "secret").chmod(0o600)
    done = subprocess.run(
        ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "cat", "secret"],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )

    assert "Permission denied" in done.stderr
