"""Features: how a store tells an older program what that must not do.

Decided here: what a feature's name in `store.json` or in a log entry means to a program that does
not know it (`registry/format.md` §9). Not decided here: what a known feature does.

A feature maps its name to the operations that need it. Who does not know the name must not carry
out those, and may carry out all others; an empty list is for information alone.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

from mregfs.errors import UnsupportedError

__all__ = ["KNOWN", "Features", "Operation", "require", "unknown"]

Features = Mapping[str, tuple[str, ...]]
"""Names of features, and the operations that need each."""

Operation = Literal["read", "check", "write", "delete"]
"""To read what the log says and versions hold; to verify a store or repair it; to append to the
log; to delete versions and packs. An operation of another name is none of this program's."""

KNOWN: frozenset[str] = frozenset()
"""The features that this program knows, beyond the format as it was first released."""


def unknown(features: Features, operation: Operation) -> list[str]:
    """Return the features that an operation needs and this program does not know, sorted."""
    return sorted(
        name
        for name, operations in features.items()
        if operation in operations and name not in KNOWN
    )


def require(features: Features, operation: Operation, what: str) -> None:
    """Check that this program may carry out an operation on what has these features.

    Raises:
        UnsupportedError: it lacks one of them.
    """
    missing = unknown(features, operation)
    if missing:
        raise UnsupportedError(
            f"{what} cannot be {_DONE[operation]} by this mregfs, which does not know "
            f"{_listed(missing)}",
            "upgrade mregfs",
        )


_DONE = {
    "read": "read",
    "check": "checked",
    "write": "changed",
    "delete": "deleted from",
}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"the feature {name!r}" for name in names)
