"""Log entries: the facts that the log is made of, and their codec.

Decided here: the form of an entry (`format.md` §3). Not decided here: what its fields may hold
(`bounds`), which facts a command leads to (`rules.decide`), what they do to the state
(`rules.apply`), where entries are stored.

A change names things as people do (project, name, number), so that the log can be read with `cat`.
A change is a decided fact: applying it needs no decision.
"""

from collections.abc import Callable
from typing import Any, get_args

import msgspec

from mregfs.errors import CorruptError
from mregfs.model.bounds import find_flaw
from mregfs.model.commands import signature
from mregfs.model.features import KNOWN, require
from mregfs.model.records import Parent
from mregfs.model.reference import format_time

__all__ = [
    "ENTRY_GRAIN",
    "AccessSet",
    "AliasDropped",
    "AliasProtected",
    "AliasSet",
    "AliasUnprotected",
    "ArtifactCreated",
    "Change",
    "CollectionCreated",
    "CollectionRenamed",
    "DamageMarked",
    "Described",
    "Entry",
    "LayoutReplaced",
    "Linked",
    "MetadataSet",
    "OwnerDeleted",
    "PacksRetired",
    "ProjectCreated",
    "Request",
    "Tagged",
    "Unlinked",
    "VersionDeleted",
    "VersionLogged",
    "decode_entry",
    "encode_entry",
    "entry_key",
    "event_line",
    "event_of",
]


class Fact(msgspec.Struct, frozen=True, tag_field="change"):
    """Base of all changes. Fields that this program does not know are ignored (format.md §9)."""

    project: str
    """`entity/project`; empty in a fact about the whole store."""


class ProjectCreated(Fact, frozen=True, tag="project-created"):
    """A project exists from now on (and its entity, if it is new)."""


class ArtifactCreated(Fact, frozen=True, tag="artifact-created"):
    """An artifact exists from now on; its first version will be v0."""

    name: str
    type: str


class VersionLogged(Fact, frozen=True, tag="version-logged"):
    """A draft became a version. The artifact's `latest` moves to it."""

    artifact: str
    number: int
    digest: str
    layout: str
    size: int
    files: int
    entries: int
    packs: dict[str, int] = {}
    """The packs that it adds to the store, and their sizes in bytes."""
    shared: tuple[str, ...] = ()
    """The packs of earlier versions that it uses as well."""
    description: str = ""
    metadata: dict[str, Any] = {}
    tags: tuple[str, ...] = ()
    run: str = ""
    parents: tuple[Parent, ...] = ()


class VersionDeleted(Fact, frozen=True, tag="version-deleted"):
    """A version is gone; `latest` falls back to the newest remaining one."""

    artifact: str
    number: int


class LayoutReplaced(Fact, frozen=True, tag="layout-replaced"):
    """A version's bytes are in other packs; what they are stays the same."""

    artifact: str
    number: int
    layout: str
    previous_layout: str
    packs: dict[str, int] = {}
    """As in `VersionLogged`."""
    shared: tuple[str, ...] = ()


class PacksRetired(Fact, frozen=True, tag="packs-retired"):
    """No version uses these packs, and none will: their bytes go after the grace period.

    It is about the whole store: `project` is empty.
    """

    packs: tuple[str, ...]


class CollectionCreated(Fact, frozen=True, tag="collection-created"):
    """A collection exists from now on; its first link will be v0."""

    name: str
    type: str


class CollectionRenamed(Fact, frozen=True, tag="collection-renamed"):
    """A collection has another name; links, numbers, aliases and history stay."""

    name: str
    new_name: str


class OwnerDeleted(Fact, frozen=True, tag="deleted"):
    """An artifact without versions, or a collection without links, is gone."""

    name: str


class Linked(Fact, frozen=True, tag="linked"):
    """A version became a member of a collection. The collection's `latest` moves to it."""

    collection: str
    number: int
    source_project: str
    artifact: str
    version: int


class Unlinked(Fact, frozen=True, tag="unlinked"):
    """A link is gone; `latest` falls back to the newest remaining one."""

    collection: str
    number: int


class AliasSet(Fact, frozen=True, tag="alias-set"):
    """An alias points at a number now."""

    name: str
    alias: str
    number: int
    previous: int | None = None


class AliasDropped(Fact, frozen=True, tag="alias-dropped"):
    """An alias is gone."""

    name: str
    alias: str
    previous: int


class AliasProtected(Fact, frozen=True, tag="alias-protected"):
    """Only members of `group` may move or drop the alias from now on."""

    name: str
    alias: str
    group: str


class AliasUnprotected(Fact, frozen=True, tag="alias-unprotected"):
    """Anyone may move or drop the alias again."""

    name: str
    alias: str


class AccessSet(Fact, frozen=True, tag="access-set"):
    """All that is said of who may read and change a project, or the store (`project` is empty).

    None: what holds for the store holds for the project; of the store, what holds for a new one.
    """

    readers: str | None = None
    writers: str | None = None
    private_drafts: bool | None = None


class Tagged(Fact, frozen=True, tag="tagged"):
    """The tags of a version (`number`) or of the artifact or collection itself (None)."""

    name: str
    number: int | None
    tags: tuple[str, ...]


class Described(Fact, frozen=True, tag="described"):
    """The description of a version, artifact or collection."""

    name: str
    number: int | None
    description: str


