"""Manifests: what a version contains, as canonical JSON.

Decided here: the form of a manifest, what its digest covers, which paths and symlinks may be in a
version (`registry/format.md` §5). Not decided here: where the bytes of files are (`layout`), nor
where manifests are stored.
"""

from collections.abc import Iterable

import msgspec

from mregfs.errors import CorruptError, InvalidError
from mregfs.model.names import Digest

__all__ = [
    "MAX_ENTRIES",
    "MAX_MANIFEST_SIZE",
    "Manifest",
    "ManifestEntry",
    "decode_manifest",
    "encode_manifest",
    "make_manifest",
    "manifest_digest",
    "manifest_key",
    "path_problem",
    "symlink_problem",
]

MAX_MANIFEST_SIZE = 512 << 20
"""Bytes; a larger manifest is refused on reading and writing alike."""

MAX_ENTRIES = 1 << 20
"""Files, directories and symlinks of one version."""

MAX_PATH = 4095
MAX_COMPONENT = 255
MAX_TARGET = 4095
_MAX_SIZE = 1 << 60

_DOMAIN = b"mregfs-manifest-v1\n"
_KINDS = ("file", "directory", "symlink")


class ManifestEntry(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One path of a version."""

    path: str
    kind: str
    """`file`, `directory` or `symlink`."""
    size: int = 0
    """Bytes of a file; 0 of anything else."""
    executable: bool = False
    digest: str = ""
    """Of a file; empty of anything else."""
    target: str = ""
    """Of a symlink, as written: relative, inside the version."""

    @property
    def components(self) -> tuple[str, ...]:
        """The names that the path is made of: what entries are sorted by."""
        return tuple(self.path.split("/"))


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a version contains: all its files, symlinks and directories, also those not empty.

    Sorted by path as a tuple of names, so that a directory stands before what is in it. The entry
    at index i has position i + 1; position 0 is the version's own directory.
    """

    entries: tuple[ManifestEntry, ...]
    format: int = 1

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.entries)

    @property
    def files(self) -> int:
        """The number of files."""
        return sum(entry.kind == "file" for entry in self.entries)


def make_manifest(entries: Iterable[ManifestEntry]) -> Manifest:
    """Return the manifest of these entries, given in any order.

    Raises:
        InvalidError: they cannot be a version: a bad path, a path twice, a file as a directory.
    """
    manifest = Manifest(tuple(sorted(entries, key=lambda entry: entry.components)))
    problem = _problem(manifest)
    if problem:
        raise InvalidError(f"this cannot be a version: {problem}")
    return manifest


_encoder = msgspec.json.Encoder(order="sorted")
_decoder = msgspec.json.Decoder(Manifest, strict=True)


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the bytes of a manifest: one line of JSON, the same for the same content."""
    return _encoder.encode(manifest) + b"\n"


def manifest_digest(data: bytes) -> Digest:
    """Return the digest of an encoded manifest: the version's identity."""
    from blake3 import blake3  # who only looks through a mount has none

    hasher = blake3(_DOMAIN)
    hasher.update(data)
    return Digest(hasher.hexdigest())


def manifest_key(digest: str) -> str:
    """Return the key of a manifest in the store."""
    return f"manifests/{digest[:2]}/{digest}"


def decode_manifest(data: bytes, digest: str) -> Manifest:
    """Decode the manifest that has this digest.

    Raises:
        CorruptError: it has another digest, or breaks a rule of the format.
    """
    name = f"manifest {digest}"
    if len(data) > MAX_MANIFEST_SIZE:
        raise CorruptError(f"{name} is too large ({len(data)} bytes)", "run mregfs fsck")
    found = manifest_digest(data)
    if found != digest:
        raise CorruptError(f"{name} is damaged: its digest is {found}", "run mregfs fsck")
    try:
        manifest = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise CorruptError(
            f"{name} is not a manifest of format 1 ({exc})", "run mregfs fsck"
        ) from exc
    problem = _problem(manifest)
    if not problem and encode_manifest(manifest) != data:
        problem = "it is not in canonical form"
    if problem:
        raise CorruptError(f"{name} breaks the format: {problem}", "run mregfs fsck")
    return manifest


def _problem(manifest: Manifest) -> str:
    """Return which rule a manifest breaks; empty when none."""
    if manifest.format != 1:
        return f"format {manifest.format}"
    if len(manifest.entries) > MAX_ENTRIES:
        return f"more than {MAX_ENTRIES} files, directories and symlinks"
    directories: set[tuple[str, ...]] = {()}
    previous: tuple[str, ...] = ()
    for entry in manifest.entries:
        components = entry.components
        if components <= previous:
            return f"{entry.path!r} is out of order, or there twice"
        problem = _entry_problem(entry)
        if problem:
            return f"{entry.path!r} {problem}"
        if components[:-1] not in directories:
            return f"{entry.path!r} is in no directory"
        if entry.kind == "directory":
            directories.add(components)
        previous = components
    return ""


def _entry_problem(entry: ManifestEntry) -> str:
    problem = path_problem(entry.path)
    if problem:
        return problem
    if entry.kind not in _KINDS:
        return f"is a {entry.kind!r}"
    if entry.kind == "file":
        if not 0 <= entry.size <= _MAX_SIZE:
            return f"has size {entry.size}"
        if len(entry.digest) != 64 or entry.digest.strip("0123456789abcdef"):
            return "has no digest"
    elif entry.size or entry.digest or entry.executable:
        return f"is a {entry.kind} with a size, a digest or an executable bit"
    if entry.kind == "symlink":
        return symlink_problem(entry.path, entry.target)
    return "is no symlink but has a target" if entry.target else ""


def path_problem(path: str) -> str:
    """Return why `path` cannot be in a version; empty when it can."""
    try:
        if len(path.encode()) > MAX_PATH:
            return "is longer than 4095 bytes"
    except UnicodeEncodeError:
        return "is not UTF-8"
    if "\0" in path:
        return "has a zero byte"
    for name in path.split("/"):
        if name in ("", ".", ".."):
            return f"has {name!r} as a name"
        if len(name) > MAX_COMPONENT // 4 and len(name.encode()) > MAX_COMPONENT:
            return "has a name of more than 255 bytes"
    return ""


def symlink_problem(path: str, target: str) -> str:
    """Return why a symlink at `path` to `target` cannot be in a version; empty when it can.

    `..` may only stand at the beginning of a target: there the kernel goes up from the symlink's
    own directory. Later ones would go up from wherever other symlinks led to, maybe out of the
    version.
    """
    try:
        if len(target.encode()) > MAX_TARGET:
            return "points at more than 4095 bytes"
    except UnicodeEncodeError:
        return "points at a name that is not UTF-8"
    if not target or "\0" in target:
        return "points at nothing"
    if target.startswith("/"):
        return f"points at the absolute path {target!r}"
    names = [name for name in target.split("/") if name not in ("", ".")]
    ups = 0
    while ups < len(names) and names[ups] == "..":
        ups += 1
    if ups > path.count("/"):
        return f"points out of the directory, at {target!r}"
    if ".." in names[ups:]:
        return f"points at {target!r}: '..' may only stand at the beginning"
    return ""
