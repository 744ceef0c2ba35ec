"""What depends on the kind of place where a store is: the one thing that a new kind brings along.

Decided here: what a place offers beside objects and packs. Not decided here: how a directory does
so (`holding`), what a host keeps of a store in any place (`host_directories`).
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from mregfs.host.temporary import TemporaryFiles
from mregfs.ports.objects import ObjectStore
from mregfs.ports.packs import PackFile, PackStore
from mregfs.registry.log.description import StoreDescription

__all__ = ["Objects", "Owner", "Place", "Verity"]


class Owner(NamedTuple):
    """Whose a store is."""

    uid: int
    gid: int


class Objects(ObjectStore, Protocol):
    """The objects of a store, of which some may have to be exchanged (`registry.keep.repair`)."""

    def replace(self, key: str, data: bytes) -> None:
        """Put an object in the place of a damaged or missing one, durably; that one is kept."""
        ...

    def set_aside(self, key: str) -> None:
        """Take a damaged object away; it is kept."""
        ...


class Verity(Protocol):
    """What lets the kernel verify packs that are files of this host."""

    @property
    def why_not(self) -> str:
        """Why it does not; empty when it does."""
        ...

    def enable(self, pack: PackFile) -> bool:
        """Let it verify a pack from now on; False: it does not."""
        ...


class Place(Protocol):
    """A store that this user may act on, where it is."""

    @property
    def description(self) -> StoreDescription:
        """What it says of itself."""
        ...

    @property
    def objects(self) -> Objects:
        """Its objects; some of them may have to be replaced."""
        ...

    @property
    def packs(self) -> PackStore:
        """Its packs."""
        ...

    @property
    def verity(self) -> Verity:
        """What guards packs that are files of this host."""
        ...

    @property
    def is_own(self) -> bool:
        """Whether its owner is this user; others only read."""
        ...

    @property
    def writable(self) -> bool:
        """Whether this user may write in it."""
        ...

    @property
    def owner(self) -> Owner:
        """Whose it is."""
        ...

    def free_bytes(self) -> int | None:
        """Return how many bytes more it takes; None: nobody knows."""
        ...

    def give_room(self) -> bool:
        """Give up the room that is kept for deleting; False when there is none."""
        ...

    def expect_appends(self) -> None:
        """Make ready for many log entries."""
        ...

    def do_housekeeping(self, *, writing: bool) -> None:
        """Do what is due now and then; with `writing` also what changes the store."""
        ...

    def close_to_others(self) -> None:
        """Let nobody but the owner in, past the mounts.

        Raises:
            ForbiddenError: this user may not.
        """
        ...

    @property
    def temporary(self) -> Sequence[TemporaryFiles]:
        """The temporary files of its adapters, where those are files of this host."""
        ...

    def close(self) -> None:
        """Let go of it; calling it again does nothing."""
        ...
