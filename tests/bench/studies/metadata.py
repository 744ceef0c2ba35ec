"""Asking for attributes: 2000 small files in 20 directories, named one by one, or walked.

`Cold` is a mount just made: the kernel knows no name and no inode of it, so each is asked for. The
files that back the mount are in the page cache. The native directory has no such state that could
be had without emptying the caches of the whole machine, so it has no cold figure.
"""

import os
import statistics
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tests.bench.bench import Bench, in_turns
from tests.bench.page_cache import warm
from tests.bench.places import SMALL
from tests.bench.registry_mount import CACHED, DEDUPLICATED, TRUSTED

__all__ = ["measure_metadata"]

COLD_MOUNTS = 3
"""Mounts a round whose names are asked for the first time; the median counts. A tenth of a second
each, in which little else has to happen for a figure to be off by a third."""


def measure_metadata(bench: Bench) -> None:
    """Take stats by name (cold, then warm), and a walk with stats on another fresh mount."""
    named = bench.new_series("stat_cold", "stat of 2000 files by name, cold", "/s")
    walked = bench.new_series("walk_cold", "walk of 2000 files with stat, cold", "/s")
    again = bench.new_series("stat_warm", "stat of 2000 files by name, warm", "/s")
    # The other read paths of mregfs differ in how data is read, not in this.
    places = [place for place in bench.places if place.name not in (CACHED, DEDUPLICATED, TRUSTED)]
    for number, place in bench.interleaved(places):
        bench.say(f"metadata, round {number + 1}: {place.name}")
        warm(place.backing())
        cold = []
        for _ in range(COLD_MOUNTS - 1):
            with place.mounted() as top:
                cold.append(stats(top, bench.small))
        with place.mounted() as top:
            subject = partial(stats, top, bench.small)
            reference = partial(stats, bench.tree, bench.small)
            named.add(place.name, statistics.median([*cold, subject()]))
            again.add_beside(place.name, *in_turns(subject, reference, seconds=0.4, most=25))
        with place.mounted() as top:
            walked.add(place.name, walk(top / SMALL))


def stats(top: Path, paths: Sequence[str]) -> float:
    """Return how many files a second stat(2) tells of, each by its path below `top`.

    Below, because the places are mounted at different depths.
    """
    directory = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    try:
        start = time.perf_counter()
        for path in paths:
            os.stat(path, dir_fd=directory)
        return len(paths) / (time.perf_counter() - start)
    finally:
        os.close(directory)


def walk(top: Path) -> float:
    """Return how many files a second are listed with their attributes, as `find -ls` does."""
    count = 0
    start = time.perf_counter()
    for directory in os.scandir(top):
        for entry in os.scandir(directory.path):
            entry.stat()
            count += 1
    return count / (time.perf_counter() - start)
