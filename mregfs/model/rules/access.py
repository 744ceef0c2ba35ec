"""Who may read and who may change what: the store, and each project.

Decided here: who the readers and the writers of a project are, what either may do, who says so. Not
decided here: which groups a caller is in (the `Principal`), which modes the mount shows for it
(`vfs.modes`), protected aliases (`preconditions`). `decide` asks for every command, and
`registry.write.changes` for everything that is asked, before a draft is touched; whoever shows
something of a project asks `may_read`.
"""

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from mregfs.errors import ForbiddenError, InvalidError
from mregfs.model import commands
from mregfs.model.changes import AccessSet, Change
from mregfs.model.commands import Asked, Principal, SetAccess
from mregfs.model.names import ProjectName
from mregfs.model.records import AccessRecord
from mregfs.model.rules.preconditions import Decision, check_group, with_project
from mregfs.model.state import State

__all__ = [
    "EVERYBODY",
    "NOBODY",
    "Access",
    "access_of",
    "everybody_reads",
    "may_read",
    "may_write",
    "require",
    "require_all",
    "require_reader",
    "require_writer",
    "set_access",
    "told_access",
]

EVERYBODY = "*"
NOBODY = ""
"""Nobody but the owner of the store and root."""

_NUMBER = re.compile(r"0|[1-9][0-9]{0,9}")
"""Of a group: in containers most have no name."""

_NOTHING = AccessRecord(None, None, None, "", 0)


class Access(msgspec.Struct, frozen=True):
    """What holds for a project: for each part what was said of it, else of the store, else this."""

    readers: str = EVERYBODY
    """A group by name or number, `EVERYBODY` or `NOBODY`."""
    writers: str = NOBODY
    """As `readers`. Who may write may read, too."""
    private_drafts: bool = False


def access_of(state: State, project: str = "") -> Access:
    """Return what holds for a project; for the store where no project says otherwise (none)."""
    access = _over(Access(), state.access())
    return _over(access, state.access(project)) if project else access


def _over(access: Access, said: AccessRecord | AccessSet | None) -> Access:
    """Return what holds when this was said on top."""
    if said is None:
        return access
    return Access(
        access.readers if said.readers is None else said.readers,
        access.writers if said.writers is None else said.writers,
        access.private_drafts if said.private_drafts is None else said.private_drafts,
    )


def everybody_reads(state: State) -> bool:
    """Tell whether everybody may see everything: what the store says, and each project."""
    said = ["", *(project for project, _ in state.accesses())]
    return all(access_of(state, project).readers == EVERYBODY for project in said)


def may_write(access: Access, principal: Principal) -> bool:
    """Tell whether somebody may change what has this access."""
    return principal.privileged or _is_among(access.writers, principal)


def may_read(access: Access, principal: Principal) -> bool:
    """Tell whether somebody may see what has this access."""
    return may_write(access, principal) or _is_among(access.readers, principal)


def _is_among(who: str, principal: Principal) -> bool:
    return who == EVERYBODY or (who != NOBODY and who in principal.groups)


def require_writer(state: State, project: str, principal: Principal) -> None:
    """Check that somebody may change a project.

    Raises:
        ForbiddenError: he may not.
    """
    if principal.privileged:
        return
    access = access_of(state, project)
    if not may_write(access, principal):
        raise _refusal(project, "change", access.writers, principal)


def require_reader(state: State, project: str, principal: Principal) -> None:
    """Check that somebody may see a project.

    Raises:
        ForbiddenError: he may not.
    """
    if principal.privileged:
        return
    access = access_of(state, project)
    if not may_read(access, principal):
        raise _refusal(project, "read", access.readers, principal)


def _refusal(project: str, what: str, who: str, principal: Principal) -> ForbiddenError:
    option = "writers" if what == "change" else "readers"
    grant = f"mregfs access {project} --{option}"
    if who == NOBODY:
        return ForbiddenError(
            f"only the owner of the store may {what} project {project}, and {principal.user!r} "
            "is not the owner",
            f"ask for access for a group: {grant} GROUP",
        )
    return ForbiddenError(
        f"only members of group {who!r} may {what} project {project}, and {principal.user!r} "
        "is not in it",
        f"ask one of them, or the owner of the store for another group: {grant} GROUP",
    )


