"""What a user does to a mount: each function is a system call or two, done in his own process.

Decided here: the operations, and how a race is run: one thread swaps two names by one mount while
another uses one of them by another mount. Not decided here: who does which, and what must hold.
"""

import contextlib
import ctypes
import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

__all__ = [
    "ALPHABET",
    "batch",
    "chmod_private",
    "chown_group",
    "control",
    "copy_out",
    "create",
    "duel",
    "exchange",
    "hold",
    "link",
    "mkdir",
    "move",
    "open_up",
    "read_everything",
    "rmdir",
    "set_times",
    "set_xattr",
    "swap_names",
    "symlink",
    "truncate",
    "unlink",
    "use_held",
]

RENAME_EXCHANGE = 2
AT_FDCWD = -100
OWNER = b"OWNER %d %s\n"

_libc = ctypes.CDLL(None, use_errno=True)
_held: list[int] = []
"""Directories that this process has kept open."""


def create(path: str, token: str, mode: int) -> None:
    """Make a file whose first line names its owner and a token."""
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, mode)
    try:
        os.write(fd, OWNER % (os.geteuid(), token.encode()))
    finally:
        os.close(fd)


def mkdir(path: str, mode: int) -> None:
    """Make a directory with just this mode."""
    before = os.umask(0)
    try:
        os.mkdir(path, mode)
    finally:
        os.umask(before)


def exchange(path: str, other: str) -> None:
    """Swap two names."""
    done = _libc.renameat2(
        AT_FDCWD, os.fsencode(path), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE
    )
    if done:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def move(path: str, to: str) -> None:
    """Rename; also the operation that commits."""
    os.rename(path, to)


def symlink(target: str, path: str) -> None:
    """Make a symlink."""
    os.symlink(target, path)


def link(path: str, to: str) -> None:
    """Make a hard link."""
    os.link(path, to, follow_symlinks=False)


def chmod_private(path: str, mode: int) -> None:
    """Change a mode by name."""
    assert not mode & 0o077
    os.chmod(path, mode)


def open_up(path: str, mode: int) -> str:
    """Let others read a file; return its token. By descriptor: it is the file that was read."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        token = _token(os.read(fd, 200))
        os.chmod(f"/proc/self/fd/{fd}", mode)
    finally:
        os.close(fd)
    return token


def chown_group(path: str, gid: int) -> None:
    """Give a file to a group."""
    os.chown(path, -1, gid, follow_symlinks=False)


def set_times(path: str, seconds: int) -> None:
    """Set time stamps."""
    os.utime(path, (seconds, seconds))


def truncate(path: str) -> None:
    """Empty a file."""
    os.truncate(path, 0)


def set_xattr(path: str, value: bytes) -> None:
    """Set an attribute."""
    os.setxattr(path, "user.attack", value)


def unlink(path: str) -> None:
    """Remove a name."""
    os.unlink(path)


def rmdir(path: str) -> None:
    """Remove a directory."""
    os.rmdir(path)


def hold(path: str) -> None:
    """Keep a directory open, and work in it."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    _held.append(fd)
    if len(_held) > 4:
        os.close(_held.pop(0))
    os.fchdir(fd)


def use_held(number: int, kind: str, name: str) -> None:
    """Do something in a directory that was kept open, whatever has become of it."""
    if not _held:
        return
    fd = _held[number % len(_held)]
    if kind == "create":
        made = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644, dir_fd=fd)
        os.close(made)
    elif kind == "append":
        opened = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK, dir_fd=fd)
        try:
            os.write(opened, b"written by one who kept it open\n")
        finally:
            os.close(opened)
    elif kind == "chmod":
        os.fchmod(fd, 0o700)
    elif kind == "unlink":
        os.unlink(name, dir_fd=fd)
    elif kind == "cwd":
        with open(name, "ab") as file:
            file.write(b"written by one who works there\n")


def control(mount: str, line: str) -> None:
    """Have the registry do something; its refusal is the errno of the write."""
    fd = os.open(f"{mount}/.mregfs/control", os.O_WRONLY)
    try:
        os.write(fd, line.encode())
    finally:
        os.close(fd)


def read_everything(place: str) -> list[str]:
    """Return the tokens of all files that this user can read below a directory."""
    found = []
    pending = [place]
    while pending:
        path = pending.pop()
        with contextlib.suppress(OSError):
            for entry in os.scandir(path):
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    with contextlib.suppress(OSError):
                        found.append(_token(_read(entry.path)))
    return [token for token in found if token]


def copy_out(path: str) -> bytes:
    """Return a file's bytes."""
    return _read(path)


def batch(operations: Sequence[tuple[Callable[..., Any], tuple[Any, ...]]]) -> list[Any]:
    """Do several; return what came of each: ("ok", value) or the name of the errno."""
    came: list[Any] = []
    for job, args in operations:
        try:
            came.append(("ok", job(*args)))
        except OSError as refused:
            came.append((errno.errorcode.get(refused.errno or 0, "?"), None))
    return came


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        return os.read(fd, 1 << 16)
    finally:
        os.close(fd)


def _token(data: bytes) -> str:
    words = data.split(b"\n")[0].split()
    return words[2].decode() if len(words) == 3 and words[0] == b"OWNER" else ""


