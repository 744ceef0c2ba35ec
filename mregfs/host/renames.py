"""Renames that never replace anything: exchange two names, or take one that is free.

Decided here: what is done where the kernel, the file system or the build lacks renameat2(2). Not
decided here: what is renamed. Everything raises OSError.
"""

import errno
import os
import stat

_built = True
try:
    from mregfs.host import _native
except ImportError:  # not built
    _built = False

__all__ = ["exchange", "move"]

_NOREPLACE, _EXCHANGE = 1, 2
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)
_LACKING = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


def exchange(directory: int, name: str, other_directory: int, other_name: str) -> bool:
    """Let two names in open directories change places, in one step; False where that is lacking."""
    return _renamed(directory, name, other_directory, other_name, _EXCHANGE)


def move(directory: int, name: str, new_directory: int, new_name: str) -> None:
    """Rename to a name that is free; EEXIST when it is not.

    Where the kernel cannot do that in one step, an empty directory that somebody makes in the
    middle is replaced.
    """
    if _renamed(directory, name, new_directory, new_name, _NOREPLACE):
        return
    if not stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
        os.link(
            name,
            new_name,
            src_dir_fd=directory,
            dst_dir_fd=new_directory,
            follow_symlinks=False,
        )
        os.unlink(name, dir_fd=directory)
        return
    try:
        os.stat(new_name, dir_fd=new_directory, follow_symlinks=False)
    except FileNotFoundError:
        try:
            os.rename(name, new_name, src_dir_fd=directory, dst_dir_fd=new_directory)
        except OSError as exc:
            if exc.errno not in _TAKEN:
                raise
        else:
            return
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new_name)


def _renamed(directory: int, name: str, new_directory: int, new_name: str, flags: int) -> bool:
    if not _built:
        return False
    try:
        _native.rename(
            None, directory, os.fsencode(name), new_directory, os.fsencode(new_name), flags
        )
    except OSError as exc:
        if exc.errno in _LACKING:
            return False
        raise
    return True
