"""Rules about versions: logging and deleting them.

Decided here: when content is a new version, what type an artifact has, what keeps a version from
being deleted. Not decided here: how its content is stored (`registry.write.commit`).
"""

import re

import msgspec

from mregfs.errors import ConflictError, ForbiddenError, InvalidError
from mregfs.model.bounds import MAX_PARENTS, MAX_TAGS, checked_said
from mregfs.model.changes import (
    AliasDropped,
    AliasSet,
    ArtifactCreated,
    Change,
    DamageMarked,
    Described,
    Unlinked,
    VersionDeleted,
    VersionLogged,
)
from mregfs.model.commands import (
    CreateArtifact,
    DeleteVersion,
    LogVersion,
    MarkDamage,
    Principal,
    Unlink,
)
from mregfs.model.names import LATEST, check_alias, check_name
from mregfs.model.records import ArtifactRecord, CollectionRecord, OwnerRecord, Parent
from mregfs.model.rules.decide_packs import check_packs
from mregfs.model.rules.preconditions import (
    Decision,
    check_free,
    check_text,
    distinct,
    move_alias,
    require_group,
    title,
    with_project,
)
from mregfs.model.state import State

__all__ = [
    "DEFAULT_TYPE",
    "create_artifact",
    "delete_version",
    "dropped_aliases",
    "dropped_links",
    "log_version",
    "mark_damage",
    "unlink",
]

DEFAULT_TYPE = "model"

_DIGEST = re.compile(r"[0-9a-f]{64}")


def create_artifact(state: State, command: CreateArtifact, principal: Principal) -> Decision:
    """Make an artifact that has no version yet."""
    del principal
    project, name = command.project, check_name(command.name, "artifact name")
    kind = check_name(command.type, "type")
    description = check_text(command.description, "description")
    check_free(state, project, name)
    changes = with_project(state, project)
    changes.append(ArtifactCreated(str(project), name, kind))
    if description:
        changes.append(Described(str(project), name, None, description))
    return Decision(
        tuple(changes), {"project": str(project), "artifact": name, "type": kind, "created": True}
    )


def log_version(state: State, command: LogVersion, principal: Principal) -> Decision:
    """Make content the next version of an artifact, unless it is one of its versions already."""
    project, name = command.project, check_name(command.artifact, "artifact name")
    aliases = distinct(check_alias(alias) for alias in command.aliases)
    if len(aliases) > MAX_TAGS:
        raise InvalidError(f"{len(aliases)} aliases are too many", f"give at most {MAX_TAGS}")
    logged = _version_of(state, command)
    artifact = state.artifact(project, name)
    changes: list[Change] = []
    known: int | None = None
    if artifact is None:
        check_free(state, project, name)
        kind = check_name(command.type or DEFAULT_TYPE, "type")
        changes += with_project(state, project)
        changes.append(ArtifactCreated(str(project), name, kind))
        number = state.first_number(project, name)
    else:
        if command.type not in (None, artifact.type):
            raise InvalidError(
                f"{title(artifact)} is of type {artifact.type!r}, not {command.type!r}",
                "leave out the type, or commit to another artifact",
            )
        known = state.sound_number(artifact.inode, command.digest)
        number = artifact.next_number if known is None else known
    if known is None:
        if command.known:
            raise ConflictError(
                f"the version of {name!r} with this content was deleted meanwhile", "commit again"
            )
        check_packs(state, command.packs, command.shared)
        changes.append(msgspec.structs.replace(logged, number=number))
    for alias in aliases:
        if artifact is None:
            changes.append(AliasSet(str(project), name, alias, number))
        else:
            changes += move_alias(state, artifact, alias, number, None, principal)[0]
    return Decision(
        tuple(changes),
        {
            "project": str(project),
            "artifact": name,
            "version": f"v{number}",
            "digest": command.digest,
            "created": known is None,
            "aliases": list(aliases),
        },
    )


def mark_damage(state: State, command: MarkDamage, principal: Principal) -> Decision:
    """Say which bytes of a version are lost; what points to it stays."""
    if not principal.privileged:
        raise ForbiddenError(
            "only the owner of the store and root may say what is damaged",
            "ask one of them for: mregfs fsck --repair",
        )
    damage = check_text(command.damage, "damage")
    found = state.resolve(command.target)
    artifact, version = found.artifact, found.version
    fact = DamageMarked(artifact.project, artifact.name, version.number, damage)
    return Decision(
        () if damage == version.damage else (fact,),
        {"version": f"{artifact.project}/{artifact.name}:v{version.number}", "damage": damage},
    )


