"""Where things are on this host, and who is asking: what the environment says.

Decided here: the default store, the index's directory, the author of changes. Not decided here:
which store a command line means (`cli.place`). Besides `cli`, nothing else reads the environment.
"""

import contextlib
import os
import pwd
import stat
from pathlib import Path

__all__ = [
    "cache_index",
    "default_store",
    "is_remote",
    "mount_policies",
    "said_author",
    "temporary_index",
]

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
    bases = [Path(cache)] if os.path.isabs(cache) else []
    with contextlib.suppress(RuntimeError):
        bases.append(Path.home() / ".cache")
    with contextlib.suppress(KeyError):
        # sudo may keep the home of who called it, and what is in it is his to change.
        bases.append(Path(pwd.getpwuid(os.geteuid()).pw_dir) / ".cache")
    found = next((base for base in bases if _is_ours(base)), None)
    return None if found is None else found / "mregfs" / "index" / store_id


def _is_ours(path: Path) -> bool:
    """Tell whether a directory, which need not exist yet, is below one of this user.

    Root's is below none of anybody else: who owns one may exchange what is in it.
    """
    uid = os.geteuid()
    nearest = True
    for each in (path, *path.parents):
        try:
            owner = each.stat().st_uid
        except OSError:
            continue
        if uid == 0 and owner != 0:
            return False
        if nearest and owner not in (uid, 0):
            return False
        nearest = False
    return True


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
        if not _is_ours(Path(base)):
            continue
        private = Path(base) / f"mregfs-{uid}"
        try:
            private.mkdir(0o700, exist_ok=True)
            found = private.lstat()
        except OSError:
            continue
        if stat.S_ISDIR(found.st_mode) and found.st_uid == uid and not found.st_mode & 0o077:
            return private / "index" / store_id
    return None


def said_author() -> str:
    """Return whom history is to name beside this user: `$MREGFS_AUTHOR`, if that says anybody."""
    return os.environ.get("MREGFS_AUTHOR", "")


def mount_policies() -> dict[str, str]:
    """Return the options of a mount that the environment says something of."""
    said = {
        "verify": os.environ.get("MREGFS_VERIFY", ""),
        "coalesce": os.environ.get("MREGFS_COALESCE", ""),
        "cache_size": os.environ.get("MREGFS_CACHE_SIZE", ""),
    }
    return {name: value for name, value in said.items() if value}


def is_remote(path: str | int) -> bool:
    """Tell whether a directory is on a network file system, where an index must not be."""
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
