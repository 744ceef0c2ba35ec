"""Layouts: what is decoded is what was encoded, and nothing hostile gets in."""

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mregfs.errors import CorruptError
from mregfs.model import layout as module
from mregfs.model.digest import BLOCK
from mregfs.model.layout import (
    Chunk,
    Extent,
    FileLayout,
    PackInfo,
    Repeat,
    decode_layout,
    encode_layout,
    make_layout,
)

packs = st.binary(min_size=16, max_size=16).map(bytes.hex)
extents = st.builds(Extent, packs, st.integers(0, 2**50), st.integers(1, 2**20))


def packs_of(files: Mapping[int, FileLayout]) -> dict[str, PackInfo]:
    """Return packs that are just as large as these files need."""
    sizes: dict[str, int] = {}
    for file in files.values():
        for extent in file.extents:
            end = extent.offset + extent.length
            sizes[extent.pack] = max(end, sizes.get(extent.pack, 0))
    return {pack: PackInfo(size) for pack, size in sizes.items()}


@st.composite
def file_layouts(draw: st.DrawFn) -> FileLayout:
    """Draw where a file is: here, or in packs, with or without chunks."""
    if draw(st.booleans()):
        data = draw(st.binary(max_size=40))
        return FileLayout(len(data), inline=data)
    found = tuple(draw(st.lists(extents, min_size=1, max_size=4)))
    size = sum(extent.length for extent in found)
    blocks = bytes(32 * -(-size // BLOCK)) if size > BLOCK else b""
    chunks: tuple[Chunk, ...] = ()
    if draw(st.booleans()) and size > 1:
        cut = draw(st.integers(1, size - 1))
        chunks = (Chunk(cut, bytes(16)), Chunk(size - cut, b"s" * 16))
    return FileLayout(size, None, found, blocks, chunks)


@given(st.dictionaries(st.integers(1, 2**20), file_layouts(), max_size=6))
def test_round_trip(files: dict[int, FileLayout]) -> None:
    """Decoding gives back what was encoded, encoding again the same bytes."""
    layout = make_layout(files, packs_of(files))
    data = encode_layout(layout)
    decoded = decode_layout(data, "x")
    assert layout == decoded
    assert data == encode_layout(decoded)


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused(data: bytes) -> None:
    """Nothing else happens."""
    try:
        decode_layout(data, "x")
    except CorruptError:
        pass


ID = bytes(16)
PACK = [ID, 5]
LARGE = [ID, 2**40]
GOOD = [3, 5, None, [[0, 0, 5]], b"", []]


@pytest.mark.parametrize(
    ("packs_", "file", "problem"),
    [
        ([PACK], [3, 5, None, [[1, 0, 5]], b"", []], "bad extent"),
        ([PACK], [3, 5, None, [[-1, 0, 5]], b"", []], "bad extent"),
        ([PACK], [3, 5, None, [[0, -1, 5]], b"", []], "bad extent"),
        ([PACK], [3, 0, None, [[0, 0, 0]], b"", []], "bad extent"),
        ([LARGE], [3, 2**63 - 1, None, [[0, 0, 2**63 - 1]], b"", []], "beyond the end of pack"),
        ([PACK], [3, 5, None, [[0, 1, 5]], b"", []], "beyond the end of pack"),
        ([[ID, 2**62]], GOOD, "bad size"),
        ([[ID, -1]], GOOD, "bad size"),
        ([PACK, PACK], GOOD, "listed twice"),
        ([PACK], [3, 6, None, [[0, 0, 5]], b"", []], "5 bytes instead of 6"),
        ([PACK], [3, -5, None, [[0, 0, 5]], b"", []], "instead of -5"),
        ([PACK], [3, 5, b"12345", [[0, 0, 5]], b"", []], "bad inline"),
        ([PACK], [3, 5, b"1234", [], b"", []], "4 bytes instead of 5"),
        ([PACK], [3, 70000, bytes(70000), [], b"", []], "bad inline"),
        ([PACK], [3, 5, None, [[0, 0, 5]], bytes(32), []], "number of blocks"),
        ([LARGE], [3, 2 * BLOCK, None, [[0, 0, 2 * BLOCK]], bytes(32), []], "number of blocks"),
        ([PACK], [3, 5, None, [[0, 0, 5]], b"", [[4, bytes(16)]]], "bad chunks"),
        ([PACK], [3, 5, None, [[0, 0, 5]], b"", [[5, bytes(15)]]], "bad chunks"),
        ([PACK], [3, 5, None, [[0, 0, 5]], b"", [[9, bytes(16)], [-4, bytes(16)]]], "bad chunks"),
        ([[bytes(15), 5]], GOOD, "16 bytes"),
        ([PACK], [*GOOD, "more"], "length"),
        ([PACK], GOOD[:-1], "length"),
        ([PACK], [0, *GOOD[1:]], "out of order"),
    ],
)
def test_hostile_layouts_are_refused(packs_: list[Any], file: list[Any], problem: str) -> None:
    """Each breaks one rule."""
    with pytest.raises(CorruptError, match=problem):
        decode_layout(msgspec.msgpack.encode([1, packs_, [file]]), "x")


def test_positions_rise() -> None:
    """No file is described twice."""
    with pytest.raises(CorruptError, match="out of order"):
        decode_layout(msgspec.msgpack.encode([1, [PACK], [GOOD, GOOD]]), "x")


def test_other_formats_are_refused() -> None:
    """A newer layout is not misread."""
    with pytest.raises(CorruptError, match="format 2"):
        decode_layout(msgspec.msgpack.encode([2, [PACK], [GOOD]]), "x")


def test_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layout has a largest size."""
    monkeypatch.setattr(module, "MAX_LAYOUT_SIZE", 10)
    with pytest.raises(CorruptError, match="too large"):
        decode_layout(bytes(11), "x")


def test_a_file_that_is_one_pack_is_known_by_the_layout() -> None:
    """The size of the pack says so, and nobody has to look at the pack."""
    files = {
        1: FileLayout(5, extents=(Extent("ab" * 16, 0, 5),)),
        2: FileLayout(4, extents=(Extent("ab" * 16, 0, 4),)),
        3: FileLayout(4, extents=(Extent("ab" * 16, 1, 4),)),
        4: FileLayout(5, extents=(Extent("ab" * 16, 0, 2), Extent("ab" * 16, 2, 3))),
        5: FileLayout(5, inline=b"12345"),
    }
    layout = make_layout(files, {"ab" * 16: PackInfo(5)})
    assert [1] == [position for position, file in layout.files.items() if file.whole]
    assert layout == decode_layout(encode_layout(layout), "x")


def test_repeats_are_kept() -> None:
    """A pack may say which of its ranges an older one has, too."""
    repeats = (Repeat(0, "cd" * 16, 3, 2), Repeat(3, "cd" * 16, 0, 2))
    packs_ = {"ab" * 16: PackInfo(5, repeats), "cd" * 16: PackInfo(5)}
    layout = make_layout({1: FileLayout(5, extents=(Extent("ab" * 16, 0, 5),))}, packs_)
    assert layout == decode_layout(encode_layout(layout), "x")


@pytest.mark.parametrize(
    "repeats",
    [
        [[0, 0, 0, 2]],
        [[0, 2, 0, 2]],
        [[0, 1, 0, 0]],
        [[4, 1, 0, 2]],
        [[-1, 1, 0, 2]],
        [[0, 1, 8, 2]],
        [[0, 1, -1, 2]],
        [[0, 1, 0, 3], [2, 1, 0, 2]],
        [[0, 1, 0, 2**63 - 1]],
    ],
)
def test_hostile_repeats_are_refused(repeats: list[list[int]]) -> None:
    """Of itself, of no pack, empty, beyond either end, overlapping."""
    packs_ = [[ID, 5, repeats], [b"x" * 16, 9, []]]
    with pytest.raises(CorruptError, match="bad repeat"):
        decode_layout(msgspec.msgpack.encode([1, packs_, [GOOD]]), "x")
