"""What the mount shows of who may read and who may change: group and mode of its directories.

Decided here: which group and which mode stand for readers and writers of a project, so that the
kernel itself refuses most of what the rules would. Not decided here: who they are
(`model.rules.access`), what a group's number is on this host (given).

A mode can name one group. Where readers and writers are two, the readers' is shown, and may write
as far as the kernel is concerned: the rules decide.
"""

from collections.abc import Callable
from typing import NamedTuple

from mregfs.model.rules.access import EVERYBODY, NOBODY, Access, access_of
from mregfs.model.state import State
from mregfs.ports.index import Index

__all__ = ["Modes", "Ownership"]

_STICKY = 0o1000
"""As in /tmp: whoever makes a draft keeps it."""


class Ownership(NamedTuple):
    """Owner, group and permission bits of a directory."""

    uid: int
    gid: int
    mode: int


class Modes:
    """The owners, groups and modes of one mount.

    Args:
        index: where the state of the log is.
        uid: of the owner of the store.
        gid: his group, for what no group has a right to.
        group_number: looks a group up on this host; None: there is none.
    """

    def __init__(
        self, index: Index, uid: int, gid: int, group_number: Callable[[str], int | None]
    ) -> None:
        self._index = index
        self.uid = uid
        self.gid = gid
        self._group_number = group_number
        self._accesses: dict[str, Access] = {}
        self._shown: dict[str, Ownership] = {}
        self.refresh()

    def refresh(self) -> None:
        """Look again who may what: the log said something of it."""
        with self._index.read() as view:
            state = State(view)
            projects = ["", *(project for project, _ in state.accesses())]
            self._accesses = {project: access_of(state, project) for project in projects}
        self._shown = {}

    def access(self, project: str) -> Access:
        """Return who may read and who may change a project."""
        return self._accesses.get(project) or self._accesses[""]

    def directory(self, project: str) -> Ownership:
        """Return what a directory of a project shows that its writers may change."""
        found = self._shown.get(project)
        if found is None:
            found = self._shown[project] = self._directory(self.access(project))
        return found

    def _directory(self, access: Access) -> Ownership:
        readers, writers = access.readers or access.writers, access.writers
        if readers == EVERYBODY:
            return self._of(writers, {EVERYBODY: 0o777, NOBODY: 0o755}.get(writers, 0o775))
        return self._of(readers, 0o750 if writers == NOBODY else 0o770)

    def staging(self, project: str) -> Ownership:
        """Return what the staging directory of a project shows, and has on the host."""
        access = self.access(project)
        shown = self.directory(project)
        if access.writers in (EVERYBODY, NOBODY, access.readers):
            sticky = _STICKY if shown.mode & 0o022 else 0
            return shown._replace(mode=shown.mode | sticky)
        # Who is not its writer has no business here, but where everybody may read.
        mode = 0o1775 if access.readers == EVERYBODY else 0o1770
        return self._of(access.writers, mode)

    def control(self) -> Ownership:
        """Return what the control file shows: who may change any project may open it."""
        writers = {access.writers for access in self._accesses.values()} - {NOBODY}
        if not writers:
            return self._of(NOBODY, 0o644)
        if len(writers) == 1 and EVERYBODY not in writers:
            return self._of(writers.pop(), 0o664)
        return self._of(NOBODY, 0o666)

    def _of(self, group: str, mode: int) -> Ownership:
        """Return a mode with a group; where there is none, the owner's, which is as all others."""
        gid = None if group in (NOBODY, EVERYBODY) else self._group_number(group)
        if gid is None:
            return Ownership(self.uid, self.gid, mode & ~0o070 | (mode & 0o007) << 3)
        return Ownership(self.uid, gid, mode)
