"""Mount points: finding, checking, repairing and unmounting them, from outside the session.

Decided here: when a directory can be mounted on, and what is said when it cannot. Not decided here:
what is served there (`serve`). The CLI and the daemon may call everything here; nothing imports
pyfuse3, nothing blocks on a mount that does not answer.
"""

import enum
import errno
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

from mregfs.errors import (
    ConflictError,
    ForbiddenError,
    HostError,
    InvalidError,
    MregfsError,
    NotFoundError,
    UnsupportedError,
)
from mregfs.host import mount_table

__all__ = [
    "Health",
    "check",
    "check_apart",
    "clean_dead",
    "find",
    "health",
    "is_dead",
    "resolve",
    "set_read_ahead",
    "source_name",
    "unmount",
]

_FSTYPE = "fuse.mregfs"
_PATIENCE = 5.0
"""Seconds until a mount that does not answer statvfs counts as hung."""

_READ_AHEAD_KB = 2048
"""Two of the largest requests there are (1 MiB), so that two threads verify at a time: 15 to 20 %
faster than one was measured, more gained nothing. Linux's 128 KiB cost a third of the bandwidth."""

_MOST_LINKS = 40
"""What Linux follows, too."""

_MNT_FORCE, _MNT_DETACH, _UMOUNT_NOFOLLOW = 1, 2, 8
_CAP_SYS_ADMIN = 21

_PROBE = """
import os, sys
try:
    os.statvfs(sys.argv[1])
except OSError as exc:
    sys.exit(exc.errno)
"""


class Health(enum.Enum):
    """What a mount point does when it is asked something."""

    ALIVE = "alive"
    DEAD = "dead"
    """Its daemon is gone: everything there fails with ENOTCONN."""
    HUNG = "hung"
    """Its daemon exists and does not answer."""


def source_name(store: str) -> str:
    """Spell a store's address as the mount's source, in printable ASCII."""
    return quote(store, safe="!\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~")


def resolve(path: str | os.PathLike[str]) -> str:
    """Return the absolute path without symlinks, as mountinfo has it; ask no mount point anything.

    (`os.path.realpath` asks each component, and so hangs with a mount that hangs.)
    """
    known = {mount.path for mount in mount_table.read()}
    todo = os.path.abspath(path).split("/")[:0:-1]
    done, links = "", 0
    while todo:
        part = todo.pop()
        if part in ("", "."):
            continue
        if part == "..":
            done = os.path.dirname(done)
            continue
        here = f"{done}/{part}"
        if here not in known and links < _MOST_LINKS and os.path.islink(here):
            links += 1
            target = os.readlink(here)
            done = "" if target.startswith("/") else done
            todo.extend(reversed(target.split("/")))
        else:
            done = here
    return done or "/"


def find(
    store: str | None = None, path: str | os.PathLike[str] | None = None
) -> list[mount_table.Entry]:
    """Return the mounts of mregfs: all, or those of one store, or those on one path."""
    source = None if store is None else source_name(store)
    place = None if path is None else resolve(path)
    return [
        mount
        for mount in mount_table.read()
        if mount.fstype == _FSTYPE
        and source in (None, mount.source)
        and place in (None, mount.path)
    ]


def health(path: str | os.PathLike[str], timeout: float = _PATIENCE) -> Health:
    """Ask a mount point for statvfs(3), in a process that may be left behind when it hangs."""
    probe = subprocess.Popen([sys.executable, "-I", "-S", "-c", _PROBE, resolve(path)])
    try:
        code = probe.wait(timeout)
    except subprocess.TimeoutExpired:
        probe.kill()
        probe.returncode = -9  # it may not die before the mount does: nobody waits for it
        return Health.HUNG
    return Health.DEAD if code in (errno.ENOTCONN, errno.ECONNABORTED) else Health.ALIVE


def is_dead(path: str | os.PathLike[str], timeout: float = _PATIENCE) -> bool:
    """Tell whether `path` is a mount whose daemon is gone (ENOTCONN); a hung one is not dead."""
    return health(path, timeout) is Health.DEAD


def clean_dead(path: str | os.PathLike[str]) -> int:
    """Take away the dead mounts of mregfs on `path`, and return how many there were.

    Raises:
        ForbiddenError: they belong to somebody else.
    """
    cleaned = 0
    for _ in find(path=path):
        if not is_dead(path):
            break
        unmount(path, lazy=True)
        cleaned += 1
    return cleaned


