"""What is inside versions: their files, and the bytes of those.

Decided here: what of manifests and layouts the index holds, and when it is loaded (`content.md`).
Not decided here: which versions there are (`model.state`), how bytes are verified (`blocks`). Any
thread may use it.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from mregfs.errors import CorruptError, InvalidError, NotFoundError
from mregfs.model.digest import DIGEST_SIZE, block_count
from mregfs.model.layout import Layout, decode_layout, layout_key
from mregfs.model.manifest import Manifest, decode_manifest, manifest_key
from mregfs.model.records import VersionRecord, VersionSize
from mregfs.model.state import View
from mregfs.ports.host_cache import WholeFiles
from mregfs.ports.index import Index
from mregfs.ports.objects import ObjectStore
from mregfs.ports.packs import PackFile, PackStore
from mregfs.registry.read import rows
from mregfs.registry.read.blocks import Blocks
from mregfs.registry.read.open_content import OpenContent
from mregfs.registry.read.rows import CONTENT_TABLES, FileEntry

if TYPE_CHECKING:
    from mregfs.registry.read.verifier import Verifier

__all__ = ["CONTENT_TABLES", "Content", "FileEntry", "OpenContent", "Verification"]

Verification = Literal["first-read", "always", "commit"]
"""When blocks are verified: at their first read in this process, at each read, or only at commit.
Files that the kernel reads by itself (passthrough) are verified afterwards (`verifier`); so with
`always` it reads none by itself."""

_BATCH = 256  # entries of a directory read under one view

_LONGEST_KEY = 8 + 255  # of a name, after its directory; LMDB refuses keys not much longer

_REMEMBERED = 4096  # files whose verified blocks are remembered; 100 GB of a file take 100 KB


class Content:
    """The files of all versions of a store."""

    def __init__(
        self,
        objects: ObjectStore,
        packs: PackStore,
        index: Index,
        *,
        verification: Verification = "first-read",
        whole_files: WholeFiles | None = None,
    ) -> None:
        self._objects = objects
        self._whole_files = whole_files
        self._packs = packs
        self._index = index
        self._verification = verification
        self.verifier: Verifier | None = None
        """Verifies what the kernel reads by itself, where there is one."""
        self._blocks: OrderedDict[tuple[str, int], Blocks] = OrderedDict()
        self._lock = threading.Lock()

    # ---- loading

    def ready(self, version: VersionRecord) -> bool:
        """Tell whether the index has the content of a version; cheap."""
        with self._index.read() as view:
            return _is_ready(view, version)

    def ensure(self, version: VersionRecord) -> None:
        """Have the content of a version in the index: load it if need be, which may take a while.

        Raises:
            CorruptError: its manifest or layout is damaged or missing.
        """
        if not self.ready(version):
            self.add(version, self.manifest(version), self.layout(version))

    def add(self, version: VersionRecord, manifest: Manifest, layout: Layout) -> None:
        """Put the content of a version into the index."""
        self._index.write(
            rows.rows_of(version.inode, version.digest, version.layout, manifest, layout)
        )

    def manifest(self, version: VersionRecord) -> Manifest:
        """Load the manifest of a version from the store.

        Raises:
            CorruptError: it is damaged or missing.
        """
        return decode_manifest(self._object(manifest_key(version.digest)), version.digest)

    def layout(self, version: VersionRecord | VersionSize) -> Layout:
        """Load the layout of a version from the store.

        Raises:
            CorruptError: it is damaged or missing.
        """
        return decode_layout(self._object(layout_key(version.layout)), version.layout)

    def _object(self, key: str) -> bytes:
        try:
            return self._objects.get(key)
        except NotFoundError as exc:
            raise CorruptError(f"{key} is missing from the store", "run mregfs fsck") from exc

    # ---- looking

    def entry(self, version: VersionRecord, position: int) -> FileEntry | None:
        """Return what stands at a position of the manifest; 0 is the version's own directory."""
        if position == 0:
            return rows.ROOT
        with self._index.read() as view:
            return _entry(view, version.inode, position)

    def find(self, version: VersionRecord, parent: int, name: str) -> FileEntry | None:
        """Return what is called `name` in the directory at position `parent`, or None."""
        key = rows.name_key(version.inode, parent, name.encode())
        if len(key) > _LONGEST_KEY:
            return None
        with self._index.read() as view:
            row = view.get("entry_name", key)
        return None if row is None else rows.parse_entry(parent, name, row)

    def lacks(self, version: VersionRecord, parent: int, name: str) -> bool:
        """Tell whether there is no `name` in that directory: False also when nothing is loaded.

        One view tells both: the rows may go between two.
        """
        key = rows.name_key(version.inode, parent, name.encode())
        with self._index.read() as view:
            known = len(key) <= _LONGEST_KEY and view.get("entry_name", key) is not None
            return not known and _is_ready(view, version)

    def find_path(self, version: VersionRecord, path: str) -> FileEntry | None:
        """Return what is at a path below the version, without following symlinks; or None."""
        entry: FileEntry | None = rows.ROOT
        for name in path.split("/"):
            if name in ("", "."):
                continue
            if entry is None or entry.kind != "directory":
                return None
            entry = self.find(version, entry.position, name)
        return entry

    def children(self, version: VersionRecord, parent: int, start: str = "") -> Iterator[FileEntry]:
        """Yield what is in a directory, by name, from the first name >= `start`.

        Lazy; no view is held while the consumer has an entry. When the index loses the content on
        the way it is loaded again: a listing never ends early.
        """
        prefix = rows.name_key(version.inode, parent, b"")
        key = prefix + start.encode()
        while True:
            found = self._some_children(version, parent, prefix, key)
            if found is None:
                self.ensure(version)
                continue
            yield from found
            if len(found) < _BATCH:
                return
            key = prefix + found[-1].name.encode() + b"\0"

    def _some_children(
        self, version: VersionRecord, parent: int, prefix: bytes, key: bytes
    ) -> list[FileEntry] | None:
        """Return the next few entries from `key` on; None: the content is not loaded."""
        found = []
        with self._index.read() as view:
            if not _is_ready(view, version):
                return None
            for row_key, row in view.scan("entry_name", prefix, key):
                found.append(rows.parse_entry(parent, row_key[8:].decode(), row))
                if len(found) == _BATCH:
                    break
        return found

    def walk(
        self, version: VersionRecord, position: int = 0, after: str = ""
    ) -> Iterator[tuple[str, FileEntry]]:
        """Yield (path, entry) of all that is below a directory, in the manifest's order.

        With `after`, a path that was yielded before: what comes behind it. Without recursion: a
        path has up to two thousand directories.
        """
        pending = self._resumed(version, position, after)
        while pending:
            prefix, children = pending[-1]
            entry = next(children, None)
            if entry is None:
                pending.pop()
                continue
            path = prefix + entry.name
            yield path, entry
            if entry.kind == "directory":
                pending.append((f"{path}/", self.children(version, entry.position)))

    def _resumed(
        self, version: VersionRecord, position: int, after: str
    ) -> list[tuple[str, Iterator[FileEntry]]]:
        """Return the directories on the way to a path, each behind what is on that way."""
        pending: list[tuple[str, Iterator[FileEntry]]] = []
        prefix = ""
        for name in after.split("/") if after else ():
            pending.append((prefix, self.children(version, position, f"{name}\0")))
            entry = self.find(version, position, name)
            if entry is None or entry.kind != "directory":
                return pending
            position, prefix = entry.position, f"{prefix}{name}/"
        return [*pending, (prefix, self.children(version, position))]

    def path(self, version: VersionRecord, position: int) -> str:
        """Return the path of a position below the version."""
        names: list[str] = []
        with self._index.read() as view:
            while position:
                row = view.get("entry", rows.pack_inode(version.inode + position))
                if row is None:
                    break
                position, name = rows.parse_name(row)
                names.append(name)
        return "/".join(reversed(names))

    # ---- reading

    def open(self, version: VersionRecord, position: int) -> OpenContent:
        """Open a file for reading.

        Raises:
            NotFoundError: there is no such position, or the content is not loaded (`ensure`).
            InvalidError: it is no file.
        """
        key = rows.pack_inode(version.inode + position)
        place = (version.layout, position)
        with self._index.read() as view:
            entry = _entry(view, version.inode, position) if position else rows.ROOT
            row = view.get("layout", key)
            blocks = self._blocks.get(place)
            digests = b"" if blocks is not None else view.get("blocks", key) or b""
        if entry is None:
            raise NotFoundError(f"v{version.number} has nothing at position {position}")
        if row is None:
            raise InvalidError(f"{entry.name!r} is a {entry.kind}, not a file")
        layout = rows.parse_layout(row)
        if blocks is None:
            blocks = self._remember(place, entry, digests)
        return OpenContent(
            entry.name,
            layout,
            self._packs,
            blocks,
            whole=lambda: self._whole(entry.digest),
            watched=self._verification == "always",
            digest=entry.digest,
            verifier=self.verifier,
        )

    def _whole(self, digest: bytes) -> PackFile | None:
        return None if self._whole_files is None else self._whole_files.open(digest.hex())

    def _remember(self, place: tuple[str, int], entry: FileEntry, digests: bytes) -> Blocks:
        """Return what the blocks of a file are verified with; a file of one block has no list."""
        name, digests = repr(entry.name), digests or entry.digest
        if len(digests) != DIGEST_SIZE * block_count(entry.size):
            raise CorruptError(f"{name} has {len(digests)} bytes of digests", "run mregfs reindex")
        policy = self._verification
        blocks = Blocks(name, digests, forget=policy == "always", trust=policy == "commit")
        with self._lock:
            blocks = self._blocks.setdefault(place, blocks)
            while len(self._blocks) > _REMEMBERED:
                self._blocks.popitem(last=False)
        return blocks


def _is_ready(view: View, version: VersionRecord) -> bool:
    row = view.get("content", rows.pack_inode(version.inode))
    return row is not None and rows.parse_content(row) == (version.digest, version.layout)


def _entry(view: View, version: int, position: int) -> FileEntry | None:
    row = view.get("entry", rows.pack_inode(version + position))
    if row is None:
        return None
    parent, name = rows.parse_name(row)
    row = view.get("entry_name", rows.name_key(version, parent, name.encode()))
    return None if row is None else rows.parse_entry(parent, name, row)
