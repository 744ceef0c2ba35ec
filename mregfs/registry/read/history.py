"""History: what happened to an alias, a version, an artifact or a collection, newest first.

Decided here: which facts concern what was asked about, and how each is said. Not decided here: how
the log is read (`log`).

Moves of an alias come from the index; for all else it knows which entries of the log to read, which
are read backwards, as they are taken.
"""

from collections.abc import Callable, Iterator

import msgspec

from mregfs.errors import InvalidError
from mregfs.model import changes as facts
from mregfs.model.records import ReflogRecord
from mregfs.model.reference import Location
from mregfs.model.state import State
from mregfs.ports.index import Index
from mregfs.registry.log.log import Log
from mregfs.registry.read.results import HistoryLine

__all__ = ["HistoryLine", "history", "history_from"]

_MARK_HINT = "write what an answer gave as `more`"


class _Mark(msgspec.Struct, frozen=True):
    """Where a telling of history was left."""

    sequence: int
    told: int
    """Lines of this entry that were told."""
    name: str
    """Of the subject, when this entry was begun: going back, renames are met."""

    def __str__(self) -> str:
        return f"{self.sequence}.{self.told}.{self.name}"


def _parse_mark(text: str) -> _Mark:
    sequence, _, rest = text.partition(".")
    told, _, name = rest.partition(".")
    if not all(word.isascii() and word.isdigit() and len(word) < 19 for word in (sequence, told)):
        raise InvalidError(f"{text!r} is no place in a history", _MARK_HINT)
    return _Mark(int(sequence), int(told), name)


def history(log: Log, index: Index, location: Location) -> Iterator[HistoryLine]:
    """Return what happened to what a location names, newest first.

    Raises:
        NotFoundError: it does not exist. An alias may be gone; its moves are known.
    """
    lines = history_from(log, index, location)
    return (line for line, _ in lines)


def history_from(
    log: Log,
    index: Index,
    location: Location,
    after: str = "",
    may_read: Callable[[str], bool] = lambda project: True,
) -> Iterator[tuple[HistoryLine, str]]:
    """Return lines as `history` does, each with what `after` is to be to go on behind it.

    What happened in projects that may not be read is left out.

    Raises:
        NotFoundError: it does not exist. An alias may be gone; its moves are known.
        InvalidError: `after` was never given out.
    """
    mark = _parse_mark(after) if after else None
    with index.read() as view:
        state = State(view)
        owner = state.find_owner(location)
        if location.alias is not None and location.when is None:
            moves = [
                _move(location.alias, each) for each in state.reflog(owner.inode, location.alias)
            ]
            if moves:
                return _marked(moves, mark)
        number = None if location.is_owner else state.find_number(owner, location)
        entries = list(state.owner_entries(owner.inode))
    found = _OwnerHistory(owner.project, mark.name if mark else owner.name, number, may_read)
    if mark is not None:
        entries = [each for each in entries if each <= mark.sequence]
    return found.lines(log, entries, mark)


def _marked(moves: list[HistoryLine], mark: _Mark | None) -> Iterator[tuple[HistoryLine, str]]:
    last, told = 0, 0
    for line in moves:
        told = told + 1 if line.sequence == last else 1
        last = line.sequence
        if mark is None or (-last, told) > (-mark.sequence, mark.told):
            yield line, str(_Mark(last, told, ""))


def _move(alias: str, move: ReflogRecord) -> HistoryLine:
    what = _moved(alias, move.previous, move.number)
    return HistoryLine(move.sequence, move.at_ns, move.author, move.reason, what)


def _moved(alias: str, previous: int | None, number: int | None) -> str:
    before = "nothing" if previous is None else f"v{previous}"
    after = "nothing" if number is None else f"v{number}"
    return f"{alias}: {before} -> {after}"


