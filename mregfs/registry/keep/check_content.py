"""Checks what is in versions: manifests, layouts, that packs are there and long enough.

Decided here: what must agree with what, what is of no version (`check.md`). Not decided here: the
forms (`model.manifest`, `model.layout`), the bytes in packs (`check_data`).
"""

from collections.abc import Iterable, Iterator

import msgspec

from mregfs.errors import CorruptError, NotFoundError
from mregfs.model.digest import BLOCK, block_digest, file_digest
from mregfs.model.layout import Extent, FileLayout, Layout, decode_layout, layout_key
from mregfs.model.manifest import Manifest, ManifestEntry, decode_manifest, manifest_key
from mregfs.model.records import VersionRecord
from mregfs.model.state import State, View
from mregfs.ports.index import Index
from mregfs.ports.objects import ObjectStore
from mregfs.ports.packs import PackStore
from mregfs.registry.keep.findings import CheckProgress, Findings, and_more
from mregfs.registry.read import rows

__all__ = ["ContentCheck", "StoredFile", "versions_of"]

_AGAIN = "mregfs fsck --repair restores it where it can; else delete the version, commit it again"

_OWN_TABLES = frozenset({"entry", "entry_name", "layout", "blocks", "content", "pack_ref"})
"""Rows that no other version writes."""


_Stored = tuple[bytes, tuple[Extent, ...]]
"""A file's digest, and where it is."""


class StoredFile(msgspec.Struct, frozen=True):
    """A file whose bytes are in packs."""

    names: tuple[str, ...]
    """`entity/project/artifact:vN PATH` of each version that has it."""
    digests: bytes
    """Of its blocks, joined."""
    size: int
    extents: tuple[Extent, ...]


