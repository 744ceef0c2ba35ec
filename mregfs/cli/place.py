"""Where a command line stands: which store, which mount, which project, and what its paths mean.

Decided here: the order of `--store`, the environment, the mount one stands in, the only mount, the
default; how a path on this host becomes one below the top of a mount. Not decided here: the grammar
of references and tree paths (`model.reference`). Called by `session`; the environment of the store
choice is read here and nowhere else.
"""

import errno
import os
import re
from collections.abc import Mapping, Sequence

import msgspec

from mregfs.errors import InvalidError, NotFoundError, UnavailableError, UnsupportedError
from mregfs.fuse import mount_table
from mregfs.model.names import DEFAULT_PROJECT, ProjectName, parse_number, parse_project

__all__ = [
    "FSTYPE",
    "Mount",
    "Place",
    "check_alive",
    "find_place",
    "not_mounted",
    "read_mounts",
    "read_status",
    "store_path",
]

FSTYPE = "fuse.mregfs"
STATUS_TIMEOUT = 5.0
"""Seconds that a mount gets to say which project is its own; a live one takes milliseconds."""

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")

_TREE = ("artifacts", "collections", "projects", "staging")


class Mount(msgspec.Struct, frozen=True):
    """One live or dead mount of a store, as the kernel lists it."""

    point: str
    store: str
    read_only: bool = False
    top: str = "/"
    """What of the file system is mounted there: `/`, unless a directory below was bind-mounted."""


def read_mounts(table: str = "/proc/self/mountinfo") -> list[Mount]:
    """Return the mounts of stores on this host, oldest first; of several on a path the top one."""
    found: dict[str, Mount] = {}
    for entry in mount_table.read(table):
        if entry.fstype == FSTYPE:
            found.pop(entry.path, None)
            found[entry.path] = Mount(
                entry.path, _store_of(entry.source), "ro" in entry.options, entry.top
            )
    return list(found.values())


def _store_of(source: str) -> str:
    """Undo `fuse.mountpoint.source_name`: the address of a store is spelled in ASCII."""
    if "%" not in source:
        return source
    from urllib.parse import unquote

    return unquote(source)


class Place(msgspec.Struct):
    """The answer to which store, mount and project a command line means."""

    store: str
    mounts: Sequence[Mount]
    """All mounts of `store`; those that one stands in, or named, first."""
    working_directory: str
    named_project: str | None = None
    _project: ProjectName | None = None
    _projects: dict[str, ProjectName] = {}

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
            known = parse_project(str(status.get("project", DEFAULT_PROJECT)))
            self._projects[mount.point] = known
        return known

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
        if first in _TREE and "/" in text:
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
        if _is_owner(inside) or (inside and os.path.lexists(path)):
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
                "name something in it, such as artifacts/NAME",
            )
        if inside.startswith("projects/") or self.project_of(mount) == self.project:
            return inside
        return f"projects/{self.project_of(mount)}/{inside}"

    def for_mount(self, located: str, mount: Mount) -> str:
        """Return a located name as the control file of `mount` takes it.

        A name without a project means the mount's own there: so say it, where ours is another. What
        stands for a neighbour of something else (`v1`, `../x`) has no project.
        """
        if (
            self.project_of(mount) == self.project
            or located.startswith((".", "projects/"))
            or parse_number(located) is not None
        ):
            return located
        if located.split("/", 1)[0] in _TREE and "/" in located:
            return f"projects/{self.project}/{located}"
        name = located.partition(":")[0].partition("@")[0]
        missing = {0: f"{self.project}/", 1: f"{self.project.entity}/"}
        return missing.get(name.count("/"), "") + located

    def writable_mount(self) -> Mount | None:
        """Return the mount whose control file takes changes of this store, or None."""
        for mount in self.mounts:
            if not mount.read_only and mount.top == "/":
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
    everything = read_mounts() if mounts is None else mounts
    here = _working_directory()
    said = store or (None if mount else environment.get("MREGFS_STORE"))
    wanted = store_path(said) if said else None
    named = mount or environment.get("MREGFS_MOUNT")
    chosen: Mount | None = None
    if named:
        chosen = _find_mount(named, everything)
        if chosen is None and (mount or not wanted):
            raise not_mounted(named)
        if chosen is not None and wanted and not _same_store(wanted, chosen.store):
            if mount or not store:
                raise InvalidError(
                    f"{named!r} is a mount of the store {chosen.store!r}, not of {wanted!r}",
                    "name one of the two, and leave the other out",
                )
            chosen = None  # an option beats the environment
        elif chosen is not None:
            wanted = chosen.store
    if wanted is None:
        inside = [entry for entry in everything if _is_below(here, entry.point)]
        stores = {entry.store for entry in everything}
        if inside:
            wanted = max(inside, key=lambda entry: len(entry.point)).store
        elif len(stores) == 1:
            wanted = stores.pop()
        else:
            from mregfs.config import default_store

            wanted = str(default_store())
            if stores and not os.path.lexists(wanted):
                raise InvalidError(
                    f"stores are mounted here, but which is meant is not said: "
                    f"{', '.join(sorted(stores))}",
                    "name one with --store",
                )
    own = [entry for entry in everything if _same_store(entry.store, wanted)]

    def rank(entry: Mount) -> tuple[bool, int, bool]:
        depth = len(entry.point) if _is_below(here, entry.point) else 0
        return entry != chosen, -depth, entry.top != "/"

    return Place(
        store=wanted,
        mounts=sorted(own, key=rank),
        working_directory=here,
        named_project=project or environment.get("MREGFS_PROJECT") or None,
    )


