"""Stores in directories: made, opened, put together from adapters.

Decided here: which adapters a store is made of and where its parts stand on this host. Not decided
here: the format of a store (`registry/format.md`). The only place that names concrete adapters;
`Registry` and the daemon call it.
"""

import importlib
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mregfs import __version__
from mregfs.config import cache_index, is_remote, temporary_index
from mregfs.errors import ExistsError, ForbiddenError, HostError
from mregfs.host.beneath import Beneath
from mregfs.host.priority import let_others_go_first, read_when_idle
from mregfs.model.changes import ENTRY_GRAIN
from mregfs.model.records import VersionRecord
from mregfs.model.reference import format_time
from mregfs.model.state import STATE_TABLES
from mregfs.ports import DraftTree, Intake
from mregfs.registry.content import CONTENT_TABLES, Content, Verification
from mregfs.registry.description import StoreDescription, describe_new_store, read_description
from mregfs.registry.log import Log
from mregfs.stores.index_lmdb import IndexLmdb
from mregfs.stores.objects_dir import ObjectsDirectory
from mregfs.stores.ownership import make_directory
from mregfs.stores.packs_dir import PacksDirectory
from mregfs.stores.verity import FsVerity
from mregfs.stores.whole_files_dir import WholeFilesDirectory

if TYPE_CHECKING:
    from mregfs.registry.coalesce import Coalescer
    from mregfs.registry.commit import Committer
    from mregfs.registry.verifier import Verifier
    from mregfs.stores.drafts_dir.giving import Shown

__all__ = ["Store", "init_store", "open_store"]

log = logging.getLogger(__name__)

_STAGING = "staging"

_LATER = (
    "ctypes",
    "zstandard",
    "mregfs.registry.append",
    "mregfs.registry.coalesce",
    "mregfs.registry.usage",
    "mregfs.stores.index_lmdb.slots",
    "mregfs.stores.intake_dir",
)
"""Modules that a daemon imports when it has nothing better to do."""

INDEX_SCHEMA = "1"
"""Changed with the form of any record or row of the index, so that older indexes are rebuilt."""


def init_store(path: str | os.PathLike[str]) -> None:
    """Make a new store in a directory that does not exist yet, or is empty.

    Raises:
        ExistsError: it is a store already, or holds something else.
    """
    where = os.path.abspath(path)
    try:
        os.makedirs(where, exist_ok=True)
        others = set(os.listdir(where)) - {"lost+found", "tmp"}
    except FileExistsError:
        raise ExistsError(f"{where} is not a directory", "name a new or an empty one") from None
    except OSError as exc:
        raise HostError(exc.errno or 0, f"cannot make {where!r}: {exc.strerror}") from exc
    if others and "store.json" not in others:
        raise ExistsError(f"{where} is not empty", "name a new or an empty directory")
    description = StoreDescription(
        format=1,
        id=secrets.token_hex(16),
        created_at=format_time(time.time_ns()),
        created_by=f"mregfs {__version__}",
    )
    describe_new_store(ObjectsDirectory(where), description, where)
    try:
        # Now, as the disk may be read-only when the store is first mounted.
        make_directory(os.path.join(where, _STAGING), where)
    except FileExistsError:
        pass
    except OSError as exc:
        raise HostError(exc.errno or 0, f"cannot make drafts in {where!r}: {exc.strerror}") from exc


def open_store(
    path: str | os.PathLike[str],
    *,
    read_only: bool = False,
    verification: Verification = "first-read",
    coalesced: bool = True,
) -> "Store":
    """Open the store in a directory.

    Without `coalesced`, copies of files in one piece are not used for reading.

    Opened for writing, what crashed commits left behind is cleaned up first.

    Raises:
        InvalidError: there is no store.
        UnsupportedError: a newer program made it, or the file system lets two writers create one
            file.
    """
    where = os.path.abspath(path)
    objects = ObjectsDirectory(where)
    description = read_description(objects, where)
    writable = not read_only and os.access(where, os.W_OK)
    if writable:
        objects.probe_exclusive()
    store = Store(
        where,
        objects,
        description,
        read_only=not writable,
        verification=verification,
        coalesced=coalesced,
    )
    try:
        if writable and _has_entries(os.path.join(where, "intake")):
            store.open_intake(where, consume=False).recover(store.committer.is_committed)
    except BaseException:
        store.close()
        raise
    return store


