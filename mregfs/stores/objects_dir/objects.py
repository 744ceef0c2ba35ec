"""An object store in a directory of the host: what a local store is made of.

Decided here: how an object is created once, whole and durably (`stores.md`). Not decided here:
what is stored under which key. `api` names it; everyone else sees `ports.ObjectStore`.

It needs hard links, as ext4, xfs, btrfs, tmpfs and NFS have them; nothing else of the file system.
"""

import contextlib
import errno
import logging
import os
import re
import secrets
import stat
from collections.abc import Iterator

from mregfs.errors import (
    ExistsError,
    ForbiddenError,
    HostError,
    InvalidError,
    MregfsError,
    NoSpaceError,
    NotFoundError,
    UnsupportedError,
)
from mregfs.stores.objects_dir.spares import Spares
from mregfs.stores.ownership import READ_ONLY, give, make_directory

__all__ = ["ObjectsDirectory"]

log = logging.getLogger(__name__)

STALE_AFTER_SECONDS = 24 * 3600
"""A temporary file this old was left by a crash: no create takes a day."""

_KEY = re.compile(r"(?!tmp(/|$))[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


class ObjectsDirectory:
    """Objects as read-only files below `path`, which must exist.

    Every instance of every process on the directory may create at the same time; the directory may
    be on NFS.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(path)
        self._temporary = os.path.join(self.path, "tmp")
        self._swept = False
        self._spares: Spares | None = None

    def get(self, key: str) -> bytes:
        """Return the whole object.

        Raises:
            NotFoundError: no such key.
        """
        path = self._path(key)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return _read_all(fd)
            finally:
                os.close(fd)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as exc:
            raise NotFoundError(f"there is no object {key!r} in {self.path}") from exc
        except OSError as exc:
            raise _translated(exc, f"cannot read object {key!r}", path) from exc

    def exists(self, key: str) -> bool:
        """Tell whether `key` exists: one stat."""
        path = self._path(key)
        try:
            return stat.S_ISREG(os.stat(path).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as exc:
            raise _translated(exc, f"cannot look for object {key!r}", path) from exc

    def create(self, key: str, data: bytes) -> None:
        """Store `data` under `key`, durably, only if the key does not exist: exactly one wins.

        Raises:
            ExistsError: the key exists; its bytes are untouched.
            NoSpaceError: nothing was stored.
            ForbiddenError: the directory is not ours to write.
            HostError: the file system failed; the object may or may not exist, whole.
        """
        self._create(key, data, durable=True)

    def list(self, prefix: str, start_after: str = "") -> Iterator[str]:
        """Yield the keys that begin with `prefix` and sort after `start_after`, sorted.

        Lazy by directory: one is read when its first key is taken.
        """
        folder, _, _ = prefix.rpartition("/")
        return self._walk(f"{folder}/" if folder else "", prefix, start_after)

    def delete(self, key: str) -> None:
        """Remove `key`; a missing key is not an error. Not durable: garbage may come back."""
        path = self._path(key)
        try:
            os.unlink(path)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as exc:
            raise _translated(exc, f"cannot delete object {key!r}", path) from exc

    def probe_exclusive(self) -> None:
        """Check that of two creates of one key exactly the first wins; costs no fsync.

        Raises:
            UnsupportedError: it does not hold here, so the store must not be written to.
        """
        key = f"probe/{secrets.token_hex(16)}"
        self._create(key, b"first", durable=False)
        try:
            with contextlib.suppress(ExistsError):
                self._create(key, b"second", durable=False)
                raise UnsupportedError(
                    f"{self.path} lets two writers create the same file",
                    "put the store on a local file system or on NFSv3 or later",
                )
            if self.get(key) != b"first":
                raise UnsupportedError(
                    f"{self.path} lets a later writer replace a file",
                    "put the store on a local file system or on NFSv3 or later",
                )
        finally:
            self.delete(key)

    def keep_spares(self, size: int) -> None:
        """From the first object of just this size on, have files ready for more; until `close`."""
        self._spares = Spares(size, self._make_nameless)

    def close(self) -> None:
        """Give up the spare files; calling it again does nothing."""
        if self._spares is not None:
            self._spares.close()

    # ---- creating

    def _create(self, key: str, data: bytes, *, durable: bool) -> None:
        path = self._path(key)
        spare = None
        if durable and self._spares is not None and self._spares.size == len(data):
            spare = self._spares.take()
        try:
            if spare is None:
                self._write_new(path, data, durable=durable)
            else:
                self._write_spare(spare, path, data)
        except FileExistsError as exc:
            raise ExistsError(f"object {key!r} exists in {self.path}") from exc
        except OSError as exc:
            raise _translated(exc, f"cannot create object {key!r}", path) from exc

    def _write_new(self, path: str, data: bytes, *, durable: bool) -> None:
        temporary = os.path.join(self._temporary, secrets.token_hex(16))
        fd = self._open_temporary(temporary)
        try:
            give(fd, self.path, READ_ONLY)
            _write_all(fd, data)
            if durable:
                os.fsync(fd)
            self._link(temporary, path, durable=durable)
            if durable:
                _sync_directory(os.path.dirname(path))
        finally:
            self._sweep(fd)
            os.close(fd)
            with contextlib.suppress(OSError):  # the sweep gets what stays
                os.unlink(temporary)

    def _write_spare(self, fd: int, path: str, data: bytes) -> None:
        try:
            _write_all(fd, data)
            os.fdatasync(fd)  # the file has its size already, so this is the data only
            self._link(fd, path, durable=True)
            _sync_directory(os.path.dirname(path))
        finally:
            self._sweep(fd)
            os.close(fd)

    def _make_nameless(self) -> int:
        fd = os.open(self.path, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, READ_ONLY)
        try:
            give(fd, self.path, READ_ONLY)
            os.stat(f"/proc/self/fd/{fd}")  # by which it gets a name
        except OSError:
            os.close(fd)
            raise
        return fd

    def _open_temporary(self, temporary: str) -> int:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
        try:
            return os.open(temporary, flags, READ_ONLY)
        except FileNotFoundError:
            # The store's own directory is never made here: an unmounted disk must not look like
            # an empty store.
            with contextlib.suppress(FileExistsError):
                make_directory(self._temporary, self.path)
            return os.open(temporary, flags, READ_ONLY)

    def _link(self, file: str | int, path: str, *, durable: bool) -> None:
        """Give a file, named or not, the name `path`; its directory is made when there is none."""
        try:
            try:
                _link(file, path)
            except FileNotFoundError:
                self._make_parents(os.path.dirname(path), durable=durable)
                _link(file, path)
        except OSError:
            # On NFS the answer to a link that was made can be lost and the call repeated: EEXIST
            # then is our own success, which the count of links tells. A loser has one less.
            if os.stat(file).st_nlink != (2 if isinstance(file, str) else 1):
                raise

    def _make_parents(self, folder: str, *, durable: bool) -> None:
        if os.path.isdir(folder):
            return
        parent = os.path.dirname(folder)
        if folder != self.path:
            self._make_parents(parent, durable=durable)
        with contextlib.suppress(FileExistsError):
            make_directory(folder, self.path)
        # Also when another writer made it: our object is only as durable as the way to it.
        if durable:
            _sync_directory(parent)

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

    # ---- listing

    def _walk(self, folder: str, prefix: str, start_after: str) -> Iterator[str]:
        path = os.path.join(self.path, folder)
        found: list[str] = []
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    key = folder + entry.name
                    if _NAME.fullmatch(entry.name) is None or key == "tmp":
                        continue
                    if entry.is_dir():
                        # With the slash, so that sorting names sorts the keys below them.
                        key += "/"
                        wanted = key.startswith(prefix) or prefix.startswith(key)
                        if wanted and (key > start_after or start_after.startswith(key)):
                            found.append(key)
                    elif key.startswith(prefix) and key > start_after:
                        found.append(key)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as exc:
            raise _translated(exc, f"cannot list the objects in {folder!r}", path) from exc
        found.sort()
        for key in found:
            if key.endswith("/"):
                yield from self._walk(key, prefix, start_after)
            else:
                yield key

    def _path(self, key: str) -> str:
        if _KEY.fullmatch(key) is None:
            raise InvalidError(f"{key!r} is not a key of an object")
        return f"{self.path}/{key}"


def _read_all(fd: int) -> bytes:
    size = os.fstat(fd).st_size
    data = os.read(fd, size)
    if len(data) == size:
        return data
    pieces = [data]
    while piece := os.read(fd, 1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


def _write_all(fd: int, data: bytes) -> None:
    written = os.write(fd, data)
    if written < len(data):
        rest = memoryview(data)[written:]
        while rest:
            rest = rest[os.write(fd, rest) :]


def _link(file: str | int, path: str) -> None:
    if isinstance(file, str):
        os.link(file, path)
    else:
        # Only with a directory (which an absolute path does not need) does Python call linkat(2)
        # with AT_SYMLINK_FOLLOW; link(2) would link the symlink in /proc.
        os.link(f"/proc/self/fd/{file}", path, src_dir_fd=0, follow_symlinks=True)


def _sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _translated(exc: OSError, doing: str, path: str) -> MregfsError:
    reason = exc.strerror or str(exc)
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceError(
            f"{doing} in {path!r}: {reason}",
            "free some space on that file system, or raise the quota",
        )
    if exc.errno in (errno.EACCES, errno.EPERM):
        return ForbiddenError(
            f"{doing} in {path!r}: {reason}", "check who owns the store and its permissions"
        )
    code = exc.errno or errno.EIO
    if code == errno.EROFS:
        return HostError(code, f"{doing} in {path!r}: {reason}", "remount the disk read-write")
    if code == errno.ENOENT:
        return NotFoundError(
            f"{doing} in {path!r}: {reason}", "check that the disk of the store is mounted"
        )
    return HostError(code, f"{doing} in {path!r}: {reason}", "see the kernel's log: dmesg")
