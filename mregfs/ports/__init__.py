"""The contracts between the use cases and the adapters under `stores/`.

Decided here: what an adapter promises. Not decided here: how. Anyone may import this module; every
adapter is held to the same contract tests (`tests/contracts/`).

All ports are synchronous: the CLI and the Python API call them as they are, the daemon calls what
may block from worker threads. Every port may therefore be called from several threads at once.
Errors are those of `mregfs.errors`; no driver's exception leaves an adapter.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NewType, Protocol

import msgspec

from mregfs.model.state import Put
from mregfs.ports.intake import Intake, IntakeEntry

__all__ = [
    "DRAFT_BIT",
    "Attributes",
    "Caller",
    "ChangedAttributes",
    "Clock",
    "DraftTree",
    "FileSystemFigures",
    "Index",
    "Inode",
    "Intake",
    "IntakeEntry",
    "LogPosition",
    "ObjectStore",
    "OpenFile",
    "PackFile",
    "PackPlaces",
    "PackScanner",
    "PackStore",
    "Put",
    "View",
    "WholeFileDraft",
    "WholeFiles",
    "WholeFilesFigures",
]

Inode = NewType("Inode", int)
"""Inode number; allocated once per store, never reused."""

LogPosition = NewType("LogPosition", int)
"""Position of an entry in the log; the first is 1, and 0 is the empty log."""

Clock = Callable[[], int]
"""Nanoseconds since the epoch."""


# ---- the index -------------------------------------------------------------------------------


class View(Protocol):
    """A consistent read-only state of the index: ordered byte keys in named tables."""

    def get(self, table: str, key: bytes) -> bytes | None:
        """Return the value under `key`, or None."""

    def scan(
        self, table: str, prefix: bytes = b"", start: bytes = b"", *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) of all keys that begin with `prefix`, in byte order.

        Forward: from the first key >= `start`. Reverse: downwards from the last key <= `start`
        (from the last one with the prefix when `start` is empty). Lazy: reads only what is taken.
        """


class Index(Protocol):
    """The index of one store on this host. Deletable: replay of the log rebuilds it."""

    def read(self) -> AbstractContextManager[View]:
        """Open a consistent view; microseconds. Hold it briefly and never across `await`."""

    def write(
        self,
        puts: Iterable[Put],
        *,
        expected: int | None = None,
        applied: int | None = None,
        anew: bool = False,
    ) -> bool:
        """Apply all `puts` in one transaction, and set the applied sequence number to `applied`.

        With `expected`, first compare: when the applied sequence number is not `expected` (another
        process was faster), change nothing and return False. With `anew`, empty all tables before,
        in the same transaction: no view ever sees less than what was there, or what is put.

        Raises:
            NoSpaceError: the disk is full; nothing changed.
        """

    def reserve(self, puts: Sequence[Put]) -> None:
        """Have room for a `write` of these; NoSpaceError when there is none."""

    def applied(self) -> int:
        """Return the sequence number of the last applied log entry; 0 for an empty index."""

    def clear(self) -> None:
        """Empty all tables in one transaction and set the applied sequence number to 0."""

    def close(self) -> None:
        """Release the index; calling it again does nothing."""


# ---- objects: log entries, checkpoints, manifests, layouts ------------------------------------


class ObjectStore(Protocol):
    """Immutable objects under slash-separated keys; the layout of a store on any medium."""

    def get(self, key: str) -> bytes:
        """Return the whole object.

        Raises:
            NotFoundError: no such key.
        """

    def exists(self, key: str) -> bool:
        """Tell whether `key` exists; as cheap as the medium allows."""

    def create(self, key: str, data: bytes) -> None:
        """Store `data` under `key`, durably, only if it does not exist: exactly one caller wins.

        A reader sees the whole object or none. On return the object survives a power cut.

        Raises:
            ExistsError: the key exists; its bytes are untouched.
            NoSpaceError: nothing was stored.
        """

    def list(self, prefix: str, start_after: str = "") -> Iterator[str]:
        """Yield the keys that begin with `prefix` and sort after `start_after`, sorted."""
        ...

    def delete(self, key: str) -> None:
        """Remove `key`; a missing key is not an error. Log entries are never deleted."""
        ...