class MetadataSet(Fact, frozen=True, tag="metadata-set"):
    """The whole metadata of a version, artifact or collection."""

    name: str
    number: int | None
    metadata: dict[str, Any]


class DamageMarked(Fact, frozen=True, tag="damage-marked"):
    """Bytes of a version are lost; or, when `damage` is empty, they are there again."""

    name: str
    number: int
    damage: str


Change = (
    ProjectCreated
    | ArtifactCreated
    | VersionLogged
    | VersionDeleted
    | CollectionCreated
    | CollectionRenamed
    | OwnerDeleted
    | Linked
    | Unlinked
    | AliasSet
    | AliasDropped
    | AliasProtected
    | AliasUnprotected
    | AccessSet
    | Tagged
    | Described
    | MetadataSet
    | DamageMarked
    | LayoutReplaced
    | PacksRetired
)


class Request(msgspec.Struct, frozen=True):
    """What one caller asked for, decided: all of it or nothing."""

    author: str
    """Whom the caller said to be; the user himself if he said nothing."""
    changes: tuple[Change, ...]
    reason: str = ""
    user: str = ""
    """The user that the host knew the caller as."""

    @property
    def signature(self) -> str:
        """What history calls the caller: the user, or `author (user)`."""
        return signature(self.author, self.user)


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One entry of the log. Requests that arrived together share one."""

    sequence: int
    previous: str
    """BLAKE3-256 of the bytes of the entry before; 64 zeros in the first."""
    transaction: str
    """Random id by which a writer recognises its own entry."""
    at_ns: int
    host: str
    requests: tuple[Request, ...]
    features: dict[str, tuple[str, ...]] = {}
    """What a program must know for what, from this entry on (`features`)."""


ENTRY_GRAIN = 1 << 10
"""Bytes of which the size of an entry is a multiple, so that it may be written into a file that was
made before: most entries are that small. Entries of other sizes are as valid."""

MAX_ENTRY_SIZE = 64 << 20
"""Bytes; a larger entry is refused on reading and writing alike."""

_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(Entry, strict=True)
_KINDS = frozenset(kind.__struct_config__.tag for kind in get_args(Change))


def entry_key(sequence: int) -> str:
    """Return the key of the entry in the store."""
    return f"log/{sequence:020d}.json"


def encode_entry(entry: Entry, *, grain: int = 1) -> bytes:
    """Return the bytes of an entry; one line of JSON, with spaces up to a multiple of `grain`."""
    data = _encoder.encode(entry)
    return data + b" " * (-(len(data) + 1) % grain) + b"\n"


def decode_entry(data: bytes, key: str) -> Entry:
    """Decode an entry; `key` is named in errors.

    Raises:
        CorruptError: it is not a well-formed entry of this format version, or says what no
            command may say.
        UnsupportedError: it needs a feature, to be read, that this program does not know.
    """
    if len(data) > MAX_ENTRY_SIZE:
        raise CorruptError(
            f"{key} is too large for a log entry ({len(data)} bytes)", "run mregfs fsck"
        )
    if data[-1:] != b"\n":
        raise CorruptError(f"{key} is cut off: it does not end in a newline", "run mregfs fsck")
    try:
        entry = _decoder.decode(data)
    except msgspec.ValidationError as exc:
        entry = _known_part(data, key, exc)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise CorruptError(
            f"{key} is not a log entry of format 1 ({exc})", "run mregfs fsck"
        ) from exc
    require(entry.features, "read", key)
    flaw = find_flaw(entry)
    if flaw:
        raise CorruptError(f"{key} says what no command may say: {flaw}", "run mregfs fsck")
    return entry


class _Features(msgspec.Struct):
    features: dict[str, tuple[str, ...]] = {}


def _known_part(data: bytes, key: str, failure: msgspec.ValidationError) -> Entry:
    """Return an entry without the changes of kinds that this program need not know.

    Raises:
        CorruptError: nothing in it says that there may be such.
        UnsupportedError: it needs a feature, to be read, that this program does not know.
    """
    try:
        features = msgspec.json.decode(data, type=_Features).features
        require(features, "read", key)
        if features.keys() <= KNOWN:
            raise failure
        raw = msgspec.json.decode(data)
        for request in raw["requests"]:
            request["changes"] = [
                change for change in request["changes"] if change["change"] in _KINDS
            ]
        return msgspec.convert(raw, Entry)
    except (msgspec.DecodeError, UnicodeDecodeError, LookupError, TypeError, RecursionError) as exc:
        raise CorruptError(
            f"{key} is not a log entry of format 1 ({exc})", "run mregfs fsck"
        ) from exc


def event_line(entry: Entry, may_read: Callable[[str], bool] = lambda project: True) -> bytes:
    """Return an entry as watchers get it: one line of JSON, all changes in order."""
    return _encoder.encode(event_of(entry, may_read)) + b"\n"


def event_of(
    entry: Entry, may_read: Callable[[str], bool] = lambda project: True
) -> dict[str, Any]:
    """Return what an event line says, but for what happened in projects that may not be read."""
    changes = [
        {
            "author": request.author,
            "user": request.user,
            "reason": request.reason,
            **msgspec.to_builtins(change),
        }
        for request in entry.requests
        for change in request.changes
        if may_read(change.project)
    ]
    return {
        "sequence": entry.sequence,
        "at": format_time(entry.at_ns),
        "host": entry.host,
        "transaction": entry.transaction,
        "changes": changes,
    }
