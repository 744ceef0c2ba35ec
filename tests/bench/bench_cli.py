"""How long the verbs that only look take, beyond the interpreter's own start.

    python -m tests.bench.bench_cli [--runs N]

The bar: 0.2 s each, on a store with 100 000 versions in 1000 artifacts. Exits with 1 when a median
misses it. On a machine that does something else as well only the second figure, the processor's
time, says anything.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

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
    ("history", "artifact-0500"),
    ("diff", "artifact-0500:v1", "artifact-0500:v2"),
    # The first one loads the content of all versions into the index: the worst case for the others.
    ("du",),
    ("du", "artifact-0500:v1"),
    ("du", "artifact-0500"),
    ("status",),
    ("completion", "bash"),
)


class Took(NamedTuple):
    """Medians of several runs, in seconds."""

    wall: float
    processor: float


def median_time(command: Sequence[str], runs: int, environment: dict[str, str]) -> Took:
    walls, processors = [], []
    subprocess.run(command, env=environment, cwd="/", capture_output=True, check=False)
    for _ in range(runs):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.perf_counter()
        done = subprocess.run(
            command, env=environment, cwd="/", capture_output=True, check=False, text=True
        )
        walls.append(time.perf_counter() - started)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        processors.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        if done.returncode:
            sys.exit(f"{command} failed: {done.stderr}")
    return Took(statistics.median(walls), statistics.median(processors))


def measure(store: Path, runs: int) -> Iterator[tuple[str, Took]]:
    """Yield how long the bare interpreter takes, then how much longer each verb does."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("MREGFS_")
    }
    environment["MREGFS_STORE"] = str(store)
    # As after an installation: each module has its bytecode. Compiling them takes another 60 ms.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment["PYTHONPYCACHEPREFIX"] = str(store.parent / "bytecode")
    bare = median_time([sys.executable, "-c", "pass"], runs, environment)
    yield "python -c pass", bare
    mregfs = [sys.executable, "-m", "mregfs"]
    complete = {"_MREGFS_COMPLETE": "bash_complete", "COMP_LINE": "mregfs show artifact-05"}
    questions = [(f"mregfs {' '.join(verb)}", [*mregfs, *verb], environment) for verb in VERBS]
    questions.append(("completion of a name", mregfs, environment | complete))
    for name, command, variables in questions:
        took = median_time(command, runs, variables)
        yield name, Took(took.wall - bare.wall, took.processor - bare.processor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    print(f"{'load ' + format(os.getloadavg()[0], '.1f'):46} {'wall':>10} {'processor':>10}")
    missed = 0
    for position, (name, took) in enumerate(measure(big_store(), runs)):
        line = f"{name:46} {took.wall * 1000:7.1f} ms {took.processor * 1000:7.1f} ms"
        if position:
            missed += took.wall > BAR
            line += "  pass" if took.wall <= BAR else "  FAIL"
        print(line, flush=True)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
