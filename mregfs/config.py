"""Where things are on this host, and who is asking: what the environment says.

Decided here: the default store, the index's directory, the author of changes. Not decided here:
which store a command line means (`cli.place`). `cli` and `api` call it; besides `cli`, nothing else
reads the environment.
"""

import contextlib
import functools
import grp
import os
import pwd
import resource
import stat
import time
from collections.abc import Iterable
from pathlib import Path

from mregfs.errors import InvalidError

__all__ = [
    "cache_index",
    "check_group",
    "default_author",
    "default_store",
    "groups_of",
    "is_remote",
    "memory_for_checkpoint",
    "mount_policies",
    "temporary_index",
    "user_name",
]

_NAMES_SECONDS = 60
"""How long names of users and groups are believed: a directory service may take long to tell."""

_REMOTE = ("nfs", "cifs", "smb", "ceph", "9p", "lustre", "gpfs", "fuse")


def default_store() -> Path:
    """Return the store that is meant when nobody says which: root's is the host's."""
    data = os.environ.get("XDG_DATA_HOME", "")
    if os.path.isabs(data):
        return Path(data) / "mregfs"
    if os.geteuid() == 0:
        return Path("/var/lib/mregfs")
    return Path.home() / ".local" / "share" / "mregfs"


def cache_index(store_id: str) -> Path | None:
    """Return where the index of a store is that this user cannot write in; None: he has no home."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    try:
        home = Path(cache) if os.path.isabs(cache) else Path.home() / ".cache"
    except RuntimeError:
        return None
    return home / "mregfs" / "index" / store_id


def temporary_index(store_id: str) -> Path | None:
    """Return where the index of a user without a cache is, in a directory that is his alone.

    None: there is no such directory, or somebody else made the one of that name.
    """
    import tempfile

    uid = os.geteuid()
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    bases = [runtime] if os.path.isabs(runtime) else []
    with contextlib.suppress(FileNotFoundError):
        bases.append(tempfile.gettempdir())
    for base in bases:
        private = Path(base) / f"mregfs-{uid}"
        try:
            private.mkdir(0o700, exist_ok=True)
            found = private.lstat()
        except OSError:
            continue
        if stat.S_ISDIR(found.st_mode) and found.st_uid == uid and not found.st_mode & 0o077:
            return private / "index" / store_id
    return None


def default_author() -> str:
    """Return who history says it was: `$MREGFS_AUTHOR`, else this user's name."""
    return os.environ.get("MREGFS_AUTHOR") or user_name(os.geteuid())


def mount_policies() -> dict[str, str]:
    """Return the options of a mount that the environment says something of."""
    said = {
        "verify": os.environ.get("MREGFS_VERIFY", ""),
        "coalesce": os.environ.get("MREGFS_COALESCE", ""),
        "cache_size": os.environ.get("MREGFS_CACHE_SIZE", ""),
    }
    return {name: value for name, value in said.items() if value}


def memory_for_checkpoint() -> int:
    """Return how many bytes a checkpoint may unpack to: an eighth of the memory that there is.

    Its rows are held several times while an index is filled from them.
    """
    bounds = [1 << 40]
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        bounds.append(limit)
    with contextlib.suppress(OSError, ValueError), open("/sys/fs/cgroup/memory.max") as file:
        bounds.append(int(file.read()))  # `max` is no number
    with contextlib.suppress(OSError, ValueError), open("/proc/meminfo") as file:
        bounds += [int(line.split()[1]) << 10 for line in file if line.startswith("MemAvailable:")]
    return min(bounds) // 8


def groups_of(gids: Iterable[int]) -> frozenset[str]:
    """Return what groups are called in a protection: by their names and by their numbers."""
    found = set()
    for gid in gids:
        found.add(str(gid))
        name = _group_name(gid, _now())
        if name:
            found.add(name)
    return frozenset(found)


def user_name(uid: int) -> str:
    """Return the name of a user, or `uid N` for one without."""
    return _user_name(uid, _now()) or f"uid {uid}"


def _now() -> int:
    return int(time.monotonic() / _NAMES_SECONDS)


@functools.lru_cache(1024)
def _group_name(gid: int, now: int) -> str:
    with contextlib.suppress(KeyError):
        return grp.getgrgid(gid).gr_name
    return ""


@functools.lru_cache(1024)
def _user_name(uid: int, now: int) -> str:
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return ""


def check_group(group: str) -> None:
    """Refuse a group that this host does not know: nobody could be in it.

    Raises:
        InvalidError: there is none of that name or number.
    """
    with contextlib.suppress(KeyError):
        grp.getgrnam(group)
        return
    with contextlib.suppress(KeyError, OverflowError, ValueError):
        if str(grp.getgrgid(int(group)).gr_gid) == group:
            return
    raise InvalidError(f"there is no group {group!r} on this host", "list them: getent group")


def is_remote(path: str) -> bool:
    """Tell whether a path is on a network file system, where an index must not be."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open(
            "/proc/self/mountinfo", encoding="utf-8", errors="replace", newline="\n"
        ) as mounts:
            for line in mounts:
                fields, _, tail = line.partition(" - ")
                if fields.split(" ", 3)[2] == wanted:
                    return tail.startswith(_REMOTE)
    except OSError:
        pass
    return False
