"""Paths that a person names, when others may swap what is on the way.

Decided here: which symlinks are followed: one's own and root's, and another user's only to what is
that user's. So nobody leads root, or a colleague, from his own directory to what he could not read
himself. Not decided here: what is done with what is found. Everything raises OSError.
"""

import errno
import os
import stat

__all__ = ["open_followed"]

_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_LINKS = 40  # as the kernel
_MADE = "/proc"


def open_followed(path: str, flags: int) -> int:
    """Open a path, with the flags of open(2); a symlink of another user leads to his own alone.

    Raises:
        OSError: EACCES, a symlink of another user leads elsewhere; or as open(2).
    """
    found, strangers = _find(path)
    try:
        status = os.fstat(found)
        if not strangers <= {status.st_uid}:
            stranger = min(strangers - {status.st_uid})
            raise OSError(
                errno.EACCES,
                f"a symbolic link of uid {stranger} on the way leads to what is uid "
                f"{status.st_uid}'s; name the file itself (realpath)",
                path,
            )
        # By its number, so that it is the one that was looked at.
        return os.open(f"/proc/self/fd/{found}", flags & ~os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as exc:
        raise OSError(exc.errno or errno.EIO, exc.strerror, path) from None
    finally:
        os.close(found)


def _find(path: str) -> tuple[int, set[int]]:
    """Return an O_PATH descriptor, and whose symlinks led there, besides one's own and root's."""
    strangers: set[int] = set()
    trusted = {0, os.geteuid()}
    links = 0
    names = _names(path)
    at = os.open("/" if path.startswith("/") else ".", _PATH | os.O_DIRECTORY)
    try:
        while names:
            name = names.pop()
            below = os.open(name, _PATH, dir_fd=at)
            status = os.fstat(below)
            if not stat.S_ISLNK(status.st_mode):
                at = _replace(at, below)
                continue
            links += 1
            try:
                target = os.readlink("", dir_fd=below)
            finally:
                os.close(below)
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            if status.st_uid not in trusted:
                strangers.add(status.st_uid)
            if status.st_dev == os.stat(_MADE).st_dev:  # its text is not where it leads
                at = _replace(at, os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=at))
                continue
            if target.startswith("/"):
                at = _replace(at, os.open("/", _PATH | os.O_DIRECTORY))
            names += _names(target)
    except BaseException:
        os.close(at)
        raise
    return at, strangers


def _names(path: str) -> list[str]:
    """Return the components of a path, the last one first."""
    names = [name for name in path.split("/") if name not in ("", ".")]
    if path.endswith(("/", "/.")) and names:
        names.append(".")  # then it must be a directory
    return names[::-1]


def _replace(old: int, new: int) -> int:
    os.close(old)
    return new
