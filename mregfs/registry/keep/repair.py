"""Repairs a store: what was damaged is made again from what is left of it.

Decided here: what of each kind is made again from what, in which order, and what is done where
nothing is left (`check.md` §2). Not decided here: what is damaged (`check`), the bytes of packs
(`repair_packs`).

Nothing is done that was not said before, and nothing is put in place that was not verified. The
damaged object is kept in `damaged/`; of a pack nothing is kept.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import msgspec

from mregfs.errors import CorruptError, MregfsError, NotFoundError
from mregfs.model.changes import Entry, decode_entry, entry_key
from mregfs.model.checkpoint import checkpoint_sequence, decode_checkpoint
from mregfs.model.layout import (
    FileLayout,
    Layout,
    PackInfo,
    decode_layout,
    encode_layout,
    layout_key,
    make_layout,
)
from mregfs.model.manifest import (
    Manifest,
    ManifestEntry,
    decode_manifest,
    encode_manifest,
    manifest_key,
)
from mregfs.model.records import VersionRecord
from mregfs.model.state import View, pack_number
from mregfs.ports.index import Index
from mregfs.ports.objects import ObjectStore
from mregfs.registry.keep.findings import Finding, Report
from mregfs.registry.log.replay import entry_digest, read_head, read_recent
from mregfs.registry.read import rows

__all__ = ["Keeper", "LogRepair", "Step", "lost_versions", "repair_contents"]


class Step(msgspec.Struct, frozen=True):
    """One thing that a repair does."""

    what: str
    """A sentence that says so."""
    do: Callable[[], None]
    lost: bool = False
    """It undoes no damage, but says what is lost, so that all else goes on."""


class Keeper(Protocol):
    """An object store in which what is damaged can be exchanged."""

    def get(self, key: str) -> bytes:
        """See `ObjectStore`."""
        ...

    def list(self, prefix: str, start_after: str = "") -> Iterator[str]:
        """See `ObjectStore`."""
        ...

    def replace(self, key: str, data: bytes) -> None:
        """Put an object in the place of a damaged or missing one, durably; that one is kept."""
        ...

    def set_aside(self, key: str) -> None:
        """Take an object away; it is kept."""
        ...


class LogRepair:
    """What can be done for log entries that are damaged or lost.

    Args:
        objects: of the store.
        index: of this host.
        other: the objects of a copy of the store, if there is one.
    """

    def __init__(self, objects: Keeper, index: Index, other: ObjectStore | None) -> None:
        self._objects = objects
        self._index = index
        self._other = other
        self._mended: dict[int, bytes] = {}
        self._recent: dict[bytes, bytes] | None = None

    def plan(self, report: Report) -> list[Step]:
        """Return the steps for all that was found wrong with the log."""
        found = [each for each in report.findings if each.must and each.kind == "log"]
        keys = {key for each in found for key in each.keys}
        sequences = sorted((int(key[4:24]) for key in keys), reverse=True)
        steps = []
        for sequence in sequences:  # the last one first: its digest of the one before is a witness
            step = self._plan(sequence)
            if step is not None:
                steps.append(step)
        return steps[::-1]

    def _plan(self, sequence: int) -> Step | None:
        key = entry_key(sequence)
        present = self._stored(sequence)
        for where, data in self._candidates(sequence):
            if self._fits(sequence, data):
                self._mended[sequence] = data
                if data == present:
                    return None  # it was the other one that did not fit
                return Step(
                    f"write {key} again, from {where}", _replacing(self._objects, key, data)
                )
        head = self._index.applied()
        later = self._later(sequence)
        if not later and head < sequence and present is not None:
            return Step(
                f"take {key} away, of which there is no copy: what it changed is lost",
                lambda: self._objects.set_aside(key),
                lost=True,
            )
        return None

    def _later(self, sequence: int) -> bool:
        return next(self._objects.list("log/", entry_key(sequence)), None) is not None

    def _candidates(self, sequence: int) -> Iterator[tuple[str, bytes]]:
        with self._index.read() as view:
            data = read_recent(view, sequence)
        if data is not None:
            yield "the index of this host", data
        data = self._checkpointed().get(pack_number(sequence))
        if data is not None:
            yield "a checkpoint", data
        if self._other is not None:
            try:
                yield "the copy of the store", self._other.get(entry_key(sequence))
            except MregfsError:
                pass

    def _checkpointed(self) -> dict[bytes, bytes]:
        """Return the bytes of entries that sound checkpoints have."""
        if self._recent is None:
            self._recent = {}
            for key in self._objects.list("checkpoints/"):
                if checkpoint_sequence(key) is None:
                    continue
                try:
                    checkpoint = decode_checkpoint(self._objects.get(key), key)
                    for table, row_key, value in checkpoint.rows():
                        if table == "recent":
                            self._recent[row_key] = value
                except (CorruptError, NotFoundError):
                    continue
        return self._recent

    def _fits(self, sequence: int, data: bytes) -> bool:
        """Tell whether these are the bytes of an entry: by what others say of it, and it of them.

        What says nothing does not contradict.
        """
        entry = _decoded(sequence, data)
        if entry is None:
            return False
        with self._index.read() as view:
            head = read_head(view)
        digest = entry_digest(data)
        if head.sequence == sequence and head.digest != digest:
            return False
        after = self._entry(sequence + 1)
        if after is not None and after.previous != digest:
            return False
        before = self._stored(sequence - 1) if self._entry(sequence - 1) is not None else None
        ahead = None if before is None else _decoded(sequence - 1, before)
        if ahead is not None and entry.at_ns <= ahead.at_ns:
            return False
        proven = after is not None or head.sequence == sequence
        return proven or before is None or entry.previous == entry_digest(before)

    def _entry(self, sequence: int) -> Entry | None:
        data = self._mended.get(sequence) or self._stored(sequence)
        return None if data is None else _decoded(sequence, data)

    def _stored(self, sequence: int) -> bytes | None:
        if sequence < 1:
            return None
        try:
            return self._objects.get(entry_key(sequence))
        except MregfsError:
            return None


def _decoded(sequence: int, data: bytes) -> Entry | None:
    try:
        entry = decode_entry(data, entry_key(sequence))
    except CorruptError:
        return None
    return entry if entry.sequence == sequence else None


def repair_contents(
    findings: Sequence[Finding],
    versions: dict[str, VersionRecord],
    objects: Keeper,
    index: Index,
    other: ObjectStore | None,
    size_of: Callable[[str], int],
) -> list[Step]:
    """Return the steps for manifests and layouts; those of which nothing is left have none.

    Args:
        findings: what was found.
        versions: all that the registry has, by name.
        objects: of the store.
        index: of this host, which has the content of versions that were read.
        other: the objects of a copy of the store, if there is one.
        size_of: tells the size of a pack.
    """
    steps: dict[str, Step] = {}
    for finding in findings:
        if finding.kind not in ("manifest", "layout") or not finding.keys:
            continue
        for name in finding.versions:
            version = versions.get(name)
            if version is None:
                continue
            wanted = finding.keys[0]
            for where, key, data in _contents(version, index, other, size_of):
                if key == wanted and _is_sound(key, data, version):
                    what = f"write {key} of {name} again, from {where}"
                    steps[key] = Step(what, _replacing(objects, key, data))
                    break
    return list(steps.values())


def _replacing(objects: Keeper, key: str, data: bytes) -> Callable[[], None]:
    return lambda: objects.replace(key, data)


def _contents(
    version: VersionRecord,
    index: Index,
    other: ObjectStore | None,
    size_of: Callable[[str], int],
) -> Iterator[tuple[str, str, bytes]]:
    """Yield where manifest and layout may be taken from, their keys, and their bytes."""
    keys = (manifest_key(version.digest), layout_key(version.layout))
    if other is not None:  # first: it has the chunks too, by which later commits find what is alike
        for key in keys:
            try:
                yield "the copy of the store", key, other.get(key)
            except MregfsError:
                continue
    with index.read() as view:
        found = _from_rows(view, version, size_of)
    if found is not None:
        manifest, layout = found
        yield "the index of this host", keys[0], encode_manifest(manifest)
        yield "the index of this host", keys[1], encode_layout(layout)


def _from_rows(
    view: View, version: VersionRecord, size_of: Callable[[str], int]
) -> tuple[Manifest, Layout] | None:
    """Return what the rows of a version say; None when they are not there."""
    content = view.get("content", rows.pack_inode(version.inode))
    if content is None or rows.parse_content(content) != (version.digest, version.layout):
        return None
    paths = {0: ""}
    entries = []
    files = {}
    for position in range(1, version.entries + 1):
        key = rows.pack_inode(version.inode + position)
        row = view.get("entry", key)
        if row is None:
            return None
        parent, name = rows.parse_name(row)
        named = view.get("entry_name", rows.name_key(version.inode, parent, name.encode()))
        if named is None or parent not in paths:
            return None
        entry = rows.parse_entry(parent, name, named)
        paths[position] = path = f"{paths[parent]}/{name}".lstrip("/")
        is_file = entry.kind == "file"
        entries.append(
            ManifestEntry(
                path,
                entry.kind,
                entry.size if is_file else 0,
                entry.executable,
                entry.digest.hex(),
                entry.target,
            )
        )
        if is_file:
            stored = view.get("layout", key)
            if stored is None:
                return None
            layout = rows.parse_layout(stored)
            blocks = view.get("blocks", key) or b""
            files[position] = msgspec.structs.replace(layout, blocks=bytes(blocks))
    return Manifest(tuple(entries)), make_layout(files, _pack_infos(files, size_of))


def _pack_infos(
    files: Mapping[int, FileLayout], size_of: Callable[[str], int]
) -> dict[str, PackInfo]:
    """Return what a layout says of packs: their sizes, or how long those must be that are lost."""
    sizes: dict[str, int] = {}
    for _, file in sorted(files.items()):
        for extent in file.extents:
            end = extent.offset + extent.length
            sizes[extent.pack] = max(end, sizes.get(extent.pack, 0))
    for pack, end in sizes.items():
        with contextlib.suppress(MregfsError):
            sizes[pack] = max(end, size_of(pack))
    return {pack: PackInfo(size) for pack, size in sizes.items()}


def _is_sound(key: str, data: bytes, version: VersionRecord) -> bool:
    try:
        if key.startswith("manifests/"):
            decode_manifest(data, version.digest)
        else:
            layout = decode_layout(data, version.layout)
            return sum(file.size for file in layout.files.values()) == version.size
    except CorruptError:
        return False
    return True


def lost_versions(findings: Iterable[Finding], mended: set[str]) -> dict[str, str]:
    """Return the versions that nothing can be done for, and what they have lost."""
    lost: dict[str, str] = {}
    for finding in findings:
        if finding.must and not mended.issuperset(finding.keys):
            for name in finding.versions:
                lost.setdefault(name, finding.what)
    return lost
