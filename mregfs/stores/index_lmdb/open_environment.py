"""Opening an LMDB environment on trusted files; what LMDB's complaints mean in our errors.

Decided here: the flags, the tables, the schema check. Not decided here: when to open
(`environment`), which files are trusted (`files`).
"""

import errno
import os
from collections.abc import Callable, Sequence
from typing import Any

import lmdb

from mregfs.errors import (
    ForbiddenError,
    HostError,
    MregfsError,
    NoSpaceError,
    NotFoundError,
    UnavailableError,
)
from mregfs.host import oserrors
from mregfs.stores.index_lmdb.files import IndexFiles

__all__ = [
    "META",
    "Handle",
    "Identity",
    "host_error",
    "is_damage",
    "open_handle",
    "os_error",
    "readers_full",
]

META = "_index"
"""The table of the adapter itself: schema, applied sequence number."""

MAX_READERS = 1024
"""Read transactions at a time, of all processes."""

MAX_TABLES = 64

_NAMED = 5
"""Processes that an error names."""

Identity = tuple[int, int]

# Complaints about the process or the caller; any other negative code is about the file. That
# includes BadTxnError: it is how the first read through a damaged page of the main table fails.
_NOT_DAMAGE = (
    lmdb.BadDbiError,
    lmdb.BadRslotError,
    lmdb.BadValsizeError,
    lmdb.DbsFullError,
    lmdb.KeyExistsError,
    lmdb.MapFullError,
    lmdb.MapResizedError,
    lmdb.NotFoundError,
    lmdb.PanicError,
    lmdb.ReadersFullError,
    lmdb.TlsFullError,
    lmdb.TxnFullError,
)


class Handle:
    """An LMDB environment, open, with its tables."""

    __slots__ = ("begin", "dirty", "env", "identity", "map_size", "tables")

    def __init__(self, env: Any, identity: Identity | None) -> None:
        self.env = env
        self.begin: Callable[[], Any] = env.begin
        self.tables: dict[str, Any] = {}
        self.identity = identity
        self.map_size: int = env.info()["map_size"]
        self.dirty = False


def open_handle(
    files: IndexFiles, tables: Sequence[str], schema: bytes, map_size: int, *, read_only: bool
) -> Handle:
    """Open the index; one that LMDB or the schema refuses is wiped and made anew. The gate is held.

    Raises:
        NotFoundError: `read_only`, and the index is not usable.
        NoSpaceError, ForbiddenError, HostError: LMDB could not.
        UnavailableError: living processes have all the reader slots.
    """
    what = f"the index in {files.path!r}"
    wiped = freed = False
    while True:
        try:
            handle = _open(files, tables, schema, map_size, read_only=read_only)
        except lmdb.MapResizedError:
            # Another process let the file grow between our look at its size and our first read.
            map_size *= 2
            continue
        except lmdb.ReadersFullError as exc:
            from mregfs.stores.index_lmdb.slots import free_slots

            if freed or not free_slots(files.lock_descriptor()):
                raise readers_full(files) from exc
            freed = True
            continue
        except lmdb.Error as exc:
            if not is_damage(exc):
                raise host_error(exc.code, f"cannot open {what}", str(exc)) from exc
            reason = f"is damaged ({exc})"
        else:
            if handle is not None:
                return handle
            reason = "was made by another version"
        if read_only or wiped:
            raise NotFoundError(f"{what} {reason}")
        files.wipe(reason)
        wiped = True


def is_damage(failure: Exception) -> bool:
    """Tell whether LMDB complains about what is in the file."""
    return getattr(failure, "code", 0) < 0 and not isinstance(failure, _NOT_DAMAGE)


def readers_full(files: IndexFiles) -> MregfsError:
    """Return the error for an index that is read by as many transactions as can be."""
    from mregfs.stores.index_lmdb.slots import holders

    processes = holders(files.lock_descriptor())
    who = f", by process {', '.join(map(str, processes[:_NAMED]))}" if processes else ""
    return UnavailableError(
        f"the index in {files.path!r} is read by as many transactions as it takes{who}",
        "end a process that reads it, or try again",
    )


def host_error(code: int | None, doing: str, reason: str = "") -> MregfsError:
    """Return our error for an errno."""
    if code is not None and code > 0:
        reason = os.strerror(code)
    if code in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceError(f"{doing}: {reason}", "free some space on the disk of the index")
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ForbiddenError(f"{doing}: {reason}", "put the index where this user may write")
    return HostError(code if code is not None and code > 0 else errno.EIO, f"{doing}: {reason}")


def os_error(exc: OSError, doing: str) -> MregfsError:
    """Return our error for one of the operating system."""
    if exc.errno == errno.EROFS:
        return host_error(exc.errno, doing)
    return oserrors.translated(
        exc,
        doing,
        no_space="free some space on the disk of the index",
        forbidden="put the index where this user may write",
    )


def _open(
    files: IndexFiles, tables: Sequence[str], schema: bytes, map_size: int, *, read_only: bool
) -> Handle | None:
    size = files.data_size()
    if not read_only:
        files.allocate_lock(MAX_READERS)
    files.check_ours()
    while map_size < 2 * size:
        map_size *= 2
    env = lmdb.open(
        files.lmdb_path,
        map_size=map_size,
        max_dbs=MAX_TABLES,
        max_readers=MAX_READERS,
        max_spare_txns=1,
        mode=0o600,
        # The log is the truth, and the guard tells when this file is not.
        sync=False,
        metasync=False,
        readonly=read_only,
        # The format that `files` can judge.
        lib_version=0,
    )
    try:
        if not read_only:
            env.reader_check()
        handle = Handle(env, files.identity())
        if _open_tables(files, handle, (META, *tables), schema, read_only=read_only):
            return handle
    except BaseException:
        env.close()
        raise
    env.close()
    return None


def _open_tables(
    files: IndexFiles, handle: Handle, tables: Sequence[str], schema: bytes, *, read_only: bool
) -> bool:
    """Open the tables, or make them if the index is empty; False when it is of another kind."""
    env = handle.env
    try:
        if read_only:
            handle.tables.update(
                (name, env.open_db(name.encode(), create=False)) for name in tables
            )
            with env.begin(db=handle.tables[META]) as txn:
                return bool(txn.get(b"schema") == schema)
        # One write transaction for all; when there is nothing to make, it costs no I/O.
        with env.begin(write=True) as txn:
            empty = txn.stat()["entries"] == 0
            if empty:
                files.mark_dirty()
                handle.dirty = True
            for name in tables:
                handle.tables[name] = env.open_db(name.encode(), txn=txn, create=empty)
            meta = handle.tables[META]
            if empty:
                txn.put(b"schema", schema, db=meta)
            return bool(txn.get(b"schema", db=meta) == schema)
    except (lmdb.NotFoundError, lmdb.ReadonlyError):
        return False
