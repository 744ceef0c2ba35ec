"""One open LMDB environment per directory and process: opening, growing, replacing, forking.

Decided here: when the environment may be touched and when it must be opened anew. Not decided here:
which files are trusted (`files`), what a view or a write is (`index`). Only `index` calls it.

LMDB forbids a second open of the same files in a process, and moving its map while a transaction of
the process is open. So all `IndexLmdb` on one directory share an `Environment`, which counts the
transactions (`enter`, `leave`), and whoever must have it alone (`_alone`) waits until none is left.
A thread that has a view open cannot wait for itself: then the wish is noted, the caller gets an
UnavailableError, and the next one who comes without a view fulfils it.
"""

import contextlib
import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import lmdb

from mregfs.errors import (
    ForbiddenError,
    HostError,
    InvalidError,
    MregfsError,
    NoSpaceError,
    UnavailableError,
)
from mregfs.stores.index_lmdb.files import IndexFiles

__all__ = ["META", "Environment", "Handle", "acquire", "release"]

log = logging.getLogger(__name__)

META = "_index"
"""The table of the adapter itself: schema, applied sequence number."""

CHECK_SECONDS = 1.0
"""How old the knowledge may be that the files are still the ones that we opened (readers only)."""

MAX_READERS = 4096
"""Read transactions at a time, of all processes: 64 bytes each in `lock.mdb`."""

MAX_MAP_SIZE = 1 << 40
MAX_TABLES = 64
OPEN_ATTEMPTS = 5

# Complaints about the process or the caller; any other negative code is about the file.
_NOT_DAMAGE = (
    lmdb.MapFullError,
    lmdb.MapResizedError,
    lmdb.ReadersFullError,
    lmdb.DbsFullError,
    lmdb.TlsFullError,
    lmdb.TxnFullError,
    lmdb.BadRslotError,
    lmdb.BadTxnError,
    lmdb.BadDbiError,
    lmdb.BadValsizeError,
    lmdb.PanicError,
    lmdb.KeyExistsError,
    lmdb.NotFoundError,
)


class Handle:
    """An LMDB environment, open, with its tables."""

    __slots__ = ("begin", "dirty", "env", "identity", "map_size", "tables")

    def __init__(self, env: Any, identity: tuple[int, int] | None, map_size: int) -> None:
        self.env = env
        self.begin: Callable[[], Any] = env.begin
        self.tables: dict[str, Any] = {}
        self.identity = identity
        self.map_size = map_size
        self.dirty = False


class _Mine(threading.local):
    """Of each thread: how many transactions it has open."""

    depth = 0