# ---- packs: the bytes of files ----------------------------------------------------------------


class PackFile(Protocol):
    """One pack, open for reading. Close it when done; safe to use from several threads."""

    size: int

    def fileno(self) -> int:
        """Return the descriptor of the local file (for passthrough and pread)."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes at `offset`; shorter only at the end of the pack."""
        ...

    def stamp(self) -> tuple[int, int]:
        """Return size and time of the last change, in ns: a write changes the two."""
        ...

    def close(self) -> None:
        """Release the descriptor."""
        ...


class PackStore(Protocol):
    """Immutable data objects with unique, never reused ids (32 lowercase hexadecimal digits)."""

    def open(self, pack: str) -> PackFile:
        """Open a pack for reading; raises NotFoundError."""
        ...

    def is_cached(self, opened: PackFile, offset: int, length: int) -> bool:
        """Tell whether these bytes of a pack can be read without waiting for the medium.

        A guess, in microseconds; never True for bytes beyond the pack's end.
        """
        ...

    def size(self, pack: str) -> int:
        """Return the pack's size in bytes; raises NotFoundError."""
        ...

    def create(self, pack: str, pieces: Iterable[bytes]) -> int:
        """Write a new pack from `pieces`, and return its size. Not yet durable: see `sync`."""
        ...

    def sync(self, packs: Sequence[str]) -> None:
        """Make the named packs and their names durable; called once per commit."""
        ...

    def delete(self, pack: str) -> None:
        """Remove a pack; a missing one is not an error."""
        ...

    def list(self) -> Iterator[str]:
        """Yield the ids of all packs."""
        ...


class PackPlaces(Protocol):
    """Where packs stand, for whoever makes packs of files that exist already (`Intake`)."""

    def adopt(self, pack: str, descriptor: int) -> None:
        """Let an open file be a pack too, under a name of its own. Not yet durable: see `sync`.

        Raises:
            ExistsError: the id is taken; what has it is untouched.
            HostError: EXDEV, the file is elsewhere.
        """
        ...

    def holds(self, pack: str, descriptor: int) -> bool:
        """Tell whether a pack is this very file."""
        ...

    def replace(self, pack: str, descriptor: int) -> None:
        """Let another open file, with the same bytes, take the place of a pack, durably."""
        ...

    def delete(self, pack: str) -> None:
        """Remove a pack; a missing one is not an error."""
        ...


class PackScanner(Protocol):
    """Reads packs as the medium has them, and leaves the page cache as it is."""

    def read(self, pack: PackFile, offset: int, length: int) -> bytes:
        """Return up to `length` bytes at `offset`; shorter only at the end of the pack.

        Raises:
            HostError: the medium failed.
        """
        ...


# ---- whole files: copies, in one piece, of files that are stored in several --------------------


class WholeFilesFigures(msgspec.Struct, frozen=True):
    """How full the cache of whole files is, in bytes and in files."""

    limit: int
    used: int
    """Of complete and of unfinished files; reflinks count as if they took space."""
    files: int
    pinned: int
    """Bytes of files that are exempt from eviction."""


