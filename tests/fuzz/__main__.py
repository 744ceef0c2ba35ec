"""Fuzz every target for so many seconds, and print a line for each: `make fuzz SECONDS=60`.

    python -m tests.fuzz SECONDS [TARGET…]

Decided here: how many at a time, where what was learnt is kept (`build/fuzz/corpus`, so that the
next run goes on), what is said. Exits with 1 when anything was found: bytes that are answered
wrongly are in `build/fuzz/found`; put them into `tests/fuzz/found/TARGET` with what mends them.
"""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz.targets import TARGETS, Target

ROOM = Path(__file__).parents[2]
KEPT = Path(__file__).with_name("found")
AT_A_TIME = 2


def fuzz(target: Target, seconds: float, place: Path) -> tuple[bool, str]:
    """Fuzz one target; return whether all was well, and a line about it."""
    name = target.name
    corpus, found = place / "corpus" / name, place / "found" / name
    corpus.mkdir(parents=True, exist_ok=True)
    found.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    kept = KEPT / name
    command = [
        sys.executable,
        "-m",
        "tests.fuzz.one",
        name,
        str(corpus),
        *([str(kept)] if kept.is_dir() else []),
        f"-max_total_time={max(1, round(seconds))}",
        f"-artifact_prefix={found}/",
        "-print_final_stats=1",
    ]
    done = subprocess.run(command, cwd=ROOM, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    (place / f"{name}.log").write_text(said)
    runs = re.findall(r"number_of_executed_units:\s*(\d+)", said)
    covered = re.findall(r"cov: (\d+)", said)
    slowest = re.findall(r"slowest_unit_time_sec:\s*(\d+)", said)
    peak = re.findall(r"peak_rss_mb:\s*(\d+)", said)
    line = (
        f"{name:12} {_last(runs):>9} runs, {_last(covered):>5} branches, "
        f"slowest {_last(slowest)} s, {_last(peak):>4} MB: "
    )
    if done.returncode == 0 and runs:
        return True, line + "nothing found"
    reasons = re.findall(r"^\S*(?:Error|Exception)\b.*$|ERROR: .*$", said, re.MULTILINE)
    reason = reasons[0] if reasons else f"exit code {done.returncode}"
    return False, line + f"FOUND {reason}; see {place / name}.log"


def _last(found: list[str]) -> str:
    return found[-1] if found else "?"


def main() -> int:
    """Fuzz what the command line names, or everything."""
    seconds = float(sys.argv[1])
    names = sys.argv[2:] or list(TARGETS)
    place = ROOM / "build" / "fuzz"
    place.mkdir(parents=True, exist_ok=True)
    print(f"{len(names)} targets, {seconds:g} s each, {AT_A_TIME} at a time", flush=True)
    well = True
    with ThreadPoolExecutor(min(AT_A_TIME, os.cpu_count() or 1)) as pool:
        for good, line in pool.map(lambda name: fuzz(TARGETS[name], seconds, place), names):
            print(line, flush=True)
            well &= good
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
