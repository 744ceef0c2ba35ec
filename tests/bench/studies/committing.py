"""Committing a checkpoint: how long beyond hashing it, and is its data written a second time."""

import shutil
import time
from pathlib import Path

from blake3 import blake3

from tests.bench.bench import Bench, timed
from tests.bench.files import write_unique_copy
from tests.bench.page_cache import warm
from tests.bench.places import CHECKPOINT, UnavailableError
from tests.bench.registry_mount import MREGFS, Store

__all__ = ["measure_committing"]

HASHING = "hashing"


def measure_committing(bench: Bench) -> None:
    """Commit one draft a round, each with bytes that the store has never seen.

    The draft is on disk and in the page cache when the commit begins. Hashing is BLAKE3 with all
    cores over the same file, memory-mapped, once before and once after the commit; the mean counts.
    """
    seconds = bench.new_series(
        "commit", "commit of the draft, against hashing it", "s", higher_is_better=False
    )
    copied = bench.new_series(
        "commit_copied",
        "file data that the commit wrote again",
        "bytes",
        higher_is_better=False,
    )
    wrote = bench.new_series(
        "commit_written",
        "all that the daemon wrote during the commit",
        "bytes",
        higher_is_better=False,
    )
    for number in range(bench.rounds):
        bench.say(f"commit, round {number + 1}")
        directory = bench.scratch("committing")
        store = Store(directory)
        try:
            store.init()
            with store.mounted() as mount:
                draft = mount.draft("run") / CHECKPOINT
                write_unique_copy(bench.tree / CHECKPOINT, draft, seed=1000 + number)
                inode = _inode_behind(store)
                warm([store.file_with_inode(inode) or draft])
                before = hash_with_all_cores(draft)
                written = mount.written()
                start = time.perf_counter()
                mount.echo("commit run checkpoint")
                elapsed = time.perf_counter() - start
                wrote.add(MREGFS, mount.written() - written)
                published = mount.path / "artifacts/checkpoint/v0" / CHECKPOINT
                after = hash_with_all_cores(published)
                seconds.add(MREGFS, elapsed)
                seconds.add(HASHING, (before + after) / 2)
                copied.add(MREGFS, _copied(store, inode, published.stat().st_size))
        except UnavailableError as exc:
            seconds.missing[MREGFS] = copied.missing[MREGFS] = str(exc)
            return
        finally:
            shutil.rmtree(directory)


def hash_with_all_cores(file: Path) -> float:
    """Return the seconds that BLAKE3 takes for a file, with as many threads as there are cores."""
    return timed(lambda: blake3(max_threads=blake3.AUTO).update_mmap(file))


def _inode_behind(store: Store) -> int:
    """Return the inode, on the disk, of the only checkpoint in the store's directory."""
    (file,) = store.path.rglob(CHECKPOINT)
    return file.stat().st_ino


def _copied(store: Store, inode: int, size: int) -> int:
    """Return how many bytes of the file are not where the draft had put them: none, or all."""
    file = store.file_with_inode(inode)
    if file is None or not file.is_relative_to(store.path / "packs"):
        return size
    return 0 if file.stat().st_size == size else size
