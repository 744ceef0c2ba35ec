"""An open file of a version: reading its bytes, wherever they are, and never wrong ones.

Decided here: how a range is put together from packs, which blocks are verified when, and what is
done without waiting for the pack store. Not decided here: where the bytes are (`content`), how the
kernel gets them (`vfs`).

Making one, `backing`, `read_path` and `read_cached` are for an event loop too: they look at files
of this host at most. `read` and `runs` may wait for the pack store.
"""

import logging
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from threading import Lock
from typing import TYPE_CHECKING, Self

from mregfs.errors import CorruptError, NotFoundError
from mregfs.model.digest import BLOCK
from mregfs.model.layout import Extent, FileLayout
from mregfs.ports.packs import PackFile, PackStore
from mregfs.registry.read.blocks import Blocks

if TYPE_CHECKING:
    from mregfs.registry.read.verifier import Reading, Verifier

__all__ = ["OpenContent"]

log = logging.getLogger(__name__)

_RUN = 64 << 20  # bytes of an extent that are copied before anybody may interrupt


class OpenContent:
    """One file of a version, open for reading. Close it when done; use it from any thread.

    Args:
        name: for messages.
        layout: where the bytes are.
        packs: what the layout speaks of.
        blocks: what the bytes are verified with.
        whole: opens the whole-file copy that the host's cache has, if it has one.
        watched: True when each read is to be verified, so that nobody may read past us.
        digest: of the file.
        verifier: verifies in the background what is read past us; None: nobody does.
    """

    def __init__(
        self,
        name: str,
        layout: FileLayout,
        packs: PackStore,
        blocks: Blocks,
        *,
        whole: Callable[[], PackFile | None] = lambda: None,
        watched: bool = False,
        digest: bytes = b"",
        verifier: "Verifier | None" = None,
    ) -> None:
        self.size = layout.size
        self._name = name
        self._inline = layout.inline
        self._whole = layout.whole
        self._extents = _coalesced(layout.extents)
        self._starts = [0, *accumulate(extent.length for extent in self._extents)]
        self._packs = packs
        self._blocks = blocks
        self._open: dict[str, PackFile] = {}
        self._lock = Lock()
        self.watched = watched
        self._digest = digest
        self._verifier = verifier
        self._reading: Reading | None = None
        self._whole_copy = whole
        self._copy = self._open_copy() if self._is_scattered() else None

    def _open_copy(self) -> PackFile | None:
        copy = self._whole_copy()
        if copy is not None and copy.size != self.size:
            copy.close()
            return None
        return copy

    @property
    def read_path(self) -> str:
        """`inline`, `whole` (one pack), `coalesced` (a whole-file copy), `extents` or `remote`.

        `remote` is one pack that is no file of this host.
        """
        if self._inline is not None:
            return "inline"
        try:
            in_one_piece = self._in_one_piece()
        except CorruptError:
            return "whole"
        if self._copy is not None:
            return "coalesced"
        if self._is_scattered():
            return "extents"
        return "remote" if in_one_piece is None else "whole"

    def wants_copy(self) -> bool:
        """Tell whether the kernel can read the file by itself only where there is a copy of it."""
        if self._inline is not None:
            return False
        try:
            return self._is_scattered() or self._at_hand(self._extents[0].pack) is None
        except CorruptError:  # whoever reads it is told
            return False

    def _is_scattered(self) -> bool:
        """Tell whether the bytes are in packs, but no pack is the whole file."""
        return self._inline is None and not self._whole

    def _in_one_piece(self) -> PackFile | None:
        """Return the pack that is the whole file, if it is here, or else the copy, if there is one.

        Raises:
            CorruptError: the pack is missing.
        """
        if self._copy is None and not self._is_scattered():
            pack = self._at_hand(self._extents[0].pack)
            if pack is not None:
                return pack
            self._copy = self._open_copy()
        return self._copy

    def backing(self) -> int:
        """Return a descriptor of a file of this host that is this one, byte for byte, or -1.

        It is the one pack that is the whole file, or its whole-file copy, and is valid until
        `close`. There is none when each read is to be verified.

        Raises:
            CorruptError: the pack is missing, has another size, or is known to be damaged.
        """
        if self.watched or self._inline is not None:
            return -1
        file = self._in_one_piece()
        descriptor = None if file is None else file.backing()
        if file is None or descriptor is None:
            return -1
        key = self._digest
        if file is not self._copy:
            pack = self._extents[0].pack
            key = bytes.fromhex(pack)
            if file.size != self.size:
                log.error("%s is damaged: pack %s has another size", self._name, pack)
                raise CorruptError(
                    f"{self._name} is damaged: pack {pack} has {file.size} bytes, not {self.size}",
                    "see what else is: mregfs fsck",
                )
        if self._verifier is not None and self._reading is None:
            self._reading = self._verifier.opened(key, file, self._blocks)
        return descriptor

    def runs(self) -> Iterator[tuple[PackFile, int, int]]:
        """Yield the packs, offsets and lengths that the file is put together from, in order.

        Raises:
            CorruptError: a pack is missing.
        """
        for extent in self._extents:
            for skip in range(0, extent.length, _RUN):
                length = min(_RUN, extent.length - skip)
                yield self._pack(extent.pack), extent.offset + skip, length

    def read(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes at `offset`; fewer only at the end of the file.

        Raises:
            CorruptError: the bytes are not those that were committed.
        """
        end = min(offset + length, self.size)
        if offset >= end:
            return b""
        if self._inline is not None:
            return self._inline[offset:end]
        blocks = self._blocks
        first, last = offset // BLOCK, (end - 1) // BLOCK
        if blocks.verified(first, last):
            return self._gather(offset, end)
        start = first * BLOCK
        data = self._gather(start, min((last + 1) * BLOCK, self.size))
        blocks.verify(first, data)
        if offset == start and len(data) == end - start:
            return data
        return data[offset - start : end - start]

    def read_cached(self, offset: int, length: int) -> bytes | None:
        """Return what `read` would, or None when it may take a while.

        Quick is what this process has verified before, and the host has in memory still.
        """
        end = min(offset + length, self.size)
        if offset >= end:
            return b""
        if self._inline is not None:
            return self._inline[offset:end]
        if not self._blocks.verified(offset // BLOCK, (end - 1) // BLOCK):
            return None
        for pack, start, length in self._pieces(offset, end):
            opened = self._at_hand(pack)
            if opened is None or not opened.is_cached(start, length):
                return None
        return self._gather(offset, end)

    def close(self) -> None:
        """Let go of the packs."""
        reading, self._reading = self._reading, None
        if reading is not None and self._verifier is not None:
            self._verifier.closed(reading)
        with self._lock:
            packs, self._open = self._open, {}
        for pack in packs.values():
            pack.close()
        if self._copy is not None:
            self._copy.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _gather(self, start: int, end: int) -> bytes:
        read = []
        for pack, offset, length in self._pieces(start, end):
            opened = self._pack(pack)
            try:
                piece = opened.read(offset, length)
            except NotFoundError as exc:
                raise self._missing(pack) from exc
            if len(piece) != length:
                log.error("%s is damaged: pack %s is too short", self._name, pack)
                raise CorruptError(
                    f"{self._name} is damaged: pack {pack} is too short",
                    "see what else is: mregfs fsck --data",
                )
            read.append(piece)
        return read[0] if len(read) == 1 else b"".join(read)

    def _pieces(self, start: int, end: int) -> Iterator[tuple[str, int, int]]:
        """Yield where the bytes from `start` to `end` are: pack, offset there, length."""
        number = bisect_right(self._starts, start) - 1
        while start < end:
            extent = self._extents[number]
            skip = start - self._starts[number]
            length = min(end - start, extent.length - skip)
            yield extent.pack, extent.offset + skip, length
            start += length
            number += 1

    def _pack(self, pack: str) -> PackFile:
        """Return a pack, open; this may wait for the pack store."""
        found = self._open.get(pack)
        if found is not None:
            return found
        try:
            opened = self._packs.open(pack)
        except NotFoundError as exc:
            raise self._missing(pack) from exc
        return self._keep(pack, opened)

    def _at_hand(self, pack: str) -> PackFile | None:
        """Return a pack that is open, or a file of this host; None: that would have to wait."""
        found = self._open.get(pack)
        if found is not None:
            return found
        try:
            opened = self._packs.open_local(pack)
        except NotFoundError as exc:
            raise self._missing(pack) from exc
        return None if opened is None else self._keep(pack, opened)

    def _keep(self, pack: str, opened: PackFile) -> PackFile:
        with self._lock:
            found = self._open.setdefault(pack, opened)
        if found is not opened:
            opened.close()
        return found

    def _missing(self, pack: str) -> CorruptError:
        log.error("%s is damaged: there is no pack %s", self._name, pack)
        return CorruptError(
            f"{self._name} is damaged: there is no pack {pack}",
            "see what else is missing: mregfs fsck",
        )


def _coalesced(extents: Sequence[Extent]) -> list[Extent]:
    """Join extents that follow each other in one pack, so that each run is one read."""
    joined: list[Extent] = []
    for extent in extents:
        last = joined[-1] if joined else None
        if last and last.pack == extent.pack and last.offset + last.length == extent.offset:
            joined[-1] = Extent(last.pack, last.offset, last.length + extent.length)
        else:
            joined.append(extent)
    return joined
