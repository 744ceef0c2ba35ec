"""Facts into state: what each change in the log does to the index.

Decided here: the whole of that, so that replaying the log always gives the same bytes. Not decided
here: whether a fact may come about (`decide`). Entries of this process and of others are applied
alike.

Nothing is refused here: a fact that cannot follow from those before it means a damaged log.
"""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

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
from mregfs.model.rules.writable_state import Ledger, Stamp
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
    ledger = Ledger(view, Stamp(entry.sequence, entry.at_ns, ""))
    for name, operations in entry.features.items():
        ledger.put("feature", name, msgspec.msgpack.encode(operations))
    for request in entry.requests:
        ledger.stamp = Stamp(entry.sequence, entry.at_ns, request.signature, request.reason)
        _apply_all(ledger, request.changes)
    return ledger.puts()


def apply_changes(view: View, changes: Iterable[Change], stamp: Stamp) -> list[Put]:
    """Return what some changes of a request do: for deciding its next command on top of them.

    Raises:
        CorruptError: a change cannot follow from the state of `view`.
    """
    ledger = Ledger(view, stamp)
    _apply_all(ledger, changes)
    return ledger.puts()


def _apply_all(ledger: Ledger, changes: Iterable[Change]) -> None:
    for change in changes:
        _EFFECTS[type(change)](ledger, change)
        for project, name in _subjects(change):
            owner = ledger.owner(project, name)
            if owner is not None:
                key = number_key(owner.inode, ledger.stamp.sequence)
                ledger.put("story", key, b"")


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


def _project_created(ledger: Ledger, fact: ProjectCreated) -> None:
    entity_name, _, name = fact.project.partition("/")
    at_ns = ledger.stamp.at_ns
    if ledger.project(fact.project) is not None:
        raise ledger.damaged(f"project {fact.project} exists already")
    entity = ledger.entity(entity_name)
    if entity is None:
        inode = ledger.allot(InodeRecord("entity", 0, name=entity_name))
        entity = EntityRecord(inode, entity_name, at_ns)
        ledger.put("entity", entity_name, entity)
    inode = ledger.allot(InodeRecord("project", entity.inode, name=name), PROJECT_INODES)
    ledger.put("project", fact.project, ProjectRecord(inode, entity_name, name, at_ns))


def _owner_created(ledger: Ledger, fact: ArtifactCreated | CollectionCreated) -> None:
    project = ledger.project(fact.project)
    if project is None:
        raise ledger.damaged(f"there is no project {fact.project}")
    if ledger.owner(fact.project, fact.name) is not None:
        raise ledger.damaged(f"{fact.project}/{fact.name} exists already")
    cls = ArtifactRecord if isinstance(fact, ArtifactCreated) else CollectionRecord
    ledger.save_owner(
        cls(
            inode=ledger.allot(InodeRecord(cls.kind, project.inode, name=fact.name)),
            project=fact.project,
            name=fact.name,
            type=fact.type,
            created_at_ns=ledger.stamp.at_ns,
            author=ledger.stamp.author,
            next_number=ledger.first_number(fact.project, fact.name),
            changed_at_ns=ledger.stamp.at_ns,
        )
    )


def _owner_deleted(ledger: Ledger, fact: OwnerDeleted) -> None:
    owner = ledger.existing_owner(fact.project, fact.name)
    if owner.count:
        raise ledger.damaged(f"{fact.project}/{fact.name} is not empty")
    ledger.give_up_name(owner)
    ledger.end_history(owner)
    ledger.end_inode(owner.inode)


def _collection_renamed(ledger: Ledger, fact: CollectionRenamed) -> None:
    collection = ledger.existing_collection(fact.project, fact.name)
    if ledger.owner(fact.project, fact.new_name) is not None:
        raise ledger.damaged(f"{fact.project}/{fact.new_name} exists already")
    ledger.give_up_name(collection)
    ledger.touch(_replace(collection, name=fact.new_name))
    inode = ledger.inode(collection.inode)
    assert inode is not None
    ledger.put("inode", pack_number(collection.inode), _replace(inode, name=fact.new_name))


