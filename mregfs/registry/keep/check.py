"""Checks a store: is everything that the log speaks of there, and what it was?

Decided here: what is checked in which order (`check.md`). Not decided here: the single checks
(`check_log`, `check_content`, `check_data`), what a person is told.

Nothing is changed, but that the index of this host is brought up to the log's end, as by any other
command; and not even that when the log is damaged.
"""

from collections.abc import Callable, Iterable, Sequence

from mregfs.errors import MregfsError
from mregfs.model.features import Features, require
from mregfs.model.records import VersionRecord
from mregfs.model.reference import Location
from mregfs.model.state import State
from mregfs.ports.host_cache import WholeFiles
from mregfs.ports.index import Index
from mregfs.ports.objects import ObjectStore
from mregfs.ports.packs import PackScanner, PackStore
from mregfs.registry.keep.check_content import ContentCheck, versions_of
from mregfs.registry.keep.check_data import DataCheck, Pace
from mregfs.registry.keep.check_log import LogCheck
from mregfs.registry.keep.findings import CheckProgress, Finding, Findings, Report

__all__ = ["CheckProgress", "Checker", "Finding", "Pace", "Report"]


def _silent(stage: str, done: int, total: int) -> None:
    pass


class Checker:
    """Checks one store.

    Args:
        objects: of the store.
        packs: of the store.
        index: of this host.
        whole: whole-file copies, of this host.
        catch_up: brings the index up to the log's end.
        fresh: an empty index.
        features: of the store.
        leftovers: names temporary files that nobody uses any more.
    """

    def __init__(
        self,
        objects: ObjectStore,
        packs: PackStore,
        index: Index,
        whole: WholeFiles,
        *,
        catch_up: Callable[[], int],
        fresh: Index,
        features: Features,
        leftovers: Callable[[], Iterable[str]],
    ) -> None:
        self._objects = objects
        self._packs = packs
        self._index = index
        self._whole = whole
        self._catch_up = catch_up
        self._fresh = fresh
        self._features = features
        self._leftovers = leftovers
        self.content: ContentCheck | None = None
        """What the last check looked at."""

    def check(
        self,
        locations: Sequence[Location] = (),
        *,
        scanner: PackScanner | None = None,
        pace: Pace | None = None,
        progress: CheckProgress = _silent,
    ) -> Report:
        """Check the log, and all versions or those that `locations` name.

        Args:
            locations: versions, artifacts or collections; none: everything, also what is left over.
            scanner: reads all bytes again and verifies them; None: that is left out.
            pace: how fast it reads.
            progress: called now and then.

        Raises:
            NotFoundError: a location names nothing.
            UnsupportedError: the store has a feature that who checks it must know.
        """
        require(self._features, "check", "the store")
        findings = Findings()
        self.content = content = ContentCheck(
            self._objects, self._packs, self._index, findings, progress
        )
        log_check = LogCheck(self._objects, self._index, self._fresh, findings, progress)
        log_check.run()
        if log_check.sound:
            self._catch_up()
            log_check.compare()
        # Of a damaged log, whichever index got further knows more of the versions.
        known = self._index if self._index.applied() > self._fresh.applied() else self._fresh
        with known.read() as view:
            if locations:
                state = State(view)
                chosen = dict(item for each in locations for item in _chosen(state, each))
            else:
                chosen = dict(versions_of(view))
        content.run(chosen.items(), len(chosen))
        if not locations:
            if log_check.sound:
                content.find_orphans()
            leftovers = list(self._leftovers())
            if leftovers:
                findings.should(
                    "leftover",
                    f"{len(leftovers)} temporary files were left by a crash",
                    "nothing: they are removed by the next writer after a day",
                    leftovers,
                    keys=leftovers,
                )
        if scanner is not None and pace is not None:
            data = DataCheck(self._packs, scanner, pace, findings, progress)
            data.run(content.files(), content.unusable, self._whole)
        return findings.report()


def _chosen(state: State, location: Location) -> Iterable[tuple[str, VersionRecord]]:
    """Yield name and record of the version, or of all versions, that a location names."""
    owner = state.find_owner(location)
    if not location.is_owner:
        numbers = [state.find_number(owner, location)]
    elif owner.kind == "artifact":
        numbers = [each.number for each in state.versions(owner.inode)]
    else:
        numbers = [each.number for each in state.links(owner.inode)]
    for number in numbers:
        try:
            artifact, version, _, _ = state.resolve_number(owner, number)
        except MregfsError:
            continue
        yield f"{artifact.project}/{artifact.name}:v{version.number}", version
