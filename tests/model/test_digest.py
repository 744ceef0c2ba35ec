"""Digests: a file's does not depend on how it is read, cut or stored."""

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from mregfs.model.digest import (
    BLOCK,
    EMPTY_DIGEST,
    block_count,
    block_digest,
    block_digests,
    file_digest,
    sketch,
)


def digest_of(data: bytes) -> bytes:
    return file_digest(block_digests(data), len(data))


def test_a_small_file_has_the_digest_that_b3sum_prints() -> None:
    """Up to a block: plain BLAKE3-256."""
    for data in (b"", b"abc", bytes(BLOCK)):
        assert blake3(data).digest() == digest_of(data)
    assert blake3(b"").hexdigest() == EMPTY_DIGEST


def test_a_large_file_is_a_tree_of_blocks() -> None:
    """BLAKE3, in a mode of its own, of the size and the blocks' digests."""
    data = bytes(range(256)) * (BLOCK // 256) * 2 + b"tail"
    blocks = b"".join(
        blake3(data[start : start + BLOCK]).digest() for start in range(0, len(data), BLOCK)
    )
    key = "mregfs 2026-11 file of several blocks"
    expected = blake3(len(data).to_bytes(8, "little") + blocks, derive_key_context=key).digest()
    assert expected == digest_of(data)


def test_no_small_file_can_stand_for_a_large_one() -> None:
    """A file that holds what a large one's digest is computed from has another digest."""
    data = bytes(BLOCK + 1)
    preimage = len(data).to_bytes(8, "little") + block_digests(data)
    assert digest_of(preimage) != digest_of(data)


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 5])
@pytest.mark.parametrize("span", [1, 2, 4])
def test_blocks_can_be_digested_apart(size: int, span: int) -> None:
    """Spans of whole blocks, joined, are the same as all at once."""
    data = bytes(size)
    length = span * BLOCK
    pieces = [block_digests(data[start : start + length]) for start in range(0, size, length)]
    assert block_digests(data) == (b"".join(pieces) if size else block_digest(b""))
    assert 32 * block_count(size) == len(block_digests(data))


def sketch_of(data: bytes | bytearray, start: int = 0, size: int | None = None) -> bytes:
    return sketch(
        lambda offset, length: bytes(data[offset : offset + length]),
        start,
        len(data) if size is None else size,
    )


@given(st.binary(max_size=100))
def test_equal_chunks_have_equal_sketches(data: bytes) -> None:
    """Wherever they stand."""
    assert sketch_of(data) == sketch_of(b"x" + data + b"y", 1, len(data))
    assert 16 == len(sketch_of(data))


@pytest.mark.parametrize("size", [1, 16384, 16385, 100_000, 4 << 20])
def test_sketches_look_at_both_ends_and_the_length(size: int) -> None:
    """A change there always shows."""
    data = bytearray(size)
    before = sketch_of(data)
    for position in (0, size - 1):
        data[position] = 1
        assert before != sketch_of(data)
        data[position] = 0
    assert before != sketch_of(bytes(size + 1))
