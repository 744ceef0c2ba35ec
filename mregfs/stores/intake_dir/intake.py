"""The Intake port on a directory of the host.

Decided here: how a file is made unchangeable and becomes a pack without its bytes being copied, and
how all of it is undone (`../../registry/commit.md` §3). Not decided here: which files become packs
(`registry.packing`). `api` and `daemon` make one for each commit.
"""

import contextlib
import errno
import logging
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from mregfs.errors import ConflictError, HostError, InvalidError, MregfsError, NoSpaceError
from mregfs.ports import IntakeEntry
from mregfs.stores.intake_dir import lease
from mregfs.stores.intake_dir.copying import copy
from mregfs.stores.intake_dir.tree import SourceTree, remove_tree, translated, unchanged
from mregfs.stores.intake_dir.work import (
    Adoption,
    Intent,
    WorkDirectory,
    pack_path,
    put_back,
    recover,
)
from mregfs.stores.ownership import READ_ONLY, give, make_directory

__all__ = ["IntakeDirectory"]

log = logging.getLogger(__name__)

_NAMED = 20  # busy paths that a message lists
_THREADS = 4  # copies and flushes at a time; more only make a disk seek
_SPARE_DESCRIPTORS = 256


class _Sealed:
    """A large file that nobody can change unseen."""

    __slots__ = ("adopted", "copied", "fd", "flushed", "leased", "private")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.leased = False
        self.private = ""
        """Path of our own copy; empty when it is the draft's file itself."""
        self.copied = False
        self.flushed: Future[None] | None = None
        self.adopted = ""


