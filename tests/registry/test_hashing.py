"""Digests of a commit: however files are shared out among threads, they are the same."""

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mregfs.errors import HostError
from mregfs.model.digest import BLOCK, block_digests, file_digest
from mregfs.model.plan import INLINE, Hashed
from mregfs.ports.intake import IntakeEntry
from mregfs.registry.write import hashing
from mregfs.registry.write.hashing import hash_files

DATA = random.Random(1).randbytes(9 * BLOCK)
SIZES = (
    *(0, 1, hashing.LARGE - 1, hashing.LARGE, BLOCK - 1, BLOCK, BLOCK + 1),
    *(2 * BLOCK, 3 * BLOCK - 1, 3 * BLOCK, 3 * BLOCK + 1, 4 * BLOCK, 5 * BLOCK + 4096),
    *(6 * BLOCK - 4096, 7 * BLOCK, 9 * BLOCK),
)


class Files:
    """As much of an intake as digests need: files that are the beginning of `DATA`."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.reading = 0
        self.blocks: list[tuple[str, int]] = []

    def read(self, path: str) -> bytes:
        return DATA[: int(path)]

    def read_into(self, path: str, offset: int, buffer: memoryview) -> None:
        with self.lock:
            self.reading += 1
            self.blocks.append((path, offset))
        try:
            self.read_block(path, offset, buffer)
        finally:
            with self.lock:
                self.reading -= 1

    def read_block(self, path: str, offset: int, buffer: memoryview) -> None:
        assert offset + len(buffer) <= int(path)
        buffer[:] = DATA[offset : offset + len(buffer)]


def entries(*sizes: int) -> list[IntakeEntry]:
    return [IntakeEntry(str(size), "file", size) for size in sizes]


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


@pytest.fixture
def short_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans of an eighth, two blocks, of all files from three blocks on."""
    monkeypatch.setattr(hashing, "_SPAN", hashing._SPAN // 8)
    monkeypatch.setattr(hashing, "_WHOLE", 3 * BLOCK)


@pytest.mark.usefixtures("short_spans")
def test_a_digest_is_the_same_however_a_file_is_shared_out(threads: ThreadPoolExecutor) -> None:
    """Small ones at once, larger ones by one thread, the largest in spans by several."""
    done: list[int] = []

    hashed = hash_files(Files(), entries(*SIZES), threads, done.append)  # type: ignore[arg-type]

    for size in SIZES:
        blocks = block_digests(DATA[:size])
        assert (
            Hashed(
                file_digest(blocks, size),
                blocks if size > BLOCK else b"",
                DATA[:size] if size <= INLINE else None,
            )
            == hashed[str(size)]
        ), size
    assert sum(SIZES) == sum(done)


class Failing(Files):
    """Files of which one block cannot be read, while another one is; then all take their time."""

    def __init__(self, bad: tuple[str, int], slow: tuple[str, int]) -> None:
        super().__init__()
        self.bad, self.slow = bad, slow
        self.slow_began = threading.Event()

    def read_block(self, path: str, offset: int, buffer: memoryview) -> None:
        super().read_block(path, offset, buffer)
        if (path, offset) == self.slow:
            self.slow_began.set()
        if self.slow_began.is_set() and (path, offset) != self.bad:
            threading.Event().wait(0.05)
        if (path, offset) == self.bad:
            assert self.slow_began.wait(20)
            raise HostError(5, "the disk failed")


@pytest.mark.usefixtures("short_spans")
@pytest.mark.parametrize(
    ("sizes", "bad", "slow"),
    [
        ((9 * BLOCK,), (str(9 * BLOCK), 0), (str(9 * BLOCK), 2 * BLOCK)),
        (range(BLOCK, 2 * BLOCK, BLOCK // 8), (str(BLOCK), 0), (str(BLOCK + BLOCK // 8), 0)),
        ((2 * BLOCK, 9 * BLOCK), (str(9 * BLOCK), 0), (str(2 * BLOCK), 0)),
    ],
    ids=["in spans", "several files", "both"],
)
def test_when_a_file_fails_no_thread_goes_on_with_others(
    threads: ThreadPoolExecutor, sizes: tuple[int, ...], bad: tuple[str, int], slow: tuple[str, int]
) -> None:
    """The descriptors are closed next: nobody reads any more, and what had not begun never does."""
    files = Failing(bad, slow)

    with pytest.raises(HostError, match="the disk failed"):
        hash_files(files, entries(*sizes), threads, lambda count: None)  # type: ignore[arg-type]

    assert 0 == files.reading
    read = len(files.blocks)
    threads.submit(lambda: None).result()
    threads.shutdown()
    assert read == len(files.blocks)
    last = sizes[-1]
    assert (str(last), (last - 1) // BLOCK * BLOCK) not in files.blocks


class Sparse(Files):
    """A file of zeros with a few bytes in it, which says where they are."""

    def __init__(self, size: int, data: dict[int, bytes]) -> None:
        super().__init__()
        self.size = size
        self.data = data
        self.pending = self.most_pending = 0

    def read_block(self, path: str, offset: int, buffer: memoryview) -> None:
        buffer[:] = self.bytes(offset, len(buffer))

    def bytes(self, offset: int, length: int) -> bytes:
        found = bytearray(length)
        for start, piece in self.data.items():
            if offset <= start < offset + length:
                found[start - offset : start - offset + len(piece)] = piece
        return bytes(found)

    def data_run(self, path: str, offset: int) -> tuple[int, int]:
        for start, piece in self.data.items():
            if offset < start // 4096 * 4096 + 4096:
                begin = max(offset, start // 4096 * 4096)
                assert len(piece) <= 4096
                return begin, min(start // 4096 * 4096 + 4096, self.size)
        return self.size, self.size


@pytest.mark.usefixtures("short_spans")
@pytest.mark.parametrize("size", [40 * BLOCK, 40 * BLOCK + 5000, 40 * BLOCK - 1])
@pytest.mark.parametrize(
    "data",
    [
        {},
        {0: b"x"},
        {20 * BLOCK - 1: b"x"},
        {5 * BLOCK: b"x", 5 * BLOCK + 8192: b"y", 39 * BLOCK: b"z"},
    ],
    ids=["none", "first", "middle", "some"],
)
def test_holes_are_not_read(threads: ThreadPoolExecutor, size: int, data: dict[int, bytes]) -> None:
    """The digest is that of the same bytes written out; only blocks with data are looked at."""
    files = Sparse(size, data)
    done: list[int] = []
    entry = IntakeEntry("f", "file", size, sparse=True)

    hashed = hash_files(files, [entry], threads, done.append)  # type: ignore[arg-type]

    blocks = block_digests(files.bytes(0, size))
    assert Hashed(file_digest(blocks, size), blocks) == hashed["f"]
    assert {offset // BLOCK for offset in data} == {offset // BLOCK for _, offset in files.blocks}
    assert size == sum(done)


class Counting(ThreadPoolExecutor):
    """Threads that know how many tasks at a time they were ever given."""

    given = most = 0

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        future = super().submit(*args, **kwargs)
        Counting.given += 1
        Counting.most = max(Counting.most, self._work_queue.qsize())
        return future


def test_a_file_of_terabytes_is_digested_a_window_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither a task nor an object for each of its spans exists at once."""
    monkeypatch.setattr(hashing, "_SPAN", BLOCK)
    monkeypatch.setattr(hashing, "_WHOLE", BLOCK)
    monkeypatch.setattr(hashing, "_hash_span", lambda *span: bytes(32))
    with Counting(1) as threads:
        hash_files(Files(), entries(5000 * BLOCK), threads, lambda count: None)  # type: ignore[arg-type]
    assert 5000 == Counting.given
    assert Counting.most <= hashing._WINDOW


def test_a_hole_of_terabytes_takes_no_time(threads: ThreadPoolExecutor) -> None:
    """And is reported in pieces, so that whoever is killed meanwhile is not waited for."""
    size = 2 << 40
    files = Sparse(size, {})
    done: list[int] = []
    entry = IntakeEntry("f", "file", size, sparse=True)

    hash_files(files, [entry], threads, done.append)  # type: ignore[arg-type]

    assert [] == files.blocks
    assert size == sum(done)
    assert len(done) > 100
