"""This tree and another one, in turns: names in drafts, single requests, or reads and commits.

    python -m tests.bench.bench_trees OTHER [--what names|requests|versions] [--rounds N] [--as UID]
                                      [--own-options -o…] [--other-options -o…]

OTHER is the Python of another tree's environment, say of an older commit's. It is measured twice,
by two mounts, so that one sees by how much it differs from itself: this tree is slower only if it
is slower than both by more than that. Exits with 1 when it is. Names are made by root, or by
another user; then the mounts are for all users. With options of their own, two mounts of one tree
can be compared, as with and without the fast path. On a machine that does something else as well
only the second figure, the processor's time of caller and daemon, says anything.
"""

import argparse
import contextlib
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

TICKS = os.sysconf("SC_CLK_TCK")

OWN, FIRST, SECOND = "this tree", "the other tree", "the other tree again"

NAMES = 400
"""Files a round; a mount answers 3000 to 10 000 such requests a second."""

SMALL_FILES = 500
LARGE = 64
"""MiB of the large file of a version."""

MOVES = 50


class Side(NamedTuple):
    """One of the mounts that take turns."""

    name: str
    mount: Path
    daemon: int


class Took(NamedTuple):
    """What one unit of work cost, in microseconds."""

    wall: float
    processor: float


class Work(NamedTuple):
    """What is measured: done to a mount in a round, by a process of its own."""

    units: int
    do: Callable[[Path, int], None]
    prepare: Callable[[Path, int], None] = lambda mount, number: None
    """Done before, by root, and not measured."""


# ---- names in drafts; in this order: each leaves what the next needs


def _draft(mount: Path, number: int) -> str:
    return f"{mount}/staging/draft-{number}"


