"""System calls with somebody's credentials: `_native`'s, or `plain`'s where that is not built.

Decided here: which of the two. Not decided here: for whom a call is made. Each function makes one
system call, on a descriptor or relative to one of a directory, and raises OSError as `os` does. Its
first argument is a `Who`.
"""

from typing import TypeAlias

try:
    from mregfs.host import _native as _made_by
except ImportError:
    from mregfs.host import plain as _made_by  # type: ignore[no-redef]

__all__ = [
    "AT_FDCWD",
    "AT_REMOVEDIR",
    "AT_SYMLINK_FOLLOW",
    "RENAME_EXCHANGE",
    "RENAME_NOREPLACE",
    "Who",
    "chmod",
    "chown",
    "ftruncate",
    "getxattr",
    "link",
    "listxattr",
    "mkdir",
    "mknod",
    "open_at",
    "path_of",
    "process_umask",
    "pwrite",
    "removexattr",
    "rename",
    "setxattr",
    "symlink",
    "unlink",
    "utimens",
]

AT_FDCWD = -100
AT_REMOVEDIR = 0x200
AT_SYMLINK_FOLLOW = 0x400
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2

Who: TypeAlias = tuple[int, int, tuple[int, ...] | None] | None
"""User, group, supplementary groups (None: this process's); or None: this process, as it is."""


chmod = _made_by.chmod
chown = _made_by.chown
ftruncate = _made_by.ftruncate
getxattr = _made_by.getxattr
link = _made_by.link
listxattr = _made_by.listxattr
mkdir = _made_by.mkdir
mknod = _made_by.mknod
pwrite = _made_by.pwrite
removexattr = _made_by.removexattr
rename = _made_by.rename
setxattr = _made_by.setxattr
symlink = _made_by.symlink
unlink = _made_by.unlink
utimens = _made_by.utimens
open_at = _made_by.open


def path_of(descriptor: int) -> bytes:
    """Return a path to what a descriptor is of, whatever names that has; no link is followed."""
    return b"/proc/self/fd/%d" % descriptor


def process_umask() -> int:
    """Return the umask of this process, which umask(2) tells only to who sets it."""
    with open("/proc/self/status", "rb", buffering=0) as status:
        _, _, rest = status.read(4096).partition(b"\nUmask:")
    return int(rest.partition(b"\n")[0], 8)
