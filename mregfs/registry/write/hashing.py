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
from typing import NamedTuple

from mregfs.model.digest import BLOCK, block_digest, block_digests, file_digest
from mregfs.model.plan import INLINE, LARGE, Hashed
from mregfs.ports.intake import Intake, IntakeEntry

__all__ = ["hash_files"]

_SPAN = 16 * BLOCK
_WHOLE = 4 * _SPAN  # up to this size one thread has a file to itself
_WINDOW = 48  # tasks that wait for a thread, or for those before them, at a time
_HOLE = 4096 * BLOCK  # of a hole at a time, so that whoever waits for the commit may give it up
_SMALL_BATCH = 64  # files of one task


def hash_files(
    intake: Intake,
    entries: Sequence[IntakeEntry],
    threads: Executor,
    report: Callable[[int], None],
) -> dict[str, Hashed]:
    """Digest all files among the entries.

    `report` is called with the bytes that were done since it was last called.

    Raises:
        ConflictError: a file is shorter than it was when it was scanned.
        HostError: the disk failed.
    """
    files = [entry for entry in entries if entry.kind == "file"]
    hashed: dict[str, Hashed] = {}
    blocks: dict[str, list[bytes]] = {}
    window: deque[tuple[_Task, Future[_Found] | bytes]] = deque()

    def take_first() -> None:
        task, given = window[0]
        found = given if isinstance(given, bytes) else given.result()
        window.popleft()
        if isinstance(found, dict):
            hashed.update(found)
        else:
            blocks.setdefault(task.entries[0].path, []).append(found)
        report(task.end - task.start)

    try:
        for task in _tasks(intake, files):
            if len(window) >= _WINDOW:
                take_first()
            if len(task.entries) != 1 or task.entries[0].size < LARGE:
                window.append((task, threads.submit(_hash_small, intake, task.entries)))
            elif task.empty:
                window.append((task, _zeros(task.end - task.start)))
            else:
                span = intake, task.entries[0], task.start, task.end
                window.append((task, threads.submit(_hash_span, *span)))
        while window:
            take_first()
    finally:
        unfinished = [given for _, given in window if not isinstance(given, bytes)]
        for future in unfinished:
            future.cancel()
        wait(unfinished)
    for entry in files:
        if entry.path in blocks:
            joined = b"".join(blocks[entry.path])
            digest = file_digest(joined, entry.size)
            hashed[entry.path] = Hashed(digest, joined if entry.size > BLOCK else b"")
    return hashed


_Found = bytes | dict[str, Hashed]
"""What a task comes to: digests of the blocks of its span, or whole files."""


class _Task(NamedTuple):
    """What one thread does at a time: small files as a whole, or a span of a large one."""

    entries: Sequence[IntakeEntry]
    start: int
    end: int
    """Bytes from `start`: of the span, or of all the files."""
    empty: bool = False
    """The span is a hole."""


def _tasks(intake: Intake, files: Sequence[IntakeEntry]) -> Iterator[_Task]:
    small = [entry for entry in files if entry.size < LARGE]
    for start in range(0, len(small), _SMALL_BATCH):
        batch = small[start : start + _SMALL_BATCH]
        yield _Task(batch, 0, sum(entry.size for entry in batch))
    for entry in files:
        if LARGE <= entry.size < _WHOLE:
            yield _Task([entry], 0, entry.size)
    for entry in files:
        if entry.size >= _WHOLE:
            for start, end, empty in _spans(intake, entry):
                yield _Task([entry], start, end, empty)


def _hash_small(intake: Intake, entries: Sequence[IntakeEntry]) -> dict[str, Hashed]:
    hashed = {}
    for entry in entries:
        data = intake.read(entry.path)
        kept = data if len(data) <= INLINE else None
        hashed[entry.path] = Hashed(block_digests(data), b"", kept)
    return hashed


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
