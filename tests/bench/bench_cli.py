"""How long the verbs that only look take, beyond the interpreter's own start.

    python -m tests.bench.bench_cli [--runs N]

The bar: 0.2 s each, on a store with 100 000 versions in 1000 artifacts. Exits with 1 when a median
misses it.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.big_store import big_store

BAR = 0.2
"""Seconds beyond `python -c pass`."""

VERBS: tuple[tuple[str, ...], ...] = (
    ("--help",),
    ("ls",),
    ("ls", "--json"),
    ("ls", "artifact-0500"),
    ("ls", "collection-050"),
    ("ls", "artifact-0500:v50"),
    ("tree",),
    ("tree", "artifact-0500"),
    ("show", "artifact-0500"),
    ("show", "collection-050:production"),
    ("history", "artifact-0500:best"),
    ("history", "collection-050"),
    ("diff", "artifact-0500:v1", "artifact-0500:v2"),
    ("du", "artifact-0500:v1"),
    ("du", "artifact-0500"),
    ("status",),
    ("completion", "bash"),
)


def median_time(command: Sequence[str], runs: int, environment: dict[str, str]) -> float:
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        done = subprocess.run(
            command, env=environment, cwd="/", capture_output=True, check=False, text=True
        )
        times.append(time.perf_counter() - started)
        if done.returncode:
            sys.exit(f"{command} failed: {done.stderr}")
    return statistics.median(times)


def measure(store: Path, runs: int) -> list[tuple[str, float]]:
    """Return the seconds of each verb beyond those of the bare interpreter."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("MREGFS_")
    }
    environment["MREGFS_STORE"] = str(store)
    bare = median_time([sys.executable, "-c", "pass"], runs, environment)
    mregfs = [sys.executable, "-m", "mregfs"]
    found = [("python -c pass", bare)]
    for verb in VERBS:
        took = median_time([*mregfs, *verb], runs, environment)
        found.append((f"mregfs {' '.join(verb)}", took - bare))
    complete = {"_MREGFS_COMPLETE": "bash_complete", "COMP_LINE": "mregfs show artifact-05"}
    took = median_time(mregfs, runs, environment | complete)
    found.append(("completion of a name", took - bare))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    missed = 0
    bare, *verbs = measure(big_store(), runs)
    print(f"{bare[0]:46} {bare[1] * 1000:7.1f} ms")
    for verb, took in verbs:
        passed = took <= BAR
        missed += not passed
        print(f"{verb:46} {took * 1000:7.1f} ms  {'pass' if passed else 'FAIL'}")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
