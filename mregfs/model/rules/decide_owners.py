"""Rules about artifacts and collections as a whole: deleting and renaming them, and what is said
about them and about versions.

Decided here: when a name can be given up or taken. Not decided here: creating them, which stands
with what is made in them (`decide_versions`, `decide_links`).
"""

from mregfs.errors import ExistsError, InvalidError, NotEmptyError
from mregfs.model.bounds import sorted_tags
from mregfs.model.changes import (
    Change,
    CollectionRenamed,
    Described,
    MetadataSet,
    OwnerDeleted,
    Tagged,
    Unlinked,
    VersionDeleted,
)
from mregfs.model.commands import (
    DeleteOwner,
    Describe,
    Principal,
    RenameCollection,
    SetMetadata,
    Tag,
)
from mregfs.model.metadata import encode_metadata, normalise
from mregfs.model.names import check_name
from mregfs.model.records import ArtifactRecord, CollectionRecord, OwnerRecord, VersionRecord
from mregfs.model.reference import Location
from mregfs.model.rules.decide_versions import dropped_aliases, dropped_links
from mregfs.model.rules.preconditions import (
    Decision,
    check_free,
    check_text,
    require_group,
    title,
)
from mregfs.model.state import State

__all__ = ["delete_owner", "describe", "rename_collection", "set_metadata", "tag"]


def delete_owner(state: State, command: DeleteOwner, principal: Principal) -> Decision:
    """Delete an artifact or a collection, with force also what is in it."""
    _require_owner(command.target)
    owner = state.find_owner(command.target)
    if owner.count and not command.force:
        what = "version" if isinstance(owner, ArtifactRecord) else "link"
        raise NotEmptyError(
            f"{title(owner)} still has {owner.count} {what}{'s' if owner.count > 1 else ''}",
            "delete them first, or all of them now with --force",
        )
    _require_all_groups(state, owner, principal)
    changes: list[Change] = []
    links = 0
    # Upwards, so that `latest` stays where it is until the last one goes.
    if isinstance(owner, ArtifactRecord):
        for version in state.versions(owner.inode):
            unlinked = dropped_links(state, owner, version.number, principal)
            links += sum(isinstance(change, Unlinked) for change in unlinked)
            changes += unlinked
            changes += dropped_aliases(state, owner, version.number, principal)
            changes.append(VersionDeleted(owner.project, owner.name, version.number))
    else:
        for link in state.links(owner.inode):
            changes += dropped_aliases(state, owner, link.number, principal)
            changes.append(Unlinked(owner.project, owner.name, link.number))
        links = owner.count
    changes.append(OwnerDeleted(owner.project, owner.name))
    return Decision(
        tuple(changes),
        {
            "project": owner.project,
            "name": owner.name,
            "kind": owner.kind,
            "versions": owner.count if isinstance(owner, ArtifactRecord) else 0,
            "links": links,
        },
    )


def rename_collection(state: State, command: RenameCollection, principal: Principal) -> Decision:
    """Give a collection another name; its links, numbers, aliases and history stay."""
    _require_owner(command.target)
    collection = state.find_owner(command.target)
    if not isinstance(collection, CollectionRecord):
        raise InvalidError(
            f"{title(collection)} keeps its name", "only drafts and collections can be renamed"
        )
    project, new_name = collection.project, check_name(command.new_name, "collection name")
    result = {"project": project, "collection": new_name, "previous": collection.name}
    if new_name == collection.name:
        return Decision((), result)
    check_free(state, project, new_name)
    if state.last_holder(project, new_name) not in (None, collection.inode):
        raise ExistsError(
            f"{new_name!r} was the name of something else in project {project}",
            f"{new_name}:v0 would mean two things; choose a name that was never used",
        )
    _require_all_groups(state, collection, principal)
    return Decision((CollectionRenamed(project, collection.name, new_name),), result)


def _require_owner(target: Location) -> None:
    if not target.is_owner or target.when is not None:
        raise InvalidError(
            f"'{target}' is not an artifact or collection as a whole", f"write {target.name!r}"
        )


def _require_all_groups(state: State, owner: OwnerRecord, principal: Principal) -> None:
    for alias, protection in state.protections(owner.inode):
        require_group(protection, owner, alias, principal)


# ---- what is said about a version, an artifact or a collection


def tag(state: State, command: Tag, principal: Principal) -> Decision:
    """Add and remove tags."""
    del principal
    owner, number, record = _subject(state, command.target)
    removed = set(sorted_tags(command.remove))
    kept = [name for name in record.tags if name not in removed]
    tags = sorted_tags([*kept, *command.add])
    unchanged = tags == record.tags
    return Decision(
        () if unchanged else (Tagged(owner.project, owner.name, number, tags),),
        {"target": _name(owner, number), "tags": list(tags)},
    )


def describe(state: State, command: Describe, principal: Principal) -> Decision:
    """Set the description."""
    del principal
    owner, number, record = _subject(state, command.target)
    text = check_text(command.description, "description")
    unchanged = text == record.description
    return Decision(
        () if unchanged else (Described(owner.project, owner.name, number, text),),
        {"target": _name(owner, number), "description": text},
    )


def set_metadata(state: State, command: SetMetadata, principal: Principal) -> Decision:
    """Set keys of the metadata and remove some; removing one that is not there does nothing."""
    del principal
    owner, number, record = _subject(state, command.target)
    kept = {} if command.replace else record.metadata
    values = {key: value for key, value in kept.items() if key not in command.remove}
    metadata = normalise({**values, **command.values})
    # Compared as JSON: to Python, 1, 1.0 and True are the same.
    unchanged = encode_metadata(metadata) == encode_metadata(record.metadata)
    return Decision(
        () if unchanged else (MetadataSet(owner.project, owner.name, number, metadata),),
        {"target": _name(owner, number), "metadata": metadata},
    )


def _subject(
    state: State, target: Location
) -> tuple[OwnerRecord, int | None, OwnerRecord | VersionRecord]:
    """Return whom a note is about: an owner itself, or a version, through a link if need be."""
    if target.is_owner and target.when is None:
        owner = state.find_owner(target)
        return owner, None, owner
    found = state.resolve(target)
    return found.artifact, found.version.number, found.version


def _name(owner: OwnerRecord, number: int | None) -> str:
    return f"{owner.project}/{owner.name}" + ("" if number is None else f":v{number}")
