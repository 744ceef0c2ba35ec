"""Writing a checkpoint: into a draft, and into a directory of the disk."""

import contextlib
import mmap
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.bench.bench import Bench, timed
from tests.bench.page_cache import BLOCK
from tests.bench.places import CHECKPOINT, Native, UnavailableError
from tests.bench.registry_mount import CACHED, MREGFS, Store

__all__ = ["measure_writing"]


def measure_writing(bench: Bench) -> None:
    """Write as many bytes as the checkpoint has: natively, and into drafts with both write paths.

    Twice each: until the file is closed (the page cache has it), and until fsync has returned.
    """
    closed = bench.new_series("write", "write of a draft, until closed", "GB/s")
    synced = bench.new_series("write_fsync", "write of a draft, until fsync returned", "GB/s")
    store = Store(bench.scratch("writing"))
    try:
        store.init()
    except UnavailableError as exc:
        closed.missing |= {MREGFS: str(exc), CACHED: str(exc)}
    source = _source(bench.tree / CHECKPOINT)
    for number, name in bench.interleaved([Native.name, MREGFS, CACHED]):
        bench.say(f"writing, round {number + 1}: {name}")
        try:
            with _directory(name, store, bench.directory / "written") as directory:
                for series, sync in ((closed, False), (synced, True)):
                    file = directory / f"checkpoint-{number}"
                    seconds = timed(partial(_write, file, bench.size, source, sync=sync))
                    series.add(name, bench.size / seconds / 1e9)
                    file.unlink()
        except UnavailableError as exc:
            closed.missing[name] = synced.missing[name] = str(exc)


@contextlib.contextmanager
def _directory(name: str, store: Store, native: Path) -> Iterator[Path]:
    if name == Native.name:
        native.mkdir(exist_ok=True)
        yield native
        return
    with store.mounted(passthrough=name == MREGFS) as mount:
        draft = mount.draft("run")
        yield draft
        draft.rmdir()


def _source(checkpoint: Path) -> memoryview:
    """Return 64 MiB of weights, at the start of a page (see `page_cache.aligned_buffer`)."""
    length = min(64 << 20, checkpoint.stat().st_size // BLOCK * BLOCK)
    buffer = mmap.mmap(-1, length)
    with checkpoint.open("rb") as file:
        file.readinto(buffer)
    return memoryview(buffer)


def _write(path: Path, size: int, source: memoryview, *, sync: bool) -> None:
    """Write a new file in blocks of 1 MiB."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        for offset in range(0, size, BLOCK):
            start = offset % len(source)
            os.write(descriptor, source[start : start + min(BLOCK, size - offset)])
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
