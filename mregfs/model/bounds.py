"""What may stand in a log entry: names, numbers and texts within the bounds that commands have.

Decided here: the bound of every field of every fact. Not decided here: the form of an entry
(`changes`), whether a fact can follow from those before it (`rules.apply`). Each entry that is
decoded is held to them, whoever wrote it: a name with a slash or a number of 80 bits must not get
past the log, where the mount and the index would fail at it.

Bounds are kept by the field's name, so a new fact that uses known names is covered. A field that
has no bound of its own yet gets one by its type.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import msgspec

from mregfs.errors import InvalidError
from mregfs.model.manifest import MAX_ENTRIES
from mregfs.model.metadata import normalise
from mregfs.model.names import check_alias, check_name, check_tag, parse_project, quoted

__all__ = [
    "BOUNDS",
    "MAX_DESCRIPTION",
    "MAX_GROUP",
    "MAX_NUMBER",
    "MAX_PARENTS",
    "MAX_RUN",
    "MAX_TAGS",
    "MAX_TIME_NS",
    "SAID",
    "check_text",
    "checked_said",
    "find_flaw",
    "said_of",
    "sorted_tags",
]

MAX_DESCRIPTION = 65_536
"""Characters."""

MAX_GROUP = 256
"""Characters of a group's name."""

MAX_PARENTS = 1000
"""Versions that one version was made from."""

MAX_RUN = 1024
"""Characters of what names the run that made a version."""

MAX_TAGS = 100
"""Tags of one version, artifact or collection; aliases given in one commit."""

MAX_NUMBER = 10**17
"""Of a version or link; `v` and that many digits can still be parsed, and the next one too."""

MAX_TIME_NS = 1 << 62
"""Nanoseconds since the epoch: the year 2116."""

_MAX_SIZE = 1 << 60
_MAX_TEXT = 1 << 20


def check_text(text: str, what: str, limit: int = MAX_DESCRIPTION) -> str:
    """Return `text` when it can stand in the log.

    Raises:
        InvalidError: it is too long, holds a NUL, or is no Unicode text.
    """
    if len(text) > limit:
        raise InvalidError(
            f"the {what} has {len(text)} characters", f"write at most {limit} characters"
        )
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidError(f"the {what} is not plain text", "write UTF-8 without NUL bytes")
    return text


