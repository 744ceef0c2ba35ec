"""Names of entities, projects, artifacts, collections and aliases: which are valid, and why not.

Decided here: the grammar of names and the form of numbers (`v12`) and digests. Not decided here:
whether a name is taken.
"""

import re
from typing import NewType

import msgspec

from mregfs.errors import InvalidError
from mregfs.model.paths import DIRECTORIES

__all__ = [
    "DEFAULT_PROJECT",
    "LATEST",
    "NEXT",
    "Digest",
    "ProjectName",
    "check_alias",
    "check_entity_or_project",
    "check_name",
    "check_tag",
    "parse_number",
    "parse_project",
    "quoted",
]

Digest = NewType("Digest", str)
"""BLAKE3-256, 64 lowercase hexadecimal digits."""

LATEST = "latest"
"""The alias that the registry itself keeps on the newest remaining version or link."""

NEXT = "next"
"""The name in an artifact's directory that stands for the number the next commit will get."""

MAX_SHOWN = 80
"""Characters of a bad name that a message shows."""

_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.\- ]{0,126}[A-Za-z0-9_.\-])?")
_ALIAS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}")
_NUMBER = re.compile(r"v(0|[1-9][0-9]{0,17})")
_NUMBER_LIKE = re.compile(r"[vV][0-9]+")

_NAME_HINT = (
    "use 1 to 128 letters, digits, '_', '.', '-' and inner spaces, beginning with a letter, "
    "a digit or '_'"
)
_ALIAS_HINT = (
    "use 1 to 128 letters, digits, '_', '.' and '-', beginning with a letter, a digit or '_'"
)


def quoted(text: str) -> str:
    """Return what a person wrote as a message shows it: in quotes, its end cut when it is long."""
    return repr(text) if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]!r}…"


def check_name(name: str, what: str = "name") -> str:
    """Return `name` when it is a valid name of an artifact or a collection.

    Raises:
        InvalidError: it is not; `what` says in the message whose name it was to be.
    """
    if not _NAME.fullmatch(name):
        raise InvalidError(f"{quoted(name)} is not a valid {what}", _NAME_HINT)
    return name


def check_entity_or_project(name: str, what: str) -> str:
    """Return `name` when an entity or project may be called so.

    Raises:
        InvalidError: it is no valid name, or it is a directory's name in the mount's own tree.
    """
    check_name(name, what)
    if name in DIRECTORIES:
        raise InvalidError(
            f"{quoted(name)} cannot name an {what}"
            if what[0] in "aeiou"
            else f"{quoted(name)} cannot name a {what}",
            "it is the name of a directory of every mount; choose another",
        )
    return name


def check_alias(alias: str) -> str:
    """Return `alias` when a person may give it.

    Raises:
        InvalidError: bad characters, `latest` (any case), `next`, or `v` and digits.
    """
    if not _ALIAS.fullmatch(alias):
        raise InvalidError(f"{quoted(alias)} is not a valid alias", _ALIAS_HINT)
    if alias.lower() == LATEST:
        raise InvalidError(
            f"the alias {quoted(alias)} is kept by the registry",
            "it follows the newest; choose another",
        )
    if _NUMBER_LIKE.fullmatch(alias) or alias == NEXT:
        raise InvalidError(
            f"{quoted(alias)} cannot be an alias",
            "v and digits, and 'next', stand for numbers; choose another",
        )
    return alias


def check_tag(tag: str) -> str:
    """Return `tag` when it is a valid tag (the grammar of names).

    Raises:
        InvalidError: it is not.
    """
    return check_name(tag, "tag")


def parse_number(text: str) -> int | None:
    """Return 12 for `v12`, or None when `text` is not of that form."""
    match = _NUMBER.fullmatch(text)
    return int(match[1]) if match else None


class ProjectName(msgspec.Struct, frozen=True, order=True):
    """The two outer name spaces of everything: an entity and its project."""

    entity: str
    project: str

    def __post_init__(self) -> None:
        check_entity_or_project(self.entity, "entity")
        check_entity_or_project(self.project, "project")

    def __str__(self) -> str:
        return f"{self.entity}/{self.project}"


DEFAULT_PROJECT = ProjectName("default", "default")


def parse_project(text: str, default: ProjectName = DEFAULT_PROJECT) -> ProjectName:
    """Parse `[entity/]project`; the entity is that of `default` when it is left out.

    Raises:
        InvalidError: more than one slash, or a bad name.
    """
    parts = text.split("/")
    if len(parts) == 1:
        return ProjectName(default.entity, parts[0])
    if len(parts) == 2:
        return ProjectName(parts[0], parts[1])
    raise InvalidError(f"{quoted(text)} does not name a project", "write PROJECT or ENTITY/PROJECT")
