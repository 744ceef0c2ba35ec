"""The registry's state, read from a view of the index: tables, keys, typed records, resolving.

Decided here: under which key each record stands (`index.md`), and what a reference resolves to. Not
decided here: what changes a record (`rules`).

Numbers in keys are 8 bytes big-endian, so that byte order is numeric order.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec

from mregfs.errors import CorruptError, InvalidError, NotFoundError
from mregfs.model.names import LATEST, ProjectName
from mregfs.model.records import (
    AccessRecord,
    AliasRecord,
    ArtifactRecord,
    CollectionRecord,
    EntityRecord,
    InodeRecord,
    LinkRecord,
    OwnerRecord,
    PackRecord,
    ProjectRecord,
    ProtectionRecord,
    ReflogRecord,
    VersionRecord,
    VersionSize,
)
from mregfs.model.reference import Location

__all__ = [
    "FIRST_INODE",
    "STATE_TABLES",
    "Put",
    "Resolved",
    "State",
    "View",
    "access_key",
    "encode_record",
    "number_key",
    "pack_number",
]

FIRST_INODE = 1 << 10
"""Inode numbers below are fixed: the mount's root and its own directories (`vfs/tree`)."""

STATE_TABLES = (
    "meta",
    "entity",
    "project",
    "artifact",
    "collection",
    "version",
    "link",
    "backlink",
    "alias",
    "alias_of",
    "digest",
    "pack",
    "pack_user",
    "version_pack",
    "reflog",
    "owner_entry",
    "protection",
    "access",
    "tombstone",
    "feature",
    "inode",
    "recent",
)
"""All that the log determines; a checkpoint holds exactly these tables."""

_R = TypeVar("_R")


class _Decoder:
    """Decodes the rows of one kind of record."""

    def __init__(self, cls: type[msgspec.Struct]) -> None:
        self._decode = msgspec.msgpack.Decoder(cls).decode

    def decode(self, data: bytes) -> Any:
        try:
            return self._decode(data)
        except msgspec.DecodeError as exc:
            raise CorruptError(
                f"a record in the index of this host is damaged ({exc})",
                "mregfs reindex makes the index again from the log",
            ) from exc


_decoders: dict[Any, _Decoder] = {
    cls: _Decoder(cls)
    for cls in (
        AccessRecord,
        AliasRecord,
        ArtifactRecord,
        CollectionRecord,
        EntityRecord,
        InodeRecord,
        LinkRecord,
        PackRecord,
        ProjectRecord,
        ProtectionRecord,
        ReflogRecord,
        VersionRecord,
        VersionSize,
    )
}
_encode = msgspec.msgpack.Encoder(order="deterministic").encode


class View(Protocol):
    """A consistent read-only state of the index: ordered byte keys in named tables."""

    def get(self, table: str, key: bytes) -> bytes | None:
        """Return the value under `key`, or None."""
        ...

    def scan(
        self, table: str, prefix: bytes = b"", start: bytes = b"", *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) of all keys that begin with `prefix`, in byte order.

        Forward: from the first key >= `start`. Reverse: downwards from the last key <= `start`
        (from the last one with the prefix when `start` is empty). Lazy: reads only what is taken.
        """
        ...


class Put(NamedTuple):
    """One change of the index: a value under a key of a table, or its end (None)."""

    table: str
    key: bytes
    value: bytes | None


def pack_number(number: int) -> bytes:
    """Return 8 bytes, big-endian."""
    return number.to_bytes(8, "big")


def number_key(owner: int, number: int) -> bytes:
    """Return the key of a version or link: owner's inode, then number."""
    return owner.to_bytes(8, "big") + number.to_bytes(8, "big")


def access_key(project: str) -> bytes:
    """Return the key of what was said of who may use a project; of the store, of `` ."""
    return b"/" + project.encode()  # an index takes no empty key


def encode_record(record: msgspec.Struct) -> bytes:
    """Return a record's bytes in the index."""
    return _encode(record)


class Resolved(NamedTuple):
    """A version that a reference resolved to, and by which way."""

    artifact: ArtifactRecord
    version: VersionRecord
    owner: OwnerRecord
    """The artifact or the collection that the reference named."""
    number: int
    """The number within `owner`."""


