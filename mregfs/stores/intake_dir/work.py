"""The work directory of one commit: what it took, private copies, and what undoes it after a crash.

Decided here: what is written down, and that a living commit is told from a dead one. Not decided
here: what is done about a dead one (`recovery`), what is taken (`taking`).

`STORE/intake/<random>/` holds `lock`, which the living process has locked, `intent.json`, the draft
while it is taken (`tree`), and the private copies. Nobody but the store's owner gets in.
"""

import contextlib
import errno
import fcntl
import os
import secrets
import stat

import msgspec

from mregfs.host.beneath import Beneath
from mregfs.host.listing import names_in

__all__ = [
    "INTENT",
    "LOCK",
    "SLOTS",
    "WORK",
    "Adoption",
    "Intent",
    "Record",
    "WorkDirectory",
    "is_placeholder",
    "lock_of",
    "open_work",
    "read_intent",
    "remove_work",
]

WORK = "intake"
LOCK = "lock"
INTENT, SECOND_INTENT = "intent.json", "intent-2.json"
SLOTS = ("tree", "draft")
"""Where the placeholder is made, and a taken draft is found; the second one only where the file
system cannot exchange two names."""

_PRIVATE = 0o700
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OPEN = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Record(msgspec.Struct, frozen=True, array_like=True):
    """Whose a directory of the draft was, and what its mode and time were."""

    inode: int
    uid: int
    gid: int
    mode: int
    mtime_ns: int


class Adoption(msgspec.Struct, frozen=True, array_like=True):
    """A file of the draft that gets a second name, as a pack; and what it was like before."""

    path: str
    pack: str
    inode: int
    mode: int
    uid: int
    gid: int


class Intent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a commit is about to do to a draft."""

    project: str
    draft: str
    layout: str
    since: int
    """Head of the log when the commit began: its entry, if any, comes later."""
    inode: int
    """Of the draft's directory."""
    placeholder: int
    """Inode number of the empty directory that keeps the draft's name."""
    directories: tuple[Record, ...]
    adoptions: tuple[Adoption, ...] = ()


