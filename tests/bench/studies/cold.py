"""Reading from the disk: nothing of the file is in the page cache, and afterwards how much is.

All files are taken out of the page cache one by one (posix_fadvise), which is checked.
"""

from pathlib import Path

from tests.bench.bench import Bench, in_turns
from tests.bench.page_cache import chill, resident
from tests.bench.places import CHECKPOINT, Place
from tests.bench.studies.reading import sequential_read

__all__ = ["measure_cold"]


def measure_cold(bench: Bench) -> None:
    """Take the time of one cold read, and the page cache that it filled, for every place.

    Native is the very file that the mount reads, where there is one: other blocks of the disk may
    be faster or slower. Whoever is second may find them in a cache of the disk's own, so they take
    turns, several times. Elsewhere each is read once a round, and the first of them by turns.

    The page cache counted is that of the file as the mount shows it plus that of the backing files:
    a mount that caches what its backing file holds as well takes twice the memory.
    """
    cold = bench.new_series("cold_read", "sequential read from disk, cold", "GB/s")
    memory = bench.new_series(
        "page_cache", "page cache after one read of the file", "MiB", higher_is_better=False
    )
    for number, place in bench.interleaved(bench.places):
        bench.say(f"cold, round {number + 1}: {place.name}")
        chill(place.backing())
        with place.mounted() as top:
            one = _Cold(place, top / CHECKPOINT, place.twin() or bench.tree / CHECKPOINT)
            seconds = 8.0 if place.twin() else 0.0
            values = in_turns(one.read, one.read_natively, seconds=seconds, most=6, turn=number)
        cold.add_beside(place.name, *values)
        memory.add_beside(place.name, one.used, one.used_natively)


class _Cold:
    """The two cold reads of one round."""

    def __init__(self, place: Place, file: Path, native: Path) -> None:
        self._file = file
        self._native = native
        self._backing = place.backing()
        self.used = self.used_natively = 0.0

    def read(self) -> float:
        """Return GB/s through the mount."""
        chill([*self._backing, self._file])
        speed = sequential_read(self._file)
        self.used = sum(resident(path) for path in {self._file, *self._backing}) / 2**20
        return speed

    def read_natively(self) -> float:
        """Return GB/s of the file on the disk."""
        chill([*self._backing, self._native])
        speed = sequential_read(self._native)
        self.used_natively = resident(self._native) / 2**20
        return speed
