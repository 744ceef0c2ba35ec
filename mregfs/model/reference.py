"""References and mount paths: how a person names a version, an artifact, a collection, an alias.

Decided here: the grammar `[[entity/]project/]name[:alias | :vN | @digest-prefix][@{when}]`, and
which paths below a mount mean the same. Not decided here: the shape of the mount (`paths`), what a
reference resolves to (`state`, `catalog`).
"""

import re
from datetime import UTC, datetime

import msgspec

from mregfs.errors import InvalidError
from mregfs.model import paths
from mregfs.model.names import (
    LATEST,
    NEXT,
    ProjectName,
    check_alias,
    check_name,
    parse_number,
    parse_project,
    quoted,
)

__all__ = [
    "Kind",
    "Location",
    "When",
    "parse_location",
    "parse_path",
    "parse_reference",
    "parse_when",
]

Kind = str
"""`artifact` or `collection`."""

_DIGEST_PREFIX = re.compile(r"[0-9a-f]{4,64}")
_WHEN = re.compile(r"(?P<rest>.*)@\{(?P<when>[^{}]*)\}")
_REFERENCE_HINT = "write [[ENTITY/]PROJECT/]NAME[:ALIAS | :vN | @DIGEST]"


class When(msgspec.Struct, frozen=True):
    """A point in an alias's history: `steps` moves ago, or where it pointed at a time."""

    steps: int | None = None
    at_ns: int | None = None


class Location(msgspec.Struct, frozen=True):
    """What a reference or a mount path names. At most one of the selectors is set.

    With none set, and `is_owner` false, it means `latest`.
    """

    project: ProjectName
    name: str
    kind: Kind | None = None
    """None when the text does not say: a reference serves artifacts and collections alike."""
    alias: str | None = None
    number: int | None = None
    digest: str | None = None
    """A prefix of a manifest's digest."""
    when: When | None = None

    @property
    def is_owner(self) -> bool:
        """True when only the artifact or collection itself is named, none of its versions."""
        return self.alias is None and self.number is None and self.digest is None

    @property
    def selector(self) -> str:
        """The part that picks the version, as one writes it: `:production`, `:v3`, `@ab12`, ``."""
        if self.number is not None:
            text = f":v{self.number}"
        elif self.digest is not None:
            text = f"@{self.digest}"
        else:
            text = f":{self.alias}" if self.alias else ""
        if self.when and self.when.steps is not None:
            return f"{text}@{{{self.when.steps}}}"
        if self.when and self.when.at_ns is not None:
            return f"{text}@{{{format_time(self.when.at_ns)}}}"
        return text

    def __str__(self) -> str:
        return f"{self.project}/{self.name}{self.selector}"

    @property
    def text(self) -> str:
        """What `parse_location` takes for it in any project; the kind is said where it is known."""
        if self.kind is None or self.digest is not None or self.when is not None:
            return str(self)
        number = None if self.number is None else f"v{self.number}"
        names = filter(None, (self.name, number or self.alias))
        return paths.join(paths.directory_of(self.kind), *names, project=self.project)

    def as_owner(self) -> "Location":
        """Return the artifact or collection alone."""
        return Location(self.project, self.name, self.kind)

    def as_version(self) -> "Location":
        """Return what stands for a version: `latest` where none is picked."""
        if not self.is_owner:
            return self
        return Location(self.project, self.name, self.kind, alias=LATEST)


def format_time(at_ns: int) -> str:
    """Return RFC 3339 with microseconds, UTC: `2026-11-01T09:30:00.000000Z`."""
    seconds, rest = divmod(at_ns, 1_000_000_000)
    stamp = datetime.fromtimestamp(seconds, UTC)
    return f"{stamp:%Y-%m-%dT%H:%M:%S}.{rest // 1000:06d}Z"


def parse_when(text: str) -> When:
    """Parse the inside of `@{…}`: a number of moves, or an ISO 8601 date or time (UTC if unsaid).

    Raises:
        InvalidError: neither.
    """
    if text.isascii() and text.isdigit() and len(text) <= 9:
        return When(steps=int(text))
    try:
        stamp = datetime.fromisoformat(text)
        stamp = (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidError(
            f"{quoted(text)} is not a point in history",
            "write @{N} for N moves ago, or a date or time such as @{2026-11-01} or "
            "@{2026-11-01T09:30Z}",
        ) from None
    whole = stamp.replace(microsecond=0)
    return When(at_ns=int(whole.timestamp()) * 1_000_000_000 + stamp.microsecond * 1000)


def parse_reference(text: str, project: ProjectName) -> Location:
    """Parse a reference; what it leaves out is taken from `project`.

    Raises:
        InvalidError: it is malformed; the message says which part.
    """
    rest, when = text, None
    if match := _WHEN.fullmatch(text):
        rest, when = match["rest"], parse_when(match["when"])
    alias: str | None = None
    number: int | None = None
    digest: str | None = None
    head, colon, selector = rest.partition(":")
    if colon:
        number = parse_number(selector)
        if number is None:
            alias = LATEST if selector == LATEST else check_alias(selector)
    else:
        head, at, prefix = rest.partition("@")
        if at:
            if not _DIGEST_PREFIX.fullmatch(prefix):
                raise InvalidError(
                    f"{quoted(prefix)} in {quoted(text)} is not a digest",
                    "write at least 4 of its lowercase hexadecimal digits",
                )
            digest = prefix
    if when is not None:
        if number is not None or digest is not None:
            raise InvalidError(
                f"{quoted(text)} asks for the history of something that never moves",
                "use @{…} after an alias, as in NAME:production@{1}",
            )
        alias = alias or LATEST
    parts = head.split("/")
    if len(parts) > 3 or not all(parts):
        raise InvalidError(f"{quoted(text)} is not a reference", _REFERENCE_HINT)
    if len(parts) > 1:
        project = parse_project("/".join(parts[:-1]), project)
    return Location(
        project=project,
        name=check_name(parts[-1], "artifact or collection name"),
        alias=alias,
        number=number,
        digest=digest,
        when=when,
    )


def parse_path(path: str, project: ProjectName) -> Location:
    """Parse a path relative to the top of a mount of `project`.

    `artifacts/NAME[/vN|alias|next]`, `collections/NAME[/vN|alias]`, and either of them below
    `projects/ENTITY/PROJECT/`. The selector `next` is given back as the alias `next`.

    Raises:
        InvalidError: it names nothing of an artifact or collection.
    """
    found = paths.split(path)
    if found.project:
        project = parse_project(found.project)
    kind = found.kind
    if kind is None or not 1 <= len(found.names) <= 2:
        raise InvalidError(
            f"{path!r} names no artifact, collection or version",
            "write artifacts/NAME[/VERSION] or collections/NAME[/VERSION], or a reference",
        )
    name = check_name(found.names[0], f"{kind} name")
    if len(found.names) == 1:
        return Location(project, name, kind)
    selector = found.names[1]
    number = parse_number(selector)
    if number is not None:
        return Location(project, name, kind, number=number)
    if selector in (LATEST, NEXT):
        return Location(project, name, kind, alias=selector)
    return Location(project, name, kind, alias=check_alias(selector))


def parse_location(text: str, project: ProjectName) -> Location:
    """Parse a path below the mount or a reference, whichever `text` is.

    What begins with a directory of the mount (`artifacts/`, …) is a path; no entity or project may
    be called so.

    Raises:
        InvalidError: it is neither.
    """
    plain = text.removeprefix("./")
    if paths.is_path(plain):
        return parse_path(plain, project)
    return parse_reference(text, project)
