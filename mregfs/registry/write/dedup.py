"""What a file of a commit has in common with what is stored.

Decided here: how much of a new file is cut, which chunks are looked for, and that bytes are only
taken for stored when their digests say so (`commit.md` §4). Not decided here: where cuts are
(`model.chunking`), what is done with the answer (`packing`).
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, wait
from contextlib import contextmanager, suppress
from itertools import pairwise

from mregfs.errors import MregfsError, NotFoundError
from mregfs.model.chunking import boundaries
from mregfs.model.digest import BLOCK, block_digest, block_digests, sketch
from mregfs.model.layout import Chunk, FileLayout
from mregfs.model.state import State, View
from mregfs.model.tensors import Read, read_tensors
from mregfs.ports.index import Index
from mregfs.ports.packs import PackStore
from mregfs.registry.read import rows
from mregfs.registry.read.blocks import Blocks
from mregfs.registry.read.open_content import OpenContent
from mregfs.registry.read.rows import Place

__all__ = ["Cut", "Sharing", "Source", "cut"]

_ALL_BY_CONTENT = 8 << 20
"""Bytes of a file without tensors that are cut by content as a whole: at 3 GB/s a core that takes
longer than hashing them. Of larger ones only both ends are, until something there is found."""

_ENDS = 32  # parts of a file that one end is
_LEAST_END = 1 << 20
_MOST_END = 16 << 20

_SPAN = 16 * BLOCK  # bytes that one thread verifies at a time

Source = tuple[Read, int]
"""Reads a file, and its size in bytes."""

Cut = tuple[tuple[Chunk, ...], bool]
"""Chunks, and whether the file was cut as a whole."""


def cut(read: Read, size: int, *, whole: bool = False) -> Cut:
    """Cut a file of `size` bytes into chunks; `whole` however long it takes."""
    end = max(_LEAST_END, min(size // _ENDS, _MOST_END))
    if whole or size <= _ALL_BY_CONTENT or not _mostly_opaque(read, size):
        return _chunks(read, boundaries(read, size)), True
    tail = size - end

    def read_tail(offset: int, length: int) -> bytes:
        return read(tail + offset, min(length, end - offset))

    ends = [*boundaries(lambda offset, length: read(offset, min(length, end - offset)), end), tail]
    ends += [tail + position for position in boundaries(read_tail, end)]
    return _chunks(read, ends), False


def _mostly_opaque(read: Read, size: int) -> bool:
    table = read_tensors(read, size)
    if table is None:
        return True
    cheap = sum(r.end - r.start for r in table.regions if r.kind in ("tensor", "compressed"))
    return size - cheap > _ALL_BY_CONTENT and 8 * cheap < 7 * size


def _chunks(read: Read, ends: Sequence[int]) -> tuple[Chunk, ...]:
    return tuple(
        Chunk(end - start, sketch(read, start, end - start)) for start, end in pairwise([0, *ends])
    )


class Sharing:
    """What is stored at the time of one commit, in versions that exist.

    Args:
        mine: reads the file of this same commit that is to become a pack; None for other packs.
    """

    def __init__(
        self,
        index: Index,
        packs: PackStore,
        threads: Executor,
        mine: Callable[[str], Source | None],
    ) -> None:
        self._index = index
        self._packs = packs
        self._threads = threads
        self._mine = mine
        self._sizes: dict[str, int] = {}
        self._own: dict[bytes, Place] = {}

    def same_file(self, digest: bytes, blocks: bytes) -> FileLayout | None:
        """Return where a file with this digest is stored; without blocks and chunks.

        What is stored is read and verified: nobody gives up good bytes for damaged ones.
        """
        with self._index.read() as view:
            key = view.get("file", digest)
            row = None if key is None else view.get("layout", key)
            if row is None:
                return None
            layout = rows.parse_layout(row)
            if not all(self._holds(view, e.pack, e.offset, e.length) for e in layout.extents):
                return None
        return layout if self.is_sound(layout, blocks or digest) else None

    def is_sound(self, layout: FileLayout, digests: bytes) -> bool:
        """Tell whether the stored bytes of a file have these digests (of its blocks, joined)."""
        if layout.inline is not None:
            return block_digests(layout.inline) == digests
        name = f"a file of {layout.size} bytes in pack {layout.extents[0].pack}"
        with OpenContent(name, layout, self._packs, Blocks(name, digests)) as content:

            def verify(start: int) -> None:
                for offset in range(start, min(start + _SPAN, layout.size), BLOCK):
                    content.read(offset, BLOCK)

            verifying = [
                self._threads.submit(verify, start) for start in range(0, layout.size, _SPAN)
            ]
            try:
                for future in verifying:
                    future.result()
            except MregfsError:
                return False
            finally:
                for future in verifying:
                    future.cancel()
                wait(verifying)
        return True

    def places(self, read: Read, chunks: Sequence[Chunk]) -> list[Place | None]:
        """Return where each chunk of the file that `read` reads is stored, confirmed by digest."""
        candidates = self._candidates(chunks)
        return self._confirmed(read, chunks, candidates)

    def hints(self, chunks: Sequence[Chunk]) -> list[Place]:
        """Return where chunks may be stored; nothing is confirmed."""
        return [place for place in self._candidates(chunks) if place is not None]

    def remember(self, pack: str, chunks: Sequence[Chunk]) -> None:
        """Let later files of this commit share with one that becomes the pack `pack`."""
        offset = 0
        for chunk in chunks:
            self._own.setdefault(chunk.sketch, Place(pack, offset, chunk.length))
            offset += chunk.length

    def cut_stored(self, places: Sequence[Place]) -> None:
        """Cut the packs of these places as a whole, for the rest of this commit."""
        for pack in dict.fromkeys(place.pack for place in places):
            with suppress(MregfsError), self._reading(pack) as (read, size):  # else of no use
                self.remember(pack, cut(read, size, whole=True)[0])

    def _candidates(self, chunks: Sequence[Chunk]) -> list[Place | None]:
        found: list[Place | None] = []
        with self._index.read() as view:
            for chunk in chunks:
                row = view.get("chunk", chunk.sketch)
                place = None if row is None else rows.parse_chunk(row)
                if place is None or not self._holds(view, place.pack, place.offset, place.length):
                    place = self._own.get(chunk.sketch)
                found.append(place if place and place.length == chunk.length else None)
        return found

    def _confirmed(
        self, read: Read, chunks: Sequence[Chunk], candidates: Sequence[Place | None]
    ) -> list[Place | None]:
        def confirm(item: tuple[int, int, Place | None]) -> Place | None:
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

        return list(self._threads.map(confirm, _located(chunks, candidates)))

    @contextmanager
    def _reading(self, pack: str) -> Iterator[Source]:
        mine = self._mine(pack)
        if mine is not None:
            yield mine
            return
        opened = self._packs.open(pack)
        try:
            yield opened.read, opened.size
        finally:
            opened.close()

    def _holds(self, view: View, pack: str, offset: int, length: int) -> bool:
        """Tell whether a pack has so many bytes, and belongs to a version that exists."""
        size = self._sizes.get(pack)
        if size is None:
            size = self._sizes[pack] = self._size(view, pack)
        return offset + length <= size

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
    chunks: Sequence[Chunk], candidates: Sequence[Place | None]
) -> Iterator[tuple[int, int, Place | None]]:
    start = 0
    for chunk, place in zip(chunks, candidates, strict=True):
        yield start, chunk.length, place
        start += chunk.length
