"""Handing drafts over: to whom a staging directory is open, and whose a draft is from now on.

Decided here: what changes owner, and what keeps a draft from it. Not decided here: who may hand it
over (`vfs.transactions`), which groups make drafts (`vfs.modes`). `directory` builds on this.

Everything is reached and changed by descriptor, and only what belongs to whom the draft belonged:
nobody gets a file of a third user that was swapped in, whatever names do meanwhile.
"""

import errno
import fcntl
import os
import signal
import stat
from collections.abc import Callable, Iterator, Sequence

from mregfs.drafts.committing import Committing
from mregfs.drafts.nodes import number_of
from mregfs.errors import ConflictError, ForbiddenError
from mregfs.host.beneath import Beneath
from mregfs.host.listing import names_in

__all__ = ["EVERYBODY_MAKES_DRAFTS", "Giving", "Shown"]

Shown = tuple[int, int, bool]
"""Group and mode of a staging directory, and whether drafts in it are made private."""

EVERYBODY_MAKES_DRAFTS: Shown = (-1, 0o1777, False)
"""As in /tmp; in the group that the host gives the directory."""

_PATH = os.O_PATH | os.O_NOFOLLOW
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_DEEPEST = 1000
"""Levels of directories; each takes a descriptor."""


class Giving(Committing):
    """The requests that say whose something is."""

    def __init__(
        self,
        store: Beneath,
        name: str,
        *,
        max_descriptors: int | None,
        shown: Callable[[str], Shown],
    ) -> None:
        super().__init__(store, name, max_descriptors=max_descriptors)
        self._shown = shown

    def share(self) -> Sequence[int]:
        """Give all staging directories that are known the group and mode that is said now."""
        shared = []
        with self._locked("share the staging area", None) as table:
            for node in table.roots():
                assert node.origin is not None
                self._share(node.origin)
                shared.append(node.number)
        return shared

    def _share(self, origin: bytes) -> None:
        gid, mode, _ = self._shown(os.fsdecode(origin))
        self._staging.share(origin, gid, mode)

    def give(
        self, project: str, draft: str, uid: int, gid: int, giver: int | None
    ) -> Sequence[int]:
        """Make a draft another user's, and return the inodes of its directories.

        Args:
            project: "entity/name".
            draft: its name.
            uid: of the user who gets it.
            gid: the group of its files from now on; -1: as they are.
            giver: who must be its owner; None: anybody may be.

        Raises:
            NotFoundError: no such draft.
            ConflictError: files in it are open for writing.
            ForbiddenError: it, or something in it, is not the giver's; nothing has changed.
        """
        self.freeze(project, draft)
        try:
            with self._locked("hand over", None, os.fsencode(draft)) as table:
                tops = [node for node, of in table.frozen.items() if of == (project, draft)]
                top = os.open(".", _DIRECTORY, dir_fd=table.descriptor(tops[0]))
                try:
                    owner = os.fstat(top).st_uid
                    if giver not in (None, owner):
                        raise ForbiddenError(
                            f"draft {draft!r} is another user's",
                            "ask him, or root, to hand it over",
                        )
                    for fd, path, found in _walk(top, draft):
                        _check(fd, path, found, owner)
                    return _hand_over(top, draft, owner, uid, gid)
                finally:
                    os.close(top)
        finally:
            self.thaw(project, draft)


def _hand_over(top: int, draft: str, owner: int, uid: int, gid: int) -> list[int]:
    """Give everything of `owner` in a directory to another; all of it, or nothing."""
    groups: dict[int, int] = {}
    directories = []
    try:
        for fd, _, found in _walk(top, draft):
            if found.st_uid == owner:
                os.chown(f"/proc/self/fd/{fd}", uid, gid)
                groups[found.st_ino] = found.st_gid
                if stat.S_ISDIR(found.st_mode):
                    directories.append(number_of(found))
    except OSError:  # his quota, perhaps
        for fd, _, found in _walk(top, draft):
            if found.st_ino in groups:
                os.chown(f"/proc/self/fd/{fd}", owner, groups[found.st_ino])
        raise
    return directories


def _walk(top_fd: int, name: str) -> Iterator[tuple[int, str, os.stat_result]]:
    """Yield (O_PATH descriptor, path, stat) of all in a directory, itself last."""
    above: list[tuple[int, str, Iterator[str]]] = [(os.dup(top_fd), name, iter(names_in(top_fd)))]
    try:
        while above:
            directory, path, names = above[-1]
            entry = next(names, None)
            if entry is None:
                yield directory, path, os.fstat(directory)
                os.close(above.pop()[0])
                continue
            try:
                fd = os.open(entry, _PATH, dir_fd=directory)
            except FileNotFoundError:
                continue
            found = os.fstat(fd)
            below = f"{path}/{entry}"
            if not stat.S_ISDIR(found.st_mode):
                try:
                    yield fd, below, found
                finally:
                    os.close(fd)
                continue
            try:
                if len(above) == _DEEPEST:
                    raise OSError(errno.ELOOP, "the directories are nested too deeply", below)
                inner_fd = os.open(".", _DIRECTORY, dir_fd=fd)
            finally:
                os.close(fd)
            above.append((inner_fd, below, iter(names_in(inner_fd))))
    finally:
        for directory, _, _ in above:
            os.close(directory)


def _check(fd: int, path: str, found: os.stat_result, owner: int) -> None:
    """Refuse what is a third user's, and a file that somebody can write."""
    if found.st_uid != owner:
        raise ForbiddenError(
            f"{path!r} belongs to another user than the draft", "move it out of the draft first"
        )
    if not stat.S_ISREG(found.st_mode):
        return
    # O_NONBLOCK: not wait for a lease of a commit.
    reading = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK)
    try:
        # The signal of a broken lease would be SIGIO, which ends a process.
        fcntl.fcntl(reading, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(reading, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            raise ConflictError(f"{path!r} is open for writing", "close it first") from None
        # Where there are no leases, only what this mount has open is known: `freeze` asks that.
    finally:
        os.close(reading)
