"""Coalescing: files stored in several pieces get a whole-file copy, which the kernel can read.

Decided here: which files are worth a copy, that it is verified before anybody reads it, what a pin
means (`coalesce.md`). Not decided here: how much room copies have (`ports.WholeFiles`), which
versions deserve one without being pinned (`aliased`).
"""

import logging
from collections.abc import Callable, Container, Mapping

import msgspec

from mregfs.errors import CorruptError, MregfsError, NoSpaceError
from mregfs.model.digest import BLOCK, block_digests, file_digest
from mregfs.model.names import parse_project
from mregfs.model.records import VersionRecord
from mregfs.model.reference import Location
from mregfs.model.state import Resolved, State
from mregfs.ports.host_cache import WholeFiles
from mregfs.ports.index import Index
from mregfs.registry.read.content import Content, OpenContent

__all__ = ["CoalesceProgress", "Coalescer", "Pin", "Stopped"]

log = logging.getLogger(__name__)

WORTHWHILE = 256 << 10
"""Bytes from which a file is worth a copy; smaller ones are read in one request either way."""

_PIECE = 8 * BLOCK

CoalesceProgress = Callable[[int, int], None]
"""Called with the bytes done and their total."""


class Stopped(Exception):  # noqa: N818 - no error: nobody waits for the rest any more
    """Raised by a progress callback to end the work early; what is complete stays."""


class Pin(msgspec.Struct, frozen=True):
    """A version whose files stay in one piece on this host."""

    version: str
    """`entity/project/artifact:vN`."""
    files: int
    """Files that need a copy for that; others are in one piece anyway, or too small to matter."""
    size: int
    """Bytes of those files."""
    complete: bool
    """All of them have their copy now."""


