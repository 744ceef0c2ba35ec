"""Commits: how a directory becomes a version.

Decided here: the steps, and what each makes of what the one before it has found (`commit.md` §1):
entries, digests, a manifest, what is known, a plan, what is stored, commands. Not decided here: any
of the steps, what is undone when one fails (`unsettled`), whether the version may be
(`model.rules`). Any thread may commit.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import msgspec

from mregfs.errors import MregfsError, UnavailableError
from mregfs.model.commands import Command, CommitRequest
from mregfs.model.layout import Layout, encode_layout, layout_key
from mregfs.model.manifest import (
    Manifest,
    ManifestEntry,
    encode_manifest,
    make_manifest,
    manifest_digest,
    manifest_key,
)
from mregfs.model.plan import EMPTY, LARGE, make_plan
from mregfs.ports.index import Index
from mregfs.ports.intake import Intake
from mregfs.ports.objects import ObjectStore
from mregfs.ports.packs import PackStore
from mregfs.registry.log.log import Log
from mregfs.registry.read.content import Content
from mregfs.registry.write.cutting import CUT_FROM, cut
from mregfs.registry.write.dedup import Sharing
from mregfs.registry.write.hashing import hash_files
from mregfs.registry.write.neighbours import find_version, load_neighbours
from mregfs.registry.write.progress import CommitProgress, Meters
from mregfs.registry.write.soundness import require_sound
from mregfs.registry.write.storing import store_all
from mregfs.registry.write.unsettled import Unsettled

__all__ = ["Committer", "Prepared"]

log = logging.getLogger(__name__)


class Prepared(msgspec.Struct, frozen=True):
    """Content that is stored, and not yet a version."""

    commands: tuple[Command, ...]
    """What makes it a version; to be submitted in one transaction."""
    unsettled: Unsettled
    """What is to end then, one way or the other."""


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
        self, intake: Intake, request: CommitRequest, progress: CommitProgress | None = None
    ) -> Prepared:
        """Store the content of a directory, so that `Prepared.commands` make it a version.

        Whatever is raised, KeyboardInterrupt too: the directory is as it was.

        Raises:
            InvalidError: something in the directory cannot be in a version.
            HostError: EACCES, whoever asks may not take the draft, or not read all of it.
            ConflictError: files are open for writing, or change meanwhile; all are named.
            NoSpaceError: there is no room for what must be copied.
        """
        with Unsettled(self.log, self.objects, self._packs, intake, self.protect) as unsettled:
            unsettled.since = self.log.catch_up(strict=True)
            intake.recover(self.is_committed)
            layout_id = self.new_id()
            intake.take(layout_id, unsettled.since)
            entries = intake.scan()
            sizes = {entry.path: entry.size for entry in entries if entry.kind == "file"}
            meters = Meters(progress, sum(sizes.values()))
            intake.seal([path for path, size in sizes.items() if size >= LARGE], meters.copied)
            with self._pool() as threads:
                # Cut by the threads that digest the same bytes next.
                cuts = {
                    path: threads.submit(cut, partial(intake.read_at, path), size)
                    for path, size in sizes.items()
                    if size >= CUT_FROM
                }
                hashed = hash_files(intake, entries, threads, meters.hashed)
                manifest = make_manifest(
                    ManifestEntry(
                        entry.path,
                        entry.kind,
                        entry.size,
                        entry.executable,
                        hashed[entry.path].digest.hex() if entry.kind == "file" else "",
                        entry.target,
                    )
                    for entry in entries
                )
                encoded = encode_manifest(manifest)
                digest = manifest_digest(encoded)
                version = find_version(self._index, request, digest)
                if version is not None:
                    intake.verify()
                    stored = self._content.layout(version)
                    require_sound(version.number, stored, manifest, hashed, self._packs, threads)
                    plan, layout_id = EMPTY, version.layout
                else:
                    load_neighbours(self._index, self._content, request)
                    sharing = Sharing(self._index, self._packs, threads)
                    known = sharing.find(sizes, hashed, cuts, intake.read_at, self.new_id)
                    plan = make_plan(sizes, hashed, known, self.new_id)
            if version is None:
                layout = plan.layout(manifest)
                unsettled.layout = layout_id
                unsettled.published = partial(
                    self._index_content, request, digest, manifest, layout, layout_id
                )
                store_all(
                    plan,
                    (layout_key(layout_id), encode_layout(layout)),
                    (manifest_key(digest), encoded),
                    hashed,
                    intake=intake,
                    packs=self._packs,
                    objects=self.objects,
                    unsettled=unsettled,
                    report=meters.stored,
                )
            commands = request.commands(
                digest=digest,
                layout=layout_id,
                size=manifest.size,
                files=manifest.files,
                entries=len(manifest.entries),
                packs=plan.new_packs(),
                shared=plan.shared_packs(),
                known=version is not None,
            )
            return Prepared(commands, unsettled)

    @contextmanager
    def _pool(self) -> Iterator[Executor]:
        """Give threads; when something is raised, what they have not begun is given up."""
        with ThreadPoolExecutor(self._threads, "commit", self._begin_thread) as threads:
            try:
                yield threads
            except BaseException:
                threads.shutdown(cancel_futures=True)
                raise

    def is_committed(self, layout: str, since: int) -> bool:
        """Tell whether the log, after the entry `since`, has a version with this layout.

        Raises:
            UnavailableError: that is in doubt.
        """
        known = self.log.has_layout(layout, since)
        if known is None:
            raise UnavailableError("an append is still in doubt", "try again later")
        return known

    def _index_content(
        self, request: CommitRequest, digest: str, manifest: Manifest, layout: Layout, id_: str
    ) -> None:
        """Put the content of a new version into the index; if that fails it is loaded later."""
        version = find_version(self._index, request, digest)
        if version is None or version.layout != id_:
            return
        try:
            self._content.add(version, manifest, layout)
        except MregfsError as exc:
            log.warning("content of v%d is not in the index yet: %s", version.number, exc)
