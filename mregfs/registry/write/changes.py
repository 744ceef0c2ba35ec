"""The one door for changes: the mount, the command line, the Python API and what comes later.

Decided here: the order (who asks, may he, prepare drafts, decide and append, finish), what is
undone when something fails, what history is told of author and reasons. Not decided here: what text
means (`model.grammar`), who may do what and what it leads to (`model.rules`), how content is stored
(`commit`), where drafts are (`Drafts`). Everything here may block. `changes.md` says how to use it.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

import msgspec

from mregfs.errors import InvalidError, MregfsError, UnsupportedError
from mregfs.model.commands import (
    Command,
    CommitRequest,
    GiveDraft,
    Principal,
    SetAccess,
    User,
)
from mregfs.model.grammar import Statement, at_statement, author_of
from mregfs.model.rules.access import require
from mregfs.model.state import State
from mregfs.ports.index import Index
from mregfs.ports.intake import Intake
from mregfs.registry.log.log import Log
from mregfs.registry.log.receipt import Receipt
from mregfs.registry.write.commit import Committer
from mregfs.registry.write.progress import CommitProgress

__all__ = ["Changed", "Changes", "Drafts", "NoDrafts", "OneSource", "Source"]

log = logging.getLogger(__name__)

PUBLISHED = (
    "the draft's directory was for its owner or group alone; "
    "the version is for everybody who may read this project"
)
"""Said once, in the reply, when a commit lets more people read what is in a draft."""


class Source(msgspec.Struct, frozen=True):
    """What one commit is made from, once nobody else changes it."""

    intake: Intake
    consumed: Callable[[], None] = lambda: None
    """Called when the version is in the log."""
    give_back: Callable[[], None] = lambda: None
    """Called when the commit failed."""
    inode: int = 0
    """Of the directory in the mount, which disappears."""


class Drafts(Protocol):
    """The drafts that whoever asks can have committed or handed over."""

    def take(self, request: CommitRequest) -> Source:
        """Keep a draft from changing, and return it.

        Raises:
            MregfsError: there is none, or it cannot be taken; it is as it was.
        """
        ...

    def give(self, request: GiveDraft, principal: Principal) -> Sequence[int]:
        """Make a draft another user's, and return the inodes of its directories.

        Raises:
            MregfsError: it is not his who asks, or cannot be given; it is as it was.
        """
        ...


class NoDrafts:
    """The drafts of whoever has no mount: none."""

    def take(self, request: CommitRequest) -> Source:
        """See `Drafts`."""
        raise UnsupportedError(
            f"the draft {request.draft!r} can only be committed in its mount",
            "write to .mregfs/control there, or give commit() a directory",
        )

    def give(self, request: GiveDraft, principal: Principal) -> Sequence[int]:
        """See `Drafts`."""
        raise UnsupportedError(
            f"the draft {request.draft!r} can only be handed over in its mount",
            "write to .mregfs/control there",
        )


class OneSource(NoDrafts):
    """A single directory or file of the host, whatever the request calls it.

    Args:
        open_intake: opens it; called once.
    """

    def __init__(self, open_intake: Callable[[], Intake]) -> None:
        self._open_intake = open_intake

    def take(self, request: CommitRequest) -> Source:
        """See `Drafts`."""
        return Source(self._open_intake())


class Changed(msgspec.Struct, frozen=True):
    """What a transaction came to."""

    receipt: Receipt
    """Its entry, if there is one."""
    results: list[dict[str, Any]]
    """One for each command."""
    consumed: tuple[int, ...] = ()
    """Inodes of drafts that became versions, or another user's."""


class _Ending:
    """What is done at the end of one transaction, by way of success or of failure."""

    def __init__(self) -> None:
        self._steps: list[tuple[Callable[[], None], Callable[[], None]]] = []

    def add(self, finish: Callable[[], None], undo: Callable[[], None]) -> None:
        """Have one of the two called at the end; what was added last comes first."""
        self._steps.append((finish, undo))

    def finish(self) -> None:
        """The transaction is in the log."""
        self._end(0)

    def undo(self) -> None:
        """The transaction failed; does nothing once `finish` was called."""
        self._end(1)

    def _end(self, way: int) -> None:
        steps, self._steps = self._steps, []
        with ExitStack() as stack:  # all of them are called, whatever one of them raises
            for step in steps:
                stack.callback(step[way])


