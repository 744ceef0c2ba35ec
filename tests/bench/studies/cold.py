"""Reading from the disk: nothing of the file is in the page cache, and afterwards how much is.

The backing files are taken out of the page cache one by one (posix_fadvise), which is checked; the
mount is made after that, so nothing is cached on its side either.
"""

from tests.bench.bench import Bench
from tests.bench.page_cache import chill, resident
from tests.bench.places import CHECKPOINT, Native, Place
from tests.bench.studies.reading import sequential_read

__all__ = ["measure_cold"]


def measure_cold(bench: Bench) -> None:
    """Take the time of one cold read, and the page cache that it filled, for every place.

    The page cache counted is that of the file as the mount shows it plus that of the backing files:
    a mount that caches what its backing file holds as well takes twice the memory.
    """
    cold = bench.new_series("cold_read", "sequential read from disk, cold", "GB/s")
    memory = bench.new_series(
        "page_cache", "page cache after one read of the file", "MiB", higher_is_better=False
    )
    for number, place in bench.interleaved(bench.places):
        bench.say(f"cold, round {number + 1}: {place.name}")
        native, native_memory = _one(Native(bench.tree))
        speed, used = _one(place)
        cold.add_beside(place.name, speed, native)
        memory.add_beside(place.name, used, native_memory)


def _one(place: Place) -> tuple[float, float]:
    """Return GB/s of the first read of all, and the MiB that are in the page cache after it."""
    chill(place.backing())
    with place.mounted() as top:
        file = top / CHECKPOINT
        speed = sequential_read(file)
        return speed, sum(resident(path) for path in {file, *place.backing()}) / 2**20
