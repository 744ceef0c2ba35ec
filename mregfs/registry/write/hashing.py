"""Digests of the files of a commit, with all cores.

Decided here: how files are shared out among threads. Not decided here: what a digest is
(`model.digest`).

Small files are read whole, larger ones block by block, the largest in spans by all threads. BLAKE3
frees the GIL, so threads suffice. Blocks are read, not mapped: to copy one from the page cache
costs less than its page faults, and a disk that fails is an error, not a SIGBUS. The holes of a
sparse file are not read: their blocks all have the digest of zeros.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, wait
from functools import cache

from mregfs.model.digest import BLOCK, block_digest, block_digests, file_digest
from mregfs.model.plan import INLINE, LARGE, Hashed
from mregfs.ports.intake import Intake, IntakeEntry

__all__ = ["hash_files"]

_SPAN = 16 * BLOCK
_WHOLE = 4 * _SPAN  # up to this size one thread has a file to itself
_WINDOW = 48  # spans that wait for a thread, or for those before them, at a time
_HOLE = 4096 * BLOCK  # of a hole at a time, so that whoever waits for the commit may give it up
_SMALL_BATCH = 64  # files of one task


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
            kept = data if len(data) <= INLINE else None
            hashed[entry.path] = Hashed(block_digests(data), b"", kept)
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
    """Digest a very large file, with a bounded number of its spans in the hands of the threads."""
    pieces: list[bytes] = []
    window: deque[tuple[Future[bytes] | bytes, int]] = deque()

    def take_first() -> None:
        piece, length = window[0]
        pieces.append(piece if isinstance(piece, bytes) else piece.result())
        window.popleft()
        report(length)

    try:
        for start, end, empty in _spans(intake, entry):
            if len(window) >= _WINDOW:
                take_first()
            if empty:
                window.append((_zeros(end - start), end - start))
            else:
                window.append((threads.submit(_hash_span, intake, entry, start, end), end - start))
        while window:
            take_first()
    finally:
        unfinished = [piece for piece, _ in window if not isinstance(piece, bytes)]
        for future in unfinished:
            future.cancel()
        wait(unfinished)
    return _hashed(b"".join(pieces), entry.size)


def _spans(intake: Intake, entry: IntakeEntry) -> Iterator[tuple[int, int, bool]]:
    """Yield where the spans of a file begin and end, and whether they are holes."""
    start, size = 0, entry.size
    while start < size:
        data, hole = intake.data_run(entry.path, start) if entry.sparse else (start, size)
        if data >= min(start + BLOCK, size):
            empty = size if data >= size else data // BLOCK * BLOCK
            while start < empty:
                end = min(start + _HOLE, empty)
                yield start, end, True
                start = end
        else:
            stop = min(-(-hole // BLOCK) * BLOCK, size)
            while start < stop:
                end = min(start + _SPAN, stop)
                yield start, end, False
                start = end


def _zeros(length: int) -> bytes:
    """Return the digests of the blocks of so many zeros."""
    rest = length % BLOCK
    return _zero_block(BLOCK) * (length // BLOCK) + (_zero_block(rest) if rest else b"")


@cache
def _zero_block(length: int) -> bytes:
    return block_digest(bytes(length))


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
