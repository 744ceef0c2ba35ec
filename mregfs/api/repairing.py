"""Repairing a store: the order of it, and what is done where nothing is left.

Decided here: the log first, then the versions, then checkpoints and leftovers; that each step is
said before it is done. Not decided here: what a step is (`registry/keep/repair`,
`registry/keep/repair_packs`).
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator

from mregfs.errors import CorruptError, InvalidError, MregfsError
from mregfs.model.commands import MarkDamage, User
from mregfs.model.grammar import Statement
from mregfs.model.names import DEFAULT_PROJECT
from mregfs.model.reference import parse_location
from mregfs.registry.keep.check import Checker, CheckProgress, Pace
from mregfs.registry.keep.check_content import versions_of
from mregfs.registry.keep.findings import Report
from mregfs.registry.keep.repair import LogRepair, Step, lost_versions, repair_contents
from mregfs.registry.keep.repair_packs import PackRepair
from mregfs.wiring.opening import open_store
from mregfs.wiring.store import Store

__all__ = ["Repairer", "checker_of"]


def checker_of(store: Store) -> Checker:
    """Return what checks a store."""
    return Checker(
        store.objects,
        store.packs,
        store.index,
        store.whole_files,
        catch_up=store.log.catch_up,
        features=store.features(),
        fresh=store.fresh_index(),
        leftovers=store.leftovers,
    )


class Repairer:
    """Repairs one store.

    Args:
        store: open for writing.
        tell: told of each step before it is done.
        dry_run: only tell.
        data: also look at every byte.
        progress: called now and then while something is checked.
    """

    def __init__(
        self,
        store: Store,
        tell: Callable[[Step], None],
        *,
        dry_run: bool,
        data: bool,
        progress: CheckProgress,
    ) -> None:
        self._store = store
        self._tell = tell
        self._dry_run = dry_run
        self._data = data
        self._progress = progress

    def run(self, other: str | os.PathLike[str] | None) -> Report:
        """Repair what can be, say of the rest that it is lost, and return what a check finds then.

        Args:
            other: a copy of the store, such as a backup, to take from.
        """
        with _opened(other, self._store.id) as copy:
            report = self._check()[0]
            objects = copy.objects if copy else None
            steps = LogRepair(self._store.objects, self._store.index, objects).plan(report)
            self._carry_out(steps)
            report, checker = self._check()
            if not self._is_readable():
                self._carry_out([self._rebuilding()])
                if self._dry_run:
                    return report
                report, checker = self._check()
            self._repair_versions(report, checker, copy)
            self._tidy(report)
        return report if self._dry_run else self._check()[0]

    def _is_readable(self) -> bool:
        """Tell whether the index can say which versions there are."""
        try:
            with self._store.index.read() as view:
                for _ in versions_of(view):
                    pass
        except CorruptError:
            return False
        return True

    def _rebuilding(self) -> Step:
        return Step("rebuild the index of this host", lambda: _rebuild(self._store))

    def _check(self) -> tuple[Report, Checker]:
        checker = checker_of(self._store)
        with self._store.open_scanner() as scanner:
            report = checker.check(
                scanner=scanner if self._data else None,
                pace=Pace(0, time.time_ns, time.sleep),
                progress=self._progress,
            )
        return report, checker

    def _carry_out(self, steps: list[Step]) -> None:
        for step in steps:
            self._tell(step)
            if not self._dry_run:
                step.do()

    def _repair_versions(self, report: Report, checker: Checker, copy: Store | None) -> None:
        store = self._store
        with store.index.read() as view:
            versions = dict(versions_of(view))
        objects = copy.objects if copy else None
        found = repair_contents(
            report.findings, versions, store.objects, store.index, objects, store.packs.size
        )
        self._carry_out(found)
        if found and not self._dry_run:
            report, checker = self._check()  # now it is known which packs they need
        damaged = [
            key for each in report.findings if each.kind in ("pack", "data") for key in each.keys
        ]
        assert checker.content is not None
        packs = PackRepair(
            store.packs,
            store.whole_files,
            copy.packs if copy else None,
            checker.content.files(),
            checker.content.sizes(),
        )
        mended = packs.plan(list(dict.fromkeys(damaged)))
        self._carry_out(list(mended.values()))
        done = set(mended)
        if self._dry_run:
            done |= {key for each in found for key in each.what.split() if "/" in key}
        lost = lost_versions(report.findings, done)
        self._carry_out([self._marking(name, what) for name, what in lost.items()])
        if self._data and not self._dry_run:
            self._unmark()

    def _marking(self, name: str, damage: str) -> Step:
        what = f"say in the log that {name} is damaged" if damage else f"say that {name} is sound"
        return Step(what, lambda: self._mark(name, damage), lost=bool(damage))

    def _mark(self, name: str, damage: str) -> None:
        command = MarkDamage(parse_location(name, DEFAULT_PROJECT), damage[:1000])
        who = User(os.geteuid(), frozenset({os.getegid()}))
        self._store.changes.submit([Statement(command)], who, reason="mregfs fsck --repair")

    def _unmark(self) -> None:
        """Say of versions that were marked, and have lost nothing any more, that they are sound."""
        report, _ = self._check()
        bad = {name for each in report.findings for name in each.versions}
        with self._store.index.read() as view:
            marked = [name for name, version in versions_of(view) if version.damage]
        self._carry_out([self._marking(name, "") for name in marked if name not in bad])

    def _tidy(self, report: Report) -> None:
        """Make checkpoints again, the index and what is only a copy; remove leftovers."""
        store, steps = self._store, []
        kinds = {each.kind for each in report.findings}
        for finding in report.findings:
            for key in finding.keys:
                if finding.kind == "checkpoint":
                    steps.append(Step(f"delete {key}, which is damaged", _deleting(store, key)))
                elif finding.kind == "leftover":
                    steps.append(Step(f"remove {key}", _unlinking(store, key)))
                elif finding.kind == "copy":
                    steps.append(Step(f"delete the copy {key}", _dropping(store, key)))
        if "index" in kinds and any(each.must and each.kind == "index" for each in report.findings):
            steps.append(self._rebuilding())
        if "checkpoint" in kinds:
            steps.append(Step("write a checkpoint", lambda: _checkpoint(store)))
        self._carry_out(steps)


def _deleting(store: Store, key: str) -> Callable[[], None]:
    return lambda: store.objects.delete(key)


def _unlinking(store: Store, name: str) -> Callable[[], None]:
    return lambda: store.remove_leftover(name)


def _dropping(store: Store, digest: str) -> Callable[[], None]:
    return lambda: store.whole_files.delete(digest)


def _rebuild(store: Store) -> None:
    store.log.rebuild(store.fresh_index())


def _checkpoint(store: Store) -> None:
    store.log.checkpoint()


@contextlib.contextmanager
def _opened(other: str | os.PathLike[str] | None, store_id: str) -> Iterator[Store | None]:
    if other is None:
        yield None
        return
    copy = open_store(other, read_only=True)
    try:
        if copy.id != store_id:
            raise InvalidError(
                f"{os.fspath(other)} is another store, not a copy of this one",
                "name a backup of it with --from",
            )
        with contextlib.suppress(MregfsError):
            copy.log.catch_up()
        yield copy
    finally:
        copy.close()
