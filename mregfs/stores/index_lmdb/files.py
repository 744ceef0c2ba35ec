"""The files of the index: may they be trusted, who else uses them, how they are thrown away.

Decided here: when an index is worth less than a replay of the log. Not decided here: what LMDB does
with a good one (`environment`). Only `environment` calls it.

In the directory stand `data.mdb` and `lock.mdb` (LMDB's), `guard` (is it clean? who uses it?) and
`gate` (locked while somebody opens or wipes). The locks are flock(2): they end with the process.
"""

import contextlib
import fcntl
import logging
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from mregfs.errors import NotFoundError
from mregfs.stores.ownership import make_directory, share_out

__all__ = ["IndexFiles"]

log = logging.getLogger(__name__)

VERIFY_LIMIT = 128 << 20
"""Bytes up to which an index that was not closed is walked before it is trusted: 65 MiB/s."""

FULL_DISK = 64 << 10
"""Less free space than this explains a write that failed."""

_GUARD_SIZE = 128

# A page header is 16 bytes: number, padding, flags, bounds (lmdb mdb.c, struct MDB_page). A meta
# page goes on with magic, version, address, map size, two MDB_db of 48 bytes (of the free list,
# whose padding holds the page size, and of the main table), last page, transaction (MDB_meta).
_PAGE_HEADER = struct.Struct("=QHHI")
_META = struct.Struct("=IIQQ IHHQQQQQ IHHQQQQQ QQ")
_PAGE_IS_META = 0x08
_MAGIC = 0xBEEFC0DE
_FORMAT = 1
_NO_PAGE = (1 << 64) - 1

# struct MDB_reader is padded to a cache line; MDB_txninfo holds two mutexes and one reader.
_READER_SIZE = 64
_LOCK_HEADER_READERS = 16


class _Meta(NamedTuple):
    page_size: int
    roots: tuple[int, int]
    last_page: int
    transaction: int


