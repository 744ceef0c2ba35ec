"""Checkpoints: what comes out is what went in, or nothing does."""

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from mregfs.errors import CorruptError
from mregfs.model import checkpoint as module
from mregfs.model.checkpoint import (
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
        (GOOD[:-1], "another digest"),
        (GOOD + b"x", "another digest"),
        (GOOD.replace(b'"sequence":7', b'"sequence":8'), "format 1 at 8"),
        (GOOD.replace(b'"format":1', b'"format":2'), "format 2"),
        (GOOD.replace(b'"schema":1', b'"schema":0'), "another version of mregfs"),
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


def test_a_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decompression stops at the limit."""
    monkeypatch.setattr(module, "MAX_CHECKPOINT_SIZE", 1000)
    with pytest.raises(CorruptError, match="too large"):
        decode_checkpoint(packed(bytes(100_000_000)), KEY)


def test_rows_that_break_the_format_are_noticed() -> None:
    """The digest may be right, a block may still be nonsense."""
    from blake3 import blake3

    for body in (b"\0", b"\xff\xff\xff\xffx", b"\x01\0\0\0x", b"\x06\0\0\0\x92\xa3xyz\x90"):
        header = b'{"format":1,"schema":1,"sequence":7,"rows":0,"digest":"%s"}\n' % (
            blake3(body).hexdigest().encode()
        )
        checkpoint = decode_checkpoint(packed(header + body), KEY)
        with pytest.raises(CorruptError, match="damaged"):
            list(checkpoint.rows())


def test_keys() -> None:
    """A key names its entry; other keys name none."""
    assert 7 == checkpoint_sequence(KEY)
    assert checkpoint_sequence("checkpoints/7.zst") is None
    assert checkpoint_sequence("checkpoints/" + "x" * 20 + ".zst") is None
