"""How much space versions take, and what deleting them would free.

Decided here: what counts as a version's own bytes and as shared ones. Not decided here: where bytes
are (`content`), when they are deleted. The Python API and extended attributes ask this.

A run of bytes of a pack is shared when a version that is not asked about refers to it too. Padding
and what nobody refers to counts for nobody.

The versions that share a pack are asked only until all that was asked about is known to be shared,
and once for each layout. Which they are the index knows of versions that this host has looked into;
of the others the layouts are read, one at a time, and not kept. So the answer is the same whatever
the index has, and takes memory for the runs that are apart, not for all there are.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from mregfs.errors import CorruptError
from mregfs.model.layout import Extent, Layout
from mregfs.model.records import ArtifactRecord, OwnerRecord, VersionRecord, VersionSize
from mregfs.model.reference import Location
from mregfs.model.state import State, View
from mregfs.ports.index import Index
from mregfs.registry.read import rows
from mregfs.registry.read.content import Content
from mregfs.registry.read.results import Usage

__all__ = ["Usage", "select", "unique_size", "usage", "usage_of_all"]

_JOINED_FROM = 4096
"""Runs of a pack that are kept before those that touch are joined."""

_Run = tuple[int, int]
"""Start and end of a run of bytes of a pack."""

_Runs = dict[str, list[_Run]]
"""Per pack."""


def unique_size(index: Index, content: Content, version: VersionRecord) -> int:
    """Return the bytes that are stored for one version alone, as far as this host knows.

    What it shares with versions that this host has not looked into counts as its own: this is asked
    of one version after the other. `usage` is exact.
    """
    return _usage(index, content, [version], lambda: None, exact=False).unique


def select(
    index: Index,
    location: Location | None,
    may_read: Callable[[str], bool] = lambda project: True,
) -> list[VersionRecord]:
    """Return the versions that a location names: one, or all of an owner.

    None: all of the store, in the projects that may be read.

    Raises:
        NotFoundError: there is nothing of that name.
    """
    with index.read() as view:
        state = State(view)
        if location is not None and not location.is_owner:
            return [state.resolve(location).version]
        if location is None:
            owners: Iterable[OwnerRecord] = (
                artifact
                for project in state.projects()
                if may_read(f"{project.entity}/{project.name}")
                for artifact in state.artifacts(f"{project.entity}/{project.name}")
            )
        else:
            owners = [state.find_owner(location)]
        found = {version.inode: version for each in owners for version in _versions(state, each)}
    return list(found.values())


def _versions(state: State, owner: OwnerRecord) -> Iterator[VersionRecord]:
    if isinstance(owner, ArtifactRecord):
        yield from state.versions(owner.inode)
        return
    for link in state.links(owner.inode):
        yield state.resolve_number(owner, link.number).version


def usage(
    index: Index,
    content: Content,
    versions: Sequence[VersionRecord],
    check: Callable[[], None] = lambda: None,
) -> Usage:
    """Return the space that these versions take; loads their content if need be.

    `check` is called again and again and may raise: then nobody waits any more.
    """
    return _usage(index, content, versions, check, exact=True)


def _usage(
    index: Index,
    content: Content,
    versions: Sequence[VersionRecord],
    check: Callable[[], None],
    *,
    exact: bool,
) -> Usage:
    for version in versions:
        check()
        content.ensure(version)
    asked = {version.inode for version in versions}
    own = _Space()
    inline = unknown = 0
    alone: _Runs = {}
    strangers: list[VersionSize] = []
    with index.read() as view:
        for version in versions:
            check()
            inline += _add_runs(view, version, own)
        for pack, runs in own.joined().items():
            check()
            alone[pack] = _alone(view, pack, runs, asked)
        if exact and any(alone.values()):
            strangers = _not_looked_into(view, asked, check)
    for stranger in strangers:
        if not any(alone.values()):
            break
        check()
        try:
            layout = content.layout(stranger)
        except CorruptError:
            unknown += 1
            continue
        for extent in _extents(layout):
            if extent.pack in alone:
                _subtract(alone[extent.pack], (extent.offset, extent.offset + extent.length))
    unique = inline + sum(map(_length, alone.values()))
    return Usage(
        logical=sum(version.size for version in versions),
        unique=unique,
        shared=inline + own.length() - unique,
        files=sum(version.files for version in versions),
        versions=len(versions),
        freed_by_deleting=unique,
        unknown=unknown,
    )


def usage_of_all(index: Index, content: Content, check: Callable[[], None] = lambda: None) -> Usage:
    """Return the space that all versions of the store take; nothing of it is shared with others.

    Versions with the same layout have their bytes at the same place, so each layout is looked at
    once: in the index, or else in the store. `check` is that of `usage`.
    """
    logical = files = count = unknown = 0
    first: dict[str, VersionSize] = {}
    copies: dict[str, int] = {}
    with index.read() as view:
        for version in State(view).version_sizes():
            check()
            logical += version.size
            files += version.files
            count += 1
            if version.layout in copies:
                copies[version.layout] += 1
            else:
                copies[version.layout] = 1
                first[version.layout] = version
    space = _Space()
    inline = 0
    with index.read() as view:
        for version in list(first.values()):
            check()
            if _is_looked_into(view, version):
                inline += _add_runs(view, version, space) * copies[version.layout]
                del first[version.layout]
    for version in first.values():
        check()
        try:
            layout = content.layout(version)
        except CorruptError:
            unknown += copies[version.layout]
            continue
        for file in layout.files.values():
            inline += len(file.inline or b"") * copies[version.layout]
        for extent in _extents(layout):
            space.add(extent)
    unique = inline + space.length()
    return Usage(
        logical=logical,
        unique=unique,
        shared=0,
        files=files,
        versions=count,
        freed_by_deleting=unique,
        unknown=unknown,
    )


class _Space:
    """Runs of packs, each byte counted once."""

    def __init__(self) -> None:
        self._runs: _Runs = {}
        self._join_at: dict[str, int] = {}

    def add(self, extent: Extent) -> None:
        """Add a run; what touches is joined now and then, so that not all are in memory."""
        runs = self._runs.setdefault(extent.pack, [])
        runs.append((extent.offset, extent.offset + extent.length))
        if len(runs) > self._join_at.get(extent.pack, _JOINED_FROM):
            joined = self._runs[extent.pack] = _union(runs)
            self._join_at[extent.pack] = 2 * len(joined) + _JOINED_FROM

    def joined(self) -> _Runs:
        """Return the runs of each pack, sorted and apart."""
        self._runs = {pack: _union(runs) for pack, runs in self._runs.items()}
        return self._runs

    def length(self) -> int:
        """Return how many bytes they are."""
        return sum(map(_length, self.joined().values()))


def _not_looked_into(
    view: View, asked: Collection[int], check: Callable[[], None]
) -> list[VersionSize]:
    """Return, for each layout that the index does not have, a version that is not asked about."""
    known: set[str] = set()
    found: dict[str, VersionSize] = {}
    for version in State(view).version_sizes():
        check()
        if version.inode in asked or version.layout in known:
            continue
        if _is_looked_into(view, version):
            known.add(version.layout)
        else:
            found.setdefault(version.layout, version)
    return [version for layout, version in found.items() if layout not in known]


def _is_looked_into(view: View, version: VersionSize) -> bool:
    row = view.get("content", rows.pack_inode(version.inode))
    return row is not None and rows.parse_content(row)[1] == version.layout


def _extents(layout: Layout) -> Iterator[Extent]:
    for file in layout.files.values():
        yield from file.extents


def _add_runs(view: View, version: VersionRecord | VersionSize, space: _Space) -> int:
    """Collect where a version's bytes are; return how many are in its layout itself."""
    inline = 0
    end = rows.pack_inode(version.inode + version.entries)
    for key, row in view.scan("layout", b"", rows.pack_inode(version.inode)):
        if key > end:
            break
        layout = rows.parse_layout(row)
        inline += len(layout.inline or b"")
        for extent in layout.extents:
            space.add(extent)
    return inline


