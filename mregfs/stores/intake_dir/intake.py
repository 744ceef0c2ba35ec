"""The Intake port on a directory of the host.

Decided here: how a file is made unchangeable and given to the pack store, and how all of it is
undone (`../../registry/write/commit.md` §3). Not decided here: which files become packs
(`model.plan`), where packs are (`ports.packs`), how a draft is taken (`taking`).
"""

import contextlib
import errno
import itertools
import logging
import os
import stat
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from queue import SimpleQueue

from mregfs.errors import ConflictError, HostError, InvalidError, MregfsError, NotFoundError
from mregfs.host.beneath import Beneath
from mregfs.host.callers import Credentials
from mregfs.host.copying import copy
from mregfs.host.following import open_followed
from mregfs.ports.intake import IntakeEntry
from mregfs.ports.packs import PackStore
from mregfs.stores.intake_dir import lease
from mregfs.stores.intake_dir.recovery import put_back, recover
from mregfs.stores.intake_dir.taking import DraftPlace, TakenDraft
from mregfs.stores.intake_dir.tree import (
    DIRECTORY,
    SourceFile,
    SourceTree,
    listed,
    translated,
    unchanged,
)
from mregfs.stores.intake_dir.work import Adoption, WorkDirectory
from mregfs.stores.ownership import READ_ONLY

__all__ = ["IntakeDirectory"]

log = logging.getLogger(__name__)

_THREADS = 4  # copies and flushes at a time; more only make a disk seek
_PIECE = 4 << 20  # bytes read at a time
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK_AFTER = 0.2  # seconds between two looks whether copies are still wanted
_SPARE_DESCRIPTORS = 32
"""Directories, packs and objects that a commit opens besides its large files."""


class _Sealed:
    """A large file that nobody can change unseen."""

    __slots__ = ("copied", "fd", "flushed", "is_pack", "leased", "pack")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.leased = False
        self.copied = False
        """It is our own copy, not the source's file itself."""
        self.flushed: Future[None] | None = None
        self.pack = ""
        """The pack that has its bytes; empty: none yet."""
        self.is_pack = False
        """That pack is this very file."""


