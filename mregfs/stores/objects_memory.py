"""An object store in memory: the fake that use cases are tested over.

Decided here: nothing that the port does not say. Not decided here: durability; all is lost with the
process. Tests and throw-away registries may use it; it is held to the same contract tests as the
directory.
"""

import bisect
import threading
from collections.abc import Iterator

from mregfs.errors import ExistsError, NotFoundError
from mregfs.ports.objects import check_key

__all__ = ["ObjectsMemory"]


class ObjectsMemory:
    """Objects in a dict and a sorted list of its keys, under one lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._objects: dict[str, bytes] = {}
        self._keys: list[str] = []

    def get(self, key: str) -> bytes:
        """Return the whole object.

        Raises:
            NotFoundError: no such key.
        """
        check_key(key)
        data = self._objects.get(key)
        if data is None:
            raise NotFoundError(f"there is no object {key!r} in memory")
        return data

    def exists(self, key: str) -> bool:
        """Tell whether `key` exists."""
        check_key(key)
        return key in self._objects

    def create(self, key: str, data: bytes) -> None:
        """Store `data` under `key` only if the key does not exist.

        Raises:
            ExistsError: the key exists; its bytes are untouched.
        """
        check_key(key)
        with self._lock:
            if key in self._objects:
                raise ExistsError(f"object {key!r} exists")
            self._objects[key] = bytes(data)
            bisect.insort(self._keys, key)

    def list(self, prefix: str, start_after: str = "") -> Iterator[str]:
        """Yield the keys that begin with `prefix` and sort after `start_after`, sorted."""
        after = start_after
        key: str | None = None
        if prefix > start_after:
            with self._lock:
                key = self._at(bisect.bisect_left(self._keys, prefix))
        else:
            key = self._next(after)
        while key is not None and key.startswith(prefix):
            yield key
            key = self._next(key)

    def delete(self, key: str) -> None:
        """Remove `key`; a missing key is not an error."""
        check_key(key)
        with self._lock:
            if self._objects.pop(key, None) is not None:
                del self._keys[bisect.bisect_left(self._keys, key)]

    def _next(self, after: str) -> str | None:
        with self._lock:
            return self._at(bisect.bisect_right(self._keys, after))

    def _at(self, position: int) -> str | None:
        return self._keys[position] if position < len(self._keys) else None
