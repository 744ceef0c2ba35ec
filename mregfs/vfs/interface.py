"""The boundary between the file system and what serves it to the kernel.

Decided here: which requests there are and what each must answer. Not decided here: how a request
arrives (`fuse/`), nor what any tree looks like. `fuse/` calls `FileSystem`; the vfs calls
`KernelNotices`.

Every operation raises only MregfsError, whose `errno` is the answer. It is a plain method; what
takes longer than a look into memory says how its answer is to be had (`answers`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum, auto
from typing import Protocol

import msgspec

from mregfs.vfs.answers import Answer

__all__ = [
    "Attributes",
    "Caller",
    "ChangedAttributes",
    "DraftTree",
    "FileSystem",
    "FileSystemFigures",
    "FileTree",
    "KernelNotices",
    "OpenFile",
    "OpenFlags",
    "RenameMode",
]


class Caller(msgspec.Struct, frozen=True):
    """Who makes a request."""

    uid: int = 0
    gid: int = 0
    pid: int = 0
    umask: int = 0o022
    groups: tuple[int, ...] | None = None
    """Looked up while he waits for his answer (his pid may be another's later); None: not yet."""


class Attributes(msgspec.Struct):
    """What stat(2) tells of one inode, and for how long the kernel may remember it (seconds)."""

    inode: int
    mode: int
    size: int = 0
    nlink: int = 1
    uid: int = 0
    gid: int = 0
    rdev: int = 0
    blocks: int = 0
    atime_ns: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    generation: int = 0
    entry_timeout: float = 0.0
    attr_timeout: float = 0.0


class ChangedAttributes(msgspec.Struct):
    """The fields of a setattr request that are to change; None leaves a field alone."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None
    atime_now: bool = False  # the host's own time, which takes less of a right than any other
    mtime_now: bool = False


class OpenFlags(msgspec.Struct, frozen=True):
    """What somebody who opens a file wants of it."""

    reads: bool = True
    writes: bool = False
    truncates: bool = False
    exclusive: bool = False
    """The file must not be there yet."""
    blocks: bool = True
    """False: a read that would have to wait fails."""
    host: int = 0
    """All flags as the host spells them, for a tree that hands them on to it."""


class RenameMode(Enum):
    """What a rename does about the new name."""

    REPLACE = auto()
    KEEP = auto()
    """The new name must not be there yet."""
    EXCHANGE = auto()
    """Both names change places."""


class OpenFile(msgspec.Struct):
    """The answer to an open: the handle, and how the kernel may treat the file."""

    handle: int
    backing: int = -1
    """Descriptor that the kernel may read and write in the daemon's place (passthrough), or -1."""
    keep_cache: bool = False
    direct_io: bool = False
    nonseekable: bool = False
    lent: bool = False
    """Users may write `backing`, with no more rights than anybody has."""
    owned: bool = False
    """True when `backing` is to be closed by the FUSE adapter right after registering it."""


class FileSystemFigures(msgspec.Struct, frozen=True):
    """What statvfs(3) tells."""

    block_size: int
    fragment_size: int
    blocks: int
    blocks_free: int
    blocks_available: int
    files: int
    files_free: int
    files_available: int
    name_max: int


class KernelNotices(Protocol):
    """Tells the kernel what it must no longer remember.

    Calls return at once; the notices are sent by a thread of their own, in order, never under a
    lock and never from the task that serves a request. An inode or name that the kernel does not
    know is no error.
    """

    def forget_name(self, parent: int, name: bytes) -> None:
        """Drop the cached entry (also a negative one) `name` of directory `parent`."""
        ...

    def forget_attributes(self, inode: int) -> None:
        """Drop the cached attributes of `inode`, not its data."""
        ...

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until what was asked so far has been sent; False on time-out. From threads only."""
        ...


class FileTree(Protocol):
    """A part of the mount: the registry, `.mregfs`, the staging area. Names and targets are bytes.

    A tree is asked about its own inodes and handles only (`numbers`).
    """

    def lookup(self, parent: int, name: bytes) -> Answer[Attributes]:
        """Find `name`. An answer with `inode == 0` is a negative entry: the kernel may cache it."""
        ...

    def forget(self, inode: int, count: int) -> None:
        """The kernel dropped `count` references (lookups, creates, readdir entries)."""
        ...

    def getattr(self, inode: int) -> Attributes: ...
    def setattr(
        self, inode: int, changed: ChangedAttributes, handle: int | None, caller: Caller
    ) -> Attributes: ...
    def readlink(self, inode: int) -> bytes: ...
    def mknod(
        self, parent: int, name: bytes, mode: int, rdev: int, caller: Caller
    ) -> Attributes: ...
    def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller) -> Answer[Attributes]: ...
    def symlink(
        self, parent: int, name: bytes, target: bytes, caller: Caller
    ) -> Answer[Attributes]: ...
    def link(self, inode: int, parent: int, name: bytes, caller: Caller) -> Attributes: ...
    def unlink(self, parent: int, name: bytes, caller: Caller) -> Answer[None]: ...
    def rmdir(self, parent: int, name: bytes, caller: Caller) -> Answer[None]: ...
    def rename(
        self,
        parent: int,
        name: bytes,
        new_parent: int,
        new_name: bytes,
        mode: RenameMode,
        caller: Caller,
    ) -> Answer[None]: ...
    def create(
        self, parent: int, name: bytes, mode: int, flags: OpenFlags, caller: Caller
    ) -> tuple[OpenFile, Attributes]: ...
    def open(self, inode: int, flags: OpenFlags, caller: Caller) -> Answer[OpenFile]: ...
    def read(self, handle: int, offset: int, size: int) -> Answer[bytes]:
        """Read. Cancelled: nothing was taken."""
        ...

    def write(
        self, handle: int, offset: int, data: bytes, caller: Caller | None = None
    ) -> Answer[int]:
        """Write, for `caller`, if the kernel says who that is: what takes long ends with him."""
        ...

    def flush(self, handle: int) -> None: ...
    def fsync(self, handle: int, *, data_only: bool) -> Answer[None]: ...
    def release(self, handle: int) -> None: ...
    def poll(self, handle: int, wake: Callable[[], None] | None) -> int:
        """Return the poll(2) events that are ready; call `wake` once when that may have changed.

        Raises:
            UnsupportedError: the file is an ordinary one (the kernel then says: always ready).
        """
        ...

    def opendir(self, inode: int, caller: Caller) -> Answer[int]: ...
    def readdir(self, handle: int, start: int) -> Iterator[tuple[bytes, Attributes, int]]:
        """Yield (name, attributes, position of the next) from position `start`; 0 is the first.

        `.` and `..` are left out: the kernel would not take back the lookups that they count as.
        An entry that was taken counts as one lookup; the adapter calls `forget(inode, 1)` for the
        one that did not fit. Lazy: a directory of 100 000 entries is never loaded at once.
        """
        ...

    def releasedir(self, handle: int) -> None: ...
    def fsyncdir(self, handle: int) -> Answer[None]: ...
    def setxattr(self, inode: int, name: bytes, value: bytes, caller: Caller) -> None: ...
    def getxattr(self, inode: int, name: bytes, caller: Caller) -> Answer[bytes]: ...
    def listxattr(self, inode: int, caller: Caller) -> Answer[list[bytes]]: ...
    def removexattr(self, inode: int, name: bytes, caller: Caller) -> None: ...
    def statfs(self) -> FileSystemFigures: ...


class FileSystem(FileTree, Protocol):
    """What `fuse/` serves: all trees of one mount. Root is inode 1."""

    def backing_refused(self, handle: int, reason: str) -> None:
        """Passthrough was refused for this handle (`reason` for people): reads will arrive here."""
        ...


class DraftTree(FileTree, Protocol):
    """The staging area: a POSIX directory tree with the host file system's own semantics.

    Every method raises HostError with the errno that the host gave, unless its docstring says
    otherwise. What is done is done as `caller`; a write without one (the kernel's own), as whoever
    opened the file.
    """

    def root(self, project: str) -> Attributes:
        """Return (and make, if need be) the staging directory of `project` ("entity/name").

        Raises:
            NotFoundError: there is none that this process may use, and it may make none.
        """
        ...

    def lookup(self, parent: int, name: bytes) -> Attributes: ...

    def freeze(self, project: str, draft: str) -> str:
        """Stop every change below the draft, and return its path on the host.

        From now on a change (create, write, truncate, rename, …) below it fails with EBUSY.

        Raises:
            NotFoundError: no such draft (or not a directory).
            ConflictError: files below it are open for writing (all paths named, sorted), or it is
                being committed already.
        """

    def project_of(self, inode: int) -> str | None:
        """Return "entity/name" when `inode` is the staging directory of a project, else None."""

    def thaw(self, project: str, draft: str) -> None:
        """Allow changes again: the commit failed."""

    def share(self) -> Sequence[int]:
        """Let those make drafts who may now, and return the inodes of the staging directories."""

    def give(
        self, project: str, draft: str, uid: int, gid: int, giver: int | None
    ) -> Sequence[int]:
        """Make a draft another user's, and return the inodes of its directories.

        Raises:
            ConflictError: as `freeze`.
            ForbiddenError: it, or something in it, is not `giver`'s (None: of one owner).
        """

    def consumed(self, project: str, draft: str) -> None:
        """The draft has become a version and its directory is gone: forget its nodes."""

    def drafts(self, project: str) -> Mapping[str, int]:
        """Return the drafts of a project with the number of their files now open for writing."""
