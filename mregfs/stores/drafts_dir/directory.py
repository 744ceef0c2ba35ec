"""The port `DraftTree` on a directory of the host: `<path>/<entity>/<project>/<draft>/…`.

Decided here: which system calls each request makes, and what a draft that is being committed
refuses. Not decided here: who may do what (the kernel's default_permissions), what a draft
becomes, when. Only the daemon makes one; the vfs calls it through the port.

All changes of the host directory come through this object; that is why names can be remembered.
One lock covers the tables and quick system calls; data, fsync and the last close of a file, which
frees its blocks, happen outside of it.
"""

import contextlib
import errno
import itertools
import os
import resource
import stat
import threading
from collections.abc import Callable, Iterator, Mapping

from mregfs.errors import ConflictError, HostError, NotFoundError
from mregfs.ports import Attributes, Caller, ChangedAttributes, FileSystemFigures, OpenFile
from mregfs.stores.drafts_dir import host, own
from mregfs.stores.drafts_dir.nodes import Handle, Node, NodeTable

__all__ = ["DraftDirectory"]

_TIMEOUT = 1.0
"""For names, and for attributes of all but regular files: the kernel itself drops those that its
own requests change. A regular file's are never remembered, because a shared writable mapping
changes its time stamps without any request, also after the file was closed."""

_STAGING_MODE = 0o1777
"""Like /tmp: anybody who gets into the mount may make drafts, nobody may take another's."""

_OPEN_FLAGS = os.O_ACCMODE | os.O_SYNC | os.O_DSYNC | os.O_NOATIME | os.O_TRUNC
"""What an open takes over from the caller. Under passthrough the kernel opens the backing file
again with the caller's own flags; elsewhere each WRITE comes with its offset, which O_APPEND
would override, and from unaligned memory, which O_DIRECT would refuse."""

_NOT_OURS = (errno.EROFS, errno.EACCES, errno.EPERM)
"""What the host says of a directory that this process may not make or enter."""

_RENAME_FLAGS = host.RENAME_NOREPLACE | host.RENAME_EXCHANGE
_PERMISSIONS = 0o7777
_ACL = b"system.posix_acl_"
_NOTHING = ChangedAttributes()


