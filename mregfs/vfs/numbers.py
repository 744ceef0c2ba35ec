"""Inode and handle numbers: which tree each of them belongs to.

Decided here: the spaces of both, and the numbers that are the same in every mount. Not decided
here: numbers of what is in the log (`model.rules` allocates them), what a number stands for (the
trees).

| inode numbers | what |
|---|---|
| 1 to 15 | fixed directories of this mount |
| 1024 to 2**60 - 1 | allocated by the log |
| 2**60 to 2**60 + 15 | `.mregfs` and its files |
| 2**60 + 16 and up | `control`, for those who open it while others write to it |
| 2**60 + 2**59 and up | names below `query`, in memory |
| 2**61 and up | symlinks on their way to become an alias, in memory |
| 2**62 and up | drafts: the lower bits are the number on the host |

A handle has its space in its lowest two bits.
"""

import itertools
from collections.abc import Iterator
from enum import IntEnum

__all__ = [
    "ARTIFACTS",
    "COLLECTIONS",
    "CONTROL",
    "CONTROLS",
    "EVENTS",
    "FIRST_FREE",
    "META",
    "OWN_ENTITY",
    "PENDING",
    "PROJECTS",
    "QUERIES",
    "QUERY",
    "ROOT",
    "SELF",
    "STATUS",
    "Space",
    "handles_of",
    "inode_of_draft",
    "inode_on_host",
    "space_of",
    "spaces_by_inode",
]


class Space(IntEnum):
    """Whose a number is."""

    REGISTRY = 0
    SPECIAL = 1
    PENDING = 2
    DRAFTS = 3


ROOT = 1
ARTIFACTS = 2
COLLECTIONS = 3
PROJECTS = 5
SELF = 10
OWN_ENTITY = 11
FIRST_FREE = 16
"""Numbers below are fixed; the log's begin higher still (`FIRST_INODE`)."""

META = 1 << 60
CONTROL = META + 1
EVENTS = META + 2
STATUS = META + 3
QUERY = META + 4
CONTROLS = META + 16
"""The first of the other numbers of `control`."""
QUERIES = META | 1 << 59
"""Set in the numbers of names below `query`; bit 0 tells a question from a part of one."""

PENDING = 1 << 61
"""The first number of symlinks on their way."""

_DRAFT = 1 << 62
"""Set in the number of everything in the staging area, and of nothing else."""

_SHIFT = 60
_OF_INODES = (
    Space.REGISTRY,
    Space.SPECIAL,
    *(Space.PENDING,) * 2,
    *(Space.DRAFTS,) * 4,
    *(Space.REGISTRY,) * 8,  # nobody gives these out: the registry says ESTALE
)
"""By the highest four bits of an inode number."""


def spaces_by_inode() -> tuple[tuple[Space, ...], int]:
    """Return the space of each inode number `n` as a table, and by how much to shift `n` for it."""
    return _OF_INODES, _SHIFT


def handles_of(space: Space) -> Iterator[int]:
    """Yield the handle numbers of a space; a handle's lowest two bits are its space."""
    return itertools.count(len(Space) | space, len(Space))


def space_of(inode: int) -> Space:
    """Return the space of an inode number."""
    return _OF_INODES[inode >> _SHIFT]


def inode_of_draft(host: int) -> int:
    """Return the number of what has the number `host` on the host's file system."""
    return _DRAFT | (host & (_DRAFT - 1))


def inode_on_host(inode: int) -> int:
    """Return the number that something in the staging area has on the host's file system."""
    return inode & (_DRAFT - 1)
