"""Packs as files in a directory of the host: `ab/<id>` below it, read-only, never rewritten.

Decided here: where a pack stands, how it becomes visible and durable (`stores.md`), which
descriptors stay open. Not decided here: what is in a pack, or when one may be deleted.
"""

import contextlib
import errno
import logging
import os
import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from mregfs.errors import ExistsError, MregfsError
from mregfs.host import oserrors
from mregfs.host.beneath import Beneath
from mregfs.host.copying import copy
from mregfs.host.descriptors import share
from mregfs.host.page_cache import is_in_memory
from mregfs.host.temporary import TemporaryFiles
from mregfs.ports.packs import PACK_ID, check_pack
from mregfs.stores.ownership import DIRECTORY, READ_ONLY

__all__ = ["PackDescriptor", "PacksDirectory"]

log = logging.getLogger(__name__)

OPEN_PACKS = 256
"""Descriptors that stay open for the next read of their pack; a quarter of the usual ulimit."""

SYNC_THREADS = 8
"""Files made durable at a time: their journal commits merge."""

_CANNOT_LINK = (errno.EXDEV, errno.EPERM, errno.EMLINK)
"""The file is on another mount, is somebody else's (fs.protected_hardlinks), has too many names."""

_PACKS = "packs"
_TEMPORARY = "packs/tmp"

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

    def backing(self) -> int:
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
            raise _failed(exc, "cannot read pack", self._path) from exc
        finally:
            self._store._release(descriptor)
        return data

    def is_cached(self, offset: int, length: int) -> bool:
        """Tell whether the first and the last of these bytes are in the page cache."""
        return is_in_memory(self.backing(), offset, length)

    def stamp(self) -> tuple[int, int]:
        """Return the file's size and its change time (ctime) in nanoseconds."""
        found = os.fstat(self.backing())
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
    """The packs of a store, in `packs` (made when the first one comes).

    Args:
        top: the directory of the store; whoever opened it closes it.
        open_packs: how many descriptors stay open after their last reader has gone.
    """

    def __init__(self, top: Beneath, *, open_packs: int = OPEN_PACKS) -> None:
        self._top = top
        self._open_packs = min(open_packs, share(8))
        self._lock = threading.Lock()
        self._cache: OrderedDict[str, _Descriptor] = OrderedDict()
        self._swept = False
        self.temporary = TemporaryFiles(top, _TEMPORARY)
        """What a creation that was interrupted leaves."""
        self._is_durable = False
        """The name of `packs` itself."""

    @property
    def path(self) -> str:
        """Where the packs are, for messages."""
        return f"{self._top.path}/{_PACKS}"

    def path_of(self, pack: str) -> str:
        """Return where the pack stands, whether it exists or not; for messages."""
        return f"{self._top.path}/{self.name_of(pack)}"

    def name_of(self, pack: str) -> str:
        """Return the name of a pack below the directory of the store."""
        check_pack(pack)
        return f"packs/{pack[:2]}/{pack}"

    def open_local(self, pack: str) -> PackDescriptor:
        """Open a pack for reading.

        Raises:
            NotFoundError: no such pack.
            ForbiddenError: what is there is no file of the store's owner.
        """
        name = self.name_of(pack)
        with self._lock:
            descriptor = self._cache.get(pack)
            if descriptor is not None and not os.fstat(descriptor.fd).st_nlink:
                self._forget(self._cache.pop(pack))  # it was made again, or deleted
                descriptor = None
            if descriptor is not None:
                self._cache.move_to_end(pack)
                descriptor.references += 1
        if descriptor is None:
            descriptor = self._open(pack, name)
        return PackDescriptor(self, descriptor, f"{self._top.path}/{name}")

    def open(self, pack: str) -> PackDescriptor:
        """Open a pack for reading, as `open_local` does: all are files of this host."""
        return self.open_local(pack)

    def size(self, pack: str) -> int:
        """Return the pack's size in bytes.

        Raises:
            NotFoundError: no such pack.
        """
        name = self.name_of(pack)

        def look() -> int:
            return self._top.stat(name).st_size

        return self._try(look, "cannot find pack", name)

    def create(self, pack: str, pieces: Iterable[bytes]) -> int:
        """Write a new pack from `pieces`, and return its size. Not yet durable: see `sync`.

        Raises:
            ExistsError: the id is taken; its bytes are untouched.
            NoSpaceError: nothing was stored.
        """

        def fill(fd: int) -> int:
            size = 0
            for piece in pieces:
                rest = memoryview(piece)
                size += len(rest)
                while rest:
                    rest = rest[os.write(fd, rest) :]
            return size

        return self._create(pack, fill)

    def adopt(self, pack: str, descriptor: int) -> bool:
        """Let an open file be a pack too, by a name of its own; where that cannot be, copy it.

        Raises:
            ExistsError: the id is taken; its bytes are untouched.
            NoSpaceError: nothing was stored.
        """
        name = self.name_of(pack)
        try:
            self._make(name.rpartition("/")[0])
            self._top.link_open(descriptor, name)
        except FileExistsError as exc:
            raise ExistsError(f"pack {pack} exists in {self.path}") from exc
        except OSError as exc:
            if exc.errno not in _CANNOT_LINK:
                raise self._failed(exc, "cannot make pack", name) from exc
            log.info("copying what becomes pack %s: %s", pack, exc.strerror)
        else:
            return True

        def fill(fd: int) -> int:
            copy(descriptor, fd)
            return os.fstat(fd).st_size

        self._create(pack, fill)
        return False

    def _create(self, pack: str, fill: Callable[[int], int]) -> int:
        name = self.name_of(pack)
        temporary = f"{_TEMPORARY}/{pack}.{secrets.token_hex(4)}"
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY

        def begin() -> int:
            self._make(_TEMPORARY)
            return self._top.open(temporary, flags, READ_ONLY)

        fd = self._try(begin, "cannot create pack", temporary)
        try:
            try:
                os.fchmod(fd, READ_ONLY)
                size = fill(fd)
                self._make(name.rpartition("/")[0])
                # Not rename(2), which would replace: ids are never reused, and this holds it.
                self._top.link(temporary, name)
            finally:
                self._sweep(fd)
                os.close(fd)
                with contextlib.suppress(OSError):  # the sweep gets what stays
                    self._top.unlink(temporary)
        except FileExistsError as exc:
            raise ExistsError(f"pack {pack} exists in {self.path}") from exc
        except OSError as exc:
            raise self._failed(exc, "cannot create pack", name) from exc
        return size

    def replace(self, pack: str, pieces: Iterable[bytes]) -> None:
        """Put a pack in the place of a damaged or missing one, whole and durably.

        Raises:
            NoSpaceError: there is no room; nothing changed.
        """
        name = self.name_of(pack)
        fresh = secrets.token_hex(16)
        self.create(fresh, pieces)
        self.sync([fresh])
        try:
            self._make(name.rpartition("/")[0])
            self._top.rename(self.name_of(fresh), name)
        except OSError as exc:
            raise self._failed(exc, "cannot replace pack", name) from exc
        self.sync([pack])
        with self._lock:
            for each in (pack, fresh):
                descriptor = self._cache.pop(each, None)
                if descriptor is not None:
                    self._forget(descriptor)

    def sync(self, packs: Sequence[str]) -> None:
        """Make the named packs and their names durable: files first, then directories.

        Raises:
            NotFoundError: one of them does not exist.
            HostError: the disk failed; none may be taken for durable.
        """
        if not packs:
            return
        names = [self.name_of(pack) for pack in packs]
        self._sync_all(names, self._top.open)
        folders = sorted({name.rpartition("/")[0] for name in names})
        self._sync_all(folders, self._top.open_directory)
        above = [_PACKS] if self._is_durable else [_PACKS, "."]
        self._sync_all(above, self._top.open_directory)
        self._is_durable = True

    def delete(self, pack: str) -> None:
        """Remove a pack; a missing one is not an error. Open ones stay readable until closed."""
        name = self.name_of(pack)
        try:
            self._top.unlink(name)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as exc:
            raise self._failed(exc, "cannot delete pack", name) from exc
        with self._lock:
            descriptor = self._cache.pop(pack, None)
            if descriptor is not None:
                self._forget(descriptor)

    def list(self) -> Iterator[str]:
        """Yield the ids of all packs, sorted, reading one directory at a time."""
        for folder in self._names(_PACKS, _FOLDER):
            for pack in self._names(f"{_PACKS}/{folder}", PACK_ID):
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

    def close(self) -> None:
        """Close the descriptors nobody uses, and keep none from now on."""
        with self._lock:
            self._open_packs = 0
            while self._cache:
                self._forget(self._cache.popitem()[1])

    # ---- descriptors

    def _open(self, pack: str, name: str) -> _Descriptor:
        fd = self._try(lambda: self._top.open(name), "cannot open pack", name)
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
        """Make a directory and `packs`, but nothing above: an unmounted disk must not look empty.

        `sync` makes their names durable.
        """
        try:
            self._top.make_directory(folder, DIRECTORY, durable=False)
        except FileExistsError:
            pass
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):
                self._top.make_directory(_PACKS, DIRECTORY, durable=False)
            with contextlib.suppress(FileExistsError):
                self._top.make_directory(folder, DIRECTORY, durable=False)

    def _sync_all(self, names: Sequence[str], opened: Callable[[str], int]) -> None:
        def sync(name: str) -> None:
            fd = self._try(lambda: opened(name), "cannot make durable", name)
            try:
                os.fsync(fd)
            except OSError as exc:
                raise self._failed(exc, "cannot make durable", name) from exc
            finally:
                os.close(fd)

        if len(names) == 1:
            sync(names[0])
            return
        with ThreadPoolExecutor(min(SYNC_THREADS, len(names)), "sync") as threads:
            for _ in threads.map(sync, names):
                pass

    def _sweep(self, fd: int) -> None:
        """Remove what crashes left in `tmp/`, once per instance, by the file system's own clock."""
        if not self._swept:
            self._swept = True
            self.temporary.sweep(os.fstat(fd).st_mtime)

    def _names(self, folder: str, pattern: re.Pattern[str]) -> Sequence[str]:
        try:
            return sorted(name for name in self._top.listdir(folder) if pattern.fullmatch(name))
        except FileNotFoundError as exc:
            try:
                return self._names(folder, pattern) if self._top.found_again() else []
            except OSError as gone:
                raise self._failed(gone, "cannot list packs", folder) from exc
        except OSError as exc:
            raise self._failed(exc, "cannot list packs", folder) from exc

    def _figures(self) -> os.statvfs_result:
        try:
            return self._top.figures(_PACKS)
        except OSError as exc:
            raise self._failed(exc, "cannot tell the free space", _PACKS) from exc

    def _try(self, call: Callable[[], int], doing: str, name: str) -> int:
        """Make a call on a name; once more when the directory of the store is found again."""
        try:
            try:
                return call()
            except FileNotFoundError:
                if not self._top.found_again():
                    raise
                return call()
        except OSError as exc:
            raise self._failed(exc, doing, name) from exc

    def _failed(self, exc: OSError, doing: str, name: str) -> MregfsError:
        return _failed(exc, doing, f"{self._top.path}/{name}")


def _failed(exc: OSError, doing: str, path: str) -> MregfsError:
    return oserrors.translated(exc, f"{doing} {path!r}")