class WorkDirectory:
    """Made when first needed, removed at the end; nobody else touches it while we live.

    Raises OSError throughout.

    Args:
        store: the directory of the store.
    """

    def __init__(self, store: Beneath) -> None:
        self._store = store
        self._parent = -1
        self._name = ""
        self._lock = -1
        self._noted = False
        self.fd = -1
        """The directory's descriptor once it is made, else -1."""

    def make(self) -> int:
        """Make the directory, unless there is one; return its descriptor."""
        while self.fd < 0:
            if self._parent < 0:
                self._store.ensure_directory(WORK, _PRIVATE)
                self._parent = self._store.open_directory(WORK)
            name = secrets.token_hex(16)
            os.mkdir(name, _PRIVATE, dir_fd=self._parent)
            try:
                fd = os.open(name, _DIRECTORY, dir_fd=self._parent)
                lock = os.open(LOCK, os.O_CREAT | os.O_RDWR | _OPEN, 0o600, dir_fd=fd)
            except FileNotFoundError:  # `recover` took it for a dead one's
                continue
            # `recover` may have been faster, and be removing it; or have removed it.
            if not _locked(lock) or os.fstat(lock).st_nlink == 0:
                os.close(lock)
                os.close(fd)
                continue
            self._lock, self._name, self.fd = lock, name, fd
        return self.fd

    def create(self, name: str) -> int:
        """Make a file of ours in it, open for reading and writing."""
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | _OPEN
        return os.open(name, flags, 0o600, dir_fd=self.make())

    def write_intent(self, intent: Intent) -> None:
        """Remember durably what is about to be done."""
        directory = self.make()
        # Nothing is done before the first one is whole. The second one says more, and takes no name
        # away: after a power cut btrfs may have done half of a rename that replaces a file.
        name = SECOND_INTENT if self._noted else INTENT
        fd = os.open(name, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | _OPEN, 0o600, dir_fd=directory)
        try:
            rest = memoryview(msgspec.json.encode(intent))
            while rest:
                rest = rest[os.write(fd, rest) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        self._noted = True
        os.fsync(directory)
        os.fsync(self._parent)

    def leave(self) -> None:
        """Give the directory up as if this process had died: for `recover` to decide about."""
        for fd in (self._lock, self.fd, self._parent):
            if fd >= 0:
                os.close(fd)
        self._lock = self.fd = self._parent = -1

    def remove(self) -> None:
        """Remove the directory and what is in it."""
        if self.fd >= 0:
            with contextlib.suppress(OSError):
                remove_work(self._parent, self._name, self.fd)
        self.leave()


def read_intent(directory: int) -> Intent | None:
    """Return what a commit wrote down in its work directory; None if it had not come to that.

    Only a regular file of this process's user is believed. Of two the second one is, if it is
    whole: what it announces has not begun before.

    Raises:
        OSError: it is something else, or cannot be read.
        ValueError: it says nothing.
    """
    with contextlib.suppress(FileNotFoundError, ValueError):
        return _read_intent(directory, SECOND_INTENT)
    with contextlib.suppress(FileNotFoundError):
        return _read_intent(directory, INTENT)
    return None


def _read_intent(directory: int, name: str) -> Intent:
    fd = os.open(name, os.O_RDONLY | _OPEN, dir_fd=directory)
    try:
        _check_own(os.fstat(fd), stat.S_IFREG, name)
        pieces = []
        while piece := os.read(fd, 1 << 20):
            pieces.append(piece)
    finally:
        os.close(fd)
    try:
        return msgspec.json.decode(b"".join(pieces), type=Intent)
    except msgspec.DecodeError as exc:
        raise ValueError(f"it says nothing: {exc}") from None


def is_placeholder(store: Beneath, inode: int) -> bool:
    """Tell whether a directory only keeps the name of a draft that some process is committing."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        parent_fd = store.open_directory(WORK)
        stack.callback(os.close, parent_fd)
        for name in names_in(parent_fd):
            with contextlib.suppress(OSError, ValueError):
                directory = open_work(parent_fd, name)
                try:
                    intent = read_intent(directory)
                finally:
                    os.close(directory)
                if intent is not None and intent.placeholder == inode:
                    return True
    return False


def open_work(parent: int, name: str) -> int:
    """Open a work directory of this process's user.

    Raises:
        OSError: it is somebody else's, or something else.
    """
    fd = os.open(name, _DIRECTORY, dir_fd=parent)
    try:
        _check_own(os.fstat(fd), stat.S_IFDIR, name)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_own(found: os.stat_result, kind: int, name: str) -> None:
    """Refuse what this process, or an earlier one of its user, cannot have made."""
    own = found.st_uid == os.geteuid() and not found.st_mode & _OTHERS_WRITE
    if stat.S_IFMT(found.st_mode) != kind or not own:
        raise OSError(
            errno.EPERM,
            "it belongs to another user, so it is ignored; remove it if nobody needs it",
            name,
        )


def lock_of(work_fd: int) -> int:
    """Lock a work directory that nobody alive has; return the lock, or -1 when somebody has.

    The lock is the first file in it that is made. After a power cut another one may be there alone.

    Raises:
        FileNotFoundError: it is empty: just being made, or its making was interrupted.
        OSError: it has no lock that we could have made.
    """
    names = names_in(work_fd)
    made = os.O_CREAT if names and LOCK not in names else 0
    lock = os.open(LOCK, os.O_RDWR | made | _OPEN, 0o600, dir_fd=work_fd)
    try:
        _check_own(os.fstat(lock), stat.S_IFREG, LOCK)
    except BaseException:
        os.close(lock)
        raise
    if _locked(lock) and os.fstat(lock).st_nlink == 1:
        return lock
    os.close(lock)
    return -1


def remove_work(parent: int, name: str, work_fd: int) -> None:
    """Remove a work directory, its lock last: so that what a crash leaves is found again.

    Raises:
        OSError: something in it is not to be removed.
    """
    for slot in SLOTS:  # first: a draft that cannot be removed stays with its intent
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(slot, dir_fd=work_fd)
    for each in names_in(work_fd):
        if each != LOCK:
            os.unlink(each, dir_fd=work_fd)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(LOCK, dir_fd=work_fd)
    os.rmdir(name, dir_fd=parent)


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
