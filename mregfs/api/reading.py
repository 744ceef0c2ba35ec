"""Reading versions from Python: lists of files, file objects, exports.

Decided here: what a file object of a version is. Not decided here: where bytes are (`content`), how
a copy is written (`stores.export_dir`). Only `registry` calls this.
"""

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

from mregfs.errors import InvalidError
from mregfs.model.records import VersionRecord
from mregfs.registry.content import Content, OpenContent
from mregfs.registry.files import FileInfo, files_of, find_file

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["FileInfo", "export_version", "files_of", "open_file"]

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
            return io.BufferedReader(_File(opened, path), _BUFFER)
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
    from mregfs.stores.export_dir import ExportDirectory

    with ExportDirectory(destination) as target:
        for path, entry in content.walk(version):
            if entry.kind == "directory":
                target.add_directory(path)
            elif entry.kind == "symlink":
                target.add_symlink(path, entry.target)
            else:
                with content.open(version, entry.position) as source:
                    target.add_file(path, source, executable=entry.executable)
                report(entry.size)


class _File(io.RawIOBase):
    """A file of a version as a raw, seekable stream."""

    def __init__(self, opened: OpenContent, name: str) -> None:
        self._opened = opened
        self._position = 0
        self.name = name

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._opened.size}
        if base[whence] + offset < 0:
            raise ValueError(f"position {base[whence] + offset} is before the start")
        self._position = base[whence] + offset
        return self._position

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        view = memoryview(buffer).cast("B")
        data = self._opened.read(self._position, len(view))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._opened.close()
        super().close()


def _joined(directory: str, target: str) -> str:
    names = [name for name in directory.split("/") if name]
    for name in target.split("/"):
        if name == "..":
            names = names[:-1]
        elif name not in ("", "."):
            names.append(name)
    return "/".join(names)