class IndexFiles:
    """The directory of one index, as this process sees it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.data = os.path.join(path, "data.mdb")
        self.lock = os.path.join(path, "lock.mdb")
        self._guard = -1

    def identity(self) -> tuple[int, int] | None:
        """Return what tells this data file from one that replaced it; None when there is none."""
        try:
            found = os.stat(self.data)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_dev, found.st_ino

    def is_disk_full(self) -> bool:
        """Tell whether there is no room for another transaction."""
        with contextlib.suppress(OSError):
            figures = os.statvfs(self.path)
            return figures.f_bavail * figures.f_frsize < FULL_DISK
        return False

    @contextlib.contextmanager
    def gate(self) -> Iterator[None]:
        """Keep every other process from opening or wiping meanwhile."""
        fd = -1
        while fd < 0:
            self._make_directory()
            with contextlib.suppress(FileNotFoundError):  # the directory is removed meanwhile
                fd = self._lock_gate()
        try:
            yield
        finally:
            _unlock(fd)

    def _lock_gate(self) -> int:
        path = os.path.join(self.path, "gate")
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.path.samestat(os.stat(path), os.fstat(fd)):
                self.share_out(fd)
                return fd
        except BaseException:
            _unlock(fd)
            raise
        _unlock(fd)
        return -1

    def _make_directory(self) -> None:
        if os.path.isdir(self.path):
            return
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        with contextlib.suppress(FileExistsError):
            make_directory(self.path, os.path.dirname(self.path))

    def share_out(self, place: str | int) -> None:
        """Let whoever may write in the directory above write in a file of ours, too."""
        share_out(place, os.path.dirname(self.path))

    # ---- the guard: who uses the index, and was it left clean?

    def join(self, *, read_only: bool) -> bool:
        """Count this process among the users; True when it is the only one.

        Then nobody else gets past this point until `share`.
        """
        path = os.path.join(self.path, "guard")
        if read_only:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        else:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self.share_out(fd)
        self._guard = fd
        if self._try_exclusive():
            return True
        fcntl.flock(fd, fcntl.LOCK_SH)
        return False

    def share(self) -> None:
        """Let other processes join."""
        fcntl.flock(self._guard, fcntl.LOCK_SH)

    def leave(self) -> None:
        """Count this process among the users no more."""
        fd, self._guard = self._guard, -1
        _unlock(fd)

    def mark_dirty(self) -> None:
        """Note, durably, that from now on a crash of the host may tear the data file."""
        self._write_guard(f"dirty {_boot_id()}")

    def mark_clean(self) -> None:
        """Make the data file durable and note it, if nobody else uses it; afterwards share it."""
        if self._try_exclusive():
            self._note_clean()
        self.share()

    def _note_clean(self) -> None:
        fd = os.open(self.data, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fdatasync(fd)
        finally:
            os.close(fd)
        self._write_guard("clean " + self._signature())

    def _try_exclusive(self) -> bool:
        try:
            fcntl.flock(self._guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _write_guard(self, line: str) -> None:
        os.pwrite(self._guard, line.encode().ljust(_GUARD_SIZE - 1) + b"\n", 0)
        os.fsync(self._guard)

    def _signature(self) -> str:
        found = os.stat(self.data)
        return f"{found.st_ino} {found.st_size} {found.st_mtime_ns}"

    # ---- trust

    def flaw(self) -> str:
        """Return what is wrong with the data file at first sight, or nothing."""
        with contextlib.suppress(FileNotFoundError):
            return _flaw(self.data)
        return ""

    def allocate_lock(self, readers: int) -> None:
        """Give a lock file that is yet to be made its blocks. The gate is held.

        LMDB would make it sparse, and write to it through a mapping: on a full disk that ends the
        process (SIGBUS).
        """
        try:
            fd = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            return
        try:
            self.share_out(fd)
            os.posix_fallocate(fd, 0, (readers + _LOCK_HEADER_READERS) * _READER_SIZE)
        except BaseException:
            os.unlink(self.lock)
            raise
        finally:
            os.close(fd)

    def prepare(self, *, alone: bool, read_only: bool) -> None:
        """Leave only files that LMDB can be let loose on.

        Raises:
            NotFoundError: there are none, and they are not ours to make.
        """
        if not os.path.exists(self.data):
            if read_only:
                raise NotFoundError(f"there is no index in {self.path!r}")
            # The readers and the transaction number of a deleted index.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.lock)
            self.mark_dirty()
            return
        reason = ""
        if not alone and not os.path.exists(self.lock):
            reason = "lost its lock file while in use"
        reason = reason or _flaw(self.data)
        if not reason and alone:
            reason = self._distrust(read_only=read_only)
        if reason:
            if read_only:
                raise NotFoundError(f"the index in {self.path!r} {reason}")
            self.wipe(reason)

    def wipe(self, reason: str) -> None:
        """Move the data file aside, so that the index starts empty. The gate is held.

        Who has it open notices the new file and follows.
        """
        log.warning("the index in %s %s: it is rebuilt from the log", self.path, reason)
        with contextlib.suppress(FileNotFoundError):
            os.replace(self.data, self.data + ".damaged")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.lock)

    def _distrust(self, *, read_only: bool) -> str:
        """Return why the files should not be trusted, or nothing. No other process uses them."""
        words = os.pread(self._guard, _GUARD_SIZE, 0).decode("ascii", "replace").split()
        match words:
            case ["clean", *signature] if " ".join(signature) == self._signature():
                return ""
            case ["clean", _, _, _]:
                pass  # something wrote to it since, or it was copied
            case ["dirty", boot] if boot == _boot_id():
                pass  # its user died; LMDB survives that, unless damage is what it died of
            case ["dirty", _]:
                return "was in use when the host stopped"
            case _:
                return "has no valid guard"
        if read_only or os.stat(self.data).st_size > VERIFY_LIMIT:
            return ""
        from lmdb import verify  # 10 ms, and rarely needed

        flaws = verify.verify(self.path)  # type: ignore[no-untyped-call]
        if flaws:
            return f"is damaged ({flaws[0]})"
        self._note_clean()
        return ""


def _unlock(fd: int) -> None:
    # Said, not left to close(2): a child may have inherited the descriptor, and the lock with it.
    fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


def _boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip() or "unknown"
    except OSError:
        return "unknown"


def _flaw(path: str) -> str:
    """Return what is wrong with a data file at first sight, or nothing.

    LMDB maps the file: a page that it thinks is there and is not would end the process (SIGBUS).
    """
    flaw = ""
    for _ in range(3):  # another process may be writing these pages
        with open(path, "rb") as file:
            first = _read_meta(file.fileno(), 0)
            second = first and _read_meta(file.fileno(), first.page_size)
            size = os.fstat(file.fileno()).st_size
        if first is None or second is None:
            flaw = "is not an LMDB file"
            continue
        newest = max(first, second, key=lambda meta: meta.transaction)
        if size < (newest.last_page + 1) * newest.page_size:
            flaw = "is truncated"
        elif any(root > newest.last_page and root != _NO_PAGE for root in newest.roots):
            flaw = "is damaged"
        else:
            return ""
    return flaw


def _read_meta(fd: int, offset: int) -> _Meta | None:
    data = os.pread(fd, _PAGE_HEADER.size + _META.size, offset)
    if len(data) < _PAGE_HEADER.size + _META.size:
        return None
    _, _, flags, _ = _PAGE_HEADER.unpack_from(data)
    fields = _META.unpack_from(data, _PAGE_HEADER.size)
    page_size = fields[4]
    sensible = page_size >= 512 and page_size & (page_size - 1) == 0
    if not flags & _PAGE_IS_META or fields[:2] != (_MAGIC, _FORMAT) or not sensible:
        return None
    return _Meta(page_size, (fields[11], fields[19]), fields[20], fields[21])
