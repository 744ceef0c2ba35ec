"""Rules about aliases: moving, dropping, rolling back and protecting them.

Decided here: what an alias may point at, what going back means, who may protect one. Not decided
here: `latest`, which nobody moves (`writable_state`), and moving an alias while linking
(`decide_links`).
"""

from mregfs.errors import ForbiddenError, InvalidError, NotFoundError
from mregfs.model.changes import AliasDropped, AliasProtected, AliasUnprotected
from mregfs.model.commands import DropAlias, MoveAlias, Principal, Protect, Rollback, Unprotect
from mregfs.model.records import ArtifactRecord, OwnerRecord
from mregfs.model.reference import Location, When
from mregfs.model.rules.preconditions import (
    Decision,
    alias_of_target,
    check_group,
    move_alias,
    require_expected,
    require_group,
    title,
)
from mregfs.model.state import Resolved, State

__all__ = ["decide_move", "drop_alias", "number_in", "protect", "rollback", "unprotect"]


def decide_move(state: State, command: MoveAlias, principal: Principal) -> Decision:
    """Point an alias at a number of its own artifact or collection."""
    alias = alias_of_target(command.target)
    owner = state.find_owner(command.target)
    source = state.resolve(command.source)
    number = number_in(state, owner, source)
    if number is None:
        said = f"v{source.version.number} of {title(source.artifact)}"
        if isinstance(owner, ArtifactRecord):
            hint = "link it into a collection instead: aliases of an artifact name its versions"
        else:
            hint = "link it first, with: ln SOURCE TARGET"
        raise InvalidError(f"{said} is not in {title(owner)}", hint)
    return _moved(state, owner, alias, number, command.expect, principal)


def number_in(state: State, owner: OwnerRecord, source: Resolved) -> int | None:
    """Return the number that a version has in an artifact or collection, or None."""
    if source.owner.inode == owner.inode:
        return source.number
    if source.artifact.inode == owner.inode:
        return source.version.number
    for collection, number in state.links_to(source.artifact.inode, source.version.number):
        if collection == owner.inode:
            return number
    return None


def rollback(state: State, command: Rollback, principal: Principal) -> Decision:
    """Point an alias at where it was before; at the last other number if unsaid."""
    target = command.target
    alias = alias_of_target(Location(target.project, target.name, target.kind, target.alias))
    owner = state.find_owner(target)
    when = target.when or When(steps=_steps_back(state, owner, alias))
    past = Location(target.project, target.name, target.kind, alias, when=when)
    number = state.find_number(owner, past)
    find = state.version if isinstance(owner, ArtifactRecord) else state.link
    if find(owner.inode, number) is None:
        raise NotFoundError(
            f"'{past}' was v{number}, which was deleted since",
            "choose another number, with: rollback --to vN",
        )
    return _moved(state, owner, alias, number, command.expect, principal)


def _steps_back(state: State, owner: OwnerRecord, alias: str) -> int:
    """Return how many moves ago an alias was at another number: some tools drop it to move it."""
    numbers = [record.number for record in state.reflog(owner.inode, alias)]
    for steps, number in enumerate(numbers):
        if number is not None and number != numbers[0]:
            return steps
    return 1


def _moved(
    state: State,
    owner: OwnerRecord,
    alias: str,
    number: int,
    expect: str | None,
    principal: Principal,
) -> Decision:
    changes, previous = move_alias(state, owner, alias, number, expect, principal)
    return Decision(
        tuple(changes),
        {
            "project": owner.project,
            "name": owner.name,
            "kind": owner.kind,
            "alias": alias,
            "version": f"v{number}",
            "previous": None if previous is None else f"v{previous}",
            "moved": previous != number,
        },
    )


def drop_alias(state: State, command: DropAlias, principal: Principal) -> Decision:
    """Take an alias away; what it pointed at stays."""
    alias = alias_of_target(command.target)
    owner = state.find_owner(command.target)
    number = state.find_number(owner, command.target)
    require_expected(command.expect, number, owner, alias)
    require_group(state.protection(owner.inode, alias), owner, alias, principal)
    return Decision(
        (AliasDropped(owner.project, owner.name, alias, number),),
        {
            "project": owner.project,
            "name": owner.name,
            "kind": owner.kind,
            "alias": alias,
            "previous": f"v{number}",
        },
    )


def protect(state: State, command: Protect, principal: Principal) -> Decision:
    """Let only members of a group move or drop an alias, which need not exist yet."""
    alias = alias_of_target(command.target)
    group = check_group(command.group, principal)
    owner = state.find_owner(command.target)
    known = state.protection(owner.inode, alias)
    require_group(known, owner, alias, principal)
    unchanged = known is not None and known.group == group
    return Decision(
        () if unchanged else (AliasProtected(owner.project, owner.name, alias, group),),
        {
            "project": owner.project,
            "name": owner.name,
            "alias": alias,
            "group": group,
            "previous": known.group if known else None,
        },
    )


def unprotect(state: State, command: Unprotect, principal: Principal) -> Decision:
    """Let anyone move or drop an alias again; root may do that as well as the group."""
    alias = alias_of_target(command.target)
    owner = state.find_owner(command.target)
    known = state.protection(owner.inode, alias)
    if known is None:
        raise NotFoundError(f"alias {alias!r} of {title(owner)} is not protected")
    if not principal.privileged and known.group not in principal.groups:
        raise ForbiddenError(
            f"alias {alias!r} of {title(owner)} is protected by group {known.group!r}, and "
            f"{principal.user!r} is not in it",
            "ask a member of the group, or root",
        )
    return Decision(
        (AliasUnprotected(owner.project, owner.name, alias),),
        {
            "project": owner.project,
            "name": owner.name,
            "alias": alias,
            "group": None,
            "previous": known.group,
        },
    )
