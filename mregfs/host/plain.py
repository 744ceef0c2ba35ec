"""What `_native` does where it is not built: the same calls by `os`, for this process alone.

Decided here: how each call is made with what Python has. Not decided here: anything else. `who` is
always None: without the extension nobody acts for others.
"""

import ctypes
import os
from collections.abc import Sequence
from types import EllipsisType

__all__ = [
    "chmod",
    "chown",
    "ftruncate",
    "getxattr",
    "link",
    "listxattr",
    "mkdir",
    "mknod",
    "open",
    "pwrite",
    "removexattr",
    "rename",
    "setxattr",
    "symlink",
    "unlink",
    "utimens",
]

_Who = tuple[int, int, Sequence[int] | None] | None

_AT_FDCWD = -100
_AT_REMOVEDIR = 0x200
_AT_SYMLINK_FOLLOW = 0x400
_NANOSECONDS = 1_000_000_000
_UTIME_NOW, _UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2

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


def open(who: _Who, directory: int, name: bytes, flags: int, mode: int) -> int:  # noqa: A001
    """See openat(2)."""
    return os.open(name, flags, mode, dir_fd=None if directory == _AT_FDCWD else directory)


def mkdir(who: _Who, directory: int, name: bytes, mode: int, umask: int = 0) -> None:
    """See mkdirat(2); what the umask took is given back."""
    os.mkdir(name, mode, dir_fd=directory)
    _give_back(directory, name, mode, umask)


def mknod(who: _Who, directory: int, name: bytes, mode: int, device: int, umask: int = 0) -> None:
    """See mknodat(2); what the umask took is given back."""
    os.mknod(name, mode, device, dir_fd=directory)
    _give_back(directory, name, mode & 0o7777, umask)


def _give_back(directory: int, name: bytes, mode: int, umask: int) -> None:
    if mode & umask:
        made = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=directory)
        try:
            chmod(None, made, mode)
        finally:
            os.close(made)


def symlink(who: _Who, target: bytes, directory: int, name: bytes) -> None:
    """See symlinkat(2)."""
    os.symlink(target, name, dir_fd=directory)


def link(
    who: _Who, directory: int, name: bytes, new_directory: int, new_name: bytes, flags: int
) -> None:
    """See linkat(2)."""
    # Only with a directory (which an absolute path does not need) does Python call linkat(2) with
    # AT_SYMLINK_FOLLOW.
    os.link(
        name,
        new_name,
        src_dir_fd=0 if directory == _AT_FDCWD else directory,
        dst_dir_fd=new_directory,
        follow_symlinks=bool(flags & _AT_SYMLINK_FOLLOW),
    )


def unlink(who: _Who, directory: int, name: bytes, flags: int) -> None:
    """See unlinkat(2)."""
    (os.rmdir if flags & _AT_REMOVEDIR else os.unlink)(name, dir_fd=directory)


def rename(
    who: _Who, directory: int, name: bytes, new_directory: int, new_name: bytes, flags: int
) -> None:
    """See renameat2(2)."""
    if _renameat2(directory, name, new_directory, new_name, flags) != 0:
        _fail()


def chmod(who: _Who, descriptor: int, mode: int) -> None:
    """See fchmod(2); the descriptor may be an O_PATH one."""
    os.chmod(_of_descriptor(descriptor), mode)


def chown(who: _Who, descriptor: int, uid: int, gid: int) -> None:
    """See fchown(2); the descriptor may be an O_PATH one."""
    os.chown(_of_descriptor(descriptor), uid, gid)


def ftruncate(who: _Who, descriptor: int, size: int) -> None:
    """See ftruncate(2)."""
    os.ftruncate(descriptor, size)


def pwrite(who: _Who, descriptor: int, data: bytes, offset: int) -> int:
    """See pwrite(2)."""
    return os.pwrite(descriptor, data, offset)


def utimens(
    who: _Who,
    descriptor: int,
    atime_ns: int | EllipsisType | None,
    mtime_ns: int | EllipsisType | None,
) -> None:
    """See futimens(2): None leaves a time as it is, `...` is now; may be an O_PATH descriptor."""
    times = _timespecs(*_timespec(atime_ns), *_timespec(mtime_ns))
    if _utimensat(_AT_FDCWD, _of_descriptor(descriptor), times, 0) != 0:
        _fail()


def setxattr(who: _Who, path: bytes, name: bytes, value: bytes, flags: int) -> None:
    """See setxattr(2)."""
    os.setxattr(path, name, value, flags)


def getxattr(who: _Who, path: bytes, name: bytes) -> bytes:
    """See getxattr(2)."""
    return os.getxattr(path, name)


def listxattr(who: _Who, path: bytes) -> bytes:
    """See listxattr(2): each name ends with a zero byte."""
    return b"".join(os.fsencode(name) + b"\0" for name in os.listxattr(path))


def removexattr(who: _Who, path: bytes, name: bytes) -> None:
    """See removexattr(2)."""
    os.removexattr(path, name)


def _of_descriptor(descriptor: int) -> bytes:
    return b"/proc/self/fd/%d" % descriptor


def _timespec(time_ns: int | EllipsisType | None) -> tuple[int, int]:
    if time_ns is None or isinstance(time_ns, EllipsisType):
        return 0, _UTIME_OMIT if time_ns is None else _UTIME_NOW
    return divmod(time_ns, _NANOSECONDS)


def _fail() -> None:
    code = ctypes.get_errno()
    raise OSError(code, os.strerror(code))
