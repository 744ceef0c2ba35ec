"""Stores in directories: made, opened, put together from adapters.

Decided here: which adapters a store is made of and where its parts stand on this host. Not decided
here: the format of a store (`registry/format.md`).
"""

import contextlib
import importlib
import logging
import os
import secrets
import socket
import stat
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mregfs import __version__
from mregfs.config import cache_index, is_remote, temporary_index
from mregfs.errors import CorruptError, ForbiddenError, MregfsError, NoSpaceError, NotFoundError
from mregfs.host import oserrors
from mregfs.host.memory import memory_for_checkpoint
from mregfs.host.principals import principal
from mregfs.host.priority import let_others_go_first, read_when_idle
from mregfs.model.changes import ENTRY_GRAIN, entry_key
from mregfs.model.commands import Principal, User
from mregfs.model.features import Features
from mregfs.model.records import VersionRecord
from mregfs.model.reference import format_time
from mregfs.model.state import STATE_TABLES, State
from mregfs.ports.index import Index
from mregfs.ports.intake import Intake
from mregfs.registry.log.description import StoreDescription, describe_new_store, read_description
from mregfs.registry.log.log import Log
from mregfs.registry.read.content import CONTENT_TABLES, Content, Verification
from mregfs.stores.index_lmdb import IndexLmdb
from mregfs.stores.objects_dir import ObjectsDirectory
from mregfs.stores.ownership import DIRECTORY
from mregfs.stores.packs_dir import PacksDirectory
from mregfs.stores.verity import FsVerity
from mregfs.stores.whole_files_dir import WholeFilesDirectory
from mregfs.wiring.holding import Held, hold_store, make_directory

if TYPE_CHECKING:
    from mregfs.host.callers import Credentials
    from mregfs.registry.keep.coalesce import Coalescer
    from mregfs.registry.read.verifier import Verifier
    from mregfs.registry.write.changes import Changes
    from mregfs.registry.write.commit import Committer
    from mregfs.stores.scanner_direct import DirectScanner

__all__ = ["STAGING", "Store", "init_store", "open_store"]

log = logging.getLogger(__name__)

STAGING = "staging"
"""Where drafts are, in a store."""

_LATER = (
    "ctypes",
    "zstandard",
    "mregfs.registry.log.append",
    "mregfs.registry.keep.coalesce",
    "mregfs.registry.read.usage",
    "mregfs.stores.index_lmdb.slots",
    "mregfs.stores.intake_dir",
)
"""Modules that a daemon imports when it has nothing better to do."""

INDEX_SCHEMA = "4"
"""Changed with the form of any record or row of the index, so that older indexes are rebuilt."""


def init_store(path: str | os.PathLike[str], *, private: bool = False) -> None:
    """Make a new store in a directory that does not exist yet, or is empty.

    It is this user's alone. Others may read it, unless it is `private`: then they need a mount.

    Raises:
        ExistsError: it is a store already, or holds something else.
        ForbiddenError: the directory is another user's.
    """
    where = os.path.abspath(path)
    description = StoreDescription(
        format=1,
        id=secrets.token_hex(16),
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
) -> "Store":
    """Open the store in a directory.

    Its owner may change it; others, but root, may read it.

    Without `coalesced`, whole-file copies are not used for reading.

    Raises:
        InvalidError: there is no store.
        ForbiddenError: others than its owner may write in it; or this is root, and it is not his.
        UnsupportedError: a newer program made it.
    """
    held = hold_store(os.path.abspath(path))
    try:
        writable = held.writable and not read_only
        return Store(
            held,
            read_only=not writable,
            verification=verification,
            coalesced=coalesced,
        )
    except BaseException:
        held.top.close()
        raise


