"""The kernel's table of mounts, mountinfo of proc(5), read as it is written.

Decided here: how a line is taken apart. Not decided here: which mounts matter (`mounts`,
`fuse.mountpoint`, `daemon`, which all call `read`). Imports nothing that a verb would wait for.

A path may hold any byte but NUL, and the kernel escapes only blank, tab, newline and backslash (of
the source `#` as well): so lines end at a newline and fields at a blank, and what else Unicode
calls blank or the end of a line (U+00A0, U+3000, a carriage return, ...) is part of a name. A file
system that escapes nothing in its options can make lines that are none: they are passed over.
"""

import contextlib
import os
import re
from typing import NamedTuple

__all__ = ["Entry", "read"]

_ESCAPE = re.compile(rb"\\([0-7]{3})")


class Entry(NamedTuple):
    """One line of mountinfo."""

    device: str
    """`major:minor`, which names the bdi in /sys/class/bdi."""
    top: str
    """What of the file system is mounted there."""
    path: str
    options: frozenset[str]
    """Of the mount itself, and of the file system."""
    fstype: str
    source: str
    """Whatever who mounted it has said."""
    owner: int | None = None
    """`user_id` of a FUSE file system: the uid of who mounted it, by the kernel's word."""


def read(table: str = "/proc/self/mountinfo") -> list[Entry]:
    """Return all mounts in order: of two on one path, the later is seen.

    Raises:
        OSError: the table cannot be read; that of another process ends with it.
    """
    with open(table, "rb") as file:
        lines = file.read().split(b"\n")
    found = []
    for line in lines:
        with contextlib.suppress(ValueError, IndexError):
            found.append(_entry(line))
    return found


def _entry(line: bytes) -> Entry:
    fields = line.split(b" ")
    dash = fields.index(b"-", 6)
    own, of_file_system = (
        field.decode("ascii", "replace").split(",") for field in (fields[5], fields[dash + 3])
    )
    return Entry(
        device=fields[2].decode("ascii"),
        top=_plain(fields[3]),
        path=_plain(fields[4]),
        options=frozenset((*own, *of_file_system)),
        fstype=_plain(fields[dash + 1]),
        source=_plain(fields[dash + 2]),
        owner=_owner(of_file_system) if fields[dash + 1].startswith(b"fuse") else None,
    )


def _owner(options: list[str]) -> int | None:
    for option in options:
        name, _, value = option.partition("=")
        if name == "user_id" and value.isdecimal():
            return int(value)
    return None


def _plain(field: bytes) -> str:
    """Undo the kernel's octal escapes; bytes that are no UTF-8 stay as `os.fsdecode` has them."""
    if b"\\" in field:
        field = _ESCAPE.sub(lambda found: bytes((int(found[1], 8),)), field)
    return os.fsdecode(field)
