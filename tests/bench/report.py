"""The report: a table of the bars, a table of the places side by side, and the same as JSON."""

import json
import math
import statistics
import time
from dataclasses import asdict, dataclass

from tests.bench.figures import NATIVE, Series, Verdict

__all__ = ["Result", "as_json", "as_markdown", "number"]

COMPARED = (
    "first_read",
    "second_read",
    "pt_read",
    "cold_read",
    "tensors",
    "random_read",
    "open_close",
    "stat_cold",
    "walk_cold",
    "stat_warm",
    "page_cache",
)
"""The figures that every place has: the table of peers, and the chart."""


@dataclass
class Result:
    """Everything that a run found out."""

    machine: dict[str, str]
    started: float
    seconds: float
    size: int
    rounds: int
    verdicts: list[Verdict]
    series: list[Series]
    places: dict[str, str]
    missing: dict[str, str]
    failures: dict[str, str]


def number(value: float | None) -> str:
    """Return a value with as many digits as it deserves."""
    if value is None:
        return "-"
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}".replace(",", " ")
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 4)}f}"


def as_markdown(result: Result) -> str:
    """Return the report for people."""
    failed = [verdict for verdict in result.verdicts if not verdict.met]
    measured = [verdict for verdict in failed if verdict.value is not None]
    lines = ["# How fast mregfs is", ""]
    if not failed:
        lines.append(f"All {len(result.verdicts)} bars are met.")
    else:
        lines.append(
            f"**{len(measured)} of {len(result.verdicts)} bars fail"
            f"{f', {len(failed) - len(measured)} were not measured' * (failed != measured)}:**"
        )
        lines += ["", *(f"- {_sentence(verdict)}" for verdict in failed)]
    lines += ["", "## Bars", "", *_bars(result)]
    lines += ["", "## Side by side", "", *_places(result)]
    lines += ["", "## Everything else", "", *_others(result)]
    lines += ["", "## The run", "", *_run(result), ""]
    return "\n".join(lines)


def _sentence(verdict: Verdict) -> str:
    if verdict.value is None:
        return f"{verdict.bar.title}: {verdict.why}"
    unit = f" {verdict.bar.unit}" if verdict.bar.unit else ""
    return f"{verdict.bar.title}: {number(verdict.value)}{unit}, the bar is {verdict.bar.text()}"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(head, *rows, strict=True)]
    return [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in (head, ["-" * width for width in widths], *rows)
    ]


def _bars(result: Result) -> list[str]:
    by_key = {series.key: series for series in result.series}
    rows = []
    for verdict in result.verdicts:
        bar = verdict.bar
        series = by_key.get(bar.series)
        subject = series.median(bar.subject) if series else None
        reference = None
        if series and bar.reference:
            references = series.references(bar.subject, bar.reference)
            reference = statistics.median(references) if references else None
        unit = series.unit if series else ""
        low, high = verdict.spread
        rows.append(
            [
                bar.title,
                f"{number(subject)} {unit}" if subject is not None else "-",
                f"{number(reference)} {unit}" if reference is not None else "",
                number(verdict.value),
                f"{number(low)} … {number(high)}" if verdict.rounds > 1 else "",
                bar.text(),
                "not measured" if verdict.value is None else "met" if verdict.met else "**FAILS**",
            ]
        )
    return _table(["figure", "mregfs", "reference", "value", "rounds", "bar", ""], rows)


def _places(result: Result) -> list[str]:
    by_key = {series.key: series for series in result.series}
    names = list(result.places)
    rows = []
    for key in COMPARED:
        series = by_key.get(key)
        if series is None:
            continue
        row = [f"{series.title}, {series.unit}"]
        for name in names:
            ratio = series.ratio(name, NATIVE)
            cell = number(series.median(name))
            if ratio is not None and name != NATIVE:
                cell += f" ({ratio:.2f})"
            row.append(cell)
        rows.append(row)
    if not rows:
        return ["None of these were measured."]
    lines = _table(["", *names], rows)
    lines += ["", "In parentheses: the ratio to native. Each is a median over the rounds.", ""]
    lines += [f"- {name}: {details}" for name, details in result.places.items() if details]
    lines += [f"- {name} is missing: {why}" for name, why in result.missing.items()]
    return lines


def _others(result: Result) -> list[str]:
    rows = []
    for series in result.series:
        if series.key in COMPARED:
            continue
        for name, values in series.values.items():
            spread = f"{number(min(values))} … {number(max(values))}" if len(values) > 1 else ""
            rows.append(
                [f"{series.title}", name, f"{number(series.median(name))} {series.unit}", spread]
            )
    return _table(["figure", "of", "median", "rounds"], rows) if rows else ["Nothing."]


def _run(result: Result) -> list[str]:
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(result.started))
    lines = [f"- {when}, {result.seconds / 60:.1f} minutes, {result.rounds} interleaved rounds"]
    lines += [f"- checkpoint: {result.size / 2**20:.0f} MiB"]
    lines += [f"- {name}: {value}" for name, value in result.machine.items()]
    lines += [f"- **{name} broke off: {why}**" for name, why in result.failures.items()]
    lines += [f"- {series.title}: {note}" for series in result.series for note in series.notes]
    return lines


def as_json(result: Result) -> str:
    """Return the report for programs: all values of all rounds, and the verdicts."""
    return json.dumps(
        {
            "machine": result.machine,
            "started": result.started,
            "seconds": result.seconds,
            "checkpoint_bytes": result.size,
            "rounds": result.rounds,
            "bars": [
                {
                    **asdict(verdict.bar),
                    "value": verdict.value,
                    "spread": verdict.spread,
                    "met": verdict.met,
                    "why": verdict.why,
                }
                for verdict in result.verdicts
            ],
            "series": [asdict(series) for series in result.series],
            "places": result.places,
            "missing": result.missing,
            "failures": result.failures,
        },
        indent=1,
        allow_nan=False,
    )
