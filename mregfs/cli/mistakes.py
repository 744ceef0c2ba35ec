"""What a person meant who named a store as if it were a reference, or a mount as a store.

Decided here: which mistakes a command line that failed is looked at for, and what to write instead.
Not decided here: whether it fails (`session` asks here when it has). Only what was named is looked
at, and only then: a directory may be called as an artifact is.
"""

import os
from collections.abc import Iterable

from mregfs.errors import InvalidError
from mregfs.model import paths

__all__ = ["mistake"]

_DESCRIPTION = "store.json"
"""What a directory has that is a store."""


def mistake(store: str | None, mount: str | None, names: Iterable[str]) -> InvalidError | None:
    """Return what is wrong about a command line that failed, if it is a mix-up; else None.

    Args:
        store: what was named as the store.
        mount: what was named as the mount.
        names: what was given as references.
    """
    for name in names:
        if _is_store(name):
            return InvalidError(
                f"{name!r} is a store, not something in one", f"name it with --store {name}"
            )
    if mount and _is_store(mount):
        return InvalidError(f"{mount!r} is a store, not a mount", f"name it with --store {mount}")
    if store and os.path.lexists(paths.special(store, paths.STATUS)):
        return InvalidError(f"{store!r} is a mount, not a store", f"name it with --mount {store}")
    if store and set(store) & set(":@") and "://" not in store and not os.path.lexists(store):
        return InvalidError(
            f"{store!r} is no store", "name a directory with --store, and a reference without it"
        )
    return None


def _is_store(text: str) -> bool:
    return os.path.isfile(os.path.join(text, _DESCRIPTION))
