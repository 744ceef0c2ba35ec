"""One LMDB environment per directory and process: counting its users, growing, replacing it.

Decided here: when the environment may be touched, and when it must be opened anew. Not decided
here: how it is opened (`open_environment`), which files are trusted (`files`), what a view or a
write is (`index`).

LMDB forbids a second open of the same files in a process, and moving its map while a transaction of
the process is open. So all `IndexLmdb` on one directory share an `Environment`, which counts the
transactions (`enter`, `leave`), and whoever must have it alone waits until none is left. A thread
that has a view open cannot wait for itself: then the request is noted, the caller gets an
UnavailableError, and the next one who comes without a view fulfils it.
"""

import contextlib
import errno
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import lmdb

from mregfs.errors import ForbiddenError, MregfsError, NoSpaceError, NotFoundError, UnavailableError
from mregfs.host.beneath import Beneath
from mregfs.stores.index_lmdb.files import IndexFiles
from mregfs.stores.index_lmdb.open_environment import (
    META,
    Handle,
    Identity,
    host_error,
    is_damage,
    open_handle,
    os_error,
    readers_full,
)

__all__ = ["Environment"]

log = logging.getLogger(__name__)

CHECK_SECONDS = 1.0
"""For so long a reader believes that the files are still those that we opened."""

MAX_MAP_SIZE = 1 << 40

OPEN_ATTEMPTS = 5

_BROKEN = (lmdb.PanicError, lmdb.BadRslotError)
"""After these LMDB wants the environment to be opened anew."""


class _Depth:
    """How many transactions one thread has open."""

    __slots__ = ("__weakref__", "value")

    def __init__(self) -> None:
        self.value = 0


class _Mine(threading.local):
    """The depth of each thread; it joins the others' and leaves them with its thread."""

    def __init__(self, join: Callable[[_Depth], None]) -> None:
        self.depth = _Depth()
        join(self.depth)


