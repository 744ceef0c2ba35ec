"""Which store and mount a command line means: the sources that may say so, in their order.

Decided here: the order of `--store`, the environment, the mount one stands in, the only mount, the
default; which of them must agree. Not decided here: what follows for names and paths (`place`).
"""

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mregfs.errors import InvalidError, NotFoundError
from mregfs.host.mounts import Mount, is_of_store
from mregfs.model import paths
from mregfs.wiring.address import StoreAddress

__all__ = ["Choice", "Hints", "choose", "is_below", "store_path"]


def choose(hints: "Hints") -> "Choice":
    """Return what the first source says that says anything.

    Raises:
        NotFoundError: nothing is mounted where a mount was named.
        InvalidError: the mount named is of another store than the store named; or nothing was
            named, there are mounts of several stores, and there is no default one.
        UnsupportedError: the store named is an address of no directory.
    """
    return next(filter(None, (source(hints) for source in SOURCES)))


class Hints(NamedTuple):
    """All that can say which store is meant."""

    store: str | None
    mount: str | None
    store_variable: str | None
    mount_variable: str | None
    here: str
    mounts: Sequence[Mount]


class Choice(NamedTuple):
    """What a source says."""

    store: str
    mount: Mount | None = None
    was_named: bool = False
    """Whether a person named the store: otherwise a mount did, or it is the default one."""

    @property
    def is_through(self) -> bool:
        """Tell whether only a mount of another user says which store it is."""
        return not self.was_named and self.mount is not None and not self.mount.is_believed


def _option_of_store(hints: Hints) -> Choice | None:
    """`--store`; the mount of `--mount` has to be one of it, that of the variable may be."""
    if not hints.store:
        return None
    store = store_path(hints.store)
    if hints.mount:
        return Choice(store, _mount_of(hints.mount, store, hints.mounts), was_named=True)
    mount = _find_mount(hints.mount_variable, hints.mounts) if hints.mount_variable else None
    if mount is not None and not is_of_store(mount, store):
        mount = None
    return Choice(store, mount, was_named=True)


def _option_of_mount(hints: Hints) -> Choice | None:
    """`--mount`: its store."""
    return _named_mount(hints.mount, hints.mounts)


def _variable_of_store(hints: Hints) -> Choice | None:
    """`$MREGFS_STORE`; where `$MREGFS_MOUNT` is mounted, it has to be one of it."""
    if not hints.store_variable:
        return None
    store, mount = store_path(hints.store_variable), None
    if hints.mount_variable and _find_mount(hints.mount_variable, hints.mounts):
        mount = _mount_of(hints.mount_variable, store, hints.mounts)
    return Choice(store, mount, was_named=True)


def _variable_of_mount(hints: Hints) -> Choice | None:
    """`$MREGFS_MOUNT`: its store."""
    return _named_mount(hints.mount_variable, hints.mounts)


def _mount_one_stands_in(hints: Hints) -> Choice | None:
    inside = [entry for entry in hints.mounts if is_below(hints.here, entry.point)]
    mount = max(inside, key=lambda entry: len(entry.point), default=None)
    return None if mount is None else Choice(mount.store, mount)


def _only_store(hints: Hints) -> Choice | None:
    """The store that alone is mounted, by root or this user.

    A mount of another user is nobody's choice but his who names it, or stands in it.
    """
    stores = _believed_stores(hints)
    return Choice(stores[0]) if len(stores) == 1 else None


def _default_store(hints: Hints) -> Choice | None:
    """The default store of this user; where there is none, only if nothing is mounted either.

    Raises:
        InvalidError: there is none, and what is mounted leaves open which store is meant.
    """
    from mregfs.config import default_store

    default = str(default_store())
    if os.path.lexists(default) or not hints.mounts:
        return Choice(default)
    stores = _believed_stores(hints)
    if stores:
        raise InvalidError(
            f"several stores are mounted here: {', '.join(stores)}", "name one with --store"
        )
    points = ", ".join(sorted(entry.point for entry in hints.mounts))
    raise InvalidError(
        f"there is no store {default}; the mounts here belong to other users: {points}",
        "name one of these with --mount (or MREGFS_MOUNT), to look at it and work in it",
    )


SOURCES: tuple[Callable[[Hints], Choice | None], ...] = (
    _option_of_store,
    _option_of_mount,
    _variable_of_store,
    _variable_of_mount,
    _mount_one_stands_in,
    _only_store,
    _default_store,
)
"""What says which store is meant: the first one that says anything does."""


def _believed_stores(hints: Hints) -> list[str]:
    return sorted({entry.store for entry in hints.mounts if entry.is_believed})


def _named_mount(named: str | None, mounts: Sequence[Mount]) -> Choice | None:
    if not named:
        return None
    mount = _find_mount(named, mounts)
    if mount is None:
        raise not_mounted(named)
    return Choice(mount.store, mount)


def _mount_of(named: str, store: str, mounts: Sequence[Mount]) -> Mount:
    """Return the mount of that name, which is one of a store.

    Raises:
        NotFoundError: nothing is mounted there.
        InvalidError: it is a mount of another store, or of one that only another user tells of.
    """
    mount = _find_mount(named, mounts)
    if mount is None:
        raise not_mounted(named)
    if is_of_store(mount, store):
        return mount
    if not mount.is_believed and mount.store == store:
        raise InvalidError(
            f"only another user says that {named!r} is a mount of {store!r}",
            "name the mount, and leave the store out, to look through it",
        )
    raise InvalidError(
        f"{named!r} is a mount of the store {mount.store!r}, not of {store!r}",
        "name one of the two, and leave the other out",
    )


def store_path(named: str) -> str:
    """Return the absolute path of a store that a person named.

    Raises:
        InvalidError: it is a URL that names no place.
        UnsupportedError: it is the address of a bucket: no directory is meant.
    """
    return StoreAddress.parse(named).directory


def _find_mount(named: str, mounts: Sequence[Mount]) -> Mount | None:
    path = os.path.abspath(named)
    for candidate in (path, os.path.realpath(path)):
        for mount in mounts:
            if mount.point == candidate:
                return mount
    if os.path.lexists(paths.special(path, paths.STATUS)):
        return Mount(path, f"that is seen at {path}")  # no table of mounts lists it
    return None


def not_mounted(named: str) -> NotFoundError:
    """Return the error for a mount point at which there is no mount."""
    return NotFoundError(
        f"no store is mounted at {named!r}",
        f"mount one with: mregfs mount STORE {named}; see what is mounted with: mregfs status",
    )


def is_below(path: str, point: str) -> bool:
    """Tell whether an absolute path is at or below another."""
    return path == point or path.startswith(point.rstrip("/") + "/")