def _alone(view: View, pack: str, mine: list[_Run], asked: Collection[int]) -> list[_Run]:
    """Return what of these runs no version refers to but those asked about."""
    state = State(view)
    left = list(mine)
    seen: set[bytes | None] = set()
    for key, _ in view.scan("pack_ref", bytes.fromhex(pack)):
        if not left:
            break
        inode = rows.parse_reference(key)
        if inode in asked:
            continue
        content = view.get("content", rows.pack_inode(inode))
        neighbour = None if content in seen else _version_at(state, inode)
        if neighbour is not None:
            seen.add(content)
            theirs = _Space()
            _add_runs(view, neighbour, theirs)
            for run in theirs.joined().get(pack, ()):
                _subtract(left, run)
    return left


def _version_at(state: State, inode: int) -> VersionRecord | None:
    record = state.inode(inode)
    if record is None or record.kind != "version":
        return None
    return state.version(record.parent, record.number)


def _subtract(runs: list[_Run], run: _Run) -> None:
    """Take one run out of runs that are sorted and apart."""
    start, end = run
    first = bisect_right(runs, start, key=lambda each: each[1])
    last = bisect_left(runs, end, lo=first, key=lambda each: each[0])
    if first == last:
        return
    rest = [(runs[first][0], start), (end, runs[last - 1][1])]
    runs[first:last] = [each for each in rest if each[0] < each[1]]


def _length(runs: Iterable[_Run]) -> int:
    return sum(end - start for start, end in runs)


def _union(runs: list[_Run]) -> list[_Run]:
    joined: list[_Run] = []
    for start, end in sorted(runs):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined
