"""Where a file is cut into chunks.

Decided here: the cuts, for ever: they choose what is stored once, so a change of a constant or of
a rule makes new versions share nothing with old ones (the golden tests hold them). Not decided
here: where tensors are (`tensors`), how a chunk is digested or stored. Safe to call from several
threads.

The cuts depend on nothing but the bytes: not on a file's name, size on disk or place in a version.
The rules with their reasons are in `chunking.md`.

FastCDC: Xia et al., "The Design of Fast Content-Defined Chunking for Data Deduplication Based
Storage Systems", IEEE TPDS 2020, in the implementation of pyfastcdc, which frees the GIL.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from mregfs.model.tensors import Read, Region, read_tensors

__all__ = ["MAX_CHUNK", "boundaries", "load_cutter"]

MAX_CHUNK = 4 << 20
"""No chunk is larger."""

_BLOCK = MAX_CHUNK  # step within a large tensor; cold reads reach full speed at 4 MiB
_LEAST_BLOCK = 256 << 10  # the tail of a tensor is halved down to this
_SMALL = 64 << 10  # smaller regions are merged with small neighbours
_RUN = 256 << 10  # merged neighbours up to this are one chunk

_WINDOW = 4 * MAX_CHUNK  # bytes in memory at a time; cuts do not depend on it

_COARSE = (1 << 20, 256 << 10, 4 << 20)  # FastCDC average, least, most: 3.2 GB/s on one core
_FINE = (64 << 10, 16 << 10, 256 << 10)  # for long runs of small tensors


def boundaries(read: Read, size: int) -> list[int]:
    """Return where chunks end: strictly ascending, the last is the size; empty for no bytes.

    Of a large safetensors, GGUF or torch file only headers and small tensors are read, of others
    everything, in windows. Never raises for what the bytes are; what `read` raises passes through.
    """
    table = read_tensors(read, size)
    regions = table.regions if table else ()
    return list(_cuts(read, _without_gaps(regions, size)))


def _without_gaps(regions: Iterable[Region], size: int) -> Iterator[Region]:
    """Yield the regions and, as opaque ones, what lies between, before and after them."""
    end = 0
    for region in regions:
        if end < region.start:
            yield Region(end, region.start, "opaque")
        yield region
        end = region.end
    if end < size:
        yield Region(end, size, "opaque")


def _cuts(read: Read, regions: Iterable[Region]) -> Iterator[int]:
    run_start = run_end = 0  # small neighbours not cut yet
    for region in regions:
        start, end = region.start, region.end
        if end - start < _SMALL and region.kind != "header":
            run_end = end
            continue
        yield from _cuts_of_run(read, run_start, run_end)
        run_start = run_end = end
        if region.kind in ("tensor", "compressed"):
            yield from _blocks(start, end)
        else:
            yield from _content_defined(read, start, end, _COARSE)
    yield from _cuts_of_run(read, run_start, run_end)


def _cuts_of_run(read: Read, start: int, end: int) -> Iterator[int]:
    """Cut merged neighbours by content, so that one more of them moves only the cuts near it."""
    if end - start > _RUN:
        yield from _content_defined(read, start, end, _FINE)
    elif start < end:
        yield end


def _blocks(start: int, end: int) -> Iterator[int]:
    """Cut every 4 MiB from `start`, the rest at falling powers of two, down to 256 KiB.

    Each cut but the last depends on `start` and little else, so a tensor that grows at its end (a
    vocabulary) keeps nearly all chunks.
    """
    step = _BLOCK
    while step >= _LEAST_BLOCK:
        if start + step > end:
            step //= 2
        else:
            start += step
            yield start
    if start < end:
        yield end


def _content_defined(
    read: Read, start: int, end: int, sizes: tuple[int, int, int]
) -> Iterator[int]:
    average, least, most = sizes
    if end - start <= least:
        yield end
        return
    fast_cdc = load_cutter()
    if fast_cdc is None:
        yield from _blocks(start, end)
        return
    cutter = fast_cdc(average, min_size=least, max_size=most, normalized_chunking=1, seed=0)
    while start < end:
        data = read(start, min(_WINDOW, end - start))
        cuts = [start + chunk.offset + chunk.length for chunk in cutter.cut_buf(data)]
        if not cuts:  # the file has been cut short meanwhile; who commits it finds out
            yield end
            return
        # The window may be what ended the last chunk: the next window begins with it.
        if cuts[-1] < end and len(cuts) > 1:
            cuts.pop()
        yield from cuts
        start = cuts[-1]


def load_cutter() -> Any:
    """Return pyfastcdc's class, or None when it is not installed.

    Loaded late, as most verbs never cut, and in 10 ms: who will cut may call this before.
    """
    try:
        # The Cython module by name: the package falls back to Python, a thousand times slower.
        from pyfastcdc.cy import FastCDC
    except ImportError:
        return None
    return FastCDC
