"""Layouts: where the bytes of a version are.

Decided here: the form of a layout (`registry/format.md` §6). Not decided here: which file goes
where (`model/plan`).

MessagePack. A layout may change (another pack) while the manifest, the identity, stays.
"""

from collections.abc import Mapping

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
    "PackInfo",
    "Repeat",
    "decode_layout",
    "encode_layout",
    "layout_key",
    "make_layout",
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


class Repeat(msgspec.Struct, frozen=True, array_like=True):
    """A run of bytes of a pack that are those of an older pack.

    A store that cannot share blocks between files may keep the run there alone; one that can keeps
    the pack as one file.
    """

    offset: int
    """In the pack."""
    pack: str
    """The older one."""
    pack_offset: int
    """In the older one."""
    length: int


class PackInfo(msgspec.Struct, frozen=True):
    """What a layout says of a pack itself."""

    size: int
    """Bytes."""
    repeats: tuple[Repeat, ...] = ()
    """By offset; they do not overlap."""


class FileLayout(msgspec.Struct, frozen=True):
    """Where the bytes of one file are: here (`inline`), or in packs (`extents`, in file order)."""

    size: int
    inline: bytes | None = None
    extents: tuple[Extent, ...] = ()
    blocks: bytes = b""
    """Digests of the blocks, joined; empty for a file of one block, whose digest is the file's."""
    chunks: tuple[Chunk, ...] = ()
    """From the file's start; none for a file that nobody will look for in parts."""

    whole: bool = False
    """Whether one pack is the file, from its first byte to its last: what `make_layout` finds."""


class Layout(msgspec.Struct, frozen=True):
    """Where the bytes of a version are."""

    files: dict[int, FileLayout]
    """By position in the manifest; files only."""
    packs: dict[str, PackInfo]
    """Every pack that an extent or a repeat refers to, by id."""


# ---- the form in the store: packs are listed once, extents say which of them


class _Stored(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    position: int
    size: int
    inline: bytes | None
    extents: list[tuple[int, int, int]]
    blocks: bytes
    chunks: list[Chunk]


class _Pack(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    id: bytes
    size: int
    repeats: list[tuple[int, int, int, int]] = []


class _Document(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    format: int
    packs: list[_Pack]
    files: list[_Stored]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Document, strict=True)


def layout_key(layout: str) -> str:
    """Return the key of a layout in the store."""
    return f"layouts/{layout}"


def make_layout(files: Mapping[int, FileLayout], packs: Mapping[str, PackInfo]) -> Layout:
    """Return the layout of these files, in which each knows whether it is one whole pack."""
    return Layout(
        {
            position: msgspec.structs.replace(file, whole=_is_whole(file, packs))
            for position, file in files.items()
        },
        dict(packs),
    )


def _is_whole(file: FileLayout, packs: Mapping[str, PackInfo]) -> bool:
    extents = file.extents
    return len(extents) == 1 and extents[0].length == packs[extents[0].pack].size


def encode_layout(layout: Layout) -> bytes:
    """Return the bytes of a layout; `packs` has each pack that is referred to, and no other."""
    indexes = {pack: index for index, pack in enumerate(layout.packs)}
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
    packs = [
        _Pack(
            bytes.fromhex(pack),
            info.size,
            [(r.offset, indexes[r.pack], r.pack_offset, r.length) for r in info.repeats],
        )
        for pack, info in layout.packs.items()
    ]
    return _encoder.encode(_Document(1, packs, files))


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
        packs = _packs(document.packs)
        sizes = [(pack, info.size) for pack, info in packs.items()]
        files: dict[int, FileLayout] = {}
        last = 0
        for stored in document.files:
            if stored.position <= last:
                raise ValueError(f"position {stored.position} is out of order")
            last = stored.position
            files[last] = _file(stored, sizes)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as exc:
        raise CorruptError(
            f"{name} is not a layout of format 1 ({exc})", "run mregfs fsck"
        ) from exc
    return make_layout(files, packs)


def _packs(stored: list[_Pack]) -> dict[str, PackInfo]:
    """Check what is said of the packs.

    Raises:
        ValueError: it contradicts itself.
    """
    if any(len(pack.id) != 16 for pack in stored):
        raise ValueError("a pack's id is not 16 bytes")
    ids = [pack.id.hex() for pack in stored]
    if len(set(ids)) != len(ids):
        raise ValueError("a pack is listed twice")
    packs: dict[str, PackInfo] = {}
    for own, pack in zip(ids, stored, strict=True):
        if not 0 <= pack.size < 1 << 62:
            raise ValueError(f"bad size of pack {own}")
        repeats = []
        end = 0
        for offset, index, pack_offset, length in pack.repeats:
            if (
                not 0 <= index < len(ids)
                or ids[index] == own
                or length <= 0
                or not end <= offset <= pack.size - length
                or not 0 <= pack_offset <= stored[index].size - length
            ):
                raise ValueError(f"bad repeat in pack {own}")
            end = offset + length
            repeats.append(Repeat(offset, ids[index], pack_offset, length))
        packs[own] = PackInfo(pack.size, tuple(repeats))
    return packs


def _file(stored: _Stored, packs: list[tuple[str, int]]) -> FileLayout:
    """Check one file's part.

    Raises:
        ValueError: it contradicts itself.
    """
    where = f"at position {stored.position}"
    extents = []
    total = 0
    for index, offset, length in stored.extents:
        if not 0 <= index < len(packs) or offset < 0 or length <= 0:
            raise ValueError(f"bad extent {where}")
        pack, size = packs[index]
        if offset + length > size:
            raise ValueError(f"an extent beyond the end of pack {pack} {where}")
        extents.append(Extent(pack, offset, length))
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
