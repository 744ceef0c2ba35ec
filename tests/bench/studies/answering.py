"""Answering others while a large draft is committed."""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.bench import Bench
from tests.bench.figures import Series
from tests.bench.files import write_unique_copy
from tests.bench.places import CHECKPOINT, UnavailableError
from tests.bench.registry_mount import MountedStore, Store
from tests.bench.studies.aliases import move_alias, prepare_collection

__all__ = ["LOOKUPS", "MOVES", "measure_answering"]

LOOKUPS = "lookups"
MOVES = "alias moves"
SHARDS = 10
"""Files of the draft, each as large as the checkpoint: together 10 GiB, as in the bar."""

MOST_ROUNDS = 5


def measure_answering(bench: Bench) -> None:
    """Commit a draft of ten checkpoints; meanwhile look names up and move an alias.

    A lookup every 2 ms (a name that does not exist, and the target of an alias: the kernel
    remembers neither, so each one asks the daemon), an alias move every 10 ms. A round's value is
    the 99th percentile of its answers. The draft is on disk when the commit begins.
    """
    during = bench.new_series(
        "answers", "answers during a commit, p99", "ms", higher_is_better=False
    )
    quiet = bench.new_series("answers_quiet", "answers at rest, p99", "ms", higher_is_better=False)
    took = bench.new_series("big_commit", "commit of ten checkpoints", "s", higher_is_better=False)
    for number in range(min(bench.rounds, MOST_ROUNDS)):
        bench.say(f"answers during a commit, round {number + 1}")
        directory = bench.scratch("answering")
        try:
            _one_round(bench, Store(directory), number, (during, quiet, took))
        except UnavailableError as exc:
            during.missing |= {LOOKUPS: str(exc), MOVES: str(exc)}
            return
        finally:
            shutil.rmtree(directory)


def _one_round(bench: Bench, store: Store, number: int, series: tuple[Series, ...]) -> None:
    during, quiet, took = series
    store.init()
    with store.mounted() as mount:
        prepare_collection(mount)
        draft = mount.draft("big")
        for shard in range(SHARDS):
            file = draft / f"model-{shard + 1:05}-of-{SHARDS:05}.safetensors"
            write_unique_copy(bench.tree / CHECKPOINT, file, seed=2000 + SHARDS * number + shard)
        for name, values in _probe(mount, lambda: time.sleep(1)).items():
            quiet.add(name, percentile(values, 99) * 1e3)
        start = time.perf_counter()
        for name, values in _probe(mount, lambda: _commit(mount)).items():
            during.add(name, percentile(values, 99) * 1e3)
            during.notes.append(
                f"round {number + 1}: {len(values)} {name}, worst {max(values) * 1e3:.1f} ms"
            )
        took.add("mregfs", time.perf_counter() - start)


def _commit(mount: MountedStore) -> None:
    """Commit from another process, so that this one's threads only probe."""
    command = "echo commit big big > .mregfs/control"
    done = subprocess.run(
        ["sh", "-c", command], cwd=mount.path, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise UnavailableError(f"the commit failed: {done.stderr.strip()}")


def _probe(mount: MountedStore, action: Callable[[], None]) -> dict[str, list[float]]:
    """Run the action, and return the times of the answers given meanwhile, in seconds."""
    done = threading.Event()
    found: dict[str, list[float]] = {LOOKUPS: [], MOVES: []}

    def pace(answers: list[float], interval: float, ask: Callable[[int], float]) -> None:
        turn = 0
        while not done.is_set():
            answers.append(ask(turn))
            turn += 1
            done.wait(interval)

    threads = [
        threading.Thread(target=pace, args=(found[LOOKUPS], 0.002, lambda n: look_up(mount, n))),
        threading.Thread(
            target=pace, args=(found[MOVES], 0.01, lambda n: move_alias(mount, n % 2))
        ),
    ]
    for thread in threads:
        thread.start()
    try:
        action()
    finally:
        done.set()
        for thread in threads:
            thread.join()
    return found


def look_up(mount: MountedStore, turn: int) -> float:
    """Return the seconds of one question that only the daemon can answer."""
    start = time.perf_counter()
    if turn % 2:
        os.readlink(mount.path / "collections/served/production")
    else:
        Path.exists(mount.path / f"artifacts/tiny/nothing-{time.monotonic_ns()}")
    return time.perf_counter() - start


def percentile(values: list[float], percent: int) -> float:
    """Return the value that `percent` of the values do not exceed."""
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]
