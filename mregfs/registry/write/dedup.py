"""What the files of a commit have in common with what is stored.

Decided here: which chunks are looked for, and that bytes are only taken for stored when their
digests say so (`commit.md` §4). Not decided here: where cuts are (`cutting`), what is done with the
answer (`model.plan`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from functools import partial

from mregfs.errors import MregfsError, NotFoundError
from mregfs.model.digest import block_digest
from mregfs.model.layout import Chunk, Extent, FileLayout
from mregfs.model.plan import INLINE, LARGE, Hashed, Known, in_parts
from mregfs.model.state import State, View
from mregfs.model.tensors import Read
from mregfs.ports.index import Index
from mregfs.ports.packs import PackStore
from mregfs.registry.read import rows
from mregfs.registry.write.cutting import Cut, cut
from mregfs.registry.write.soundness import is_sound

__all__ = ["Sharing"]

_Source = tuple[Read, int]
"""Reads a file, and its size in bytes."""


class Sharing:
    """What is stored at the time of one commit, in versions that exist."""

    def __init__(self, index: Index, packs: PackStore, threads: Executor) -> None:
        self._index = index
        self._packs = packs
        self._threads = threads
        self._sizes: dict[str, int] = {}
        self._own: dict[bytes, Extent] = {}
        self._own_files: dict[str, _Source] = {}

    def find(
        self,
        sizes: Mapping[str, int],
        hashed: Mapping[str, Hashed],
        cuts: Mapping[str, "Future[Cut]"],
        read_at: Callable[[str, int, int], bytes],
        new_id: Callable[[], str],
    ) -> Known:
        """Find out what of some files is stored already, and what later ones share with earlier.

        Args:
            sizes: of the files, by path, in bytes.
            hashed: their digests.
            cuts: the large ones, cut in the threads.
            read_at: reads some bytes of a large file.
            new_id: makes ids for packs.
        """
        files = self._same_files(
            {known.digest: known for path, known in hashed.items() if sizes[path] > INLINE}
        )
        chunks: dict[str, tuple[Chunk, ...]] = {}
        parts: dict[str, tuple[Extent | None, ...]] = {}
        own: dict[str, str] = {}
        seen = set(files)
        for path in sorted(path for path, size in sizes.items() if size >= LARGE):
            chunks[path], whole = cuts[path].result() if path in cuts else ((), True)
            if hashed[path].digest in seen:
                continue
            seen.add(hashed[path].digest)
            own[path] = new_id()
            source = partial(read_at, path), sizes[path]
            chunks[path], places = self._parts(source, chunks[path], whole=whole)
            if in_parts(sizes[path], places):
                parts[path] = places
            else:
                self._own_files[own[path]] = source
                self._remember(own[path], chunks[path])
        packs = {pack: size for pack, size in self._sizes.items() if size >= 0}
        return Known(files, chunks, parts, packs, own)

    def _parts(
        self, source: _Source, chunks: tuple[Chunk, ...], *, whole: bool
    ) -> tuple[tuple[Chunk, ...], tuple[Extent | None, ...]]:
        """Return the chunks of a file, and where each is stored if that is worth its while."""
        read, size = source
        hints = self._hints(chunks)
        if hints and not whole:
            self._cut_stored(hints)
            chunks = cut(read, size, whole=True)[0]
            hints = self._hints(chunks)
        if not hints or not in_parts(size, hints):
            return chunks, ()
        return chunks, self._confirmed(read, chunks, self._candidates(chunks))

    def _same_files(self, wanted: Mapping[bytes, Hashed]) -> dict[bytes, tuple[Extent, ...]]:
        """Return where files with these digests are stored in packs.

        What is stored is read and verified: nobody gives up good bytes for damaged ones.
        """
        found: dict[bytes, FileLayout] = {}
        with self._index.read() as view:
            for digest in wanted:
                key = view.get("file", digest)
                row = None if key is None else view.get("layout", key)
                if row is not None:
                    layout = rows.parse_layout(row)
                    if layout.extents and all(self._holds(view, each) for each in layout.extents):
                        found[digest] = layout
        return {
            digest: layout.extents
            for digest, layout in found.items()
            if is_sound(layout, wanted[digest].blocks or digest, self._packs, self._threads)
        }

    def _hints(self, chunks: Sequence[Chunk]) -> list[Extent]:
        """Return where chunks may be stored; nothing is confirmed."""
        return [place for place in self._candidates(chunks) if place is not None]

    def _remember(self, pack: str, chunks: Sequence[Chunk]) -> None:
        """Let later files of this commit share with one that becomes the pack `pack`."""
        offset = 0
        for chunk in chunks:
            self._own.setdefault(chunk.sketch, Extent(pack, offset, chunk.length))
            offset += chunk.length

    def _cut_stored(self, places: Sequence[Extent]) -> None:
        """Cut the packs of these places as a whole, for the rest of this commit."""
        for pack in dict.fromkeys(place.pack for place in places):
            with suppress(MregfsError), self._reading(pack) as (read, size):  # else of no use
                self._remember(pack, cut(read, size, whole=True)[0])

    def _candidates(self, chunks: Sequence[Chunk]) -> list[Extent | None]:
        found: list[Extent | None] = []
        with self._index.read() as view:
            for chunk in chunks:
                row = view.get("chunk", chunk.sketch)
                place = None if row is None else rows.parse_chunk(row)
                if place is None or not self._holds(view, place):
                    place = self._own.get(chunk.sketch)
                found.append(place if place and place.length == chunk.length else None)
        return found

    def _confirmed(
        self, read: Read, chunks: Sequence[Chunk], candidates: Sequence[Extent | None]
    ) -> tuple[Extent | None, ...]:
        def confirm(item: tuple[int, int, Extent | None]) -> Extent | None:
            start, length, place = item
            if place is None:
                return None
            wanted = block_digest(read(start, length))
            try:
                with self._reading(place.pack) as (read_stored, _):
                    stored = block_digest(read_stored(place.offset, place.length))
            except MregfsError:
                return None  # unreadable, so of no use
            return place if stored == wanted else None

        return tuple(self._threads.map(confirm, _located(chunks, candidates)))

    @contextmanager
    def _reading(self, pack: str) -> Iterator[_Source]:
        """Open a pack: that of a file of this commit is the file itself."""
        if pack in self._own_files:
            yield self._own_files[pack]
            return
        opened = self._packs.open(pack)
        try:
            yield opened.read, opened.size
        finally:
            opened.close()

    def _holds(self, view: View, place: Extent) -> bool:
        """Tell whether a pack has so many bytes, and belongs to a version that exists."""
        size = self._sizes.get(place.pack)
        if size is None:
            size = self._sizes[place.pack] = self._size(view, place.pack)
        return place.offset + place.length <= size

    def _size(self, view: View, pack: str) -> int:
        """Return the bytes of a pack that a version uses and that is whole; -1 of any other."""
        state = State(view)
        known = state.pack(pack)
        if known is None or next(state.users_of(pack), None) is None:
            return -1
        try:
            return known.size if self._packs.size(pack) == known.size else -1
        except NotFoundError:
            return -1


def _located(
    chunks: Sequence[Chunk], candidates: Sequence[Extent | None]
) -> Iterator[tuple[int, int, Extent | None]]:
    start = 0
    for chunk, place in zip(chunks, candidates, strict=True):
        yield start, chunk.length, place
        start += chunk.length
