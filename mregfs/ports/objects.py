"""The contract of objects: log entries, checkpoints, manifests, layouts.

Decided here: what an adapter promises (`tests/contracts/object_store.py`), and what a key is. Not
decided here: how (`stores.objects_dir`), or which keys there are (`registry/format.md`).
"""

import re
from collections.abc import Iterator
from typing import Protocol

from mregfs.errors import InvalidError

__all__ = ["ObjectStore", "check_key"]

_KEY = re.compile(r"(?!tmp(/|$))[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")


def check_key(key: str) -> None:
    """Refuse what is no key of an object.

    A key is components of `A-Za-z0-9_.-` that do not begin with a dot, joined by slashes. The first
    one is not `tmp`, which is the adapter's own.

    Raises:
        InvalidError: it is none.
    """
    if _KEY.fullmatch(key) is None:
        raise InvalidError(f"{key!r} is not a key of an object")


class ObjectStore(Protocol):
    """Immutable objects under slash-separated keys; the layout of a store on any medium.

    Every method that takes a key passes it to `check_key`. A medium that does not answer is an
    UnavailableError: what was asked may have been done or not, and may be asked again.
    """

    def get(self, key: str) -> bytes:
        """Return the whole object.

        Raises:
            NotFoundError: no such key.
        """
        ...

    def exists(self, key: str) -> bool:
        """Tell whether `key` exists; as cheap as the medium allows."""
        ...

    def create(self, key: str, data: bytes) -> None:
        """Store `data` under `key`, durably, only if it does not exist: exactly one caller wins.

        A reader sees the whole object or none. On return the object survives a power cut. A
        medium that lets two callers win is refused (UnsupportedError).

        Raises:
            ExistsError: the key exists; its bytes are untouched.
            NoSpaceError: nothing was stored.
        """
        ...

    def list(self, prefix: str, start_after: str = "") -> Iterator[str]:
        """Yield the keys that begin with `prefix` and sort after `start_after`, sorted as strings.

        What is created or deleted meanwhile may be among them or not; the others are.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove `key`; a missing key is not an error. Log entries are never deleted."""
        ...
