"""The policy `coalesce = aliased`: what an alias points at is kept in one piece.

Decided here: which versions that are (of every alias but `latest`, of artifacts and collections),
in which order they get their copies, that none of them is evicted for another. Not decided here:
how a copy is made (`coalesce`), when to look (the daemon, after each log entry).
"""

import logging
from collections.abc import Callable, Iterable, Iterator

from mregfs.errors import MregfsError, NoSpaceError, UnavailableError
from mregfs.model import changes as facts
from mregfs.model.changes import Entry
from mregfs.model.names import LATEST
from mregfs.model.records import AliasRecord, OwnerRecord, VersionRecord
from mregfs.model.state import State
from mregfs.ports.index import Index
from mregfs.registry.keep.coalesce import CoalesceProgress, Coalescer
from mregfs.registry.log.replay import read_head

__all__ = ["Aliased"]

log = logging.getLogger(__name__)

_LATER = (NoSpaceError, UnavailableError)
"""What may be better at the next look. A disk that cannot read a pack now will not then."""

_Key = tuple[int, str]
"""Inode of an owner, and an alias of it."""


class Aliased:
    """One process's view of what aliases point at. Used by one thread at a time.

    Args:
        index: of the store.
        entries_since: reads the log.
        coalescer: makes copies.
    """

    def __init__(
        self, index: Index, entries_since: Callable[[int], Iterator[Entry]], coalescer: Coalescer
    ) -> None:
        self._index = index
        self._entries_since = entries_since
        self._coalescer = coalescer
        self._seen = -1
        self._targets: dict[_Key, VersionRecord] = {}
        self._files: dict[int, dict[str, int]] = {}
        self._waiting: dict[int, VersionRecord] = {}

    def follow(self, progress: CoalesceProgress | None = None) -> None:
        """Look where aliases went since the last call, and give what they point at its copies.

        A version that cannot have them keeps no other one waiting; where it is for want of space
        or of an answer, the next call tries again.

        Raises:
            Stopped: by `progress`; the next call goes on with what is left.
        """
        if self._seen < 0:
            self._look_at_all()
        else:
            self._look_at_new()
        for inode, version in reversed(list(self._waiting.items())):  # the last move comes first
            if self._make(version, progress):
                del self._waiting[inode]

    def _make(self, version: VersionRecord, progress: CoalesceProgress | None) -> bool:
        """Make what copies can be made for a version; False: try again later."""
        try:
            files = self._files_of(version)
            wanted = {digest for each in self._targets.values() for digest in self._files_of(each)}
            fits = self._coalescer.coalesce(version, files, wanted, progress)
        except _LATER as exc:
            log.info("v%d (%s) has no whole-file copies yet: %s", *_named(version), exc)
            return False
        except MregfsError as exc:
            _complain(version, exc)
            return True
        if not fits:
            log.info(
                "not all of v%d (%s) fits into the cache of whole files; see cache_size",
                *_named(version),
            )
        return True

    def _files_of(self, version: VersionRecord) -> dict[str, int]:
        files = self._files.get(version.inode)
        if files is None:
            try:
                files = self._coalescer.files(version)
            except _LATER:
                raise
            except MregfsError as exc:
                _complain(version, exc)
                files = {}
            self._files[version.inode] = files
        return files

    # ---- which versions

    def _look_at_all(self) -> None:
        with self._index.read() as view:
            state = State(view)
            self._seen = read_head(view).sequence
            aliases = sorted(_aliases(state), key=lambda each: each[1].moved_at_ns)
            for owner, alias in aliases:
                self._point(state, owner, alias)
        self._coalescer.sweep()

    def _look_at_new(self) -> None:
        moved: dict[tuple[str, str, str], None] = {}
        deleted = False
        head = self._index.applied()
        for entry in self._entries_since(self._seen):
            if entry.sequence > head:
                break
            self._seen = entry.sequence
            for request in entry.requests:
                for change in request.changes:
                    if isinstance(change, facts.AliasSet | facts.AliasDropped):
                        moved[change.project, change.name, change.alias] = None
                    deleted |= isinstance(change, facts.VersionDeleted)
        if moved:
            self._look_at(moved)
        if deleted:
            self._coalescer.sweep()

    def _look_at(self, moved: Iterable[tuple[str, str, str]]) -> None:
        with self._index.read() as view:
            state = State(view)
            for key in [key for key in self._targets if state.alias(*key) is None]:
                del self._targets[key]
            for project, name, alias in moved:
                owner = state.owner(project, name)
                record = None if owner is None else state.alias(owner.inode, alias)
                if owner is not None and record is not None:
                    self._point(state, owner, record)
        alive = {version.inode for version in self._targets.values()}
        self._files = {inode: each for inode, each in self._files.items() if inode in alive}
        self._waiting = {inode: each for inode, each in self._waiting.items() if inode in alive}

    def _point(self, state: State, owner: OwnerRecord, alias: AliasRecord) -> None:
        if alias.name == LATEST:
            return
        version = state.resolve_number(owner, alias.number).version
        self._targets[owner.inode, alias.name] = version
        self._waiting.pop(version.inode, None)
        self._waiting[version.inode] = version


def _complain(version: VersionRecord, exc: MregfsError) -> None:
    log.error("v%d (%s) has no whole-file copies: %s", *_named(version), exc)


def _named(version: VersionRecord) -> tuple[int, str]:
    return version.number, version.digest[:12]


def _aliases(state: State) -> Iterator[tuple[OwnerRecord, AliasRecord]]:
    for project in state.projects():
        name = f"{project.entity}/{project.name}"
        for owners in (state.artifacts(name), state.collections(name)):
            for owner in owners:
                for alias in state.aliases(owner.inode):
                    yield owner, alias
