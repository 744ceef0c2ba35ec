"""What a check of a store finds, as one tells it to people and programs.

Decided here: what a finding says, and what makes a store damaged. Not decided here: what is looked
for (`check`).
"""

from collections.abc import Callable, Iterable

import msgspec

__all__ = ["CheckProgress", "Finding", "Findings", "Report", "and_more"]

CheckProgress = Callable[[str, int, int], None]
"""Called with what is being checked, how much is done, how much there is (bytes for `data`)."""

_MOST_NAMES = 1000


class Finding(msgspec.Struct, frozen=True):
    """One thing that is not as it should be."""

    must: bool
    """True: something of a version or of the history is lost or wrong. False: it only takes space,
    or is made again when it is needed."""
    kind: str
    """`log`, `checkpoint`, `index`, `manifest`, `layout`, `pack`, `data`, `copy` or `leftover`."""
    what: str
    """A sentence that names it."""
    advice: str
    """What to do about it."""
    names: tuple[str, ...] = ()
    """What is affected, or what it consists of; at most a thousand names."""
    versions: tuple[str, ...] = ()
    """Versions that have lost something, as `entity/project/artifact:vN`."""
    keys: tuple[str, ...] = ()
    """The objects, packs or files that are not as they should be."""


class Report(msgspec.Struct, frozen=True):
    """What was checked, and what was found."""

    findings: tuple[Finding, ...]
    damaged: bool
    """Any finding is a `must`."""
    entries: int
    versions: int
    files: int
    packs: int
    bytes_read: int
    """Of packs and copies; 0 unless their data was checked."""


class Findings:
    """Collects findings; those that must not be come first in the end."""

    def __init__(self) -> None:
        self._found: list[Finding] = []
        self.marked: set[str] = set()
        """Versions that the log says are damaged: nothing new is found there."""
        self.entries = 0
        self.versions = 0
        self.files = 0
        self.packs = 0
        self.bytes_read = 0

    def must(
        self,
        kind: str,
        what: str,
        advice: str,
        names: Iterable[str] = (),
        *,
        versions: Iterable[str] = (),
        keys: Iterable[str] = (),
    ) -> None:
        """Something is lost or wrong; that is only noted where all of it is marked as damaged."""
        versions, names = tuple(versions), tuple(names)[:_MOST_NAMES]
        is_known = bool(versions) and self.marked.issuperset(versions)
        if is_known:
            advice = f"known: marked as damaged; {advice}"
        self._found.append(Finding(not is_known, kind, what, advice, names, versions, tuple(keys)))

    def should(
        self,
        kind: str,
        what: str,
        advice: str,
        names: Iterable[str] = (),
        *,
        keys: Iterable[str] = (),
    ) -> None:
        """Something is not as tidy as it could be."""
        names = tuple(names)[:_MOST_NAMES]
        self._found.append(Finding(False, kind, what, advice, names, (), tuple(keys)))

    def report(self) -> Report:
        """Return all that was found."""
        return Report(
            findings=tuple(sorted(self._found, key=lambda each: not each.must)),
            damaged=any(each.must for each in self._found),
            entries=self.entries,
            versions=self.versions,
            files=self.files,
            packs=self.packs,
            bytes_read=self.bytes_read,
        )


def and_more(count: int) -> str:
    """Return what follows one name when there are `count` others."""
    return f" and {count} more" if count else ""