# ---- races


def duel(kind: str, one: str, other: str, here: str, victim: str, line: str, seconds: float) -> int:
    """Use a name by one mount while another mount makes it something else, again and again.

    Args:
        kind: what is done to the name; see `_uses`.
        one: a mount.
        other: another, or the same.
        here: the draft that is fought in, below a mount: his own.
        victim: what the name leads to, every other time.
        line: what `control` is told, in a fight about a commit.
        seconds: how long.

    Returns:
        How many times it was done.
    """
    first, second = f"{one}/staging/{here}", f"{other}/staging/{here}"
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError):
                exchange(*_swapped(kind, second))

    with contextlib.suppress(OSError):
        mkdir(first, 0o755)
    _arrange(kind, first, victim)
    thread = threading.Thread(target=swap)
    thread.start()
    rounds = 0
    try:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            rounds += 1
            with contextlib.suppress(OSError):
                _use(kind, first, line, one)
            if rounds % 50 == 0:
                _arrange(kind, first, victim)
    finally:
        stop.set()
        thread.join()
    return rounds


_BY_NAME = ("link", "open", "removexattr", "rename", "unlink")
_COMMITS = ("commit", "mv")
_MADE_AGAIN = ("create", "mkdir", "symlink", "mknod")

ALPHABET = (
    *("chmod", "chown", "times", "truncate", "write", "xattr"),
    *(*_BY_NAME, *_MADE_AGAIN, *_COMMITS),
)
"""The kinds of fights."""


def _swapped(kind: str, top: str) -> tuple[str, str]:
    if kind in _COMMITS:
        return top, f"{top}.other"
    return f"{top}/name", f"{top}/other"


def _arrange(kind: str, top: str, victim: str) -> None:
    """Put what is needed in its place, where it is not."""
    if kind in _COMMITS:
        for path in (top, f"{top}.other"):
            with contextlib.suppress(OSError):
                if not stat.S_ISLNK(os.lstat(path).st_mode) and not os.path.lexists(f"{path}/f"):
                    create(f"{path}/f", "open", 0o644)
                continue
            with contextlib.suppress(OSError):
                if os.path.lexists(top):
                    symlink(victim, path)
                else:
                    mkdir(path, 0o755)
        return
    with contextlib.suppress(OSError):
        symlink(victim, f"{top}/other")
    if kind not in _MADE_AGAIN:
        with contextlib.suppress(OSError):
            create(f"{top}/name", "open", 0o644)


def _use(kind: str, top: str, line: str, mount: str) -> None:
    path = f"{top}/name"
    if kind == "chmod":
        os.chmod(path, 0o666)
    elif kind == "chown":
        os.chown(path, -1, os.getegid(), follow_symlinks=False)
    elif kind == "times":
        os.utime(path, (7, 7))
    elif kind == "truncate":
        os.truncate(path, 0)
    elif kind == "write":
        fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
        try:
            os.write(fd, b"written in a fight\n")
        finally:
            os.close(fd)
    elif kind == "xattr":
        os.setxattr(path, "user.attack", b"1", follow_symlinks=False)
    elif kind == "removexattr":
        os.removexattr(path, "user.canary", follow_symlinks=False)
    elif kind == "open":
        os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))
    elif kind == "link":
        with contextlib.suppress(OSError):
            os.unlink(f"{top}/linked")
        os.link(path, f"{top}/linked")
        os.chmod(f"{top}/linked", 0o666)
    elif kind == "rename":
        os.rename(path, f"{top}/moved")
    elif kind == "unlink":
        os.unlink(path)
    elif kind == "create":
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        os.unlink(path)
    elif kind == "mkdir":
        os.mkdir(path)
        os.rmdir(path)
    elif kind == "symlink":
        os.symlink("nowhere", path)
        os.unlink(path)
    elif kind == "mknod":
        os.mkfifo(path)
        os.unlink(path)
    elif kind == "commit":
        control(mount, line)
    else:
        os.rename(top, line)


def swap_names(place: str, prefix: str, file: str, directory: str, seconds: float) -> int:
    """Make every name below a directory a symlink to a file or directory, and itself again.

    Whatever appears there meanwhile is taken in, too. With a prefix only names that begin so.

    Returns:
        How often something was swapped.
    """
    end = time.monotonic() + seconds
    swapped = 0
    while time.monotonic() < end:
        pending = [place]
        while pending:
            here = pending.pop()
            with contextlib.suppress(OSError):
                for entry in list(os.scandir(here)):
                    if entry.name.startswith(".swapped-") or entry.is_symlink():
                        continue
                    is_directory = entry.is_dir(follow_symlinks=False)
                    if not entry.name.startswith(prefix):
                        continue
                    aside = f"{here}/.swapped-{entry.name}"
                    with contextlib.suppress(OSError):
                        os.symlink(directory if is_directory else file, aside)
                    with contextlib.suppress(OSError):
                        exchange(entry.path, aside)
                        swapped += 1
                        time.sleep(0.002 if prefix else 0)
                        exchange(entry.path, aside)
                    with contextlib.suppress(OSError):
                        os.unlink(aside)
                    if is_directory:
                        pending.append(entry.path)
    return swapped
