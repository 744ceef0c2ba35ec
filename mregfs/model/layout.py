"""Layouts: where the bytes of a version are.

Decided here: the form of a layout (`registry/format.md` §6). Not decided here: which file goes
where (`registry/packing`). Anyone may call it.

MessagePack. A layout may change (another pack) while the manifest, the identity, stays.
"""

import msgspec

from mregfs.errors import CorruptError
from mregfs.model.digest import BLOCK, DIGEST_SIZE, SKETCH_SIZE, block_count

__all__ = [
    "MAX_INLINE",
    "MAX_LAYOUT_SIZE",
    "Chunk",
    "Extent",
    "FileLayout",
    "Layout",
    "decode_layout",
    "encode_layout",
    "layout_key",
]

MAX_LAYOUT_SIZE = 1 << 30
"""Bytes; a larger layout is refused on reading and writing alike."""

MAX_INLINE = 64 << 10
"""Bytes of a file that a reader accepts inside a layout; writers stay far below."""


class Extent(msgspec.Struct, frozen=True, array_like=True):
    """A run of bytes of a file that stands in a pack."""

    pack: str
    offset: int
    """In the pack."""
    length: int


class Chunk(msgspec.Struct, frozen=True, array_like=True):
    """A run of bytes that another file may share."""

    length: int
    sketch: bytes
    """16 bytes by which a like chunk is found; see `digest.sketch`."""


class FileLayout(msgspec.Struct, frozen=True):
    """Where the bytes of one file are: here (`inline`), or in packs (`extents`, in file order)."""

    size: int
    inline: bytes | None = None
    extents: tuple[Extent, ...] = ()
    blocks: bytes = b""
    """Digests of the blocks, joined; empty for a file of one block, whose digest is the file's."""
    chunks: tuple[Chunk, ...] = ()
    """From the file's start; none for a file that nobody will look for in parts."""

    @property
    def whole_pack(self) -> str:
        """The pack that the file may be the whole of: its one extent, from offset 0; or empty."""
        if len(self.extents) == 1 and self.extents[0].offset == 0:
            return self.extents[0].pack
        return ""


class Layout(msgspec.Struct, frozen=True):
    """Where the bytes of a version are, by position in the manifest (files only)."""

    files: dict[int, FileLayout]

    @property
    def packs(self) -> list[str]:
        """Every pack that is referenced, in order of first use."""
        in_order = (file for _, file in sorted(self.files.items()))
        return list(dict.fromkeys(extent.pack for file in in_order for extent in file.extents))


# ---- the form in the store: packs are listed once, extents say which of them


class _Stored(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    position: int
    size: int
    inline: bytes | None
    extents: list[tuple[int, int, int]]
    blocks: bytes
    chunks: list[Chunk]


class _Document(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    format: int
    packs: list[bytes]
    files: list[_Stored]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Document, strict=True)


def layout_key(layout: str) -> str:
    """Return the key of a layout in the store."""
    return f"layouts/{layout}"


def encode_layout(layout: Layout) -> bytes:
    """Return the bytes of a layout."""
    packs = layout.packs
    indexes = {pack: index for index, pack in enumerate(packs)}
    files = [
        _Stored(
            position,
            file.size,
            file.inline,
            [(indexes[e.pack], e.offset, e.length) for e in file.extents],
            file.blocks,
            list(file.chunks),
        )
        for position, file in sorted(layout.files.items())
    ]
    return _encoder.encode(_Document(1, [bytes.fromhex(pack) for pack in packs], files))


def decode_layout(data: bytes, layout: str) -> Layout:
    """Decode a layout; its id is named in errors.

    Raises:
        CorruptError: it breaks a rule of the format.
    """
    name = f"layout {layout}"
    if len(data) > MAX_LAYOUT_SIZE:
        raise CorruptError(f"{name} is too large ({len(data)} bytes)", "run mregfs fsck")
    try:
        document = _decoder.decode(data)
        if document.format != 1:
            raise ValueError(f"format {document.format}")
        if any(len(pack) != 16 for pack in document.packs):
            raise ValueError("a pack's id is not 16 bytes")
        packs = [pack.hex() for pack in document.packs]
        files: dict[int, FileLayout] = {}
        last = 0
        for stored in document.files:
            if stored.position <= last:
                raise ValueError(f"position {stored.position} is out of order")
            last = stored.position
            files[last] = _file(stored, packs)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as exc:
        raise CorruptError(
            f"{name} is not a layout of format 1 ({exc})", "run mregfs fsck"
        ) from exc
    return Layout(files)


def _file(stored: _Stored, packs: list[str]) -> FileLayout:
    """Check one file's part.

    Raises:
        ValueError: it contradicts itself.
    """
    where = f"at position {stored.position}"
    extents = []
    total = 0
    for index, offset, length in stored.extents:
        if not 0 <= index < len(packs) or offset < 0 or length <= 0 or offset + length >= 1 << 62:
            raise ValueError(f"bad extent {where}")
        extents.append(Extent(packs[index], offset, length))
        total += length
    if stored.inline is not None:
        if extents or len(stored.inline) > MAX_INLINE:
            raise ValueError(f"bad inline bytes {where}")
        total = len(stored.inline)
    if total != stored.size:
        raise ValueError(f"{total} bytes instead of {stored.size} {where}")
    expected = DIGEST_SIZE * block_count(stored.size) if stored.size > BLOCK else 0
    if len(stored.blocks) != expected:
        raise ValueError(f"wrong number of blocks {where}")
    if stored.chunks and (
        sum(chunk.length for chunk in stored.chunks) != stored.size
        or any(c.length <= 0 or len(c.sketch) != SKETCH_SIZE for c in stored.chunks)
    ):
        raise ValueError(f"bad chunks {where}")
    return FileLayout(
        stored.size, stored.inline, tuple(extents), stored.blocks, tuple(stored.chunks)
    )