class Environment:
    """The environment of one directory, for all threads of this process."""

    def __init__(
        self, path: str, tables: tuple[str, ...], schema: bytes, map_size: int, *, read_only: bool
    ) -> None:
        self.tables = tables
        self.schema = schema
        self.read_only = read_only
        self.references = 0
        self._files = IndexFiles(path)
        self._map_size = map_size
        self._mine = _Mine()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._marking = threading.Lock()
        self._active = 0
        self._exclusive = False
        self._handle: Handle | None = None
        self._check_at = 0.0
        # Wishes, for whoever comes next without a view.
        self._reopen = True
        self._wipe = ""
        self._grow_to = 0
        self._adopt_size = False

    # ---- transactions

    def enter(self) -> Handle:
        """Count one more transaction of this thread, and return what to begin it on."""
        mine = self._mine
        if not mine.depth and (self._reopen or time.monotonic() >= self._check_at):
            self.attend()
        with self._lock:
            while self._exclusive and not mine.depth:
                self._changed.wait()
            handle = self._handle
            if handle is None:
                raise UnavailableError(f"the index in {self._files.path!r} is closed")
            self._active += 1
        mine.depth += 1
        return handle

    def leave(self) -> None:
        """Count one transaction of this thread less."""
        self._mine.depth -= 1
        with self._lock:
            self._active -= 1
            if self._exclusive:
                self._changed.notify_all()

    def transact(self, change: Callable[[Any, Handle], bool]) -> bool:
        """Run `change` in a write transaction; roll back and return False when it returns False.

        It may run several times, when the map must grow first.
        """
        if self.read_only:
            raise ForbiddenError(f"the index in {self._files.path!r} is open for reading only")
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
                raise _host_error(exc.errno, f"cannot mark the index {self._files.path!r}") from exc
            finally:
                self.leave()
            self.recover(failure, handle)

    def recover(self, failure: Exception, handle: Handle) -> None:
        """After a failed transaction, when it is over: return if trying again helps, else raise."""
        with self._lock:
            if isinstance(failure, lmdb.MapFullError):
                if handle.map_size >= MAX_MAP_SIZE:
                    raise NoSpaceError(f"the index in {self._files.path!r} is full") from failure
                self._grow_to = max(self._grow_to, handle.map_size * 2)
            elif isinstance(failure, lmdb.MapResizedError):
                self._adopt_size = True
            elif not isinstance(failure, lmdb.ReadersFullError) or not handle.env.reader_check():
                raise self.translated(failure) from failure
            self._reopen = True
        if self._mine.depth:
            raise UnavailableError(
                f"the index in {self._files.path!r} must grow while this thread reads it",
                "try again",
            ) from failure

    def translated(self, failure: Exception) -> MregfsError:
        """Return our error for LMDB's; after damage the files are replaced before the next use."""
        code = getattr(failure, "code", 0)
        what = f"the index in {self._files.path!r}"
        if isinstance(failure, lmdb.ReadonlyError):
            return ForbiddenError(f"{what} is open for reading only")
        if code > 0:
            if code == errno.EIO or isinstance(failure, lmdb.DiskError):
                self._reopen = True
            return _host_error(code, f"{what} failed")
        if code < 0 and not isinstance(failure, _NOT_DAMAGE):
            self._wipe = f"is damaged ({failure})"
        self._reopen = True
        return UnavailableError(f"{what} failed: {failure}", "try again")

    # ---- what needs the environment alone

    def attend(self) -> None:
        """Look whether the files are still ours, and fulfil what was wished for meanwhile."""
        if self._mine.depth:
            return
        handle = self._handle
        self._check_at = time.monotonic() + CHECK_SECONDS
        if not self._reopen and handle and handle.identity == self._files.identity():
            return
        with self._alone():
            handle = self._handle
            if self.references < 0:
                return
            if handle is None or self._wipe or handle.identity != self._files.identity():
                self._close(clean=False)
                self._open()
            elif self._grow_to or self._adopt_size:
                self._resize(handle)
            else:
                # A failed transaction (disk error, panic): LMDB wants to be opened anew.
                self._close(clean=False)
                self._open()
            self._grow_to = 0
            self._adopt_size = False
            self._wipe = ""
            self._reopen = False

    def sync(self) -> None:
        """Make the index durable, and note that it is when no other process uses it."""
        with self._alone():
            if self._handle is not None and not self.read_only:
                self._handle.env.sync(True)
                self._handle.dirty = False
                self._files.mark_clean()

    def close(self) -> None:
        """Close for good."""
        with self._alone():
            self.references = -1
            self._close(clean=True)

    def make_writable(self) -> None:
        """Open the files for writing too, if they are not."""
        if self.read_only:
            self.read_only = False
            self._reopen = True
            self.attend()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        self.begin_alone()
        try:
            yield
        finally:
            self.end_alone()

    def begin_alone(self) -> None:
        """Wait until no thread has a transaction open, and let none begin one."""
        if self._mine.depth:
            raise RuntimeError("a thread with an open view cannot have the index alone")
        with self._lock:
            while self._exclusive:
                self._changed.wait()
            self._exclusive = True
            while self._active:
                self._changed.wait()

    def end_alone(self) -> None:
        """Let transactions begin again."""
        with self._lock:
            self._exclusive = False
            self._changed.notify_all()

    def busy_here(self) -> bool:
        """Tell whether this thread has a transaction open."""
        return self._mine.depth > 0

    def suspend(self) -> None:
        """Before a fork: close, so that parent and child each open for themselves."""
        self.begin_alone()
        self._close(clean=False)
        self._reopen = True

    def _resize(self, handle: Handle) -> None:
        wanted = self._grow_to if self._grow_to > handle.map_size else 0
        try:
            handle.env.set_mapsize(wanted)
        except lmdb.Error as exc:
            self._close(clean=False)
            raise NoSpaceError(
                f"the index in {self._files.path!r} cannot grow to {wanted >> 20} MiB: {exc}",
                "raise the limit of address space (ulimit -v)",
            ) from exc
        handle.map_size = handle.env.info()["map_size"]

    def _mark_dirty(self, handle: Handle) -> None:
        if not handle.dirty:
            with self._marking:
                self._files.mark_dirty()
                handle.dirty = True

    # ---- opening and closing

    def _close(self, *, clean: bool) -> None:
        handle, self._handle = self._handle, None
        if handle is None:
            return
        handle.env.close()
        try:
            if clean and handle.dirty and handle.identity == self._files.identity():
                self._files.mark_clean()
        except OSError as exc:
            log.warning("the index in %s stays marked as in use: %s", self._files.path, exc)
        finally:
            self._files.leave()

    def _open(self) -> None:
        path = self._files.path
        for _ in range(OPEN_ATTEMPTS):
            try:
                with self._entrance():
                    alone = self._files.join(read_only=self.read_only)
                    try:
                        if self._wipe and not self.read_only:
                            self._files.wipe(self._wipe)
                            self._wipe = ""
                        self._files.prepare(alone=alone, read_only=self.read_only)
                        handle = self._open_trusted()
                        self._files.share()
                    except BaseException:
                        self._files.leave()
                        raise
            except OSError as exc:
                raise _host_error(exc.errno, f"cannot open the index in {path!r}") from exc
            self._handle = handle
            if handle.identity is not None and handle.identity == self._files.identity():
                return
            self._close(clean=False)  # removed by somebody while we opened it
        raise UnavailableError(f"the index in {path!r} is removed again and again", "try again")

    def _entrance(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self.read_only else self._files.gate()

    def _open_trusted(self) -> Handle:
        """Open with LMDB; what it, or the schema, refuses is wiped and made anew, once."""
        for last in (False, True):
            try:
                handle = self._open_lmdb()
                if self._fits(handle):
                    return handle
                handle.env.close()
                reason = "was made by another version"
            except lmdb.Error as exc:
                if exc.code >= 0 or isinstance(exc, _NOT_DAMAGE) or last:
                    raise _host_error(
                        exc.code, f"cannot open the index in {self._files.path!r}: {exc}"
                    ) from exc
                reason = f"is damaged ({exc})"
            if self.read_only:
                raise UnavailableError(f"the index in {self._files.path!r} {reason}")
            self._files.wipe(reason)
        raise UnavailableError(f"the index in {self._files.path!r} cannot be made anew")

    def _open_lmdb(self) -> Handle:
        path = self._files.path
        try:
            size = os.stat(self._files.data).st_size
        except FileNotFoundError:
            size = 0
        map_size = self._map_size
        while map_size < 2 * size:
            map_size *= 2
        env = lmdb.open(
            path,
            map_size=map_size,
            max_dbs=MAX_TABLES,
            max_readers=MAX_READERS,
            max_spare_txns=0 if self.read_only else 16,
            mode=0o644,
            sync=False,
            metasync=False,
            readahead=False,
            readonly=self.read_only,
            lib_version=0,
        )
        if not self.read_only:
            env.reader_check()
        return Handle(env, self._files.identity(), env.info()["map_size"])

    def _fits(self, handle: Handle) -> bool:
        """Open the tables, or make them if the index is empty; False when it is of another kind."""
        env = handle.env
        names = (META, *self.tables)
        # Table handles outlive only a transaction that commits, and py-lmdb resets read-only ones
        # instead when it may keep spares. An empty write transaction costs no I/O.
        with env.begin(write=not self.read_only) as txn:
            empty = txn.stat()["entries"] == 0
            if empty:
                if self.read_only:
                    return False
                self._mark_dirty(handle)
            try:
                for name in names:
                    handle.tables[name] = env.open_db(name.encode(), txn=txn, create=empty)
            except lmdb.NotFoundError:
                return False
            if empty:
                txn.put(b"schema", self.schema, db=handle.tables[META])
                return True
            return bool(txn.get(b"schema", db=handle.tables[META]) == self.schema)


# ---- the environments of this process

_environments: dict[str, Environment] = {}
_registry = threading.RLock()
_suspended: list[Environment] = []


def acquire(
    path: str, tables: Sequence[str], schema: bytes, map_size: int, *, read_only: bool
) -> Environment:
    """Return the environment of this process on `path`, opened if it is the first."""
    path = os.path.realpath(path)
    with _registry:
        found = _environments.get(path)
        if found is None:
            found = Environment(path, tuple(tables), schema, map_size, read_only=read_only)
            found.attend()
            _environments[path] = found
        elif set(found.tables) != set(tables) or found.schema != schema:
            raise InvalidError(f"the index in {path!r} is open with other tables")
        elif not read_only:
            found.make_writable()
        found.references += 1
        return found


def release(environment: Environment) -> None:
    """Give one `acquire` back; the last one closes the environment."""
    with _registry:
        if environment.references > 1:
            environment.references -= 1
            return
        for path in [path for path, each in _environments.items() if each is environment]:
            del _environments[path]
        environment.close()


def _before_fork() -> None:
    # LMDB's transactions and locks are the process's; a child that as much as closes an inherited
    # environment frees its parent's reader slots. So none is open while the process is doubled.
    _registry.acquire()
    for environment in _environments.values():
        if not environment.busy_here():
            environment.suspend()
            _suspended.append(environment)


def _after_fork() -> None:
    while _suspended:
        _suspended.pop().end_alone()
    _registry.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


def _host_error(code: int | None, doing: str) -> MregfsError:
    reason = os.strerror(code) if code and code > 0 else "it is not usable"
    if code in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceError(f"{doing}: {reason}", "free some space on the disk of the index")
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ForbiddenError(f"{doing}: {reason}", "put the index where this user may write")
    return HostError(code if code and code > 0 else errno.EIO, f"{doing}: {reason}")