def _create(mount: Path, number: int) -> None:
    top = _draft(mount, number)
    for name in range(NAMES):
        os.close(os.open(f"{top}/file-{name}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))


def _stat(mount: Path, number: int) -> None:
    top = _draft(mount, number)
    for name in range(NAMES):
        os.stat(f"{top}/file-{name}")


def _rename(mount: Path, number: int) -> None:
    top = _draft(mount, number)
    for name in range(NAMES):
        os.rename(f"{top}/file-{name}", f"{top}/renamed-{name}")


# ---- versions


def _command(mount: Path, line: str) -> None:
    control = os.open(mount / ".mregfs/control", os.O_WRONLY)
    os.write(control, line.encode() + b"\n")
    os.close(control)


def _write_draft(mount: Path, name: str, *, large: bool, small: bool) -> None:
    top = mount / "staging" / name
    top.mkdir()
    if large:
        with open(top / "model.bin", "wb") as file:
            file.writelines(os.urandom(1 << 20) for _ in range(LARGE))
    if small:
        (top / "small").mkdir()
        for number in range(SMALL_FILES):
            (top / "small" / f"{number}.json").write_bytes(os.urandom(2048))
    os.sync()


def _publish(mount: Path) -> None:
    """Make two versions, and a collection whose alias can move from one to the other."""
    for name in ("first", "second"):
        _write_draft(mount, name, large=True, small=True)
        _command(mount, f"commit {name} bench")
    _command(mount, "mkdir collections/live")
    for version in ("v1", "v0"):
        _command(mount, f"ln -sf artifacts/bench/{version} collections/live/production")


def _read_large(mount: Path, number: int) -> None:
    file = os.open(mount / "collections/live/production/model.bin", os.O_RDONLY)
    while os.read(file, 1 << 20):
        pass
    os.close(file)


def _read_small(mount: Path, number: int) -> None:
    top = mount / "collections/live/production/small"
    for name in range(SMALL_FILES):
        file = os.open(top / f"{name}.json", os.O_RDONLY)
        assert len(os.read(file, 4096)) == 2048
        os.close(file)


def _move(mount: Path, number: int) -> None:
    for move in range(MOVES):
        _command(mount, f"ln -sf artifacts/bench/v{move % 2} collections/live/production")


def _commit_large(mount: Path, number: int) -> None:
    _command(mount, f"commit large-{number} large")


def _commit_small(mount: Path, number: int) -> None:
    _command(mount, f"commit small-{number} small")


# ---- single requests; what the kernel does not remember


ASKED = 400
"""Times that each is asked in a round."""

ALIAS = "collections/live/production"


def _publish_small(mount: Path) -> None:
    _write_draft(mount, "first", large=False, small=True)
    _command(mount, "commit first bench")
    _command(mount, "mkdir collections/live")
    _command(mount, f"ln -sf artifacts/bench/v0 {ALIAS}")


def _look_up(mount: Path, number: int) -> None:
    for name in range(ASKED):
        try:
            os.stat(f"{mount}/artifacts/none-{number}-{name}")
        except FileNotFoundError:
            continue
        raise AssertionError(name)


def _get_attributes(mount: Path, number: int) -> None:
    for _ in range(ASKED):
        os.lstat(mount / ALIAS)


def _read_link(mount: Path, number: int) -> None:
    for _ in range(ASKED):
        os.readlink(mount / ALIAS)


def _open(mount: Path, number: int) -> None:
    for _ in range(ASKED):
        os.close(os.open(mount / "artifacts/bench/v0/small/1.json", os.O_RDONLY))


def _read(mount: Path, number: int) -> None:
    file = os.open(mount / ".mregfs/control", os.O_RDONLY)
    for _ in range(ASKED):
        assert os.pread(file, 4096, 0)
    os.close(file)


def _write(mount: Path, number: int) -> None:
    file = os.open(f"{_draft(mount, number)}/file", os.O_CREAT | os.O_WRONLY, 0o644)
    data = os.urandom(4096)
    for place in range(ASKED):
        os.pwrite(file, data, place * 4096)
    os.close(file)


def _get_xattr(mount: Path, number: int) -> None:
    for _ in range(ASKED):
        os.getxattr(mount / "artifacts/bench/v0", "user.mregfs.digest")


def _list(mount: Path, number: int) -> None:
    for _ in range(ASKED):
        os.listdir(mount / "collections/live")


WORK: dict[str, dict[str, Work]] = {
    "requests": {
        "look up": Work(ASKED, _look_up),
        "stat": Work(ASKED, _get_attributes),
        "readlink": Work(ASKED, _read_link),
        "open, close": Work(ASKED, _open),
        "read 4 KiB": Work(ASKED, _read),
        "write 4 KiB": Work(ASKED, _write),
        "getxattr": Work(ASKED, _get_xattr),
        "list": Work(ASKED, _list),
    },
    "names": {
        "create": Work(NAMES, _create),
        "stat": Work(NAMES, _stat),
        "rename": Work(NAMES, _rename),
    },
    "versions": {
        "read, MiB": Work(LARGE, _read_large),
        "open and read": Work(SMALL_FILES, _read_small),
        "alias move": Work(MOVES, _move),
        "commit, MiB": Work(
            LARGE,
            _commit_large,
            lambda mount, n: _write_draft(mount, f"large-{n}", large=True, small=False),
        ),
        "commit, small file": Work(
            SMALL_FILES,
            _commit_small,
            lambda mount, n: _write_draft(mount, f"small-{n}", large=False, small=True),
        ),
    },
}


PREPARED: dict[str, Callable[[Path], None]] = {
    "names": lambda mount: None,
    "requests": _publish_small,
    "versions": _publish,
}
"""What is made in each mount before."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("other", metavar="OTHER", help="the Python of another tree")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--what", choices=WORK, default="names")
    parser.add_argument("--as", type=int, default=0, dest="uid", metavar="UID")
    parser.add_argument("--own-options", default="", metavar="OPTIONS", help="of mount, for -o")
    parser.add_argument("--other-options", default="", metavar="OPTIONS")
    arguments = parser.parse_args()
    if arguments.rounds < 9:
        parser.error("fewer than 9 rounds tell nothing")
    if arguments.uid and arguments.what != "names":
        parser.error("only names are made by another user")
    place = Path(tempfile.mkdtemp(prefix="mregfs-bench-"))
    place.chmod(0o755)
    sides: list[Side] = []
    try:
        for name, python, options in (
            (OWN, sys.executable, arguments.own_options),
            (FIRST, arguments.other, arguments.other_options),
            (SECOND, arguments.other, arguments.other_options),
        ):
            at = place / name.replace(" ", "-")
            sides.append(_mount(name, python, at, arguments.uid, options))
        for side in sides:
            PREPARED[arguments.what](side.mount)
        times = _measure(WORK[arguments.what], sides, arguments.rounds, arguments.uid)
    finally:
        for side in sides:
            unmount(side.mount)
        shutil.rmtree(place, ignore_errors=True)
    return _report(times, arguments.rounds, arguments.uid)


def _mount(name: str, python: str, place: Path, uid: int, options: str) -> Side:
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
    others += ("-o", options) if options else ()
    run("mount", place / "store", mount, "--log-file", place / "log", *others)
    wait_for(lambda: (mount / ".mregfs/status").exists(), "the mount")
    if uid:  # trees before that verb let everybody make drafts
        run("--store", place / "store", "access", "--writers", "*", check=False)
    status = json.loads((mount / ".mregfs/status").read_text())
    return Side(name, mount, status["pid"])


def _measure(
    works: dict[str, Work], sides: Sequence[Side], rounds: int, uid: int
) -> dict[str, dict[str, list[Took]]]:
    """Return what each kind of work took, by side, for each round but the first."""
    times: dict[str, dict[str, list[Took]]] = {
        work: {side.name: [] for side in sides} for work in works
    }
    for number in range(rounds + 1):
        turn = number % len(sides)
        for side in (*sides[turn:], *sides[:turn]):
            draft = Path(_draft(side.mount, number))
            draft.mkdir()
            os.chown(draft, uid, uid)
            for name, work in works.items():
                work.prepare(side.mount, number)
                took = _as_user(uid, side, work, number)
                if number:  # the first warms all up
                    times[name][side.name].append(took)
            shutil.rmtree(draft)
    return times


def _as_user(uid: int, side: Side, work: Work, number: int) -> Took:
    """Do something in a process of that user's."""
    before = _used_by(side.daemon)
    begun = time.perf_counter()
    child = os.fork()
    if not child:
        code = 1
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            work.do(side.mount, number)
            code = 0
        finally:
            os._exit(code)
    _, status, used = os.wait4(child, 0)
    assert status == 0
    wall = time.perf_counter() - begun
    processor = used.ru_utime + used.ru_stime + _used_by(side.daemon) - before
    return Took(wall / work.units * 1e6, processor / work.units * 1e6)


def _used_by(pid: int) -> float:
    """Return the processor time of a process, in seconds."""
    nanoseconds = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with (
            contextlib.suppress(FileNotFoundError, ProcessLookupError),  # the thread has ended
            open(f"/proc/{pid}/task/{task}/schedstat") as file,
        ):
            nanoseconds += int(file.read().split()[0])
    return nanoseconds / 1e9


def _report(times: dict[str, dict[str, list[Took]]], rounds: int, uid: int) -> int:
    missed = 0
    print(f"{rounds} rounds in turns, as user {uid}")
    print("microseconds a file, request, MiB or move: median (quartiles)")
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
        print(f"{what:30} {name:22} {middle:9.1f}  ({low:.1f} to {high:.1f})")
    own, *others = (statistics.median(values[name]) for name in (OWN, FIRST, SECOND))
    differs = max(abs(others[0] - others[1]), _spread(values[FIRST]), _spread(values[SECOND]))
    slower = own > max(others) + differs
    mean = statistics.mean(others)
    print(
        f"{what:30} {'this ÷ the other':22} {own / mean:8.2f}  the other differs from itself by "
        f"{differs / mean:.0%}: {'SLOWER' if slower else 'not slower'}"
    )
    return slower


def _spread(values: Sequence[float]) -> float:
    """Return half of what lies between the quartiles."""
    low, _, high = statistics.quantiles(values, n=4)
    return (high - low) / 2


if __name__ == "__main__":
    sys.exit(main())
