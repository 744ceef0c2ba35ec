"""The kernel's page cache, file by file: how much of a file is in it, and put it in or out.

Decided here: how a file is made warm or cold, and how that is checked. Not decided here: which
files back what is measured (`places`). Every study uses it.
"""

import contextlib
import ctypes
import functools
import mmap
import os
import platform
from collections.abc import Iterable
from pathlib import Path

__all__ = ["BLOCK", "chill", "read_through", "resident", "warm"]

BLOCK = 1 << 20
"""Bytes per read or write of the sequential measurements."""

_CACHESTAT = 451
"""The number of cachestat(2) (Linux 6.5) on every architecture but alpha."""


class ColdError(Exception):
    """A file's pages could not be taken out of the page cache."""


@functools.cache
def aligned_buffer() -> mmap.mmap:
    """Return the buffer that all reads go to, at the start of a page.

    A bytearray begins 16 or 32 bytes into a page; copying to it from the page cache was measured to
    take 6 times as long on some CPUs (`rep movsb` with source and target overlapping modulo 4096).
    """
    buffer = mmap.mmap(-1, BLOCK)
    buffer.write(bytes(BLOCK))
    return buffer


def read_through(path: Path) -> int:
    """Read a file from start to end in blocks of 1 MiB, and return its size."""
    buffer = [aligned_buffer()]
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = 0
        while count := os.readv(descriptor, buffer):
            size += count
        return size
    finally:
        os.close(descriptor)


def resident(path: Path) -> int:
    """Return how many bytes of the file are in the page cache *of this inode*.

    Raises:
        OSError: the kernel has no cachestat(2).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    whole = (ctypes.c_uint64 * 2)(0, 0)  # offset and length, 0 being up to the end
    figures = (ctypes.c_uint64 * 5)()  # pages: cached, dirty, in write-back, evicted, lately so
    descriptor = os.open(path, os.O_RDONLY)
    try:
        done = libc.syscall(_CACHESTAT, descriptor, ctypes.byref(whole), ctypes.byref(figures), 0)
        if done < 0:
            code = ctypes.get_errno()
            raise OSError(code, f"cachestat on Linux {platform.release()}: {os.strerror(code)}")
        return figures[0] * mmap.PAGESIZE
    finally:
        os.close(descriptor)


def warm(paths: Iterable[Path]) -> None:
    """Bring whole files into the page cache, by reading them."""
    for path in paths:
        for _ in range(3):
            if resident(path) >= path.stat().st_size:
                break
            read_through(path)


def chill(paths: Iterable[Path]) -> None:
    """Take whole files out of the page cache, and check that they are out.

    Raises:
        ColdError: more than 1 % of a file stayed; something maps it or writes it.
    """
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # squashfs has no fsync
                os.fsync(descriptor)
            for _ in range(5):
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                left = resident(path)
                if left * 100 <= os.fstat(descriptor).st_size:
                    break
            else:
                raise ColdError(f"{left} bytes of {path} stay in the page cache")
        finally:
            os.close(descriptor)
