"""What the verbs print: aligned tables for people, JSON for programs.

Decided here: how sizes, times and tables look, and that no control character of a name, reason or
description reaches a terminal. Not decided here: which facts are shown.

Tables are written here and not by rich: importing it costs 70 ms, a third of what a looking verb
may take.
"""

import os
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import click
import msgspec

__all__ = [
    "as_builtins",
    "clean",
    "count",
    "human_size",
    "human_time",
    "print_json",
    "print_json_line",
    "print_pairs",
    "print_table",
    "who",
]

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def human_size(size: int) -> str:
    """Return a size as people read it: `0 B`, `999 B`, `1.5 KiB`, `23 MiB`."""
    value = float(size)
    for unit in _UNITS:
        if value < 999.5 or unit == _UNITS[-1]:
            break
        value /= 1024
    digits = 1 if unit != "B" and value < 9.95 else 0
    return f"{value:.{digits}f} {unit}"


def human_time(at_ns: int) -> str:
    """Return a time in the host's own zone, to the second."""
    return f"{datetime.fromtimestamp(at_ns // 1_000_000_000):%Y-%m-%d %H:%M:%S}"


def count(number: int, one: str, many: str = "") -> str:
    """Return `1 file`, `2 files`."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def clean(text: str) -> str:
    """Return `text` on one line, with what a terminal would act upon written as escapes."""
    if text.isprintable():
        return text
    words = " ".join(text.split())
    return "".join(map(_visible, words))


def _visible(char: str) -> str:
    if char.isprintable():
        return char
    if "\udc80" <= char <= "\udcff":  # a byte of a path that is no UTF-8
        return f"\\x{ord(char) & 0xFF:02x}"
    return char.encode("unicode_escape").decode()


def as_builtins(value: Any) -> Any:
    """Return structs, dates and bytes as what JSON has."""
    return msgspec.to_builtins(value, str_keys=True)


def _json(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(_unicode(as_builtins(value)))


def _unicode(value: Any) -> Any:
    """Return what JSON has, with the bytes of paths that are no UTF-8 written as escapes."""
    if isinstance(value, str):
        return "".join(_visible(char) if "\udc80" <= char <= "\udcff" else char for char in value)
    if isinstance(value, dict):
        return {_unicode(key): _unicode(item) for key, item in value.items()}
    return list(map(_unicode, value)) if isinstance(value, list | tuple) else value


def print_json(value: Any) -> None:
    """Print one JSON document: indented for a terminal, one line otherwise."""
    data = _json(value)
    if sys.stdout.isatty():
        data = msgspec.json.format(data, indent=2)
    click.echo(data.decode())


def print_json_line(value: Any) -> None:
    """Print one JSON document on a line of its own, at once."""
    sys.stdout.write(_json(value).decode() + "\n")
    sys.stdout.flush()


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()
) -> None:
    """Print rows under a heading; the columns named in `right` are aligned to the right.

    On a terminal the last column is cut where the line would wrap.
    """
    lines = [tuple(clean(cell) for cell in row) for row in rows]
    widths = [
        max(len(column), *(len(row[position]) for row in lines)) if lines else len(column)
        for position, column in enumerate(columns)
    ]
    terminal = sys.stdout.isatty()
    room = 0
    if terminal:
        room = max(12, _terminal_width() - sum(widths[:-1]) - 2 * len(widths[1:]))

    def line(cells: Sequence[str]) -> str:
        parts = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for cell, width, column in zip(cells, widths, columns, strict=True)
        ]
        if room and len(cells[-1]) > room:
            parts[-1] = cells[-1][: room - 1] + "…"
        return "  ".join(parts).rstrip()

    heading = line([column.upper() for column in columns])
    text = [click.style(heading, bold=True) if terminal else heading, *map(line, lines)]
    click.echo("\n".join(text))


def _terminal_width() -> int:
    """Return the columns of the terminal; `shutil` would tell, but takes 5 ms to import."""
    said = os.environ.get("COLUMNS", "")
    if said.isdigit() and int(said):
        return int(said)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except OSError:
        return 80


def print_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    """Print `name: value` lines, aligned; a value of several lines keeps them, indented."""
    rows = [(name, value) for name, value in pairs if value]
    if not rows:
        return
    width = max(len(name) for name, _ in rows) + 1
    terminal = sys.stdout.isatty()
    text: list[str] = []
    for name, value in rows:
        label = f"{name}:".ljust(width)
        first, *rest = map(clean, value.split("\n"))
        text.append(f"{click.style(label, bold=True) if terminal else label} {first}")
        text.extend(" " * (width + 1) + line for line in rest)
    click.echo("\n".join(text))


def who(said: str) -> str:
    """Return who readers or writers are, as a person is told."""
    if said == "*":
        return "everybody"
    return f"group {said}" if said else "only the owner"
