"""The directory `staging/` of a store, and in it the staging directories of its projects.

Decided here: how they are reached and made: beneath the store, through no symlink, and only what
belongs to the store's owner. Not decided here: what is in them. Errors are OSError.
"""

import errno
import os
import stat

from mregfs.host.beneath import Beneath
from mregfs.host.listing import names_in
from mregfs.vfs.interface import FileSystemFigures

__all__ = ["Staging"]

_WAY = 0o700
"""Of the directories that lead there: nobody gets to drafts past the mount."""

_PATH = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW


class Staging:
    """The staging directories below `<store>/<name>`; that is made if need be, and if it can be.

    Args:
        store: the store's directory; it stays the caller's.
        name: of the directory in it.
    """

    def __init__(self, store: Beneath, name: str) -> None:
        self._store = store.duplicate()
        self._name = name
        self.path = f"{store.path}/{name}"
        """On the host; for messages."""

    def close(self) -> None:
        """Let go of the store's directory."""
        self._store.close()

    def prepare(self) -> None:
        """Make the directory, unless it is there."""
        if not self._store.exists(self._name):
            self._make_way(self._name)

    def open(self, project: bytes) -> int:
        """Return an O_PATH descriptor of a project's ("entity/name") staging directory.

        If the store's directory was removed, that of the store that was put back in its place.
        """
        try:
            return self._open(project)
        except FileNotFoundError:
            if not self._store.found_again():
                raise
        return self._open(project)

    def _open(self, project: bytes) -> int:
        with self._store.parent(f"{self._name}/{os.fsdecode(project)}") as (above, last):
            descriptor = os.open(last, _PATH, dir_fd=above)
            if os.fstat(descriptor).st_uid != self._store.owner:
                os.close(descriptor)
                raise OSError(
                    errno.EPERM, "it does not belong to the store's owner", self._spell(project)
                )
            return descriptor

    def make(self, project: bytes) -> None:
        """Make a project's staging directory."""
        name = f"{self._name}/{os.fsdecode(project)}"
        for way in (self._name, name.rpartition("/")[0]):
            if not self._store.exists(way):
                self._make_way(way)
        with self._store.parent(name) as (above, last):
            os.mkdir(last, _WAY, dir_fd=above)

    def share(self, project: bytes, gid: int, mode: int) -> None:
        """Give a project's staging directory a group (-1: any) and a mode, if it is ours.

        Where we may not give it to the group, the group gets what all others get.
        """
        with self._store.parent(f"{self._name}/{os.fsdecode(project)}") as (above, last):
            opened = os.open(last, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
            try:
                found = os.fstat(opened)
                if found.st_uid != os.geteuid() or found.st_uid != self._store.owner:
                    return
                if gid not in (-1, found.st_gid):
                    try:
                        os.fchown(opened, -1, gid)
                    except PermissionError:
                        mode = mode & ~0o070 | (mode & 0o007) << 3
                if stat.S_IMODE(found.st_mode) != mode:
                    os.fchmod(opened, mode)
            finally:
                os.close(opened)

    def _make_way(self, name: str) -> None:
        try:
            self._store.make_directory(name, _WAY)
        except FileExistsError:
            pass

    def drafts(self, project: bytes) -> list[bytes]:
        """Return the names of the directories in a project's staging directory."""
        above = self.open(project)
        try:
            descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=above)
        finally:
            os.close(above)
        try:
            return [
                os.fsencode(name)
                for name in names_in(descriptor)
                if stat.S_ISDIR(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode)
            ]
        finally:
            os.close(descriptor)

    def figures(self) -> FileSystemFigures:
        """Return what statvfs(3) tells of the file system of the drafts."""
        try:
            descriptor = self._store.open_directory(self._name)
        except OSError:  # not ours to make, or to enter
            descriptor = os.dup(self._store.fd)
        try:
            found = os.fstatvfs(descriptor)
        finally:
            os.close(descriptor)
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

    def _spell(self, project: bytes) -> str:
        return f"{self.path}/{os.fsdecode(project)}"
