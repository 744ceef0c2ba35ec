"""Where a command line stands: which store, which mount, which project, and what its paths mean.

Decided here: how a path on this host becomes one below the top of a mount, and which project names
are in. Not decided here: which store is meant (`sources`), the grammar of references and of paths
below a mount (`model.reference`, `model.paths`).
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress

import msgspec

from mregfs.cli.sources import Hints, choose, is_below
from mregfs.errors import (
    ForbiddenError,
    InvalidError,
    UnavailableError,
)
from mregfs.host.mounts import Mount, is_of_store, read_mounts, read_status
from mregfs.model import paths
from mregfs.model.names import DEFAULT_PROJECT, ProjectName, parse_number, parse_project

__all__ = ["Mount", "Place", "find_place"]


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
                f"only another user says where the store of {self.through.point!r} is",
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
        inside = [mount for mount in self.mounts if is_below(path, mount.point)]
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
            if beside and not (is_below(path, here.point) and os.path.lexists(path)):
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
                "write a path below the mount, or a reference such as NAME:ALIAS; a store is named "
                "with --store",
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
    hints = Hints(
        store=store,
        mount=mount,
        store_variable=environment.get("MREGFS_STORE") or None,
        mount_variable=environment.get("MREGFS_MOUNT") or None,
        here=_working_directory(),
        mounts=read_mounts() if mounts is None else mounts,
    )
    choice = choose(hints)
    if choice.is_through:
        own = [choice.mount] if choice.mount else []
    else:
        own = [each for each in hints.mounts if is_of_store(each, choice.store)]

    def rank(entry: Mount) -> tuple[bool, int, bool]:
        depth = len(entry.point) if is_below(hints.here, entry.point) else 0
        return entry != choice.mount, -depth, not entry.is_whole

    return Place(
        store=choice.store,
        mounts=sorted(own, key=rank),
        working_directory=hints.here,
        named_project=project or environment.get("MREGFS_PROJECT") or None,
        through=choice.mount if choice.is_through else None,
        store_was_named=choice.was_named,
    )


def _working_directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "/"


def _below(path: str, mount: Mount) -> str:
    """Return a path below the top of the file system, of one below a mount point."""
    rest = path[len(mount.point.rstrip("/")) :]
    return (mount.top.rstrip("/") + rest).strip("/")
