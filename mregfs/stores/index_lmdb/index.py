"""The index of a store on LMDB: views, writes, the applied sequence number.

Decided here: what a view and a write are in LMDB's terms. Not decided here: the life of the
environment (`environment`), what stands under a key (`model/state`). Its port is `ports.Index`.

The log is the truth, so a write is not made durable; `files` finds out after a crash of the host.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Self

import lmdb

from mregfs.errors import ForbiddenError, InvalidError
from mregfs.host.beneath import Beneath
from mregfs.model.state import Put
from mregfs.stores.index_lmdb.environment import Environment
from mregfs.stores.index_lmdb.environments import acquire, release
from mregfs.stores.index_lmdb.open_environment import META, Handle, os_error

__all__ = ["IndexLmdb"]

MAP_SIZE = 256 << 20
"""The first size of the map: room for two million small records; address space, not memory."""

MAX_KEY_SIZE = 511
"""What LMDB takes."""

_FEW_PAGES = 64
"""What the least of writes may take: the roots of all tables, and the list of free pages."""

_FORMAT = 1


class _View:
    """One read transaction; also the context manager around itself."""

    __slots__ = ("_environment", "_tables", "_txn")

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def __enter__(self) -> Self:
        while True:
            handle = self._environment.enter()
            try:
                self._txn = handle.begin()
            except lmdb.Error as exc:
                self._environment.leave()
                self._environment.recover(exc, handle)
            except BaseException:
                self._environment.leave()
                raise
            else:
                self._tables = handle.tables
                return self

    def __exit__(self, *exc_info: object) -> None:
        try:
            self._txn.abort()
        finally:
            self._environment.leave()

    def get(self, table: str, key: bytes) -> bytes | None:
        try:
            found: bytes | None = self._txn.get(key, None, self._tables[table])
        except lmdb.BadValsizeError:
            return None
        except lmdb.Error as exc:
            raise self._failed(exc) from exc
        except KeyError as exc:
            raise InvalidError(f"the index has no table {table!r}") from exc
        return found

    def scan(
        self, table: str, prefix: bytes = b"", start: bytes = b"", *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        try:
            cursor = self._txn.cursor(self._tables[table])
            if reverse:
                found = _seek_last(cursor, prefix, start)
                rows = cursor.iterprev() if found else ()
            else:
                first = max(prefix, start)
                found = cursor.set_range(first) if first else cursor.first()
                rows = cursor.iternext() if found else ()
            for row in rows:
                if not row[0].startswith(prefix):
                    return
                yield row
        except lmdb.Error as exc:
            raise self._failed(exc) from exc
        except KeyError as exc:
            raise InvalidError(f"the index has no table {table!r}") from exc

    def _failed(self, exc: Exception) -> Exception:
        if getattr(exc, "code", 0) == 0:  # py-lmdb's own: the transaction is gone
            return RuntimeError("this view of the index is closed")
        return self._environment.translated(exc)


class IndexLmdb:
    """The index in the directory `path`, shared by all processes of the host.

    Args:
        path: the directory; made if it is missing, in one that is there. On a local file system,
            not on NFS.
        tables: the names of all tables.
        read_only: never write, not even to make or repair the index.
        map_size: the first size of the map; it grows by itself.
        schema: what the records look like; an index that was written with another is thrown away.
        within: a directory held by descriptor; `path` is then the name of one in it.
        anchored: tells whether the log still has the entry of a sequence number. When not, an index
            whose files vanish while it is open is not begun anew.

    Raises:
        ForbiddenError: this user may not write in the directory; choose another one.
        NoSpaceError: the disk is full.
        NotFoundError: `read_only`, and there is no index that can be trusted.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        tables: Sequence[str],
        *,
        read_only: bool = False,
        map_size: int = MAP_SIZE,
        schema: str = "1",
        within: Beneath | None = None,
        anchored: Callable[[int], bool] = lambda applied: True,
    ) -> None:
        parent, name = _place(path, within)
        self.path = f"{parent.path}/{name}"
        self._read_only = read_only
        if META in tables or not all(tables):
            parent.close()
            raise InvalidError(f"a table of the index is not named {META!r}")
        identity = f"{_FORMAT} {schema} {' '.join(sorted(tables))}".encode()
        self._environment: Environment | None = acquire(
            parent, name, tables, identity, map_size, read_only=read_only, anchored=anchored
        )

    def read(self) -> _View:
        """Open a consistent view; about a microsecond. Hold it briefly and never across `await`.

        Raises:
            UnavailableError: the index was just found damaged, or must grow; try again.
        """
        return _View(self._open_environment())

    def write(
        self,
        puts: Iterable[Put],
        *,
        expected: int | None = None,
        applied: int | None = None,
        anew: bool = False,
    ) -> bool:
        """Apply all `puts` in one transaction, and set the applied sequence number to `applied`.

        Returns False, and changes nothing, when the applied sequence number is not `expected`.
        With `anew`, all tables are emptied before, in the same transaction.
        Best called without an open view: the index cannot grow under the caller's own feet.

        Raises:
            InvalidError: a key is empty or over 511 bytes, or there is no such table.
            NoSpaceError: the disk is full; nothing changed.
            UnavailableError: as for `read`.
        """
        changes = list(puts)

        def change(txn: Any, handle: Handle) -> bool:
            meta = handle.tables[META]
            if expected is not None and _number(txn.get(b"applied", db=meta)) != expected:
                return False
            tables = handle.tables
            if anew:
                _empty(txn, handle)
            put, delete = txn.put, txn.delete
            for table, key, value in changes:
                if value is None:
                    delete(key, db=tables[table])
                else:
                    put(key, value, db=tables[table])
            if applied is not None:
                put(b"applied", applied.to_bytes(8, "big"), db=meta)
            return True

        environment = self._writable_environment()
        for table, key, _ in changes:
            if not 0 < len(key) <= MAX_KEY_SIZE:
                raise InvalidError(
                    f"a key of {len(key)} bytes does not fit table {table!r} of the index",
                    f"keys have 1 to {MAX_KEY_SIZE} bytes",
                )
            if table not in environment.tables:
                raise InvalidError(f"the index has no table {table!r}")
        return environment.transact(change)

    def reserve(self, puts: Sequence[Put]) -> None:
        """Have the disk's room for a `write` of these, also when it is full by then.

        Where a file that has its blocks is written elsewhere (btrfs), this promises less.

        Raises:
            NoSpaceError: there is not so much room.
        """
        size = sum(len(value or b"") for _, _, value in puts)
        self._writable_environment().reserve(_FEW_PAGES + 3 * len(puts) + size // 2048)

    def applied(self) -> int:
        """Return the sequence number of the last applied log entry; 0 for an empty index.

        Looks whether the files were replaced by another process, and follows.
        """
        environment = self._open_environment()
        environment.attend()
        with _View(environment) as view:
            return _number(view.get(META, b"applied"))

    def clear(self) -> None:
        """Empty all tables in one transaction and set the applied sequence number to 0."""

        def change(txn: Any, handle: Handle) -> bool:
            _empty(txn, handle)
            txn.delete(b"applied", db=handle.tables[META])
            return True

        self._writable_environment().transact(change)

    def sync(self) -> None:
        """Make the index durable, so that it outlives a crash of the host until the next write."""
        self._writable_environment().sync()

    def close(self) -> None:
        """Release the index; calling it again does nothing. The last user leaves it durable."""
        environment, self._environment = self._environment, None
        if environment is not None:
            release(environment)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _open_environment(self) -> Environment:
        if self._environment is None:
            raise RuntimeError(f"the index in {self.path!r} is closed")
        return self._environment

    def _writable_environment(self) -> Environment:
        if self._read_only:
            raise ForbiddenError(f"the index in {self.path!r} is open for reading only")
        return self._open_environment()


def _place(path: str | os.PathLike[str], within: Beneath | None) -> tuple[Beneath, str]:
    """Return the directory that an index is in, to be closed by whoever gets it, and its name."""
    if within is not None:
        return within.duplicate(), os.fspath(path)
    where, name = os.path.split(os.path.realpath(path))
    try:
        return Beneath.at(where, owner=os.geteuid()), name
    except OSError as exc:
        raise os_error(exc, f"cannot open the index in {os.fspath(path)!r}") from exc


def _empty(txn: Any, handle: Handle) -> None:
    for name, table in handle.tables.items():
        if name != META:
            txn.drop(table, delete=False)


def _number(data: bytes | None) -> int:
    return int.from_bytes(data, "big") if data else 0


def _seek_last(cursor: Any, prefix: bytes, start: bytes) -> bool:
    """Go to the last key with `prefix`, and not after `start` unless that is empty."""
    stripped = prefix.rstrip(b"\xff")
    beyond = stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else b""
    if start and (not beyond or start < beyond):
        if cursor.set_range(start):
            return bool(cursor.key() == start or cursor.prev())
        return bool(cursor.last())
    if beyond and cursor.set_range(beyond):
        return bool(cursor.prev())
    return bool(cursor.last())
