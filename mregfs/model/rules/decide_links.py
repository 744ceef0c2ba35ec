"""Rules about links and the collections that hold them.

Decided here: what a link may point at, when a version is linked anew, what a collection's type is.
Not decided here: taking links out again, which is like deleting versions (`decide_versions`).
"""

from mregfs.errors import ExistsError, InvalidError
from mregfs.model.changes import AliasSet, Change, CollectionCreated, Described, Linked
from mregfs.model.commands import CreateCollection, LinkVersion, MoveAlias, Principal
from mregfs.model.names import check_name
from mregfs.model.records import ArtifactRecord
from mregfs.model.rules.decide_aliases import decide_move, number_in
from mregfs.model.rules.preconditions import (
    Decision,
    alias_of_target,
    check_free,
    check_text,
    move_alias,
    require_expected,
    title,
    with_project,
)
from mregfs.model.state import State

__all__ = ["create_collection", "link_version"]


def create_collection(state: State, command: CreateCollection, principal: Principal) -> Decision:
    """Make a collection; without a type it takes that of the first version linked into it."""
    del principal
    project, name = command.project, check_name(command.name, "collection name")
    kind = "" if command.type is None else check_name(command.type, "type")
    description = check_text(command.description, "description")
    check_free(state, project, name)
    changes = with_project(state, project)
    changes.append(CollectionCreated(str(project), name, kind))
    if description:
        changes.append(Described(str(project), name, None, description))
    return Decision(
        tuple(changes),
        {"project": str(project), "collection": name, "type": kind, "created": True},
    )


def link_version(state: State, command: LinkVersion, principal: Principal) -> Decision:
    """Link a version into a collection unless it is there, and move an alias there to it.

    An alias of an artifact is moved within the artifact.
    """
    target = command.target
    if target.number is not None or target.digest is not None:
        raise InvalidError(
            f"'{target}' is a number, and numbers are given by the registry",
            "name the collection, or an alias in it",
        )
    alias = None if target.is_owner else alias_of_target(target)
    if alias is None and command.expect is not None:
        raise InvalidError("--expect needs an alias in the target", "name an alias in the target")
    owner = state.owner(target.project, target.name)
    if isinstance(owner, ArtifactRecord) and target.kind == "collection":
        raise ExistsError(
            f"{target.name!r} is the name of an artifact in project {target.project} already",
            "artifacts and collections share one space of names; choose another name",
        )
    if isinstance(owner, ArtifactRecord) or target.kind == "artifact":
        return decide_move(state, MoveAlias(target, command.source, command.expect), principal)
    source = state.resolve(command.source)
    changes: list[Change] = []
    known: int | None = None
    if owner is None:
        name = check_name(target.name, "collection name")
        changes += with_project(state, target.project)
        changes.append(CollectionCreated(str(target.project), name, source.artifact.type))
        number = state.first_number(target.project, name)
    else:
        known = number_in(state, owner, source)
        number = owner.next_number if known is None else known
        if owner.type not in ("", source.artifact.type):
            raise InvalidError(
                f"{title(owner)} is of type {owner.type!r}, and {title(source.artifact)} of type "
                f"{source.artifact.type!r}",
                "link it into a collection of its own type",
            )
    if known is None:
        changes.append(
            Linked(
                str(target.project),
                target.name,
                number,
                source.artifact.project,
                source.artifact.name,
                source.version.number,
            )
        )
    previous: int | None = None
    if alias is not None and owner is None:
        require_expected(command.expect, None, None, alias)
        changes.append(AliasSet(str(target.project), target.name, alias, number))
    elif alias is not None and owner is not None:
        moves, previous = move_alias(state, owner, alias, number, command.expect, principal)
        changes += moves
    return Decision(
        tuple(changes),
        {
            "project": str(target.project),
            "collection": target.name,
            "version": f"v{number}",
            "source": f"{source.artifact.project}/{source.artifact.name}:v{source.version.number}",
            "linked": known is None,
            "alias": alias,
            "previous": None if previous is None else f"v{previous}",
            "moved": alias is not None and previous != number,
        },
    )
