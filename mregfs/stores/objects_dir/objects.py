"""An object store in a directory of the host: what a local store is made of.

Decided here: how an object is created once, whole and durably (`stores.md`). Not decided here:
what is stored under which key. Its port is `ports.ObjectStore`.

It needs hard links, as ext4, xfs, btrfs, tmpfs and NFS have them; nothing else of the file system.
"""

import contextlib
import logging
import os
import re
import secrets
import stat
from collections.abc import Iterator

from mregfs.errors import (
    ExistsError,
    ForbiddenError,
    MregfsError,
    NotFoundError,
    UnsupportedError,
)
from mregfs.host import oserrors
from mregfs.host.beneath import Beneath
from mregfs.host.listing import entries_in
from mregfs.host.temporary import TemporaryFiles
from mregfs.ports.objects import check_key
from mregfs.stores.objects_dir.reserve import Reserve
from mregfs.stores.objects_dir.spares import Spares
from mregfs.stores.ownership import DIRECTORY, READ_ONLY

__all__ = ["ObjectsDirectory"]

log = logging.getLogger(__name__)

YOUNG_SECONDS = 3600
"""A directory with names older than this is durable: no journal takes an hour."""

_TEMPORARY = "tmp"

_EXCLUSIVE = "tmp/exclusive"
"""Says of which directory it is known that one of two creates wins."""

_KEPT = frozenset({"exclusive", "reserve"})
"""Names in `tmp/` that are no temporary files."""

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