class State:
    """Typed reading of one consistent view."""

    def __init__(self, view: View) -> None:
        self._get = view.get
        self._scan = view.scan

    def _read(self, cls: type[_R], table: str, key: bytes) -> _R | None:
        data = self._get(table, key)
        return None if data is None else _decoders[cls].decode(data)

    def _read_all(
        self, cls: type[_R], table: str, prefix: bytes, start: bytes = b"", *, reverse: bool = False
    ) -> Iterator[_R]:
        decode = _decoders[cls].decode
        for _, data in self._scan(table, prefix, start, reverse=reverse):
            yield decode(data)

    # ---- one record

    def next_inode(self) -> int:
        """Return the inode number that the next new thing gets."""
        data = self._get("meta", b"next_inode")
        return FIRST_INODE if data is None else int.from_bytes(data, "big")

    def features(self) -> dict[str, tuple[str, ...]]:
        """Return the features that log entries have named, and the operations that need each."""
        return {
            name.decode(): tuple(msgspec.msgpack.decode(operations))
            for name, operations in self._scan("feature")
        }

    def entity(self, name: str) -> EntityRecord | None:
        """Return the entity's record, or None."""
        return self._read(EntityRecord, "entity", name.encode())

    def project(self, name: ProjectName | str) -> ProjectRecord | None:
        """Return the project's record, or None when nothing was ever made in it."""
        return self._read(ProjectRecord, "project", str(name).encode())

    def artifact(self, project: ProjectName | str, name: str) -> ArtifactRecord | None:
        """Return the artifact of that name, or None."""
        return self._read(ArtifactRecord, "artifact", f"{project}/{name}".encode())

    def pack(self, pack: str) -> PackRecord | None:
        """Return what the log says of a pack, or None when it does not name it."""
        return self._read(PackRecord, "pack", bytes.fromhex(pack))

    def packs_of(self, version: int) -> list[str]:
        """Return the packs that the version with this inode uses, in the order of their ids."""
        return [key[8:].hex() for key, _ in self._scan("version_pack", pack_number(version))]

    def users_of(self, pack: str) -> Iterator[int]:
        """Yield the inodes of the versions that use a pack."""
        for key, _ in self._scan("pack_user", bytes.fromhex(pack)):
            yield int.from_bytes(key[16:], "big")

    def free_packs(self) -> Iterator[tuple[str, PackRecord]]:
        """Yield the packs that no version uses and nobody has retired."""
        decode = _decoders[PackRecord].decode
        for key, data in self._scan("pack"):
            record = decode(data)
            if not record.retired_at_ns and next(self._scan("pack_user", key), None) is None:
                yield key.hex(), record

    def collection(self, project: ProjectName | str, name: str) -> CollectionRecord | None:
        """Return the collection of that name, or None."""
        return self._read(CollectionRecord, "collection", f"{project}/{name}".encode())

    def owner(
        self, project: ProjectName | str, name: str, kind: str | None = None
    ) -> OwnerRecord | None:
        """Return the artifact or collection of that name (only of `kind`, if given), or None."""
        found: OwnerRecord | None = None
        if kind in (None, "artifact"):
            found = self.artifact(project, name)
        if found is None and kind in (None, "collection"):
            found = self.collection(project, name)
        return found

    def owner_by_inode(self, inode: int) -> OwnerRecord | None:
        """Return the artifact or collection with this inode number, or None."""
        record = self.inode(inode)
        if record is None or record.kind not in ("artifact", "collection"):
            return None
        parent = self.inode(record.parent)
        if parent is None:
            return None
        entity = self.inode(parent.parent)
        if entity is None:
            return None
        return self.owner(f"{entity.name}/{parent.name}", record.name, record.kind)

    def artifact_by_inode(self, inode: int) -> ArtifactRecord:
        """Return the artifact with this inode number; it must exist."""
        record = self.owner_by_inode(inode)
        if not isinstance(record, ArtifactRecord):
            raise NotFoundError(f"no artifact has inode {inode}")
        return record

    def version(self, artifact: int, number: int) -> VersionRecord | None:
        """Return a version of the artifact with that inode, or None."""
        return self._read(VersionRecord, "version", number_key(artifact, number))

    def link(self, collection: int, number: int) -> LinkRecord | None:
        """Return a link of the collection with that inode, or None."""
        return self._read(LinkRecord, "link", number_key(collection, number))

    def alias(self, owner: int, name: str) -> AliasRecord | None:
        """Return an alias (`latest` too) of the owner with that inode, or None."""
        return self._read(AliasRecord, "alias", pack_number(owner) + name.encode())

    def protection(self, owner: int, alias: str) -> ProtectionRecord | None:
        """Return who protects an alias, or None."""
        return self._read(ProtectionRecord, "protection", pack_number(owner) + alias.encode())

    def access(self, project: str = "") -> AccessRecord | None:
        """Return what was said of who may use a project, or the store (no project); or None."""
        return self._read(AccessRecord, "access", access_key(project))

    def accesses(self) -> Iterator[tuple[str, AccessRecord]]:
        """Yield (project, record) of all of which something was said; the store's project is ``."""
        decode = _decoders[AccessRecord].decode
        for key, data in self._scan("access"):
            yield key[1:].decode(), decode(data)

    def first_number(self, project: ProjectName | str, name: str) -> int:
        """Return the number that a new artifact or collection of this name begins with.

        0, unless the name was used before: `name:v3` never means two things.
        """
        data = self._get("tombstone", f"{project}/{name}".encode())
        return 0 if data is None else int.from_bytes(data[:8], "big")

    def last_holder(self, project: ProjectName | str, name: str) -> int | None:
        """Return the inode of who last used numbers under a name and gave it up, or None."""
        data = self._get("tombstone", f"{project}/{name}".encode())
        return None if data is None else int.from_bytes(data[8:], "big")

    def inode(self, inode: int) -> InodeRecord | None:
        """Return what stands exactly at this inode number, or None."""
        return self._read(InodeRecord, "inode", pack_number(inode))

    def inode_at_or_below(self, inode: int) -> tuple[int, InodeRecord] | None:
        """Return the nearest allocated number at or below `inode`, and what it is."""
        for key, data in self._scan("inode", b"", pack_number(inode), reverse=True):
            record: InodeRecord = _decoders[InodeRecord].decode(data)
            return int.from_bytes(key, "big"), record
        return None

    # ---- many records, lazily, in order

    def entities(self, start: str = "") -> Iterator[EntityRecord]:
        """Yield entities by name, from the first one >= `start`."""
        return self._read_all(EntityRecord, "entity", b"", start.encode())

    def projects(self, entity: str | None = None, start: str = "") -> Iterator[ProjectRecord]:
        """Yield projects (of one entity) by name, from the first one >= `start`."""
        prefix = f"{entity}/".encode() if entity else b""
        return self._read_all(ProjectRecord, "project", prefix, prefix + start.encode())

    def artifacts(self, project: ProjectName | str, start: str = "") -> Iterator[ArtifactRecord]:
        """Yield a project's artifacts by name, from the first one >= `start`."""
        prefix = f"{project}/".encode()
        return self._read_all(ArtifactRecord, "artifact", prefix, prefix + start.encode())

    def collections(
        self, project: ProjectName | str, start: str = ""
    ) -> Iterator[CollectionRecord]:
        """Yield a project's collections by name, from the first one >= `start`."""
        prefix = f"{project}/".encode()
        return self._read_all(CollectionRecord, "collection", prefix, prefix + start.encode())

    def versions(
        self, artifact: int, start: int = 0, *, reverse: bool = False
    ) -> Iterator[VersionRecord]:
        """Yield versions by number: upwards from `start`, or downwards from the newest."""
        prefix = pack_number(artifact)
        key = b"" if reverse and not start else number_key(artifact, start)
        return self._read_all(VersionRecord, "version", prefix, key, reverse=reverse)

    def version_sizes(self) -> Iterator[VersionSize]:
        """Yield the sizes of all versions of the store."""
        return self._read_all(VersionSize, "version", b"")

    def links(
        self, collection: int, start: int = 0, *, reverse: bool = False
    ) -> Iterator[LinkRecord]:
        """Yield links by number: upwards from `start`, or downwards from the newest."""
        prefix = pack_number(collection)
        key = b"" if reverse and not start else number_key(collection, start)
        return self._read_all(LinkRecord, "link", prefix, key, reverse=reverse)

    def aliases(self, owner: int, start: str = "") -> Iterator[AliasRecord]:
        """Yield aliases (`latest` too) of an owner by name, from the first one >= `start`."""
        prefix = pack_number(owner)
        return self._read_all(AliasRecord, "alias", prefix, prefix + start.encode())

    def protections(self, owner: int) -> Iterator[tuple[str, ProtectionRecord]]:
        """Yield (alias, protection) of an owner by name of the alias."""
        decode = _decoders[ProtectionRecord].decode
        for key, data in self._scan("protection", pack_number(owner)):
            yield key[8:].decode(), decode(data)

    def aliases_of(self, owner: int, number: int) -> list[str]:
        """Return the names of the aliases (`latest` too) at a number, sorted."""
        prefix = number_key(owner, number)
        return [key[16:].decode() for key, _ in self._scan("alias_of", prefix)]

    def links_to(self, artifact: int, version: int) -> list[tuple[int, int]]:
        """Return (collection's inode, link number) of every link to a version."""
        return [
            (int.from_bytes(key[16:24], "big"), int.from_bytes(key[24:32], "big"))
            for key, _ in self._scan("backlink", number_key(artifact, version))
        ]

    def sound_number(self, owner: int, digest: str) -> int | None:
        """Return the number of a version that has this content, and has lost none of it."""
        for _, number in self.numbers_with_digest(owner, digest):
            version = self.version(owner, number)
            if version is not None and not version.damage:
                return number
        return None

    def numbers_with_digest(self, owner: int, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield (digest, number) of versions or links whose digest begins with `prefix`, sorted."""
        start = pack_number(owner) + prefix.encode()
        for key, _ in self._scan("digest", start):
            yield key[8:72].decode(), int.from_bytes(key[72:80], "big")

    def reflog(self, owner: int, alias: str) -> Iterator[ReflogRecord]:
        """Yield the moves of an alias, newest first."""
        prefix = pack_number(owner) + alias.encode() + b"\0"
        return self._read_all(ReflogRecord, "reflog", prefix, reverse=True)

    def owner_entries(self, owner: int) -> Iterator[int]:
        """Yield the sequence numbers of the entries that are about an owner, newest first."""
        for key, _ in self._scan("owner_entry", pack_number(owner), reverse=True):
            yield int.from_bytes(key[8:], "big")

    # ---- resolving

    def find_owner(self, location: Location) -> OwnerRecord:
        """Return the artifact or collection that a location names.

        Raises:
            NotFoundError: there is none of that name.
        """
        found = self.owner(location.project, location.name, location.kind)
        if found is None:
            kind = location.kind or "artifact or collection"
            raise NotFoundError(
                f"there is no {kind} {location.name!r} in project {location.project}",
                "list what there is with: mregfs ls",
            )
        return found

    def find_number(self, owner: OwnerRecord, location: Location) -> int:
        """Return the number of `owner` that a location's selector picks.

        Raises:
            NotFoundError: there is no such alias, number or digest, or it had no such past.
            InvalidError: a digest prefix fits several.
        """
        if location.number is not None:
            exists = (
                self.version(owner.inode, location.number)
                if isinstance(owner, ArtifactRecord)
                else self.link(owner.inode, location.number)
            )
            if exists is None:
                raise NotFoundError(
                    f"{owner.kind} {owner.name!r} has no v{location.number}",
                    f"list its versions with: mregfs ls {owner.name!r}",
                )
            return location.number
        if location.digest is not None:
            return self._number_by_digest(owner, location.digest)
        alias = location.alias or LATEST
        if location.when is not None:
            return self._number_by_history(owner, alias, location)
        record = self.alias(owner.inode, alias)
        if record is None:
            what = "has no version yet" if alias == LATEST else f"has no alias {alias!r}"
            raise NotFoundError(
                f"{owner.kind} {owner.name!r} {what}",
                f"list its aliases with: mregfs ls {owner.name!r}",
            )
        return record.number

    def resolve(self, location: Location) -> Resolved:
        """Return the version that a location resolves to, through a link if need be.

        Raises:
            NotFoundError: nothing there.
            InvalidError: a digest prefix fits several.
        """
        owner = self.find_owner(location)
        number = self.find_number(owner, location)
        return self.resolve_number(owner, number)

    def resolve_number(self, owner: OwnerRecord, number: int) -> Resolved:
        """Return the version behind number `number` of an artifact or collection.

        Raises:
            NotFoundError: there is no such number (any more).
        """
        artifact, version = owner, number
        if isinstance(owner, CollectionRecord):
            link = self.link(owner.inode, number)
            if link is None:
                raise NotFoundError(f"collection {owner.name!r} has no v{number}")
            artifact, version = self.artifact_by_inode(link.artifact), link.version
        assert isinstance(artifact, ArtifactRecord)
        record = self.version(artifact.inode, version)
        if record is None:
            raise NotFoundError(
                f"artifact {artifact.name!r} has no v{version}", "it may have been deleted since"
            )
        return Resolved(artifact, record, owner, number)

    def _number_by_digest(self, owner: OwnerRecord, prefix: str) -> int:
        found = ""
        number = -1
        for digest, candidate in self.numbers_with_digest(owner.inode, prefix):
            if found and digest != found:
                raise InvalidError(
                    f"@{prefix} matches several versions of {owner.name!r}", "write more digits"
                )
            found, number = digest, candidate
        if not found:
            raise NotFoundError(
                f"no version of {owner.kind} {owner.name!r} has the digest {prefix}…"
            )
        return number

    def _number_by_history(self, owner: OwnerRecord, alias: str, location: Location) -> int:
        when = location.when
        assert when is not None
        steps = when.steps
        for record in self.reflog(owner.inode, alias):
            if steps == 0 or (when.at_ns is not None and record.at_ns <= when.at_ns):
                if record.number is None:
                    break
                return record.number
            if steps is not None:
                steps -= 1
        raise NotFoundError(
            f"{owner.name}{location.selector} points at nothing",
            f"see where {alias!r} has been with: mregfs history {owner.name}:{alias}",
        )
