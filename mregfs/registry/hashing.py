"""Digests of the files of a commit, with all cores.

Decided here: how files are shared out among threads. Not decided here: what a digest is
(`model.digest`). Only `commit` calls this.

Small files are read whole, larger ones mapped, the largest digested in spans by all threads. BLAKE3
frees the GIL, so threads suffice.
"""

import mmap
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, wait
from contextlib import contextmanager

import msgspec

from mregfs.errors import ConflictError
from mregfs.model.digest import BLOCK, block_digests, file_digest
from mregfs.ports import Intake, IntakeEntry

__all__ = ["LARGE", "Hashed", "hash_files", "mapped"]

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


@contextmanager
def mapped(fd: int) -> Iterator[memoryview]:
    """Map a file that is not empty, for reading."""
    with (
        mmap.mmap(fd, 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ) as mapping,
        memoryview(mapping) as view,
    ):
        yield view


def hash_files(
    intake: Intake,
    files: Sequence[IntakeEntry],
    threads: Executor,
    report: Callable[[int], None],
) -> dict[str, Hashed]:
    """Digest all files; `report` is called with the bytes that were done since it was last called.

    Raises:
        ConflictError: a file is shorter or longer than it was when it was scanned.
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
        with _mapped_whole(intake, entry) as view:
            hashed[entry.path] = _hashed(block_digests(view), entry.size)
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
    with _mapped_whole(intake, entry) as view:

        def digest(start: int) -> bytes:
            with view[start : start + _SPAN] as span:
                return block_digests(span)

        futures = [threads.submit(digest, start) for start in range(0, len(view), _SPAN)]
        try:
            pieces = []
            for number, future in enumerate(futures):
                pieces.append(future.result())
                report(min(_SPAN, len(view) - number * _SPAN))
        finally:
            for future in futures:
                future.cancel()
            wait(futures)
    return _hashed(b"".join(pieces), entry.size)


@contextmanager
def _mapped_whole(intake: Intake, entry: IntakeEntry) -> Iterator[memoryview]:
    with mapped(intake.fileno(entry.path)) as view:
        if len(view) != entry.size:
            raise ConflictError(
                f"{entry.path!r} changed while it was being committed",
                "commit again when it is finished",
            )
        yield view


def _hashed(blocks: bytes, size: int) -> Hashed:
    return Hashed(file_digest(blocks, size), blocks if size > BLOCK else b"")