class ObjectsDirectory:
    """Objects as read-only files below a directory that is held by descriptor.

    Every instance of every process on the directory may create at the same time; the directory may
    be on NFS.

    Args:
        top: the directory; whoever opened it closes it.
    """

    def __init__(self, top: Beneath) -> None:
        self._top = top
        self._swept = False
        self.temporary = TemporaryFiles(top, _TEMPORARY, _KEPT)
        """What a creation that was interrupted leaves."""
        self._known: set[str] = set()
        """Directories whose names are known to be durable."""
        self._spares: Spares | None = None
        self._is_exclusive = False
        self.reserve = Reserve(top)
        """Room that is kept for deleting."""

    @property
    def path(self) -> str:
        """Where the directory is, for messages."""
        return self._top.path

    def get(self, key: str) -> bytes:
        """Return the whole object.

        Raises:
            NotFoundError: no such key.
            ForbiddenError: what is there is no file of the store's owner.
        """
        check_key(key)
        while True:
            try:
                fd = self._top.open(key)
                try:
                    return _read_all(fd)
                finally:
                    os.close(fd)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as exc:
                if not self._found_again(exc, f"cannot read object {key!r}"):
                    raise NotFoundError(f"there is no object {key!r} in {self.path}") from exc
            except OSError as exc:
                raise self._failed(exc, f"cannot read object {key!r}") from exc

    def exists(self, key: str) -> bool:
        """Tell whether `key` exists: one stat."""
        check_key(key)
        doing = f"cannot look for object {key!r}"
        while True:
            try:
                return stat.S_ISREG(self._top.stat(key).st_mode)
            except (FileNotFoundError, NotADirectoryError) as exc:
                if not self._found_again(exc, doing):
                    return False
            except OSError as exc:
                raise self._failed(exc, doing) from exc

    def create(self, key: str, data: bytes) -> None:
        """Store `data` under `key`, durably, only if the key does not exist: exactly one wins.

        Raises:
            ExistsError: the key exists; its bytes are untouched.
            NoSpaceError: nothing was stored.
            ForbiddenError: the directory is not ours to write.
            HostError: the file system failed; the object may or may not exist, whole.
            UnsupportedError: it was the first one, and the file system lets two writers win.
        """
        if not self._is_exclusive:
            self._require_exclusive()
        self._create(key, data, durable=True)

    def list(self, prefix: str, start_after: str = "") -> Iterator[str]:
        """Yield the keys that begin with `prefix` and sort after `start_after`, sorted.

        Lazy by directory: one is read when its first key is taken.
        """
        folder, _, _ = prefix.rpartition("/")
        return self._walk(f"{folder}/" if folder else "", prefix, start_after)

    def delete(self, key: str) -> None:
        """Remove `key`; a missing key is not an error. Not durable: garbage may come back."""
        check_key(key)
        try:
            self._top.unlink(key)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as exc:
            raise self._failed(exc, f"cannot delete object {key!r}") from exc

    def replace(self, key: str, data: bytes) -> None:
        """Put an object in the place of a damaged or missing one, durably; that one is kept."""
        check_key(key)
        temporary = f"{_TEMPORARY}/{secrets.token_hex(16)}"
        try:
            self._keep(key)
            fd = self._open_temporary(temporary)
            try:
                os.fchmod(fd, READ_ONLY)
                _write_all(fd, data)
                os.fsync(fd)
            finally:
                os.close(fd)
            folder = key.rpartition("/")[0]
            self._top.ensure_directory(folder, DIRECTORY)
            self._top.rename(temporary, key)
            self._top.sync_directory(folder)
        except OSError as exc:
            raise self._failed(exc, f"cannot write object {key!r} again") from exc

    def set_aside(self, key: str) -> None:
        """Take a damaged object away, durably; it is kept in `damaged/`."""
        check_key(key)
        try:
            self._keep(key)
            self._top.unlink(key)
            self._top.sync_directory(key.rpartition("/")[0])
        except OSError as exc:
            raise self._failed(exc, f"cannot take object {key!r} away") from exc

    def _keep(self, key: str) -> None:
        """Let a damaged object have one more name, where nobody looks for objects."""
        if self._top.exists(key):
            self._top.ensure_directory("damaged", DIRECTORY)
            name = f"damaged/{key.replace('/', '_')}.{secrets.token_hex(4)}"
            self._top.link(key, name)

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

    def _require_exclusive(self) -> None:
        """Probe before the first create, unless a process has done it in this very directory."""
        status = os.fstat(self._top.fd)
        said = f"{status.st_dev} {status.st_ino}\n".encode()
        try:
            fd = self._top.open(_EXCLUSIVE)
            try:
                known = os.read(fd, 100) == said
            finally:
                os.close(fd)
        except OSError:
            known = False
        if not known:
            self.probe_exclusive()
            with contextlib.suppress(OSError):  # then it is probed again
                fd = self._top.open(_EXCLUSIVE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, READ_ONLY)
                try:
                    _write_all(fd, said)
                finally:
                    os.close(fd)
        self._is_exclusive = True

    def keep_spares(self, size: int) -> None:
        """From the first object of just this size on, have files ready for more; until `close`."""
        self._spares = Spares(size, self._make_nameless)

    def close(self) -> None:
        """Give up the spare files; calling it again does nothing."""
        if self._spares is not None:
            self._spares.close()

    # ---- creating

    def _create(self, key: str, data: bytes, *, durable: bool) -> None:
        check_key(key)
        doing = f"cannot create object {key!r}"
        spare = None
        if durable and self._spares is not None and self._spares.size == len(data):
            spare = self._spares.take()
        try:
            if spare is None:
                self._write_new(key, data, durable=durable)
            else:
                self._write_spare(spare, key, data)
        except FileExistsError as exc:
            raise self._taken(key, doing) from exc
        except FileNotFoundError as exc:
            if not self._found_again(exc, doing):
                raise self._failed(exc, doing) from exc
            self._known.clear()
            if self._spares is not None:  # they are of the directory that was removed
                self._spares.close()
                self.keep_spares(self._spares.size)
            self._create(key, data, durable=durable)
        except OSError as exc:
            raise self._failed(exc, doing) from exc

    def _taken(self, key: str, doing: str) -> MregfsError:
        """Return the error for a name that is taken: by an object, or by what is none."""
        try:
            if not stat.S_ISREG(self._top.stat(key).st_mode):
                return ForbiddenError(
                    f"{doing}: {self.path}/{key} is no file", "remove what is there"
                )
        except FileNotFoundError:
            pass  # it was there a moment ago
        except OSError as exc:
            return self._failed(exc, doing)
        return ExistsError(f"object {key!r} exists in {self.path}")

    def _write_new(self, key: str, data: bytes, *, durable: bool) -> None:
        temporary = f"{_TEMPORARY}/{secrets.token_hex(16)}"
        fd = self._open_temporary(temporary)
        try:
            os.fchmod(fd, READ_ONLY)
            _write_all(fd, data)
            if durable:
                os.fsync(fd)
            self._link(fd, temporary, key, durable=durable)
        finally:
            self._sweep(fd)
            os.close(fd)
            with contextlib.suppress(OSError):  # the sweep gets what stays
                self._top.unlink(temporary)

    def _write_spare(self, fd: int, key: str, data: bytes) -> None:
        try:
            _write_all(fd, data)
            os.fdatasync(fd)  # the file has its size already, so this is the data only
            self._link(fd, "", key, durable=True)
        finally:
            self._sweep(fd)
            os.close(fd)

    def _make_nameless(self) -> int:
        fd = self._top.open_nameless(READ_ONLY)
        try:
            os.fchmod(fd, READ_ONLY)
            os.stat(f"/proc/self/fd/{fd}")  # by which it gets a name
        except OSError:
            os.close(fd)
            raise
        return fd

    def _open_temporary(self, temporary: str) -> int:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
        try:
            return self._top.open(temporary, flags, READ_ONLY)
        except FileNotFoundError:
            # Below the store's own directory, which is never made here: an unmounted disk must not
            # look like an empty store.
            with contextlib.suppress(FileExistsError):
                self._top.make_directory(_TEMPORARY, DIRECTORY, durable=False)
            return self._top.open(temporary, flags, READ_ONLY)

    def _link(self, fd: int, temporary: str, key: str, *, durable: bool) -> None:
        """Give an open file the name `key`; its directory is made when there is none.

        Args:
            fd: the file.
            temporary: the name that it has; empty: none.
            key: the name that it gets.
            durable: make the name durable, and the way to it.
        """
        folder = key.rpartition("/")[0]
        try:
            directory = self._top.open_directory(folder) if folder else self._top.fd
        except FileNotFoundError:
            self._make_parents(folder, durable=durable)
            directory = self._top.open_directory(folder)
        try:
            try:
                name = key[len(folder) + 1 :] if folder else key
                self._link_into(directory, fd, temporary, name)
            except OSError:
                # On NFS the answer to a link that was made can be lost and the call repeated:
                # EEXIST then is our own success, which the count of links tells. A loser has one
                # less.
                if os.fstat(fd).st_nlink != (2 if temporary else 1):
                    raise
            if durable:
                os.fsync(directory)
                if folder and folder not in self._known:
                    self._sync_way(folder, os.fstat(fd).st_mtime)
        finally:
            if directory != self._top.fd:
                os.close(directory)

    def _link_into(self, directory: int, fd: int, temporary: str, name: str) -> None:
        if temporary:
            with self._top.parent(temporary) as (source, last):
                os.link(last, name, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)
        else:
            os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=directory, follow_symlinks=True)

    def _make_parents(self, folder: str, *, durable: bool) -> None:
        if durable:
            self._top.ensure_directory(folder, DIRECTORY)
        parts = folder.split("/")
        for each in ("/".join(parts[: count + 1]) for count in range(len(parts))):
            if durable:
                self._known.add(each)
            else:
                with contextlib.suppress(FileExistsError):
                    self._top.make_directory(each, DIRECTORY, durable=False)

    def _sync_way(self, folder: str, now: float) -> None:
        """Make the names of the directories above an object durable, once for each.

        Whoever made one may not have come so far yet; our object is only as durable as the way to
        it. `now` is the file system's own time.
        """
        parent, _, _ = folder.rpartition("/")
        changed = (self._top.stat(parent) if parent else os.fstat(self._top.fd)).st_mtime
        if now - changed < YOUNG_SECONDS:
            self._top.sync_directory(parent)
        if parent and parent not in self._known:
            self._sync_way(parent, now)
        self._known.add(folder)

    def _sweep(self, fd: int) -> None:
        """Remove what crashes left in `tmp/`, once per instance, by the file system's own clock."""
        if not self._swept:
            self._swept = True
            self.temporary.sweep(os.fstat(fd).st_mtime)

    # ---- listing

    def _walk(self, folder: str, prefix: str, start_after: str) -> Iterator[str]:
        found: list[str] = []
        try:
            for name, is_directory in self._names(folder.rstrip("/")):
                key = folder + name
                if _NAME.fullmatch(name) is None or key == _TEMPORARY:
                    continue
                if is_directory:
                    # With the slash, so that sorting names sorts the keys below them.
                    key += "/"
                    wanted = key.startswith(prefix) or prefix.startswith(key)
                    if wanted and (key > start_after or start_after.startswith(key)):
                        found.append(key)
                elif key.startswith(prefix) and key > start_after:
                    found.append(key)
        except OSError as exc:
            raise self._failed(exc, f"cannot list the objects in {folder!r}") from exc
        found.sort()
        for key in found:
            if key.endswith("/"):
                yield from self._walk(key, prefix, start_after)
            else:
                yield key

    def _names(self, folder: str) -> Iterator[tuple[str, bool]]:
        """Yield the names in a directory, and whether they are directories; none if it is none."""
        while True:
            try:
                fd = self._top.open_directory(folder or ".")
            except (FileNotFoundError, NotADirectoryError):
                if not self._top.found_again():
                    return
            else:
                break
        try:
            with entries_in(fd) as entries:
                for entry in entries:
                    yield entry.name, entry.is_dir(follow_symlinks=False)
        finally:
            os.close(fd)

    # ---- failures

    def _found_again(self, exc: OSError, doing: str) -> bool:
        """As `Beneath.found_again`, in our errors."""
        try:
            return self._top.found_again()
        except OSError as gone:
            raise self._failed(gone, doing) from exc

    def _failed(self, exc: OSError, doing: str) -> MregfsError:
        return oserrors.translated(
            exc, f"{doing} in {self.path!r}", missing="check that the disk of the store is mounted"
        )


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
