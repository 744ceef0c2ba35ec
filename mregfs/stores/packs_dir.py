"""Packs as files in a directory of the host: `ab/<id>` below it, read-only, never rewritten.

Decided here: where a pack stands, how it becomes visible and durable (`stores.md`), which
descriptors stay open. Not decided here: what is in a pack, or when one may be deleted. `api` names
it; everyone else sees `ports.PackStore`.
"""

import contextlib
import errno
import logging
import os
import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from mregfs.errors import (
    ExistsError,
    ForbiddenError,
    HostError,
    InvalidError,
    MregfsError,
    NoSpaceError,
    NotFoundError,
)
from mregfs.host.descriptors import share
from mregfs.ports import PackFile
from mregfs.stores.ownership import READ_ONLY, give, make_directory

__all__ = ["PackDescriptor", "PacksDirectory"]

log = logging.getLogger(__name__)

OPEN_PACKS = 256
"""Descriptors that stay open for the next read of their pack; a quarter of the usual ulimit."""

SYNC_THREADS = 8
"""Files made durable at a time: their journal commits merge."""

STALE_AFTER_SECONDS = 24 * 3600
"""A temporary file this old was left by a crash: its writer would have touched it since."""

_PACK = re.compile(r"[0-9a-f]{32}")
_FOLDER = re.compile(r"[0-9a-f]{2}")


class _Descriptor:
    """An open pack, shared by the cache and by every PackDescriptor on it."""

    __slots__ = ("cached", "fd", "references", "size")

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd
        self.size = size
        self.references = 0
        self.cached = False