class IntakeDirectory:
    """A directory that is about to become a version.

    Args:
        path: the directory.
        packs_path: the `packs` directory of a store on this host.
        consume: it is a draft, whose files may become packs and which is gone at the end; else
            nothing of it is touched.
    """

    def __init__(
        self, path: str | os.PathLike[str], packs_path: str | os.PathLike[str], *, consume: bool
    ) -> None:
        self.path = os.path.abspath(path)
        self._packs_path = os.path.abspath(packs_path)
        self._consume = consume
        self._tree = SourceTree(self.path)
        self._work_parent = os.path.join(os.path.dirname(self._packs_path), "intake")
        self._work = WorkDirectory(self._work_parent)
        self._sealed: dict[str, _Sealed] = {}
        self._adoptions: dict[str, Adoption] = {}
        self._flusher: ThreadPoolExecutor | None = None
        self._linkable: bool | None = None

    def scan(self) -> list[IntakeEntry]:
        """List everything below the directory, in no particular order.

        Raises:
            InvalidError: something cannot be in a version; all of it is named.
            NotFoundError: there is no such directory.
        """
        return self._tree.scan()

    def recover(self, committed: Callable[[str, int], bool]) -> None:
        """Finish or undo what crashed commits on this store left, on whatever directory."""
        recover(self._work_parent, self._packs_path, committed)

    # ---- sealing

    def seal(self, paths: Sequence[str]) -> None:
        """Take read leases on these files, or private copies where that cannot be.

        Files not named are only asked whether they are busy.

        Raises:
            ConflictError: files are open for writing or mapped writable somewhere, or changed since
                `scan`; all are named.
            InvalidError: they are more than this process may have open.
            NoSpaceError: a private copy does not fit.
        """
        _allow_descriptors(len(paths) + _SPARE_DESCRIPTORS)
        large = set(paths)
        busy: list[str] = []
        touched: list[str] = []
        to_copy: list[str] = []
        for path, found in self._tree.found.items():
            fd = self._tree.open(path)
            if path in large:
                sealed = self._sealed[path] = _Sealed(fd)
                if not self._seal_in_place(sealed, path, busy):
                    to_copy.append(path)
                elif not unchanged(found, os.fstat(fd)):
                    touched.append(path)
            else:
                try:
                    with contextlib.suppress(lease.Unleasable):
                        lease.take(fd)
                except lease.Busy:
                    busy.append(path)
                finally:
                    os.close(fd)
        if busy:
            raise _busy(busy)
        if touched:
            raise _changed(touched)
        self._flusher = ThreadPoolExecutor(_THREADS, "intake")
        if to_copy:
            self._make_work()
        for _ in self._flusher.map(self._make_private, to_copy):
            pass
        for sealed in self._sealed.values():
            # The disk writes while the processor hashes; `PackStore.sync` then has little to do.
            sealed.flushed = self._flusher.submit(os.fdatasync, sealed.fd)

    def _seal_in_place(self, sealed: _Sealed, path: str, busy: list[str]) -> bool:
        """Take a lease; False when the file itself cannot become a pack."""
        try:
            lease.take(sealed.fd)
        except lease.Busy:
            busy.append(path)
            return True
        except lease.Unleasable:
            return False
        if not self._consume or self._tree.found[path].st_nlink != 1:
            return False
        if not self._can_link(path, sealed.fd):
            return False
        sealed.leased = True
        return True

    def _can_link(self, path: str, fd: int) -> bool:
        """Tell whether packs are on the same file system and mount: tried once."""
        if self._linkable is None:
            trial = os.path.join(self._make_work(), "trial")
            try:
                _link_open(fd, trial)
                os.unlink(trial)
                self._linkable = True
            except OSError as exc:
                log.info("not adopting %s in place: %s", path, exc)
                self._linkable = False
        return self._linkable

    def _make_private(self, path: str) -> None:
        """Replace the source's descriptor by one of a copy that is ours alone."""
        sealed = self._sealed[path]
        source = sealed.fd
        private = os.path.join(self._make_work(), f"{len(path)}-{source}")
        try:
            self._write_private(source, private)
            same = unchanged(self._tree.found[path], os.fstat(source))
            reader = os.open(private, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as exc:
            raise _translated(exc, "cannot copy", f"{self.path}/{path}") from exc
        sealed.fd, sealed.private, sealed.copied = reader, private, True
        os.close(source)
        if not same:
            raise _changed([path])

    def _write_private(self, source: int, private: str) -> None:
        target = os.open(private, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            copy(source, target)
            give(target, os.path.dirname(self._packs_path), READ_ONLY)
        finally:
            os.close(target)

    def _make_work(self) -> str:
        try:
            return self._work.make()
        except OSError as exc:
            raise _translated(exc, "cannot make a directory in", self._work_parent) from exc

    def read_at(self, path: str, offset: int, length: int) -> bytes:
        """Return bytes of a sealed file; fewer only where it ends. Safe from several threads.

        Raises:
            HostError: the disk failed.
        """
        fd = self._sealed[path].fd
        data = b""
        try:
            while piece := os.pread(fd, length - len(data), offset + len(data)):
                data = data + piece if data else piece
        except OSError as exc:
            raise _translated(exc, "cannot read", f"{self.path}/{path}") from exc
        return data

    def read_into(self, path: str, offset: int, buffer: memoryview) -> None:
        """Fill a buffer with bytes of a sealed file. Safe to call from several threads.

        Raises:
            ConflictError: the file is shorter than it was at `scan`.
            HostError: the disk failed.
        """
        fd = self._sealed[path].fd
        while buffer:
            try:
                count = os.preadv(fd, [buffer], offset)
            except OSError as exc:
                raise _translated(exc, "cannot read", f"{self.path}/{path}") from exc
            if not count:
                raise _changed([path])
            buffer = buffer[count:]
            offset += count

    def data_run(self, path: str, offset: int) -> tuple[int, int]:
        """Return where the next bytes that are no hole begin and end, from `offset` on.

        What the file system does not tell counts as bytes. Safe to call from several threads.
        """
        fd, size = self._sealed[path].fd, self._tree.found[path].st_size
        try:
            start = os.lseek(fd, offset, os.SEEK_DATA)
            return start, os.lseek(fd, start, os.SEEK_HOLE)
        except OSError as exc:
            return (size, size) if exc.errno == errno.ENXIO else (offset, size)

    def read(self, path: str) -> bytes:
        """Return the whole of a small file.

        Raises:
            ConflictError: it is open for writing somewhere, or changed since `scan`.
        """
        before = self._tree.found[path]
        fd = self._tree.open(path)
        try:
            leased = False
            with contextlib.suppress(lease.Unleasable):
                lease.take(fd)
                leased = True
            data = _read_all(fd, before.st_size)
            whole = len(data) == before.st_size and unchanged(before, os.fstat(fd))
            if not whole or (leased and not lease.held(fd)):
                raise _changed([path])
        except lease.Busy:
            raise _busy([path]) from None
        except OSError as exc:
            raise _translated(exc, "cannot read", f"{self.path}/{path}") from exc
        finally:
            os.close(fd)
        return data

    # ---- adopting

    def announce(self, layout: str, since: int, adoptions: Mapping[str, str]) -> None:
        """Write down what is about to be adopted, then take away write bits and foreign owners.

        Raises:
            HostError: the host refused.
        """
        for path, pack in adoptions.items():
            sealed = self._sealed[path]
            if not sealed.private:
                found = os.fstat(sealed.fd)
                mode = stat.S_IMODE(found.st_mode)
                self._adoptions[path] = Adoption(
                    path, pack, found.st_ino, mode, found.st_uid, found.st_gid
                )
        if not self._adoptions:
            return
        entries = {path: (found.st_ino, found.st_mtime_ns) for path, found in self._found()}
        intent = Intent(self.path, layout, since, tuple(self._adoptions.values()), entries)
        try:
            self._work.write_intent(intent)
            for path in self._adoptions:
                _protect(self._sealed[path].fd)
        except OSError as exc:
            raise _translated(exc, "cannot prepare", self.path) from exc

    def _found(self) -> Iterable[tuple[str, os.stat_result]]:
        return self._tree.found.items() if self._consume else ()

    def adopt(self, path: str, pack: str) -> bool:
        """Give a sealed file (or the private copy of one) a second name, as a pack.

        Raises:
            HostError: the host refused.
        """
        sealed = self._sealed[path]
        target = pack_path(self._packs_path, pack)
        sealed.adopted = target
        try:
            try:
                _link_open(sealed.fd, target)
            except FileNotFoundError:
                for folder in (self._packs_path, os.path.dirname(target)):
                    with contextlib.suppress(FileExistsError):
                        make_directory(folder, os.path.dirname(self._packs_path))
                _link_open(sealed.fd, target)
        except OSError as exc:
            raise _translated(exc, "cannot make a pack of", f"{self.path}/{path}") from exc
        return not sealed.copied

    def verify(self) -> None:
        """Check that no sealed file was touched since `seal`, and that adopted ones are on disk.

        Raises:
            ConflictError: a file was opened for writing meanwhile; all are named.
            HostError: the disk failed.
        """
        touched = []
        for path, sealed in self._sealed.items():
            if sealed.leased:
                links = 2 if sealed.adopted else 1
                if not lease.held(sealed.fd) or os.fstat(sealed.fd).st_nlink != links:
                    touched.append(path)
            try:
                if sealed.adopted and sealed.flushed is not None:
                    sealed.flushed.result()
            except OSError as exc:
                raise _translated(exc, "cannot make durable", f"{self.path}/{path}") from exc
        if touched:
            raise _changed(touched)

    # ---- the end

    def release(self) -> None:
        """The version is in the log: a draft's directory disappears.

        What cannot be removed is logged, not raised: the commit has succeeded.
        """
        if self._consume:
            try:
                remove_tree(self.path)
            except OSError as exc:
                log.warning("the draft %s is a version now, but remains: %s", self.path, exc)
        for path, sealed in self._sealed.items():
            if sealed.adopted and not sealed.private:
                try:
                    self._make_sole(path, sealed)
                except (OSError, MregfsError) as exc:
                    log.error("others can still change %r, a version's: %s", path, exc)
        self._close()
        self._work.remove()

    def _make_sole(self, path: str, sealed: _Sealed) -> None:
        """Make sure that nobody gets to an adopted file but by its name as a pack.

        By the draft's name somebody may have opened it since `verify`, and waits for the lease to
        end; or another mount has renamed or linked it, or given its write bits back.
        """
        _protect(sealed.fd)
        found = os.fstat(sealed.fd)
        if lease.held(sealed.fd) and found.st_nlink == 1:
            return
        try:
            if not os.path.samestat(os.lstat(sealed.adopted), found):
                return
        except FileNotFoundError:
            return  # the version existed already
        log.warning(
            "%r was opened for writing or linked elsewhere while %s became a version: copying it",
            path,
            self.path,
        )
        private = os.path.join(self._make_work(), f"sole-{sealed.fd}")
        self._write_private(sealed.fd, private)
        if not unchanged(self._tree.found[path], os.fstat(sealed.fd)):
            # The kernel lets who waits in after 45 s (/proc/sys/fs/lease-break-time).
            log.error("%r was changed before it was copied: run mregfs fsck --data", path)
        _sync(private)
        os.rename(private, sealed.adopted)
        _sync(os.path.dirname(sealed.adopted))
        put_back(sealed.fd, self._adoptions[path])  # now it is whose name it has

    def restore(self) -> None:
        """The commit failed: packs lose their names here, drafts get their modes back."""
        try:
            for path, sealed in self._sealed.items():
                if sealed.adopted:
                    _unlink_same(sealed.adopted, sealed.fd)
                adoption = self._adoptions.get(path)
                if adoption is not None:
                    put_back(sealed.fd, adoption)
        except OSError as exc:
            log.error("cannot put back all of %s: %s", self.path, exc)
            self._work.leave()
        self._close()
        self._work.remove()

    def abandon(self) -> None:
        """Whether the commit succeeded is unknown: leave all as a crash would, for `recover`."""
        self._close()
        self._work.leave()

    def _close(self) -> None:
        if self._flusher is not None:
            self._flusher.shutdown(cancel_futures=True)
            self._flusher = None
        for sealed in self._sealed.values():
            os.close(sealed.fd)
        self._sealed.clear()
        self._adoptions.clear()
        self._tree.close()


def _allow_descriptors(count: int) -> None:
    """Raise this process's limit of open files if need be.

    Raises:
        InvalidError: the hard limit is lower.
    """
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= count:
        return
    if hard != resource.RLIM_INFINITY and hard < count:
        raise InvalidError(
            f"{count - _SPARE_DESCRIPTORS} large files are more than this process may have open",
            f"raise the limit (ulimit -Hn) above {count}, or commit in parts",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def _link_open(fd: int, target: str) -> None:
    """Give an open file another name: this very file, whatever stands at its path by now."""
    # Only with a directory (which an absolute path does not need) does Python call linkat(2) with
    # AT_SYMLINK_FOLLOW; link(2) would link the symlink in /proc.
    os.link(f"/proc/self/fd/{fd}", target, src_dir_fd=0, follow_symlinks=True)


def _protect(fd: int) -> None:
    """Take write bits away, and as root a foreign owner, who could give them to himself again."""
    found = os.fstat(fd)
    if os.geteuid() == 0 and (found.st_uid, found.st_gid) != (0, 0):
        os.fchown(fd, 0, 0)
    if stat.S_IMODE(found.st_mode) != READ_ONLY:
        os.fchmod(fd, READ_ONLY)


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _unlink_same(path: str, fd: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.lstat(path), os.fstat(fd)):
            os.unlink(path)


def _read_all(fd: int, size: int) -> bytes:
    pieces = []
    while size >= 0 and (piece := os.read(fd, size + 1)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _listed(paths: Sequence[str]) -> str:
    paths = sorted(paths)
    more = len(paths) - _NAMED
    return ", ".join(map(repr, paths[:_NAMED])) + (f" and {more} more" if more > 0 else "")


def _busy(paths: Sequence[str]) -> ConflictError:
    return ConflictError(
        f"still open for writing: {_listed(paths)}", "commit again when they are closed"
    )


def _changed(paths: Sequence[str]) -> ConflictError:
    return ConflictError(
        f"changed while being committed: {_listed(paths)}", "commit again when they are finished"
    )


def _translated(exc: OSError, doing: str, path: str) -> MregfsError:
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceError(
            f"{doing} {path!r}: {exc.strerror}", "free some space on that file system"
        )
    found = translated(exc, doing, path)
    return found if isinstance(found, HostError) else HostError(errno.EIO, found.message)
