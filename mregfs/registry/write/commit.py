"""Commits: how a directory becomes a version.

Decided here: the order (seal, digest, packs, layout, manifest, log entry, index) and what is undone
when a step fails (`commit.md`). Not decided here: which files become packs (`packing`), how a file
is kept from changing (the intake), whether the version may be (`model.rules`). Any thread may
commit.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType

from mregfs.errors import CorruptError, ExistsError, MregfsError, UnavailableError
from mregfs.model.commands import Command, CommitRequest
from mregfs.model.layout import Layout, encode_layout, layout_key, make_layout
from mregfs.model.manifest import (
    Manifest,
    ManifestEntry,
    encode_manifest,
    make_manifest,
    manifest_digest,
    manifest_key,
)
from mregfs.model.records import VersionRecord
from mregfs.model.state import State
from mregfs.ports.index import Index
from mregfs.ports.intake import Intake, IntakeEntry
from mregfs.ports.objects import ObjectStore
from mregfs.ports.packs import PackStore
from mregfs.registry.log.log import Log
from mregfs.registry.read.content import Content
from mregfs.registry.write.hashing import LARGE, Hashed, hash_files
from mregfs.registry.write.packing import Packing

__all__ = ["CommitProgress", "Committer", "Prepared"]

log = logging.getLogger(__name__)

CommitProgress = Callable[[str, int, int], None]
"""Called with the stage (`copy`, `hash`, `store`), bytes done, and their total; in the caller's
thread. What it raises ends the commit."""

_NEIGHBOURS = 8  # newest versions of the artifact whose content is looked through for shared bytes


class Prepared:
    """Content that is stored, and not yet a version. End it with `done` or with `abort`."""

    def __init__(
        self,
        committer: "Committer",
        intake: Intake,
        request: CommitRequest,
        manifest: Manifest,
        since: int,
        layout_id: str,
    ) -> None:
        self.manifest = manifest
        data = encode_manifest(manifest)
        self.digest = manifest_digest(data)
        self.layout_id = ""
        """Of the new layout; empty when the content is a version already."""
        self.commands: tuple[Command, ...] = ()
        """What makes it a version; to be submitted in one transaction."""
        self._committer = committer
        self._intake = intake
        self._request = request
        self._since = since
        self._new_layout_id = layout_id
        self._data = data
        self._packing: Packing | None = None
        self._layout: Layout | None = None
        self._ended = False

    def done(self) -> None:
        """The transaction is in the log: give up the draft, put the content into the index."""
        if self._ended:
            return
        self._ended = True
        try:
            if self._packing is not None and self._layout is not None:
                self._settle(self._packing, self._layout)
        except MregfsError as exc:
            log.warning("the commit succeeded, but left something behind: %s", exc)
        self._intake.release()
        if self._packing is not None:
            self._committer.protect(self._packing.written)

    def _settle(self, packing: Packing, layout: Layout) -> None:
        committer = self._committer
        if committer.log.has_layout(self.layout_id, self._since) is False:
            # Somebody committed the same content meanwhile: ours is not needed.
            packing.discard()
            committer.objects.delete(layout_key(self.layout_id))
            return
        version = committer.find(self._request, self.digest)
        if version is not None and version.layout == self.layout_id:
            committer.index_content(version, self.manifest, layout)

    def abort(self) -> None:
        """The transaction failed: put the draft back as it was, delete what was stored.

        Safe at any point, also when it turns out that the transaction is in the log after all, or
        that nobody can say: then all stays where it is until that is known.
        """
        if self._ended:
            return
        try:
            known = self._committer.log.has_layout(self.layout_id, self._since)
        except MregfsError as exc:
            log.warning("cannot tell whether the commit succeeded: %s", exc)
            known = None
        if known:
            self.done()
            return
        self._ended = True
        if known is None:
            self._intake.abandon()
            return
        try:
            if self._packing is not None:
                self._packing.undo()
            if self._layout is not None:
                self._committer.objects.delete(layout_key(self.layout_id))
        except MregfsError as exc:
            log.warning("a failed commit left something for gc: %s", exc)
        finally:
            self._intake.restore()

    # ---- what `Committer.prepare` does in order

    def reuse(self, version: VersionRecord) -> None:
        """The artifact has a version with this content: nothing needs to be stored."""
        self._set_commands(version.layout, known=True)

    def store(self, packing: Packing, hashed: dict[str, Hashed], files: list[IntakeEntry]) -> None:
        """Store packs, layout and manifest."""
        committer = self._committer
        self._packing = packing
        places = packing.plan(files, hashed)
        positions = {entry.path: n for n, entry in enumerate(self.manifest.entries, 1)}
        files_at = {positions[path]: place for path, place in places.items()}
        packs = packing.packs()
        layout = make_layout(files_at, packs)
        self.layout_id = self._new_layout_id
        self._intake.announce(packing.adoptions)
        packing.store()
        self._intake.verify()
        self._layout = layout
        committer.objects.create(layout_key(self.layout_id), encode_layout(layout))
        try:
            committer.objects.create(manifest_key(self.digest), self._data)
        except ExistsError:
            pass
        new = {pack: info.size for pack, info in packs.items() if pack in packing.written}
        self._set_commands(self.layout_id, new, [pack for pack in packs if pack not in new])

    def _set_commands(
        self,
        layout: str,
        packs: Mapping[str, int] = MappingProxyType({}),
        shared: Sequence[str] = (),
        *,
        known: bool = False,
    ) -> None:
        self.commands = self._request.commands(
            digest=self.digest,
            layout=layout,
            size=self.manifest.size,
            files=self.manifest.files,
            entries=len(self.manifest.entries),
            packs=packs,
            shared=shared,
            known=known,
        )


class Committer:
    """Makes versions of directories.

    Args:
        threads: how many files or spans are digested at a time; the number of cores.
        begin_thread: called in each of those threads first: the host may let others go before it.
        protect: called with the packs of each commit once they are in the log for good, so that the
            host may guard them; returns at once.
    """

    def __init__(
        self,
        registry_log: Log,
        objects: ObjectStore,
        packs: PackStore,
        index: Index,
        content: Content,
        *,
        new_id: Callable[[], str],
        threads: int,
        begin_thread: Callable[[], None] = lambda: None,
        protect: Callable[[Sequence[str]], None] = lambda packs: None,
    ) -> None:
        self.log = registry_log
        self.protect = protect
        self.objects = objects
        self.new_id = new_id
        self._packs = packs
        self._index = index
        self._content = content
        self._threads = threads
        self._begin_thread = begin_thread

    def prepare(
        self,
        intake: Intake,
        request: CommitRequest,
        *,
        progress: CommitProgress | None = None,
    ) -> Prepared:
        """Store the content of a directory, so that `Prepared.commands` make it a version.

        Whatever is raised, KeyboardInterrupt too: the directory is as it was.

        Raises:
            InvalidError: something in the directory cannot be in a version.
            HostError: EACCES, whoever asks may not take the draft, or not read all of it.
            ConflictError: files are open for writing, or change meanwhile; all are named.
            NoSpaceError: there is no room for what must be copied.
        """
        prepared: Prepared | None = None
        try:
            since = self.log.catch_up(strict=True)
            intake.recover(self.is_committed)
            layout_id = self.new_id()
            intake.take(layout_id, since)
            entries = intake.scan()
            files = [entry for entry in entries if entry.kind == "file"]
            copying = _Meter(progress, "copy", sum(entry.size for entry in files))
            intake.seal([entry.path for entry in files if entry.size >= LARGE], copying.add)
            with ThreadPoolExecutor(self._threads, "commit", self._begin_thread) as threads:
                try:
                    hashing = _Meter(progress, "hash", sum(entry.size for entry in files))
                    storing = _Meter(progress, "store", 0)
                    packing = Packing(
                        intake, self._packs, self._index, threads, self.new_id, storing.add
                    )
                    packing.begin(files)
                    hashed = hash_files(intake, files, threads, hashing.add)
                    manifest = make_manifest(_described(entry, hashed) for entry in entries)
                    prepared = Prepared(self, intake, request, manifest, since, layout_id)
                    version = self.find(request, prepared.digest)
                    if version is not None:
                        intake.verify()
                        self._check_stored(version, manifest, hashed, packing)
                        prepared.reuse(version)
                        return prepared
                    self._load_neighbours(request)
                    prepared.store(packing, hashed, files)
                except BaseException:
                    threads.shutdown(cancel_futures=True)
                    raise
        except BaseException:
            if prepared is None:
                intake.restore()
            else:
                prepared.abort()
            raise
        return prepared

    def _check_stored(
        self,
        version: VersionRecord,
        manifest: Manifest,
        hashed: Mapping[str, Hashed],
        packing: Packing,
    ) -> None:
        """Verify a version that stands for a draft with the same content, which then goes."""
        files = self._content.layout(version).files
        for position, entry in enumerate(manifest.entries, 1):
            if entry.kind != "file" or packing.is_sound(files[position], hashed[entry.path]):
                continue
            raise CorruptError(
                f"v{version.number} has this content already, but {entry.path!r} is damaged there",
                f"delete the version and commit again: mregfs rm --force NAME:v{version.number}",
            )

    def is_committed(self, layout: str, since: int) -> bool:
        """Tell whether the log, after the entry `since`, has a version with this layout.

        Raises:
            UnavailableError: that is in doubt.
        """
        known = self.log.has_layout(layout, since)
        if known is None:
            raise UnavailableError("an append is still in doubt", "try again later")
        return known

    def find(self, request: CommitRequest, digest: str) -> VersionRecord | None:
        """Return the version of the request's artifact that has this content, or None."""
        with self._index.read() as view:
            state = State(view)
            artifact = state.artifact(request.artifact.project, request.artifact.name)
            if artifact is None:
                return None
            number = state.sound_number(artifact.inode, digest)
            return None if number is None else state.version(artifact.inode, number)

    def index_content(self, version: VersionRecord, manifest: Manifest, layout: Layout) -> None:
        """Put the content of a new version into the index; if that fails it is loaded later."""
        try:
            self._content.add(version, manifest, layout)
        except MregfsError as exc:
            log.warning("content of v%d is not in the index yet: %s", version.number, exc)

    def _load_neighbours(self, request: CommitRequest) -> None:
        """Have the versions in the index that the new one is likely to share bytes with."""
        versions: list[VersionRecord] = []
        with self._index.read() as view:
            state = State(view)
            artifact = state.artifact(request.artifact.project, request.artifact.name)
            if artifact is not None:
                newest = state.versions(artifact.inode, reverse=True)
                versions += [
                    version for version, _ in zip(newest, range(_NEIGHBOURS), strict=False)
                ]
            for parent in request.parents:
                try:
                    versions.append(state.resolve(parent).version)
                except MregfsError:
                    continue  # the rules will say so
        for version in versions:
            try:
                self._content.ensure(version)
            except CorruptError as exc:
                log.error("not sharing with v%d: %s", version.number, exc)


class _Meter:
    def __init__(self, progress: CommitProgress | None, stage: str, total: int) -> None:
        self._progress = progress
        self._stage = stage
        self._done = 0
        self.total = total

    def add(self, count: int) -> None:
        self._done += count
        if self._progress is not None:
            self._progress(self._stage, self._done, max(self.total, self._done))


def _described(entry: IntakeEntry, hashed: dict[str, Hashed]) -> ManifestEntry:
    if entry.kind == "file":
        digest = hashed[entry.path].digest.hex()
        return ManifestEntry(entry.path, "file", entry.size, entry.executable, digest)
    return ManifestEntry(entry.path, entry.kind, target=entry.target)
