"""A store with 100 000 versions in 1000 artifacts: how it mounts, what it takes, how it lists."""

import subprocess
import sys
import time
from pathlib import Path

from tests.bench.bench import Bench
from tests.bench.places import UnavailableError
from tests.bench.registry_mount import MREGFS, Store

__all__ = ["measure_scale"]

LISTED = 5
"""Directories listed on each mount; each one for the first time."""


def measure_scale(bench: Bench) -> None:
    """Mount the big store, list directories of 100 versions, and read the daemon's resident set.

    The index is warm: a first mount, which is not counted, has built it. A mount takes from the
    start of the daemon's interpreter until `.mregfs/status` can be read.
    """
    mounting = bench.new_series(
        "scale_mount", "mount, 100 000 versions, warm index", "s", higher_is_better=False
    )
    memory = bench.new_series(
        "scale_rss", "resident set of its daemon", "MB", higher_is_better=False
    )
    listing = bench.new_series(
        "scale_ls", "`ls` of 100 versions, first time", "ms", higher_is_better=False
    )
    bench.say("scale: making the store")
    try:
        store = Store(bench.scratch("scale"), build())
        with store.mounted():
            pass
        for number in range(bench.rounds):
            bench.say(f"scale, round {number + 1}")
            start = time.perf_counter()
            with store.mounted() as mount:
                mounting.add(MREGFS, time.perf_counter() - start)
                for artifact in range(LISTED):
                    name = f"artifact-{(number * LISTED + artifact) % 1000:04}"
                    listing.add(MREGFS, ls(mount.path / "artifacts" / name) * 1e3)
                memory.add(MREGFS, mount.resident() / 1e6)
    except UnavailableError as exc:
        for series in (mounting, memory, listing):
            series.missing[MREGFS] = str(exc)


def build() -> Path:
    """Return the directory of the big store; it is made only once.

    Raises:
        UnavailableError: it could not be made.
    """
    command = [sys.executable, "-m", "tests.bench.big_store"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnavailableError(f"the big store: {done.stderr.strip().splitlines()[-1]}")
    return Path(done.stdout.strip().splitlines()[-1].split()[0])


def ls(directory: Path) -> float:
    """Return the seconds of `ls DIRECTORY`, the process included.

    Raises:
        UnavailableError: it failed, or showed fewer than 100 versions.
    """
    start = time.perf_counter()
    done = subprocess.run(["ls", directory], capture_output=True, text=True, check=False)
    elapsed = time.perf_counter() - start
    if done.returncode or len(done.stdout.splitlines()) < 100:
        raise UnavailableError(f"ls {directory}: {done.stderr or done.stdout}")
    return elapsed