class WholeFileDraft(Protocol):
    """A whole file in the making. Room for it is taken; nobody sees it before `finish`."""

    def append(self, pack: PackFile, offset: int, length: int) -> None:
        """Append a run of bytes of a pack: by reflink where the file system can, else copied.

        Raises:
            NoSpaceError: the disk is full.
            HostError: the disk of the pack, or of the file, failed; it says which.
            CorruptError: the pack is too short.
        """
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Return what `append` put there, to be verified."""
        ...

    def finish(self) -> None:
        """Make the file visible, whole, under its digest; it also survives a power cut whole.

        Raises:
            InvalidError: not all of its bytes were appended.
        """
        ...

    def close(self) -> None:
        """Give it up, unless it is finished."""
        ...


class WholeFiles(Protocol):
    """A bounded cache, on this host, of whole files by digest; shared by all its processes.

    Files that are pinned are exempt from eviction, and count. Everything but the pins can be lost
    without harm.
    """

    def open(self, digest: str) -> PackFile | None:
        """Open a complete file for reading, or return None; counts as a use of it. Never raises."""
        ...

    def create(self, digest: str, size: int, keep: Container[str] = ()) -> WholeFileDraft | None:
        """Begin a file of `size` bytes, and evict what was unused longest to make room for it.

        What is pinned, or in `keep`, is not evicted. None: there is no room, by the limit of the
        cache or on the disk; or it is there already.
        """
        ...

    def pin(self, name: str, digests: Iterable[str]) -> None:
        """Exempt files from eviction, also those that do not exist yet, for the sake of `name`.

        Raises:
            ForbiddenError: the store is not ours to write.
        """
        ...

    def unpin(self, names: Iterable[str]) -> None:
        """Take pins back; unknown names are no error."""
        ...

    def pins(self) -> Mapping[str, frozenset[str]]:
        """Return the pins, by name."""
        ...

    def files(self) -> Mapping[str, int]:
        """Return digest and size of every complete file."""
        ...

    def delete(self, digest: str) -> None:
        """Remove a file; a missing one is no error. Open ones stay readable until closed."""
        ...

    def figures(self) -> WholeFilesFigures:
        """Return how full the cache is."""
        ...


# ---- drafts: the staging area as a POSIX file system -------------------------------------------


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


DRAFT_BIT = 1 << 62
"""Set in the inode number of everything in the staging area, and of nothing else."""


class DraftTree(Protocol):
    """The staging area: a POSIX directory tree with the host file system's own semantics.

    Inode numbers are `DRAFT_BIT | number on the host`; names are bytes. Every method raises
    HostError with the errno that the host gave, unless its docstring says otherwise. What is done
    is done as `caller`; a write without one (the kernel's own), as whoever opened the file.
    """

    def root(self, project: str) -> Attributes:
        """Return (and make, if need be) the staging directory of `project` ("entity/name").

        Raises:
            NotFoundError: there is none that this process may use, and it may make none.
        """

    def lookup(self, parent: int, name: bytes) -> Attributes: ...
    def forget(self, inode: int, count: int) -> None: ...
    def getattr(self, inode: int) -> Attributes: ...
    def setattr(
        self, inode: int, changed: ChangedAttributes, handle: int | None, caller: Caller
    ) -> Attributes: ...
    def readlink(self, inode: int) -> bytes: ...
    def mknod(
        self, parent: int, name: bytes, mode: int, rdev: int, caller: Caller
    ) -> Attributes: ...
    def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller) -> Attributes: ...
    def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Attributes: ...
    def link(self, inode: int, parent: int, name: bytes, caller: Caller) -> Attributes: ...
    def unlink(self, parent: int, name: bytes, caller: Caller) -> None: ...
    def rmdir(self, parent: int, name: bytes, caller: Caller) -> None: ...
    def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int, caller: Caller
    ) -> None: ...
    def create(
        self, parent: int, name: bytes, mode: int, flags: int, caller: Caller
    ) -> tuple[OpenFile, Attributes]: ...
    def open(self, inode: int, flags: int, caller: Caller) -> OpenFile: ...
    def read(self, handle: int, offset: int, size: int) -> bytes: ...
    def write(self, handle: int, offset: int, data: bytes, caller: Caller | None) -> int: ...
    def fsync(self, handle: int, *, data_only: bool) -> None: ...
    def release(self, handle: int) -> None: ...
    def opendir(self, inode: int, caller: Caller) -> int: ...
    def readdir(self, handle: int, start: int) -> Iterator[tuple[bytes, Attributes, int]]:
        """Yield (name, attributes, position of the next entry) from position `start`.

        Each yielded entry counts as one lookup of its inode once the consumer asks for the next
        one; an entry that the consumer does not take is forgotten by calling `forget`.
        """

    def releasedir(self, handle: int) -> None: ...
    def fsyncdir(self, handle: int) -> None: ...
    def setxattr(self, inode: int, name: bytes, value: bytes, caller: Caller) -> None: ...
    def getxattr(self, inode: int, name: bytes, caller: Caller) -> bytes: ...
    def listxattr(self, inode: int, caller: Caller) -> list[bytes]: ...
    def removexattr(self, inode: int, name: bytes, caller: Caller) -> None: ...
    def figures(self) -> FileSystemFigures: ...

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
