"""Facts into state: what each change in the log does to the index.

Decided here: the whole of that, so that replaying the log always gives the same bytes. Not decided
here: whether a fact may come about (`decide`). Entries of this process and of others are applied
alike.

Nothing is refused here: a fact that cannot follow from those before it means a damaged log.
"""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from mregfs.model.bounds import said_of
from mregfs.model.changes import (
    AccessSet,
    AliasDropped,
    AliasProtected,
    AliasSet,
    AliasUnprotected,
    ArtifactCreated,
    Change,
    CollectionCreated,
    CollectionRenamed,
    DamageMarked,
    Described,
    Entry,
    LayoutReplaced,
    Linked,
    MetadataSet,
    OwnerDeleted,
    PacksRetired,
    ProjectCreated,
    Tagged,
    Unlinked,
    VersionDeleted,
    VersionLogged,
)
from mregfs.model.records import (
    AccessRecord,
    ArtifactRecord,
    CollectionRecord,
    EntityRecord,
    InodeRecord,
    LinkRecord,
    ProjectRecord,
    ProtectionRecord,
    VersionRecord,
)
from mregfs.model.rules.writable_state import Stamp, WritableState
from mregfs.model.state import Put, View, access_key, number_key, pack_number

__all__ = ["PROJECT_INODES", "apply_changes", "apply_entry"]

PROJECT_INODES = 8
"""Numbers of one project: itself, artifacts, collections, staging, and four to spare."""

_replace = msgspec.structs.replace


def apply_entry(view: View, entry: Entry) -> list[Put]:
    """Return what a log entry does to the state tables: one put per key, sorted.

    Raises:
        CorruptError: the entry cannot follow from the state of `view`.
    """
    state = WritableState(view, Stamp(entry.sequence, entry.at_ns, ""))
    for name, operations in entry.features.items():
        state.put("feature", name, msgspec.msgpack.encode(operations))
    for request in entry.requests:
        state.stamp = Stamp(entry.sequence, entry.at_ns, request.signature, request.reason)
        _apply_all(state, request.changes)
    return state.puts()


def apply_changes(view: View, changes: Iterable[Change], stamp: Stamp) -> list[Put]:
    """Return what some changes of a request do: for deciding its next command on top of them.

    Raises:
        CorruptError: a change cannot follow from the state of `view`.
    """
    state = WritableState(view, stamp)
    _apply_all(state, changes)
    return state.puts()


def _apply_all(state: WritableState, changes: Iterable[Change]) -> None:
    for change in changes:
        _EFFECTS[type(change)](state, change)
        for project, name in _subjects(change):
            owner = state.owner(project, name)
            if owner is not None:
                key = number_key(owner.inode, state.stamp.sequence)
                state.put("owner_entry", key, b"")


def _subjects(change: Change) -> list[tuple[str, str]]:
    """Return (project, name) of the artifacts and collections that a fact is about."""
    match change:
        case VersionLogged() | VersionDeleted() | LayoutReplaced():
            return [(change.project, change.artifact)]
        case Linked():
            return [(change.project, change.collection), (change.source_project, change.artifact)]
        case Unlinked():
            return [(change.project, change.collection)]
        case CollectionRenamed():
            return [(change.project, change.new_name)]
        case ProjectCreated() | AccessSet() | PacksRetired():
            return []
        case _:
            return [(change.project, change.name)]


# ---- projects, artifacts, collections


def _project_created(state: WritableState, fact: ProjectCreated) -> None:
    entity_name, _, name = fact.project.partition("/")
    at_ns = state.stamp.at_ns
    if state.project(fact.project) is not None:
        raise state.damaged(f"project {fact.project} exists already")
    entity = state.entity(entity_name)
    if entity is None:
        inode = state.allot(InodeRecord("entity", 0, name=entity_name))
        entity = EntityRecord(inode, entity_name, at_ns)
        state.put("entity", entity_name, entity)
    inode = state.allot(InodeRecord("project", entity.inode, name=name), PROJECT_INODES)
    state.put("project", fact.project, ProjectRecord(inode, entity_name, name, at_ns))


def _owner_created(state: WritableState, fact: ArtifactCreated | CollectionCreated) -> None:
    project = state.project(fact.project)
    if project is None:
        raise state.damaged(f"there is no project {fact.project}")
    if state.owner(fact.project, fact.name) is not None:
        raise state.damaged(f"{fact.project}/{fact.name} exists already")
    cls = ArtifactRecord if isinstance(fact, ArtifactCreated) else CollectionRecord
    state.save_owner(
        cls(
            inode=state.allot(InodeRecord(cls.kind, project.inode, name=fact.name)),
            project=fact.project,
            name=fact.name,
            type=fact.type,
            created_at_ns=state.stamp.at_ns,
            author=state.stamp.author,
            next_number=state.first_number(fact.project, fact.name),
            changed_at_ns=state.stamp.at_ns,
        )
    )


