"""The results of reading: the types that the API returns, and that a mount answers with as JSON.

Decided here: which facts there are. Not decided here: where they come from (`catalog`, `files`,
`history`, `usage`, `diff`). Fields are only ever added. This module imports nothing that an
installation without `[mount]` lacks.
"""

from typing import Any

import msgspec

__all__ = [
    "ChangedFile",
    "Diff",
    "DiffFile",
    "FileInfo",
    "HistoryLine",
    "OwnerInfo",
    "Usage",
    "VersionInfo",
]


class VersionInfo(msgspec.Struct, frozen=True):
    """A version, and by which way it was found."""

    project: str
    """`entity/project` of its artifact."""
    artifact: str
    version: str
    """`vN` within its artifact."""
    owner: str
    """`entity/project/name` of the artifact or collection that was asked."""
    number: str
    """`vN` within that."""
    digest: str
    size: int
    files: int
    created_at_ns: int
    author: str
    description: str
    metadata: dict[str, Any]
    tags: tuple[str, ...]
    run: str
    parents: tuple[str, ...]
    """References of the versions it was made from."""
    aliases: tuple[str, ...]
    """Within the artifact or collection that was asked."""
    links: tuple[str, ...]
    """References of all links to it."""
    damage: str = ""
    """Which bytes of it are known to be lost."""


class OwnerInfo(msgspec.Struct, frozen=True):
    """An artifact or a collection."""

    kind: str
    """`artifact` or `collection`."""
    project: str
    name: str
    type: str
    description: str
    tags: tuple[str, ...]
    metadata: dict[str, Any]
    aliases: dict[str, str]
    """Name to `vN`, `latest` too."""
    protections: dict[str, str]
    """Alias to the group that protects it."""
    versions: int
    """How many there are now."""
    created_at_ns: int
    changed_at_ns: int
    author: str


class FileInfo(msgspec.Struct, frozen=True):
    """A file, directory or symlink of a version."""

    path: str
    kind: str
    """`file`, `directory` or `symlink`."""
    size: int
    executable: bool
    digest: str
    """Of a file; empty of anything else."""
    target: str
    """Of a symlink."""


class HistoryLine(msgspec.Struct, frozen=True):
    """One thing that happened."""

    sequence: int
    at_ns: int
    author: str
    reason: str
    what: str
    """For people: `production: v1 -> v3`."""


class Usage(msgspec.Struct, frozen=True):
    """Space that some versions take, in bytes."""

    logical: int
    """As the files add up."""
    unique: int
    """Stored for these versions alone."""
    shared: int
    """Stored, and used by other versions as well."""
    files: int
    versions: int
    freed_by_deleting: int
    """What deleting all of them, and then `gc`, gives back."""
    unknown: int = 0
    """Versions that cannot be counted, as their layouts are damaged: `fsck` names them."""


class DiffFile(msgspec.Struct, frozen=True):
    """A file, symlink or directory that only one of the two has."""

    path: str
    kind: str
    size: int


class ChangedFile(msgspec.Struct, frozen=True):
    """A path that both have, and that is not the same."""

    path: str
    size: int
    was: int
    """Bytes in the first version."""
    what: str
    """`content`, `kind`, `target` or `executable`."""
    tensors: tuple[str, ...] = ()
    """For people: which tensors differ; empty for a file without."""


class Diff(msgspec.Struct, frozen=True):
    """What it takes to come from the first version to the second."""

    added: tuple[DiffFile, ...]
    removed: tuple[DiffFile, ...]
    changed: tuple[ChangedFile, ...]
