"""Promises about large files: offsets do not end at 4 GiB, whichever way the bytes go."""

import os
import subprocess
from pathlib import Path

import pytest

GiB = 1 << 30
FAR = 5 * GiB + 123
"""Beyond 32 bits, and not at the beginning of a page."""


@pytest.fixture(
    params=[
        {},
        {"backed": False},
        {"backed": False, "at_once": False},
        {"extension": False},
    ],
    ids=["passthrough", "at-once", "by-pyfuse3", "no-extension"],
)
def path(request, loopbacks):
    """A file in a mount that serves it in one of the ways there are."""
    loopback = loopbacks(**request.param).start()
    yield loopback.path / "file"
    assert [] == loopback.problems()
    assert 0 == loopback.stop()


@pytest.fixture
def file(path):
    """The file, open."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR)
    yield descriptor
    os.close(descriptor)


def host_of(path: Path) -> Path:
    return path.parent.parent / "host/default/default" / path.name


def test_what_is_written_beyond_4_gib_is_read_there(path, file):
    """And nowhere else: the first bytes of the file stay what they were."""
    os.pwrite(file, b"near", 0)
    assert 4096 == os.pwrite(file, b"f" * 4096, FAR)
    os.pwrite(file, b"wrap", FAR + 4 * GiB)
    os.fsync(file)

    assert (b"near", b"\0") == (os.pread(file, 4, 0), os.pread(file, 1, FAR % (4 * GiB)))
    assert b"f" * 4096 + b"\0" == os.pread(file, 4097, FAR)
    assert b"wrap" == os.pread(file, 10, FAR + 4 * GiB)
    assert FAR + 4 * GiB + 4 == os.fstat(file).st_size
    with host_of(path).open("rb") as host:
        assert b"f" * 4096 == os.pread(host.fileno(), 4096, FAR)


def test_a_reader_that_comes_later_finds_it_too(path, file):
    """Not from pages that the writer left behind."""
    with host_of(path).open("r+b") as host:
        os.pwrite(host.fileno(), b"far", FAR)
    reader = os.open(path, os.O_RDONLY)
    try:
        assert (b"far", b"") == (os.pread(reader, 10, FAR), os.pread(reader, 10, FAR + 3))
    finally:
        os.close(reader)


def test_sizes_beyond_4_gib_are_whole(path, file):
    os.ftruncate(file, FAR)
    assert FAR == os.fstat(file).st_size == host_of(path).stat().st_size
    os.truncate(path, FAR - 1)
    assert FAR - 1 == path.stat().st_size
    with path.open("ab") as appended:
        appended.write(b"x")
    assert FAR == path.stat().st_size
    assert b"x" == os.pread(file, 1, FAR - 1)


@pytest.mark.parametrize("path", [{}], indirect=True, ids=["passthrough"])
def test_holes_beyond_4_gib_are_found_and_made(path, file):
    """Where the host has them, not where 32 bits would put them."""
    start = 5 * GiB
    os.pwrite(file, b"data" * 16384, start)
    os.ftruncate(file, 2 * start)
    assert start == os.lseek(file, 0, os.SEEK_DATA)
    assert start + 65536 == os.lseek(file, start, os.SEEK_HOLE)
    punch = ["fallocate", "-p", "-o", str(start), "-l", "4096", path]
    subprocess.run(punch, check=True)

    assert start + 4096 == os.lseek(file, start, os.SEEK_DATA)
    assert b"\0data" == os.pread(file, 5, start + 4095)


@pytest.mark.parametrize(
    "path",
    [{"backed": False}, {"backed": False, "at_once": False}],
    indirect=True,
    ids=["at-once", "by-pyfuse3"],
)
def test_a_file_without_descriptor_is_data_to_its_far_end(path, file):
    os.ftruncate(file, FAR)

    assert FAR - 1 == os.lseek(file, FAR - 1, os.SEEK_DATA)
    assert FAR == os.lseek(file, 0, os.SEEK_HOLE)
    for offset in (FAR, -1):
        with pytest.raises(OSError, match="No such device or address"):
            os.lseek(file, offset, os.SEEK_DATA)


def test_copies_reach_beyond_4_gib(path, file):
    source = os.open(path.with_name("source"), os.O_CREAT | os.O_RDWR)
    os.pwrite(source, b"copied", FAR)
    try:
        assert 6 == os.copy_file_range(source, file, 100, FAR, FAR + GiB)
    finally:
        os.close(source)

    assert b"\0copied" == os.pread(file, 10, FAR + GiB - 1)
