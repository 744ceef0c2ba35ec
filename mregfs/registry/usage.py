"""How much space versions take, and what deleting them would free.

Decided here: what counts as a version's own bytes and as shared ones. Not decided here: where bytes
are (`content`), when they are deleted. The Python API and extended attributes ask this.

A run of bytes of a pack is shared when a version that is not asked about refers to it too. Padding
and what nobody refers to counts for nobody.
"""

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from mregfs.model.records import ArtifactRecord, OwnerRecord, VersionRecord
from mregfs.model.reference import Location
from mregfs.model.state import State
from mregfs.ports import Index, View
from mregfs.registry import rows
from mregfs.registry.content import Content

__all__ = ["Usage", "select", "unique_size", "usage"]

_Runs = dict[str, list[tuple[int, int]]]
"""Per pack: start and end of runs of bytes."""


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


def usage(index: Index, content: Content, versions: Sequence[VersionRecord]) -> Usage:
    """Return the space that these versions take; loads their content if need be.

    Other versions count as far as this host has looked into them.
    """
    for version in versions:
        content.ensure(version)
    asked = {version.inode for version in versions}
    own: _Runs = {}
    others: _Runs = {}
    unique = 0
    with index.read() as view:
        for version in versions:
            unique += _add_runs(view, version.inode, version.entries, own)
        state = State(view)
        for inode in _neighbours(view, own.keys(), asked):
            found = state.inode_at_or_below(inode)
            record = found[1] if found else None
            if record is not None and record.kind == "version":
                neighbour = state.version(record.parent, record.number)
                if neighbour is not None:
                    _add_runs(view, inode, neighbour.entries, others, only=own)
    shared = 0
    for pack, runs in own.items():
        mine = _union(runs)
        theirs = _union(others.get(pack, []))
        total = sum(end - start for start, end in mine)
        common = _overlap(mine, theirs)
        unique += total - common
        shared += common
    return Usage(
        logical=sum(version.size for version in versions),
        unique=unique,
        shared=shared,
        files=sum(version.files for version in versions),
        versions=len(versions),
        freed_by_deleting=unique,
    )


def _add_runs(
    view: View, version: int, entries: int, runs: _Runs, only: _Runs | None = None
) -> int:
    """Collect where a version's bytes are; return how many are in its layout itself."""
    inline = 0
    end = rows.pack_inode(version + entries)
    for key, row in view.scan("layout", b"", rows.pack_inode(version)):
        if key > end:
            break
        layout = rows.parse_layout(row)
        inline += len(layout.inline or b"")
        for extent in layout.extents:
            if only is None or extent.pack in only:
                run = (extent.offset, extent.offset + extent.length)
                runs.setdefault(extent.pack, []).append(run)
    return inline


def _neighbours(view: View, packs: Iterable[str], asked: set[int]) -> set[int]:
    """Return the versions, other than those asked about, that refer to any of these packs."""
    found = set()
    for pack in packs:
        for key, _ in view.scan("pack_ref", bytes.fromhex(pack)):
            found.add(rows.parse_reference(key))
    return found - asked


def _union(runs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start, end in sorted(runs):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _overlap(mine: list[tuple[int, int]], theirs: list[tuple[int, int]]) -> int:
    total = position = 0
    for start, end in mine:
        while position < len(theirs) and theirs[position][1] <= start:
            position += 1
        at = position
        while at < len(theirs) and theirs[at][0] < end:
            total += min(end, theirs[at][1]) - max(start, theirs[at][0])
            at += 1
    return total
