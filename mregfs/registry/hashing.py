"""Digests of the files of a commit, with all cores.

Decided here: how files are shared out among threads. Not decided here: what a digest is
(`model.digest`). Only `commit` calls this.

Small files are read whole, larger ones block by block, the largest in spans by all threads. BLAKE3
frees the GIL, so threads suffice. Blocks are read, not mapped: to copy one from the page cache
costs less than its page faults, and a disk that fails is an error, not a SIGBUS.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, wait

import msgspec

from mregfs.model.digest import BLOCK, block_digest, block_digests, file_digest
from mregfs.ports import Intake, IntakeEntry

__all__ = ["LARGE", "Hashed", "hash_files"]

LARGE = 256 << 10
"""Bytes from which a file may become a pack of its own: below, a lease and a name of its own cost
more than copying the bytes."""

_SPAN = 16 * BLOCK
_WHOLE = 4 * _SPAN  # up to this size one thread has a file to itself
_SMALL_BATCH = 64  # files of one task


class Hashed(msgspec.Struct, frozen=True):
    """A file's identity, and what its blocks are verified with."""

    digest: bytes
    blocks: bytes
    """Empty when there is one block."""


def hash_files(
    intake: Intake,
    files: Sequence[IntakeEntry],
    threads: Executor,
    report: Callable[[int], None],
) -> dict[str, Hashed]:
    """Digest all files; `report` is called with the bytes that were done since it was last called.

    Raises:
        ConflictError: a file is shorter than it was when it was scanned.
        HostError: the disk failed.
    """
    hashed: dict[str, Hashed] = {}
    small = [entry for entry in files if entry.size < LARGE]
    pending: set[Future[int]] = set()

    def digest_small(entries: Sequence[IntakeEntry]) -> int:
        for entry in entries:
            data = intake.read(entry.path)
            hashed[entry.path] = Hashed(block_digests(data), b"")
        return sum(entry.size for entry in entries)

    def digest_medium(entry: IntakeEntry) -> int:
        hashed[entry.path] = _hashed(_hash_span(intake, entry, 0, entry.size), entry.size)
        return entry.size

    try:
        for start in range(0, len(small), _SMALL_BATCH):
            pending.add(threads.submit(digest_small, small[start : start + _SMALL_BATCH]))
        for entry in files:
            if LARGE <= entry.size < _WHOLE:
                pending.add(threads.submit(digest_medium, entry))
        for entry in files:
            if entry.size >= _WHOLE:
                _drain(pending, report, least=0)
                hashed[entry.path] = _hash_in_spans(intake, entry, threads, report)
        while pending:
            _drain(pending, report, least=1)
    finally:
        for future in pending:
            future.cancel()
        wait(pending)
    return hashed


def _drain(pending: set[Future[int]], report: Callable[[int], None], *, least: int) -> None:
    done, _ = wait(pending, timeout=0 if least == 0 else None, return_when="FIRST_COMPLETED")
    for future in done:
        pending.discard(future)
        report(future.result())


def _hash_in_spans(
    intake: Intake, entry: IntakeEntry, threads: Executor, report: Callable[[int], None]
) -> Hashed:
    size = entry.size
    spans = [(start, min(start + _SPAN, size)) for start in range(0, size, _SPAN)]
    futures = [threads.submit(_hash_span, intake, entry, start, end) for start, end in spans]
    try:
        pieces = []
        for (start, end), future in zip(spans, futures, strict=True):
            pieces.append(future.result())
            report(end - start)
    finally:
        for future in futures:
            future.cancel()
        wait(futures)
    return _hashed(b"".join(pieces), size)


def _hash_span(intake: Intake, entry: IntakeEntry, start: int, end: int) -> bytes:
    digests = []
    with memoryview(bytearray(min(BLOCK, end - start))) as buffer:
        for offset in range(start, end, BLOCK):
            with buffer[: end - offset] as block:
                intake.read_into(entry.path, offset, block)
                digests.append(block_digest(block))
    return b"".join(digests)


def _hashed(blocks: bytes, size: int) -> Hashed:
    return Hashed(file_digest(blocks, size), blocks if size > BLOCK else b"")