class Changes:
    """The write side of one store, for everybody.

    Args:
        registry_log: of the store.
        index: in which the log is looked at.
        committer: stores the content of drafts; called when there is one to store.
        identify: tells who a user of this host is for the rules.
        on_access: called after each transaction that says who may do what.
    """

    def __init__(
        self,
        registry_log: Log,
        index: Index,
        committer: Callable[[], Committer],
        *,
        identify: Callable[[User], Principal],
        on_access: Callable[[], None] = lambda: None,
    ) -> None:
        self._log = registry_log
        self._index = index
        self._committer = committer
        self._identify = identify
        self._on_access = on_access

    def submit(
        self,
        statements: Sequence[Statement],
        by: User | Principal,
        drafts: Drafts | None = None,
        *,
        author: str = "",
        reason: str = "",
        progress: CommitProgress | None = None,
    ) -> Changed:
        """Carry out all statements or none, as one transaction in one log entry.

        A commit that fails leaves its draft as it was. Blocks while drafts are hashed and stored.

        Args:
            statements: what is asked.
            by: who asks: a user of this host, or somebody whom the caller vouches for.
            drafts: those that he can have committed; None: he has no mount.
            author: whom history names beside him, where no statement does.
            reason: why, besides what the statements say.
            progress: called while drafts are stored; what it raises ends the commit.

        Raises:
            UnavailableError: the store did not say whether the entry arrived. It may have: look
                before trying again.
            MregfsError: refused or failed, and nothing has changed. The message names the line of
                the statement, where there are several.
        """
        if not statements:
            raise InvalidError(
                "there is no command", "write one a line; .mregfs/control of a mount lists them"
            )
        drafts = drafts or NoDrafts()
        principal = self._identify(by) if isinstance(by, User) else by
        author = author_of(statements) or author
        if author:
            principal = msgspec.structs.replace(principal, author=author)
        if any(isinstance(each.command, CommitRequest | GiveDraft) for each in statements):
            self._require_all(statements, principal)
        for statement in statements:
            if isinstance(statement.command, GiveDraft):
                if len(statements) > 1:
                    raise InvalidError("a draft is handed over alone", "write one command")
                return self._give(statement.command, principal, drafts)
        reasons = dict.fromkeys(filter(None, [reason, *(each.reason for each in statements)]))
        return self._carry_out(statements, principal, drafts, "; ".join(reasons), progress)

    def _require_all(self, statements: Sequence[Statement], principal: Principal) -> None:
        """Ask for all that is to be done whether he may, before a draft is touched.

        Of each command the rules ask again when they decide it.
        """
        self._log.catch_up(strict=True)
        with self._index.read() as view:
            state = State(view)
            for statement in statements:
                try:
                    require(state, statement.command, principal)
                except MregfsError as exc:
                    raise at_statement(exc, statement) from None

    def _give(self, request: GiveDraft, principal: Principal, drafts: Drafts) -> Changed:
        given = drafts.give(request, principal)
        log.info("%s gave draft %s to %s", principal.user, request.draft, request.user)
        result = {"project": str(request.project), "draft": request.draft, "user": request.user}
        receipt = Receipt(self._log.catch_up(), (result,), None)
        return Changed(receipt, [result], tuple(given))

    def _carry_out(
        self,
        statements: Sequence[Statement],
        principal: Principal,
        drafts: Drafts,
        reason: str,
        progress: CommitProgress | None,
    ) -> Changed:
        commands: list[Command] = []
        origins: list[Statement] = []
        notes: dict[int, str] = {}
        consumed: list[int] = []
        ending = _Ending()
        try:
            for statement in statements:
                request = statement.command
                made: Sequence[Command]
                if isinstance(request, CommitRequest):
                    self._rehearse(commands, request, principal, [*origins, statement])
                    try:
                        source = drafts.take(request)
                        ending.add(source.consumed, source.give_back)
                        prepared = self._committer().prepare(source.intake, request, progress)
                        ending.add(prepared.unsettled.done, prepared.unsettled.abort)
                    except MregfsError as exc:
                        raise at_statement(exc, statement) from None
                    if source.intake.is_private:
                        notes[len(commands)] = PUBLISHED
                    consumed.append(source.inode)
                    made = prepared.commands
                else:
                    assert not isinstance(request, GiveDraft)  # `submit` has done that
                    made = [request]
                commands += made
                origins += [statement] * len(made)
            try:
                receipt = self._log.submit(commands, principal, reason)
            except MregfsError as exc:
                if exc.position is None:
                    raise
                raise at_statement(exc, origins[exc.position]) from None
            ending.finish()
        except BaseException:
            ending.undo()
            raise
        if any(isinstance(command, SetAccess) for command in commands):
            try:
                self._on_access()
            except MregfsError as exc:
                log.error("the change is made, but may not be seen everywhere: %s", exc)
        return Changed(receipt, _noted(receipt, notes), tuple(filter(None, consumed)))

    def _rehearse(
        self,
        before: Sequence[Command],
        request: CommitRequest,
        principal: Principal,
        origins: Sequence[Statement],
    ) -> None:
        """Ask the rules now, before hours of hashing, whether there may be such a version."""
        unknown = request.commands(digest="0" * 64, layout="0" * 32, size=0, files=0, entries=0)
        try:
            self._log.rehearse([*before, *unknown], principal)
        except MregfsError as exc:
            last = len(origins) - 1
            position = last if exc.position is None else min(exc.position, last)
            raise at_statement(exc, origins[position]) from None


def _noted(receipt: Receipt, notes: dict[int, str]) -> list[dict[str, Any]]:
    return [
        {**result, "note": notes[position]}
        if position in notes and result.get("created")
        else result
        for position, result in enumerate(receipt.results)
    ]
