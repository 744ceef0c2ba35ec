"""Where the bytes of a commit's files go: a pack of their own, a shared one, the layout.

Decided here: which (`../registry/write/commit.md` §4), and what stands where in the new packs. Not
decided here: what is stored already (`registry.write.dedup` finds it out before), how bytes get
there (`registry.write.storing`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from mregfs.model.layout import Chunk, Extent, FileLayout, Layout, PackInfo, make_layout
from mregfs.model.manifest import Manifest

__all__ = [
    "ALIGNMENT",
    "EMPTY",
    "INLINE",
    "LARGE",
    "Hashed",
    "Known",
    "Parts",
    "Plan",
    "SharedPack",
    "in_parts",
    "make_plan",
]

INLINE = 2 << 10
"""Bytes up to which a file lives in the layout: configuration files, mostly. Of a version with 2000
of them the layout has 4 MB; beyond, loading it would take longer than opening a pack."""

LARGE = 256 << 10
"""Bytes from which a file may become a pack of its own: below, a lease and a name of its own cost
more than copying the bytes."""

SHARED_PACK = 64 << 20
"""Bytes of small files after which another shared pack is begun, so that deleting frees some."""

ALIGNMENT = 64
"""What the readers of tensor files expect of an offset."""

ENOUGH_SHARED = 4
"""A file is stored in parts when at least one in so many of its bytes is stored already."""


class Hashed(msgspec.Struct, frozen=True):
    """A file's identity, and what its blocks are verified with."""

    digest: bytes
    blocks: bytes
    """Empty when there is one block."""
    data: bytes | None = None
    """All bytes of a file that goes into the layout."""


class Known(msgspec.Struct, frozen=True):
    """What is stored already of the files of a commit, verified; and what they share."""

    files: Mapping[bytes, tuple[Extent, ...]]
    """Where whole files stand, by digest."""
    chunks: Mapping[str, tuple[Chunk, ...]]
    """Of each file that was cut, by path."""
    parts: Mapping[str, tuple[Extent | None, ...]]
    """Of each file that is to be stored in parts, where its chunks stand; None: nowhere yet."""
    packs: Mapping[str, int]
    """The sizes of the packs that have these bytes, in bytes; without those of this commit."""
    own: Mapping[str, str]
    """By path, the pack that a large file's own bytes go to: others may have a part of it."""


class SharedPack(msgspec.Struct, frozen=True):
    """A new pack of small files, each at a multiple of `ALIGNMENT`."""

    pack: str
    paths: tuple[str, ...]
    size: int


class Parts(msgspec.Struct, frozen=True):
    """A new pack for those parts of a large file that are not stored yet."""

    pack: str
    path: str
    fresh: tuple[tuple[int, int], ...]
    """Offset and length of those, in the file."""

    @property
    def size(self) -> int:
        """Bytes of the pack."""
        return sum(length for _, length in self.fresh)


class Plan(msgspec.Struct, frozen=True):
    """Where the files of a commit go."""

    files: dict[str, FileLayout]
    """By path."""
    packs: dict[str, PackInfo]
    """Every pack that they use, in the order of their paths."""
    adoptions: dict[str, str]
    """Which files become packs as they are, and which packs."""
    shared: tuple[SharedPack, ...]
    parts: tuple[Parts, ...]

    def layout(self, manifest: Manifest) -> Layout:
        """Return the layout of the version with this manifest."""
        positions = enumerate(manifest.entries, 1)
        files = {n: self.files[entry.path] for n, entry in positions if entry.kind == "file"}
        return make_layout(files, self.packs)

    def new_packs(self) -> dict[str, int]:
        """Return the packs that are not stored yet, and their sizes in bytes."""
        new = {*self.adoptions.values(), *(each.pack for each in self.shared)}
        new.update(each.pack for each in self.parts)
        return {pack: info.size for pack, info in self.packs.items() if pack in new}

    def shared_packs(self) -> tuple[str, ...]:
        """Return the packs of other versions that are used."""
        new = self.new_packs()
        return tuple(pack for pack in self.packs if pack not in new)


EMPTY = Plan({}, {}, {}, (), ())
"""Nothing is to be stored."""