class Environment:
    """The environment of one directory, for all threads of this process; opened by `attend`."""

    def __init__(
        self,
        files: IndexFiles,
        tables: tuple[str, ...],
        schema: bytes,
        map_size: int,
        *,
        read_only: bool,
        anchored: Callable[[int], bool],
    ) -> None:
        self.tables = tables
        self.schema = schema
        self.read_only = read_only
        self.references = 0
        self._what = f"the index in {files.path!r}"
        self._files = files
        self._anchored = anchored
        self._adrift = False
        self._map_size = map_size
        self._handle: Handle | None = None
        self._closed = False
        self._everyone: weakref.WeakSet[_Depth] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._marking = threading.Lock()
        self._alone = False
        self._mine = _Mine(self._join)
        self._check_at = 0.0
        # Left to the next thread without a view; the first says that there is something.
        self._attention = True
        self._damage = ""
        self._grow_to = 0
        self._adopt_size = False

    # ---- transactions

    def enter(self) -> Handle:
        """Count one more transaction of this thread, and return what to begin it on.

        No lock: a thread counts, then looks whether somebody wants to be alone; that one says so,
        then looks at the counts. At least one of the two sees the other.
        """
        mine = self._mine.depth
        while True:
            if not mine.value and (self._attention or monotonic() >= self._check_at):
                self.attend()
            mine.value += 1
            if self._alone and mine.value == 1:
                self._wait_for_turn(mine)
            handle = self._handle
            if handle is not None:
                return handle
            self.leave()
            if self._closed or mine.value:
                raise UnavailableError(f"{self._what} is closed")

    def leave(self) -> None:
        """Count one transaction of this thread less."""
        self._mine.depth.value -= 1
        if self._alone:
            with self._lock:
                self._changed.notify_all()

    def transact(self, change: Callable[[Any, Handle], bool]) -> bool:
        """Run `change` in a write transaction; roll back and return False when it returns False.

        It runs again when the map had to grow.
        """
        if self.read_only:
            raise ForbiddenError(f"{self._what} is open for reading only")
        while True:
            self._check_at = 0.0
            handle = self.enter()
            try:
                self._mark_dirty(handle)
                with handle.env.begin(write=True) as txn:
                    done = change(txn, handle)
                    if not done:
                        txn.abort()
                return done
            except lmdb.Error as exc:
                failure = exc
            except OSError as exc:
                raise os_error(exc, f"cannot mark {self._what}") from exc
            finally:
                self.leave()
            self.recover(failure, handle)

    def reserve(self, pages: int) -> None:
        """Give the data file blocks for so many pages more than it uses."""
        if self.read_only:
            raise ForbiddenError(f"{self._what} is open for reading only")
        handle = self.enter()
        try:
            info = handle.env.info()
            size = (info["last_pgno"] + 1 + pages) * handle.env.stat()["psize"]
            if self._files.allocated < size:
                self._mark_dirty(handle)
                with handle.env.begin(write=True):  # no other process writes meanwhile
                    self._files.allocate_data(size)
        except OSError as exc:
            raise os_error(exc, f"cannot enlarge {self._what}") from exc
        except lmdb.Error as exc:
            raise self.translated(exc) from exc
        finally:
            self.leave()

    def recover(self, failure: Exception, handle: Handle) -> None:
        """After a failed transaction, when it is over: return if trying again helps, else raise."""
        if isinstance(failure, lmdb.MapFullError):
            if handle.map_size >= MAX_MAP_SIZE and not self._files.flaw():
                raise NoSpaceError(f"{self._what} is full") from failure
            self._grow_to = handle.map_size * 2
        elif isinstance(failure, lmdb.MapResizedError):
            self._adopt_size = True
        elif isinstance(failure, lmdb.ReadersFullError) and handle.env.reader_check():
            return
        else:
            raise self.translated(failure) from failure
        self._attention = True
        if self._mine.depth.value:
            raise UnavailableError(
                f"{self._what} must grow while this thread reads it", "try again"
            ) from failure

    def translated(self, failure: Exception) -> MregfsError:
        """Return our error for LMDB's; a broken environment is opened anew before the next use."""
        code = getattr(failure, "code", 0)
        if isinstance(failure, lmdb.ReadonlyError):
            return ForbiddenError(f"{self._what} is open for reading only")
        if isinstance(failure, lmdb.ReadersFullError):
            return readers_full(self._files)
        if code == errno.EIO and self._files.is_disk_full():
            code = errno.ENOSPC  # LMDB's word for a write that was cut short
        if code > 0 and code != errno.EIO:
            return host_error(code, f"{self._what} failed")
        if is_damage(failure):
            self._damage = f"is damaged ({failure})"
        if self._damage or isinstance(failure, _BROKEN) or code == errno.EIO:
            self._attention = True
        return UnavailableError(f"{self._what} failed: {failure}", "try again")

    def attend(self) -> None:
        """Look whether the files are still ours, and do what was asked for meanwhile.

        Does nothing while this thread has a view open.
        """
        if self._mine.depth.value:
            return
        handle = self._handle
        if not self._attention and handle and (self._is_current(handle) or self._is_adrift(handle)):
            self._check_at = monotonic() + CHECK_SECONDS
            return
        with self._being_alone():
            if not self._closed:
                self._fulfil()
                self._check_at = monotonic() + CHECK_SECONDS

    def is_in(self, parent: Beneath, name: str) -> bool:
        """Tell whether this is the index of that name there."""
        return self._files.is_in(parent, name)

    def _is_current(self, handle: Handle) -> bool:
        return handle.identity is not None and handle.identity == self._files.identity()

    def _is_adrift(self, handle: Handle) -> bool:
        """Tell whether the files are gone, and the log with them that would fill new ones.

        Then what is open is all that is left, and stays readable.
        """
        adrift = self._files.is_orphaned()
        if not adrift:
            applied = self._applied(handle)
            adrift = applied is not None and not self._anchored(applied)
        if adrift and not self._adrift:
            log.error("%s is gone, and the log with it: showing what is still known", self._what)
        self._adrift = adrift
        return adrift

    def _applied(self, handle: Handle) -> int | None:
        """Return the applied sequence number; None when somebody is about to close it."""
        mine = self._mine.depth
        mine.value += 1  # as in `enter`
        try:
            if self._alone or self._handle is not handle:
                return None
            with handle.env.begin() as txn:
                applied: bytes | None = txn.get(b"applied", db=handle.tables[META])
        except lmdb.Error:
            return None
        finally:
            self.leave()
        return int.from_bytes(applied or b"", "big")

    # ---- what needs the environment alone

    def sync(self) -> None:
        """Make the index durable, and note that it is when no other process uses it."""
        self.attend()
        with self._being_alone():
            handle = self._handle
            if handle is None or self.read_only:
                return
            try:
                handle.env.sync(True)
                handle.dirty = False
                self._files.mark_clean()
            except lmdb.Error as exc:
                raise host_error(exc.code, f"cannot sync {self._what}", str(exc)) from exc
            except OSError as exc:
                raise os_error(exc, f"cannot sync {self._what}") from exc

    def close(self) -> None:
        """Close for good, durably if no other process uses the index."""
        with self._being_alone():
            self._closed = True
            self._close(clean=True)
            self._files.close()

    def make_writable(self) -> None:
        """Open the files for writing too, if they are not."""
        if self.read_only:
            self.read_only = False
            self._attention = True
            self.attend()

    def busy_here(self) -> bool:
        """Tell whether this thread has a transaction open."""
        return self._mine.depth.value > 0

    def suspend(self) -> None:
        """Before a fork: be alone and close; who comes after `end_alone` opens it again."""
        self.begin_alone()
        self._close(clean=False)
        self._attention = True

    def start_anew_in_child(self) -> None:
        """After a fork, in the child, where no other thread is left."""
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._marking = threading.Lock()
        self._alone = False
        self._attention = True

    def begin_alone(self) -> None:
        """Wait until no thread has a transaction open, and let none begin one."""
        if self._mine.depth.value:
            raise RuntimeError("a thread that has a view open cannot have the index alone")
        with self._lock:
            while self._alone:
                self._changed.wait()
            self._alone = True
            while any(depth.value for depth in self._everyone):
                self._changed.wait()

    def end_alone(self) -> None:
        """Let transactions begin again."""
        with self._lock:
            self._alone = False
            self._changed.notify_all()

    @contextlib.contextmanager
    def _being_alone(self) -> Iterator[None]:
        self.begin_alone()
        try:
            yield
        finally:
            self.end_alone()

    def _wait_for_turn(self, mine: _Depth) -> None:
        with self._lock:
            while self._alone:
                mine.value = 0
                self._changed.notify_all()
                self._changed.wait()
            mine.value = 1

    def _join(self, depth: _Depth) -> None:
        with self._lock:
            self._everyone.add(depth)

    # ---- alone: resizing, opening, closing

    def _fulfil(self) -> None:
        handle = self._handle
        intact = handle is not None and self._is_current(handle)
        if not self._attention and intact:
            return  # another thread was faster
        resizing = handle is not None and intact and (self._grow_to or self._adopt_size)
        if resizing and not self._damage:
            # A page number or a map size that somebody wrote over looks like a need of room.
            self._damage = self._files.flaw()
        if handle is not None and resizing and not self._damage:
            self._resize(handle)
        else:
            damaged = handle.identity if handle and self._damage else None
            self._close(clean=False)
            self._open(damaged)
        self._attention = False
        self._damage = ""
        self._grow_to = 0
        self._adopt_size = False

    def _resize(self, handle: Handle) -> None:
        # 0 adopts the size that another process gave it.
        wanted = self._grow_to if self._grow_to > handle.map_size else 0
        try:
            handle.env.set_mapsize(wanted)
        except lmdb.Error as exc:
            self._grow_to = 0
            self._close(clean=False)
            raise NoSpaceError(
                f"{self._what} cannot grow to {wanted >> 20} MiB: {exc}",
                "raise the limit of address space (ulimit -v)",
            ) from exc
        handle.map_size = handle.env.info()["map_size"]

    def _mark_dirty(self, handle: Handle) -> None:
        if not handle.dirty:
            with self._marking:
                self._files.mark_dirty()
                handle.dirty = True

    def _open(self, damaged: Identity | None) -> None:
        for _ in range(OPEN_ATTEMPTS):
            try:
                handle = self._open_once(damaged)
            except FileNotFoundError as exc:
                if self.read_only:
                    raise NotFoundError(f"there is no index in {self._files.path!r}") from exc
                continue  # removed by somebody while we opened it
            except OSError as exc:
                raise os_error(exc, f"cannot open {self._what}") from exc
            self._handle = handle
            if self._is_current(handle):
                self._adrift = False
                return
            self._close(clean=False)
        raise UnavailableError(f"{self._what} is removed again and again", "try again")

    def _open_once(self, damaged: Identity | None) -> Handle:
        files, read_only = self._files, self.read_only
        if read_only:
            files.hold(make=False)
        with contextlib.nullcontext() if read_only else files.gate():
            alone = files.join(read_only=read_only)
            try:
                if damaged is not None and damaged == files.identity() and not read_only:
                    files.wipe(self._damage)
                files.prepare(alone=alone, read_only=read_only)
                handle = open_handle(
                    files, self.tables, self.schema, self._map_size, read_only=read_only
                )
                files.share()
            except BaseException:
                files.leave()
                raise
        return handle

    def _close(self, *, clean: bool) -> None:
        handle, self._handle = self._handle, None
        if handle is None:
            return
        handle.env.close()
        try:
            if clean and handle.dirty and self._is_current(handle):
                self._files.mark_clean()
        except OSError as exc:
            log.warning("%s stays marked as in use: %s", self._what, exc)
        finally:
            self._files.leave()
