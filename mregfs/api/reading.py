"""Reading versions out of a store: file objects and exports.

Decided here: which file a path leads to. Not decided here: where bytes are (`content`), how a copy
is written (`wiring.exports`).
"""

import io
from collections.abc import Callable
from typing import BinaryIO

from mregfs.api.stream import Stream
from mregfs.errors import InvalidError
from mregfs.model.records import VersionRecord
from mregfs.registry.read.content import Content
from mregfs.registry.read.files import find_file

__all__ = ["export_version", "open_file"]

_BUFFER = 1 << 20
_MAX_SYMLINKS = 40  # as Linux


def open_file(content: Content, version: VersionRecord, path: str) -> BinaryIO:
    """Open a file of a version, following symlinks.

    Raises:
        NotFoundError: there is no such file.
        InvalidError: it is a directory, or symlinks lead in a circle.
    """
    for _ in range(_MAX_SYMLINKS):
        entry = find_file(content, version, path)
        if entry.kind != "symlink":
            opened = content.open(version, entry.position)
            return io.BufferedReader(Stream(opened, path), _BUFFER)
        path = _joined(path.rpartition("/")[0], entry.target)
    raise InvalidError(f"symlinks lead in a circle at {path!r}")


def export_version(
    content: Content,
    version: VersionRecord,
    destination: str,
    report: Callable[[int], None],
) -> None:
    """Copy a version's files into a new or empty directory; bytes are verified on the way.

    Raises:
        ExistsError: there is something already.
        CorruptError: bytes are not what was committed.
    """
    from mregfs.wiring.exports import open_export

    with open_export(destination) as target:
        for path, entry in content.walk(version):
            if entry.kind == "directory":
                target.add_directory(path)
            elif entry.kind == "symlink":
                target.add_symlink(path, entry.target)
            else:
                with content.open(version, entry.position) as source:
                    target.add_file(path, source, executable=entry.executable)
                report(entry.size)


def _joined(directory: str, target: str) -> str:
    names = [name for name in directory.split("/") if name]
    for name in target.split("/"):
        if name == "..":
            names = names[:-1]
        elif name not in ("", "."):
            names.append(name)
    return "/".join(names)
