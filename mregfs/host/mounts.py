"""The mounts of stores on this host, who made them, and what one says of itself.

Decided here: which mounts are ours to see, whose word about a store is believed. Not decided here:
which store or mount is meant (`cli.sources`), how a mount is asked about the registry (`api`).

Everybody who may mount can call a FUSE file system `mregfs`, and can say anything of it, its store
included. What the kernel itself tells is its owner, `user_id` among the options: a store's path is
believed only of a mount of root or of this user.
"""

import errno
import os
from collections.abc import Callable
from threading import Thread
from typing import TypeVar

import msgspec

from mregfs.errors import UnavailableError
from mregfs.host import mount_table
from mregfs.model.paths import STATUS, special

__all__ = [
    "FSTYPE",
    "Mount",
    "check_alive",
    "in_time",
    "is_of_store",
    "mounts_of",
    "read_mounts",
    "read_status",
]

FSTYPE = "fuse.mregfs"
STATUS_TIMEOUT = 5.0
"""Seconds that a mount gets to say which project is its own; a live one takes milliseconds."""

_MAX_STATUS = 16 << 20

_T = TypeVar("_T")


class Mount(msgspec.Struct, frozen=True):
    """One live or dead mount of a store, as the kernel lists it."""

    point: str
    store: str
    """What the mount says; to be believed only if `is_believed`."""
    read_only: bool = False
    top: str = "/"
    """What of the file system is mounted there: `/`, unless a directory below was bind-mounted."""
    owner: int | None = None
    """The uid of who mounted it, by the kernel's word; None: the kernel does not list it."""

    @property
    def is_whole(self) -> bool:
        """Whether the top of the file system is mounted there, so that `.mregfs` is seen."""
        return self.top == "/"

    @property
    def is_believed(self) -> bool:
        """Whether what it says of its store is believed: it is root's, or this user's own."""
        return self.owner is not None and self.owner in (0, os.geteuid())


def read_mounts(table: str = "/proc/self/mountinfo") -> list[Mount]:
    """Return the mounts of stores on this host, oldest first; of several on a path the top one.

    Where the kernel lists no mounts in that way, there are none.
    """
    try:
        entries = mount_table.read(table)
    except FileNotFoundError:
        return []
    found: dict[str, Mount] = {}
    for entry in entries:
        found.pop(entry.path, None)  # what is mounted over a mount hides it
        if entry.fstype == FSTYPE:
            found[entry.path] = Mount(
                entry.path,
                _store_of(entry.source),
                "ro" in entry.options,
                entry.top,
                entry.owner,
            )
    return list(found.values())


def _store_of(source: str) -> str:
    """Undo `fuse.mountpoint.source_name`: the address of a store is spelled in ASCII."""
    if "%" not in source:
        return source
    from urllib.parse import unquote

    return unquote(source)


def is_of_store(mount: Mount, store: str) -> bool:
    """Tell whether a mount is of a store that a person named, by whoever may say so.

    Besides root and this user that is the store's own owner. Only the path that the person named is
    looked at: another may be in a mount that hangs.
    """
    if mount.store != store and mount.store != os.path.realpath(store):
        return False
    if mount.is_believed:
        return True
    try:
        return mount.owner is not None and os.stat(store).st_uid == mount.owner
    except OSError:
        return False


def mounts_of(store: str) -> list[Mount]:
    """Return the mounts by which a store can be looked at."""
    return [each for each in read_mounts() if each.is_whole and is_of_store(each, store)]


def read_status(mount: Mount, timeout: float | None = None) -> dict[str, object]:
    """Return what `.mregfs/status` of a mount says; empty when the mount is dead or a part only.

    Raises:
        UnavailableError: no answer within `timeout` seconds, by default `STATUS_TIMEOUT`.
    """
    if not mount.is_whole:
        return {}

    def ask() -> dict[str, object]:
        try:
            with open(special(mount.point, STATUS), "rb") as file:
                return msgspec.json.decode(file.read(_MAX_STATUS), type=dict[str, object])
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return {}

    answer = in_time(ask, STATUS_TIMEOUT if timeout is None else timeout)
    if answer is None:
        raise UnavailableError(
            f"the mount {mount.point!r} does not answer",
            f"unmount it with: mregfs umount --lazy {mount.point}; or look past it: name the "
            "project with --project",
        )
    return answer


def in_time(ask: Callable[[], _T], timeout: float) -> _T | None:
    """Return what a call returns, in a thread of its own; None: it takes longer than that.

    A system call that a hung FUSE daemon does not answer ends only with the process.
    """
    answer: list[_T] = []
    error: list[BaseException] = []

    def run() -> None:
        try:
            answer.append(ask())
        except BaseException as exc:  # noqa: BLE001  raised again by who waits
            error.append(exc)

    thread = Thread(target=run, name="mregfs-probe", daemon=True)
    thread.start()
    thread.join(timeout)
    if error:
        raise error[0]
    return answer[0] if answer else None


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
