"""Writing a checkpoint: into a draft, and into a directory of the disk."""

import mmap
import os
import time
from functools import partial
from pathlib import Path

from tests.bench.bench import Bench, in_turns
from tests.bench.page_cache import BLOCK
from tests.bench.places import CHECKPOINT, UnavailableError
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
    native = bench.scratch("written")
    for number, name in bench.interleaved([MREGFS, CACHED]):
        bench.say(f"writing, round {number + 1}: {name}")
        try:
            with store.mounted(passthrough=name == MREGFS) as mount:
                draft = mount.draft("run")
                for series, sync in ((closed, False), (synced, True)):
                    measure = partial(written, size=bench.size, source=source, sync=sync)
                    values = in_turns(
                        partial(measure, draft),
                        partial(measure, native),
                        seconds=8.0,
                        most=6,
                        turn=number,
                    )
                    series.add_beside(name, *values)
                draft.rmdir()
        except UnavailableError as exc:
            closed.missing[name] = synced.missing[name] = str(exc)


def _source(checkpoint: Path) -> memoryview:
    """Return 64 MiB of weights, at the start of a page (see `page_cache.aligned_buffer`)."""
    length = min(64 << 20, checkpoint.stat().st_size // BLOCK * BLOCK)
    buffer = mmap.mmap(-1, length)
    with checkpoint.open("rb") as file:
        file.readinto(buffer)
    return memoryview(buffer)


def written(directory: Path, size: int, source: memoryview, *, sync: bool) -> float:
    """Return GB/s of writing a new file in blocks of 1 MiB; it is removed after that."""
    file = directory / CHECKPOINT
    start = time.perf_counter()
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        for offset in range(0, size, BLOCK):
            begin = offset % len(source)
            os.write(descriptor, source[begin : begin + min(BLOCK, size - offset)])
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    elapsed = time.perf_counter() - start
    file.unlink()
    return size / elapsed / 1e9