def in_parts(size: int, places: Iterable[Extent | None]) -> bool:
    """Tell whether a file is worth storing in parts, given where its chunks are stored."""
    return ENOUGH_SHARED * sum(place.length for place in places if place) >= size


def make_plan(
    sizes: Mapping[str, int],
    hashed: Mapping[str, Hashed],
    known: Known,
    new_id: Callable[[], str],
) -> Plan:
    """Decide where each file goes.

    Args:
        sizes: of the files, by path, in bytes.
        hashed: their digests, by path.
        known: what is stored already.
        new_id: makes ids for shared packs.
    """
    places = dict(known.files)
    layouts: dict[str, FileLayout] = {}
    adoptions: dict[str, str] = {}
    parts: list[Parts] = []
    shared = _Shared(new_id)
    # Small files first: a large one never takes its place from them, nor they from it.
    for path in sorted(sizes, key=lambda path: (sizes[path] >= LARGE, path)):
        size, identity = sizes[path], hashed[path]
        if size <= INLINE:
            layouts[path] = FileLayout(size, identity.data)
            continue
        chunks = known.chunks.get(path, ())
        extents = places.get(identity.digest)
        if extents is None and size < LARGE:
            extents = (shared.add(path, size),)
        elif extents is None and path in known.parts:
            extents, fresh = _extents(known.own[path], chunks, known.parts[path])
            if fresh:
                parts.append(Parts(known.own[path], path, fresh))
        elif extents is None:
            adoptions[path] = known.own[path]
            extents = (Extent(adoptions[path], 0, size),)
        places[identity.digest] = extents
        layouts[path] = FileLayout(size, extents=extents, blocks=identity.blocks, chunks=chunks)
    sizes_of = {**known.packs, **{pack: sizes[path] for path, pack in adoptions.items()}}
    sizes_of |= {each.pack: each.size for each in shared.packs()}
    sizes_of |= {each.pack: each.size for each in parts}
    used = (extent.pack for path in sorted(layouts) for extent in layouts[path].extents)
    packs = {pack: PackInfo(sizes_of[pack]) for pack in used}
    return Plan(layouts, packs, adoptions, shared.packs(), tuple(parts))


class _Shared:
    """Small files, put into packs one after the other."""

    def __init__(self, new_id: Callable[[], str]) -> None:
        self._new_id = new_id
        self._packs: list[tuple[str, list[str]]] = []
        self._sizes: list[int] = []

    def add(self, path: str, size: int) -> Extent:
        """Add a file, and return where it stands."""
        if not self._packs or self._sizes[-1] > SHARED_PACK:
            self._packs.append((self._new_id(), []))
            self._sizes.append(0)
        pack, paths = self._packs[-1]
        extent = Extent(pack, self._sizes[-1], size)
        paths.append(path)
        self._sizes[-1] += -(-size // ALIGNMENT) * ALIGNMENT
        return extent

    def packs(self) -> tuple[SharedPack, ...]:
        """Return what has come together."""
        return tuple(
            SharedPack(pack, tuple(paths), size)
            for (pack, paths), size in zip(self._packs, self._sizes, strict=True)
        )


def _extents(
    pack: str, chunks: Sequence[Chunk], places: Sequence[Extent | None]
) -> tuple[tuple[Extent, ...], tuple[tuple[int, int], ...]]:
    """Return where a file stands whose chunks are at `places` or new, and what of it is new.

    What is new goes to `pack`, back to back. Neighbours are joined.
    """
    extents: list[Extent] = []
    fresh: list[tuple[int, int]] = []
    start = new_size = 0
    for chunk, place in zip(chunks, places, strict=True):
        extent = place
        if extent is None:
            extent = Extent(pack, new_size, chunk.length)
            new_size += chunk.length
            if fresh and sum(fresh[-1]) == start:
                fresh[-1] = (fresh[-1][0], fresh[-1][1] + chunk.length)
            else:
                fresh.append((start, chunk.length))
        last = extents[-1] if extents else None
        if last and last.pack == extent.pack and last.offset + last.length == extent.offset:
            extents[-1] = Extent(last.pack, last.offset, last.length + extent.length)
        else:
            extents.append(extent)
        start += chunk.length
    return tuple(extents), tuple(fresh)
