"""One run of the bench: where its files are, what is compared, what came out so far.

Decided here: how rounds interleave. Not decided here: what is measured (`studies`).
"""

import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tests.bench.figures import Series
from tests.bench.places import Place

__all__ = ["Bench", "in_turns", "timed"]

T = TypeVar("T")


@dataclass
class Bench:
    """What every study gets."""

    directory: Path
    """Everything the run writes but its report; removed at the end."""
    size: int
    """Bytes of the checkpoint."""
    rounds: int
    say: Callable[[str], None]
    """Tells whoever waits what is being done."""
    tree: Path = field(init=False)
    """The files as they are on the disk."""
    small: list[str] = field(default_factory=list)
    """The paths of the small files, below `tree`."""
    places: list[Place] = field(default_factory=list)
    """What is compared with the native tree."""
    missing: dict[str, str] = field(default_factory=dict)
    """Places that cannot be had here, and why."""
    details: dict[str, str] = field(default_factory=dict)
    """How each place was set up."""
    series: dict[str, Series] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tree = self.directory / "tree"

    def new_series(
        self, key: str, title: str, unit: str, *, higher_is_better: bool = True
    ) -> Series:
        """Begin a figure, and return it."""
        missing = dict(self.missing)
        series = Series(key, title, unit, higher_is_better, missing=missing)
        self.series[key] = series
        return series

    def interleaved(self, subjects: Sequence[T]) -> Iterator[tuple[int, T]]:
        """Yield (round, subject): every subject once a round, beginning with another one each."""
        for number in range(self.rounds):
            turn = number % len(subjects)
            for subject in (*subjects[turn:], *subjects[:turn]):
                yield number, subject

    def scratch(self, name: str) -> Path:
        """Return a new, empty directory."""
        path = self.directory / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path


def timed(action: Callable[[], object]) -> float:
    """Return how many seconds the action takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def in_turns(
    subject: Callable[[], float],
    reference: Callable[[], float],
    *,
    seconds: float = 1.0,
    most: int = 9,
    turn: int = 0,
) -> tuple[float, float]:
    """Return the medians of two measurements, taken in turns: as many as fit in `seconds`.

    At least one of each. This takes out most of what other processes do to short measurements.
    Who is second may find a disk that is tired, so give the number of the round as `turn`: an odd
    one lets the subject begin.
    """
    values: list[tuple[float, float]] = []
    deadline = time.perf_counter() + seconds
    while not values or (len(values) < most and time.perf_counter() < deadline):
        if (len(values) + turn) % 2:
            values.append((subject(), reference()))
        else:
            native = reference()
            values.append((subject(), native))
    subjects, references = zip(*values, strict=True)
    return statistics.median(subjects), statistics.median(references)
