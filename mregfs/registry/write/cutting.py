"""How a file of a commit is cut into chunks, and how much of it.

Decided here: how much of a file is looked at before something in it is found stored. Not decided
here: where cuts are (`model.chunking`), what is looked for (`dedup`).
"""

from collections.abc import Sequence
from itertools import pairwise

from mregfs.model.chunking import boundaries
from mregfs.model.digest import sketch
from mregfs.model.layout import Chunk
from mregfs.model.tensors import Read, read_tensors

__all__ = ["CUT_FROM", "Cut", "cut"]

CUT_FROM = 1 << 20
"""Bytes from which parts of a file are looked for; smaller ones are shared whole or not."""

_ALL_BY_CONTENT = 8 << 20
"""Bytes of a file without tensors that are cut by content as a whole: at 3 GB/s a core that takes
longer than hashing them. Of larger ones only both ends are, until something there is found."""

_ENDS = 32  # parts of a file that one end is
_LEAST_END = 1 << 20
_MOST_END = 16 << 20

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
