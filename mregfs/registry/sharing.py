"""What a file of a commit has in common with what is stored.

Decided here: how much of a new file is cut, which chunks are looked for, and that bytes are only
taken for stored when their digests say so (`commit.md` §4). Not decided here: where cuts are
(`model.chunking`), what is done with the answer (`packing`). Only `packing` calls this.
"""

import mmap
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from itertools import pairwise

from mregfs.errors import MregfsError, NotFoundError
from mregfs.model.chunking import boundaries
from mregfs.model.digest import block_digest, sketch
from mregfs.model.layout import Chunk, FileLayout
from mregfs.model.state import State
from mregfs.model.tensors import read_tensors
from mregfs.ports import Index, PackStore, View
from mregfs.registry import rows
from mregfs.registry.rows import Place

__all__ = ["Cut", "Sharing", "cut", "mapped"]

_ALL_BY_CONTENT = 8 << 20
"""Bytes of a file without tensors that are cut by content as a whole: at 3 GB/s a core that takes
longer than hashing them. Of larger ones only both ends are, until something there is found."""

_ENDS = 32  # parts of a file that one end is
_LEAST_END = 1 << 20
_MOST_END = 16 << 20

Cut = tuple[tuple[Chunk, ...], bool]
"""Chunks, and whether the file was cut as a whole."""


@contextmanager
def mapped(fd: int) -> Iterator[memoryview]:
    """Map a file that is not empty, for reading."""
    with (
        mmap.mmap(fd, 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ) as mapping,
        memoryview(mapping) as view,
    ):
        yield view


def cut(view: memoryview, *, whole: bool = False) -> Cut:
    """Cut a file into chunks; `whole` however long it takes."""
    size = len(view)
    end = max(_LEAST_END, min(size // _ENDS, _MOST_END))
    if whole or size <= _ALL_BY_CONTENT or not _mostly_opaque(view):
        return _chunks(view, boundaries(view)), True
    with view[:end] as head, view[size - end :] as tail:
        ends = [*boundaries(head), size - end]
        ends += [size - end + position for position in boundaries(tail)]
    return _chunks(view, ends), False


def _mostly_opaque(view: memoryview) -> bool:
    table = read_tensors(lambda offset, length: bytes(view[offset : offset + length]), len(view))
    if table is None:
        return True
    cheap = sum(r.end - r.start for r in table.regions if r.kind in ("tensor", "compressed"))
    return len(view) - cheap > _ALL_BY_CONTENT and 8 * cheap < 7 * len(view)


def _chunks(view: memoryview, ends: Sequence[int]) -> tuple[Chunk, ...]:
    chunks = []
    for start, end in pairwise([0, *ends]):
        with view[start:end] as chunk:
            chunks.append(Chunk(end - start, sketch(chunk)))
    return tuple(chunks)


class Sharing:
    """What is stored at the time of one commit, in versions that exist.

    Args:
        mine: maps the file of this same commit that is to become a pack; None for other packs.
    """

    def __init__(
        self,
        index: Index,
        packs: PackStore,
        threads: Executor,
        mine: Callable[[str], int | None],
    ) -> None:
        self._index = index
        self._packs = packs
        self._threads = threads
        self._mine = mine
        self._usable: dict[str, bool] = {}
        self._own: dict[bytes, Place] = {}

    def same_file(self, digest: bytes) -> FileLayout | None:
        """Return where a file with this digest is stored; without blocks and chunks."""
        with self._index.read() as view:
            key = view.get("file", digest)
            row = None if key is None else view.get("layout", key)
            if row is None:
                return None
            layout = rows.parse_layout(row)
            if all(self._is_usable(view, extent.pack) for extent in layout.extents):
                return layout
        return None

    def places(self, view: memoryview, chunks: Sequence[Chunk]) -> list[Place | None]:
        """Return where each chunk of the mapped file `view` is stored, confirmed by digest."""
        candidates = self._candidates(chunks)
        return self._confirmed(view, chunks, candidates)

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
            with self._mapped(pack) as view:
                self.remember(pack, cut(view, whole=True)[0])

    def _candidates(self, chunks: Sequence[Chunk]) -> list[Place | None]:
        found: list[Place | None] = []
        with self._index.read() as view:
            for chunk in chunks:
                row = view.get("chunk", chunk.sketch)
                place = None if row is None else rows.parse_chunk(row)
                if place is None or not self._is_usable(view, place.pack):
                    place = self._own.get(chunk.sketch)
                found.append(place if place and place.length == chunk.length else None)
        return found

    def _confirmed(
        self, view: memoryview, chunks: Sequence[Chunk], candidates: Sequence[Place | None]
    ) -> list[Place | None]:
        def confirm(item: tuple[int, int, Place | None]) -> Place | None:
            start, length, place = item
            if place is None:
                return None
            with view[start : start + length] as chunk:
                wanted = block_digest(chunk)
            try:
                return place if self._digest(place) == wanted else None
            except MregfsError:
                return None  # unreadable, so of no use

        return list(self._threads.map(confirm, _located(chunks, candidates)))

    def _digest(self, place: Place) -> bytes:
        fd = self._mine(place.pack)
        if fd is not None:
            with mapped(fd) as view, view[place.offset : place.offset + place.length] as chunk:
                return block_digest(chunk)
        pack = self._packs.open(place.pack)
        try:
            return block_digest(pack.read(place.offset, place.length))
        finally:
            pack.close()

    @contextmanager
    def _mapped(self, pack: str) -> Iterator[memoryview]:
        fd = self._mine(pack)
        if fd is not None:
            with mapped(fd) as view:
                yield view
            return
        opened = self._packs.open(pack)
        try:
            with mapped(opened.fileno()) as view:
                yield view
        finally:
            opened.close()

    def _is_usable(self, view: View, pack: str) -> bool:
        """Tell whether a pack exists and belongs to a version that does."""
        known = self._usable.get(pack)
        if known is None:
            known = self._usable[pack] = is_live(view, pack) and self._exists(pack)
        return known

    def _exists(self, pack: str) -> bool:
        try:
            self._packs.size(pack)
        except NotFoundError:
            return False
        return True


def is_live(view: View, pack: str) -> bool:
    """Tell whether a version that exists has bytes in a pack."""
    state = State(view)
    for key, _ in view.scan("pack_ref", bytes.fromhex(pack)):
        record = state.inode(rows.parse_reference(key))
        if record is not None and record.kind == "version":
            return True
    return False


def _located(
    chunks: Sequence[Chunk], candidates: Sequence[Place | None]
) -> Iterator[tuple[int, int, Place | None]]:
    start = 0
    for chunk, place in zip(chunks, candidates, strict=True):
        yield start, chunk.length, place
        start += chunk.length