class DraftDirectory:
    """The staging area below `path`; what is there already is kept.

    Args:
        path: directory on the host; made if need be, for this process's user only. If it is not
            ours to make, there are no drafts.
        max_descriptors: how many descriptors to keep open only for speed; by default a quarter
            of what the process may open, at most 4096.
    """

    def __init__(self, path: str | os.PathLike[str], *, max_descriptors: int | None = None) -> None:
        if max_descriptors is None:
            max_descriptors = min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
        self._path = os.path.abspath(os.fspath(path))
        self._privileged = os.geteuid() == 0
        self._lock = threading.Lock()
        self._table = NodeTable(max_descriptors)
        self._handles: dict[int, Handle] = {}
        self._handle_numbers = itertools.count(1)
        try:
            os.makedirs(self._path, 0o700, exist_ok=True)
        except OSError as error:
            if error.errno not in _NOT_OURS:
                raise _translated(error, f"make the staging area {self._path!r}") from error

    @property
    def known_count(self) -> int:
        """How many inodes are known now: what the kernel references, and the way to it."""
        return len(self._table)

    def close(self) -> None:
        """Close all descriptors; requests fail from now on. Calling it again does nothing."""
        with self._locked("close", None) as table:
            self._handles.clear()
            table.close()

    # ---- names ------------------------------------------------------------------------------

    def root(self, project: str) -> Attributes:
        """Return (and make, if need be) the staging directory; it needs no `forget`."""
        origin = self._origin(project)
        with self._locked("open the staging directory of", None, os.fsencode(project)) as table:
            try:
                try:
                    node = table.admit_root(origin)
                except FileNotFoundError:
                    os.makedirs(os.path.dirname(origin), 0o700, exist_ok=True)
                    os.mkdir(origin)
                    os.chmod(origin, _STAGING_MODE)
                    node = table.admit_root(origin)
            except OSError as error:
                if error.errno in _NOT_OURS:
                    raise NotFoundError(f"there are no drafts: {error}") from error
                raise
            return _attributes(node, table.stat(node))

    def project_of(self, inode: int) -> str | None:
        """Return "entity/name" when `inode` is the staging directory of a project, else None."""
        with self._locked("stat", inode) as table:
            node = table.get(inode)
            if node is None or node.origin is None:
                return None
            return os.path.relpath(os.fsdecode(node.origin), self._path)

    def lookup(self, parent: int, name: bytes) -> Attributes:
        """Find `name`; also `.` and `..`, but not above a project's staging directory."""
        with self._locked("look up", parent, name) as table:
            directory = table.alive(parent)
            if name in (b".", b".."):
                above = directory if name == b"." else None
                node = above or next((up for up, _ in directory.names), directory)
                found = table.stat(node)
            else:
                descriptor = table.descriptor(directory)
                try:
                    found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                except FileNotFoundError:
                    # Removed, not by us: another mount may have made it anew by now.
                    if directory.names and os.fstat(descriptor).st_nlink == 0:
                        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE)) from None
                    raise
                node = table.admit(directory, name, found)
            node.lookups += 1
            return _attributes(node, found)

    def forget(self, inode: int, count: int) -> None:
        """Take back `count` lookups."""
        with self._locked("forget", None) as table:
            node = table.get(inode)
            if node is not None:
                node.lookups = max(0, node.lookups - count)
                table.reap(node)

    def mknod(self, parent: int, name: bytes, mode: int, rdev: int, caller: Caller) -> Attributes:
        """Make a file of any kind that is neither directory nor symlink."""

        def make(directory: int) -> None:
            os.mknod(name, mode, rdev, dir_fd=directory)

        with self._locked("make", parent, name) as table:
            return self._made(table, parent, name, mode, caller, make)[1]

    def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller) -> Attributes:
        """Make a directory."""

        def make(directory: int) -> None:
            os.mkdir(name, mode & _PERMISSIONS, dir_fd=directory)

        with self._locked("make the directory", parent, name) as table:
            return self._made(table, parent, name, mode, caller, make)[1]

    def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Attributes:
        """Make a symbolic link that says `target`."""

        def make(directory: int) -> None:
            os.symlink(target, name, dir_fd=directory)

        with self._locked("make the link", parent, name) as table:
            return self._made(table, parent, name, None, caller, make)[1]

    def link(self, inode: int, parent: int, name: bytes, caller: Caller) -> Attributes:
        """Give a file one more name."""
        with self._locked("link", parent, name) as table:
            node, directory = table.alive(inode), table.alive(parent)
            self._refuse_frozen(node, directory)
            source, follow = table.own_place(node)
            descriptor = table.descriptor(directory)
            os.link(source, name, dst_dir_fd=descriptor, follow_symlinks=follow)
            try:
                table.own_place(node)  # a commit by another process may have ended: see `own`
            except OSError:
                os.unlink(name, dir_fd=descriptor)
                raise
            found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            node = table.admit(directory, name, found)
            node.lookups += 1
            return _attributes(node, found)

    def unlink(self, parent: int, name: bytes, caller: Caller) -> None:
        """Remove a name of anything but a directory."""
        self._remove(parent, name, os.unlink)

    def rmdir(self, parent: int, name: bytes, caller: Caller) -> None:
        """Remove an empty directory."""
        self._remove(parent, name, os.rmdir)

    def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int, caller: Caller
    ) -> None:
        """Rename, also from draft to draft; RENAME_NOREPLACE and RENAME_EXCHANGE are known."""
        with self._locked("rename", parent, name) as table:
            if flags & ~_RENAME_FLAGS:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            source, target = table.alive(parent), table.alive(new_parent)
            self._refuse_frozen(
                source, target, source.children.get(name), target.children.get(new_name)
            )
            if not flags:
                table.pin(target, new_name)
            directories = table.descriptor(source), table.descriptor(target)
            host.rename(directories[0], name, directories[1], new_name, flags)
            if flags & host.RENAME_EXCHANGE:
                table.swapped(source, name, target, new_name)
            else:
                table.moved(source, name, target, new_name)

    # ---- attributes -------------------------------------------------------------------------

    def getattr(self, inode: int) -> Attributes:
        """Say what stat(2) says, also of what was removed and is still open or known."""
        with self._locked("stat", inode) as table:
            node = table.readable(inode)
            return _attributes(node, table.stat(node))

    def setattr(
        self, inode: int, changed: ChangedAttributes, handle: int | None, caller: Caller
    ) -> Attributes:
        """Change what is given; the size first, because only that may fail for lack of space."""
        with self._locked("change", inode) as table:
            node = table.alive(inode)
            self._refuse_frozen(node)
            to_chmod = (changed.mode, changed.uid, changed.gid) != (None, None, None)
            path, follow = table.own_place(node, to_chmod=to_chmod)
            if node.kind == stat.S_IFLNK and (changed.mode, changed.size) != (None, None):
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
            if changed.size is not None:
                opened = None if handle is None else self._handles.get(handle)
                if opened is not None and opened.writable:
                    os.ftruncate(opened.descriptor, changed.size)
                else:
                    own.truncate(table, node, changed.size)
            if changed.uid is not None or changed.gid is not None or changed == _NOTHING:
                # Nothing given is chown(-1, -1), which renews the ctime.
                uid = -1 if changed.uid is None else changed.uid
                gid = -1 if changed.gid is None else changed.gid
                os.chown(path, uid, gid, follow_symlinks=follow)
            if changed.mode is not None:  # after chown, which takes set-id bits away
                os.chmod(path, changed.mode & _PERMISSIONS)
            if changed.atime_ns is not None or changed.mtime_ns is not None:
                host.set_times(path, changed.atime_ns, changed.mtime_ns, follow=follow)
            return _attributes(node, table.stat(node))

    def readlink(self, inode: int) -> bytes:
        """Return where a symbolic link points, as written."""
        with self._locked("read the link", inode) as table:
            node = table.alive(inode)
            path, pinned = table.place(node)
            return os.readlink(b"", dir_fd=node.descriptor) if pinned else os.readlink(path)

    def setxattr(self, inode: int, name: bytes, value: bytes, caller: Caller) -> None:
        """Set an extended attribute; access control lists are not supported."""
        with self._locked("set an extended attribute of", inode) as table:
            path, follow = self._attributed(table, inode, name, change=True)
            os.setxattr(path, name, value, follow_symlinks=follow)

    def getxattr(self, inode: int, name: bytes, caller: Caller) -> bytes:
        """Return the value of an extended attribute."""
        with self._locked("get an extended attribute of", inode) as table:
            path, follow = self._attributed(table, inode, name, change=False)
            return os.getxattr(path, name, follow_symlinks=follow)

    def listxattr(self, inode: int, caller: Caller) -> list[bytes]:
        """Return the names of all extended attributes."""
        with self._locked("list the extended attributes of", inode) as table:
            path, follow = table.place(table.alive(inode))
            names = map(os.fsencode, os.listxattr(path, follow_symlinks=follow))
            return [name for name in names if not name.startswith(_ACL)]

    def removexattr(self, inode: int, name: bytes, caller: Caller) -> None:
        """Remove an extended attribute."""
        with self._locked("remove an extended attribute of", inode) as table:
            path, follow = self._attributed(table, inode, name, change=True)
            os.removexattr(path, name, follow_symlinks=follow)

    def figures(self) -> FileSystemFigures:
        """Say what statvfs(3) says of the host's file system."""
        try:
            try:
                return host.figures(self._path)
            except FileNotFoundError:  # not ours to make
                return host.figures(os.path.dirname(self._path))
        except OSError as error:
            raise _translated(error, f"stat the file system of {self._path!r}") from error

    # ---- open files -------------------------------------------------------------------------

    def create(
        self, parent: int, name: bytes, mode: int, flags: int, caller: Caller
    ) -> tuple[OpenFile, Attributes]:
        """Make a regular file and open it, whatever its mode; or open the one that is there."""
        opened = -1

        def make(directory: int) -> None:
            nonlocal opened
            how = flags & _OPEN_FLAGS | os.O_CREAT | os.O_EXCL
            opened = os.open(name, how, mode & _PERMISSIONS, dir_fd=directory)

        with self._locked("create", parent, name) as table:
            try:
                node, attributes = self._made(table, parent, name, mode, caller, make)
            except FileExistsError:
                if flags & os.O_EXCL:
                    raise
            except BaseException:
                if opened >= 0:
                    os.close(opened)
                raise
            else:
                return self._opened(node, opened, flags), attributes
        attributes = self.lookup(parent, name)  # somebody made it since the kernel looked
        try:
            return self.open(attributes.inode, flags, caller), attributes
        except HostError:
            self.forget(attributes.inode, 1)
            raise

    def open(self, inode: int, flags: int, caller: Caller) -> OpenFile:
        """Open a file; `backing` belongs to the tree and lasts until `release`."""
        with self._locked("open", inode) as table:
            node = table.alive(inode)
            if _writes(flags):
                self._refuse_frozen(node)
                descriptor = own.open_file(table, node, flags & _OPEN_FLAGS)
            else:
                path, follow = table.place(node)
                how = flags & _OPEN_FLAGS | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
                descriptor = os.open(path, how)
            return self._opened(node, descriptor, flags)

    def read(self, handle: int, offset: int, size: int) -> bytes:
        """Return up to `size` bytes at `offset`; fewer only at the end of the file."""
        with self._unlocked("read", handle) as opened:
            return os.pread(opened.descriptor, size, offset)

    def write(self, handle: int, offset: int, data: bytes, caller: Caller | None) -> int:
        """Write at `offset`, and return how many bytes found room."""
        with self._unlocked("write", handle) as opened:
            return os.pwrite(opened.descriptor, data, offset)

    def fsync(self, handle: int, *, data_only: bool) -> None:
        """Make the file durable."""
        with self._unlocked("sync", handle) as opened:
            (os.fdatasync if data_only else os.fsync)(opened.descriptor)

    def release(self, handle: int) -> None:
        """Close a handle; it stops counting as open before its descriptor is closed."""
        with self._locked("release", None) as table:
            opened = self._handles.pop(handle, None)
            if opened is not None:
                opened.node.handles.remove(opened)
                table.closing.append(opened.descriptor)
                table.reap(opened.node)

    def opendir(self, inode: int, caller: Caller) -> int:
        """Open a directory for reading."""
        with self._locked("open the directory", inode) as table:
            node = table.alive(inode)
            path, _ = table.place(node)
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            return self._opened(node, descriptor, os.O_RDONLY).handle

    def readdir(self, handle: int, start: int) -> Iterator[tuple[bytes, Attributes, int]]:
        """Yield (name, attributes, position of the next entry); `.` and `..` are left out.

        Position 0 reads the names anew. What was removed since then is skipped. An entry counts
        as one lookup from the moment it is yielded: `forget` the one that is not taken.
        """
        with self._unlocked("read the directory", handle) as opened:
            if start == 0:
                opened.listing = [os.fsencode(name) for name in os.listdir(opened.descriptor)]
        listing = opened.listing
        for position in range(start, len(listing)):
            name = listing[position]
            with self._locked("stat", opened.node.number, name) as table:
                try:
                    found = os.stat(name, dir_fd=opened.descriptor, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                node = table.admit(opened.node, name, found)
                node.lookups += 1
                attributes = _attributes(node, found)
            yield name, attributes, position + 1

    def releasedir(self, handle: int) -> None:
        """Close a directory's handle."""
        self.release(handle)

    def fsyncdir(self, handle: int) -> None:
        """Make the names in a directory durable."""
        self.fsync(handle, data_only=False)

    # ---- drafts on their way to become versions -----------------------------------------------

    def freeze(self, project: str, draft: str) -> str:
        """Stop every change below the draft, and return its path on the host."""
        origin, name = self._origin(project), os.fsencode(draft)
        with self._locked("freeze", None, name) as table:
            try:
                root = table.admit_root(origin)
                descriptor = table.descriptor(root)
                found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            except FileNotFoundError:
                raise _no_draft(project, draft) from None
            if not stat.S_ISDIR(found.st_mode):
                raise _no_draft(project, draft)
            node = table.admit(root, name, found)
            if node in table.frozen:
                raise ConflictError(
                    f"draft {draft!r} is being committed already", "wait for that commit to end"
                )
            writing = {
                os.fsdecode(b"/".join(way[1:]))
                for opened in self._handles.values()
                if opened.writable
                for top, way in table.ways(opened.node)
                if top is root and way[0] == name
            }
            if writing:
                raise ConflictError(
                    f"draft {draft!r} has files open for writing: {', '.join(sorted(writing))}",
                    "close them, then commit again",
                )
            table.frozen[node] = project, draft
            return os.path.join(self._path, project, draft)

    def thaw(self, project: str, draft: str) -> None:
        """Allow changes again; a draft that is not frozen is left alone."""
        with self._locked("thaw", None, os.fsencode(draft)) as table:
            for node in [node for node, of in table.frozen.items() if of == (project, draft)]:
                del table.frozen[node]
                table.reap(node)

    def consumed(self, project: str, draft: str) -> None:
        """The draft has become a version and its directory is gone: forget its nodes.

        What the kernel still knows answers ESTALE; what is open for reading stays readable.
        """
        with self._locked("forget", None, os.fsencode(draft)) as table:
            for node in [node for node, of in table.frozen.items() if of == (project, draft)]:
                del table.frozen[node]
                table.bury(node)

    def drafts(self, project: str) -> Mapping[str, int]:
        """Return the drafts of a project with the number of their files now open for writing."""
        origin = self._origin(project)
        with self._locked("list the drafts of", None, os.fsencode(project)) as table:
            try:
                with os.scandir(origin) as entries:
                    names = [e.name for e in entries if e.is_dir(follow_symlinks=False)]
            except FileNotFoundError:
                return {}
            counts = dict.fromkeys(sorted(map(os.fsdecode, names)), 0)
            for node in {opened.node for opened in self._handles.values() if opened.writable}:
                ways = table.ways(node)
                for draft in {os.fsdecode(way[0]) for top, way in ways if top.origin == origin}:
                    if draft in counts:
                        counts[draft] += 1
            return counts

    # ---- what they share ----------------------------------------------------------------------

    @contextlib.contextmanager
    def _locked(self, action: str, inode: int | None, name: bytes = b"") -> Iterator[NodeTable]:
        """Hold the lock for one request; an OSError within becomes a HostError with the path."""
        table = self._table
        closing: list[int] = []
        try:
            with self._lock:
                table.trim()
                try:
                    yield table
                except OSError as error:
                    raise _translated(error, f"{action} {self._describe(inode, name)}") from error
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
            raise _translated(error, f"{action} {subject}") from error

    def _describe(self, inode: int | None, name: bytes) -> str:
        """Name what a request is about, as a path below the staging area where there is one."""
        if inode is None:
            return repr(os.fsdecode(name))
        node = self._table.get(inode)
        for top, way in self._table.ways(node) if node is not None else ():
            path = b"/".join([top.origin or b"?", *way, *([name] if name else [])])
            return repr(os.path.relpath(os.fsdecode(path), self._path))
        return f"{os.fsdecode(name)!r} in a removed directory" if name else "a removed file"

    def _origin(self, project: str) -> bytes:
        parts = project.split("/")
        if len(parts) != 2 or not {"", ".", ".."}.isdisjoint(parts):
            raise HostError(errno.EINVAL, f"{project!r} is no project", "write ENTITY/PROJECT")
        return os.fsencode(os.path.join(self._path, project))

    def _refuse_frozen(self, *nodes: Node | None) -> None:
        committing = self._table.committing(*nodes)
        if committing is not None:
            raise HostError(
                errno.EBUSY, f"draft {committing[1]!r} is being committed", "wait for it to end"
            )

    def _made(
        self,
        table: NodeTable,
        parent: int,
        name: bytes,
        mode: int | None,
        caller: Caller,
        make: Callable[[int], None],
    ) -> tuple[Node, Attributes]:
        """Let `make` make something under `name`, and give it to the caller."""
        directory = table.alive(parent)
        self._refuse_frozen(directory)
        descriptor = table.descriptor(directory)
        make(descriptor)
        found = host.hand_over(descriptor, name, mode, caller, privileged=self._privileged)
        node = table.admit(directory, name, found, new=True)
        node.lookups += 1
        return node, _attributes(node, found)

    def _remove(self, parent: int, name: bytes, remove: Callable[..., None]) -> None:
        with self._locked("remove", parent, name) as table:
            directory = table.alive(parent)
            self._refuse_frozen(directory, directory.children.get(name))
            table.pin(directory, name)
            remove(name, dir_fd=table.descriptor(directory))
            table.vanished(directory, name)

    def _attributed(
        self, table: NodeTable, inode: int, name: bytes, *, change: bool
    ) -> tuple[bytes, bool]:
        if name.startswith(_ACL):
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        node = table.alive(inode)
        if change:
            self._refuse_frozen(node)
            return table.own_place(node)
        return table.place(node)

    def _opened(self, node: Node, descriptor: int, flags: int) -> OpenFile:
        number = next(self._handle_numbers)
        self._handles[number] = handle = Handle(node, descriptor, own.can_write(flags))
        node.handles.append(handle)
        return OpenFile(handle=number, backing=descriptor)


def _writes(flags: int) -> bool:
    return flags & os.O_ACCMODE != os.O_RDONLY or bool(flags & os.O_TRUNC)


def _attributes(node: Node, found: os.stat_result) -> Attributes:
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


def _no_draft(project: str, draft: str) -> NotFoundError:
    return NotFoundError(f"project {project!r} has no draft {draft!r}", "make it with mkdir")


def _translated(error: OSError, action: str) -> HostError:
    code = error.errno or errno.EIO
    return HostError(code, f"cannot {action}: {os.strerror(code)}")