def store_path(named: str) -> str:
    """Return the absolute path of a store that a person named.

    Raises:
        UnsupportedError: it is an address, of an object store say: no directory is meant.
    """
    if _ADDRESS.match(named):
        raise UnsupportedError(
            f"{named!r} is an address, and stores on object storage are not supported by this "
            "version",
            "name a directory",
        )
    return os.path.abspath(named)


def read_status(mount: Mount) -> dict[str, object]:
    """Return what `.mregfs/status` of a mount says; empty when the mount is dead or a part only.

    Raises:
        UnavailableError: no answer within `STATUS_TIMEOUT`.
    """
    if mount.top != "/":
        return {}
    from threading import Thread

    answer: list[dict[str, object]] = []

    def ask() -> None:
        try:
            with open(f"{mount.point}/.mregfs/status", "rb") as file:
                answer.append(msgspec.json.decode(file.read(), type=dict[str, object]))
        except (OSError, msgspec.DecodeError):
            answer.append({})

    # A read from a hung FUSE daemon ends only with the process: so it has a thread of its own.
    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(STATUS_TIMEOUT)
    if not answer:
        raise UnavailableError(
            f"the mount {mount.point!r} does not answer",
            f"take it away with: mregfs umount --lazy {mount.point}; or look past it: name the "
            "project with --project",
        )
    return answer[0]


def check_alive(mount: Mount) -> None:
    """Refuse a dead mount: below it every path fails. One that hangs is found by `read_status`.

    Raises:
        UnavailableError: its daemon is gone.
    """
    try:
        os.statvfs(mount.point)
    except OSError as exc:
        if exc.errno in (errno.ENOTCONN, errno.ECONNABORTED):
            raise UnavailableError(
                f"the mount {mount.point!r} is dead",
                f"mount it again: mregfs mount {mount.store} {mount.point}",
            ) from exc


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


def _is_owner(inside: str) -> bool:
    """Tell whether a tree path is the directory of an artifact or collection."""
    parts = inside.split("/")
    if parts[0] == "projects":
        parts = parts[3:]
    return len(parts) == 2 and parts[0] in ("artifacts", "collections")


def _same_store(mounted: str, wanted: str) -> bool:
    """Compare the store of a mount, which names it by its real path, with the one wanted.

    The path of somebody else's store is never looked at: it may be in a mount that hangs.
    """
    if mounted == wanted:
        return True
    return mounted == os.path.realpath(wanted)
