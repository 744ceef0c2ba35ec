"""Whole files in a directory of the host: `ab/<digest of the file>`, beside the packs.

Decided here: how a file becomes complete or is never seen (`whole_files.md`), which one is evicted,
how processes share the limit and the pins. Not decided here: which files are made whole. Its
port is `ports.WholeFiles`.
"""

import contextlib
import logging
import os
import re
import secrets
import time
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import NamedTuple

import msgspec

from mregfs.errors import InvalidError, MregfsError
from mregfs.host import locks
from mregfs.host.beneath import Beneath
from mregfs.host.temporary import TemporaryFiles
from mregfs.ports.host_cache import WholeFilesFigures
from mregfs.stores.ownership import DIRECTORY, READ_ONLY
from mregfs.stores.whole_files_dir.draft import Draft, WholeFile, translated

__all__ = ["WholeFilesDirectory", "default_limit"]

log = logging.getLogger(__name__)

_GIB = 1 << 30
_WHOLE = "cache/whole"
_TEMPORARY = "cache/whole/tmp"
_LOCK = "cache/whole/lock"
_PINS = "cache/whole/pins.json"

_DIGEST = re.compile(r"[0-9a-f]{64}")

LEAST_USE_SECONDS = 600
"""A use is noted when the last one is longer ago: eviction needs no finer order."""


class _Shared(msgspec.Struct):
    """What the processes of the host share besides the files themselves (`pins.json`)."""

    limit: int | None = None
    pins: dict[str, list[str]] = {}


class _Complete(NamedTuple):
    digest: str
    size: int
    used_ns: int


