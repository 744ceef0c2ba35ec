"""The contracts of packs: the bytes of files.

Decided here: what an adapter promises. Not decided here: how (`stores.packs_dir`), or what is in a
pack (`model.layout`).
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

__all__ = ["PackFile", "PackPlaces", "PackScanner", "PackStore"]


class PackFile(Protocol):
    """One pack, open for reading. Close it when done; safe to use from several threads."""

    size: int

    def fileno(self) -> int:
        """Return the descriptor of the local file (for passthrough and pread)."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes at `offset`; shorter only at the end of the pack."""
        ...

    def stamp(self) -> tuple[int, int]:
        """Return size and time of the last change, in ns: a write changes the two."""
        ...

    def close(self) -> None:
        """Release the descriptor."""
        ...


class PackStore(Protocol):
    """Immutable data objects with unique, never reused ids (32 lowercase hexadecimal digits)."""

    def open(self, pack: str) -> PackFile:
        """Open a pack for reading; raises NotFoundError."""
        ...

    def is_cached(self, opened: PackFile, offset: int, length: int) -> bool:
        """Tell whether these bytes of a pack can be read without waiting for the medium.

        A guess, in microseconds; never True for bytes beyond the pack's end.
        """
        ...

    def size(self, pack: str) -> int:
        """Return the pack's size in bytes; raises NotFoundError."""
        ...

    def create(self, pack: str, pieces: Iterable[bytes]) -> int:
        """Write a new pack from `pieces`, and return its size. Not yet durable: see `sync`."""
        ...

    def sync(self, packs: Sequence[str]) -> None:
        """Make the named packs and their names durable; called once per commit."""
        ...

    def delete(self, pack: str) -> None:
        """Remove a pack; a missing one is not an error."""
        ...

    def list(self) -> Iterator[str]:
        """Yield the ids of all packs."""
        ...


class PackPlaces(Protocol):
    """Where packs stand, for whoever makes packs of files that exist already (`Intake`)."""

    def adopt(self, pack: str, descriptor: int) -> None:
        """Let an open file be a pack too, under a name of its own. Not yet durable: see `sync`.

        Raises:
            ExistsError: the id is taken; what has it is untouched.
            HostError: EXDEV, the file is elsewhere.
        """
        ...

    def holds(self, pack: str, descriptor: int) -> bool:
        """Tell whether a pack is this very file."""
        ...

    def replace(self, pack: str, descriptor: int) -> None:
        """Let another open file, with the same bytes, take the place of a pack, durably."""
        ...

    def delete(self, pack: str) -> None:
        """Remove a pack; a missing one is not an error."""
        ...


class PackScanner(Protocol):
    """Reads packs as the medium has them, and leaves the page cache as it is."""

    def read(self, pack: PackFile, offset: int, length: int) -> bytes:
        """Return up to `length` bytes at `offset`; shorter only at the end of the pack.

        Raises:
            HostError: the medium failed.
        """
        ...
