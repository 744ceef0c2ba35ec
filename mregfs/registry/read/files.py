"""The files of a version, as one tells them to people and programs.

Decided here: what is said of a file, directory or symlink, and in which order. Not decided here:
where the facts are (`content`).
"""

from collections.abc import Iterator

from mregfs.errors import NotFoundError
from mregfs.model.records import VersionRecord
from mregfs.registry.read.content import Content, FileEntry
from mregfs.registry.read.results import FileInfo

__all__ = ["FileInfo", "file_info", "files_of", "find_file"]


def file_info(path: str, entry: FileEntry) -> FileInfo:
    """Return what is said of an entry that stands at a path."""
    return FileInfo(
        path, entry.kind, entry.size, entry.executable, entry.digest.hex(), entry.target
    )


def find_file(content: Content, version: VersionRecord, path: str) -> FileEntry:
    """Return what is at a path; symlinks are not followed.

    Raises:
        NotFoundError: there is nothing.
    """
    found = content.find_path(version, path)
    if found is None:
        raise NotFoundError(f"v{version.number} has no {path!r}", "list its files: mregfs ls REF")
    return found


def files_of(
    content: Content, version: VersionRecord, path: str, after: str = ""
) -> Iterator[FileInfo]:
    """Yield what is at and below a path, in the manifest's order.

    Args:
        content: of the store.
        version: loaded.
        path: below the version's top; empty: all.
        after: begin behind this path, which was yielded before.

    Raises:
        NotFoundError: there is nothing.
    """
    top = find_file(content, version, path)
    plain = "/".join(name for name in path.split("/") if name not in ("", "."))
    if top.kind != "directory":
        if not after:
            yield file_info(plain, top)
        return
    prefix = f"{plain}/" if plain else ""
    for name, entry in content.walk(version, top.position, after.removeprefix(prefix)):
        yield file_info(prefix + name, entry)
