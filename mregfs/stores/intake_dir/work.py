"""The work directory of one commit: private copies, and what is to be undone after a crash.

Decided here: how a dead commit is told from a live one, and how its traces are removed. Not
decided here: whether the log has its version (`recover` is told). Only `intake` calls this.

`STORE/intake/<random>/` holds `lock`, which the living process has locked, `intent.json`, and the
private copies.
"""

import contextlib
import errno
import fcntl
import logging
import os
import secrets
from collections.abc import Callable

import msgspec

from mregfs.errors import MregfsError
from mregfs.stores.intake_dir.tree import Directories, translated
from mregfs.stores.ownership import make_directory

__all__ = [
    "Adoption",
    "Intent",
    "WorkDirectory",
    "pack_path",
    "put_back",
    "recover",
]

log = logging.getLogger(__name__)

_LOCK = "lock"
_INTENT = "intent.json"


class Adoption(msgspec.Struct, frozen=True):
    """A file of the draft that gets a second name, as a pack; and what it was like before."""

    path: str
    pack: str
    inode: int
    mode: int
    uid: int
    gid: int


class Intent(msgspec.Struct, frozen=True):
    """What a commit is about to do to a draft."""

    draft: str
    layout: str
    since: int
    """Head of the log when the commit began: its entry, if any, comes later."""
    adoptions: tuple[Adoption, ...]
    entries: dict[str, tuple[int, int]]
    """Inode number and mtime of every file of the draft."""


def pack_path(packs_path: str, pack: str) -> str:
    """Return where a pack stands (`format.md` §7)."""
    return f"{packs_path}/{pack[:2]}/{pack}"


class WorkDirectory:
    """Made when first needed, removed at the end; nobody else touches it while we live."""

    def __init__(self, parent: str) -> None:
        self._parent = parent
        self.path = ""
        self._lock = -1

    def make(self) -> str:
        """Make the directory, unless there is one; return its path."""
        while not self.path:
            path = os.path.join(self._parent, secrets.token_hex(16))
            with contextlib.suppress(FileExistsError):
                make_directory(self._parent, os.path.dirname(self._parent))
            os.mkdir(path, 0o700)
            try:
                lock = os.open(f"{path}/{_LOCK}", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:  # `recover` took it for a dead one's
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # `recover` was faster, and is removing it
                os.close(lock)
                continue
            if os.fstat(lock).st_nlink == 0:
                os.close(lock)
                continue
            self._lock, self.path = lock, path
        return self.path

    def write_intent(self, intent: Intent) -> None:
        """Remember durably what is about to be done."""
        path = self.make()
        fd = os.open(f"{path}/{_INTENT}.new", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, msgspec.json.encode(intent))
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(f"{path}/{_INTENT}.new", f"{path}/{_INTENT}")
        for directory in (path, self._parent):
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def leave(self) -> None:
        """Give the directory up as if this process had died: for `recover` to decide about."""
        if self._lock >= 0:
            os.close(self._lock)
        self._lock, self.path = -1, ""

    def remove(self) -> None:
        """Remove the directory and what is in it."""
        if self.path:
            with contextlib.suppress(OSError):
                _remove(self.path)
        self.leave()


def _remove(path: str) -> None:
    """Remove a work directory, its lock last: so that what a crash leaves is found again."""
    for name in os.listdir(path):
        if name != _LOCK:
            os.unlink(f"{path}/{name}")
    os.unlink(f"{path}/{_LOCK}")
    os.rmdir(path)


def recover(parent: str, packs_path: str, committed: Callable[[str, int], bool]) -> None:
    """Finish or undo what dead commits began, as `ports.Intake.recover` says."""
    try:
        names = os.listdir(parent)
    except FileNotFoundError:
        return
    except OSError as exc:
        raise translated(exc, "cannot read", parent) from exc
    for name in names:
        path = os.path.join(parent, name)
        try:
            lock = os.open(f"{path}/{_LOCK}", os.O_RDWR | os.O_CLOEXEC)
        except OSError as exc:
            if exc.errno == errno.ENOENT:  # just being made, or a crash right there
                with contextlib.suppress(OSError):
                    os.rmdir(path)
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock).st_nlink:
                _recover_one(path, packs_path, committed)
        except BlockingIOError:
            pass  # alive
        except (OSError, MregfsError) as exc:
            log.warning("cannot undo the commit that left %s: %s", path, exc)
        finally:
            os.close(lock)


def _recover_one(path: str, packs_path: str, committed: Callable[[str, int], bool]) -> None:
    try:
        with open(f"{path}/{_INTENT}", "rb") as file:
            writer = os.fstat(file.fileno()).st_uid
            if writer not in (os.geteuid(), os.stat(os.path.dirname(packs_path)).st_uid):
                # It names files to remove: only ours, and the store owner's, are to be believed.
                return
            intent = msgspec.json.decode(file.read(), type=Intent)
    except FileNotFoundError:
        intent = None
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        log.warning("%s/%s says nothing (%s): leaving it", path, _INTENT, exc)
        return
    if intent is not None:
        if committed(intent.layout, intent.since):
            log.warning("finishing the commit of %s, which a crash interrupted", intent.draft)
            _finish(intent)
        else:
            log.warning("undoing the commit of %s, which a crash interrupted", intent.draft)
            _undo(intent, packs_path)
    _remove(path)


def _finish(intent: Intent) -> None:
    """Remove the files that became a version; what was written since stays."""
    try:
        tree = Directories(intent.draft)
    except FileNotFoundError:
        return
    with contextlib.closing(tree):
        for path, (inode, mtime_ns) in intent.entries.items():
            directory, _, name = path.rpartition("/")
            with contextlib.suppress(OSError):
                fd = tree.descriptor(directory)
                found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if found.st_ino == inode and found.st_mtime_ns == mtime_ns:
                    os.unlink(name, dir_fd=fd)
        directories = [directory for directory, _, _ in tree.walk()]
        for directory in reversed(directories[1:]):
            parent, _, name = directory.rpartition("/")
            with contextlib.suppress(OSError):
                os.rmdir(name, dir_fd=tree.descriptor(parent))
    with contextlib.suppress(OSError):
        os.rmdir(intent.draft)


def _undo(intent: Intent, packs_path: str) -> None:
    with contextlib.suppress(OSError), contextlib.closing(Directories(intent.draft)) as tree:
        for adoption in intent.adoptions:
            directory, _, name = adoption.path.rpartition("/")
            with contextlib.suppress(OSError):
                how = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
                fd = os.open(name, how, dir_fd=tree.descriptor(directory))
                try:
                    if os.fstat(fd).st_ino == adoption.inode:
                        put_back(fd, adoption)
                finally:
                    os.close(fd)
    for adoption in intent.adoptions:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(pack_path(packs_path, adoption.pack))


def put_back(fd: int, adoption: Adoption) -> None:
    """Give a file its owner and mode again."""
    found = os.fstat(fd)
    if (found.st_uid, found.st_gid) != (adoption.uid, adoption.gid):
        os.fchown(fd, adoption.uid, adoption.gid)
    os.fchmod(fd, adoption.mode)
