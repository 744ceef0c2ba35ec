"""Digests: of files, of manifests, of log entries.

Decided here: how bytes become an identity, for ever (`registry/format.md` §2). Not decided here:
who reads the bytes, and with how many threads.

A file is digested in blocks of 1 MiB from its own start. A file of one block has the BLAKE3-256
of its bytes as digest (what `b3sum` prints); a larger one that of its blocks' digests, in a mode
of its own. So one pass over a file gives both its identity and what each block is verified with,
blocks are digested by as many threads as there are cores, and neither depends on where chunks are
cut.
"""

from collections.abc import Callable, Iterator

from blake3 import blake3

from mregfs.model.names import Digest

__all__ = [
    "BLOCK",
    "DIGEST_SIZE",
    "EMPTY_DIGEST",
    "block_count",
    "block_digest",
    "block_digests",
    "file_digest",
    "sketch",
]

BLOCK = 1 << 20
"""Bytes of a block: what the kernel asks of us at once, so that a sequential reader verifies each
block as it is read. BLAKE3 is at full speed from 64 KiB on."""

DIGEST_SIZE = 32
SKETCH_SIZE = 16

_TREE = "mregfs 2026-11 file of several blocks"
_SAMPLES = 4
_SAMPLE = 4 << 10


def block_digest(block: bytes | memoryview) -> bytes:
    """Return the 32 bytes of a block's digest."""
    return blake3(block).digest()


def block_digests(data: bytes | memoryview) -> bytes:
    """Return the digests of all blocks of `data` (which begins at a block), joined."""
    if len(data) <= BLOCK:
        return blake3(data).digest()
    with memoryview(data) as view:
        return b"".join(
            blake3(view[start : start + BLOCK]).digest() for start in range(0, len(view), BLOCK)
        )


def file_digest(blocks: bytes, size: int) -> bytes:
    """Return the digest of a file of `size` bytes whose blocks have these digests."""
    assert len(blocks) == DIGEST_SIZE * block_count(size)
    if size <= BLOCK:
        return blocks
    return blake3(size.to_bytes(8, "little") + blocks, derive_key_context=_TREE).digest()


def block_count(size: int) -> int:
    """Return the number of blocks of a file; an empty file has one, which is empty."""
    return max(1, -(-size // BLOCK))


EMPTY_DIGEST = Digest(block_digest(b"").hex())
"""The digest of a file without bytes."""


def sketch(read: Callable[[int, int], bytes], start: int, size: int) -> bytes:
    """Return 16 bytes that are equal for equal chunks, and rarely for others.

    They cost a fraction of a digest: only 16 KiB of a large chunk are looked at. So they say where
    a chunk may be stored already, never that it is. `read(offset, length)` returns bytes of a file
    in which the chunk of `size` bytes begins at `start`.
    """
    hasher = blake3(size.to_bytes(8, "little"))
    if size <= _SAMPLES * _SAMPLE:
        hasher.update(read(start, size))
    else:
        for sample in _sample_starts(size):
            hasher.update(read(start + sample, _SAMPLE))
    return hasher.digest(SKETCH_SIZE)


def _sample_starts(size: int) -> Iterator[int]:
    last = size - _SAMPLE
    return (last * number // (_SAMPLES - 1) for number in range(_SAMPLES))
