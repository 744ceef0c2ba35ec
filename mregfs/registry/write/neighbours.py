"""Versions that a new one may turn out to be, or is likely to share bytes with.

Decided here: which those are. Not decided here: what they have in common (`dedup`).
"""

import logging

from mregfs.errors import CorruptError, MregfsError
from mregfs.model.commands import CommitRequest
from mregfs.model.records import VersionRecord
from mregfs.model.state import State
from mregfs.ports.index import Index
from mregfs.registry.read.content import Content

__all__ = ["find_version", "load_neighbours"]

log = logging.getLogger(__name__)

_NEIGHBOURS = 8  # newest versions of the artifact whose content is looked through for shared bytes


def find_version(index: Index, request: CommitRequest, digest: str) -> VersionRecord | None:
    """Return the version of the request's artifact that has this content, or None."""
    with index.read() as view:
        state = State(view)
        artifact = state.artifact(request.artifact.project, request.artifact.name)
        if artifact is None:
            return None
        number = state.sound_number(artifact.inode, digest)
        return None if number is None else state.version(artifact.inode, number)


def load_neighbours(index: Index, content: Content, request: CommitRequest) -> None:
    """Have the versions in the index that the new one is likely to share bytes with."""
    versions: list[VersionRecord] = []
    with index.read() as view:
        state = State(view)
        artifact = state.artifact(request.artifact.project, request.artifact.name)
        if artifact is not None:
            newest = state.versions(artifact.inode, reverse=True)
            versions += [version for version, _ in zip(newest, range(_NEIGHBOURS), strict=False)]
        for parent in request.parents:
            try:
                versions.append(state.resolve(parent).version)
            except MregfsError:
                continue  # the rules will say so
    for version in versions:
        try:
            content.ensure(version)
        except CorruptError as exc:
            log.error("not sharing with v%d: %s", version.number, exc)
