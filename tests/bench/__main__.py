"""`python -m tests.bench`: how fast mregfs is, as ratios to the disk and to its peers.

Decided here: the order of the studies, what a run leaves behind, the exit code (1 when a bar is not
met, unless --report-only). What the report means is said in `bench.md`.
"""

import argparse
import contextlib
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench import chart, report
from tests.bench.bars import BARS
from tests.bench.bench import Bench
from tests.bench.figures import judge
from tests.bench.files import (
    checkpoint,
    layers_tuned,
    write_pt,
    write_safetensors,
    write_small_files,
)
from tests.bench.machine import Load, describe_machine
from tests.bench.page_cache import warm
from tests.bench.peers import peers
from tests.bench.places import CHECKPOINT, PT, Native, Place, UnavailableError
from tests.bench.registry_mount import (
    CACHED,
    DEDUPLICATED,
    MREGFS,
    TRUSTED,
    Published,
    Store,
)
from tests.bench.studies.aliases import measure_aliases
from tests.bench.studies.answering import measure_answering
from tests.bench.studies.cold import measure_cold
from tests.bench.studies.committing import measure_committing
from tests.bench.studies.metadata import measure_metadata
from tests.bench.studies.reading import measure_reading
from tests.bench.studies.scale import measure_scale
from tests.bench.studies.sharing import measure_sharing
from tests.bench.studies.writing import measure_writing

OUT = Path(__file__).parent / "out"

STUDIES: dict[str, Callable[[Bench], None]] = {
    "reading": measure_reading,
    "cold": measure_cold,
    "metadata": measure_metadata,
    "writing": measure_writing,
    "committing": measure_committing,
    "sharing": measure_sharing,
    "aliases": measure_aliases,
    "answering": measure_answering,
    "scale": measure_scale,
}
USE_PLACES = frozenset(("reading", "cold", "metadata"))


def main() -> int:
    """Run the bench, write the report, and return the exit code."""
    options = _options()
    OUT.mkdir(exist_ok=True)
    work = fresh_directory(options.work)
    started = time.time()
    machine = describe_machine(work)
    load = Load()
    bench = Bench(work, options.size, options.rounds, _say)
    failures: dict[str, str] = {}
    try:
        _make_files(bench)
        if USE_PLACES & set(options.only):
            _prepare_places(bench, options.without)
        for name in options.only:
            try:
                STUDIES[name](bench)
            except Exception as exc:  # noqa: BLE001 - one study that breaks leaves the others
                traceback.print_exc()
                failures[name] = f"{type(exc).__name__}: {exc}"
    finally:
        if options.keep:
            _say(f"the files are in {work}")
        else:
            shutil.rmtree(work, ignore_errors=True)
    machine["load"] = load.describe()
    everything = set(options.only) == set(STUDIES)
    verdicts = [
        judge(bar, bench.series.get(bar.series))
        for bar in BARS
        if everything or bar.series in bench.series
    ]
    result = report.Result(
        machine=machine,
        started=started,
        seconds=time.time() - started,
        size=options.size,
        rounds=options.rounds,
        verdicts=verdicts,
        series=list(bench.series.values()),
        places=bench.details,
        missing=bench.missing,
        failures=failures,
    )
    (OUT / "report.json").write_text(report.as_json(result))
    (OUT / "report.svg").write_text(chart.draw(result))
    text = report.as_markdown(result)
    (OUT / "report.md").write_text(text)
    _say("")
    print(text)
    print(f"also in {OUT}: report.md, report.json, report.svg")
    met = all(verdict.met for verdict in verdicts) and not failures
    return 0 if met or options.report_only else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--size", type=_size, default=_size("1GiB"), help="of the checkpoint")
    parser.add_argument("--rounds", type=_rounds, default=7, help="of each measurement")
    parser.add_argument(
        "--only", type=_names, default=list(STUDIES), help=f"some of: {','.join(STUDIES)}"
    )
    parser.add_argument(
        "--without", action="append", default=[], help="a place to leave out; may be repeated"
    )
    parser.add_argument("--report-only", action="store_true", help="exit 0 even if a bar fails")
    parser.add_argument(
        "--work",
        type=Path,
        help="make a directory for the files in this one, on the disk to measure",
    )
    parser.add_argument("--keep", action="store_true", help="leave the files there")
    return parser.parse_args()


