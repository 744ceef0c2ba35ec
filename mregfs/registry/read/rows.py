"""The rows of the index about what is inside versions: their keys and their packed form.

Decided here: the form of each row (`content.md` §2). Not decided here: when rows are made or read
(`content`).

Every file, directory and symlink of a version has an inode number (version's + position), so keys
are numbers of 8 bytes, big-endian; nothing here is JSON, a lookup is one or two gets.
"""

import struct
from collections.abc import Iterator

import msgspec

from mregfs.errors import CorruptError
from mregfs.model.layout import Extent, FileLayout, Layout
from mregfs.model.manifest import Manifest, ManifestEntry
from mregfs.model.state import Put

__all__ = [
    "CONTENT_TABLES",
    "PACK_KEY_SIZE",
    "ROOT",
    "FileEntry",
    "Verdict",
    "entry_row",
    "name_key",
    "pack_inode",
    "parse_chunk",
    "parse_content",
    "parse_entry",
    "parse_layout",
    "parse_name",
    "parse_reference",
    "parse_verdict",
    "rows_of",
    "verdict_row",
]

CONTENT_TABLES = (
    "content",
    "entry",
    "entry_name",
    "layout",
    "blocks",
    "file",
    "chunk",
    "pack_ref",
    "verified",
)
"""What the log does not determine alone: derived from manifests and layouts, filled on demand; and
what was found when bytes were verified."""

_ENTRY = struct.Struct(">IBQ32s")  # position, kind and executable bit, size, digest
_NAME = struct.Struct(">I")
_EXTENT = struct.Struct(">16sQQ")
_CHUNK = struct.Struct(">16sQQ")
_NUMBER = struct.Struct(">Q")
_VERDICT = struct.Struct(">BQqQ")  # damaged, size, time of change, first damaged byte

PACK_KEY_SIZE = 16
"""Bytes of a key that is a pack's id; one that is a file's digest has 32."""

_KINDS = ("file", "directory", "symlink")
_EXECUTABLE = 0x10
_NO_DIGEST = bytes(32)


class FileEntry(msgspec.Struct, frozen=True):
    """One file, directory or symlink of a version."""

    position: int
    """In the manifest, from 1; 0 is the version's own directory."""
    parent: int
    """Position of the directory it is in."""
    name: str
    kind: str
    """`file`, `directory` or `symlink`."""
    executable: bool
    size: int
    """Bytes of a file, or of a symlink's target."""
    target: str
    digest: bytes
    """Of a file; empty of anything else."""


class Verdict(msgspec.Struct, frozen=True):
    """What was found when a file that the kernel reads by itself was verified."""

    stamp: tuple[int, int]
    """Of the file then; what was found holds as long as it is the same."""
    damaged_at: int | None
    """First byte of the first damaged block; None when there is none."""


ROOT = FileEntry(0, 0, "", "directory", False, 0, "", b"")


def pack_inode(inode: int) -> bytes:
    """Return the key of a row about one inode."""
    return _NUMBER.pack(inode)


def name_key(version: int, parent: int, name: bytes) -> bytes:
    """Return the key of the row of `name` in a directory."""
    return _NUMBER.pack(version + parent) + name


def entry_row(position: int, entry: ManifestEntry) -> bytes:
    """Return the row of a manifest's entry under its name."""
    flags = _KINDS.index(entry.kind) | (_EXECUTABLE if entry.executable else 0)
    target = entry.target.encode()
    digest = bytes.fromhex(entry.digest) if entry.digest else _NO_DIGEST
    return _ENTRY.pack(position, flags, entry.size or len(target), digest) + target


def parse_entry(parent: int, name: str, row: bytes) -> FileEntry:
    """Return the entry that a row under a name is about."""
    position, flags, size, digest = _ENTRY.unpack_from(row)
    kind = _KINDS[flags & 0xF]
    return FileEntry(
        position,
        parent,
        name,
        kind,
        bool(flags & _EXECUTABLE),
        size,
        row[_ENTRY.size :].decode() if kind == "symlink" else "",
        digest if kind == "file" else b"",
    )


def parse_name(row: bytes) -> tuple[int, str]:
    """Return (parent's position, name) of an inode's row."""
    (parent,) = _NAME.unpack_from(row)
    return parent, row[_NAME.size :].decode()


