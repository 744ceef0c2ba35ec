"""How long requests wait that need no store, while others wait for one that is far away.

Decided here: a real mount over a sleeping store (`tests/far_store.py`: each call takes 300 ms, and
no pack is a file of this host), what goes on meanwhile in processes of their own, what is timed.
Not decided here: what is right (`tests/vfs/test_event_loop.py` holds the loop to it, untimed).

Run: python -m tests.bench.bench_event_loop [--seconds 20] [--readers 48] [--committers 4] [--first]
"""

import argparse
import contextlib
import itertools
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.far_store import FarMount, publish

BAR = 5.0
"""Milliseconds that 99 of 100 requests must not exceed."""

DELAY = 0.3
NAMES = 4000
MIB = 1 << 20
PATIENCE = 60


def read_cold(path: Path) -> None:
    """Read what no memory has, piece by piece, for ever."""
    descriptor = os.open(path, os.O_RDONLY)
    for offset in itertools.cycle(range(0, os.fstat(descriptor).st_size, 128 << 10)):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.pread(descriptor, 4096, offset)


def commit_on(mount: Path, number: int) -> None:
    """Commit one version after the other, for ever."""
    for turn in itertools.count():
        publish(mount, f"busy-{number}", {"model": os.urandom(MIB), "turn": b"%d" % turn})


@contextlib.contextmanager
def busy(mount: Path, large: Path, readers: int, committers: int) -> Iterator[None]:
    """Have others read and commit meanwhile, each a process of its own."""
    children = [os.fork() for _ in range(1)]
    if children == [0]:
        threads = [threading.Thread(target=read_cold, args=(large,)) for _ in range(readers)]
        threads += [
            threading.Thread(target=commit_on, args=(mount, number)) for number in range(committers)
        ]
        try:
            for thread in threads:
                thread.daemon = True
                thread.start()
            while True:
                time.sleep(1)
        finally:
            os._exit(1)
    try:
        time.sleep(2)
        yield
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def timed(operations: dict[str, Callable[[], object]], seconds: float) -> dict[str, list[float]]:
    """Take turns, one operation at a time, with a pause; return milliseconds of each."""
    found: dict[str, list[float]] = {name: [] for name in operations}
    end = time.monotonic() + seconds
    with contextlib.suppress(StopIteration):
        while time.monotonic() < end:
            for name, operation in operations.items():
                start = time.perf_counter()
                operation()
                found[name].append((time.perf_counter() - start) * 1000)
                time.sleep(0.001)
    return found


def operations(mount: Path, many: Path) -> dict[str, Callable[[], object]]:
    """Return what is timed: requests that reach the daemon each time."""
    looked_up, opened = iter(range(NAMES)), iter(range(NAMES))
    draft = mount / "staging" / "timed"
    draft.mkdir()
    writing = os.open(draft / "growing", os.O_CREAT | os.O_RDWR)
    written, made = itertools.count(), itertools.count()
    status = mount / ".mregfs/status"

    beside = mount.parent / "beside"
    beside.mkdir()

    def make(where: Path) -> None:
        (where / f"{next(made)}").write_bytes(b"x" * 4096)

    return {
        "lookup of a new name": lambda: os.stat(many / f"name-{next(looked_up):05}"),
        "open and read in memory": lambda: (many / f"name-{next(opened):05}").read_bytes(),
        "write into staging": lambda: os.pwrite(writing, b"x" * 4096, 4096 * next(written)),
        "make a file in staging": lambda: make(draft),
        "the same on the disk": lambda: make(beside),
        "alias followed": lambda: os.readlink(many.parent / "latest"),
        "status": status.read_bytes,
    }


def sequence(mount: Path) -> int:
    return int(json.loads((mount / ".mregfs/status").read_bytes())["sequence"])


def table(found: dict[str, list[float]]) -> Iterator[str]:
    yield f"{'':26}{'count':>7}{'p50':>9}{'p99':>9}{'most':>9}   ms"
    for name, times in found.items():
        if len(times) > 1:
            cuts = statistics.quantiles(times, n=100, method="inclusive")
            yield f"{name:26}{len(times):7}{cuts[49]:9.2f}{cuts[98]:9.2f}{max(times):9.2f}"


def main() -> int:
    """Print the figures alone and under load; 1 when one is over the bar."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--readers", type=int, default=48)
    parser.add_argument("--committers", type=int, default=4)
    parser.add_argument(
        "--first", action="store_true", help="before all other processes of a busy host; as root"
    )
    chosen = parser.parse_args()
    if chosen.first:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    top = Path(tempfile.mkdtemp(prefix="mregfs-far-"))
    try:
        with FarMount(top, DELAY) as far:
            mount = far.path
            files = {f"name-{number:05}": b"in memory" for number in range(NAMES)}
            many = publish(mount, "many", files).resolve()
            large = publish(mount, "large", {"model": os.urandom(32 * MIB)}).resolve() / "model"
            with busy(mount, large, chosen.readers, chosen.committers):
                before = sequence(mount)
                found = timed(operations(mount, many), chosen.seconds)
                commits = sequence(mount) - before
            print(
                f"{chosen.readers} threads read what is far away, {chosen.committers} commit "
                f"({commits} commits), {DELAY * 1000:.0f} ms a call of the store"
            )
            print("\n".join(table(found)))
    finally:
        shutil.rmtree(top, ignore_errors=True)
    slow = [
        name
        for name, times in found.items()
        if "disk" not in name and statistics.quantiles(times, n=100, method="inclusive")[98] > BAR
    ]
    print(f"over {BAR} ms at p99: {', '.join(slow) or 'none'}")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
