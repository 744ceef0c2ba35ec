"""Whole files in a directory of the host: `ab/<digest of the file>`, beside the packs.

Decided here: how a file becomes complete or is never seen (`whole_files.md`), which one is evicted,
how processes share the limit and the pins. Not decided here: which files are made whole. `api`
names it; everyone else sees `ports.WholeFiles`.
"""

import contextlib
import fcntl
import logging
import os
import re
import secrets
import time
from collections.abc import Container, Iterable, Iterator, Mapping

import msgspec

from mregfs.errors import InvalidError
from mregfs.ports import WholeFilesFigures
from mregfs.stores.ownership import READ_ONLY, give, make_directory, share_out
from mregfs.stores.whole_files_dir.draft import Draft, WholeFile, translated

__all__ = ["WholeFilesDirectory", "default_limit"]

log = logging.getLogger(__name__)

_GIB = 1 << 30
_DIGEST = re.compile(r"[0-9a-f]{64}")

LEAST_USE_SECONDS = 600
"""A use is noted when the last one is longer ago: eviction needs no finer order."""


class _Shared(msgspec.Struct):
    """What the processes of the host share besides the files themselves (`pins.json`)."""

    limit: int | None = None
    pins: dict[str, list[str]] = {}


def default_limit(total: int) -> int:
    """Return the limit for a file system of `total` bytes: a tenth of it, at most 32 GiB."""
    return min(total // 10, 32 * _GIB)


class WholeFilesDirectory:
    """The whole files below `path` (`cache/whole` of a store, made when the first one comes).

    Args:
        path: the directory; on the file system of the packs.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(path)
        self._temporary = os.path.join(self.path, "tmp")
        self._top = os.path.dirname(os.path.dirname(self.path))

    # ---- reading

    def open(self, digest: str) -> WholeFile | None:
        """Open a complete file for reading, or return None; counts as a use of it."""
        path = self._path_of(digest)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        found = os.fstat(fd)
        if time.time() - found.st_atime > LEAST_USE_SECONDS:
            with contextlib.suppress(OSError):  # somebody else's: then he notes the uses
                os.utime(fd, ns=(time.time_ns(), found.st_mtime_ns))
        return WholeFile(fd, path, found.st_size)

    def files(self) -> Mapping[str, int]:
        """Return digest and size of every complete file."""
        return {each.name: each.stat().st_size for each in self._entries()}

    def figures(self) -> WholeFilesFigures:
        """Return how full the cache is."""
        shared = self._read_shared()
        pinned = {digest for digests in shared.pins.values() for digest in digests}
        sizes = self.files()
        unfinished = sum(self._unfinished().values())
        return WholeFilesFigures(
            limit=self._limit_of(shared),
            used=sum(sizes.values()) + unfinished,
            files=len(sizes),
            pinned=sum(size for digest, size in sizes.items() if digest in pinned),
        )

    def pins(self) -> Mapping[str, frozenset[str]]:
        """Return the pins, by name."""
        return {name: frozenset(digests) for name, digests in self._read_shared().pins.items()}

    # ---- changing

    def set_limit(self, limit: int | None) -> None:
        """Set the limit for every process of this host (None leaves it), and evict down to it."""
        if limit is None and not os.path.isdir(self.path):
            return
        with self._locked() as shared:
            if limit is not None and shared.limit != limit:
                shared.limit = limit
                self._write_shared(shared)
            self._make_room(shared, 0, ())

    def pin(self, name: str, digests: Iterable[str]) -> None:
        """Exempt files from eviction, also those that do not exist yet, for the sake of `name`.

        Raises:
            ForbiddenError: the store is not ours to write.
        """
        with self._locked() as shared:
            shared.pins[name] = sorted(set(digests))
            self._write_shared(shared)

    def unpin(self, names: Iterable[str]) -> None:
        """Take pins back; unknown names are no error."""
        gone = set(names)
        if not gone & self.pins().keys():
            return
        with self._locked() as shared:
            shared.pins = {name: each for name, each in shared.pins.items() if name not in gone}
            self._write_shared(shared)
            self._make_room(shared, 0, ())

    def delete(self, digest: str) -> None:
        """Remove a file; a missing one is no error. Open ones stay readable until closed."""
        with contextlib.suppress(FileNotFoundError):
            try:
                os.unlink(self._path_of(digest))
            except FileNotFoundError:
                raise
            except OSError as exc:
                raise translated(exc, "cannot delete", self._path_of(digest)) from exc

    def create(self, digest: str, size: int, keep: Container[str] = ()) -> Draft | None:
        """Begin a file of `size` bytes, and evict what was unused longest to make room for it.

        None: there is no room, by the limit of the cache or on the disk; or it is there already.
        """
        target = self._path_of(digest)
        path = os.path.join(self._temporary, f"{digest}.{secrets.token_hex(4)}")
        with self._locked() as shared:
            if os.path.exists(target) or not self._make_room(shared, size, keep):
                return None
            try:
                with contextlib.suppress(FileExistsError):
                    make_directory(self._temporary, self._top)
                fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, READ_ONLY)
            except OSError as exc:
                raise translated(exc, "cannot make", path) from exc
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                give(fd, self._top, READ_ONLY)
                os.ftruncate(fd, size)
            except OSError as exc:
                os.close(fd)
                os.unlink(path)
                raise translated(exc, "cannot make", path) from exc
        return Draft(fd, path, target, size, self._top)

    # ---- room

    def _make_room(self, shared: _Shared, size: int, keep: Container[str]) -> bool:
        """Evict, least recently used first, until `size` more bytes fit; False: they never will.

        Nothing is evicted in vain. Called under the lock.
        """
        pinned = {digest for digests in shared.pins.values() for digest in digests}
        entries = [(each.name, each.path, each.stat()) for each in self._entries()]
        unfinished = self._unfinished(remove_stale=True)
        used = sum(found.st_size for _, _, found in entries) + sum(unfinished.values())
        excess = used + size - self._limit_of(shared)
        lacking = size - self._available() if size else 0
        needed = max(excess, lacking)
        victims = []
        entries.sort(key=lambda entry: entry[2].st_atime_ns)
        for digest, path, found in entries:
            if needed <= 0:
                break
            if digest not in pinned and digest not in keep:
                victims.append(path)
                needed -= found.st_size
        if needed > 0 and size:
            return False
        for path in victims:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
                log.debug("evicted %s", path)
        return True

    def _limit_of(self, shared: _Shared) -> int:
        if shared.limit is not None:
            return shared.limit
        figures = self._statvfs()
        return default_limit(figures.f_blocks * figures.f_frsize)

    def _available(self) -> int:
        """Return the bytes that may be taken, leaving a twentieth (or 1 GiB) for commits."""
        figures = self._statvfs()
        reserve = min(_GIB, figures.f_blocks * figures.f_frsize // 20)
        return figures.f_bavail * figures.f_frsize - reserve

    def _statvfs(self) -> os.statvfs_result:
        place = self.path
        while not os.path.isdir(place):
            place = os.path.dirname(place)
        return os.statvfs(place)

    def _entries(self) -> Iterator["os.DirEntry[str]"]:
        with contextlib.suppress(FileNotFoundError), os.scandir(self.path) as folders:
            for folder in sorted(folders, key=lambda each: each.name):
                if len(folder.name) == 2 and folder.is_dir():
                    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
                        for entry in entries:
                            if _DIGEST.fullmatch(entry.name):
                                with contextlib.suppress(FileNotFoundError):
                                    entry.stat()
                                    yield entry

    def _unfinished(self, *, remove_stale: bool = False) -> dict[str, int]:
        """Return path and size of the files in the making; under the lock, remove dead ones."""
        found: dict[str, int] = {}
        with contextlib.suppress(FileNotFoundError), os.scandir(self._temporary) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if not (remove_stale and _is_stale(entry.path)):
                        found[entry.path] = entry.stat().st_size
                        continue
                    os.unlink(entry.path)
                    log.info("removed %s, left by a crash", entry.path)
        return found

    # ---- what processes share

    @contextlib.contextmanager
    def _locked(self) -> Iterator[_Shared]:
        lock = os.path.join(self.path, "lock")
        try:
            for folder in (os.path.dirname(self.path), self.path):  # none above: see packs_dir
                with contextlib.suppress(FileExistsError):
                    make_directory(folder, self._top)
            fd = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
            try:
                share_out(fd, self._top)
                fcntl.flock(fd, fcntl.LOCK_EX)
                yield self._read_shared()
            finally:
                os.close(fd)
        except OSError as exc:
            raise translated(exc, "cannot use the cache", exc.filename or self.path) from exc

    def _read_shared(self) -> _Shared:
        path = os.path.join(self.path, "pins.json")
        try:
            with open(path, "rb") as file:
                return msgspec.json.decode(file.read(), type=_Shared)
        except FileNotFoundError:
            return _Shared()
        except (OSError, msgspec.DecodeError) as exc:
            log.warning("%s is not readable, so nothing is pinned: %s", path, exc)
            return _Shared()

    def _write_shared(self, shared: _Shared) -> None:
        path = os.path.join(self.path, "pins.json")
        try:
            with contextlib.suppress(FileNotFoundError):  # what a crash left may be somebody else's
                os.unlink(f"{path}.new")
            with open(f"{path}.new", "xb") as file:
                share_out(file.fileno(), self._top)
                file.write(msgspec.json.encode(shared))
                file.flush()
                os.fsync(file.fileno())
            os.rename(f"{path}.new", path)
        except OSError as exc:
            raise translated(exc, "cannot write", path) from exc

    def _path_of(self, digest: str) -> str:
        if _DIGEST.fullmatch(digest) is None:
            raise InvalidError(f"{digest!r} is not the digest of a file")
        return f"{self.path}/{digest[:2]}/{digest}"


def _is_stale(path: str) -> bool:
    """Tell whether nobody is writing a file any more: its writer holds a lock on it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True