def parse_layout(row: bytes) -> FileLayout:
    """Return where a file's bytes are (without blocks and chunks)."""
    if row[0] == 0:
        return FileLayout(len(row) - 1, inline=row[1:])
    extents = tuple(
        Extent(pack.hex(), offset, length)
        for pack, offset, length in _EXTENT.iter_unpack(memoryview(row)[1:])
    )
    size = sum(extent.length for extent in extents)
    return FileLayout(size, extents=extents, whole=row[0] == 2)


def parse_chunk(row: bytes) -> Extent:
    """Return where a chunk stands."""
    pack, offset, length = _CHUNK.unpack(row)
    return Extent(pack.hex(), offset, length)


def content_row(digest: str, layout: str) -> bytes:
    """Return the row that says which content of a version the index has."""
    return bytes.fromhex(digest) + layout.encode()


def parse_content(row: bytes) -> tuple[str, str]:
    """Return (manifest's digest, layout's id) of that row."""
    return row[:32].hex(), row[32:].decode()


def reference_key(pack: str, version: int) -> bytes:
    """Return the key of the row that says that a version has bytes in a pack."""
    return bytes.fromhex(pack) + _NUMBER.pack(version)


def parse_reference(key: bytes) -> int:
    """Return the inode of the version that a reference to a pack is from."""
    return int.from_bytes(key[16:24], "big")


def verdict_row(verdict: Verdict) -> bytes:
    """Return the row of a verdict, under the pack's id or the file's digest."""
    damaged = verdict.damaged_at is not None
    return _VERDICT.pack(damaged, *verdict.stamp, verdict.damaged_at or 0)


def parse_verdict(row: bytes) -> Verdict:
    """Return the verdict that a row holds."""
    damaged, size, changed, start = _VERDICT.unpack(row)
    return Verdict((size, changed), start if damaged else None)


def rows_of(
    version: int, digest: str, layout_id: str, manifest: Manifest, layout: Layout
) -> Iterator[Put]:
    """Yield all rows about the content of the version with this inode; the last one says so.

    Raises:
        CorruptError: manifest and layout are not of the same version.
    """
    positions: dict[str, int] = {"": 0}
    files = 0
    referenced: dict[str, int] = {}
    for position, entry in enumerate(manifest.entries, 1):
        directory, _, name = entry.path.rpartition("/")
        parent = positions[directory]
        if entry.kind == "directory":
            positions[entry.path] = position
        key = _NUMBER.pack(version + position)
        encoded = name.encode()
        yield Put("entry", key, _NAME.pack(parent) + encoded)
        yield Put("entry_name", name_key(version, parent, encoded), entry_row(position, entry))
        if entry.kind != "file":
            continue
        files += 1
        file = layout.files.get(position)
        if file is None or file.size != entry.size:
            raise CorruptError(
                f"layout {layout_id} does not say where the bytes of {entry.path!r} are",
                "run mregfs fsck",
            )
        yield from _rows_of_file(key, bytes.fromhex(entry.digest), file)
        for extent in file.extents:
            referenced[extent.pack] = referenced.get(extent.pack, 0) + extent.length
    if files != len(layout.files):
        raise CorruptError(f"layout {layout_id} is of another version", "run mregfs fsck")
    for pack, length in referenced.items():
        yield Put("pack_ref", reference_key(pack, version), _NUMBER.pack(length))
    yield Put("content", _NUMBER.pack(version), content_row(digest, layout_id))


def _rows_of_file(key: bytes, digest: bytes, file: FileLayout) -> Iterator[Put]:
    if file.inline is not None:
        yield Put("layout", key, b"\0" + file.inline)
        return
    packed = [_EXTENT.pack(bytes.fromhex(e.pack), e.offset, e.length) for e in file.extents]
    yield Put("layout", key, (b"\2" if file.whole else b"\1") + b"".join(packed))
    if file.blocks:
        yield Put("blocks", key, file.blocks)
    yield Put("file", digest, key)
    yield from _rows_of_chunks(file)


def _rows_of_chunks(file: FileLayout) -> Iterator[Put]:
    """Yield the place of each chunk that stands in one piece."""
    extents = iter(file.extents)
    extent = next(extents)
    extent_start = chunk_start = 0
    for chunk in file.chunks:
        while extent_start + extent.length <= chunk_start:
            extent_start += extent.length
            extent = next(extents)
        offset = chunk_start - extent_start
        if offset + chunk.length <= extent.length:
            place = _CHUNK.pack(bytes.fromhex(extent.pack), extent.offset + offset, chunk.length)
            yield Put("chunk", chunk.sketch, place)
        chunk_start += chunk.length