def _owner_deleted(state: WritableState, fact: OwnerDeleted) -> None:
    owner = state.existing_owner(fact.project, fact.name)
    if owner.count:
        raise state.damaged(f"{fact.project}/{fact.name} is not empty")
    state.give_up_name(owner)
    state.end_history(owner)
    state.end_inode(owner.inode)


def _collection_renamed(state: WritableState, fact: CollectionRenamed) -> None:
    collection = state.existing_collection(fact.project, fact.name)
    if state.owner(fact.project, fact.new_name) is not None:
        raise state.damaged(f"{fact.project}/{fact.new_name} exists already")
    state.give_up_name(collection)
    state.touch(_replace(collection, name=fact.new_name))
    inode = state.inode(collection.inode)
    assert inode is not None
    state.put("inode", pack_number(collection.inode), _replace(inode, name=fact.new_name))


def _access_set(state: WritableState, fact: AccessSet) -> None:
    if fact.project and state.project(fact.project) is None:
        raise state.damaged(f"there is no project {fact.project}")
    said = (fact.readers, fact.writers, fact.private_drafts)
    record = AccessRecord(*said, state.stamp.author, state.stamp.at_ns)
    nothing = said == (None, None, None)
    state.put("access", access_key(fact.project), None if nothing else record)


# ---- versions and links


def _version_logged(state: WritableState, fact: VersionLogged) -> None:
    artifact = state.existing_artifact(fact.project, fact.artifact)
    state.take_number(artifact, fact.number)
    inode = state.allot(
        InodeRecord("version", artifact.inode, number=fact.number), 1 + fact.entries
    )
    record = VersionRecord(
        inode=inode,
        artifact=artifact.inode,
        number=fact.number,
        digest=fact.digest,
        layout=fact.layout,
        size=fact.size,
        files=fact.files,
        entries=fact.entries,
        created_at_ns=state.stamp.at_ns,
        author=state.stamp.author,
        parents=fact.parents,
        **said_of(fact),
    )
    state.put("version", number_key(artifact.inode, fact.number), record)
    state.put("digest", _digest_key(artifact.inode, fact.digest, fact.number), b"")
    state.add_packs(inode, fact.packs, fact.shared)
    state.keep_latest(artifact)


def _layout_replaced(state: WritableState, fact: LayoutReplaced) -> None:
    artifact = state.existing_artifact(fact.project, fact.artifact)
    version = _existing_version(state, artifact, fact.number)
    if version.layout != fact.previous_layout:
        raise state.damaged(f"v{fact.number} of {fact.project}/{fact.artifact} has another layout")
    state.give_up_packs(version.inode)
    state.add_packs(version.inode, fact.packs, fact.shared)
    key = number_key(artifact.inode, fact.number)
    state.put("version", key, _replace(version, layout=fact.layout))


def _packs_retired(state: WritableState, fact: PacksRetired) -> None:
    for pack in fact.packs:
        state.retire_pack(pack)


def _version_deleted(state: WritableState, fact: VersionDeleted) -> None:
    artifact = state.existing_artifact(fact.project, fact.artifact)
    version = _existing_version(state, artifact, fact.number)
    if state.links_to(artifact.inode, fact.number):
        raise state.damaged(f"v{fact.number} of {fact.project}/{fact.artifact} is linked")
    state.give_up_number(artifact, fact.number)
    state.put("version", number_key(artifact.inode, fact.number), None)
    state.put("digest", _digest_key(artifact.inode, version.digest, fact.number), None)
    state.give_up_packs(version.inode)
    state.end_inode(version.inode)
    state.keep_latest(artifact)


def _linked(state: WritableState, fact: Linked) -> None:
    collection = state.existing_collection(fact.project, fact.collection)
    artifact = state.existing_artifact(fact.source_project, fact.artifact)
    version = _existing_version(state, artifact, fact.version)
    # A collection made without a type takes that of the first version linked into it.
    state.take_number(_replace(collection, type=collection.type or artifact.type), fact.number)
    inode = state.allot(InodeRecord("link", collection.inode, number=fact.number))
    record = LinkRecord(
        inode=inode,
        collection=collection.inode,
        number=fact.number,
        artifact=artifact.inode,
        version=fact.version,
        created_at_ns=state.stamp.at_ns,
        author=state.stamp.author,
    )
    state.put("link", number_key(collection.inode, fact.number), record)
    state.put("backlink", _backlink_key(record), b"")
    state.put("digest", _digest_key(collection.inode, version.digest, fact.number), b"")
    state.keep_latest(collection)


