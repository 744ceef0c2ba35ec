"""Where the bytes of a commit go: a pack of their own, a shared one, the layout, or nowhere new.

Decided here: which (`commit.md` §4), and that packs are written and durable before anything names
them. Not decided here: what is stored already (`dedup`), how a file becomes a pack without a copy
(the intake).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from functools import partial

import msgspec

from mregfs.errors import ConflictError
from mregfs.model.digest import block_digest
from mregfs.model.layout import Chunk, Extent, FileLayout, PackInfo
from mregfs.model.state import State
from mregfs.model.tensors import Read
from mregfs.ports.index import Index
from mregfs.ports.intake import Intake, IntakeEntry
from mregfs.ports.packs import PackStore
from mregfs.registry.read.rows import Place
from mregfs.registry.write.dedup import Cut, Sharing, Source, cut
from mregfs.registry.write.hashing import LARGE, Hashed

__all__ = ["Packing"]

INLINE = 2 << 10
"""Bytes up to which a file lives in the layout: configuration files, mostly. Of a version with 2000
of them the layout has 4 MB; beyond, loading it would take longer than opening a pack."""

CUT_FROM = 1 << 20
"""Bytes from which parts of a file are looked for; smaller ones are shared whole or not."""

ENOUGH_SHARED = 4
"""A file is stored in parts when at least one in so many of its bytes is stored already."""

SHARED_PACK = 64 << 20
"""Bytes of small files after which another shared pack is begun, so that deleting frees some."""

ALIGNMENT = 64
"""What the readers of tensor files expect of an offset."""

_PIECE = 8 << 20


class _Parts(msgspec.Struct, frozen=True):
    """A large file of which some parts are stored already."""

    entry: IntakeEntry
    pack: str
    """The new one, for the other parts."""
    fresh: tuple[tuple[int, int], ...]
    """Offset and length of those, in the file."""

    @property
    def size(self) -> int:
        return sum(length for _, length in self.fresh)


class Packing:
    """Plans and carries out the storing of one commit's files.

    Args:
        report: called with bytes of data that was written since it was last called.
    """

    def __init__(
        self,
        intake: Intake,
        packs: PackStore,
        index: Index,
        threads: Executor,
        new_id: Callable[[], str],
        report: Callable[[int], None],
    ) -> None:
        self._intake = intake
        self._packs = packs
        self._index = index
        self._threads = threads
        self._new_id = new_id
        self._report = report
        self._sharing = Sharing(index, packs, threads, self._source_of)
        self._layouts: dict[str, FileLayout] = {}
        self._same: dict[bytes, FileLayout] = {}
        self._cuts: dict[str, Future[Cut]] = {}
        self._parts: list[_Parts] = []
        self._small: list[list[tuple[IntakeEntry, Hashed]]] = []
        self._small_packs: list[str] = []
        self._small_sizes: list[int] = []
        self._adopted: dict[str, str] = {}
        self.adoptions: dict[str, str] = {}
        """The files that become packs as they are, and which packs."""
        self.written: list[str] = []
        """All new packs so far, also those not finished."""

    def begin(self, files: Sequence[IntakeEntry]) -> None:
        """Begin to cut the large files, in the threads that digest them next."""
        for entry in files:
            if entry.size >= CUT_FROM:
                self._cuts[entry.path] = self._threads.submit(self._cut, entry)

    def plan(
        self, files: Sequence[IntakeEntry], hashed: Mapping[str, Hashed]
    ) -> Mapping[str, FileLayout]:
        """Decide for each file where its bytes go, after `begin`; nothing is written yet."""
        files = sorted(files, key=lambda entry: entry.path)
        shared_size = 0
        for entry in files:
            known = hashed[entry.path]
            if entry.size <= INLINE:
                self._layouts[entry.path] = FileLayout(entry.size, self._read(entry, known))
            elif entry.size < LARGE and not self._is_stored(entry, known):
                if not self._small or shared_size > SHARED_PACK:
                    self._small.append([])
                    self._small_packs.append(self._new_id())
                    self._small_sizes.append(0)
                    shared_size = 0
                extent = Extent(self._small_packs[-1], shared_size, entry.size)
                self._place(entry, known, (extent,), ())
                self._small[-1].append((entry, known))
                shared_size += -(-entry.size // ALIGNMENT) * ALIGNMENT
                self._small_sizes[-1] = shared_size
        for entry in files:
            if entry.size >= LARGE:
                cutting = self._cuts.get(entry.path)
                found = cutting.result() if cutting is not None else ((), True)
                self._plan_large(entry, hashed[entry.path], found)
        return self._layouts

    def packs(self) -> Mapping[str, PackInfo]:
        """Return every pack that the planned files use, the new ones and those of others.

        Raises:
            ConflictError: one of those is gone.
        """
        used = dict.fromkeys(
            extent.pack for path in sorted(self._layouts) for extent in self._layouts[path].extents
        )
        new = dict(zip(self._small_packs, self._small_sizes, strict=True))
        new |= {parts.pack: parts.size for parts in self._parts}
        new |= {pack: self._layouts[path].size for path, pack in self.adoptions.items()}
        with self._index.read() as view:
            state = State(view)
            for pack in used:
                known = state.pack(pack)
                if pack not in new and known is not None:
                    new[pack] = known.size
        lost = next((pack for pack in used if pack not in new), None)
        if lost is not None:
            raise ConflictError(
                f"pack {lost}, which has bytes of this commit, is gone", "commit again"
            )
        return {pack: PackInfo(new[pack]) for pack in used}

    def store(self) -> None:
        """Write what was planned, after `announce`; on return all of it is durable.

        Raises:
            ConflictError: a file changed meanwhile.
            NoSpaceError: it does not fit.
        """
        for path, pack in self.adoptions.items():
            self.written.append(pack)
            self._intake.adopt(path, pack)
        for pack, files in zip(self._small_packs, self._small, strict=True):
            self.written.append(pack)
            self._packs.create(pack, self._pieces_of_small(files))
        for parts in self._parts:
            self.written.append(parts.pack)
            self._packs.create(parts.pack, self._pieces_of_parts(parts))
        self._packs.sync(self.written)

    def undo(self) -> None:
        """Delete the packs that were written; those adopted are the intake's to take back."""
        adopted = set(self.adoptions.values())
        for pack in self.written:
            if pack not in adopted:
                self._packs.delete(pack)

    def discard(self) -> None:
        """Delete all new packs: the version turned out to exist already."""
        for pack in self.written:
            self._packs.delete(pack)

    def is_sound(self, layout: FileLayout, known: Hashed) -> bool:
        """Tell whether a file of a version is stored as it was digested now."""
        return self._sharing.is_sound(layout, known.blocks or known.digest)

    # ---- planning

    def _plan_large(self, entry: IntakeEntry, known: Hashed, found: Cut) -> None:
        chunks, whole = found
        if self._is_stored(entry, known, chunks):
            return
        places: list[Place | None] = []
        if chunks:
            hints = self._sharing.hints(chunks)
            if hints and not whole:
                self._sharing.cut_stored(hints)
                chunks = self._cut_whole(entry)
                hints = self._sharing.hints(chunks)
            if ENOUGH_SHARED * sum(place.length for place in hints) >= entry.size:
                places = self._sharing.places(self._reader(entry.path), chunks)
        if ENOUGH_SHARED * sum(place.length for place in places if place) >= entry.size:
            self._plan_parts(entry, known, chunks, places)
            return
        pack = self._new_id()
        self.adoptions[entry.path] = pack
        self._adopted[pack] = entry.path
        self._place(entry, known, (Extent(pack, 0, entry.size),), chunks)
        self._sharing.remember(pack, chunks)

    def _plan_parts(
        self,
        entry: IntakeEntry,
        known: Hashed,
        chunks: Sequence[Chunk],
        places: Sequence[Place | None],
    ) -> None:
        pack = self._new_id()
        extents: list[Extent] = []
        fresh: list[tuple[int, int]] = []
        start = new_size = 0
        for chunk, place in zip(chunks, places, strict=True):
            if place is None:
                extent = Extent(pack, new_size, chunk.length)
                new_size += chunk.length
                if fresh and sum(fresh[-1]) == start:
                    fresh[-1] = (fresh[-1][0], fresh[-1][1] + chunk.length)
                else:
                    fresh.append((start, chunk.length))
            else:
                extent = Extent(place.pack, place.offset, place.length)
            last = extents[-1] if extents else None
            if last and last.pack == extent.pack and last.offset + last.length == extent.offset:
                extents[-1] = Extent(last.pack, last.offset, last.length + extent.length)
            else:
                extents.append(extent)
            start += chunk.length
        self._place(entry, known, tuple(extents), chunks)
        if fresh:
            self._parts.append(_Parts(entry, pack, tuple(fresh)))

    def _is_stored(self, entry: IntakeEntry, known: Hashed, chunks: Sequence[Chunk] = ()) -> bool:
        """Place a file where one with the same bytes is, if there is one."""
        same = self._same.get(known.digest) or self._sharing.same_file(known.digest, known.blocks)
        if same is None or same.size != entry.size or same.inline is not None:
            return False
        self._place(entry, known, same.extents, chunks)
        return True

    def _place(
        self,
        entry: IntakeEntry,
        known: Hashed,
        extents: tuple[Extent, ...],
        chunks: Sequence[Chunk],
    ) -> None:
        layout = FileLayout(entry.size, extents=extents, blocks=known.blocks, chunks=tuple(chunks))
        self._layouts[entry.path] = self._same[known.digest] = layout

    def _cut(self, entry: IntakeEntry) -> Cut:
        return cut(self._reader(entry.path), entry.size)

    def _cut_whole(self, entry: IntakeEntry) -> tuple[Chunk, ...]:
        return cut(self._reader(entry.path), entry.size, whole=True)[0]

    def _reader(self, path: str) -> Read:
        return partial(self._intake.read_at, path)

    def _source_of(self, pack: str) -> Source | None:
        path = self._adopted.get(pack)
        return None if path is None else (self._reader(path), self._layouts[path].size)

    # ---- writing

    def _read(self, entry: IntakeEntry, known: Hashed) -> bytes:
        data = self._intake.read(entry.path)
        if block_digest(data) != known.digest:
            raise _changed(entry)
        return data

    def _pieces_of_small(self, files: Sequence[tuple[IntakeEntry, Hashed]]) -> Iterator[bytes]:
        for entry, known in files:
            yield self._read(entry, known)
            padding = -entry.size % ALIGNMENT
            if padding:
                yield bytes(padding)
            self._report(entry.size)

    def _pieces_of_parts(self, parts: _Parts) -> Iterator[bytes]:
        read = self._reader(parts.entry.path)
        for start, length in parts.fresh:
            for offset in range(start, start + length, _PIECE):
                size = min(_PIECE, start + length - offset)
                piece = read(offset, size)
                if len(piece) < size:
                    raise _changed(parts.entry)
                yield piece
                self._report(size)


def _changed(entry: IntakeEntry) -> ConflictError:
    return ConflictError(
        f"{entry.path!r} changed while it was being committed",
        "commit again when it is finished",
    )
