"""Reading the checkpoint while the backing file is in the page cache: what serving code does.

Each place is mounted anew each round, its backing files are read from disk into the page cache, and
then the figures of this module are taken on that one mount, in their order here.
"""

import json
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from safetensors import safe_open

from tests.bench.bench import Bench, in_turns, timed
from tests.bench.figures import Series
from tests.bench.page_cache import chill, read_through, warm
from tests.bench.places import CHECKPOINT, PT, Place, UnavailableError, find_program

__all__ = ["measure_reading"]

GB = 1e9


def measure_reading(bench: Bench) -> None:
    """Take all figures of this module, for every place, in interleaved rounds."""
    first = bench.new_series("first_read", "first sequential read, warm", "GB/s")
    limit = bench.new_series(
        "first_read_limit", "the same, if the reader waited for nobody", "GB/s"
    )
    pt = bench.new_series("pt_read", "first sequential read of a .pt file, warm", "GB/s")
    second = bench.new_series("second_read", "second sequential read, warm", "GB/s")
    tensors = bench.new_series("tensors", "load of all tensors, safetensors.safe_open", "GB/s")
    random = bench.new_series("random_read", "random 4 KiB pread", "/s")
    opening = bench.new_series("open_close", "open + close of a file", "/s")
    native = bench.tree
    for number, place in bench.interleaved(bench.places):
        bench.say(f"reading, round {number + 1}: {place.name}")
        # Pages that a copy left are smaller than those that reading brings, and how large those are
        # is chance: both make a fifth, natively too. So they are read anew for each round.
        files = [native / CHECKPOINT, native / PT, *place.backing()]
        chill(files)
        warm(files)
        with place.mounted() as top:

            def compare(
                series: Series,
                measure: Callable[[Path], float],
                name: str = CHECKPOINT,
                seconds: float = 0.0,
                *,
                top: Path = top,
                place: Place = place,
            ) -> None:
                subject, reference = partial(measure, top / name), partial(measure, native / name)
                series.add_beside(place.name, *in_turns(subject, reference, seconds=seconds))

            own: dict[Path, float] = {}
            compare(first, partial(sequential_read, own=own))
            limit.add_beside(place.name, *(own[below / CHECKPOINT] for below in (top, native)))
            if (top / PT).exists():
                compare(pt, sequential_read, PT)
            compare(second, sequential_read, seconds=1.0)
            compare(tensors, load_tensors, seconds=2.5)
            compare(opening, opens_and_closes, seconds=0.8)
            try:
                compare(random, random_reads, seconds=5.0)
            except UnavailableError as exc:
                random.missing[place.name] = str(exc)


def sequential_read(file: Path, own: dict[Path, float] | None = None) -> float:
    """Return GB/s of open, read in blocks of 1 MiB to the end, close.

    `own` gets, by file, the GB/s that the reader's own processor time would allow: what the kernel
    does in its name to fill the page cache and to copy, without any wait for whoever serves it.
    """
    size = file.stat().st_size
    busy = time.process_time()
    elapsed = timed(lambda: read_through(file))
    if own is not None:
        own[file] = size / (time.process_time() - busy) / GB
    return size / elapsed / GB


def load_tensors(file: Path) -> float:
    """Return GB/s of `safe_open`, then `get_tensor` for each name, all kept until the end."""

    def load() -> None:
        with safe_open(file, framework="np") as checkpoint:
            kept = [checkpoint.get_tensor(name) for name in checkpoint.keys()]  # noqa: SIM118
            assert kept

    return file.stat().st_size / timed(load) / GB


def random_reads(file: Path, milliseconds: int = 200) -> float:
    """Return how many 4 KiB preads a second fio does, one after the other, at random offsets.

    fio, because an interpreter's own microsecond per call would hide what a mount costs.
    """
    command = [find_program("fio"), "--name=random", f"--filename={file}", "--readonly"]
    command += ["--rw=randread", "--bs=4k", "--ioengine=psync", "--norandommap", "--invalidate=0"]
    command += ["--time_based", f"--runtime={milliseconds}ms", "--output-format=json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnavailableError(f"fio exited {done.returncode}: {done.stderr.strip()}")
    return float(json.loads(done.stdout)["jobs"][0]["read"]["iops"])


def opens_and_closes(file: Path, seconds: float = 0.1) -> float:
    """Return how often a second a file can be opened and closed, nothing read."""
    count = 0
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        for _ in range(50):
            with file.open("rb", buffering=0):
                pass
        count += 50
    return count / elapsed
