"""A store far away: each call takes long, no file is here. A dict in the place of a bucket."""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from mregfs.errors import ExistsError, NotFoundError
from mregfs.ports.objects import check_key
from mregfs.ports.packs import check_pack


class _Bucket:
    """Bytes by key; each request takes `delay` seconds."""

    def __init__(self, check: Callable[[str], None], delay: float) -> None:
        self.check, self._delay = check, delay
        self._stored: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def call(self, key: str) -> dict[str, bytes]:
        self.check(key)
        time.sleep(self._delay)
        return self._stored

    def find(self, key: str) -> bytes:
        try:
            return self.call(key)[key]
        except KeyError:
            raise NotFoundError(f"there is no {key!r}") from None

    def add(self, key: str, data: bytes) -> None:
        stored = self.call(key)
        with self._lock:
            if key in stored:
                raise ExistsError(f"{key!r} exists")
            stored[key] = data

    def remove(self, key: str) -> None:
        self.call(key).pop(key, None)

    def names(self) -> list[str]:
        time.sleep(self._delay)
        return sorted(self._stored)


class SleepingObjects:
    def __init__(self, delay: float = 0.3) -> None:
        self._bucket = _Bucket(check_key, delay)
        self.get, self.delete = self._bucket.find, self._bucket.remove

    def exists(self, key: str) -> bool:
        return key in self._bucket.call(key)

    def create(self, key: str, data: bytes) -> None:
        self._bucket.add(key, bytes(data))

    def list(self, prefix: str, start_after: str = "") -> Iterator[str]:
        names = self._bucket.names()
        return (key for key in names if key.startswith(prefix) and key > start_after)


class SleepingPacks:
    def __init__(self, delay: float = 0.3) -> None:
        self._bucket = _Bucket(check_pack, delay)
        self.delete, self.open_local = self._bucket.remove, self._bucket.check

    def open(self, pack: str) -> "SleepingPack":
        self._bucket.check(pack)
        return SleepingPack(self._bucket, pack)

    def size(self, pack: str) -> int:
        return len(self._bucket.find(pack))

    def create(self, pack: str, pieces: Iterable[bytes]) -> int:
        self._bucket.add(pack, data := b"".join(pieces))
        return len(data)

    def adopt(self, pack: str, descriptor: int) -> bool:
        offsets = range(0, os.fstat(descriptor).st_size, 1 << 20)
        self.create(pack, (os.pread(descriptor, 1 << 20, offset) for offset in offsets))
        return False

    def replace(self, pack: str, pieces: Iterable[bytes]) -> None:
        self._bucket.call(pack)[pack] = b"".join(pieces)

    def sync(self, packs: Sequence[str]) -> None:
        for pack in packs:
            self.size(pack)

    def list(self) -> Iterator[str]:
        return iter(self._bucket.names())


class SleepingPack:
    def __init__(self, bucket: _Bucket, pack: str) -> None:
        self._bucket, self._pack, self._is_closed = bucket, pack, False

    @property
    def size(self) -> int:
        return len(self.read(0, 1 << 62))

    def read(self, offset: int, length: int) -> bytes:
        self.backing()
        return self._bucket.find(self._pack)[offset : offset + length]

    def backing(self) -> None:
        if self._is_closed:
            raise ValueError(f"{self._pack} is closed")

    def is_cached(self, offset: int, length: int) -> bool:
        return False

    def stamp(self) -> tuple[int, int]:
        return self.size, 0

    def close(self) -> None:
        self._is_closed = True