def _access_set(ledger: Ledger, fact: AccessSet) -> None:
    if fact.project and ledger.project(fact.project) is None:
        raise ledger.damaged(f"there is no project {fact.project}")
    said = (fact.readers, fact.writers, fact.private_drafts)
    record = AccessRecord(*said, ledger.stamp.author, ledger.stamp.at_ns)
    nothing = said == (None, None, None)
    ledger.put("access", access_key(fact.project), None if nothing else record)


# ---- versions and links


def _version_logged(ledger: Ledger, fact: VersionLogged) -> None:
    artifact = ledger.existing_artifact(fact.project, fact.artifact)
    ledger.take_number(artifact, fact.number)
    inode = ledger.allot(
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
        created_at_ns=ledger.stamp.at_ns,
        author=ledger.stamp.author,
        description=fact.description,
        metadata=fact.metadata,
        tags=fact.tags,
        run=fact.run,
        parents=fact.parents,
    )
    ledger.put("version", number_key(artifact.inode, fact.number), record)
    ledger.put("digest", _digest_key(artifact.inode, fact.digest, fact.number), b"")
    ledger.add_packs(inode, fact.packs, fact.shared)
    ledger.keep_latest(artifact)


def _layout_replaced(ledger: Ledger, fact: LayoutReplaced) -> None:
    artifact = ledger.existing_artifact(fact.project, fact.artifact)
    version = _existing_version(ledger, artifact, fact.number)
    if version.layout != fact.previous_layout:
        raise ledger.damaged(f"v{fact.number} of {fact.project}/{fact.artifact} has another layout")
    ledger.give_up_packs(version.inode)
    ledger.add_packs(version.inode, fact.packs, fact.shared)
    key = number_key(artifact.inode, fact.number)
    ledger.put("version", key, _replace(version, layout=fact.layout))


def _packs_retired(ledger: Ledger, fact: PacksRetired) -> None:
    for pack in fact.packs:
        ledger.retire_pack(pack)


def _version_deleted(ledger: Ledger, fact: VersionDeleted) -> None:
    artifact = ledger.existing_artifact(fact.project, fact.artifact)
    version = _existing_version(ledger, artifact, fact.number)
    if ledger.links_to(artifact.inode, fact.number):
        raise ledger.damaged(f"v{fact.number} of {fact.project}/{fact.artifact} is linked")
    ledger.give_up_number(artifact, fact.number)
    ledger.put("version", number_key(artifact.inode, fact.number), None)
    ledger.put("digest", _digest_key(artifact.inode, version.digest, fact.number), None)
    ledger.give_up_packs(version.inode)
    ledger.end_inode(version.inode)
    ledger.keep_latest(artifact)


def _linked(ledger: Ledger, fact: Linked) -> None:
    collection = ledger.existing_collection(fact.project, fact.collection)
    artifact = ledger.existing_artifact(fact.source_project, fact.artifact)
    version = _existing_version(ledger, artifact, fact.version)
    # A collection made without a type takes that of the first version linked into it.
    ledger.take_number(_replace(collection, type=collection.type or artifact.type), fact.number)
    inode = ledger.allot(InodeRecord("link", collection.inode, number=fact.number))
    record = LinkRecord(
        inode=inode,
        collection=collection.inode,
        number=fact.number,
        artifact=artifact.inode,
        version=fact.version,
        created_at_ns=ledger.stamp.at_ns,
        author=ledger.stamp.author,
    )
    ledger.put("link", number_key(collection.inode, fact.number), record)
    ledger.put("backlink", _backlink_key(record), b"")
    ledger.put("digest", _digest_key(collection.inode, version.digest, fact.number), b"")
    ledger.keep_latest(collection)