class IntakeDirectory:
    """A directory that is about to become a version.

    Args:
        store: the directory of the store, held by whoever opened it.
        packs: which adopt its large files.
        source: a draft of the store, whose files may become packs and which is gone at the end; or
            the path of a directory or file elsewhere, of which nothing is touched.
        who: who asks for the commit; None: this process itself.
    """

    def __init__(
        self,
        store: Beneath,
        packs: PackStore,
        source: DraftPlace | str | os.PathLike[str],
        who: Credentials | None = None,
    ) -> None:
        self._store = store
        self._packs = packs
        self._work = WorkDirectory(store)
        self._draft: TakenDraft | None = None
        figures = os.fstatvfs(store.fd)
        room = figures.f_blocks * figures.f_frsize or 1 << 63
        if isinstance(source, DraftPlace):
            self._draft = TakenDraft(store, source, who, self._work)
            self.path = self._draft.path
            self._tree = SourceTree(self.path, self._draft.open_top, room, self._draft)
        else:
            self.path = os.path.abspath(source)
            self._tree = (
                SourceTree(self.path, self._open_source, room)
                if os.path.isdir(self.path)
                else SourceFile(self.path, room)
            )
        self._sealed: dict[str, _Sealed] = {}
        self._adoptions: dict[str, Adoption] = {}
        self._flusher: ThreadPoolExecutor | None = None
        self._copies = itertools.count()
        self._given_up = threading.Event()
        self._closing = threading.Lock()

    def _open_source(self) -> int:
        return open_followed(self.path, DIRECTORY)

    def take(self, layout: str, since: int) -> None:
        """Take a draft where no user has a path to it; another directory is left where it is.

        Raises:
            NotFoundError: there is no such draft.
            HostError: EACCES, whoever asks could not do so himself; what he may not is named.
            ConflictError: it is another one by now, or is being committed.
        """
        if self._draft is not None:
            self._draft.take(layout, since)

    @property
    def is_private(self) -> bool:
        """Whether others than the owner and the group of a taken draft had no way into it."""
        return self._draft is not None and self._draft.is_private

    def scan(self) -> list[IntakeEntry]:
        """List everything below the directory, in no particular order.

        Raises:
            InvalidError: something cannot be in a version; all of it is named.
            HostError: EACCES, files that whoever asks may not read; all are named.
            NotFoundError: there is no such directory.
        """
        return self._tree.scan()

    def recover(self, committed: Callable[[str, int], bool]) -> None:
        """Finish or undo what crashed commits on this store left, on whatever draft."""
        recover(self._store, self._packs, committed)

    # ---- sealing

    def seal(
        self, paths: Sequence[str], report: Callable[[int], None] = lambda count: None
    ) -> None:
        """Take read leases on these files, or private copies where that cannot be.

        Files not named are only asked whether they are busy. `report` is called with bytes that
        were copied since it was last called; what it raises ends the copying.

        Raises:
            ConflictError: files are open for writing or mapped writable somewhere, or changed since
                `scan`; all are named.
            InvalidError: they are more than this process may have open.
            NoSpaceError: a private copy does not fit.
        """
        _allow_descriptors(len(paths))
        large = set(paths)
        busy: list[str] = []
        touched: list[str] = []
        to_copy: list[str] = []
        for path, found in self._tree.found.items():
            report(0)
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
        self._copy_all(to_copy, report)
        for sealed in self._sealed.values():
            # The disk writes while the processor hashes; `PackStore.sync` then has little to do.
            sealed.flushed = self._flusher.submit(self._flush, sealed)

    def _flush(self, sealed: _Sealed) -> None:
        """Have a file on the disk, by a descriptor that is not closed meanwhile."""
        with self._closing:
            if self._given_up.is_set():
                return
            fd = os.dup(sealed.fd)
        try:
            os.fdatasync(fd)
        finally:
            os.close(fd)

    def _seal_in_place(self, sealed: _Sealed, path: str, busy: list[str]) -> bool:
        """Take a lease; False when the file itself cannot become a pack."""
        try:
            lease.take(sealed.fd)
        except lease.Busy:
            busy.append(path)
            return True
        except lease.Unleasable:
            return False
        if self._draft is None or self._tree.found[path].st_nlink != 1:
            return False
        sealed.leased = True
        return True

    def _copy_all(self, paths: Sequence[str], report: Callable[[int], None]) -> None:
        """Make private copies; what `report` raises, in this thread, ends them."""
        assert self._flusher is not None, "sealing"
        if not paths:
            return
        self._make_work()
        copied: SimpleQueue[int] = SimpleQueue()
        copies = {self._flusher.submit(self._make_private, path, copied.put) for path in paths}
        pending = copies
        try:
            while pending:
                done, pending = wait(pending, _LOOK_AFTER, return_when="FIRST_COMPLETED")
                while not copied.empty():
                    report(copied.get())
                for copy_of_one in done:
                    copy_of_one.result()
        except BaseException:
            self._given_up.set()
            wait(copies)  # each ends at its next piece; their descriptors are closed then
            raise

    def _make_private(self, path: str, report: Callable[[int], None]) -> None:
        """Replace the source's descriptor by one of a copy that is ours alone."""

        def go_on(count: int) -> None:
            if self._given_up.is_set():
                raise _changed([path])  # which nobody waits for
            report(count)

        sealed = self._sealed[path]
        source = sealed.fd
        try:
            reader = self._copy(source, go_on)
            same = unchanged(self._tree.found[path], os.fstat(source))
        except OSError as exc:
            raise _translated(exc, "cannot copy", f"{self.path}/{path}") from exc
        sealed.fd, sealed.copied = reader, True
        os.close(source)
        if not same:
            raise _changed([path])

    def _copy(self, source: int, report: Callable[[int], None] = lambda count: None) -> int:
        """Copy an open file into the work directory; return a descriptor that only reads."""
        name = f"copy-{next(self._copies)}"
        target = self._work.create(name)
        try:
            copy(source, target, report)
            os.fchmod(target, READ_ONLY)
        finally:
            os.close(target)
        return os.open(name, _READ, dir_fd=self._make_work())

    def _make_work(self) -> int:
        try:
            return self._work.make()
        except OSError as exc:
            raise _translated(exc, "cannot make a directory in", self._store.path) from exc

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

    def announce(self, adoptions: Mapping[str, str]) -> None:
        """Write down what is about to be adopted, then take away write bits and foreign owners.

        Raises:
            HostError: the host refused.
        """
        for path, pack in adoptions.items():
            sealed = self._sealed[path]
            if not sealed.copied:
                found = os.fstat(sealed.fd)
                mode = stat.S_IMODE(found.st_mode)
                self._adoptions[path] = Adoption(
                    path, pack, found.st_ino, mode, found.st_uid, found.st_gid
                )
        if not self._adoptions or self._draft is None:
            return
        try:
            self._draft.announce(self._adoptions.values())
            for path in self._adoptions:
                _protect(self._sealed[path].fd)
        except OSError as exc:
            raise _translated(exc, "cannot prepare", self.path) from exc

    def adopt(self, path: str, pack: str) -> bool:
        """Let the pack store adopt a sealed file, or the private copy of one.

        Raises:
            MregfsError: the store refused, or the id is taken.
        """
        sealed = self._sealed[path]
        sealed.is_pack = self._packs.adopt(pack, sealed.fd)
        sealed.pack = pack
        return sealed.is_pack and not sealed.copied

    def verify(self) -> None:
        """Check that no sealed file was touched since `seal`, and that adopted ones are on disk.

        Raises:
            ConflictError: a file was opened for writing meanwhile; all are named.
            HostError: the disk failed.
        """
        touched = []
        for path, sealed in self._sealed.items():
            if sealed.leased:
                links = 2 if sealed.is_pack else 1
                if not lease.held(sealed.fd) or os.fstat(sealed.fd).st_nlink != links:
                    touched.append(path)
            try:
                if sealed.is_pack and sealed.flushed is not None:
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
        if self._draft is not None:
            try:
                self._draft.consume(self._tree.knows)
            except OSError as exc:
                log.warning("the draft %s is a version now, but remains: %s", self.path, exc)
        for path, sealed in self._sealed.items():
            if sealed.is_pack and not sealed.copied:
                try:
                    self._make_sole(path, sealed)
                except (OSError, MregfsError) as exc:
                    log.error("others can still change %r, a version's: %s", path, exc)
        self._close()
        self._work.remove()

    def _make_sole(self, path: str, sealed: _Sealed) -> None:
        """Make sure that nobody gets to an adopted file but by its name as a pack.

        By a descriptor that he kept, or another name, somebody may have opened it since `verify`,
        and waits for the lease to end; or have linked it, or given its write bits back.
        """
        _protect(sealed.fd)
        found = os.fstat(sealed.fd)
        if lease.held(sealed.fd) and found.st_nlink == 1:
            return
        try:
            self._packs.size(sealed.pack)
        except NotFoundError:
            return  # the version existed already
        log.warning(
            "%r was opened for writing or linked elsewhere while %s became a version: copying it",
            path,
            self.path,
        )
        self._packs.replace(sealed.pack, _pieces(sealed.fd, found.st_size))
        if not unchanged(self._tree.found[path], os.fstat(sealed.fd)):
            # The kernel lets who waits in after 45 s (/proc/sys/fs/lease-break-time).
            log.error("%r was changed before it was copied: run mregfs fsck --data", path)
        put_back(sealed.fd, self._adoptions[path])  # now it is whose name it has

    def restore(self) -> None:
        """The commit failed: packs lose their names here, drafts are where and as they were."""
        self._given_up.set()
        try:
            for path, sealed in self._sealed.items():
                if sealed.pack:
                    self._packs.delete(sealed.pack)
                adoption = self._adoptions.get(path)
                if adoption is not None:
                    put_back(sealed.fd, adoption)
            if self._draft is not None:
                self._draft.give_back()
        except (OSError, MregfsError) as exc:
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
            # Nobody waits for a disk that is slow, when it is all for nothing.
            self._flusher.shutdown(wait=not self._given_up.is_set(), cancel_futures=True)
            self._flusher = None
        with self._closing:
            for sealed in self._sealed.values():
                if sealed.leased:
                    lease.give_back(sealed.fd)
                os.close(sealed.fd)
            self._sealed.clear()
        self._adoptions.clear()
        self._tree.close()
        if self._draft is not None:
            self._draft.close()


