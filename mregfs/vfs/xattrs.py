"""Extended attributes: what is known of a version, a collection or a file, as `user.mregfs.*`.

Decided here: which attributes each node has and their text. Not decided here: how bytes are shared
(`usage`), how a file is read (`content`). Values that cost more than a few index reads are computed
only when asked for by name.
"""

from collections.abc import Callable

import msgspec

from mregfs.model.bounds import SAID
from mregfs.model.records import OwnerRecord, VersionRecord
from mregfs.model.reference import format_time
from mregfs.model.state import State
from mregfs.registry.read.content import Content
from mregfs.vfs.appearance import Node, NodeKind

__all__ = ["PREFIX", "ExtendedAttributes"]

PREFIX = "user.mregfs."

_VERSION = tuple(
    sorted(
        (
            *SAID,
            "aliases",
            "artifact",
            "author",
            "created_at",
            "digest",
            "files",
            "links",
            "parents",
            "size",
            "unique_size",
            "version",
        )
    )
)
_OWNER = (
    "aliases",
    "author",
    "created_at",
    "description",
    "kind",
    "metadata",
    "protected",
    "tags",
    "type",
    "versions",
)
_FILE = ("digest", "read_path")
_SLOW = (b"user.mregfs.unique_size", b"user.mregfs.read_path")


class ExtendedAttributes:
    """The extended attributes of the registry's tree (drafts have their own, on the host)."""

    def __init__(
        self,
        content: Content,
        unique_size: Callable[[VersionRecord], int],
        read_path: Callable[[str], str],
    ) -> None:
        self._content = content
        self._unique_size = unique_size
        self._read_path = read_path

    def names(self, node: Node) -> list[str]:
        """Return the names of a node's attributes, without the prefix."""
        if node.kind is NodeKind.OWNER:
            return list(_OWNER)
        if node.kind is NodeKind.VERSION:
            if node.entry is None:
                return list(_VERSION)
            if node.entry.kind == "file":
                return list(_FILE)
        return []

    def is_slow(self, name: bytes) -> bool:
        """Tell whether a value is worth a thread; `name` is given with the prefix."""
        return name in _SLOW

    def value(self, state: State, node: Node, name: str) -> bytes | None:
        """Return an attribute's value, or None when the node has none of that name."""
        if name not in self.names(node):
            return None
        if node.kind is NodeKind.OWNER:
            assert node.owner is not None
            return self._owner_value(state, node.owner, name).encode()
        assert node.version is not None
        if node.entry is None:
            return self._version_value(state, node.version, name).encode()
        if name == "digest":
            return node.entry.digest.hex().encode()
        opened = self._content.open(node.version, node.position)
        try:
            return self._read_path(opened.read_path).encode()
        finally:
            opened.close()

    def _owner_value(self, state: State, owner: OwnerRecord, name: str) -> str:
        if name == "aliases":
            return _json({a.name: f"v{a.number}" for a in state.aliases(owner.inode)})
        if name == "protected":
            return _json({alias: p.group for alias, p in state.protections(owner.inode)})
        if name == "versions":
            return str(owner.count)
        if name == "kind":
            return owner.kind
        return _common(owner, name)

    def _version_value(self, state: State, version: VersionRecord, name: str) -> str:
        if name == "aliases":
            return ",".join(state.aliases_of(version.artifact, version.number))
        if name == "artifact":
            artifact = state.artifact_by_inode(version.artifact)
            return f"{artifact.project}/{artifact.name}"
        if name == "version":
            return f"v{version.number}"
        if name == "links":
            return ",".join(self._links(state, version))
        if name == "parents":
            return ",".join(f"{p.project}/{p.artifact}:v{p.number}" for p in version.parents)
        if name == "unique_size":
            return str(self._unique_size(version))
        return _common(version, name)

    def _links(self, state: State, version: VersionRecord) -> list[str]:
        found = []
        for inode, number in state.links_to(version.artifact, version.number):
            collection = state.owner_by_inode(inode)
            if collection is not None:
                found.append(f"{collection.project}/{collection.name}:v{number}")
        return found


def _common(record: OwnerRecord | VersionRecord, name: str) -> str:
    if name == "created_at":
        return format_time(record.created_at_ns)
    if name == "metadata":
        return _json(record.metadata)
    if name == "tags":
        return ",".join(record.tags)
    return str(getattr(record, name))


def _json(value: object) -> str:
    return msgspec.json.encode(value, order="deterministic").decode()