def _unlinked(state: WritableState, fact: Unlinked) -> None:
    collection = state.existing_collection(fact.project, fact.collection)
    link = state.link(collection.inode, fact.number)
    if link is None:
        raise state.damaged(f"there is no v{fact.number} in {fact.project}/{fact.collection}")
    version = state.version(link.artifact, link.version)
    assert version is not None  # a linked version is never deleted (_version_deleted)
    state.give_up_number(collection, fact.number)
    state.put("link", number_key(collection.inode, fact.number), None)
    state.put("backlink", _backlink_key(link), None)
    state.put("digest", _digest_key(collection.inode, version.digest, fact.number), None)
    state.end_inode(link.inode)
    state.keep_latest(collection)


# ---- aliases


def _alias_set(state: WritableState, fact: AliasSet) -> None:
    owner = state.existing_owner(fact.project, fact.name)
    find = state.version if isinstance(owner, ArtifactRecord) else state.link
    if find(owner.inode, fact.number) is None:
        raise state.damaged(f"there is no v{fact.number} in {fact.project}/{fact.name}")
    state.set_alias(owner, fact.alias, fact.number)
    state.touch(owner)


def _alias_dropped(state: WritableState, fact: AliasDropped) -> None:
    owner = state.existing_owner(fact.project, fact.name)
    state.drop_alias(owner, fact.alias)
    state.touch(owner)


def _alias_protected(state: WritableState, fact: AliasProtected) -> None:
    owner = state.existing_owner(fact.project, fact.name)
    state.put(
        "protection",
        pack_number(owner.inode) + fact.alias.encode(),
        ProtectionRecord(fact.group, state.stamp.author, state.stamp.at_ns),
    )


def _alias_unprotected(state: WritableState, fact: AliasUnprotected) -> None:
    owner = state.existing_owner(fact.project, fact.name)
    state.put("protection", pack_number(owner.inode) + fact.alias.encode(), None)


# ---- what is said about a version, an artifact or a collection


def _tagged(state: WritableState, fact: Tagged) -> None:
    _amend(state, fact, tags=fact.tags)


def _described(state: WritableState, fact: Described) -> None:
    _amend(state, fact, description=fact.description)


def _metadata_set(state: WritableState, fact: MetadataSet) -> None:
    _amend(state, fact, metadata=fact.metadata)


def _damage_marked(state: WritableState, fact: DamageMarked) -> None:
    artifact = state.existing_artifact(fact.project, fact.name)
    version = _existing_version(state, artifact, fact.number)
    key = number_key(artifact.inode, fact.number)
    state.put("version", key, _replace(version, damage=fact.damage))


def _amend(state: WritableState, fact: Tagged | Described | MetadataSet, **fields: Any) -> None:
    if fact.number is None:
        owner = state.existing_owner(fact.project, fact.name)
        state.save_owner(_replace(owner, **fields))
    else:
        artifact = state.existing_artifact(fact.project, fact.name)
        version = _existing_version(state, artifact, fact.number)
        key = number_key(artifact.inode, fact.number)
        state.put("version", key, _replace(version, **fields))


def _existing_version(state: WritableState, artifact: ArtifactRecord, number: int) -> VersionRecord:
    version = state.version(artifact.inode, number)
    if version is None:
        raise state.damaged(f"there is no v{number} of {artifact.project}/{artifact.name}")
    return version


def _digest_key(owner: int, digest: str, number: int) -> bytes:
    return pack_number(owner) + digest.encode() + pack_number(number)


def _backlink_key(link: LinkRecord) -> bytes:
    return number_key(link.artifact, link.version) + number_key(link.collection, link.number)


_EFFECTS: dict[type, Callable[[WritableState, Any], None]] = {
    ProjectCreated: _project_created,
    AccessSet: _access_set,
    ArtifactCreated: _owner_created,
    CollectionCreated: _owner_created,
    OwnerDeleted: _owner_deleted,
    CollectionRenamed: _collection_renamed,
    VersionLogged: _version_logged,
    VersionDeleted: _version_deleted,
    LayoutReplaced: _layout_replaced,
    PacksRetired: _packs_retired,
    Linked: _linked,
    Unlinked: _unlinked,
    AliasSet: _alias_set,
    AliasDropped: _alias_dropped,
    AliasProtected: _alias_protected,
    AliasUnprotected: _alias_unprotected,
    Tagged: _tagged,
    Described: _described,
    MetadataSet: _metadata_set,
    DamageMarked: _damage_marked,
}
