"""The contract of a host's cache: whole-file copies of files stored in pieces.

Decided here: what an adapter promises. Not decided here: how (`stores.whole_files_dir`), or what is
put into it (`registry.keep.coalesce`).
"""

from collections.abc import Container, Iterable, Mapping
from typing import Protocol

import msgspec

from mregfs.ports.packs import PackFile

__all__ = ["WholeFileDraft", "WholeFiles", "WholeFilesFigures"]


class WholeFilesFigures(msgspec.Struct, frozen=True):
    """How full the cache of whole files is, in bytes and in files."""

    limit: int
    used: int
    """Of complete and of unfinished files; reflinks count as if they took space."""
    files: int
    pinned: int
    """Bytes of files that are exempt from eviction."""


class WholeFileDraft(Protocol):
    """A whole file in the making. Room for it is taken; nobody sees it before `finish`."""

    def append(self, pack: PackFile, offset: int, length: int) -> None:
        """Append a run of bytes of a pack: by reflink where the file system can, else copied.

        Raises:
            NoSpaceError: the disk is full.
            HostError: the disk of the pack, or of the file, failed; it says which.
            CorruptError: the pack is too short.
        """
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Return what `append` put there, to be verified."""
        ...

    def finish(self) -> None:
        """Make the file visible, whole, under its digest; it also survives a power cut whole.

        Raises:
            InvalidError: not all of its bytes were appended.
        """
        ...

    def close(self) -> None:
        """Give it up, unless it is finished."""
        ...


class WholeFiles(Protocol):
    """A bounded cache, on this host, of whole files by digest; shared by all its processes.

    Files that are pinned are exempt from eviction, and count. Everything but the pins can be lost
    without harm.
    """

    def open(self, digest: str) -> PackFile | None:
        """Open a complete file for reading, or return None; counts as a use of it. Never raises."""
        ...

    def create(self, digest: str, size: int, keep: Container[str] = ()) -> WholeFileDraft | None:
        """Begin a file of `size` bytes, and evict what was unused longest to make room for it.

        What is pinned, or in `keep`, is not evicted. None: there is no room, by the limit of the
        cache or on the disk; or it is there already.
        """
        ...

    def pin(self, name: str, digests: Iterable[str]) -> None:
        """Exempt files from eviction, also those that do not exist yet, for the sake of `name`.

        Raises:
            ForbiddenError: the store is not ours to write.
        """
        ...

    def unpin(self, names: Iterable[str]) -> None:
        """Take pins back; unknown names are no error."""
        ...

    def pins(self) -> Mapping[str, frozenset[str]]:
        """Return the pins, by name."""
        ...

    def files(self) -> Mapping[str, int]:
        """Return digest and size of every complete file."""
        ...

    def delete(self, digest: str) -> None:
        """Remove a file; a missing one is no error. Open ones stay readable until closed."""
        ...

    def figures(self) -> WholeFilesFigures:
        """Return how full the cache is."""
        ...