class Store:
    """Everything of one open store. Close it when done."""

    def __init__(
        self,
        held: Held,
        *,
        read_only: bool,
        verification: Verification,
        coalesced: bool = True,
    ) -> None:
        self.directory = held.top
        """By which everything in the store is reached; paths are for people."""
        self.path = path = held.top.path
        self.address = path
        """What names the store in a list of mounts."""
        self.id = held.description.id
        self.description = held.description
        self.read_only = read_only
        self.clock = time.time_ns
        self.objects = objects = held.objects
        self.packs_path = os.path.join(path, "packs")
        self.packs = PacksDirectory(held.top)
        self.drafts_path = os.path.join(path, STAGING)
        self.index = _open_index(held)
        self.log = Log(
            objects,
            self.index,
            clock=self.clock,
            new_id=new_id,
            host=socket.gethostname(),
            identify=self._identify,
            features=self.description.features,
            checkpoint_limit=memory_for_checkpoint,
            free_reserve=objects.reserve.release,
        )
        self.verity = FsVerity(held.top)
        self.whole_files = WholeFilesDirectory(held.top)
        self.content = Content(
            objects,
            self.packs,
            self.index,
            verification=verification,
            whole_files=self.whole_files if coalesced else None,
        )

    def _identify(self) -> None:
        """Check that the store is still the one that was opened."""
        found = read_description(self.objects, self.path)
        if found.id != self.id:
            raise NotFoundError(f"another store is in the place of {self.path}")

    @cached_property
    def coalescer(self) -> "Coalescer":
        """What makes whole-file copies."""
        from mregfs.registry.keep.coalesce import Coalescer

        return Coalescer(self.index, self.content, self.whole_files)

    @cached_property
    def committer(self) -> "Committer":
        """What makes versions of directories."""
        from mregfs.registry.write.commit import Committer

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

    @cached_property
    def changes(self) -> "Changes":
        """The one door for changes."""
        from mregfs.registry.write.changes import Changes

        return Changes(
            self.log,
            self.index,
            lambda: self.committer,
            identify=self.identify,
            on_access=self.hide,
        )

    def identify(self, user: User) -> Principal:
        """Return who a user of this host is for the rules and for history."""
        return principal(user.uid, user.gids, self.directory.owner)

    def protect(self, packs: Iterable[str]) -> None:
        """Let fs-verity guard packs that are in the log, in a thread, where it is offered.

        What has not begun when the store is closed is left to `protect_all` of a later process.
        """
        if not self.verity.why_not:
            for pack in packs:
                self._guard.submit(self._protect, pack)

    def _protect(self, pack: str) -> None:
        with (
            contextlib.suppress(NotFoundError),
            contextlib.closing(self.packs.open(pack)) as opened,
        ):
            self.verity.enable(opened)

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
        from mregfs.registry.read.verifier import Verifier

        self.content.verifier = Verifier(
            self.index,
            self.packs,
            self.whole_files,
            open_scanner=self.open_scanner,
            begin_thread=read_when_idle,
            clock=self.clock,
            wanted=wanted,
        )
        return self.content.verifier

    def fresh_index(self) -> Index:
        """Return an empty index in memory, to replay the log into."""
        from mregfs.stores.index_memory import IndexMemory

        return IndexMemory()

    def open_scanner(self) -> "DirectScanner":
        """Return what reads packs past the page cache; a context manager, for one thread."""
        from mregfs.stores.scanner_direct import DirectScanner

        return DirectScanner()

    def leftovers(self) -> list[str]:
        """Return the names of temporary files that crashes left, below the store's directory."""
        from mregfs.stores.leftovers import find_leftovers

        return find_leftovers(self.directory)

    def remove_leftover(self, name: str) -> None:
        """Remove one of `leftovers`, if that can be."""
        with contextlib.suppress(OSError):
            self.directory.unlink(name)

    def features(self) -> Features:
        """Return what `store.json` and the log say that a program must know for what."""
        with self.index.read() as view:
            return {**self.description.features, **State(view).features()}

    def open_intake(self, path: str | os.PathLike[str]) -> Intake:
        """Return a directory or a file elsewhere as the source of one commit."""
        from mregfs.stores.intake_dir import IntakeDirectory

        return IntakeDirectory(self.directory, self.packs, path)

    def open_draft_intake(
        self, project: str, draft: str, inode: int = 0, who: "Credentials | None" = None
    ) -> Intake:
        """Return a draft as the source of one commit, which consumes it.

        Args:
            project: whose draft it is, as ENTITY/PROJECT.
            draft: its name.
            inode: of its directory on the host, if that is known.
            who: who asks for the commit; None: this process itself.
        """
        from mregfs.stores.intake_dir import DraftPlace, IntakeDirectory

        return IntakeDirectory(self.directory, self.packs, DraftPlace(project, draft, inode), who)

    def hide(self) -> None:
        """Let nobody else into the directory, if not everybody may see all that is in the store.

        Past the mounts it would be as open as its directory is. Never opened again by itself.
        """
        from mregfs.model.rules.access import everybody_reads

        with self.index.read() as view:
            if self.read_only or everybody_reads(State(view)):
                return
        mode = stat.S_IMODE(os.fstat(self.directory.fd).st_mode)
        if mode & 0o077:
            try:
                os.fchmod(self.directory.fd, mode & 0o700)
            except OSError as exc:
                raise oserrors.translated(exc, f"cannot close {self.path!r} to others") from exc
            log.info("nobody else may look into %s any more: not everybody may read it", self.path)

    def recover(self) -> None:
        """Finish or undo what crashed commits left behind, where this user may write.

        It stays when the log cannot say what became of them.
        """
        try:
            if not self.read_only and self.directory.listdir("intake"):
                self.log.catch_up(strict=True)
                self.open_intake(self.path).recover(self.committer.is_committed)
        except FileNotFoundError:
            pass
        except (CorruptError, NoSpaceError) as exc:
            log.warning("what crashed commits left stays until the log can be followed: %s", exc)

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
        self.objects.reserve.fill()

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
            "read_only": not os.access(self.path, os.W_OK),
            "trouble": self.log.trouble and str(self.log.trouble),
        }

    def unique_size(self, version: VersionRecord) -> int:
        """Return the bytes that are stored for one version alone."""
        from mregfs.registry.read.usage import unique_size

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
        self.directory.close()


def _open_index(held: Held) -> IndexLmdb:
    """Open the index in the store where it is this user's and can be mapped, else in his cache.

    Who has no cache either, such as a service without a home, has it in a temporary directory.
    """
    top = held.top
    tables = (*STATE_TABLES, *CONTENT_TABLES)

    def anchored(applied: int) -> bool:
        try:
            return not applied or held.objects.exists(entry_key(applied))
        except MregfsError:
            return False

    if held.writable and not is_remote(top.fd):
        try:
            return IndexLmdb("index", tables, schema=INDEX_SCHEMA, within=top, anchored=anchored)
        except ForbiddenError as exc:
            log.info("not using the store's own index: %s", exc)
    for find in (cache_index, temporary_index):
        where = find(held.description.id)
        if where is None:
            continue
        try:
            where.parent.mkdir(parents=True, exist_ok=True)
            return IndexLmdb(where, tables, schema=INDEX_SCHEMA)
        except (ForbiddenError, OSError) as exc:
            log.info("not using an index in %s: %s", where, exc)
    raise ForbiddenError(
        f"there is no directory for the index of {top.path!r} that this user may write in",
        "set XDG_CACHE_HOME to one",
    )


def new_id() -> str:
    """Return a random id: 32 hexadecimal digits."""
    return secrets.token_hex(16)
