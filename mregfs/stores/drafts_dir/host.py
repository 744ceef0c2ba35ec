"""What the staging area asks of the host beyond one call of `os`.

Decided here: how something new gets the owner, group and mode that the caller's own system call
would have given it; how the calls are reached that Python lacks. Not decided here: when. Only this
package calls it; errors are OSError, as `os` would raise them.
"""

import ctypes
import os
import stat

from mregfs.ports import Caller, FileSystemFigures

__all__ = [
    "RENAME_EXCHANGE",
    "RENAME_NOREPLACE",
    "figures",
    "hand_over",
    "rename",
    "set_times",
]

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2

_PERMISSIONS = 0o7777
_NANOSECONDS = 1_000_000_000

_AT_FDCWD = -100
_AT_SYMLINK_NOFOLLOW = 0x100
_UTIME_OMIT = (1 << 30) - 2

_libc = ctypes.CDLL(None, use_errno=True)
_renameat2 = _libc.renameat2
_renameat2.argtypes = (
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_uint,
)
_timespecs = ctypes.c_long * 4  # two of them: seconds, nanoseconds
_utimensat = _libc.utimensat
_utimensat.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(_timespecs), ctypes.c_int)


def rename(directory: int, name: bytes, new_directory: int, new_name: bytes, flags: int) -> None:
    """Rename relative to two directory descriptors, with the flags of renameat2(2)."""
    if _renameat2(directory, name, new_directory, new_name, flags) != 0:
        _fail()


def set_times(path: bytes, atime_ns: int | None, mtime_ns: int | None, *, follow: bool) -> None:
    """Set the time stamps that are given and leave the other one exactly as it is."""
    times = _timespecs(*_timespec(atime_ns), *_timespec(mtime_ns))
    if _utimensat(_AT_FDCWD, path, times, 0 if follow else _AT_SYMLINK_NOFOLLOW) != 0:
        _fail()


def hand_over(
    directory: int, name: bytes, mode: int | None, caller: Caller, *, privileged: bool
) -> os.stat_result:
    """Give what was just made as `name` to the caller, and return its stat; or remove it again.

    As natively, a set-group-id directory hands on its group, and to directories that bit too.
    Without privilege everything belongs to this process's user. `mode` is None for a symlink.
    """
    found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    is_directory = stat.S_ISDIR(found.st_mode)
    try:
        home = os.fstat(directory)
        inherits = bool(home.st_mode & stat.S_ISGID)
        uid = caller.uid if privileged else found.st_uid
        gid = home.st_gid if inherits else caller.gid
        changed = (uid, gid) != (found.st_uid, found.st_gid)
        if changed:
            try:
                os.chown(name, uid, gid, dir_fd=directory, follow_symlinks=False)
            except PermissionError:
                if uid != found.st_uid:
                    raise
        if mode is not None:
            wanted = mode & _PERMISSIONS | (stat.S_ISGID if inherits and is_directory else 0)
            # Our own umask took bits away, and a change of the owner takes the set-id bits.
            if changed or stat.S_IMODE(found.st_mode) != wanted:
                os.chmod(name, wanted, dir_fd=directory)
                changed = True
        return os.stat(name, dir_fd=directory, follow_symlinks=False) if changed else found
    except OSError:
        (os.rmdir if is_directory else os.unlink)(name, dir_fd=directory)
        raise


def figures(path: str) -> FileSystemFigures:
    """Return what statvfs(3) tells of the file system that holds `path`."""
    found = os.statvfs(path)
    return FileSystemFigures(
        block_size=found.f_bsize,
        fragment_size=found.f_frsize,
        blocks=found.f_blocks,
        blocks_free=found.f_bfree,
        blocks_available=found.f_bavail,
        files=found.f_files,
        files_free=found.f_ffree,
        files_available=found.f_favail,
        name_max=found.f_namemax,
    )


def _timespec(time_ns: int | None) -> tuple[int, int]:
    return (0, _UTIME_OMIT) if time_ns is None else divmod(time_ns, _NANOSECONDS)


def _fail() -> None:
    code = ctypes.get_errno()
    raise OSError(code, os.strerror(code))
