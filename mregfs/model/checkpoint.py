"""Checkpoints: the whole state at one log entry, so that replay can start there.

Decided here: the form of a checkpoint (`registry/format.md` §4). Not decided here: when one is
written, or which one is read (`registry/log/replay`).

A frame of zstd around one line of JSON (the header) and blocks of rows. The header holds the
digest and the size of all that follows it, so a damaged checkpoint is never taken for the truth,
and no more of it is unpacked than its header promises.
"""

import struct
from collections.abc import Iterable, Iterator

import msgspec
from blake3 import blake3

from mregfs.errors import CorruptError
from mregfs.model.state import STATE_TABLES

__all__ = [
    "MAX_CHECKPOINT_SIZE",
    "MAX_RATIO",
    "SCHEMA",
    "Checkpoint",
    "checkpoint_key",
    "checkpoint_sequence",
    "decode_checkpoint",
    "encode_checkpoint",
]

MAX_CHECKPOINT_SIZE = 4 << 30
"""Bytes after decompression; a larger checkpoint is not read. 100 000 versions take about 70 MB."""

MAX_RATIO = 1000
"""How many bytes one compressed byte may become; those of real registries become 10 to 50."""

SCHEMA = 4
"""Raised with the form of any record (`model.records`) or key (`model.state`)."""

_MAX_HEADER = 1 << 12
_MAX_KEY = 511  # what an index takes
_ROWS_PER_BLOCK = 4096
_PIECE = 4 << 20
_LENGTH = struct.Struct("<I")

Row = tuple[str, bytes, bytes]
"""Table, key, value."""


class _Known(msgspec.Struct, frozen=True):
    """What every version's header says."""

    format: int
    schema: int


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    schema: int
    sequence: int
    rows: int
    size: int
    digest: str


class _Block(msgspec.Struct, array_like=True, frozen=True):
    table: str
    rows: list[tuple[bytes, bytes]]


class Checkpoint:
    """A decoded checkpoint: its place in the log, and its rows (decoded as they are taken)."""

    def __init__(self, sequence: int, count: int, body: memoryview, key: str) -> None:
        self.sequence = sequence
        self._count = count
        self._body = body
        self._key = key

    def rows(self) -> Iterator[Row]:
        """Yield all rows, in the order of tables and keys.

        Raises:
            CorruptError: a block breaks a rule of the format.
        """
        position = count = 0
        try:
            while position < len(self._body):
                (length,) = _LENGTH.unpack_from(self._body, position)
                position += _LENGTH.size + length
                if position > len(self._body):
                    raise ValueError("a block is cut off")
                block = _decoder.decode(self._body[position - length : position])
                if block.table not in STATE_TABLES:
                    raise ValueError(f"there is no table {block.table!r}")
                count += len(block.rows)
                for key, value in block.rows:
                    if not 0 < len(key) <= _MAX_KEY:
                        raise ValueError(f"a key has {len(key)} bytes")
                    yield block.table, key, value
            if count != self._count:
                raise ValueError(f"it has {count} rows, not {self._count}")
        except (msgspec.DecodeError, UnicodeDecodeError, struct.error, ValueError) as exc:
            raise CorruptError(f"{self._key} is damaged ({exc})") from exc


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Block, strict=True)


def checkpoint_key(sequence: int) -> str:
    """Return the key of the checkpoint at a log entry."""
    return f"checkpoints/{sequence:020d}.zst"


def checkpoint_sequence(key: str) -> int | None:
    """Return the log entry that a key of a checkpoint names, or None."""
    digits = key.removeprefix("checkpoints/").removesuffix(".zst")
    if len(digits) == 20 and digits.isascii() and digits.isdigit():
        return int(digits)
    return None


def encode_checkpoint(sequence: int, rows: Iterable[Row]) -> bytes:
    """Return the bytes of a checkpoint; `rows` come in the order of tables and keys."""
    import zstandard

    blocks: list[bytes] = []
    count = 0
    for block in _blocks(rows):
        count += len(block.rows)
        data = _encoder.encode(block)
        blocks += (_LENGTH.pack(len(data)), data)
    hasher = blake3()
    for data in blocks:
        hasher.update(data)
    size = sum(map(len, blocks))
    header = msgspec.json.encode(_Header(1, SCHEMA, sequence, count, size, hasher.hexdigest()))
    # Level 1: half a second for 100 000 versions would become two at level 3, for 10 % less.
    return zstandard.ZstdCompressor(level=1).compress(b"".join([header, b"\n", *blocks]))


def _blocks(rows: Iterable[Row]) -> Iterator[_Block]:
    table = ""
    pending: list[tuple[bytes, bytes]] = []
    for row_table, key, value in rows:
        if pending and (row_table != table or len(pending) == _ROWS_PER_BLOCK):
            yield _Block(table, pending)
            pending = []
        table = row_table
        pending.append((key, value))
    if pending:
        yield _Block(table, pending)


def decode_checkpoint(data: bytes, key: str, limit: int = MAX_CHECKPOINT_SIZE) -> Checkpoint:
    """Decode a checkpoint; `key` is named in errors.

    No more than its header promises is unpacked, and at most `limit` bytes: of what claims to be
    more nothing is read.

    Raises:
        CorruptError: it is damaged, too large, or breaks a rule of the format.
    """
    import zstandard

    limit = min(limit, MAX_CHECKPOINT_SIZE, MAX_RATIO * len(data))
    try:
        with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(data) as reader:
            start = reader.read(_MAX_HEADER)
            header = _read_header(start, key)
            if header.size > limit:
                raise CorruptError(
                    f"{key} is too large to be read here: {header.size} bytes, not {limit}"
                )
            body = bytearray(start[start.index(b"\n") + 1 :])
            while len(body) <= header.size:
                piece = reader.read(min(_PIECE, header.size - len(body) + 1))
                if not piece:
                    break
                body += piece
    except zstandard.ZstdError as exc:
        raise CorruptError(f"{key} is no zstd frame ({exc})") from exc
    except MemoryError as exc:
        raise CorruptError(f"{key} is too large for the memory of this process") from exc
    if len(body) != header.size or blake3(body).hexdigest() != header.digest:
        raise CorruptError(f"{key} is damaged: its rows have another size or digest")
    return Checkpoint(header.sequence, header.rows, memoryview(body), key)


def _read_header(start: bytes, key: str) -> _Header:
    end = start.find(b"\n")
    if end < 0:
        raise CorruptError(f"{key} has no header")
    try:
        known = msgspec.json.decode(start[:end], type=_Known)
        if known.schema != SCHEMA and known.format == 1:
            raise CorruptError(f"{key} was written by another version of mregfs")
        header = msgspec.json.decode(start[:end], type=_Header)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise CorruptError(f"{key} has a bad header ({exc})") from exc
    if header.format != 1 or checkpoint_sequence(key) != header.sequence:
        raise CorruptError(f"{key} says that it is format {header.format} at {header.sequence}")
    return header
