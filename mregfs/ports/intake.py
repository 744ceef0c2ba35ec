"""The contract of what a version is made from: a draft, or another directory or file.

Decided here: what the intake promises a commit. Not decided here: how (`stores.intake_dir`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

__all__ = ["Intake", "IntakeEntry"]


class IntakeEntry(msgspec.Struct, frozen=True):
    """One path of a directory that is about to become a version."""

    path: str
    """Relative, slash-separated, valid UTF-8; never empty."""
    kind: str
    """`file`, `directory` or `symlink`."""
    size: int = 0
    executable: bool = False
    target: str = ""
    """Where a symlink points, as written."""
    links: int = 1
    """The number of hard links of a file."""
    sparse: bool = False
    """It has fewer bytes on the disk than its size says; the rest are holes, read as zeros."""


class Intake(Protocol):
    """A directory on the host, on its way to become a version.

    Made for a draft of the staging area, whose bytes may be taken over, or for any other directory
    (bytes are reflinked or copied). Used once, by one commit, then closed. Until `release` nothing
    of the source has changed that `restore` would not put back.
    """

    def take(self, layout: str, since: int) -> None:
        """Take a draft where no user has a path to it, until `release` or `restore`.

        Whoever asks for the commit must be able to do by himself what it does: rename the draft,
        look into every directory, read every file (which `scan` finds out). `layout` and `since`
        are what `recover` asks about. Another directory is left where it is.

        Raises:
            NotFoundError: there is no such draft.
            HostError: EACCES, he could not; what he may not is named.
            ConflictError: it is another one by now, or is being committed.
        """
        ...

    @property
    def is_private(self) -> bool:
        """Whether others than the owner and the group of a taken draft had no way into it."""
        ...

    def scan(self) -> list[IntakeEntry]:
        """List everything below the directory, in no particular order.

        Raises:
            InvalidError: something cannot be in a version (socket, device, FIFO, absolute or
                escaping symlink, name that is not UTF-8): all are named.
            NoSpaceError: a file is larger than the store's file system.
            HostError: EACCES, files that whoever asks may not read; all are named.
        """
        ...

    def recover(self, committed: Callable[[str, int], bool]) -> None:
        """Finish or undo what commits did that ended in a crash, on this directory or another.

        `committed` says of a layout's id, and the log's head when that commit began, whether the
        log has a version with it.
        """
        ...

    def seal(self, paths: Sequence[str], report: Callable[[int], None]) -> None:
        """Make sure that nobody can change these large files unseen, so that they may be adopted.

        `report` is called with bytes that were copied since it was last called; what it raises
        ends the copying.

        Raises:
            ConflictError: files are open for writing or mapped writable somewhere, or changed since
                `scan`; all are named.
        """
        ...

    def read_at(self, path: str, offset: int, length: int) -> bytes:
        """Return bytes of a sealed file; fewer only where it ends. Safe from several threads.

        Raises:
            HostError: the disk failed.
        """
        ...

    def read_into(self, path: str, offset: int, buffer: memoryview) -> None:
        """Fill a buffer with bytes of a sealed file. Safe to call from several threads.

        Raises:
            ConflictError: the file is shorter than it was at `scan`.
            HostError: the disk failed.
        """
        ...

    def data_run(self, path: str, offset: int) -> tuple[int, int]:
        """Return where the next bytes that are no hole begin and end, from `offset` on.

        Of a sealed file; both are its size when there are none. Safe from several threads.
        """
        ...

    def read(self, path: str) -> bytes:
        """Return the whole of a small file, which need not be sealed.

        Raises:
            ConflictError: it is open for writing somewhere, or changed since `scan`.
        """
        ...

    def announce(self, adoptions: Mapping[str, str]) -> None:
        """Write down what is about to be adopted (path to pack), so that a crash can be undone.

        Takes away the write bits of those files. Called once, before the first `adopt`.
        """
        ...

    def adopt(self, path: str, pack: str) -> bool:
        """Have the pack store adopt a sealed file as `pack`; True when no file data was copied.

        The directory keeps the file until `release`.
        """
        ...

    def verify(self) -> None:
        """Check that no sealed file was touched since `seal`.

        Raises:
            ConflictError: a file was opened for writing meanwhile; all are named.
        """
        ...

    def release(self) -> None:
        """The version is in the log: give up the source (a draft's directory disappears)."""
        ...

    def restore(self) -> None:
        """The commit failed: put everything back as it was. Safe to call at any point."""
        ...

    def abandon(self) -> None:
        """Nobody knows whether the commit succeeded: leave all as a crash would, to `recover`."""
        ...