def sorted_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Return the tags as they are stored: sorted, each once.

    Raises:
        InvalidError: one is not a valid tag, or there are too many.
    """
    chosen = sorted({check_tag(tag) for tag in tags})
    if len(chosen) > MAX_TAGS:
        raise InvalidError(f"{len(chosen)} tags are too many", f"give at most {MAX_TAGS}")
    return tuple(chosen)


SAID: dict[str, Callable[[Any], Any]] = {
    "tags": sorted_tags,
    "run": lambda text: check_text(text, "run", MAX_RUN),
    "description": lambda text: check_text(text, "description"),
    "metadata": normalise,
}
"""What a person says of a version, by the name of its field in the command, the fact, the record
and the answer. Each returns the value as it is stored, or raises InvalidError."""


def said_of(version: object) -> dict[str, Any]:
    """Return what is said of a version, by field: of a command, a fact or a record."""
    return {name: getattr(version, name) for name in SAID}


def checked_said(command: object) -> dict[str, Any]:
    """Return what a command says of a version, as it is stored.

    Raises:
        InvalidError: something said cannot be stored.
    """
    return {name: check(getattr(command, name)) for name, check in SAID.items()}


def _project(text: str) -> None:
    if "/" not in text:
        raise InvalidError(f"{quoted(text)} does not name a project", "write ENTITY/PROJECT")
    parse_project(text)


def _type(text: str) -> None:
    if text:  # a collection takes that of the first version linked into it
        check_name(text, "type")


def _group(text: str) -> None:
    if not 0 < len(text) <= MAX_GROUP or not text.isprintable():
        raise InvalidError(f"{quoted(text)} is not the name of a group")


def _who(text: str | None) -> None:
    if text not in (None, "", "*"):  # not said, nobody, everybody
        _group(text)


def _store_or_project(text: str) -> None:
    if text:
        _project(text)


def _anything(value: object) -> None:
    pass  # its type is bound enough


def _digits(count: int) -> Callable[[str], None]:
    def check(text: str) -> None:
        if len(text) != count or text.strip("0123456789abcdef"):
            raise InvalidError(f"{quoted(text)} is not {count} hexadecimal digits")

    return check


def _text(limit: int) -> Callable[[str], object]:
    return lambda text: check_text(text, "text", limit)


def _integer(limit: int) -> Callable[[int | None], None]:
    def check(number: int | None) -> None:
        if number is not None and not 0 <= number <= limit:
            raise InvalidError(f"{_shown(number)} is not from 0 to {limit}")

    return check


def _shown(number: int) -> str:
    # Python does not print numbers of more than some thousand digits.
    return str(number) if abs(number) < 1 << 128 else f"a number of {number.bit_length()} bits"


def _pack_ids(packs: Collection[str]) -> None:
    if len(packs) > MAX_ENTRIES:
        raise InvalidError(f"{len(packs)} packs are too many")
    for pack in packs:
        _digits(32)(pack)
    if len(set(packs)) != len(packs):
        raise InvalidError("a pack is named twice")


def _packs(packs: dict[str, int]) -> None:
    _pack_ids(packs)
    for size in packs.values():
        _integer(_MAX_SIZE)(size)


def _whole_store(text: str) -> None:
    if text:
        raise InvalidError(f"{quoted(text)}: it is about the whole store")


def _parents(parents: tuple[Any, ...]) -> None:
    if len(parents) > MAX_PARENTS:
        raise InvalidError(f"{len(parents)} parents are too many")
    for parent in parents:
        for field in parent.__struct_fields__:
            BOUNDS[field](getattr(parent, field))


BOUNDS: dict[str, Callable[[Any], object]] = {
    **SAID,
    "alias": check_alias,
    "artifact": lambda name: check_name(name, "artifact name"),
    "damage": _text(MAX_DESCRIPTION),
    "collection": lambda name: check_name(name, "collection name"),
    "digest": _digits(64),
    "entries": _integer(MAX_ENTRIES),
    "files": _integer(MAX_ENTRIES),
    "group": _group,
    "layout": _digits(32),
    "name": check_name,
    "new_name": check_name,
    "number": _integer(MAX_NUMBER),
    "packs": _packs,
    "parents": _parents,
    "previous": _integer(MAX_NUMBER),
    "previous_layout": _digits(32),
    "private_drafts": _anything,
    "project": _project,
    "readers": _who,
    "shared": _pack_ids,
    "size": _integer(_MAX_SIZE),
    "source_project": _project,
    "type": _type,
    "version": _integer(MAX_NUMBER),
    "writers": _who,
}
"""What checks the field of a fact that has this name; raises InvalidError."""

_OWN: dict[tuple[str, str], Callable[[Any], object]] = {
    ("AccessSet", "project"): _store_or_project,
    ("PacksRetired", "packs"): _pack_ids,
    ("PacksRetired", "project"): _whole_store,
}
"""What checks a field that means something else in one kind of fact."""


def _by_type(value: object) -> None:
    if isinstance(value, str):
        check_text(value, "text", _MAX_TEXT)
    elif isinstance(value, int):
        _integer(MAX_NUMBER)(value)
    elif isinstance(value, dict):
        normalise(value)
    elif isinstance(value, tuple | list):
        for each in value:
            _by_type(each)


_checks: dict[type, tuple[tuple[str, Callable[[Any], object]], ...]] = {}


def _checks_of(kind: type[msgspec.Struct]) -> tuple[tuple[str, Callable[[Any], object]], ...]:
    found = _checks.get(kind)
    if found is None:
        found = tuple(
            (name, _OWN.get((kind.__name__, name)) or BOUNDS.get(name, _by_type))
            for name in kind.__struct_fields__
        )
        _checks[kind] = found
    return found


def find_flaw(entry: Any) -> str:
    """Return what in a decoded entry is out of bounds, and where; empty when nothing is."""
    if not 0 < entry.sequence <= MAX_NUMBER:
        return f"its number is {_shown(entry.sequence)}"
    if not 0 < entry.at_ns <= MAX_TIME_NS:
        return f"its time is {_shown(entry.at_ns)} nanoseconds"
    for name in ("previous", "transaction", "host"):
        if len(getattr(entry, name)) > MAX_DESCRIPTION:
            return f"its {name!r} is too long"
    if not entry.requests:
        return "it has no request"
    if sum(map(len, entry.features)) > MAX_DESCRIPTION:
        return "its features have too long names"
    return next(_flaws(entry), "")


def _flaws(entry: Any) -> Iterator[str]:
    for turn, request in enumerate(entry.requests):
        if not request.changes and not entry.features:  # else they may be of kinds unknown here
            yield f"requests[{turn}] changes nothing"
        if max(map(len, (request.author, request.user, request.reason))) > _MAX_TEXT:
            yield f"requests[{turn}] has a user, an author or a reason of over {_MAX_TEXT}"
        for step, change in enumerate(request.changes):
            for name, check in _checks_of(type(change)):
                try:
                    check(getattr(change, name))
                except (InvalidError, RecursionError) as exc:
                    said = exc.message if isinstance(exc, InvalidError) else "it is nested too deep"
                    yield f"requests[{turn}].changes[{step}].{name}: {said}"