class ContentCheck:
    """Goes through versions one by one, and remembers what they need."""

    def __init__(
        self,
        objects: ObjectStore,
        packs: PackStore,
        live: Index,
        findings: Findings,
        progress: CheckProgress,
    ) -> None:
        self._objects = objects
        self._packs = packs
        self._live = live
        self._findings = findings
        self._progress = progress
        self._needed: dict[str, int] = {}
        self._users: dict[str, dict[str, None]] = {}
        self._known: set[str] = set()
        self._files: dict[_Stored, tuple[bytes, int]] = {}
        self._names: dict[_Stored, list[str]] = {}
        self.unusable: set[str] = set()
        """Packs that are missing, or have another size than their layouts say."""
        # Listed before any version is looked at: what is committed meanwhile is no orphan.
        self._listed = {
            "pack": list(packs.list()),
            "layout": list(objects.list("layouts/")),
            "manifest": list(objects.list("manifests/")),
        }

    def run(self, versions: Iterable[tuple[str, VersionRecord]], total: int) -> None:
        """Check versions, by name, and the packs that they need."""
        for done, (name, version) in enumerate(versions):
            self._progress("versions", done, total)
            self._look_at(name, version)
            self._findings.versions += 1
        for pack, size in sorted(self._needed.items()):
            self._look_at_pack(pack, size)
        self._findings.packs = len(self._needed)

    def files(self) -> list[StoredFile]:
        """Return the files that are in packs, in pack order; the same bytes at one place once."""
        files = [
            StoredFile(tuple(self._names[place]), digests, size, place[1])
            for place, (digests, size) in self._files.items()
        ]
        return sorted(files, key=lambda file: (file.extents[0].pack, file.extents[0].offset))

    def sizes(self) -> dict[str, int]:
        """Return the size that each pack must have."""
        return dict(self._needed)

    def find_orphans(self) -> None:
        """Tell what is of no version; only right after all versions were looked at."""
        for kind, listed in self._listed.items():
            used = self._needed.keys() if kind == "pack" else self._known
            orphans = [each for each in listed if each not in used]
            if orphans:
                plural = kind if len(orphans) == 1 else f"{kind}s"
                what = f"{len(orphans)} {plural} belong{'s' * (len(orphans) == 1)} to no version"
                self._findings.should(
                    kind,
                    what,
                    "nothing to do: a deletion left it, or a commit is under way",
                    orphans,
                )

    # ---- one version

    def _look_at(self, name: str, version: VersionRecord) -> None:
        if version.damage:
            self._findings.marked.add(name)
        self._known |= {manifest_key(version.digest), layout_key(version.layout)}
        manifest = self._manifest(name, version)
        layout = self._layout(name, version)
        if layout is not None:
            for pack, info in layout.packs.items():
                known = self._needed.setdefault(pack, info.size)
                if known != info.size:
                    self._findings.must(
                        "layout",
                        f"{layout_key(version.layout)} of {name} says that pack {pack} has "
                        f"{info.size} bytes; another layout says {known}",
                        _AGAIN,
                        [name],
                    )
                self._users.setdefault(pack, {})[name] = None
        if manifest is None or layout is None:
            return
        problem = self._disagreement(name, manifest, layout)
        if problem:
            key = layout_key(version.layout)
            self._findings.must(
                "layout", f"{key} of {name}: {problem}", _AGAIN, [name], versions=[name], keys=[key]
            )
            return
        self._compare_index(name, version, manifest, layout)

    def _manifest(self, name: str, version: VersionRecord) -> Manifest | None:
        key = manifest_key(version.digest)
        try:
            manifest = decode_manifest(self._objects.get(key), version.digest)
        except NotFoundError:
            self._findings.must(
                "manifest",
                f"{key} of {name} is missing",
                _AGAIN,
                [name],
                versions=[name],
                keys=[key],
            )
        except CorruptError as exc:
            self._findings.must(
                "manifest",
                f"{exc.message} (of {name})",
                _AGAIN,
                [name],
                versions=[name],
                keys=[key],
            )
        else:
            counted = (manifest.size, manifest.files, len(manifest.entries))
            if counted == (version.size, version.files, version.entries):
                return manifest
            self._findings.must(
                "manifest",
                f"{key} is not that of {name}: the log has other sizes",
                _AGAIN,
                [name],
                versions=[name],
                keys=[key],
            )
        return None

    def _layout(self, name: str, version: VersionRecord) -> Layout | None:
        key = layout_key(version.layout)
        try:
            return decode_layout(self._objects.get(key), version.layout)
        except NotFoundError:
            self._findings.must(
                "layout", f"{key} of {name} is missing", _AGAIN, [name], versions=[name], keys=[key]
            )
        except CorruptError as exc:
            self._findings.must(
                "layout", f"{exc.message} (of {name})", _AGAIN, [name], versions=[name], keys=[key]
            )
        return None

    def _disagreement(self, name: str, manifest: Manifest, layout: Layout) -> str:
        """Return where manifest and layout contradict each other; empty when nowhere."""
        positions = set()
        for position, entry in enumerate(manifest.entries, 1):
            if entry.kind != "file":
                continue
            positions.add(position)
            file = layout.files.get(position)
            if file is None or file.size != entry.size:
                return f"it does not say where the bytes of {entry.path!r} are"
            if not _is_of(entry, file):
                return f"its digests are not those of {entry.path!r}"
            self._findings.files += 1
            if file.extents:
                digest = bytes.fromhex(entry.digest)
                place = (digest, file.extents)
                self._files[place] = file.blocks or digest, file.size
                self._names.setdefault(place, []).append(f"{name} {entry.path}")
        return "" if positions == layout.files.keys() else "it is of another version"

    def _compare_index(
        self, name: str, version: VersionRecord, manifest: Manifest, layout: Layout
    ) -> None:
        puts = rows.rows_of(version.inode, version.digest, version.layout, manifest, layout)
        with self._live.read() as view:
            if view.get("content", rows.pack_inode(version.inode)) is None:
                return  # not loaded yet
            for table, key, value in puts:
                if table in _OWN_TABLES and view.get(table, key) != value:
                    self._findings.must(
                        "index",
                        f"the index of this host has something else for {name} (table {table!r})",
                        "rebuild it: mregfs reindex",
                        [name],
                    )
                    return

    def _look_at_pack(self, pack: str, needed: int) -> None:
        users = list(self._users[pack])
        try:
            size = self._packs.size(pack)
        except NotFoundError:
            what = f"pack {pack} is missing"
        else:
            if size == needed:
                return
            what = f"pack {pack} has {size} bytes instead of {needed}"
        self.unusable.add(pack)
        self._findings.must(
            "pack",
            f"{what}, for {users[0]}{and_more(len(users) - 1)}",
            _AGAIN,
            users,
            versions=users,
            keys=[pack],
        )


def _is_of(entry: ManifestEntry, file: FileLayout) -> bool:
    """Tell whether the digests of a layout's part are those of the manifest's file."""
    if file.inline is not None:
        return file.size <= BLOCK and block_digest(file.inline).hex() == entry.digest
    return not file.blocks or file_digest(file.blocks, file.size).hex() == entry.digest


def versions_of(view: View) -> Iterator[tuple[str, VersionRecord]]:
    """Yield name and record of every version."""
    state = State(view)
    for project in state.projects():
        for artifact in state.artifacts(f"{project.entity}/{project.name}"):
            for version in state.versions(artifact.inode):
                yield f"{artifact.project}/{artifact.name}:v{version.number}", version