class _OwnerHistory:
    """Goes back in the log for one artifact or collection, or one number of it.

    `name` follows renames backwards; `ended` is set where the history begins.
    """

    def __init__(
        self, project: str, name: str, number: int | None, may_read: Callable[[str], bool]
    ) -> None:
        self._project = project
        self._name = name
        self._number = number
        self._may_read = may_read
        self._ended = False

    def lines(
        self, log: Log, entries: list[int], mark: _Mark | None
    ) -> Iterator[tuple[HistoryLine, str]]:
        """Yield what happened in the log entries that are about it, newest first, with marks."""
        for sequence in entries:
            name = self._name
            skipped = mark.told if mark is not None and sequence == mark.sequence else 0
            for told, line in enumerate(self._lines_of(log.entry(sequence)), 1):
                if told > skipped:
                    yield line, str(_Mark(sequence, told, name))
            if self._ended:
                return

    def _lines_of(self, entry: facts.Entry) -> Iterator[HistoryLine]:
        for request in reversed(entry.requests):
            for change in reversed(request.changes):
                what = self._say(change)
                if what:
                    yield HistoryLine(
                        entry.sequence, entry.at_ns, request.signature, request.reason, what
                    )
                if self._ended:
                    return

    def _say(self, change: facts.Change) -> str:
        """Return what a fact says about our subject; empty when nothing."""
        if isinstance(change, facts.Linked):
            return self._linked(change)
        if change.project != self._project:
            return ""
        match change:
            case facts.VersionLogged() if self._is(change.artifact, change.number):
                self._ended = self._number is not None
                files = "1 file" if change.files == 1 else f"{change.files} files"
                size = "1 byte" if change.size == 1 else f"{change.size} bytes"
                return f"v{change.number} committed: {files}, {size}"
            case facts.VersionDeleted() if self._is(change.artifact, change.number):
                return f"v{change.number} deleted"
            case facts.Unlinked() if self._is(change.collection, change.number):
                return f"v{change.number} unlinked"
            case facts.AliasSet() if self._is(change.name, change.number, change.previous):
                return _moved(change.alias, change.previous, change.number)
            case facts.AliasDropped() if self._is(change.name, change.previous):
                return _moved(change.alias, change.previous, None)
            case facts.Tagged() if self._is(change.name, change.number):
                return f"{_subject(change.number)}tags: {', '.join(change.tags) or 'none'}"
            case facts.Described() if self._is(change.name, change.number):
                return f"{_subject(change.number)}description changed"
            case facts.MetadataSet() if self._is(change.name, change.number):
                return f"{_subject(change.number)}metadata changed"
            case facts.DamageMarked() if self._is(change.name, change.number):
                said = f"damaged: {change.damage}" if change.damage else "sound again"
                return f"{_subject(change.number)}{said}"
        return "" if self._number is not None else self._say_of_owner(change)

    def _say_of_owner(self, change: facts.Change) -> str:
        match change:
            case facts.ArtifactCreated() | facts.CollectionCreated() if change.name == self._name:
                self._ended = True
                return f"created, of type {change.type}"
            case facts.OwnerDeleted() if change.name == self._name:
                self._ended = True  # an earlier one of that name
            case facts.CollectionRenamed() if change.new_name == self._name:
                self._name = change.name
                return f"renamed from {change.name}"
            case facts.AliasProtected() if change.name == self._name:
                return f"{change.alias}: protected by group {change.group}"
            case facts.AliasUnprotected() if change.name == self._name:
                return f"{change.alias}: not protected any more"
        return ""

    def _linked(self, change: facts.Linked) -> str:
        if change.project == self._project and self._is(change.collection, change.number):
            self._ended = self._number is not None
            if not self._may_read(change.source_project):
                return f"v{change.number} linked"
            source = f"{change.source_project}/{change.artifact}:v{change.version}"
            return f"v{change.number} linked: {source}"
        if (
            change.source_project == self._project
            and self._is(change.artifact, change.version)
            and self._may_read(change.project)
        ):
            collection = f"{change.project}/{change.collection}"
            return f"v{change.version} linked into {collection} as v{change.number}"
        return ""

    def _is(self, name: str, *numbers: int | None) -> bool:
        return name == self._name and (self._number is None or self._number in numbers)


def _subject(number: int | None) -> str:
    return "" if number is None else f"v{number} "
