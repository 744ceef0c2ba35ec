"""The contract of objects: log entries, checkpoints, manifests, layouts.

Decided here: what an adapter promises. Not decided here: how (`stores.objects_dir`), or which keys
there are (`registry/format.md`).
"""

from collections.abc import Iterator
from typing import Protocol

__all__ = ["ObjectStore"]


class ObjectStore(Protocol):
    """Immutable objects under slash-separated keys; the layout of a store on any medium."""

    def get(self, key: str) -> bytes:
        """Return the whole object.

        Raises:
            NotFoundError: no such key.
        """

    def exists(self, key: str) -> bool:
        """Tell whether `key` exists; as cheap as the medium allows."""

    def create(self, key: str, data: bytes) -> None:
        """Store `data` under `key`, durably, only if it does not exist: exactly one caller wins.

        A reader sees the whole object or none. On return the object survives a power cut.

        Raises:
            ExistsError: the key exists; its bytes are untouched.
            NoSpaceError: nothing was stored.
        """

    def list(self, prefix: str, start_after: str = "") -> Iterator[str]:
        """Yield the keys that begin with `prefix` and sort after `start_after`, sorted."""
        ...

    def delete(self, key: str) -> None:
        """Remove `key`; a missing key is not an error. Log entries are never deleted."""
        ...
