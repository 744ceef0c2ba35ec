"""The files of the index: may they be trusted, who else uses them, how they are thrown away.

Decided here: when an index is worth less than a replay of the log. Not decided here: what LMDB does
with a good one (`environment`).

In the directory stand `data.mdb` and `lock.mdb` (LMDB's), `guard` (is it clean? who uses it?) and
`gate` (locked while somebody opens or wipes). The locks are flock(2): they end with the process.
All of it, the directory too, is this user's alone: nobody else can open, and so lock, any of it.
"""

import contextlib
import errno
import logging
import os
import stat
import struct
from collections.abc import Iterator
from typing import NamedTuple

from mregfs.errors import NotFoundError
from mregfs.host import locks
from mregfs.host.beneath import Beneath

__all__ = ["IndexFiles"]

log = logging.getLogger(__name__)

VERIFY_LIMIT = 128 << 20
"""Bytes up to which an index that was not closed is walked before it is trusted: 65 MiB/s."""

FULL_DISK = 64 << 10
"""Less free space than this explains a write that failed."""

_STEP = 256 << 10
"""Bytes by which the data file grows at least."""

_GUARD_SIZE = 128

_DATA = "data.mdb"
_LOCK = "lock.mdb"
_DAMAGED = "data.mdb.damaged"
_GATE = "gate"
_GUARD = "guard"
_OURS_ALONE = 0o600
_DIRECTORY = 0o700

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
    """The directory of one index, as this process sees it.

    Args:
        parent: what the directory is in; it is ours to close.
        name: of the directory; made if it is missing.
    """

    def __init__(self, parent: Beneath, name: str) -> None:
        self.path = f"{parent.path}/{name}"
        self._parent = parent
        self._name = name
        self._held: Beneath | None = None
        self._guard = -1
        self._lock = -1
        self.allocated = 0
        """Bytes of the data file that are known to have their blocks."""

    def is_in(self, parent: Beneath, name: str) -> bool:
        """Tell whether this is the directory of that name there."""
        return (self._parent.identity, self._name) == (parent.identity, name)

    def close(self) -> None:
        """Let go of the directories."""
        if self._held is not None:
            self._held.close()
        self._parent.close()

    @property
    def lmdb_path(self) -> str:
        """By which LMDB reaches the directory that is held, whatever stands at its path by now."""
        return f"/proc/self/fd/{self._directory.fd}"

    @property
    def _directory(self) -> Beneath:
        if self._held is None:
            raise FileNotFoundError(f"{self.path} is not open")
        return self._held

    def identity(self) -> tuple[int, int] | None:
        """Return what tells this data file from one that replaced it; None when there is none."""
        if self._held is None:
            return None
        try:
            found = os.stat(_DATA, dir_fd=self._held.fd, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_dev, found.st_ino

    def is_orphaned(self) -> bool:
        """Tell whether what the directory is in was removed: then no index can be made anew."""
        try:
            self._parent.found_again()
        except OSError:
            return True
        return False

    def is_disk_full(self) -> bool:
        """Tell whether there is no room for another transaction."""
        with contextlib.suppress(OSError):
            figures = os.fstatvfs(self._directory.fd)
            return figures.f_bavail * figures.f_frsize < FULL_DISK
        return False

    def hold(self, *, make: bool) -> Beneath:
        """Open the directory, for all that follows.

        Raises:
            FileNotFoundError: there is none, and not `make`.
        """
        while True:
            try:
                found = self._parent.below(self._name)
                break
            except FileNotFoundError:
                if self._parent.found_again():
                    continue
                if not make:
                    raise
            with contextlib.suppress(FileExistsError):
                self._parent.make_directory(self._name, _DIRECTORY, durable=False)
        self.allocated = 0
        if make and stat.S_IMODE(os.fstat(found.fd).st_mode) != _DIRECTORY:
            os.fchmod(found.fd, _DIRECTORY)
        if self._held is not None:
            self._held.close()
        self._held = found
        return found

    @contextlib.contextmanager
    def gate(self) -> Iterator[None]:
        """Keep every other process from opening or wiping meanwhile.

        Raises:
            UnavailableError: somebody keeps it locked.
        """
        fd = -1
        while fd < 0:
            directory = self.hold(make=True)
            with contextlib.suppress(FileNotFoundError):  # it is removed meanwhile
                fd = self._lock_gate(directory)
        try:
            yield
        finally:
            locks.unlock(fd)

    def _lock_gate(self, directory: Beneath) -> int:
        fd = directory.open(_GATE, os.O_RDWR | os.O_CREAT, _OURS_ALONE)
        try:
            _keep_private(fd)
            locks.lock(fd, f"{self.path}/{_GATE}")
            there = self._parent.stat(self._name)
            same = (there.st_dev, there.st_ino) == directory.identity
            if same and os.path.samestat(directory.stat(_GATE), os.fstat(fd)):
                return fd
        except BaseException:
            locks.unlock(fd)
            raise
        locks.unlock(fd)
        return -1

    # ---- the guard: who uses the index, and was it left clean?

    def join(self, *, read_only: bool) -> bool:
        """Count this process among the users; True when it is the only one.

        Then nobody else gets past this point until `share`.
        """
        if read_only:
            fd = self._directory.open(_GUARD)
        else:
            fd = self._directory.open(_GUARD, os.O_RDWR | os.O_CREAT, _OURS_ALONE)
            _keep_private(fd)
        self._guard = fd
        if locks.try_lock(fd):
            return True
        self.share()
        return False

    def share(self) -> None:
        """Let other processes join."""
        locks.lock(self._guard, f"{self.path}/{_GUARD}", shared=True)

    def leave(self) -> None:
        """Count this process among the users no more. LMDB has nothing open."""
        self._forget_lock()
        fd, self._guard = self._guard, -1
        if fd >= 0:
            locks.unlock(fd)

    def lock_descriptor(self) -> int:
        """Return a descriptor of LMDB's lock file, open for reading and writing until `leave`.

        To close one while LMDB has the file open would take its locks away: they are fcntl's.
        """
        if self._lock < 0:
            self._lock = self._directory.open(_LOCK, os.O_RDWR)
        return self._lock

    def _forget_lock(self) -> None:
        fd, self._lock = self._lock, -1
        if fd >= 0:
            os.close(fd)

    def mark_dirty(self) -> None:
        """Note, durably, that from now on a crash of the host may tear the data file."""
        self._write_guard(f"dirty {_boot_id()}")

    def mark_clean(self) -> None:
        """Make the data file durable and note it, if nobody else uses it; afterwards share it."""
        if locks.try_lock(self._guard):
            self._note_clean()
        self.share()

    def _note_clean(self) -> None:
        fd = self._directory.open(_DATA)
        try:
            os.fdatasync(fd)
        finally:
            os.close(fd)
        self._write_guard("clean " + self._signature())

    def _write_guard(self, line: str) -> None:
        os.pwrite(self._guard, line.encode().ljust(_GUARD_SIZE - 1) + b"\n", 0)
        os.fsync(self._guard)

    def _signature(self) -> str:
        found = self._directory.stat(_DATA)
        return f"{found.st_ino} {found.st_size} {found.st_mtime_ns}"

    # ---- trust

    def flaw(self) -> str:
        """Return what is wrong with the data file at first sight, or nothing."""
        with contextlib.suppress(FileNotFoundError):
            return self._flaw()
        return ""

    def data_size(self) -> int:
        """Return the size of the data file; 0 when there is none."""
        with contextlib.suppress(FileNotFoundError):
            return self._directory.stat(_DATA).st_size
        return 0

    def check_ours(self) -> None:
        """Check what LMDB is about to open by name: files of this user's own, with no other name.

        Raises:
            OSError: something else stands there.
        """
        for name in (_DATA, _LOCK):
            with contextlib.suppress(FileNotFoundError):
                fd = self._directory.open(name)
                try:
                    if os.fstat(fd).st_nlink > 1:
                        reason = "it has another name, by which it can be changed; remove it"
                        raise PermissionError(errno.EPERM, reason, f"{self.path}/{name}")
                    _keep_private(fd)
                finally:
                    os.close(fd)

    def allocate_lock(self, readers: int) -> None:
        """Give a lock file that is yet to be made its blocks. The gate is held.

        LMDB would make it sparse, and write to it through a mapping: on a full disk that ends the
        process (SIGBUS).
        """
        try:
            fd = self._directory.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, _OURS_ALONE)
        except FileExistsError:
            return
        try:
            os.posix_fallocate(fd, 0, (readers + _LOCK_HEADER_READERS) * _READER_SIZE)
        except BaseException:
            self._directory.unlink(_LOCK)
            raise
        finally:
            os.close(fd)

    def allocate_data(self, size: int) -> None:
        """Give the data file its blocks up to a size, and some beyond it.

        LMDB goes by its own last page, and uses what is there behind it when it grows. Nobody
        writes meanwhile.
        """
        fd = self._directory.open(_DATA, os.O_RDWR)
        try:
            there = os.fstat(fd).st_size
            if there < size:
                os.posix_fallocate(fd, there, size + _STEP - there)
                there = size + _STEP
        finally:
            os.close(fd)
        self.allocated = there

    def prepare(self, *, alone: bool, read_only: bool) -> None:
        """Leave only files that LMDB can be let loose on.

        Raises:
            NotFoundError: there are none, and they are not ours to make.
        """
        if not self._directory.exists(_DATA):
            if read_only:
                raise NotFoundError(f"there is no index in {self.path!r}")
            # The readers and the transaction number of a deleted index.
            with contextlib.suppress(FileNotFoundError):
                self._directory.unlink(_LOCK)
            self.mark_dirty()
            return
        reason = ""
        if not alone and not self._directory.exists(_LOCK):
            reason = "lost its lock file while in use"
        reason = reason or self._flaw()
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
        self._forget_lock()
        with contextlib.suppress(FileNotFoundError):
            self._directory.rename(_DATA, _DAMAGED)
        with contextlib.suppress(FileNotFoundError):
            self._directory.unlink(_LOCK)

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
        if read_only or self.data_size() > VERIFY_LIMIT:
            return ""
        from lmdb import verify  # 10 ms, and rarely needed

        flaws = verify.verify(self.lmdb_path)  # type: ignore[no-untyped-call]
        if flaws:
            return f"is damaged ({flaws[0]})"
        self._note_clean()
        return ""

    def _flaw(self) -> str:
        """Return what is wrong with the data file at first sight, or nothing.

        LMDB maps the file: a page that it thinks is there and is not would end the process
        (SIGBUS).
        """
        fd = self._directory.open(_DATA)
        try:
            return _flaw(fd)
        finally:
            os.close(fd)


def _keep_private(fd: int) -> None:
    """Let nobody else open a file of ours, also one that was made when others could."""
    if stat.S_IMODE(os.fstat(fd).st_mode) != _OURS_ALONE:
        os.fchmod(fd, _OURS_ALONE)


def _boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip() or "unknown"
    except OSError:
        return "unknown"


def _flaw(fd: int) -> str:
    flaw = ""
    for _ in range(3):  # another process may be writing these pages
        first = _read_meta(fd, 0)
        second = first and _read_meta(fd, first.page_size)
        size = os.fstat(fd).st_size
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