def fresh_directory(place: Path | None) -> Path:
    """Make an empty directory in `place`, where nothing is touched; None: in the bench's own.

    In its own, what a run that was killed has left is taken away first.
    """
    if place is None:
        place = OUT / "work"
        shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix="mregfs-bench-", dir=place))
    made.chmod(0o755)
    return made


def _rounds(text: str) -> int:
    if not re.fullmatch("[1-9][0-9]{0,5}", text):
        raise argparse.ArgumentTypeError("there is at least one round")
    return int(text)


def _size(text: str) -> int:
    found = re.fullmatch(r"(\d+)\s*(MiB|GiB)", text)
    if not found:
        raise argparse.ArgumentTypeError("a size is a number and MiB or GiB")
    return int(found[1]) << (20 if found[2] == "MiB" else 30)


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(STUDIES):
        raise argparse.ArgumentTypeError(f"no such study: {', '.join(sorted(unknown))}")
    return names


def _say(text: str) -> None:
    """Tell on the terminal what is being done, over and over on the same line."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


def _make_files(bench: Bench) -> None:
    """Write the tree: a checkpoint, a `.pt` file a quarter as large, 2000 small files."""
    bench.say("making the files")
    bench.tree.mkdir(parents=True)
    write_safetensors(bench.tree / CHECKPOINT, checkpoint(bench.size))
    bench.size = (bench.tree / CHECKPOINT).stat().st_size
    write_pt(checkpoint(bench.size // 4, seed=9), bench.tree / PT)
    bench.small = write_small_files(bench.tree)


def _prepare_places(bench: Bench, without: list[str]) -> None:
    """Publish, pack and archive the tree everywhere; note what cannot be had."""
    wanted: list[Place] = [*_published(bench), *peers(bench.directory / "peers")]
    bench.details[Native.name] = Native(bench.tree).details()
    names = [place.name for place in wanted]
    if unknown := set(without).difference(names):
        sys.exit(f"no such place: {', '.join(sorted(unknown))}; there are: {'; '.join(names)}")
    for place in wanted:
        if place.name in without:
            bench.missing[place.name] = "left out of this run"
            continue
        bench.say(f"preparing {place.name}")
        try:
            place.prepare(bench.tree)
            with place.mounted() as top:
                warm([top / CHECKPOINT])
        except (UnavailableError, OSError) as exc:
            bench.missing[place.name] = str(exc)
        else:
            bench.places.append(place)
            bench.details[place.name] = place.details()


def _published(bench: Bench) -> Iterator[Place]:
    """Publish the tree, and then its checkpoint with a part of its layers trained anew."""
    bench.say("publishing")
    store = Store(bench.directory / "registry")
    try:
        store.init()
        with store.mounted() as mount:
            mount.publish(bench.tree, "llm")
            tuned = bench.scratch("tuned")
            write_safetensors(tuned / CHECKPOINT, layers_tuned(checkpoint(bench.size)))
            mount.publish(tuned, "llm")
            shutil.rmtree(tuned)
    except (UnavailableError, OSError) as exc:
        bench.missing |= dict.fromkeys((MREGFS, CACHED, DEDUPLICATED, TRUSTED), str(exc))
        return
    yield Published(MREGFS, store, "artifacts/llm/v0")
    yield Published(CACHED, store, "artifacts/llm/v0", passthrough=False)
    yield Published(DEDUPLICATED, store, "artifacts/llm/v1")
    yield Published(TRUSTED, store, "artifacts/llm/v0", passthrough=False, verify="commit")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