class Store:
    """Everything of one open store. Close it when done."""

    def __init__(
        self,
        path: str,
        objects: ObjectsDirectory,
        description: StoreDescription,
        *,
        read_only: bool,
        verification: Verification,
        coalesced: bool = True,
    ) -> None:
        self.path = path
        self.address = path
        """What names the store in a list of mounts."""
        self.id = description.id
        self.description = description
        self.read_only = read_only
        self.clock = time.time_ns
        self.objects = objects
        self.packs_path = os.path.join(path, "packs")
        self.packs = PacksDirectory(self.packs_path)
        self.drafts_path = os.path.join(path, _STAGING)
        self.index = _open_index(path, description.id)
        self.log = Log(
            objects,
            self.index,
            clock=self.clock,
            new_id=new_id,
            host=socket.gethostname(),
        )
        self.verity = FsVerity(self.packs_path)
        self.whole_files = WholeFilesDirectory(os.path.join(path, "cache", "whole"))
        self.content = Content(
            objects,
            self.packs,
            self.index,
            verification=verification,
            whole_files=self.whole_files if coalesced else None,
        )

    @cached_property
    def coalescer(self) -> "Coalescer":
        """What makes copies in one piece."""
        from mregfs.registry.coalesce import Coalescer

        return Coalescer(self.index, self.content, self.whole_files)

    @cached_property
    def committer(self) -> "Committer":
        """What makes versions of directories."""
        from mregfs.registry.commit import Committer

        return Committer(
            self.log,
            self.objects,
            self.packs,
            self.index,
            self.content,
            new_id=new_id,
            threads=len(os.sched_getaffinity(0)),
            begin_thread=let_others_go_first,
            protect=self.protect,
        )

    def protect(self, packs: Iterable[str]) -> None:
        """Let fs-verity guard packs that are in the log, in a thread, where it is offered.

        What has not begun when the store is closed is left to `protect_all` of a later process.
        """
        if not self.verity.why_not:
            for pack in packs:
                self._guard.submit(self.verity.enable, [self.packs.path_of(pack)])

    def protect_all(self) -> None:
        """Let fs-verity guard every pack of the versions that the index knows."""
        if not self.verity.why_not:
            with self.index.read() as view:
                packs = dict.fromkeys(key[:16].hex() for key, _ in view.scan("pack_ref"))
            self.protect(packs)

    @cached_property
    def _guard(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, "verity")

    def verify_in_background(self, wanted: Callable[[], bool]) -> "Verifier":
        """From now on verify what the kernel reads by itself, once for each file; see `Verifier`.

        `wanted` tells whether it does.
        """
        from mregfs.registry.verifier import Verifier
        from mregfs.stores.scanner_direct import DirectScanner

        self.content.verifier = Verifier(
            self.index,
            self.packs,
            self.whole_files,
            open_scanner=DirectScanner,
            begin_thread=read_when_idle,
            clock=self.clock,
            wanted=wanted,
        )
        return self.content.verifier

    def open_intake(self, path: str | os.PathLike[str], *, consume: bool) -> Intake:
        """Return a directory as the source of one commit; `consume`: it is a draft of ours."""
        from mregfs.stores.intake_dir import IntakeDirectory

        return IntakeDirectory(path, self.packs_path, consume=consume)

    def open_draft_intake(self, path: str) -> Intake:
        """Return a draft as the source of one commit, which consumes it."""
        return self.open_intake(path, consume=True)

    def open_drafts(self, shown: Callable[[str], "Shown"]) -> DraftTree:
        """Open the staging area; `shown` says to whom it is open."""
        from mregfs.stores.drafts_dir import DraftDirectory

        with Beneath.at(self.path) as store:
            return DraftDirectory(store, _STAGING, shown=shown)

    def load_ahead(self) -> None:
        """Import what the first commit would otherwise wait 25 ms for.

        And all else that the daemon may come to need: then there may be no descriptor left.
        """
        for name in _LATER:
            importlib.import_module(name)
        from mregfs.model.chunking import load_cutter

        load_cutter()

    def expect_appends(self) -> None:
        """Have files ready for log entries: this process lives long."""
        self.objects.keep_spares(ENTRY_GRAIN)

    def facts(self) -> dict[str, Any]:
        """Return what there is to tell of the store beside what is in it."""
        return {
            "store": self.address,
            "id": self.id,
            "format": self.description.format,
            "created_at": self.description.created_at,
            "entries": self.index.applied(),
            "free": self.packs.free_bytes(),
            "index": self.index.path,
            "read_only": self.read_only,
        }

    def unique_size(self, version: VersionRecord) -> int:
        """Return the bytes that are stored for one version alone."""
        from mregfs.registry.usage import unique_size

        return unique_size(self.index, self.content, version)

    def close(self) -> None:
        """Let go of everything; calling it again does nothing."""
        if self.content.verifier is not None:
            self.content.verifier.close()
        if "_guard" in self.__dict__:
            self._guard.shutdown(cancel_futures=True)
        self.index.close()
        self.packs.close()
        self.objects.close()


def _has_entries(path: str) -> bool:
    try:
        return bool(os.listdir(path))
    except FileNotFoundError:
        return False


def _open_index(path: str, store_id: str) -> IndexLmdb:
    """Open the index beside the store where this user may write and mmap, else in his cache.

    Who has no cache either, such as a service without a home, has it in a temporary directory.
    """
    tables = (*STATE_TABLES, *CONTENT_TABLES)
    if os.access(path, os.W_OK) and not is_remote(path):
        try:
            return IndexLmdb(os.path.join(path, "index"), tables, schema=INDEX_SCHEMA)
        except ForbiddenError as exc:
            log.info("not using the store's own index: %s", exc)
    for find in (cache_index, temporary_index):
        where = find(store_id)
        if where is None:
            continue
        try:
            where.parent.mkdir(parents=True, exist_ok=True)
            return IndexLmdb(where, tables, schema=INDEX_SCHEMA)
        except (ForbiddenError, OSError) as exc:
            log.info("not using an index in %s: %s", where, exc)
    raise ForbiddenError(
        f"there is no directory for the index of {path!r} that this user may write in",
        "set XDG_CACHE_HOME to one",
    )


def new_id() -> str:
    """Return a random id: 32 hexadecimal digits."""
    return secrets.token_hex(16)
