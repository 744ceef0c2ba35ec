"""Stores made and opened.

Decided here: which kinds of stores there are, what a new one consists of, where its index is tried.
Not decided here: whose store may be acted on (`holding`), what an open store can do (`store`).
"""

import contextlib
import logging
import os
import time

from mregfs import __version__
from mregfs.config import is_remote, said_host_directory
from mregfs.errors import ForbiddenError, MregfsError
from mregfs.host import oserrors
from mregfs.model.changes import entry_key
from mregfs.model.reference import format_time
from mregfs.model.state import STATE_TABLES
from mregfs.ports.objects import ObjectStore
from mregfs.registry.log.description import StoreDescription, describe_new_store
from mregfs.registry.read.content import CONTENT_TABLES, Verification
from mregfs.stores.index_lmdb import IndexLmdb
from mregfs.stores.objects_dir import ObjectsDirectory
from mregfs.stores.ownership import DIRECTORY
from mregfs.wiring.address import StoreAddress
from mregfs.wiring.holding import hold_store, make_directory
from mregfs.wiring.host_directories import STAGING, HostDirectories
from mregfs.wiring.store import Store, new_id

__all__ = ["init_store", "open_index", "open_store"]

log = logging.getLogger(__name__)

INDEX_SCHEMA = "4"
"""Changed with the form of any record or row of the index, so that older indexes are rebuilt."""


def init_store(path: str | os.PathLike[str], *, private: bool = False) -> None:
    """Make a new store in a directory that does not exist yet, or is empty.

    It is this user's alone. Others may read it, unless it is `private`: then they need a mount.

    Raises:
        ExistsError: it is a store already, or holds something else.
        ForbiddenError: the directory is another user's.
    """
    where = StoreAddress.parse(path).directory
    description = StoreDescription(
        format=1,
        id=new_id(),
        created_at=format_time(time.time_ns()),
        created_by=f"mregfs {__version__}",
    )
    with make_directory(where, private=private) as top:
        objects = ObjectsDirectory(top)
        describe_new_store(objects, description, where)
        objects.reserve.fill()
        try:
            # Now, as the disk may be read-only when the store is first mounted.
            top.ensure_directory(STAGING, DIRECTORY)
        except OSError as exc:
            raise oserrors.translated(exc, f"cannot make {STAGING!r} in {where!r}") from exc


def open_store(
    path: str | os.PathLike[str],
    *,
    read_only: bool = False,
    verification: Verification = "first-read",
    coalesced: bool = True,
    host_directory: str | None = None,
) -> Store:
    """Open the store in a directory.

    Its owner may change it; others, but root, may read it.

    Args:
        path: where it is.
        read_only: change nothing of it.
        verification: what is verified when it is read.
        coalesced: use whole-file copies for reading.
        host_directory: where this host keeps its own things, as `MREGFS_HOST_DIRECTORY`.

    Raises:
        InvalidError: there is no store.
        ForbiddenError: others than its owner may write in it; or this is root, and it is not his.
        UnsupportedError: a newer program made it, or it is no directory.
    """
    address = StoreAddress.parse(path)
    with contextlib.ExitStack() as undo:
        held = hold_store(address.directory)
        undo.callback(held.close)
        host = HostDirectories(
            address,
            held.description.id,
            within=held.top,
            index_within=held.writable and not is_remote(held.top.fd),
            said=host_directory or said_host_directory(),
        )
        undo.callback(host.close)
        index = open_index(host, held.objects)
        undo.callback(index.close)
        opened = Store(
            address,
            held,
            host,
            index,
            read_only=read_only or not held.writable,
            verification=verification,
            coalesced=coalesced,
        )
        undo.pop_all()
        return opened


def open_index(host: HostDirectories, objects: ObjectStore) -> IndexLmdb:
    """Open the index in the first directory of this host where it can be mapped."""
    tables = (*STATE_TABLES, *CONTENT_TABLES)

    def anchored(applied: int) -> bool:
        try:
            return not applied or objects.exists(entry_key(applied))
        except MregfsError:
            return False

    for place in host.for_index():
        with place:
            try:
                return IndexLmdb(
                    "index", tables, schema=INDEX_SCHEMA, within=place, anchored=anchored
                )
            except ForbiddenError as exc:
                log.info("not using an index in %s: %s", place.path, exc)
    raise AssertionError("directories for an index have no end")