def default_limit(total: int) -> int:
    """Return the limit for a file system of `total` bytes: a tenth of it, at most 32 GiB."""
    return min(total // 10, 32 * _GIB)


class WholeFilesDirectory:
    """The whole files of a store, in `cache/whole` (made when the first one comes).

    Args:
        top: the directory of the store; whoever opened it closes it.
    """

    def __init__(self, top: Beneath) -> None:
        self._top = top
        self.temporary = TemporaryFiles(top, _TEMPORARY)
        """What a copy that was interrupted leaves, besides what `create` removes."""

    @property
    def path(self) -> str:
        """Where they are, for messages."""
        return f"{self._top.path}/{_WHOLE}"

    # ---- reading

    def open(self, digest: str) -> WholeFile | None:
        """Open a complete file for reading, or return None; counts as a use of it."""
        name = _name_of(digest)
        try:
            fd = self._top.open(name)
        except FileNotFoundError:
            return None
        except OSError as exc:
            log.warning("not using %s/%s: %s", self._top.path, name, exc.strerror)
            return None
        found = os.fstat(fd)
        if time.time() - found.st_atime > LEAST_USE_SECONDS:
            with contextlib.suppress(OSError):  # somebody else's: then he notes the uses
                os.utime(fd, ns=(time.time_ns(), found.st_mtime_ns))
        return WholeFile(fd, f"{self._top.path}/{name}", found.st_size)

    def files(self) -> Mapping[str, int]:
        """Return digest and size of every complete file."""
        return {each.digest: each.size for each in self._complete()}

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
        if limit is None and not self._top.exists(_WHOLE):
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
        name = _name_of(digest)
        try:
            self._top.unlink(name)
        except FileNotFoundError:
            pass
        except OSError as exc:
            raise self._failed(exc, "cannot delete", name) from exc

    def create(self, digest: str, size: int, keep: Container[str] = ()) -> Draft | None:
        """Begin a file of `size` bytes, and evict what was unused longest to make room for it.

        None: there is no room, by the limit of the cache or on the disk; or it is there already.
        """
        target = _name_of(digest)
        name = f"{_TEMPORARY}/{digest}.{secrets.token_hex(4)}"
        with self._locked() as shared:
            try:
                if self._top.exists(target) or not self._make_room(shared, size, keep):
                    return None
                with contextlib.suppress(FileExistsError):
                    self._top.make_directory(_TEMPORARY, DIRECTORY, durable=False)
                fd = self._top.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR, READ_ONLY)
            except OSError as exc:
                raise self._failed(exc, "cannot make", name) from exc
            try:
                locks.try_lock(fd)
                os.fchmod(fd, READ_ONLY)
                os.ftruncate(fd, size)
            except OSError as exc:
                os.close(fd)
                self._top.unlink(name)
                raise self._failed(exc, "cannot make", name) from exc
        return Draft(fd, name, target, size, self._top)

    # ---- room

    def _make_room(self, shared: _Shared, size: int, keep: Container[str]) -> bool:
        """Evict, least recently used first, until `size` more bytes fit; False: they never will.

        Nothing is evicted in vain. Called under the lock.
        """
        pinned = {digest for digests in shared.pins.values() for digest in digests}
        entries = list(self._complete())
        unfinished = self._unfinished(remove_stale=True)
        used = sum(each.size for each in entries) + sum(unfinished.values())
        excess = used + size - self._limit_of(shared)
        lacking = size - self._available() if size else 0
        needed = max(excess, lacking)
        victims = []
        entries.sort(key=lambda each: each.used_ns)
        for each in entries:
            if needed <= 0:
                break
            if each.digest not in pinned and each.digest not in keep:
                victims.append(_name_of(each.digest))
                needed -= each.size
        if needed > 0 and size:
            return False
        for name in victims:
            with contextlib.suppress(FileNotFoundError):
                self._top.unlink(name)
                log.debug("evicted %s/%s", self._top.path, name)
        return True

    def _limit_of(self, shared: _Shared) -> int:
        if shared.limit is not None:
            return shared.limit
        figures = self._top.figures(_WHOLE)
        return default_limit(figures.f_blocks * figures.f_frsize)

    def _available(self) -> int:
        """Return the bytes that may be taken, leaving a twentieth (or 1 GiB) for commits."""
        figures = self._top.figures(_WHOLE)
        reserve = min(_GIB, figures.f_blocks * figures.f_frsize // 20)
        return figures.f_bavail * figures.f_frsize - reserve

    def _complete(self) -> Iterator[_Complete]:
        """Yield what there is, one directory after the other."""
        for folder in self._names(_WHOLE):
            if len(folder) == 2:
                for digest in self._names(f"{_WHOLE}/{folder}"):
                    if _DIGEST.fullmatch(digest):
                        with contextlib.suppress(FileNotFoundError):
                            found = self._top.stat(f"{_WHOLE}/{folder}/{digest}")
                            yield _Complete(digest, found.st_size, found.st_atime_ns)

    def _names(self, folder: str) -> list[str]:
        try:
            return sorted(self._top.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as exc:
            raise self._failed(exc, "cannot list", folder) from exc

    def _unfinished(self, *, remove_stale: bool = False) -> dict[str, int]:
        """Return name and size of the files in the making; under the lock, remove dead ones."""
        found: dict[str, int] = {}
        for last in self._names(_TEMPORARY):
            name = f"{_TEMPORARY}/{last}"
            with contextlib.suppress(FileNotFoundError):
                if not (remove_stale and self._is_stale(name)):
                    found[name] = self._top.stat(name).st_size
                    continue
                self._top.unlink(name)
                log.info("removed %s/%s, left by a crash", self._top.path, name)
        return found

    def _is_stale(self, name: str) -> bool:
        """Tell whether nobody is writing a file any more: its writer holds a lock on it."""
        try:
            fd = self._top.open(name)
        except FileNotFoundError:
            raise
        except OSError:  # not a file of ours
            return False
        try:
            return locks.try_lock(fd, shared=True)
        finally:
            os.close(fd)

    # ---- what processes share

    @contextlib.contextmanager
    def _locked(self) -> Iterator[_Shared]:
        try:
            for folder in (_WHOLE.partition("/")[0], _WHOLE):  # none above: see packs_dir
                with contextlib.suppress(FileExistsError):
                    self._top.make_directory(folder, DIRECTORY, durable=False)
            # Who may not write cannot open it, and so not lock it either.
            fd = self._top.open(_LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as exc:
            raise self._failed(exc, "cannot use the cache", _LOCK) from exc
        try:
            os.fchmod(fd, 0o600)
            locks.lock(fd, f"{self._top.path}/{_LOCK}")
            yield self._read_shared()
        finally:
            os.close(fd)

    def _read_shared(self) -> _Shared:
        try:
            fd = self._top.open(_PINS)
            with open(fd, "rb") as file:
                return msgspec.json.decode(file.read(), type=_Shared)
        except FileNotFoundError:
            return _Shared()
        except (OSError, msgspec.DecodeError) as exc:
            log.warning(
                "%s/%s is not readable, so nothing is pinned: %s", self._top.path, _PINS, exc
            )
            return _Shared()

    def _write_shared(self, shared: _Shared) -> None:
        new = f"{_PINS}.new"
        try:
            with contextlib.suppress(FileNotFoundError):  # a crash left it
                self._top.unlink(new)
            fd = self._top.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            with open(fd, "wb") as file:
                os.fchmod(fd, 0o644)
                file.write(msgspec.json.encode(shared))
                file.flush()
                os.fsync(fd)
            self._top.rename(new, _PINS)
        except OSError as exc:
            raise self._failed(exc, "cannot write", _PINS) from exc

    def _failed(self, exc: OSError, doing: str, name: str) -> MregfsError:
        return translated(exc, doing, f"{self._top.path}/{name}")


def _name_of(digest: str) -> str:
    if _DIGEST.fullmatch(digest) is None:
        raise InvalidError(f"{digest!r} is not the digest of a file")
    return f"{_WHOLE}/{digest[:2]}/{digest}"
