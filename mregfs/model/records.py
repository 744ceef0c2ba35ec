"""The records of the registry's state, as the index stores them.

Decided here: what is remembered of each noun. Not decided here: when a record changes (`rules`),
under which key it stands (`state`).

Encoded as MessagePack arrays: fields are only ever added at the end, with a default.
"""

from typing import Any

import msgspec

__all__ = [
    "AccessRecord",
    "AliasRecord",
    "ArtifactRecord",
    "CollectionRecord",
    "EntityRecord",
    "InodeRecord",
    "LinkRecord",
    "OwnerRecord",
    "Parent",
    "ProjectRecord",
    "ProtectionRecord",
    "ReflogRecord",
    "VersionRecord",
    "VersionSize",
]


class Record(msgspec.Struct, frozen=True, array_like=True):
    """Base of all records."""


class EntityRecord(Record, frozen=True):
    """An entity; `inode` is its directory's, below `projects`."""

    inode: int
    name: str
    created_at_ns: int


class ProjectRecord(Record, frozen=True):
    """A project. It owns eight inode numbers from `inode` on: itself, artifacts, collections, …"""

    inode: int
    entity: str
    name: str
    created_at_ns: int


class ArtifactRecord(Record, frozen=True):
    """A Model Artifact: the sequence of versions logged under one name."""

    inode: int
    project: str
    """`entity/project`."""
    name: str
    type: str
    created_at_ns: int
    author: str
    description: str = ""
    next_number: int = 0
    """The number that the next version gets; numbers are never reused."""
    count: int = 0
    """Versions that exist now."""
    changed_at_ns: int = 0
    """When a version or alias last came or went: the directory's mtime."""
    metadata: dict[str, Any] = {}
    tags: tuple[str, ...] = ()

    kind = "artifact"


class CollectionRecord(Record, frozen=True):
    """A Model Collection: a curated sequence of links to versions, of one type."""

    inode: int
    project: str
    name: str
    type: str
    created_at_ns: int
    author: str
    description: str = ""
    next_number: int = 0
    count: int = 0
    changed_at_ns: int = 0
    metadata: dict[str, Any] = {}
    tags: tuple[str, ...] = ()

    kind = "collection"


OwnerRecord = ArtifactRecord | CollectionRecord
"""What owns numbers and aliases."""


class Parent(Record, frozen=True):
    """A version that another one was made from; a fact that outlives the version."""

    project: str
    artifact: str
    number: int
    digest: str


class VersionRecord(Record, frozen=True):
    """A Model Version: an immutable directory of files plus metadata.

    It owns `entries` + 1 inode numbers from `inode` on: its own, and one for each entry of its
    manifest, in the manifest's order.
    """

    inode: int
    artifact: int
    """Inode of the artifact."""
    number: int
    digest: str
    """Digest of the manifest: the version's identity."""
    layout: str
    """Id of the layout."""
    size: int
    """Bytes of all files."""
    files: int
    entries: int
    """Files, directories and symlinks."""
    created_at_ns: int
    author: str
    description: str = ""
    metadata: dict[str, Any] = {}
    tags: tuple[str, ...] = ()
    run: str = ""
    parents: tuple[Parent, ...] = ()
    damage: str = ""
    """Which bytes of it are lost; nothing is what is hoped for."""


class PackRecord(Record, frozen=True):
    """A pack that the log names. The record stays for ever: ids are never used again."""

    size: int
    """Bytes; 0 of a pack that was retired before any entry named it."""
    sequence: int
    """The entry that added it; 0 when none did."""
    retired_at_ns: int = 0
    """When it was retired; 0 while versions may use it."""


class VersionSize(Record, frozen=True):
    """The beginning of a version's record: enough to add up sizes, and half the work to decode."""

    inode: int
    artifact: int
    number: int
    digest: msgspec.Raw
    layout: str
    size: int
    files: int
    entries: int


class LinkRecord(Record, frozen=True):
    """Membership of a version in a collection."""

    inode: int
    collection: int
    number: int
    artifact: int
    """Inode of the artifact of the linked version."""
    version: int
    """Number of the linked version."""
    created_at_ns: int
    author: str


class AliasRecord(Record, frozen=True):
    """A movable name for one number of an artifact or collection. Its inode is its own for life."""

    inode: int
    owner: int
    name: str
    number: int
    moved_at_ns: int
    author: str


class ReflogRecord(Record, frozen=True):
    """One move of an alias; `number` None when it was dropped, `previous` None when it was new."""

    sequence: int
    at_ns: int
    author: str
    reason: str
    number: int | None
    previous: int | None


class ProtectionRecord(Record, frozen=True):
    """An alias that only members of `group` may move or drop."""

    group: str
    author: str
    at_ns: int


class AccessRecord(Record, frozen=True):
    """Who may read and who may change a project, or the store; None: nothing was said."""

    readers: str | None
    writers: str | None
    private_drafts: bool | None
    author: str
    at_ns: int


class InodeRecord(Record, frozen=True):
    """What the inode numbers from this one up to the next record's are.

    `kind`: entity, project, artifact, collection, version, link, alias. `parent`: inode of the
    project (of an artifact or collection), of the owner (of a version, link, alias), of the entity
    (of a project). `number`: of a version or link; for a version the numbers after `inode` are its
    manifest's entries. `name`: of an entity, project, artifact, collection, alias.

    What is deleted stays as kind `gone`: its numbers never seem to be those of the record before.
    """

    kind: str
    parent: int
    number: int = 0
    name: str = ""
