"""What several rules ask first: is it free, is it allowed, is it still as the caller expects.

Decided here: who may move a protected alias, what `--expect` compares. Not decided here: which
command asks what (the `decide_*` modules), how much text a thing may carry (`model.bounds`).
"""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from mregfs.errors import ConflictError, ExistsError, ForbiddenError, InvalidError
from mregfs.model.bounds import MAX_GROUP, check_text
from mregfs.model.changes import AliasSet, Change, ProjectCreated
from mregfs.model.commands import Principal
from mregfs.model.names import ProjectName, check_alias, parse_number
from mregfs.model.records import OwnerRecord, ProtectionRecord
from mregfs.model.reference import Location
from mregfs.model.state import State

__all__ = [
    "Decision",
    "alias_of_target",
    "check_free",
    "check_group",
    "check_text",
    "distinct",
    "move_alias",
    "require_expected",
    "require_group",
    "title",
    "with_project",
]

_T = TypeVar("_T")


class Decision(msgspec.Struct, frozen=True):
    """What a command leads to: facts for the log (none: nothing changes), and the answer."""

    changes: tuple[Change, ...]
    result: dict[str, Any]


def title(owner: OwnerRecord) -> str:
    """Say in a message which artifact or collection is meant."""
    return f"{owner.kind} {owner.name!r} of {owner.project}"


def distinct(items: Iterable[_T]) -> tuple[_T, ...]:
    """Return the items without repetitions, in their order."""
    return tuple(dict.fromkeys(items))


def check_free(state: State, project: ProjectName | str, name: str) -> None:
    """Check that a name is neither an artifact's nor a collection's.

    Raises:
        ExistsError: it is taken.
    """
    taken = state.owner(project, name)
    if taken is not None:
        raise ExistsError(
            f"{name!r} is the name of {_an(taken.kind)} in project {project} already",
            "artifacts and collections share one space of names; choose another name",
        )


def _an(kind: str) -> str:
    return f"an {kind}" if kind == "artifact" else f"a {kind}"


def with_project(state: State, project: ProjectName) -> list[Change]:
    """Return the fact that a project comes into being, if it has not yet: to begin a list with."""
    return [] if state.project(project) else [ProjectCreated(str(project))]


def check_group(group: str, principal: Principal) -> str:
    """Return `group` when a right can be given to it on this host.

    Raises:
        InvalidError: it is no name of a group, or of none that this host knows.
    """
    check_text(group, "group", MAX_GROUP)
    if not group or not group.isprintable():
        raise InvalidError(f"{group!r} is not the name of a group", "write the name of one")
    if group not in principal.groups and group not in principal.known_groups:
        raise InvalidError(f"there is no group {group!r} on this host", "list them: getent group")
    return group


def alias_of_target(location: Location) -> str:
    """Return the alias that a command is about.

    Raises:
        InvalidError: the location names no alias, one of its past, or one that the registry keeps.
    """
    if location.alias is None:
        raise InvalidError(
            f"'{location}' names no alias",
            "write NAME:ALIAS, collections/NAME/ALIAS or artifacts/NAME/ALIAS",
        )
    if location.when is not None:
        raise InvalidError(
            f"'{location}' names the past of an alias, which does not change",
            "leave out the @{…}, or use: rollback",
        )
    return check_alias(location.alias)


def require_group(
    protection: ProtectionRecord | None, owner: OwnerRecord, alias: str, principal: Principal
) -> None:
    """Check that the principal may move or drop an alias; root is not exempt.

    Raises:
        ForbiddenError: it is protected by a group that the principal is not in.
    """
    if protection is not None and protection.group not in principal.groups:
        raise ForbiddenError(
            f"alias {alias!r} of {title(owner)} is protected by group {protection.group!r}, and "
            f"{principal.user!r} is not in it",
            "ask a member of the group to do it, or root to unprotect the alias",
        )


def require_expected(
    expect: str | None, current: int | None, owner: OwnerRecord | None, alias: str
) -> None:
    """Check that an alias is still where the caller believes it is.

    Raises:
        ConflictError: it is elsewhere; the message says where.
        InvalidError: `expect` is neither `vN` nor `none`.
    """
    if expect is None:
        return
    expected = None if expect == "none" else parse_number(expect)
    if expected is None and expect != "none":
        raise InvalidError(f"{expect!r} is not a version number", "write --expect vN or none")
    if current != expected:
        where = "does not exist" if current is None else f"points at v{current}"
        of = f" of {title(owner)}" if owner else ""
        raise ConflictError(
            f"alias {alias!r}{of} {where}; expected: {expect}", "look again, then decide"
        )


def move_alias(
    state: State,
    owner: OwnerRecord,
    alias: str,
    number: int,
    expect: str | None,
    principal: Principal,
) -> tuple[Sequence[Change], int | None]:
    """Return the fact that moves an alias (none if it is there already), and where it was.

    Raises:
        ConflictError: it is not where the caller expects it.
        ForbiddenError: it is protected.
    """
    known = state.alias(owner.inode, alias)
    previous = known.number if known else None
    require_expected(expect, previous, owner, alias)
    if previous == number:
        return (), previous
    require_group(state.protection(owner.inode, alias), owner, alias, principal)
    return (AliasSet(owner.project, owner.name, alias, number, previous),), previous