class PackDescriptor:
    """One pack, open for reading (`ports.PackFile`). Safe to use from several threads."""

    __slots__ = ("_descriptor", "_path", "_store", "size")

    def __init__(self, store: "PacksDirectory", descriptor: _Descriptor, path: str) -> None:
        self._store = store
        self._descriptor: _Descriptor | None = descriptor
        self._path = path
        self.size = descriptor.size

    def fileno(self) -> int:
        """Return the descriptor of the file; it stays valid until `close`."""
        if self._descriptor is None:
            raise ValueError(f"{self._path} is closed")
        return self._descriptor.fd

    def read(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes at `offset`; shorter only at the end of the pack.

        Raises:
            HostError: the disk failed.
        """
        descriptor = self._store._hold(self)
        try:
            data = os.pread(descriptor.fd, length, offset)
            wanted = min(length, self.size - offset)
            while data and len(data) < wanted:
                more = os.pread(descriptor.fd, wanted - len(data), offset + len(data))
                if not more:
                    break
                data += more
        except OSError as exc:
            raise _translated(exc, "cannot read pack", self._path) from exc
        finally:
            self._store._release(descriptor)
        return data

    def stamp(self) -> tuple[int, int]:
        """Return the file's size and its change time (ctime) in nanoseconds."""
        found = os.fstat(self.fileno())
        return found.st_size, found.st_ctime_ns

    def close(self) -> None:
        """Release the descriptor; calling it again does nothing."""
        with self._store._lock:
            descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            self._store._release(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class PacksDirectory:
    """The packs below `path` (the `packs` directory of a store, made when the first one comes).

    Args:
        path: the directory.
        open_packs: how many descriptors stay open after their last reader has gone.
    """

    def __init__(self, path: str | os.PathLike[str], *, open_packs: int = OPEN_PACKS) -> None:
        self.path = os.path.abspath(path)
        self._temporary = os.path.join(self.path, "tmp")
        self._top = os.path.dirname(self.path)
        self._open_packs = min(open_packs, share(8))
        self._lock = threading.Lock()
        self._cache: OrderedDict[str, _Descriptor] = OrderedDict()
        self._swept = False

    def path_of(self, pack: str) -> str:
        """Return where the pack stands, whether it exists or not."""
        if _PACK.fullmatch(pack) is None:
            raise InvalidError(f"{pack!r} is not the id of a pack")
        return f"{self.path}/{pack[:2]}/{pack}"

    def open(self, pack: str) -> PackDescriptor:
        """Open a pack for reading.

        Raises:
            NotFoundError: no such pack.
        """
        path = self.path_of(pack)
        with self._lock:
            descriptor = self._cache.get(pack)
            if descriptor is not None:
                self._cache.move_to_end(pack)
                descriptor.references += 1
        if descriptor is None:
            descriptor = self._open(pack, path)
        return PackDescriptor(self, descriptor, path)

    def is_cached(self, opened: PackFile, offset: int, length: int) -> bool:
        """Tell whether the first and the last of these bytes are in the page cache.

        False as well where the file system cannot tell.
        """
        fd = opened.fileno()
        try:
            return all(
                os.preadv(fd, [bytearray(1)], place, os.RWF_NOWAIT) == 1
                for place in (offset, offset + length - 1)
            )
        except OSError:  # EAGAIN: it is not there; EOPNOTSUPP
            return False

    def size(self, pack: str) -> int:
        """Return the pack's size in bytes.

        Raises:
            NotFoundError: no such pack.
        """
        path = self.path_of(pack)
        try:
            return os.stat(path).st_size
        except OSError as exc:
            raise _translated(exc, "cannot find pack", path) from exc

    def create(self, pack: str, pieces: Iterable[bytes]) -> int:
        """Write a new pack from `pieces`, and return its size. Not yet durable: see `sync`.

        Raises:
            ExistsError: the id is taken; its bytes are untouched.
            NoSpaceError: nothing was stored.
        """
        path = self.path_of(pack)
        temporary = os.path.join(self._temporary, f"{pack}.{secrets.token_hex(4)}")
        doing = "cannot create pack"
        try:
            self._make(self._temporary)
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
            fd = os.open(temporary, flags, READ_ONLY)
        except OSError as exc:
            raise _translated(exc, doing, temporary) from exc
        size = 0
        try:
            try:
                give(fd, self._top, READ_ONLY)
                for piece in pieces:
                    rest = memoryview(piece)
                    size += len(rest)
                    while rest:
                        rest = rest[os.write(fd, rest) :]
                self._make(os.path.dirname(path))
                # Not rename(2), which would replace: ids are never reused, and this holds it.
                os.link(temporary, path)
            finally:
                self._sweep(fd)
                os.close(fd)
                with contextlib.suppress(OSError):  # the sweep gets what stays
                    os.unlink(temporary)
        except FileExistsError as exc:
            raise ExistsError(f"pack {pack} exists in {self.path}") from exc
        except OSError as exc:
            raise _translated(exc, doing, path) from exc
        return size

    def sync(self, packs: Sequence[str]) -> None:
        """Make the named packs and their names durable: files first, then directories.

        Raises:
            NotFoundError: one of them does not exist.
            HostError: the disk failed; none may be taken for durable.
        """
        if not packs:
            return
        paths = [self.path_of(pack) for pack in packs]
        self._sync_all(paths)
        self._sync_all(sorted({os.path.dirname(path) for path in paths}))
        self._sync_all([self.path])

    def delete(self, pack: str) -> None:
        """Remove a pack; a missing one is not an error. Open ones stay readable until closed."""
        path = self.path_of(pack)
        try:
            os.unlink(path)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as exc:
            raise _translated(exc, "cannot delete pack", path) from exc
        with self._lock:
            descriptor = self._cache.pop(pack, None)
            if descriptor is not None:
                self._forget(descriptor)

    def adopt(self, pack: str, descriptor: int) -> None:
        """Let an open file be a pack too, under a name of its own. Not yet durable: see `sync`.

        Raises:
            ExistsError: the id is taken; its bytes are untouched.
        """
        path = self.path_of(pack)
        try:
            self._make(os.path.dirname(path))
            _link_open(descriptor, path)
        except FileExistsError as exc:
            raise ExistsError(f"pack {pack} exists in {self.path}") from exc
        except OSError as exc:
            raise _translated(exc, "cannot make a pack", path) from exc

    def holds(self, pack: str, descriptor: int) -> bool:
        """Tell whether a pack is this very file."""
        path = self.path_of(pack)
        try:
            return os.path.samestat(os.lstat(path), os.fstat(descriptor))
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as exc:
            raise _translated(exc, "cannot find pack", path) from exc

    def replace(self, pack: str, descriptor: int) -> None:
        """Let another open file, with the same bytes, take the place of a pack, durably."""
        path = self.path_of(pack)
        temporary = os.path.join(self._temporary, f"{pack}.{secrets.token_hex(4)}")
        try:
            os.fsync(descriptor)
            self._make(self._temporary)
            _link_open(descriptor, temporary)
            os.rename(temporary, path)
            _sync(os.path.dirname(path))
        except OSError as exc:
            raise _translated(exc, "cannot replace pack", path) from exc

    def list(self) -> Iterator[str]:
        """Yield the ids of all packs, sorted, reading one directory at a time."""
        for folder in self._names(self.path, _FOLDER):
            for pack in self._names(os.path.join(self.path, folder), _PACK):
                if pack.startswith(folder):
                    yield pack

    def release_deleted(self) -> int:
        """Close idle descriptors of packs that another process deleted, to free their space.

        Returns the number closed. A long-lived process calls it now and then.
        """
        with self._lock:
            gone = [pack for pack, each in self._cache.items() if os.fstat(each.fd).st_nlink == 0]
            for pack in gone:
                self._forget(self._cache.pop(pack))
        return len(gone)

    def free_bytes(self) -> int:
        """Return how many bytes this process could still store, by the file system's account."""
        figures = self._figures()
        return figures.f_bavail * figures.f_frsize

    def total_bytes(self) -> int:
        """Return the size of the file system."""
        figures = self._figures()
        return figures.f_blocks * figures.f_frsize

    def close(self) -> None:
        """Close the descriptors nobody uses, and keep none from now on."""
        with self._lock:
            self._open_packs = 0
            while self._cache:
                self._forget(self._cache.popitem()[1])

    # ---- descriptors

    def _open(self, pack: str, path: str) -> _Descriptor:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as exc:
            raise _translated(exc, "cannot open pack", path) from exc
        opened = _Descriptor(fd, os.fstat(fd).st_size)
        with self._lock:
            found = self._cache.get(pack)
            if found is not None:  # another thread was faster
                os.close(fd)
            else:
                found = self._cache[pack] = opened
                found.cached = True
            found.references += 1
            while len(self._cache) > self._open_packs:
                self._forget(self._cache.popitem(last=False)[1])
        return found

    def _hold(self, pack_file: PackDescriptor) -> _Descriptor:
        """Keep the descriptor from being closed, and its number reused, during a read."""
        with self._lock:
            descriptor = pack_file._descriptor
            if descriptor is None:
                raise ValueError(f"{pack_file._path} is closed")
            descriptor.references += 1
        return descriptor

    def _release(self, descriptor: _Descriptor) -> None:
        with self._lock:
            descriptor.references -= 1
            if not descriptor.references and not descriptor.cached:
                os.close(descriptor.fd)

    def _forget(self, descriptor: _Descriptor) -> None:
        """Under the lock: the cache lets go of it."""
        descriptor.cached = False
        if not descriptor.references:
            os.close(descriptor.fd)

    # ---- files

    def _make(self, folder: str) -> None:
        """Make `folder` and `path`, but nothing above: an unmounted disk must not look empty."""
        try:
            make_directory(folder, self._top)
        except FileExistsError:
            pass
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):
                make_directory(self.path, self._top)
                _sync(self._top)
            with contextlib.suppress(FileExistsError):
                make_directory(folder, self._top)

    def _sync_all(self, paths: Sequence[str]) -> None:
        try:
            if len(paths) == 1:
                _sync(paths[0])
                return
            with ThreadPoolExecutor(min(SYNC_THREADS, len(paths)), "sync") as threads:
                for _ in threads.map(_sync, paths):
                    pass
        except OSError as exc:
            raise _translated(exc, "cannot make durable", exc.filename or self.path) from exc

    def _sweep(self, fd: int) -> None:
        """Remove what crashes left in `tmp/`, once per instance, by the file system's own clock."""
        if self._swept:
            return
        self._swept = True
        now = os.fstat(fd).st_mtime
        with contextlib.suppress(OSError), os.scandir(self._temporary) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if now - entry.stat(follow_symlinks=False).st_mtime > STALE_AFTER_SECONDS:
                        os.unlink(entry.path)
                        log.info("removed %s, left by a crash", entry.path)

    def _names(self, folder: str, pattern: re.Pattern[str]) -> Sequence[str]:
        try:
            return sorted(name for name in os.listdir(folder) if pattern.fullmatch(name))
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise _translated(exc, "cannot list packs", folder) from exc

    def _figures(self) -> os.statvfs_result:
        try:
            try:
                return os.statvfs(self.path)
            except FileNotFoundError:
                return os.statvfs(os.path.dirname(self.path))
        except OSError as exc:
            raise _translated(exc, "cannot tell the free space", self.path) from exc


def _link_open(descriptor: int, path: str) -> None:
    # Only with a directory (which an absolute path does not need) does Python call linkat(2) with
    # AT_SYMLINK_FOLLOW; link(2) would link the symlink in /proc.
    os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=0, follow_symlinks=True)


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as exc:
        exc.filename = path
        raise
    finally:
        os.close(fd)


def _translated(exc: OSError, doing: str, path: str) -> MregfsError:
    message = f"{doing} {path!r}: {exc.strerror or exc}"
    if exc.errno in (errno.ENOENT, errno.ENOTDIR):
        return NotFoundError(message)
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceError(message, "free some space on that file system, or raise the quota")
    if exc.errno in (errno.EACCES, errno.EPERM):
        return ForbiddenError(message, "check who owns the store and its permissions")
    if exc.errno == errno.EROFS:
        return HostError(errno.EROFS, message, "remount the disk read-write")
    return HostError(exc.errno or errno.EIO, message, "see the kernel's log: dmesg")
