"""The chart of a run, as SVG: how far above each bar, and the places side by side."""

import math
from collections.abc import Iterable
from html import escape

from tests.bench.figures import NATIVE, Verdict
from tests.bench.report import COMPARED, Result, number

__all__ = ["draw"]

WIDTH = 1120
TIMES = "\N{MULTIPLICATION SIGN}"
_LABEL = 330
_ROW = 20
_COLOURS = {
    "native": "#8a8f98",
    "mregfs": "#0b6e4f",
    "mregfs, cached path": "#41a67e",
    "mregfs, deduplicated": "#9ad3b8",
    "squashfuse": "#c8553d",
    "kernel EROFS": "#3d6fc8",
    "kernel squashfs": "#7d9fe0",
    "rclone mount": "#b07aa1",
    "borg mount": "#d9a441",
}
_MET, _FAILED = "#0b6e4f", "#c0392b"


def draw(result: Result) -> str:
    """Return the chart as an SVG document."""
    top = 40
    parts = [_text(20, 26, "How fast mregfs is", size=18, weight="bold")]
    bars, top = _bars(result.verdicts, top)
    parts += bars
    panels, top = _panels(result, top + 20)
    parts += panels
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" '
        f'width="{WIDTH}" height="{top}" font-family="system-ui, sans-serif" font-size="12">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _bars(verdicts: Iterable[Verdict], top: int) -> tuple[list[str], int]:
    """Draw one line a bar, on a logarithmic scale: right of the middle is met."""
    left, right = _LABEL + 10, WIDTH - 190
    middle = (left + right) / 2
    parts = [_text(20, top + 14, "Bars: the line in the middle is the bar", weight="bold")]
    first = top + 24
    y = first
    for verdict in verdicts:
        parts.append(_text(_LABEL, y + 14, verdict.bar.title, anchor="end"))
        score = verdict.score
        if score is None:
            parts.append(_text(middle + 6, y + 14, "not measured", fill=_FAILED))
        else:
            position = middle + (right - middle) * _clamp(math.log10(max(score, 1e-9)), -1, 1)
            start, end = sorted((middle, position))
            colour = _MET if verdict.met else _FAILED
            parts.append(_rect(start, y + 3, max(end - start, 2), _ROW - 6, colour))
            unit = verdict.bar.unit
            value = f"{number(verdict.value)}{' ' + unit if unit else ''} ({verdict.bar.text()})"
            parts.append(_text(right + 8, y + 14, value, fill=colour))
        y += _ROW
    parts.append(_line(middle, first, middle, y, "#333"))
    for factor in (0.1, 0.2, 0.5, 1, 2, 5, 10):
        x = middle + (right - middle) * math.log10(factor)
        parts.append(_line(x, first, x, y, "#ddd"))
        parts.append(_text(x, y + 14, f"{factor:g}{TIMES}", anchor="middle", fill="#666"))
    return parts, y + 30


def _panels(result: Result, top: int) -> tuple[list[str], int]:
    """Draw one panel a figure: the places side by side, as ratios to native, logarithmic."""
    series = {each.key: each for each in result.series}
    shown = [series[key] for key in COMPARED if key in series and series[key].values]
    if not shown:
        return [], top
    parts = [_text(20, top + 14, "Side by side", weight="bold")]
    top += 30
    columns = 3
    width = (WIDTH - 40) / columns
    height = 0.0
    for index, figure in enumerate(shown):
        if index % columns == 0 and index:
            top += int(height)
            height = 0
        x = 20 + width * (index % columns)
        better = "" if figure.higher_is_better else " (less is better)"
        parts.append(_text(x, top + 12, f"{figure.title}, {figure.unit}{better}", weight="bold"))
        medians = {
            name: value for name in result.places if (value := figure.median(name)) is not None
        }
        most = max(medians.values(), default=1) or 1
        y = top + 20
        for name, value in medians.items():
            parts.append(_text(x + 118, y + 13, name, anchor="end", size=11))
            length = max(1.0, value / most * (width - 265))
            parts.append(_rect(x + 124, y + 3, length, 12, _COLOURS.get(name, "#555")))
            ratio = figure.ratio(name, NATIVE) if name != NATIVE else None
            beside = f"   {ratio:.2f}{TIMES} native" if ratio is not None else ""
            label = f"{number(value)}{beside}"
            parts.append(_text(x + 128 + length, y + 13, label, size=11, fill="#333"))
            y += 17
        height = max(height, y - top + 16)
    return parts, int(top + height)


def _clamp(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def _text(
    x: float,
    y: float,
    words: str,
    *,
    anchor: str = "start",
    size: int = 12,
    weight: str = "normal",
    fill: str = "#111",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'font-weight="{weight}" fill="{fill}">{escape(words)}</text>'
    )


def _rect(x: float, y: float, width: float, height: float, fill: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{fill}"/>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'
