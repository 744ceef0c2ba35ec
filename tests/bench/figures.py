"""What was measured, and what it has to be: series of values, bars, verdicts.

Decided here: that a ratio is the median of the ratios of each round, so that what slows a round
down slows both sides. Not decided here: the bars' numbers (`bars`), how they look (`report`).
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["NATIVE", "Bar", "Series", "Verdict", "judge"]

NATIVE = "native"
"""The subject that the others are compared with: the files on the disk, no mount in between."""


@dataclass
class Series:
    """The values of one figure: per subject (a place, an operation) one value a round."""

    key: str
    title: str
    unit: str
    higher_is_better: bool = True
    values: dict[str, list[float]] = field(default_factory=dict)
    beside: dict[str, list[float]] = field(default_factory=dict)
    """Per subject and round: the native value, measured in turns with the subject's."""
    missing: dict[str, str] = field(default_factory=dict)
    """Why a subject has no values."""
    notes: list[str] = field(default_factory=list)

    def add(self, subject: str, value: float) -> None:
        """Append the value of one round."""
        self.values.setdefault(subject, []).append(value)

    def add_beside(self, subject: str, value: float, native: float) -> None:
        """Append the values of one round: the subject's, and the one measured in turns with it."""
        self.add(subject, value)
        self.beside.setdefault(subject, []).append(native)
        self.add(NATIVE, native)

    def median(self, subject: str) -> float | None:
        """Return the median of a subject, or None when it was not measured."""
        values = self.values.get(subject)
        return statistics.median(values) if values else None

    def references(self, subject: str, reference: str) -> list[float]:
        """Return what a subject is divided by, round by round."""
        beside = self.beside.get(subject) if reference == NATIVE else None
        return beside or self.values.get(reference, [])

    def ratios(self, subject: str, reference: str) -> list[float]:
        """Return subject ÷ reference, round by round."""
        references = self.references(subject, reference)
        pairs = zip(self.values.get(subject, []), references, strict=False)
        return [value / base for value, base in pairs if base]

    def ratio(self, subject: str, reference: str) -> float | None:
        """Return the median of the ratios, or None when there are none."""
        ratios = self.ratios(subject, reference)
        return statistics.median(ratios) if ratios else None


@dataclass(frozen=True)
class Bar:
    """One line of the specification."""

    title: str
    series: str
    subject: str
    reference: str | None
    """What the subject is divided by; None: the value itself has to meet the limit."""
    limit: float
    at_least: bool
    """False: at most."""
    unit: str = ""
    """Of the limit, when it is not a ratio."""

    def text(self) -> str:
        """Return the limit as the report prints it."""
        sign = "≥" if self.at_least else "≤"
        return f"{sign} {self.limit:g}{' ' + self.unit if self.unit else ''}"


@dataclass(frozen=True)
class Verdict:
    """How one bar came out."""

    bar: Bar
    value: float | None
    """The median; None when it was not measured."""
    spread: tuple[float, float] = (0.0, 0.0)
    """The least and the greatest of the rounds."""
    rounds: int = 0
    why: str = ""
    """Why it was not measured."""

    @property
    def met(self) -> bool:
        """Tell whether the bar is met; what was not measured is not."""
        if self.value is None:
            return False
        if self.bar.at_least:
            return self.value >= self.bar.limit
        return self.value <= self.bar.limit

    @property
    def score(self) -> float | None:
        """Return how far above the bar it is: 1 is on it, more is better."""
        if self.value is None:
            return None
        if self.bar.at_least:
            return self.value / self.bar.limit
        return self.bar.limit / self.value if self.value > 0 else float("inf")


def judge(bar: Bar, series: Series | None) -> Verdict:
    """Hold a bar against what was measured."""
    if series is None:
        return Verdict(bar, None, why="not measured in this run")
    values: Sequence[float]
    if bar.reference is None:
        values = series.values.get(bar.subject, [])
    else:
        values = series.ratios(bar.subject, bar.reference)
    if not values:
        names = [name for name in (bar.subject, bar.reference) if name]
        reasons = [series.missing[name] for name in names if name in series.missing]
        return Verdict(bar, None, why="; ".join(reasons) or "not measured in this run")
    return Verdict(bar, statistics.median(values), (min(values), max(values)), len(values))
