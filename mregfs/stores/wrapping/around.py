"""Objects and packs, every call of which goes through one place.

Decided here: what is a call on the medium, and how a call that is repeated goes on: a listing after
its last key, a creation by what is there. Not decided here: what is done with calls (`Through` and
its kinds).

What waits for no medium is no call: opening and reading a file of this host, closing, `is_cached`.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import dropwhile, islice
from typing import TypeVar

import msgspec

from mregfs.errors import ExistsError, NotFoundError, UnavailableError
from mregfs.ports.objects import ObjectStore
from mregfs.ports.packs import PackFile, PackStore

__all__ = ["Call", "ObjectsAround", "PacksAround", "Through"]

_BATCH = 1000  # keys that one call of a listing gives, as object stores have it

_T = TypeVar("_T")


class Call(msgspec.Struct, frozen=True):
    """One call on the medium."""

    method: str
    """Of the port."""
    name: str
    """Of the object or pack; of a listing, its prefix."""
    once: bool = False
    """It cannot be made a second time: what it stores can be read only once."""


class Through:
    """Lets calls through as they are; the kinds of it do more."""

    def run(self, call: Call, function: Callable[[], _T]) -> _T:
        """Make a call."""
        return function()

    def pass_bytes(self, call: Call, count: int) -> None:
        """Take notice of bytes that go to the medium, before, or come from it, after."""


class ObjectsAround:
    """An object store whose calls go through `through` (`ports.ObjectStore`)."""

    def __init__(self, inner: ObjectStore, through: Through) -> None:
        self._inner = inner
        self._through = through

    def get(self, key: str) -> bytes:
        """Return the whole object."""
        call = Call("get", key)
        data = self._through.run(call, lambda: self._inner.get(key))
        self._through.pass_bytes(call, len(data))
        return data

    def exists(self, key: str) -> bool:
        """Tell whether `key` exists."""
        return self._through.run(Call("exists", key), lambda: self._inner.exists(key))

    def create(self, key: str, data: bytes) -> None:
        """Store `data` under `key` only if it does not exist.

        When an attempt that failed had stored the data all the same, it is found there: equal data
        under one key are one creation. A log entry has a random id in it.
        """

        def is_done() -> bool:
            try:
                return self._inner.get(key) == data
            except NotFoundError:
                return False

        call = Call("create", key)
        self._through.pass_bytes(call, len(data))
        create = _repeatable(lambda: self._inner.create(key, data), is_done, None)
        self._through.run(call, create)

    def list(self, prefix: str, start_after: str = "") -> Iterator[str]:
        """Yield the keys that begin with `prefix` and sort after `start_after`, sorted."""
        call = Call("list", prefix)
        batches = _Batches(lambda last: self._inner.list(prefix, last), start_after)
        while not batches.ended:
            yield from self._through.run(call, batches.next)

    def delete(self, key: str) -> None:
        """Remove `key`; a missing key is not an error."""
        self._through.run(Call("delete", key), lambda: self._inner.delete(key))


class PacksAround:
    """A pack store whose calls go through `through` (`ports.PackStore`)."""

    def __init__(self, inner: PackStore, through: Through) -> None:
        self._inner = inner
        self._through = through

    def open(self, pack: str) -> PackFile:
        """Open a pack for reading."""
        opened = self._through.run(Call("open", pack), lambda: self._inner.open(pack))
        return _PackFileAround(opened, pack, self._through)

    def open_local(self, pack: str) -> PackFile | None:
        """Open a pack that is a file of this host, without waiting; None: it is none."""
        return self._inner.open_local(pack)

    def size(self, pack: str) -> int:
        """Return the pack's size in bytes."""
        return self._through.run(Call("size", pack), lambda: self._inner.size(pack))

    def create(self, pack: str, pieces: Iterable[bytes]) -> int:
        """Make a new pack of `pieces`, and return its size; never repeated, as they are read once.

        An adapter that sends in parts repeats a part by itself.
        """
        call = Call("create", pack, once=True)
        counted = self._counted(call, pieces)
        return self._through.run(call, lambda: self._inner.create(pack, counted))

    def adopt(self, pack: str, descriptor: int) -> bool:
        """Make a new pack of a whole file of this host.

        Ids are unique: a pack of its size that is there after an attempt which failed is this one.
        """
        size = os.fstat(descriptor).st_size

        def is_done() -> bool:
            return self._inner.size(pack) == size

        call = Call("adopt", pack)
        self._through.pass_bytes(call, size)
        # What had no answer was sent and not linked: the file is not the pack.
        adopt = _repeatable(lambda: self._inner.adopt(pack, descriptor), is_done, False)
        return self._through.run(call, adopt)

    def replace(self, pack: str, pieces: Iterable[bytes]) -> None:
        """Put a pack with these bytes in the place of one; never repeated, as `create` is not."""
        call = Call("replace", pack, once=True)
        counted = self._counted(call, pieces)
        self._through.run(call, lambda: self._inner.replace(pack, counted))

    def sync(self, packs: Sequence[str]) -> None:
        """Make packs durable."""
        self._through.run(Call("sync", " ".join(packs)), lambda: self._inner.sync(packs))

    def delete(self, pack: str) -> None:
        """Remove a pack; a missing one is not an error."""
        self._through.run(Call("delete", pack), lambda: self._inner.delete(pack))

    def list(self) -> Iterator[str]:
        """Yield the ids of all packs, sorted."""

        def behind(last: str) -> Iterator[str]:
            return dropwhile(lambda pack: pack <= last, self._inner.list())

        call = Call("list", "")
        batches = _Batches(behind, "")
        while not batches.ended:
            yield from self._through.run(call, batches.next)

    def _counted(self, call: Call, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self._through.pass_bytes(call, len(piece))
            yield piece


class _PackFileAround:
    """An open pack whose reads go through `through` (`ports.PackFile`)."""

    def __init__(self, inner: PackFile, pack: str, through: Through) -> None:
        self._inner = inner
        self._pack = pack
        self._through = through

    @property
    def size(self) -> int:
        return self._through.run(Call("size", self._pack), lambda: self._inner.size)

    def backing(self) -> int | None:
        return self._inner.backing()

    def read(self, offset: int, length: int) -> bytes:
        call = Call("read", self._pack)
        data = self._through.run(call, lambda: self._inner.read(offset, length))
        self._through.pass_bytes(call, len(data))
        return data

    def is_cached(self, offset: int, length: int) -> bool:
        return self._inner.is_cached(offset, length)

    def stamp(self) -> tuple[int, int]:
        return self._inner.stamp()

    def close(self) -> None:
        self._inner.close()


def _repeatable(
    create: Callable[[], _T], is_done: Callable[[], bool], done: _T
) -> Callable[[], _T]:
    """Return a creation that may be tried again after it had no answer.

    Args:
        create: one attempt.
        is_done: asked when a later one finds the name taken: whether an earlier one did that.
        done: what is answered then.
    """
    in_doubt = False

    def attempt() -> _T:
        nonlocal in_doubt
        try:
            return create()
        except UnavailableError:
            in_doubt = True
            raise
        except ExistsError:
            if not in_doubt or not is_done():
                raise
            return done

    return attempt


class _Batches:
    """A listing in pieces, which begins anew behind its last key when a piece has failed.

    Args:
        begin: lists what sorts after a key.
        start_after: the first such key.
    """

    def __init__(self, begin: Callable[[str], Iterator[str]], start_after: str) -> None:
        self._begin = begin
        self._last = start_after
        self._keys: Iterator[str] | None = None
        self.ended = False

    def next(self) -> Sequence[str]:
        """Return the next keys, and note whether they are the last ones."""
        if self._keys is None:
            self._keys = self._begin(self._last)
        try:
            batch = list(islice(self._keys, _BATCH))
        except BaseException:
            self._keys = None
            raise
        self.ended = len(batch) < _BATCH
        if batch:
            self._last = batch[-1]
        return batch
