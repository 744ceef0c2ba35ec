"""How much space versions take, and what deleting them would free.

Decided here: what counts as a version's own bytes and as shared ones. Not decided here: where bytes
are (`content`), when they are deleted. The Python API and extended attributes ask this.

A run of bytes of a pack is shared when a version that is not asked about refers to it too. Padding
and what nobody refers to counts for nobody.

The versions that share a pack are asked only until all that was asked about is known to be shared,
and once for each layout; no other version is looked at.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import msgspec

from mregfs.model.records import ArtifactRecord, OwnerRecord, VersionRecord, VersionSize
from mregfs.model.reference import Location
from mregfs.model.state import State
from mregfs.ports import Index, View
from mregfs.registry import rows
from mregfs.registry.content import Content

__all__ = ["Usage", "select", "unique_size", "usage", "usage_of_all"]

MOST_LOADED = 1000
"""Layouts that a look at the whole store reads from the store at most."""

_Run = tuple[int, int]
"""Start and end of a run of bytes of a pack."""

_Runs = dict[str, list[_Run]]
"""Per pack."""


class Usage(msgspec.Struct, frozen=True):
    """Space that some versions take, in bytes."""

    logical: int
    """As the files add up."""
    unique: int
    """Stored for these versions alone."""
    shared: int
    """Stored, and used by other versions as well."""
    files: int
    versions: int
    freed_by_deleting: int
    """What deleting all of them, and then `gc`, gives back."""


def unique_size(index: Index, content: Content, version: VersionRecord) -> int:
    """Return the bytes that are stored for one version alone."""
    return usage(index, content, [version]).unique


def select(index: Index, location: Location | None) -> list[VersionRecord]:
    """Return the versions that a location names: one, or all of an owner; None: of the store.

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

    Other versions count as far as this host has looked into them. `check` is called again and again
    and may raise: then nobody waits any more.
    """
    for version in versions:
        check()
        content.ensure(version)
    asked = {version.inode for version in versions}
    own: _Runs = {}
    unique = shared = 0
    with index.read() as view:
        for version in versions:
            check()
            unique += _add_runs(view, version, own)
        for pack, runs in own.items():
            check()
            mine = _union(runs)
            alone = _length(_alone(view, pack, mine, asked))
            unique += alone
            shared += _length(mine) - alone
    return Usage(
        logical=sum(version.size for version in versions),
        unique=unique,
        shared=shared,
        files=sum(version.files for version in versions),
        versions=len(versions),
        freed_by_deleting=unique,
    )


def usage_of_all(index: Index, content: Content, check: Callable[[], None] = lambda: None) -> Usage:
    """Return the space that all versions of the store take; nothing of it is shared with others.

    Versions with the same layout have their bytes at the same place, so each layout is looked at
    once. Of those that this host has not looked into, it loads `MOST_LOADED`; the others count as
    if they had no packs. `check` is that of `usage`.
    """
    logical = files = count = 0
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
    _load_missing(index, content, first.values(), check)
    runs: _Runs = {}
    unique = 0
    with index.read() as view:
        for layout, version in first.items():
            check()
            unique += _add_runs(view, version, runs) * copies[layout]
    unique += sum(_length(_union(each)) for each in runs.values())
    return Usage(
        logical=logical,
        unique=unique,
        shared=0,
        files=files,
        versions=count,
        freed_by_deleting=unique,
    )


def _load_missing(
    index: Index, content: Content, versions: Iterable[VersionSize], check: Callable[[], None]
) -> None:
    with index.read() as view:
        state = State(view)
        missing = []
        for each in versions:
            if view.get("content", rows.pack_inode(each.inode)) is None:
                record = state.version(each.artifact, each.number)
                if record is not None:
                    missing.append(record)
            if len(missing) == MOST_LOADED:
                break
    for version in missing:
        check()
        content.ensure(version)


def _add_runs(view: View, version: VersionRecord | VersionSize, runs: _Runs) -> int:
    """Collect where a version's bytes are; return how many are in its layout itself."""
    inline = 0
    end = rows.pack_inode(version.inode + version.entries)
    for key, row in view.scan("layout", b"", rows.pack_inode(version.inode)):
        if key > end:
            break
        layout = rows.parse_layout(row)
        inline += len(layout.inline or b"")
        for extent in layout.extents:
            run = (extent.offset, extent.offset + extent.length)
            runs.setdefault(extent.pack, []).append(run)
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
            theirs: _Runs = {}
            _add_runs(view, neighbour, theirs)
            for run in theirs.get(pack, ()):
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
