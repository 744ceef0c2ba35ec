"""Moving an alias, durably, against the fsync without which nothing is durable."""

import os
import statistics
import time
from pathlib import Path

from tests.bench.bench import Bench
from tests.bench.places import UnavailableError
from tests.bench.registry_mount import MREGFS, MountedStore, Store

__all__ = ["FSYNC", "measure_aliases", "prepare_collection"]

FSYNC = "one fsync"
MOVES = 40
"""Moves a round, each next to one fsync; a round's value is their median."""


def measure_aliases(bench: Bench) -> None:
    """Move an alias of a collection to and fro through the control file, as `echo` does.

    Next to each move: the fsync of a file of 4 KiB, just written, on the same disk. (The disk is
    quicker to fsync a file that was there before and kept its size; the report has that as well.)
    """
    series = bench.new_series(
        "alias_move", "alias move, durable, p50", "ms", higher_is_better=False
    )
    store = Store(bench.scratch("aliases"))
    other = bench.scratch("fsync")
    try:
        store.init()
        with store.mounted() as mount:
            prepare_collection(mount)
            for number in range(bench.rounds):
                bench.say(f"aliases, round {number + 1}")
                moves, fsyncs, overwrites = [], [], []
                for turn in range(MOVES):
                    moves.append(move_alias(mount, turn % 2))
                    fsyncs.append(one_fsync(other / f"{number}-{turn}"))
                    overwrites.append(one_fsync(other / f"{number}-{turn}"))
                series.add(MREGFS, statistics.median(moves) * 1e3)
                series.add(FSYNC, statistics.median(fsyncs) * 1e3)
                series.add("one fsync, file overwritten", statistics.median(overwrites) * 1e3)
    except UnavailableError as exc:
        series.missing[MREGFS] = str(exc)


def prepare_collection(mount: MountedStore) -> None:
    """Publish two versions, and link both into the collection `served`."""
    for number in range(2):
        draft = mount.draft("tiny")
        (draft / "config.json").write_text(f'{{"layers": {number}}}')
        mount.commit("tiny", "tiny")
        mount.control(f"ln -sf artifacts/tiny/v{number} collections/served/production\n")


def move_alias(mount: MountedStore, version: int) -> float:
    """Return the seconds from opening the control file to its close; the move is durable then."""
    command = f"ln -sf artifacts/tiny/v{version} collections/served/production"
    start = time.perf_counter()
    mount.echo(command)
    return time.perf_counter() - start


def one_fsync(path: Path) -> float:
    """Return the seconds of one fsync of a file of 4 KiB that was just written."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, os.urandom(4096))
        start = time.perf_counter()
        os.fsync(descriptor)
        return time.perf_counter() - start
    finally:
        os.close(descriptor)