def _allow_descriptors(count: int) -> None:
    """Raise this process's limit of open files if need be, for so many more.

    Raises:
        InvalidError: the hard limit is lower.
    """
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = len(os.listdir("/proc/self/fd")) + count + _SPARE_DESCRIPTORS
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise InvalidError(
            f"{count} large files are more than this process may have open",
            f"raise the limit (ulimit -Hn) above {needed}, or commit in parts",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _protect(fd: int) -> None:
    """Take write bits away, and as root a foreign owner, who could give them to himself again."""
    found = os.fstat(fd)
    if os.geteuid() == 0 and (found.st_uid, found.st_gid) != (0, 0):
        os.fchown(fd, 0, 0)
    if stat.S_IMODE(found.st_mode) != READ_ONLY:
        os.fchmod(fd, READ_ONLY)


def _pieces(fd: int, size: int) -> Iterator[bytes]:
    for offset in range(0, size, _PIECE):
        yield os.pread(fd, _PIECE, offset)


def _read_all(fd: int, size: int) -> bytes:
    pieces = []
    while size >= 0 and (piece := os.read(fd, size + 1)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _busy(paths: Sequence[str]) -> ConflictError:
    return ConflictError(
        f"still open for writing: {listed(paths)}", "commit again when they are closed"
    )


def _changed(paths: Sequence[str]) -> ConflictError:
    return ConflictError(
        f"changed while being committed: {listed(paths)}", "commit again when they are finished"
    )


def _translated(exc: OSError, doing: str, path: str) -> MregfsError:
    """Return our error; what was there a moment ago and is missing now is the disk's."""
    found = translated(exc, doing, path)
    return HostError(errno.EIO, found.message) if isinstance(found, NotFoundError) else found