class Coalescer:
    """Makes whole-file copies for the files of versions."""

    def __init__(self, index: Index, content: Content, whole: WholeFiles) -> None:
        self._index = index
        self._content = content
        self._whole = whole

    # ---- pins

    def pin(self, location: Location, progress: CoalesceProgress | None = None) -> Pin:
        """Copy the files of a version into one piece each, and keep the copies until `unpin`.

        Whatever is raised, an interrupt too: the version is not pinned, unless it was before.

        Raises:
            NotFoundError: there is no such version.
            NoSpaceError: the copies do not fit into the cache, or on the disk.
            CorruptError: bytes are not what was committed.
        """
        resolved = self._resolve(location)
        name, version = _name(resolved), resolved.version
        files = self.files(version)
        self.sweep()
        before = self._whole.pins()
        self._whole.pin(name, files)
        try:
            if not self.coalesce(version, files, (), progress):
                figures = self._whole.figures()
                raise NoSpaceError(
                    f"{name} takes {sum(files.values())} bytes in one piece, more than the cache "
                    f"has left ({figures.limit} bytes, {figures.pinned} of them pinned)",
                    "unpin something, or mount with a larger cache_size",
                )
        except BaseException:
            if name not in before:
                self._whole.unpin([name])
            raise
        return self._pin(name, files)

    def unpin(self, location: Location) -> Pin:
        """Let the copies of a version be evicted when others need the room.

        Raises:
            NotFoundError: there is no such version.
        """
        resolved = self._resolve(location)
        name = _name(resolved)
        pinned = self._pin(name, self.files(resolved.version))
        self._whole.unpin([name])
        return pinned

    def pinned(self) -> list[Pin]:
        """Return what is pinned, by name."""
        pins = []
        for name in sorted(self._whole.pins()):
            version = self._version(name)
            if version is not None:
                pins.append(self._pin(name, self.files(version)))
        return pins

    def _pin(self, name: str, files: Mapping[str, int]) -> Pin:
        there = self._whole.files()
        return Pin(name, len(files), sum(files.values()), all(digest in there for digest in files))

    # ---- copies

    def files(self, version: VersionRecord) -> dict[str, int]:
        """Return digest and size of the files of a version that are worth a copy."""
        self._content.ensure(version)
        found: dict[str, int] = {}
        for _, entry in self._content.walk(version):
            if entry.kind == "file" and entry.size >= WORTHWHILE:
                with self._content.open(version, entry.position) as opened:
                    if opened.wants_copy():
                        found[entry.digest.hex()] = entry.size
        return found

    def coalesce(
        self,
        version: VersionRecord,
        files: Mapping[str, int],
        keep: Container[str],
        progress: CoalesceProgress | None = None,
    ) -> bool:
        """Copy those of the files of a version that have no copy yet; False: not all fit.

        What is in `keep` is not evicted for it.

        Raises:
            CorruptError: bytes are not what was committed.
        """
        meter = _Meter(progress, sum(files.values()))
        there = set(self._whole.files())
        fits = True
        for _, entry in self._content.walk(version):
            digest = entry.digest.hex()
            if digest not in files or entry.size < WORTHWHILE:
                continue
            if digest in there:
                meter.add(entry.size)
                continue
            there.add(digest)
            with self._content.open(version, entry.position) as opened:
                fits &= self._copy(opened, digest, keep, meter)
        return fits

    def _copy(
        self, opened: OpenContent, digest: str, keep: Container[str], meter: "_Meter"
    ) -> bool:
        draft = self._whole.create(digest, opened.size, keep)
        if draft is None:
            return digest in self._whole.files()  # another process may have been faster
        try:
            for pack, offset, length in opened.runs():
                draft.append(pack, offset, length)
                meter.add(length)
            blocks = []
            for offset in range(0, opened.size, _PIECE):
                blocks.append(block_digests(draft.read(offset, _PIECE)))
                meter.add(0)
            if file_digest(b"".join(blocks), opened.size).hex() != digest:
                raise CorruptError(
                    f"a file with digest {digest[:16]}… cannot be put together: its packs are "
                    "damaged",
                    "see where: mregfs fsck --data",
                )
            draft.finish()
        except NoSpaceError as exc:
            log.info("no whole-file copy: %s", exc)
            return False
        finally:
            draft.close()
        return True

    def sweep(self) -> None:
        """Give up the pins of versions that are gone, and the copies that no version needs."""
        gone = [name for name in self._whole.pins() if self._version(name) is None]
        self._whole.unpin(gone)
        for digest in self._whole.files():
            if not self._is_needed(digest):
                self._whole.delete(digest)

    def _is_needed(self, digest: str) -> bool:
        """Tell whether the index knows a version that exists with such a file.

        The index remembers one place for each file; when that version is gone another one may
        have the file still. Then its copy is made again.
        """
        with self._index.read() as view:
            key = view.get("file", bytes.fromhex(digest))
            if key is None:
                return True  # its version's content may not be in the index yet
            found = State(view).inode_at_or_below(int.from_bytes(key, "big"))
            return found is not None and found[1].kind == "version"

    # ---- names of versions

    def _resolve(self, location: Location) -> Resolved:
        with self._index.read() as view:
            return State(view).resolve(location)

    def _version(self, name: str) -> VersionRecord | None:
        """Return the version with a name of ours, or None when it is gone."""
        owner, _, number = name.rpartition(":v")
        project, _, artifact = owner.rpartition("/")
        try:
            location = Location(parse_project(project), artifact, number=int(number))
            return self._resolve(location).version
        except (MregfsError, ValueError):
            return None


class _Meter:
    """Adds up what is done; the callback may raise `Stopped` at each step."""

    def __init__(self, progress: CoalesceProgress | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._done = 0

    def add(self, count: int) -> None:
        self._done += count
        if self._progress is not None:
            self._progress(self._done, self._total)


def _name(resolved: Resolved) -> str:
    """Return the name of a version that no other ever has: numbers are not reused."""
    artifact, version = resolved.artifact, resolved.version
    return f"{artifact.project}/{artifact.name}:v{version.number}"
