"""Where a command line stands: which store, which mount, which project, and what its paths mean.

Decided here: the order of `--store`, the environment, the mount one stands in, the only mount, the
default; how a path on this host becomes one below the top of a mount. Not decided here: the grammar
of references and of paths below a mount (`model.reference`, `model.paths`).
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import msgspec

from mregfs.errors import (
    ForbiddenError,
    InvalidError,
    NotFoundError,
    UnavailableError,
)
from mregfs.host.mounts import Mount, is_of_store, read_mounts, read_status
from mregfs.model import paths
from mregfs.model.names import DEFAULT_PROJECT, ProjectName, parse_number, parse_project
from mregfs.wiring.address import StoreAddress

__all__ = ["Mount", "Place", "find_place", "not_mounted", "store_path"]


class Place(msgspec.Struct):
    """The answer to which store, mount and project a command line means."""

    store: str
    mounts: Sequence[Mount]
    """All mounts of `store`; those that one stands in, or named, first."""
    working_directory: str
    named_project: str | None = None
    through: Mount | None = None
    """The mount by which alone the store can be reached: whose word about its place is nothing to
    go by, or which the kernel does not list."""
    store_was_named: bool = False
    """Whether a person named it: otherwise a mount did, or it is the default one."""
    _project: ProjectName | None = None
    _projects: dict[str, ProjectName] = {}
    _ids: dict[str, object] = {}

    @property
    def project(self) -> ProjectName:
        """The project that names are in: the one named, else the mount's, else `default/default`.

        Raises:
            UnavailableError: the mount does not answer.
        """
        if self._project is None:
            if self.named_project is not None:
                self._project = parse_project(self.named_project)
            elif self.mounts:
                self._project = self.project_of(self.mounts[0])
            else:
                self._project = DEFAULT_PROJECT
        return self._project

    @property
    def project_said(self) -> ProjectName:
        """The project that was named, else the default one; for what names nothing. Asks no mount.

        A mount that hangs is to be in nobody's way who does not need it.
        """
        return parse_project(self.named_project) if self.named_project else DEFAULT_PROJECT

    def project_of(self, mount: Mount) -> ProjectName:
        """Return a mount's own project, asked of the mount; of a dead one it is the default one.

        Raises:
            UnavailableError: the mount hangs.
        """
        known = self._projects.get(mount.point)
        if known is None:
            status = read_status(mount)
            self._ids[mount.point] = status.get("store_id")
            known = parse_project(str(status.get("project", DEFAULT_PROJECT)))
            self._projects[mount.point] = known
        return known

    @property
    def own_store(self) -> str:
        """The path of the store, to open it.

        Raises:
            ForbiddenError: only a mount of another user says where it is.
        """
        if self.through is not None:
            raise ForbiddenError(
                f"where the store of {self.through.point!r} is, only another user says",
                "name it with --store, if you may open it; or do it in the mount",
            )
        return self.store

    def is_another(self, mount: Mount, store_id: str) -> bool:
        """Tell whether a mount is of another store than the one with this id, as far as it says."""
        if mount.point not in self._ids:
            with suppress(UnavailableError):
                self._ids[mount.point] = read_status(mount, timeout=1.0).get("store_id")
        return self._ids.get(mount.point) not in (None, store_id)

    def mount_of(self, path: str) -> Mount | None:
        """Return the innermost mount that an absolute path is in, or None."""
        inside = [mount for mount in self.mounts if _is_below(path, mount.point)]
        return max(inside, key=lambda mount: len(mount.point), default=None)

    def locate(self, text: str, *, beside: bool = False) -> str:
        """Return what a person wrote, as the grammar takes it: a reference or a tree path.

        An absolute path must be below a mount of the store. A relative one is taken from where one
        stands in a mount, when it begins with `.` or when one stands in an artifact or collection;
        a name with a selector (`:`, `@`) is always a reference.

        Args:
            text: what was written.
            beside: as in `ln SOURCE TARGET`, what leads to nothing from here is left alone: the
                grammar takes it from the target's directory, as a symlink's content.

        Raises:
            InvalidError: an absolute path that is in no mount of the store.
        """
        if text.startswith("/"):
            return self._tree_path(os.path.normpath(text), text)
        first = text.split("/", 1)[0]
        if paths.is_path(text):
            return text.rstrip("/")
        here = self.mount_of(self.working_directory)
        if here is None:
            return text if beside else text.removeprefix("./")
        path = os.path.normpath(os.path.join(self.working_directory, text))
        if first in (".", ".."):
            if beside and not (_is_below(path, here.point) and os.path.lexists(path)):
                return text
            return self._tree_path(path, text)
        if ":" in text or "@" in text:
            return text
        inside = _below(self.working_directory, here)
        if paths.split(inside).is_owner or (inside and os.path.lexists(path)):
            return self._tree_path(path, text)
        return text

    def _tree_path(self, path: str, text: str) -> str:
        mount = self.mount_of(path)
        if mount is None:
            # Perhaps a symlink on the way leads into a mount; the last name may be an alias itself.
            parent, name = os.path.split(path)
            path = os.path.join(os.path.realpath(parent), name)
            mount = self.mount_of(path)
        if mount is None:
            raise InvalidError(
                f"{text!r} is not below a mount of the store {self.store!r}",
                "write a path below the mount, or a reference such as NAME:ALIAS",
            )
        inside = _below(path, mount)
        if not inside:
            raise InvalidError(
                f"{text!r} is the mount itself",
                f"name something in it, such as {paths.OWNER_FORMS[0]}",
            )
        if paths.split(inside).project or self.project_of(mount) == self.project:
            return inside
        return paths.join(inside, project=self.project_of(mount))

    def for_mount(self, located: str, mount: Mount) -> str:
        """Return a located name as the control file of `mount` takes it.

        A name without a project means the mount's own there: so say it, where ours is another. What
        stands for a neighbour of something else (`v1`, `../x`) has no project.
        """
        if (
            self.project_of(mount) == self.project
            or located.startswith((".", f"{paths.PROJECTS}/"))
            or parse_number(located) is not None
        ):
            return located
        if paths.is_path(located):
            return paths.join(located, project=self.project)
        name = located.partition(":")[0].partition("@")[0]
        missing = {0: f"{self.project}/", 1: f"{self.project.entity}/"}
        return missing.get(name.count("/"), "") + located

    def writable_mount(self) -> Mount | None:
        """Return the mount whose control file takes changes of this store, or None."""
        for mount in self.mounts:
            if not mount.read_only and mount.is_whole:
                return mount
        return None


def find_place(
    *,
    store: str | None,
    mount: str | None,
    project: str | None,
    environment: Mapping[str, str] = os.environ,
    mounts: Sequence[Mount] | None = None,
) -> Place:
    """Decide which store, mount and project a command line means.

    Raises:
        NotFoundError: nothing is mounted where `--mount` says.
        InvalidError: `--mount` is a mount of another store than `--store`; or there are mounts of
            several stores, none is chosen, and there is no default one.
        UnsupportedError: the store named is an address.
    """
    said = _Said(
        store=store,
        mount=mount,
        store_variable=environment.get("MREGFS_STORE") or None,
        mount_variable=environment.get("MREGFS_MOUNT") or None,
        here=_working_directory(),
        mounts=read_mounts() if mounts is None else mounts,
    )
    choice = next(filter(None, (source(said) for source in _SOURCES)))
    if choice.is_through:
        own = [choice.mount] if choice.mount else []
    else:
        own = [each for each in said.mounts if is_of_store(each, choice.store)]

    def rank(entry: Mount) -> tuple[bool, int, bool]:
        depth = len(entry.point) if _is_below(said.here, entry.point) else 0
        return entry != choice.mount, -depth, not entry.is_whole

    return Place(
        store=choice.store,
        mounts=sorted(own, key=rank),
        working_directory=said.here,
        named_project=project or environment.get("MREGFS_PROJECT") or None,
        through=choice.mount if choice.is_through else None,
        store_was_named=choice.was_named,
    )


class _Said(NamedTuple):
    """All that can say which store is meant."""

    store: str | None
    mount: str | None
    store_variable: str | None
    mount_variable: str | None
    here: str
    mounts: Sequence[Mount]


class _Choice(NamedTuple):
    """What a source says."""

    store: str
    mount: Mount | None = None
    was_named: bool = False
    """Whether a person named the store: otherwise a mount did, or it is the default one."""

    @property
    def is_through(self) -> bool:
        """Tell whether only a mount of another user says which store it is."""
        return not self.was_named and self.mount is not None and not self.mount.is_believed


def _option_of_store(said: _Said) -> _Choice | None:
    """`--store`; the mount of `--mount` has to be one of it, that of the variable may be."""
    if not said.store:
        return None
    store = store_path(said.store)
    if said.mount:
        return _Choice(store, _mount_of(said.mount, store, said.mounts), was_named=True)
    mount = _find_mount(said.mount_variable, said.mounts) if said.mount_variable else None
    if mount is not None and not is_of_store(mount, store):
        mount = None
    return _Choice(store, mount, was_named=True)


def _option_of_mount(said: _Said) -> _Choice | None:
    """`--mount`: its store."""
    return _named_mount(said.mount, said.mounts)


def _variable_of_store(said: _Said) -> _Choice | None:
    """`$MREGFS_STORE`; where `$MREGFS_MOUNT` is mounted, it has to be one of it."""
    if not said.store_variable:
        return None
    store, mount = store_path(said.store_variable), None
    if said.mount_variable and _find_mount(said.mount_variable, said.mounts):
        mount = _mount_of(said.mount_variable, store, said.mounts)
    return _Choice(store, mount, was_named=True)


def _variable_of_mount(said: _Said) -> _Choice | None:
    """`$MREGFS_MOUNT`: its store."""
    return _named_mount(said.mount_variable, said.mounts)


def _mount_one_stands_in(said: _Said) -> _Choice | None:
    inside = [entry for entry in said.mounts if _is_below(said.here, entry.point)]
    mount = max(inside, key=lambda entry: len(entry.point), default=None)
    return None if mount is None else _Choice(mount.store, mount)


def _only_store(said: _Said) -> _Choice | None:
    """The store that alone is mounted, by root or this user.

    A mount of another user is nobody's choice but his who names it, or stands in it.
    """
    stores = _believed_stores(said)
    return _Choice(stores[0]) if len(stores) == 1 else None


def _default_store(said: _Said) -> _Choice | None:
    """The default store of this user; where there is none, only if nothing is mounted either.

    Raises:
        InvalidError: there is none, and what is mounted leaves open which store is meant.
    """
    from mregfs.config import default_store

    default = str(default_store())
    if os.path.lexists(default) or not said.mounts:
        return _Choice(default)
    stores = _believed_stores(said)
    if stores:
        raise InvalidError(
            f"several stores are mounted here: {', '.join(stores)}", "name one with --store"
        )
    points = ", ".join(sorted(entry.point for entry in said.mounts))
    raise InvalidError(
        f"there is no store {default}, and what is mounted here is other users': {points}",
        "name one of these with --mount (or MREGFS_MOUNT), to look at it and work in it",
    )


_SOURCES: tuple[Callable[[_Said], _Choice | None], ...] = (
    _option_of_store,
    _option_of_mount,
    _variable_of_store,
    _variable_of_mount,
    _mount_one_stands_in,
    _only_store,
    _default_store,
)
"""What says which store is meant: the first one that says anything does (`cli.md`)."""


def _believed_stores(said: _Said) -> list[str]:
    return sorted({entry.store for entry in said.mounts if entry.is_believed})


def _named_mount(named: str | None, mounts: Sequence[Mount]) -> _Choice | None:
    if not named:
        return None
    mount = _find_mount(named, mounts)
    if mount is None:
        raise not_mounted(named)
    return _Choice(mount.store, mount)


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
            f"that {named!r} is a mount of {store!r} is said by another user alone",
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


def _working_directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "/"


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


def _is_below(path: str, point: str) -> bool:
    return path == point or path.startswith(point.rstrip("/") + "/")


def _below(path: str, mount: Mount) -> str:
    """Return a path below the top of the file system, of one below a mount point."""
    rest = path[len(mount.point.rstrip("/")) :]
    return (mount.top.rstrip("/") + rest).strip("/")