def _unlinked(ledger: Ledger, fact: Unlinked) -> None:
    collection = ledger.existing_collection(fact.project, fact.collection)
    link = ledger.link(collection.inode, fact.number)
    if link is None:
        raise ledger.damaged(f"there is no v{fact.number} in {fact.project}/{fact.collection}")
    version = ledger.version(link.artifact, link.version)
    assert version is not None  # a linked version is never deleted (_version_deleted)
    ledger.give_up_number(collection, fact.number)
    ledger.put("link", number_key(collection.inode, fact.number), None)
    ledger.put("backlink", _backlink_key(link), None)
    ledger.put("digest", _digest_key(collection.inode, version.digest, fact.number), None)
    ledger.end_inode(link.inode)
    ledger.keep_latest(collection)


# ---- aliases


def _alias_set(ledger: Ledger, fact: AliasSet) -> None:
    owner = ledger.existing_owner(fact.project, fact.name)
    find = ledger.version if isinstance(owner, ArtifactRecord) else ledger.link
    if find(owner.inode, fact.number) is None:
        raise ledger.damaged(f"there is no v{fact.number} in {fact.project}/{fact.name}")
    ledger.set_alias(owner, fact.alias, fact.number)
    ledger.touch(owner)


def _alias_dropped(ledger: Ledger, fact: AliasDropped) -> None:
    owner = ledger.existing_owner(fact.project, fact.name)
    ledger.drop_alias(owner, fact.alias)
    ledger.touch(owner)


def _alias_protected(ledger: Ledger, fact: AliasProtected) -> None:
    owner = ledger.existing_owner(fact.project, fact.name)
    ledger.put(
        "protection",
        pack_number(owner.inode) + fact.alias.encode(),
        ProtectionRecord(fact.group, ledger.stamp.author, ledger.stamp.at_ns),
    )


def _alias_unprotected(ledger: Ledger, fact: AliasUnprotected) -> None:
    owner = ledger.existing_owner(fact.project, fact.name)
    ledger.put("protection", pack_number(owner.inode) + fact.alias.encode(), None)


# ---- what is said about a version, an artifact or a collection


def _tagged(ledger: Ledger, fact: Tagged) -> None:
    _amend(ledger, fact, tags=fact.tags)


def _described(ledger: Ledger, fact: Described) -> None:
    _amend(ledger, fact, description=fact.description)


def _metadata_set(ledger: Ledger, fact: MetadataSet) -> None:
    _amend(ledger, fact, metadata=fact.metadata)


def _damage_marked(ledger: Ledger, fact: DamageMarked) -> None:
    artifact = ledger.existing_artifact(fact.project, fact.name)
    version = _existing_version(ledger, artifact, fact.number)
    key = number_key(artifact.inode, fact.number)
    ledger.put("version", key, _replace(version, damage=fact.damage))


def _amend(ledger: Ledger, fact: Tagged | Described | MetadataSet, **fields: Any) -> None:
    if fact.number is None:
        owner = ledger.existing_owner(fact.project, fact.name)
        ledger.save_owner(_replace(owner, **fields))
    else:
        artifact = ledger.existing_artifact(fact.project, fact.name)
        version = _existing_version(ledger, artifact, fact.number)
        key = number_key(artifact.inode, fact.number)
        ledger.put("version", key, _replace(version, **fields))


def _existing_version(ledger: Ledger, artifact: ArtifactRecord, number: int) -> VersionRecord:
    version = ledger.version(artifact.inode, number)
    if version is None:
        raise ledger.damaged(f"there is no v{number} of {artifact.project}/{artifact.name}")
    return version


def _digest_key(owner: int, digest: str, number: int) -> bytes:
    return pack_number(owner) + digest.encode() + pack_number(number)


def _backlink_key(link: LinkRecord) -> bytes:
    return number_key(link.artifact, link.version) + number_key(link.collection, link.number)


_EFFECTS: dict[type, Callable[[Ledger, Any], None]] = {
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
