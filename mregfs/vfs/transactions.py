"""Carries statements out: commits drafts, appends to the log, all of a script or nothing.

Decided here: the order (freeze the drafts, store their content, append, give up the drafts), what
is undone when something fails, and whose name history gets. Not decided here: what a statement
means (`model.grammar`, `model.rules`) or how content is stored (`registry.commit`). Called by
`filesystem`, from worker threads: everything here may block.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from mregfs.errors import ImmutableError, InvalidError, MregfsError
from mregfs.model.commands import Asker, Command, Protect
from mregfs.model.grammar import CommitRequest, Statement, at_statement
from mregfs.ports import Caller, DraftTree, Intake
from mregfs.registry.commit import Committer
from mregfs.registry.log import Log
from mregfs.vfs.control import Outcome
from mregfs.vfs.follower import changes_names

__all__ = ["Transactions"]

log = logging.getLogger(__name__)


class Transactions:
    """The write side of one mount."""

    def __init__(
        self,
        registry_log: Log,
        committer: Committer,
        drafts: DraftTree,
        open_intake: Callable[[str], Intake],
        identify: Callable[[Caller], Asker],
        check_group: Callable[[str], None],
        *,
        read_only: bool,
    ) -> None:
        self._log = registry_log
        self._committer = committer
        self._drafts = drafts
        self._open_intake = open_intake
        self._identify = identify
        self._check_group = check_group
        self._read_only = read_only

    def run(self, statements: Sequence[Statement], caller: Caller) -> Outcome:
        """Carry all statements out as one transaction.

        A commit that fails leaves its draft as it was. Blocks while drafts are hashed and stored.

        Raises:
            MregfsError: nothing has changed.
        """
        if self._read_only:
            raise ImmutableError(
                "this mount is read-only", "mount without -o ro, or use another mount"
            )
        if not statements:
            raise InvalidError("there is no command", "write one a line; cat this file for a list")
        asker = self._identify(caller)
        reasons = dict.fromkeys(s.reason for s in statements if s.reason)
        with ExitStack() as undo:
            commands: list[Command] = []
            origins: list[Statement] = []
            finish: list[Callable[[], None]] = []
            consumed: list[int] = []
            for statement in statements:
                made = self._commands(statement, asker, undo, finish, consumed)
                commands += made
                origins += [statement] * len(made)
            try:
                receipt = self._log.submit(commands, asker, "; ".join(reasons))
            except MregfsError as exc:
                if exc.position is None:
                    raise
                raise at_statement(exc, origins[exc.position]) from None
            undo.pop_all()
        for step in finish:
            step()
        keeps_names = receipt.entry is None or not changes_names(receipt.entry)
        return Outcome(
            receipt.sequence,
            list(receipt.results),
            keeps_names and not consumed,
            tuple(consumed),
        )

    def _commands(
        self,
        statement: Statement,
        asker: Asker,
        undo: ExitStack,
        finish: list[Callable[[], None]],
        consumed: list[int],
    ) -> Sequence[Command]:
        """Return what a statement asks of the rules; the content of a draft is stored before."""
        request = statement.command
        try:
            if isinstance(request, Protect) and request.group not in asker.groups:
                self._check_group(request.group)
            if not isinstance(request, CommitRequest):
                return [request]
            return self._prepare(request, asker, undo, finish, consumed)
        except MregfsError as exc:
            raise at_statement(exc, statement) from None

    def _prepare(
        self,
        request: CommitRequest,
        asker: Asker,
        undo: ExitStack,
        finish: list[Callable[[], None]],
        consumed: list[int],
    ) -> Sequence[Command]:
        project, draft = str(request.project), request.draft
        path = self._drafts.freeze(project, draft)
        undo.callback(self._drafts.thaw, project, draft)
        consumed.append(self._inode(project, draft))
        log.info("committing draft %s of %s", draft, project)
        prepared = self._committer.prepare(self._open_intake(path), request, asker=asker)
        undo.callback(prepared.abort)
        finish.append(prepared.done)
        finish.append(lambda: self._drafts.consumed(project, draft))
        return prepared.commands

    def _inode(self, project: str, draft: str) -> int:
        staging = self._drafts.root(project).inode
        inode = self._drafts.lookup(staging, draft.encode()).inode
        self._drafts.forget(inode, 1)
        return inode