def require(state: State, asked: Asked, principal: Principal) -> None:
    """Check that somebody may change the projects that something is about, and read its sources.

    Raises:
        ForbiddenError: he may not.
    """
    if principal.privileged:
        return
    written: list[ProjectName] = []
    read: list[ProjectName] = []
    match asked:
        case commands.RetirePacks() | commands.ReplaceLayout():
            raise _for_the_owner("move or retire packs", principal)
        case SetAccess():
            _require_for_access(state, asked, principal)
        case commands.LogVersion():
            written = [asked.project]
            read = [parent.project for parent in asked.parents]
        case commands.CommitRequest():
            written = [asked.artifact.project, *([asked.link.project] if asked.link else [])]
            read = [parent.project for parent in asked.parents]
        case commands.CreateArtifact() | commands.CreateCollection() | commands.GiveDraft():
            written = [asked.project]
        case commands.LinkVersion() | commands.MoveAlias():
            written, read = [asked.target.project], [asked.source.project]
        case _:
            written = [asked.target.project]
    for project in written:
        require_writer(state, str(project), principal)
    for project in read:
        require_reader(state, str(project), principal)


def _require_for_access(state: State, asked: SetAccess, principal: Principal) -> None:
    """Check that somebody may say who may use a project; to say nothing is for every reader."""
    project = "" if asked.project is None else str(asked.project)
    if asked == SetAccess(asked.project):
        require_reader(state, project, principal)
        return
    what = f"project {project}" if project else "the store"
    raise _for_the_owner(f"say who may use {what}", principal)


def _for_the_owner(what: str, principal: Principal) -> ForbiddenError:
    return ForbiddenError(
        f"only root and the owner of the store may {what}, and {principal.user!r} is neither",
        "ask one of them",
    )


def require_all(state: State, changes: Iterable[Change], principal: Principal) -> None:
    """Check that somebody may change every project that facts are about.

    A version that is deleted with force is taken out of the collections of other projects, too.

    Raises:
        ForbiddenError: he may not.
    """
    if principal.privileged:
        return
    for project in dict.fromkeys(change.project for change in changes):
        require_writer(state, project, principal)


def set_access(state: State, command: SetAccess, principal: Principal) -> Decision:
    """Say who may read and change the store or a project; `require` has asked who says so.

    A command that says nothing changes nothing.
    """
    project = "" if command.project is None else str(command.project)
    if command.inherit and not project:
        raise InvalidError("the store has nothing to inherit from", "name a project")
    for who in (command.readers, command.writers):
        if who not in (None, EVERYBODY, NOBODY) and not _NUMBER.fullmatch(who):
            check_group(who, principal)
    known = state.access(project) or _NOTHING
    before = _NOTHING if command.inherit else known
    fact = AccessSet(
        project,
        before.readers if command.readers is None else command.readers,
        before.writers if command.writers is None else command.writers,
        before.private_drafts if command.private_drafts is None else command.private_drafts,
    )
    said = {"readers": fact.readers, "writers": fact.writers, "private_drafts": fact.private_drafts}
    changes: list[Change] = []
    if list(said.values()) != [known.readers, known.writers, known.private_drafts]:
        changes = [] if command.project is None else with_project(state, command.project)
        changes.append(fact)
    return Decision(tuple(changes), _told(state, project, fact))


def told_access(state: State, project: str = "") -> dict[str, Any]:
    """Return what there is to tell of who may use a project; without one, of the store."""
    return _told(state, project, state.access(project))


def _told(state: State, project: str, said: AccessRecord | AccessSet | None) -> dict[str, Any]:
    holds = _over(access_of(state) if project else Access(), said)
    said = said or _NOTHING
    parts = {
        "readers": said.readers,
        "writers": said.writers,
        "private_drafts": said.private_drafts,
    }
    return {
        "project": project or None,
        **msgspec.structs.asdict(holds),
        "inherited": [part for part, value in parts.items() if value is None],
    }