def _version_of(state: State, command: LogVersion) -> VersionLogged:
    """Return the fact without its number, everything in it checked."""
    if not _DIGEST.fullmatch(command.digest):
        raise InvalidError(f"{command.digest!r} is not the digest of a manifest")
    if min(command.size, command.files, command.entries) < 0:
        raise InvalidError("sizes and counts of a version cannot be negative")
    parents = []
    if len(command.parents) > MAX_PARENTS:
        raise InvalidError(
            f"{len(command.parents)} parents are too many", f"give at most {MAX_PARENTS}"
        )
    for location in command.parents:
        source = state.resolve(location)
        parents.append(
            Parent(
                source.artifact.project,
                source.artifact.name,
                source.version.number,
                source.version.digest,
            )
        )
    return VersionLogged(
        project=str(command.project),
        artifact=command.artifact,
        number=0,
        digest=command.digest,
        layout=command.layout,
        size=command.size,
        files=command.files,
        entries=command.entries,
        packs=dict(command.packs),
        shared=distinct(command.shared),
        parents=distinct(parents),
        **checked_said(command),
    )


def delete_version(state: State, command: DeleteVersion, principal: Principal) -> Decision:
    """Delete a version; through a collection, take the link out of it."""
    target = command.target
    if target.number is None and target.digest is None:
        raise InvalidError(
            f"'{target}' does not say which version to delete",
            "name it by its number or digest, as in NAME:v3",
        )
    owner = state.find_owner(target)
    number = state.find_number(owner, target)
    if isinstance(owner, CollectionRecord):
        return _unlink(state, owner, number, principal, force=command.force)
    aliases = _own_aliases(state, owner, number)
    links = [
        (_by_inode(state, collection), link)
        for collection, link in state.links_to(owner.inode, number)
    ]
    if (aliases or links) and not command.force:
        said = [f"the alias {alias!r}" for alias in aliases]
        said += [f"the link {at.name}:v{link} in project {at.project}" for at, link in links]
        raise ConflictError(
            f"v{number} of {title(owner)} has {', '.join(said)}",
            "drop them first, or drop all of them now with --force",
        )
    changes = dropped_links(state, owner, number, principal)
    changes += dropped_aliases(state, owner, number, principal)
    changes.append(VersionDeleted(owner.project, owner.name, number))
    version = state.resolve_number(owner, number).version
    return Decision(
        tuple(changes),
        {
            "project": owner.project,
            "artifact": owner.name,
            "version": f"v{number}",
            "digest": version.digest,
            "aliases": aliases,
            "links": [f"{at.project}/{at.name}:v{link}" for at, link in links],
        },
    )


def unlink(state: State, command: Unlink, principal: Principal) -> Decision:
    """Take a link out of a collection; the version stays."""
    target = command.target
    owner = state.find_owner(target)
    if not isinstance(owner, CollectionRecord):
        raise InvalidError(f"{title(owner)} has versions, not links", "delete a version with: rm")
    if target.number is None and target.digest is None:
        raise InvalidError(
            f"'{target}' does not say which link to take out",
            "name it by its number, as in collections/NAME/v1",
        )
    return _unlink(state, owner, state.find_number(owner, target), principal, force=command.force)


def _unlink(
    state: State, collection: CollectionRecord, number: int, principal: Principal, *, force: bool
) -> Decision:
    aliases = _own_aliases(state, collection, number)
    if aliases and not force:
        said = ", ".join(f"the alias {alias!r}" for alias in aliases)
        raise ConflictError(
            f"v{number} of {title(collection)} has {said}",
            "drop it first, or together with the link: --force",
        )
    source = state.resolve_number(collection, number)
    changes = dropped_aliases(state, collection, number, principal)
    changes.append(Unlinked(collection.project, collection.name, number))
    return Decision(
        tuple(changes),
        {
            "project": collection.project,
            "collection": collection.name,
            "version": f"v{number}",
            "source": f"{source.artifact.project}/{source.artifact.name}:v{source.version.number}",
            "aliases": aliases,
        },
    )


def dropped_aliases(
    state: State, owner: OwnerRecord, number: int, principal: Principal
) -> list[Change]:
    """Return the facts that drop all aliases of a number (`latest` follows by itself).

    Raises:
        ForbiddenError: one of them is protected.
    """
    changes: list[Change] = []
    for alias in _own_aliases(state, owner, number):
        require_group(state.protection(owner.inode, alias), owner, alias, principal)
        changes.append(AliasDropped(owner.project, owner.name, alias, number))
    return changes


def dropped_links(
    state: State, artifact: ArtifactRecord, number: int, principal: Principal
) -> list[Change]:
    """Return the facts that take a version out of all collections, with its aliases there.

    Raises:
        ForbiddenError: one of the aliases is protected.
    """
    changes: list[Change] = []
    for inode, link in state.links_to(artifact.inode, number):
        collection = _by_inode(state, inode)
        changes += dropped_aliases(state, collection, link, principal)
        changes.append(Unlinked(collection.project, collection.name, link))
    return changes


def _own_aliases(state: State, owner: OwnerRecord, number: int) -> list[str]:
    return [alias for alias in state.aliases_of(owner.inode, number) if alias != LATEST]


def _by_inode(state: State, inode: int) -> OwnerRecord:
    owner = state.owner_by_inode(inode)
    assert owner is not None  # a link's collection outlives the link (apply)
    return owner
