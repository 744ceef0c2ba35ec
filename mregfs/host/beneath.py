"""A directory held by descriptor, and the names below it: the one way to a store's own files.

Decided here: that a name is resolved beneath the directory and through no symlink, and what may be
found there: a regular file or a directory of the directory's own owner, which nobody else can
write. Not decided here: which names there are (the adapters in `stores`).

Data and attributes go through the descriptors that are opened here. Names are made and removed by
(descriptor of the parent, one name), which follows nothing. A path serves messages only.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from typing import Self

from mregfs.host.listing import names_in

try:
    from mregfs.host import _native
except ImportError:  # not built: component by component
    _native = None  # type: ignore[assignment]

__all__ = ["Beneath"]

_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
_RESOLVE = _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_SYMLINKS | _RESOLVE_BENEATH

_ATTEMPTS = 16
"""Of openat2, which says EAGAIN when something was renamed meanwhile; then we walk."""

_LACKING = (errno.ENOSYS, errno.EPERM, errno.EAGAIN)
"""The kernel, or a filter of system calls, has no openat2; or see `_ATTEMPTS`."""

_ALWAYS = os.O_CLOEXEC | os.O_NOFOLLOW
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | _ALWAYS
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH

_SYMLINK = "it is a symbolic link, or behind one, which mregfs never makes there; remove it"

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a directory",
    stat.S_IFREG: "a file",
}


class Beneath:
    """A directory held by descriptor.

    Raises OSError throughout; its `filename` is the path below which something was wrong.

    Args:
        descriptor: of the directory, opened for reading; it is ours to close.
        path: for messages.
        owner: the uid whose everything below must be; by default the directory's own owner.
    """

    def __init__(self, descriptor: int, path: str, *, owner: int | None = None) -> None:
        self.fd = descriptor
        self.path = path
        found = os.fstat(descriptor)
        self.owner = found.st_uid if owner is None else owner
        self.identity = (found.st_dev, found.st_ino)
        self.find_successor: Callable[[], int] | None = None
        """Opens the directory that may take the place of this one when it was removed, or raises
        OSError."""

    @classmethod
    def at(cls, path: str | os.PathLike[str], *, owner: int | None = None) -> Self:
        """Open a directory by a path that a person named; symlinks on the way are followed."""
        where = os.path.abspath(path)
        descriptor = os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return cls(descriptor, where, owner=owner)

    def close(self) -> None:
        """Let go of the directory; calling it again does nothing."""
        descriptor, self.fd = self.fd, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        if getattr(self, "fd", -1) >= 0:
            self.close()

    def duplicate(self) -> "Beneath":
        """Hold the same directory once more, to be closed by itself."""
        made = Beneath(os.dup(self.fd), self.path, owner=self.owner)
        made.find_successor = self.find_successor
        return made

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # ---- the directory itself

    def found_again(self) -> bool:
        """After ENOENT: tell whether the directory had been removed, and its successor is held now.

        Then it is worth trying again. False: the directory is there, and it was the name that is
        missing.

        Raises:
            OSError: EIO, it was removed, and nothing at its path may take its place.
        """
        with contextlib.suppress(OSError):  # ESTALE, on NFS
            if os.fstat(self.fd).st_nlink:
                return False
        try:
            if self.find_successor is None:
                raise FileNotFoundError
            found = self.find_successor()
        except OSError:
            raise OSError(
                errno.EIO, "the directory was removed; put it back where it was", self.path
            ) from None
        try:
            # Under the same number, so that whoever else uses it goes on with the new one.
            os.dup2(found, self.fd, inheritable=False)
            status = os.fstat(self.fd)
            self.identity = (status.st_dev, status.st_ino)
        finally:
            os.close(found)
        return True

    # ---- opening

    def open(self, name: str, flags: int = os.O_RDONLY, mode: int = 0o600) -> int:
        """Open a regular file below the directory; what was there already must be its owner's.

        Never waits for the other end of a FIFO, and never for a lease: EAGAIN.
        """
        how = flags | os.O_NONBLOCK | os.O_NOCTTY
        descriptor = self._open(name, how, mode if flags & os.O_CREAT else 0)
        try:
            self._check(os.fstat(descriptor), name, stat.S_IFREG)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def open_directory(self, name: str) -> int:
        """Open a directory below this one for reading; it must be its owner's."""
        if name in ("", "."):
            descriptor = os.open(".", _DIRECTORY, dir_fd=self.fd)
        else:
            descriptor = self._open(name, _DIRECTORY, 0)
        try:
            self._check(os.fstat(descriptor), name, stat.S_IFDIR)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def open_nameless(self, mode: int) -> int:
        """Make a file without a name in the directory, open for writing."""
        return os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, mode, dir_fd=self.fd)

    def below(self, name: str) -> "Beneath":
        """Open a directory below this one, to be held by itself."""
        return Beneath(self.open_directory(name), f"{self.path}/{name}", owner=self.owner)

    @contextlib.contextmanager
    def parent(self, name: str) -> Iterator[tuple[int, str]]:
        """Give the descriptor of the directory that holds `name`, and the last component of it."""
        folder, _, last = name.rpartition("/")
        if last in ("", ".", ".."):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), f"{self.path}/{name}")
        if not folder:
            yield self.fd, last
            return
        descriptor = self.open_directory(folder)
        try:
            yield descriptor, last
        finally:
            os.close(descriptor)

    def _open(self, name: str, flags: int, mode: int) -> int:
        path = f"{self.path}/{name}"
        try:
            if _native is not None:
                for _ in range(_ATTEMPTS):
                    try:
                        return _native.openat2(
                            self.fd, os.fsencode(name), flags | _ALWAYS, mode, _RESOLVE
                        )
                    except OSError as exc:
                        if exc.errno == errno.EAGAIN and not flags & os.O_CREAT:
                            continue
                        if exc.errno not in _LACKING:
                            raise
                        break
            return self._walk(name, flags | _ALWAYS, mode)
        except OSError as exc:
            code = exc.errno or errno.EIO
            reason = _SYMLINK if code == errno.ELOOP else os.strerror(code)
            raise OSError(code, reason, path) from None

    def _walk(self, name: str, flags: int, mode: int) -> int:
        """Do what `_open` does without openat2: component by component, through no symlink."""
        *folders, last = name.split("/")
        if any(each in ("", ".", "..") for each in (*folders, last)):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        at = self.fd
        try:
            for folder in folders:
                below = os.open(folder, os.O_PATH | os.O_DIRECTORY | _ALWAYS, dir_fd=at)
                if at != self.fd:
                    os.close(at)
                at = below
            return os.open(last, flags, mode, dir_fd=at)
        finally:
            if at != self.fd:
                os.close(at)

    def _check(self, found: os.stat_result, name: str, kind: int) -> None:
        """Refuse what is not the owner's alone, or is something else than a file or directory."""
        path = f"{self.path}/{name}"
        if stat.S_IFMT(found.st_mode) != kind:
            what = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
            code = errno.EISDIR if stat.S_ISDIR(found.st_mode) else errno.EPERM
            raise OSError(code, f"it is {what}, which mregfs never makes there; remove it", path)
        if found.st_uid != self.owner:
            raise OSError(
                errno.EPERM,
                f"it belongs to uid {found.st_uid}, the store to uid {self.owner}; remove it, or "
                "give it to the store's owner if you trust it",
                path,
            )
        if found.st_mode & _OTHERS_WRITE:
            raise OSError(
                errno.EPERM,
                "users other than the store's owner may write it; remove that right if you "
                "trust it: chmod go-w",
                path,
            )

    # ---- looking

    def stat(self, name: str) -> os.stat_result:
        """Return what lstat(2) says of a name; nothing is followed, nothing checked."""
        descriptor = self._open(name, os.O_PATH, 0)
        try:
            return os.fstat(descriptor)
        finally:
            os.close(descriptor)

    def exists(self, name: str) -> bool:
        """Tell whether there is such a name, whatever it is."""
        try:
            self.stat(name)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def figures(self, name: str) -> os.statvfs_result:
        """Return the figures of the file system that a directory is on, or would be."""
        try:
            fd = self.open_directory(name)
        except FileNotFoundError:
            return os.fstatvfs(self.fd)
        try:
            return os.fstatvfs(fd)
        finally:
            os.close(fd)

    def listdir(self, name: str = "") -> list[str]:
        """Return the names in a directory below this one, or in this one."""
        descriptor = self.open_directory(name or ".")  # one of its own: threads share `fd`
        try:
            return names_in(descriptor)
        finally:
            os.close(descriptor)

    # ---- changing names

    def make_directory(self, name: str, mode: int | None = None, *, durable: bool = True) -> None:
        """Make one directory, durably named, with this directory's mode unless one is given.

        Not `durable`: the caller sees to that the name lasts.

        Raises:
            OSError: EEXIST, there is such a name; ENOENT, what should hold it is missing.
        """
        if mode is None:
            mode = stat.S_IMODE(os.fstat(self.fd).st_mode) & ~_OTHERS_WRITE & 0o777
        with self.parent(name) as (directory, last):
            os.mkdir(last, mode, dir_fd=directory)
            made = os.open(last, _DIRECTORY, dir_fd=directory)
            try:
                # Of our own making and in a directory that only we write: not swapped.
                if stat.S_IMODE(os.fstat(made).st_mode) != mode:
                    os.fchmod(made, mode)
            finally:
                os.close(made)
            if durable:
                self._sync(directory)

    def ensure_directory(self, name: str, mode: int | None = None) -> None:
        """Make a directory and those above it, below this one, that are missing.

        The names are durable on return, also when another writer has just made them.
        """
        parts = name.split("/")
        for count in range(1, len(parts) + 1):
            part = "/".join(parts[:count])
            try:
                self.make_directory(part, mode)
            except FileExistsError:
                with self.parent(part) as (directory, _):
                    self._sync(directory)

    def unlink(self, name: str) -> None:
        """Remove a name of anything but a directory."""
        with self.parent(name) as (directory, last):
            os.unlink(last, dir_fd=directory)

    def rmdir(self, name: str) -> None:
        """Remove an empty directory."""
        with self.parent(name) as (directory, last):
            os.rmdir(last, dir_fd=directory)

    def rename(self, name: str, new_name: str) -> None:
        """Rename, over whatever had the new name."""
        with (
            self.parent(name) as (directory, last),
            self.parent(new_name) as (new_directory, new_last),
        ):
            os.rename(last, new_last, src_dir_fd=directory, dst_dir_fd=new_directory)

    def link(self, name: str, new_name: str) -> None:
        """Give a file one more name; EEXIST when that is taken."""
        with (
            self.parent(name) as (directory, last),
            self.parent(new_name) as (new_directory, new_last),
        ):
            os.link(
                last,
                new_last,
                src_dir_fd=directory,
                dst_dir_fd=new_directory,
                follow_symlinks=False,
            )

    def link_open(self, descriptor: int, new_name: str) -> None:
        """Give an open file a name below this directory; EEXIST when that is taken."""
        with self.parent(new_name) as (directory, last):
            os.link(f"/proc/self/fd/{descriptor}", last, dst_dir_fd=directory, follow_symlinks=True)

    def sync_directory(self, name: str = "") -> None:
        """Make the names in a directory durable."""
        if not name:
            self._sync(self.fd)
            return
        descriptor = self.open_directory(name)
        try:
            self._sync(descriptor)
        finally:
            os.close(descriptor)

    def _sync(self, directory: int) -> None:
        os.fsync(directory)
