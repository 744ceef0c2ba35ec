"""Checkpoints: what comes out is what went in, or nothing does."""

import tracemalloc

import pytest
import zstandard
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from mregfs.errors import CorruptError
from mregfs.model import checkpoint as module
from mregfs.model.checkpoint import (
    SCHEMA,
    checkpoint_key,
    checkpoint_sequence,
    decode_checkpoint,
    encode_checkpoint,
)
from mregfs.model.state import STATE_TABLES

rows = st.lists(
    st.tuples(st.sampled_from(STATE_TABLES), st.binary(min_size=1, max_size=20), st.binary()),
    max_size=30,
).map(sorted)
KEY = checkpoint_key(7)


def plain(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompress(data)


def packed(text: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(text)


@given(rows)
def test_round_trip(given_rows: list[tuple[str, bytes, bytes]]) -> None:
    """All rows come back, in order."""
    checkpoint = decode_checkpoint(encode_checkpoint(7, given_rows), KEY)
    assert 7 == checkpoint.sequence
    assert given_rows == list(checkpoint.rows())


def test_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are cut into blocks; no table shares one with another."""
    monkeypatch.setattr(module, "_ROWS_PER_BLOCK", 3)
    many = [("alias", bytes([n]), b"x") for n in range(7)] + [("version", b"k", b"v")]
    assert many == list(decode_checkpoint(encode_checkpoint(7, many), KEY).rows())


GOOD = plain(encode_checkpoint(7, [("version", b"k", b"v")]))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "no header"),
        (b"x" * 10000, "no header"),
        (b"{}\n", "bad header"),
        (GOOD[:-1], "another size or digest"),
        (GOOD + b"x", "another size or digest"),
        (GOOD.replace(b'"sequence":7', b'"sequence":8'), "format 1 at 8"),
        (GOOD.replace(b'"format":1', b'"format":2'), "format 2"),
        (GOOD.replace(b'"schema":4', b'"schema":0'), "another version of mregfs"),
    ],
)
def test_damage_is_noticed(text: bytes, problem: str) -> None:
    """Whatever it is."""
    with pytest.raises(CorruptError, match=problem):
        decode_checkpoint(packed(text), KEY)


def test_what_is_no_frame_is_noticed() -> None:
    """Also when it ends early."""
    whole = encode_checkpoint(7, [("version", bytes([n]), bytes(100)) for n in range(200)])
    for data in (b"", b"nonsense", whole[:-9], whole[:20]):
        with pytest.raises(CorruptError):
            decode_checkpoint(data, KEY)


def header(size: int, digest: str = "0" * 64, rows: int = 0) -> bytes:
    return (
        f'{{"format":1,"schema":{SCHEMA},"sequence":7,"rows":{rows},"size":{size},'
        f'"digest":"{digest}"}}\n'
    ).encode()


def packed_zeros(start: bytes, size: int) -> bytes:
    """Return a frame of some bytes and then zeros: 4 GiB of them take 112 KB."""
    packer = zstandard.ZstdCompressor(level=3).compressobj()
    zeros = bytes(1 << 24)
    pieces = [packer.compress(piece) for piece in (start, *[zeros] * (size >> 24))]
    return b"".join([*pieces, packer.flush()])


@pytest.mark.parametrize("promised", [10, 1 << 20, 1 << 30, 1 << 32, 1 << 70])
def test_a_bomb_is_refused_before_it_is_unpacked(promised: int) -> None:
    """Whatever its header promises, it takes no more memory than its own size explains."""
    bomb = packed_zeros(header(promised), 1 << 30)
    assert len(bomb) < 120_000
    tracemalloc.start()
    try:
        with pytest.raises(CorruptError):
            decode_checkpoint(bomb, KEY)
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()


def test_a_checkpoint_beyond_the_limit_is_not_unpacked() -> None:
    """The limit is what the caller's memory allows."""
    whole = encode_checkpoint(7, [("version", bytes([n]), bytes(1000)) for n in range(1, 200)])
    with pytest.raises(CorruptError, match="too large to be read here"):
        decode_checkpoint(whole, KEY, limit=10_000)


def test_rows_that_break_the_format_are_noticed() -> None:
    """The digest may be right, a block may still be nonsense, or not what the header counts."""
    for body in (
        b"\0",
        b"\xff\xff\xff\xffx",
        b"\x01\0\0\0x",
        b"\x06\0\0\0\x92\xa3xyz\x90",
        b"\x0f\0\0\0\x92\xa7version\x91\x92\xc4\0\xc4\0",  # an empty key
        b"",  # no row, where one is promised
    ):
        head = header(len(body), blake3(body).hexdigest(), rows=1)
        checkpoint = decode_checkpoint(packed(head + body), KEY)
        with pytest.raises(CorruptError, match="damaged"):
            list(checkpoint.rows())


def test_keys() -> None:
    """A key names its entry; other keys name none."""
    assert 7 == checkpoint_sequence(KEY)
    assert checkpoint_sequence("checkpoints/7.zst") is None
    assert checkpoint_sequence("checkpoints/" + "x" * 20 + ".zst") is None
