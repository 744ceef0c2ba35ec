"""Where things are on this host, and who is asking: what the environment says.

Decided here: the default store, where a host may keep its own things, the author of changes. Not
decided here: which store a command line means (`cli.sources`). Besides `cli`, nothing else reads
the environment.
"""

import contextlib
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

__all__ = [
    "default_store",
    "host_homes",
    "is_remote",
    "mount_policies",
    "said_author",
    "said_host_directory",
]

ROOT_HOME = Path("/var/lib/mregfs-host")
"""Where root keeps a host's own things of stores."""

_REMOTE = ("nfs", "cifs", "smb", "ceph", "9p", "lustre", "gpfs", "fuse")


def default_store() -> Path:
    """Return the store that is meant when nobody says which: root's is the host's."""
    data = os.environ.get("XDG_DATA_HOME", "")
    if os.path.isabs(data):
        return Path(data) / "mregfs"
    if os.geteuid() == 0:
        return Path("/var/lib/mregfs")
    return Path.home() / ".local" / "share" / "mregfs"


def said_host_directory() -> str | None:
    """Return where this host's own things of stores are to be kept; None: nobody says."""
    said = os.environ.get("MREGFS_HOST_DIRECTORY", "")
    return os.path.abspath(said) if said else None


def host_homes() -> Iterator[Path]:
    """Yield where this host's own things of stores may be kept, the best place first.

    None is below a directory of another user; a temporary one is made, this user's alone.
    """
    state = os.environ.get("XDG_STATE_HOME", "")
    homes = [Path(state) / "mregfs"] if os.path.isabs(state) else []
    if os.geteuid() == 0:
        homes.append(ROOT_HOME)
    with contextlib.suppress(RuntimeError):
        homes.append(Path.home() / ".local" / "state" / "mregfs")
    with contextlib.suppress(KeyError):
        # sudo may keep the home of who called it, and what is in it is his to change.
        home = Path(pwd.getpwuid(os.geteuid()).pw_dir)
        homes.append(home / ".local" / "state" / "mregfs")
    yield from dict.fromkeys(home for home in homes if _is_ours(home))
    temporary = _temporary_home()
    if temporary is not None:
        yield temporary


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


def _temporary_home() -> Path | None:
    """Return a temporary directory that is this user's alone, for one without a home.

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
            return private
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
