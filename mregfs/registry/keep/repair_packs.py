"""Makes packs again whose bytes are damaged or lost.

Decided here: where good bytes are looked for, and that all of a pack is verified before it takes
the place of the damaged one. Not decided here: which packs are damaged (`check_data`).

Good bytes of a block of a file are looked for in the pack itself, in the same pack of a copy of the
store, and wherever a whole-file copy (the cache) or a version has a block with the same digest.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from mregfs.errors import MregfsError
from mregfs.model.digest import BLOCK, DIGEST_SIZE, block_digest, file_digest
from mregfs.ports.host_cache import WholeFiles
from mregfs.ports.packs import PackFile, PackStore
from mregfs.registry.keep.check_content import StoredFile
from mregfs.registry.keep.check_data import blocks_of
from mregfs.registry.keep.repair import Step

__all__ = ["PackRepair"]

_Run = tuple[str, int, int]
_Place = tuple[StoredFile, int, tuple[_Run, ...]]
"""A block of a file: the file, its number, and where its bytes are in packs."""

_MOST_READ = 1 << 20


class PackRepair:
    """What can be done for packs.

    Args:
        packs: of the store.
        whole: the whole-file copies of this host.
        other: the packs of a copy of the store, if there is one.
        files: all files that versions have in packs.
        sizes: what each pack must have.
    """

    def __init__(
        self,
        packs: PackStore,
        whole: WholeFiles,
        other: PackStore | None,
        files: Sequence[StoredFile],
        sizes: Mapping[str, int],
    ) -> None:
        self._packs = packs
        self._whole = whole
        self._other = other
        self._files = files
        self._sizes = sizes

    def plan(self, damaged: Sequence[str]) -> dict[str, Step]:
        """Return the step for each pack that can be made again."""
        wanted = set(damaged)
        users: dict[str, list[StoredFile]] = {pack: [] for pack in damaged}
        for file in self._files:
            for pack in {extent.pack for extent in file.extents} & wanted:
                users[pack].append(file)
        elsewhere = self._find_elsewhere(wanted, users)
        steps = {}
        for pack in damaged:
            patches: dict[int, tuple[int, Callable[[], bytes]]] = {}
            sources: set[str] = set()
            if users[pack] and all(
                self._mend(pack, file, elsewhere, patches, sources) for file in users[pack]
            ):
                origin = " and ".join(sorted(sources)) or "what is left of it"
                steps[pack] = Step(
                    f"make pack {pack} again, from {origin}", self._replacing(pack, patches)
                )
        return steps

    def _find_elsewhere(
        self, wanted: set[str], users: dict[str, list[StoredFile]]
    ) -> dict[bytes, list[_Place]]:
        """Return where else there should be blocks with the digests of those in damaged packs."""
        digests = {
            digest
            for files in users.values()
            for file in files
            for runs, digest in _blocks(file)
            if any(run[0] in wanted for run in runs)
        }
        places: dict[bytes, list[_Place]] = {}
        for file in self._files:
            for number, (runs, digest) in enumerate(_blocks(file)):
                if digest in digests:
                    places.setdefault(digest, []).append((file, number, runs))
        return places

    def _mend(
        self,
        pack: str,
        file: StoredFile,
        elsewhere: dict[bytes, list[_Place]],
        patches: dict[int, tuple[int, Callable[[], bytes]]],
        sources: set[str],
    ) -> bool:
        """Find good bytes for all that a file has in a pack; False when some are nowhere."""
        for runs, digest in _blocks(file):
            if all(run[0] != pack for run in runs):
                continue
            sound = (
                each
                for each in self._sources(runs, elsewhere[digest])
                if _digest_of(each[1]) == digest
            )
            source, read = next(sound, ("nowhere", None))
            if read is None:
                return False
            sources |= {source} - {""}
            position = 0
            for run_pack, offset, length in runs:
                # Of two files that begin alike there the one that has less must not cut it short.
                if run_pack == pack and length > patches.get(offset, (0, None))[0]:
                    patches[offset] = (length, _part(read, position, length))
                position += length
        return True

    def _sources(
        self, runs: tuple[_Run, ...], places: list[_Place]
    ) -> Iterator[tuple[str, Callable[[], bytes]]]:
        """Yield what may have the bytes of a block, and what reads them."""
        yield "", lambda: _read(self._packs, runs)
        if self._other is not None:
            other = self._other
            yield "the copy of the store", lambda: _read(other, runs)
        for file, number, _ in places:
            yield "the cache", lambda file=file, number=number: self._read_whole(file, number)  # type: ignore[misc]
        for _, _, place in places:
            if place != runs:
                yield "other versions", lambda place=place: _read(self._packs, place)  # type: ignore[misc]

    def _read_whole(self, file: StoredFile, number: int) -> bytes:
        """Return a block of the whole-file copy of a file; nothing, if there is none."""
        one = file.size <= BLOCK
        digest = file.digests if one else file_digest(file.digests, file.size)
        copy = self._whole.open(digest.hex())
        if copy is None:
            return b""
        try:
            return copy.read(number * BLOCK, min(BLOCK, file.size - number * BLOCK))
        finally:
            copy.close()

    def _replacing(
        self, pack: str, patches: dict[int, tuple[int, Callable[[], bytes]]]
    ) -> Callable[[], None]:
        return lambda: self._packs.replace(pack, self._pieces(pack, patches))

    def _pieces(
        self, pack: str, patches: dict[int, tuple[int, Callable[[], bytes]]]
    ) -> Iterator[bytes]:
        """Yield the bytes of the pack; what no version needs is as it was, or zeros."""
        opened: PackFile | None
        try:
            opened = self._packs.open(pack)
        except MregfsError:
            opened = None
        try:
            position = 0
            for offset in sorted(patches):
                length, read = patches[offset]
                yield from _rest(opened, position, offset)
                data = read()
                if len(data) != length:
                    raise RuntimeError("what was read before is not there any more")
                yield data[max(0, position - offset) :]
                position = max(position, offset + length)
            yield from _rest(opened, position, self._sizes[pack])
        finally:
            if opened is not None:
                opened.close()


def _rest(opened: PackFile | None, start: int, end: int) -> Iterator[bytes]:
    while start < end:
        length = min(_MOST_READ, end - start)
        data = b""
        if opened is not None:
            try:
                data = opened.read(start, length)
            except MregfsError:
                data = b""
        yield data.ljust(length, b"\0")
        start += length


def _blocks(file: StoredFile) -> Iterator[tuple[tuple[_Run, ...], bytes]]:
    for number, runs in enumerate(blocks_of(file.extents)):
        yield runs, file.digests[number * DIGEST_SIZE : (number + 1) * DIGEST_SIZE]


def _read(packs: PackStore, runs: tuple[_Run, ...]) -> bytes:
    pieces = []
    for pack, offset, length in runs:
        opened = packs.open(pack)
        try:
            pieces.append(opened.read(offset, length))
        finally:
            opened.close()
    return b"".join(pieces)


def _digest_of(read: Callable[[], bytes]) -> bytes:
    try:
        return block_digest(read())
    except MregfsError:
        return b""


def _part(read: Callable[[], bytes], position: int, length: int) -> Callable[[], bytes]:
    return lambda: read()[position : position + length]
