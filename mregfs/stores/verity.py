"""fs-verity: the file system itself refuses to give out changed bytes of a pack.

Decided here: whether this file system offers it, and how it is asked (linux/fsverity.h). Not
decided here: for which packs, and when; where they are.

Enabling reads the whole file once to build its hash tree, and makes it immutable for ever; so it is
done only after the version that has the pack is in the log. From then on the kernel verifies each
page that it reads from the disk, for passthrough too: a changed one is EIO.
"""

import errno
import fcntl
import logging
import os
import struct
import threading

from mregfs.host.beneath import Beneath
from mregfs.ports.packs import PackFile

__all__ = ["FsVerity", "enable_argument"]

log = logging.getLogger(__name__)

ENABLE = 0x40806685
"""FS_IOC_ENABLE_VERITY: _IOW('f', 133, struct fsverity_enable_arg), which has 128 bytes."""

MEASURE = 0xC0046686
"""FS_IOC_MEASURE_VERITY: _IOWR('f', 134, struct fsverity_digest), which has 4 bytes and a tail."""

_VERSION = 1
_SHA256 = 1
_BLOCK_SIZE = 4096
_DIGEST_ROOM = 64

_ENABLE_ARGUMENT = struct.Struct("=IIIIQIIQ88x")
"""version, hash_algorithm, block_size, salt_size, salt_ptr, sig_size, reserved, sig_ptr, reserved
(11 of u64)."""

_NOT_OFFERED = {
    errno.ENOTTY: "this file system has no fs-verity",
    errno.EOPNOTSUPP: "fs-verity is not enabled on this file system or in this kernel",
    errno.ENOSYS: "this kernel has no fs-verity",
}


def enable_argument() -> bytes:
    """Return `struct fsverity_enable_arg`: SHA-256 of blocks of 4 KiB, no salt, no signature."""
    return _ENABLE_ARGUMENT.pack(_VERSION, _SHA256, _BLOCK_SIZE, 0, 0, 0, 0, 0)


class FsVerity:
    """fs-verity on the file system of the packs of a store. Safe to use from several threads.

    Args:
        top: the directory of the store.
    """

    def __init__(self, top: Beneath) -> None:
        self._top = top
        self._why_not: str | None = None
        self._lock = threading.Lock()

    @property
    def why_not(self) -> str:
        """Why it is not used, as a sentence; empty when it is. Asked of the file system once."""
        with self._lock:
            if self._why_not is None:
                self._why_not = _probe(self._top)
            return self._why_not

    def enable(self, pack: PackFile) -> bool:
        """Protect the file that a pack is, where that is possible; tell whether it now is.

        Takes as long as reading it and hashing it with SHA-256.

        Never fails: an unprotected file is as good as before.
        """
        fd = pack.backing()
        if self.why_not or fd is None:
            return False
        try:
            fcntl.ioctl(fd, ENABLE, enable_argument())
        except OSError as exc:
            if exc.errno in _NOT_OFFERED:
                with self._lock:
                    self._why_not = _NOT_OFFERED[exc.errno]
            elif exc.errno == errno.EEXIST:
                return True
            else:  # EACCES: not our file; ETXTBSY: open for writing; ENOSPC: no room for the tree
                log.info("no fs-verity on %s: %s", os.readlink(f"/proc/self/fd/{fd}"), exc.strerror)
            return False
        return True

    def is_enabled(self, pack: PackFile) -> bool:
        """Tell whether the file that a pack is, is protected."""
        fd = pack.backing()
        return fd is not None and _measure(fd) == 0


def _probe(top: Beneath) -> str:
    """Ask for the measurement of a directory, which is no verity file: ENODATA says it could be."""
    try:
        fd = top.open_directory(".")
    except OSError as exc:
        return f"{top.path} cannot be opened: {exc.strerror}"
    try:
        code = _measure(fd)
    finally:
        os.close(fd)
    if code in (0, errno.ENODATA):
        return ""
    return _NOT_OFFERED.get(code, f"fs-verity cannot be asked for: {os.strerror(code)}")


def _measure(fd: int) -> int:
    """Return the errno of FS_IOC_MEASURE_VERITY, 0 when the file is protected."""
    room = bytearray(struct.pack("=HH", 0, _DIGEST_ROOM) + bytes(_DIGEST_ROOM))
    try:
        fcntl.ioctl(fd, MEASURE, room, True)
    except OSError as exc:
        return exc.errno or errno.EIO
    return 0
