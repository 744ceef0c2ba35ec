"""The contracts of packs: the bytes of files.

Decided here: what an adapter promises (`tests/contracts/pack_store.py`), and what an id is. Not
decided here: how (`stores.packs_dir`), where packs are, or what is in one (`model.layout`).
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from mregfs.errors import InvalidError

__all__ = ["PACK_ID", "PackFile", "PackScanner", "PackStore", "check_pack"]

PACK_ID = re.compile(r"[0-9a-f]{32}")


def check_pack(pack: str) -> None:
    """Refuse what is no id of a pack.

    Raises:
        InvalidError: it is none.
    """
    if PACK_ID.fullmatch(pack) is None:
        raise InvalidError(f"{pack!r} is not the id of a pack")


class PackFile(Protocol):
    """One pack, open for reading. Close it when done; safe to use from several threads."""

    @property
    def size(self) -> int:
        """The pack's size in bytes; may take a call on the medium, see `PackStore.open`."""
        ...

    def backing(self) -> int | None:
        """Return the descriptor of a file of this host with just these bytes, or None.

        It is valid until `close`. The kernel may read it by itself, and so may whoever copies it.
        """
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes at `offset`; shorter only at the end of the pack.

        Raises:
            NotFoundError: there is no such pack, see `PackStore.open`.
            UnavailableError: the medium gave no answer; it may later.
            HostError: the medium failed.
        """
        ...

    def is_cached(self, offset: int, length: int) -> bool:
        """Tell whether `read` of these bytes would not wait for the medium.

        A guess, in microseconds; never True for bytes beyond the pack's end.
        """
        ...

    def stamp(self) -> tuple[int, int]:
        """Return what changes when somebody writes the backing file: its size, and a time in ns.

        Asked only of a pack that has one.
        """
        ...

    def close(self) -> None:
        """Release what the pack takes; calling it again does nothing.

        Using it afterwards is a ValueError.
        """
        ...


class PackStore(Protocol):
    """Immutable data objects with unique, never reused ids (32 lowercase hexadecimal digits).

    Only the adapter knows where they are. Every method that takes an id passes it to `check_pack`.
    A medium that does not answer is an UnavailableError: what was asked may have been done or not,
    and may be asked again.
    """

    def open(self, pack: str) -> PackFile:
        """Open a pack for reading. An adapter that would have to ask its medium need not.

        Raises:
            NotFoundError: there is no such pack; said here, or by the first `read` or `size`.
        """
        ...

    def open_local(self, pack: str) -> PackFile | None:
        """Open a pack that is a file of this host, without waiting; None: it is none.

        The one method that an event loop may call, and what it opened has a `backing`.

        Raises:
            NotFoundError: there is no such pack, where packs are files of this host.
        """
        ...

    def size(self, pack: str) -> int:
        """Return the pack's size in bytes.

        Raises:
            NotFoundError: there is no such pack.
        """
        ...

    def create(self, pack: str, pieces: Iterable[bytes]) -> int:
        """Make a new pack of `pieces`, and return its size. Durable after `sync`, not before.

        Nobody sees a pack before all of it is there; when `pieces` raises, there is none.

        Raises:
            ExistsError: the id is taken; its bytes are untouched.
            NoSpaceError: nothing was stored.
        """
        ...

    def adopt(self, pack: str, descriptor: int) -> bool:
        """Make a new pack of a whole file of this host, as `create` does; it stays open, too.

        True: the file itself is the pack from now on, under a name of the store's; nothing was
        copied, and whoever could write the file could write the pack. False: its bytes were copied
        or sent. Its position is neither used nor kept.

        Raises:
            ExistsError: the id is taken; its bytes are untouched.
            NoSpaceError: nothing was stored.
        """
        ...

    def replace(self, pack: str, pieces: Iterable[bytes]) -> None:
        """Put a pack with these bytes in the place of a damaged or missing one, durably.

        Until it is whole the old one is there; who has that open reads it on.

        Raises:
            NoSpaceError: there is no room; nothing changed.
        """
        ...

    def sync(self, packs: Sequence[str]) -> None:
        """Make packs that were created or adopted durable; called once per commit.

        Raises:
            NotFoundError: one of them does not exist.
            HostError: the medium failed; none may be taken for durable.
        """
        ...

    def delete(self, pack: str) -> None:
        """Remove a pack; a missing one is not an error.

        Who has one open that is a file of this host reads it on.
        """
        ...

    def list(self) -> Iterator[str]:
        """Yield the ids of all packs, sorted."""
        ...


class PackScanner(Protocol):
    """Reads packs as the medium has them, and leaves the page cache as it is."""

    def read(self, pack: PackFile, offset: int, length: int) -> bytes:
        """Return up to `length` bytes at `offset`; shorter only at the end of the pack.

        Raises:
            HostError: the medium failed.
        """
        ...