def unmount(path: str | os.PathLike[str], *, lazy: bool = False, force: bool = False) -> None:
    """Unmount what is on `path`.

    Args:
        path: the mount point.
        lazy: take the mount out of the tree now; the daemon ends with the last open file.
        force: abort requests that nobody answers (root only, ignored for others).

    Raises:
        ConflictError: files there are open.
        NotFoundError: nothing is mounted there.
        ForbiddenError: it belongs to somebody else.
    """
    place = resolve(path)
    if os.geteuid() == 0:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        flags = _UMOUNT_NOFOLLOW | (_MNT_DETACH if lazy else 0) | (_MNT_FORCE if force else 0)
        if libc.umount2(os.fsencode(place), flags) != 0:
            raise _unmount_failed(place, ctypes.get_errno())
        return
    helper = _helper()
    done = subprocess.run(
        [helper, "-u", *(["-z"] if lazy else []), "--", place],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    if done.returncode:
        said = done.stderr.strip()
        if not any(mount.path == place for mount in mount_table.read()):
            raise _unmount_failed(place, errno.EINVAL)
        if "busy" in said:
            raise _unmount_failed(place, errno.EBUSY)
        if "not found" in said or "not permitted" in said:  # not among the caller's own mounts
            raise _unmount_failed(place, errno.EPERM)
        raise HostError(errno.EIO, f"{place} could not be unmounted", said)


def _unmount_failed(place: str, code: int) -> MregfsError:
    if code == errno.EBUSY:
        return ConflictError(
            f"{place} is in use",
            f"close what is open there (fuser -vm {place}), or unmount lazily",
        )
    if code in (errno.EINVAL, errno.ENOENT):
        return NotFoundError(f"nothing is mounted on {place}", "see findmnt -t fuse.mregfs")
    if code == errno.EPERM:
        return ForbiddenError(
            f"{place} was mounted by somebody else", "unmount it as that user or as root"
        )
    return HostError(code, f"{place} could not be unmounted", os.strerror(code))


def _helper() -> str:
    helper = shutil.which("fusermount3")
    if helper is None:
        raise UnsupportedError(
            "fusermount3 is not installed, and only root can (un)mount without it",
            "install the package fuse3",
        )
    return helper


def check(path: str | os.PathLike[str], *, allow_other: bool = False) -> None:
    """Make sure that mregfs can be mounted on `path`; dead mounts are to be cleaned before.

    Raises:
        NotFoundError: no such directory, or no /dev/fuse.
        InvalidError: not a directory.
        ConflictError: something is mounted there.
        ForbiddenError: this user may not mount there.
        UnsupportedError: this host lacks a part.
    """
    place = resolve(path)
    _check_free(place)
    try:
        found = os.stat(place)
    except OSError as exc:
        if exc.errno in (errno.ENOENT, errno.ENOTDIR):
            raise NotFoundError(f"{place} does not exist", f"make it: mkdir -p {place}") from None
        raise HostError(exc.errno or errno.EIO, f"{place}: {os.strerror(exc.errno or 0)}") from None
    if not stat.S_ISDIR(found.st_mode):
        raise InvalidError(f"{place} is not a directory", "give a directory to mount on")
    if not os.path.exists("/dev/fuse"):
        raise UnsupportedError(
            "this host has no /dev/fuse",
            "modprobe fuse; for a container: --device /dev/fuse --cap-add SYS_ADMIN",
        )
    if os.geteuid() == 0:
        if not _may_mount():
            raise ForbiddenError(
                "root may not mount here: it lacks CAP_SYS_ADMIN",
                "for a container: --device /dev/fuse --cap-add SYS_ADMIN",
            )
        return
    _helper()
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise ForbiddenError(
            "you may not open /dev/fuse", "let root run: chmod 666 /dev/fuse, or mount as root"
        )
    if not os.access(place, os.W_OK):
        raise ForbiddenError(
            f"{place} is not yours to write, so fusermount3 refuses to mount there",
            "give a directory of your own, or mount as root",
        )
    if allow_other and not _others_allowed():
        raise ForbiddenError(
            "allow_other is for root only on this host",
            "add the line user_allow_other to /etc/fuse.conf, or mount without allow_other",
        )


def check_apart(store: str, path: str | os.PathLike[str]) -> None:
    """Make sure that the mount would not cover its own store, nor stand inside of it.

    The daemon would wait for itself to answer for the files of its store.

    Raises:
        InvalidError: one is the other, or below it.
    """
    place, home = os.path.realpath(path), os.path.realpath(store)
    if os.path.commonpath([place, home]) in (place, home):
        raise InvalidError(
            f"{place} and the store {home} overlap",
            "give a mount point that is neither the store, nor above, nor below it",
        )


def _check_free(place: str) -> None:
    here = [mount for mount in mount_table.read() if mount.path == place]
    if not here:
        return
    if here[-1].fstype != _FSTYPE:
        raise ConflictError(
            f"{place} is a mount point already ({here[-1].fstype} of {here[-1].source})",
            "give another directory",
        )
    state = health(place)
    if state is Health.ALIVE:
        raise ConflictError(
            f"{place} has a mount of {here[-1].source} already",
            f"use it, or unmount it first: mregfs umount {place}",
        )
    raise ConflictError(
        f"{place} has a {state.value} mount of {here[-1].source}",
        f"unmount it: mregfs umount --lazy {place}",
    )


def _may_mount() -> bool:
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> _CAP_SYS_ADMIN & 1)
    return True


def _others_allowed(conf: str = "/etc/fuse.conf") -> bool:
    try:
        lines = Path(conf).read_text("utf-8", "replace").splitlines()
    except OSError:
        return False
    return any(line.strip() == "user_allow_other" for line in lines)


def set_read_ahead(place: str, kilobytes: int = _READ_AHEAD_KB) -> str:
    """Let the kernel read ahead in the largest requests there are on the mount on `place`.

    Nothing on the way is asked, the mount neither: whoever serves it may call this.

    Args:
        place: the mount point, resolved.
        kilobytes: how far.

    Returns:
        Why it could not be set, as a sentence; empty when it was.
    """
    here = [mount for mount in mount_table.read() if mount.path == place]
    if not here:
        return f"nothing is mounted on {place}"
    knob = f"/sys/class/bdi/{here[-1].device}/read_ahead_kb"
    try:
        Path(knob).write_text(f"{kilobytes}\n", "ascii")
    except OSError as exc:
        return f"{knob}: {os.strerror(exc.errno or 0)}"
    return ""
