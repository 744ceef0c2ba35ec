"""Names in drafts, by this tree and by another one: create, stat and rename, in turns.

    python -m tests.bench.bench_drafts OTHER [--rounds N] [--as UID]

OTHER is the Python of another tree's environment, say of an older commit's. It is measured twice,
by two mounts, so that one sees by how much it differs from itself: this tree is slower only if it
is slower than both by more than that. Exits with 1 when it is. What is measured is done by root, or
by another user; then the mounts are for all users. On a machine that does something else as well
only the second figure, the processor's time of caller and daemon, says anything.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.bench.places import unmount, wait_for

COUNT = 400
"""Files a round; a mount answers 3000 to 10 000 such requests a second."""

TICKS = os.sysconf("SC_CLK_TCK")

OWN, FIRST, SECOND = "this tree", "the other tree", "the other tree again"


class Side(NamedTuple):
    """One of the mounts that take turns."""

    name: str
    mount: Path
    daemon: int


class Took(NamedTuple):
    """What one file cost, in microseconds."""

    wall: float
    processor: float


Work = Callable[[str], None]


def create(top: str) -> None:
    for number in range(COUNT):
        os.close(os.open(f"{top}/file-{number}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))


def stat(top: str) -> None:
    for number in range(COUNT):
        os.stat(f"{top}/file-{number}")


def rename(top: str) -> None:
    for number in range(COUNT):
        os.rename(f"{top}/file-{number}", f"{top}/renamed-{number}")


WORK: dict[str, Work] = {"create": create, "stat": stat, "rename": rename}
"""In this order: each leaves what the next needs."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("other", metavar="OTHER", help="the Python of another tree")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--as", type=int, default=0, dest="uid", metavar="UID")
    arguments = parser.parse_args()
    if arguments.rounds < 9:
        parser.error("fewer than 9 rounds tell nothing")
    place = Path(tempfile.mkdtemp(prefix="mregfs-bench-"))
    place.chmod(0o755)
    sides: list[Side] = []
    try:
        for name, python in (
            (OWN, sys.executable),
            (FIRST, arguments.other),
            (SECOND, arguments.other),
        ):
            sides.append(_mount(name, python, place / name.replace(" ", "-"), arguments.uid))
        times = _measure(sides, arguments.rounds, arguments.uid)
    finally:
        for side in sides:
            unmount(side.mount)
        shutil.rmtree(place, ignore_errors=True)
    return _report(times, arguments.rounds, arguments.uid)


def _mount(name: str, python: str, place: Path, uid: int) -> Side:
    """Mount a new store in which that user may write."""
    place.mkdir()
    place.chmod(0o755)
    mount = place / "mnt"
    mount.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MREGFS_")}

    def run(*words: str | Path, check: bool = True) -> None:
        command = [python, "-P", "-m", "mregfs", *words]
        subprocess.run(command, env=environment, cwd="/", check=check, capture_output=True)

    run("init", place / "store")
    others = ("--allow-other",) if uid else ()
    run("mount", place / "store", mount, "--log-file", place / "log", *others)
    wait_for(lambda: (mount / ".mregfs/status").exists(), "the mount")
    if uid:  # trees before that verb let everybody make drafts
        run("--store", place / "store", "access", "--writers", "*", check=False)
    status = json.loads((mount / ".mregfs/status").read_text())
    return Side(name, mount, status["pid"])


def _measure(sides: Sequence[Side], rounds: int, uid: int) -> dict[str, dict[str, list[Took]]]:
    """Return what each kind of work took, by side, for each round but the first."""
    times: dict[str, dict[str, list[Took]]] = {
        work: {side.name: [] for side in sides} for work in WORK
    }
    for number in range(rounds + 1):
        turn = number % len(sides)
        for side in (*sides[turn:], *sides[:turn]):
            draft = side.mount / "staging" / f"draft-{number}"
            draft.mkdir()
            os.chown(draft, uid, uid)
            for work in WORK:
                took = _as_user(uid, side, WORK[work], str(draft))
                if number:  # the first warms all up
                    times[work][side.name].append(took)
            shutil.rmtree(draft)
    return times


def _as_user(uid: int, side: Side, work: Work, draft: str) -> Took:
    """Do something in a process of that user's."""
    before = _used_by(side.daemon)
    begun = time.perf_counter()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            work(draft)
        finally:
            os._exit(0)
    _, status, used = os.wait4(child, 0)
    assert status == 0
    wall = time.perf_counter() - begun
    processor = used.ru_utime + used.ru_stime + _used_by(side.daemon) - before
    return Took(wall / COUNT * 1e6, processor / COUNT * 1e6)


def _used_by(pid: int) -> float:
    """Return the processor time of a process, in seconds."""
    nanoseconds = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat") as file:
            nanoseconds += int(file.read().split()[0])
    return nanoseconds / 1e9


def _report(times: dict[str, dict[str, list[Took]]], rounds: int, uid: int) -> int:
    missed = 0
    print(f"{COUNT} files a round, {rounds} rounds in turns, as user {uid}")
    print("microseconds a file: median (quartiles)")
    for figure in Took._fields:
        for work, sides in times.items():
            values = {
                name: [getattr(took, figure) for took in all_of_it]
                for name, all_of_it in sides.items()
            }
            missed += _compare(f"{work}, {figure}", values)
    return 1 if missed else 0


def _compare(what: str, values: dict[str, list[float]]) -> bool:
    """Print the figures of all sides; return whether this tree's is the worst."""
    for name, all_of_it in values.items():
        low, middle, high = statistics.quantiles(all_of_it, n=4)
        print(f"{what:18} {name:22} {middle:8.0f}  ({low:.0f} to {high:.0f})")
    own, *others = (statistics.median(values[name]) for name in (OWN, FIRST, SECOND))
    differs = max(abs(others[0] - others[1]), _spread(values[FIRST]), _spread(values[SECOND]))
    slower = own > max(others) + differs
    mean = statistics.mean(others)
    print(
        f"{what:18} {'this ÷ the other':22} {own / mean:8.2f}  the other differs from itself by "
        f"{differs / mean:.0%}: {'SLOWER' if slower else 'not slower'}"
    )
    return slower


def _spread(values: Sequence[float]) -> float:
    """Return half of what lies between the quartiles."""
    low, _, high = statistics.quantiles(values, n=4)
    return (high - low) / 2


if __name__ == "__main__":
    sys.exit(main())
