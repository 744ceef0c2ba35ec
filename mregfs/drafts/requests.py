"""What all requests for drafts share: one lock, the known inodes, the errors.

Decided here: what happens under the lock and what outside of it, and what an error of the host
becomes. Not decided here: any request (`directory`, `committing`), which build on this.
"""

import contextlib
import errno
import os
import resource
import stat
import threading
from collections.abc import Iterator

from mregfs.drafts.acting import Actors
from mregfs.drafts.frozen import FreezableTable
from mregfs.drafts.nodes import Handle, Node
from mregfs.drafts.staging import Staging
from mregfs.errors import HostError
from mregfs.host.beneath import Beneath
from mregfs.host.calls import process_umask
from mregfs.vfs.interface import Attributes
from mregfs.vfs.numbers import Space, handles_of

__all__ = ["NOT_OURS", "PERMISSIONS", "Requests", "attributes_of", "translated"]

PERMISSIONS = 0o7777

_TIMEOUT = 1.0
"""For names, and for attributes of all but regular files: the kernel itself drops those that its
own requests change. A regular file's are never remembered, because a shared writable mapping
changes its time stamps without any request, also after the file was closed."""

NOT_OURS = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ELOOP)
"""What the host says of a directory that this process may not make or enter, or must not."""


class Requests:
    """The tables of one staging area, and how requests use them."""

    def __init__(self, store: Beneath, name: str, *, max_descriptors: int | None) -> None:
        if max_descriptors is None:
            max_descriptors = min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
        self._staging = Staging(store, name)
        self._actors = Actors()
        self._umask = process_umask()
        self._lock = threading.Lock()
        self._table = FreezableTable(max_descriptors, self._staging.open)
        self._handles: dict[int, Handle] = {}
        self._handle_numbers = handles_of(Space.DRAFTS)
        try:
            self._staging.prepare()
        except OSError as error:
            if error.errno not in NOT_OURS:
                raise translated(error, f"make the staging area {self._staging.path!r}") from error

    @property
    def known_count(self) -> int:
        """How many inodes are known now: what the kernel references, and the way to it."""
        return len(self._table)

    def close(self) -> None:
        """Close all descriptors; requests fail from now on. Calling it again does nothing."""
        with self._locked("close", None) as table:
            self._handles.clear()
            table.close()
            self._staging.close()

    @contextlib.contextmanager
    def _locked(
        self, action: str, inode: int | None, name: bytes = b""
    ) -> Iterator[FreezableTable]:
        """Hold the lock for one request; an OSError within becomes a HostError with the path."""
        table = self._table
        closing: list[int] = []
        try:
            with self._lock:
                table.trim()
                try:
                    yield table
                except OSError as error:
                    if isinstance(error, PermissionError) and inode is not None:
                        # The commit has taken the directories of the draft for itself.
                        self._refuse_frozen(table.get(inode))
                    raise translated(error, f"{action} {self._describe(inode, name)}") from error
                finally:
                    closing, table.closing = table.closing, closing
        finally:
            for descriptor in closing:
                with contextlib.suppress(OSError):  # what it may say, a flush has said before
                    os.close(descriptor)

    @contextlib.contextmanager
    def _unlocked(self, action: str, handle: int) -> Iterator[Handle]:
        """Find the handle; an OSError within becomes a HostError with the path."""
        opened = self._handles.get(handle)
        if opened is None:
            raise HostError(errno.EBADF, f"cannot {action}: no such handle {handle}")
        try:
            yield opened
        except OSError as error:
            with self._lock:
                subject = self._describe(opened.node.number, b"")
            raise translated(error, f"{action} {subject}") from error

    def _describe(self, inode: int | None, name: bytes) -> str:
        """Name what a request is about, as a path below the staging area where there is one."""
        if inode is None:
            return repr(os.fsdecode(name))
        node = self._table.get(inode)
        for top, way in self._table.ways(node) if node is not None else ():
            path = b"/".join([top.origin or b"?", *way, *([name] if name else [])])
            return repr(os.fsdecode(path))
        return f"{os.fsdecode(name)!r} in a removed directory" if name else "a removed file"

    def _origin(self, project: str) -> bytes:
        parts = project.split("/")
        if len(parts) != 2 or not {"", ".", ".."}.isdisjoint(parts):
            raise HostError(errno.EINVAL, f"{project!r} is no project", "write ENTITY/PROJECT")
        return os.fsencode(project)

    def _refuse_frozen(self, *nodes: Node | None) -> None:
        committing = self._table.committing(*nodes)
        if committing is not None:
            raise HostError(
                errno.EBUSY, f"draft {committing[1]!r} is being committed", "wait for it to end"
            )

    def _attributes(self, node: Node, found: os.stat_result) -> Attributes:
        """Return what the kernel is told of a node that stat(2) says this of."""
        attributes = attributes_of(node, found)
        if node.shown is not None:
            attributes.mode, attributes.uid, attributes.gid = node.shown
        return attributes


def attributes_of(node: Node, found: os.stat_result) -> Attributes:
    """Return what stat(2) says as attributes of a node."""
    return Attributes(
        inode=node.number,
        generation=node.generation,
        mode=found.st_mode,
        size=found.st_size,
        nlink=found.st_nlink,
        uid=found.st_uid,
        gid=found.st_gid,
        rdev=found.st_rdev,
        blocks=found.st_blocks,
        atime_ns=found.st_atime_ns,
        mtime_ns=found.st_mtime_ns,
        ctime_ns=found.st_ctime_ns,
        entry_timeout=_TIMEOUT,
        attr_timeout=0.0 if node.kind == stat.S_IFREG else _TIMEOUT,
    )


def translated(error: OSError, action: str) -> HostError:
    """Return the error of the port for one of the host's."""
    code = error.errno or errno.EIO
    return HostError(code, f"cannot {action}: {error.strerror or os.strerror(code)}")
