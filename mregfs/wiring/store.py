"""Everything of one open store, put together from adapters.

Decided here: what each use case is given, and what is made only when it is asked for. Not decided
here: how a store is opened (`opening`), where a host keeps its own things (`host_directories`), the
format of a store (`registry/format.md`).
"""

import contextlib
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

from mregfs.errors import CorruptError, MregfsError, NoSpaceError, NotFoundError
from mregfs.host.memory import memory_for_checkpoint
from mregfs.host.principals import principal
from mregfs.host.priority import let_others_go_first, read_when_idle
from mregfs.model.commands import Principal, User
from mregfs.model.features import Features
from mregfs.model.records import VersionRecord
from mregfs.model.state import State
from mregfs.ports.index import Index
from mregfs.ports.intake import Intake
from mregfs.registry.log.description import read_description
from mregfs.registry.log.log import Log
from mregfs.registry.read.content import Content, Verification
from mregfs.stores.index_lmdb import IndexLmdb
from mregfs.stores.whole_files_dir import WholeFilesDirectory
from mregfs.wiring.address import StoreAddress
from mregfs.wiring.host_directories import HostDirectories
from mregfs.wiring.place import Owner, Place

if TYPE_CHECKING:
    from mregfs.host.callers import Credentials
    from mregfs.host.temporary import TemporaryFiles
    from mregfs.registry.keep.coalesce import Coalescer
    from mregfs.registry.read.verifier import Verifier
    from mregfs.registry.write.changes import Changes
    from mregfs.registry.write.commit import Committer
    from mregfs.stores.scanner_direct import DirectScanner

__all__ = ["Store", "new_id"]

log = logging.getLogger(__name__)

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


class Store:
    """Everything of one open store. Close it when done.

    Args:
        address: where it is.
        place: what there is; the store's to close from now on, as all that follows.
        host: what this host keeps of it.
        index: of this host.
        read_only: nothing of it is changed.
        verification: what is verified when it is read.
        coalesced: whole-file copies are used for reading.
    """

    def __init__(
        self,
        address: StoreAddress,
        place: Place,
        host: HostDirectories,
        index: IndexLmdb,
        *,
        read_only: bool,
        verification: Verification,
        coalesced: bool = True,
    ) -> None:
        self.address = address
        self.host = host
        self.id = place.description.id
        self.description = place.description
        self.is_own = place.is_own
        """Its owner is this user."""
        self.read_only = read_only
        self.clock = time.time_ns
        self.objects = place.objects
        self.packs = place.packs
        self.index = index
        self._place = place
        self.log = Log(
            self.objects,
            self.index,
            clock=self.clock,
            new_id=new_id,
            host=socket.gethostname(),
            identify=self._identify,
            features=self.description.features,
            checkpoint_limit=memory_for_checkpoint,
            free_reserve=place.give_room,
        )
        self.verity = place.verity
        self.whole_files = WholeFilesDirectory(host.cache)
        self.content = Content(
            self.objects,
            self.packs,
            self.index,
            verification=verification,
            whole_files=self.whole_files if coalesced else None,
        )

    def _identify(self) -> None:
        """Check that the store is still the one that was opened."""
        found = read_description(self.objects, str(self.address))
        if found.id != self.id:
            raise NotFoundError(f"another store is in the place of {self.address}")

    @property
    def owner(self) -> Owner:
        """Whose it is."""
        return self._place.owner

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
        return principal(user.uid, user.gids, self.owner.uid)

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
        """Return the names of temporary files that crashes left, as each adapter has them."""
        now = time.time()
        return sorted(name for each in self._temporary() for name in each.stale(now))

    def remove_leftover(self, name: str) -> None:
        """Remove one of `leftovers`, if that can be."""
        for each in self._temporary():
            each.remove(name)

    def _temporary(self) -> "list[TemporaryFiles]":
        return [*self._place.temporary, self.whole_files.temporary]

    def features(self) -> Features:
        """Return what `store.json` and the log say that a program must know for what."""
        with self.index.read() as view:
            return {**self.description.features, **State(view).features()}

    def open_intake(self, path: str | os.PathLike[str]) -> Intake:
        """Return a directory or a file elsewhere as the source of one commit."""
        from mregfs.stores.intake_dir import IntakeDirectory

        return IntakeDirectory(self.host.drafts, self.packs, path)

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

        return IntakeDirectory(self.host.drafts, self.packs, DraftPlace(project, draft, inode), who)

    def hide(self) -> None:
        """Let nobody else in past the mounts, if not everybody may see all that is in the store."""
        from mregfs.model.rules.access import everybody_reads

        with self.index.read() as view:
            if self.read_only or everybody_reads(State(view)):
                return
        self._place.close_to_others()

    def recover(self) -> None:
        """Finish or undo what crashed commits left behind, where this user may write.

        It stays when the log cannot say what became of them.
        """
        try:
            if not self.read_only and self.host.drafts.listdir("intake"):
                self.log.catch_up(strict=True)
                self.open_intake(os.sep).recover(self.committer.is_committed)
        except FileNotFoundError:
            pass
        except (CorruptError, NoSpaceError) as exc:
            log.warning(
                "crashed commits are cleaned up when the log can be followed again: %s", exc
            )

    def load_ahead(self) -> None:
        """Import what the first commit would otherwise wait 25 ms for.

        And all else that the daemon may come to need: then there may be no descriptor left.
        """
        for name in _LATER:
            importlib.import_module(name)
        from mregfs.model.chunking import load_cutter

        load_cutter()

    def expect_appends(self) -> None:
        """Make ready for log entries: this process lives long."""
        self._place.expect_appends()

    def do_housekeeping(self) -> None:
        """Do what is due once a minute. With checkpoints no index is rebuilt from entry 1."""
        self._place.do_housekeeping(writing=not self.read_only)
        if self.read_only:
            return
        try:
            if self.log.checkpoint_due():
                self.log.checkpoint()
        except MregfsError as exc:
            log.warning("no checkpoint was written: %s", exc)

    def facts(self) -> dict[str, Any]:
        """Return what there is to tell of the store beside what is in it."""
        return {
            "store": str(self.address),
            "id": self.id,
            "format": self.description.format,
            "created_at": self.description.created_at,
            "entries": self.index.applied(),
            "free": self._place.free_bytes(),
            "index": self.index.path,
            "read_only": not self._place.writable,
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
        self.host.close()
        self._place.close()


def new_id() -> str:
    """Return a random id: 32 hexadecimal digits."""
    return secrets.token_hex(16)
