"""What a second version costs on disk when most of it is in the first."""

import shutil
from pathlib import Path

from blake3 import blake3

from tests.bench.bench import Bench
from tests.bench.files import CHANGES, checkpoint, write_safetensors
from tests.bench.places import CHECKPOINT, UnavailableError
from tests.bench.registry_mount import MREGFS, Store

__all__ = ["FASTCDC", "measure_sharing"]

FASTCDC = "FastCDC, 64 KiB"
_AVERAGE = 64 << 10


def measure_sharing(bench: Bench) -> None:
    """Commit a checkpoint and then its second version, for each change, in a store of its own.

    Counted is what the whole store grows by: packs, layouts, manifests and log. The reference is
    what FastCDC with chunks of 64 KiB on average would add: the chunks of the second file that the
    first one does not have. Nothing here varies from run to run, so there is one round.
    """
    added = bench.new_series(
        "stored", "new bytes stored for the second version", "MiB", higher_is_better=False
    )
    excess = bench.new_series(
        "stored_excess",
        "new bytes beyond FastCDC's, part of the file",
        "of the file",
        higher_is_better=False,
    )
    directory = bench.scratch("sharing")
    tensors = checkpoint(min(bench.size, 384 << 20), seed=3)
    base = directory / "base"
    base.mkdir()
    write_safetensors(base / CHECKPOINT, tensors)
    known = set(chunks(base / CHECKPOINT))
    for name, change in CHANGES.items():
        bench.say(f"sharing: {name}")
        second = directory / "second"
        second.mkdir()
        file = second / ("model.pt" if name.endswith(".pt") else CHECKPOINT)
        change(tensors, file)
        size = file.stat().st_size
        new = {digest: length for digest, length in chunks(file).items() if digest not in known}
        added.add(f"{name}: {FASTCDC}", sum(new.values()) / 2**20)
        try:
            grown = growth(Store(directory / "registry"), base, second)
            added.add(f"{name}: {MREGFS}", grown / 2**20)
            excess.add(name, (grown - sum(new.values())) / size)
        except UnavailableError as exc:
            added.missing[name] = excess.missing[name] = str(exc)
        shutil.rmtree(second)
        shutil.rmtree(directory / "registry", ignore_errors=True)
    shutil.rmtree(directory)


def growth(store: Store, first: Path, second: Path) -> int:
    """Return how many bytes a store grows by when `second` is committed after `first`."""
    store.init()
    with store.mounted() as mount:
        mount.publish(first, "checkpoint")
        before = store.size()
        mount.publish(second, "checkpoint")
        return store.size() - before


def chunks(file: Path) -> dict[bytes, int]:
    """Return the digests and lengths of a file's chunks as FastCDC cuts it, 64 KiB on average."""
    from pyfastcdc.cy import FastCDC

    data = file.read_bytes()
    view = memoryview(data)
    cutter = FastCDC(_AVERAGE, min_size=_AVERAGE // 4, max_size=_AVERAGE * 4)
    return {
        blake3(view[chunk.offset : chunk.offset + chunk.length]).digest(): chunk.length
        for chunk in cutter.cut_buf(data)
    }
