"""Reading the checkpoint while the backing file is in the page cache: what serving code does.

Each place is mounted anew each round, its backing files are read into the page cache, and then the
figures of this module are taken on that one mount, in their order here.
"""

import json
import subprocess
import time
from functools import partial
from pathlib import Path

from safetensors import safe_open

from tests.bench.bench import Bench, steady, timed
from tests.bench.page_cache import read_through, warm
from tests.bench.places import CHECKPOINT, PT, UnavailableError, find_program

__all__ = ["measure_reading"]

GB = 1e9


def measure_reading(bench: Bench) -> None:
    """Take all figures of this module, for every place, in interleaved rounds."""
    first = bench.new_series("first_read", "first sequential read, warm", "GB/s")
    pt = bench.new_series("pt_read", "first sequential read of a .pt file, warm", "GB/s")
    second = bench.new_series("second_read", "second sequential read, warm", "GB/s")
    tensors = bench.new_series("tensors", "load of all tensors, safetensors.safe_open", "GB/s")
    random = bench.new_series("random_read", "random 4 KiB pread", "/s")
    opening = bench.new_series("open_close", "open + close of a file", "/s")
    for number, place in bench.interleaved(bench.places):
        bench.say(f"reading, round {number + 1}: {place.name}")
        warm(place.backing())
        with place.mounted() as top:
            file = top / CHECKPOINT
            first.add(place.name, sequential_read(file))
            if (top / PT).exists():
                pt.add(place.name, sequential_read(top / PT))
            second.add(place.name, steady(partial(sequential_read, file)))
            tensors.add(place.name, steady(partial(load_tensors, file), seconds=1.5))
            try:
                random.add(place.name, random_reads(file))
            except UnavailableError as exc:
                random.missing[place.name] = str(exc)
            opening.add(place.name, opens_and_closes(file))


def sequential_read(file: Path) -> float:
    """Return GB/s of open, read in blocks of 1 MiB to the end, close."""
    size = file.stat().st_size
    return size / timed(lambda: read_through(file)) / GB


def load_tensors(file: Path) -> float:
    """Return GB/s of `safe_open`, then `get_tensor` for each name, all kept until the end."""

    def load() -> None:
        with safe_open(file, framework="np") as checkpoint:
            kept = [checkpoint.get_tensor(name) for name in checkpoint.keys()]  # noqa: SIM118
            assert kept

    return file.stat().st_size / timed(load) / GB


def random_reads(file: Path, seconds: int = 1) -> float:
    """Return how many 4 KiB preads a second fio does, one after the other, at random offsets.

    fio, because an interpreter's own microsecond per call would hide what a mount costs.
    """
    command = [find_program("fio"), "--name=random", f"--filename={file}", "--readonly"]
    command += ["--rw=randread", "--bs=4k", "--ioengine=psync", "--norandommap", "--invalidate=0"]
    command += ["--time_based", f"--runtime={seconds}", "--output-format=json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnavailableError(f"fio exited {done.returncode}: {done.stderr.strip()}")
    return float(json.loads(done.stdout)["jobs"][0]["read"]["iops"])


def opens_and_closes(file: Path, seconds: float = 0.5) -> float:
    """Return how often a second a file can be opened and closed, nothing read."""
    count = 0
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        for _ in range(50):
            with file.open("rb", buffering=0):
                pass
        count += 50
    return count / elapsed
