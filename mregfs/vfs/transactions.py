"""Carries statements out: commits drafts, appends to the log, all of a script or nothing.

Decided here: the order (freeze the drafts, store their content, append, give up the drafts), what
is undone when something fails, and whose name history gets. Not decided here: what a statement
means (`model.grammar`, `model.rules`) or how content is stored (`registry.commit`). Called by
`filesystem`, from worker threads: everything here may block.
"""

import errno
import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from msgspec.structs import replace

from mregfs.errors import HostError, ImmutableError, InvalidError, MregfsError, NotFoundError
from mregfs.model.commands import Command, Principal
from mregfs.model.grammar import CommitRequest, GiveDraft, Statement, at_statement, author_of
from mregfs.ports import Caller, DraftTree, Intake
from mregfs.registry.commit import CommitProgress, Committer
from mregfs.registry.log import Log
from mregfs.registry.receipt import Receipt
from mregfs.registry.tail import LogTail
from mregfs.vfs.control import Outcome
from mregfs.vfs.follower import changes_names

__all__ = ["Transactions"]

log = logging.getLogger(__name__)

_LOOK_EVERY = 32 << 20
"""Bytes between two looks whether somebody still waits for a commit: a look takes 30 us, and the
digests of so many bytes 3 ms or more."""


class Transactions:
    """The write side of one mount."""

    def __init__(
        self,
        registry_log: Log,
        tail: LogTail,
        committer: Committer,
        drafts: DraftTree,
        open_intake: Callable[[str], Intake],
        with_groups: Callable[[Caller], Caller],
        find_user: Callable[[str], tuple[int, int] | None],
        identify: Callable[[Caller], Principal],
        is_dying: Callable[[int], bool],
        *,
        read_only: bool,
    ) -> None:
        self._log = registry_log
        self._tail = tail
        self._committer = committer
        self._drafts = drafts
        self._open_intake = open_intake
        self._with_groups = with_groups
        self._find_user = find_user
        self._identify = identify
        self._is_dying = is_dying
        self._read_only = read_only

    def run(self, statements: Sequence[Statement], caller: Caller, requester: int = 0) -> Outcome:
        """Carry all statements out as one transaction.

        A commit that fails leaves its draft as it was. Blocks while drafts are hashed and stored.

        Args:
            statements: what is asked.
            caller: who asks, whose name history gets; he waits, or his groups are known.
            requester: the thread that waits, 0 if unknown. When it is killed, a commit is given up.

        Raises:
            MregfsError: nothing has changed.
        """
        if self._read_only:
            raise ImmutableError(
                "this mount is read-only", "mount without -o ro, or use another mount"
            )
        if not statements:
            raise InvalidError("there is no command", "write one a line; cat this file for a list")
        caller = self._with_groups(caller)
        principal = replace(self._identify(caller), author=author_of(statements))
        for statement in statements:
            if isinstance(statement.command, GiveDraft):
                if len(statements) > 1:
                    raise InvalidError("a draft is handed over alone", "write one command")
                return self._give(statement.command, principal, caller)
        reasons = dict.fromkeys(s.reason for s in statements if s.reason)
        with ExitStack() as undo:
            commands: list[Command] = []
            origins: list[Statement] = []
            finish: list[Callable[[], None]] = []
            consumed: list[int] = []
            for statement in statements:
                made = self._commands(statement, principal, undo, finish, consumed, requester)
                commands += made
                origins += [statement] * len(made)
            try:
                receipt = self._log.submit(commands, principal, "; ".join(reasons))
            except MregfsError as exc:
                if exc.position is None:
                    raise
                raise at_statement(exc, origins[exc.position]) from None
            undo.pop_all()
        for step in finish:
            step()
        keeps_names = receipt.entry is None or not changes_names(receipt.entry)
        self._learn(receipt, wait=not keeps_names)
        return Outcome(
            receipt.sequence,
            list(receipt.results),
            keeps_names and not consumed,
            tuple(consumed),
        )

    def _learn(self, receipt: Receipt, *, wait: bool) -> None:
        """Have the entry at the tail of the log, where the event loop takes it."""
        if not wait:
            self._tail.offer(receipt)
            return
        try:
            self._tail.reach(receipt)
        except MregfsError as exc:
            log.error("entry %d is made, but the log cannot be read: %s", receipt.sequence, exc)

    def _give(self, request: GiveDraft, principal: Principal, caller: Caller) -> Outcome:
        """Make a draft another user's; its owner may, and root, and the owner of the store."""
        user = self._find_user(request.user)
        if user is None:
            raise NotFoundError(
                f"there is no user {request.user!r} on this host", "list them: getent passwd"
            )
        giver = None if principal.privileged else caller.uid
        given = self._drafts.give(str(request.project), request.draft, *user, giver)
        log.info("%s gave draft %s to %s", principal.user, request.draft, request.user)
        result = {"project": str(request.project), "draft": request.draft, "user": request.user}
        return Outcome(self._log.catch_up(), [result], consumed=tuple(given))

    def _commands(
        self,
        statement: Statement,
        principal: Principal,
        undo: ExitStack,
        finish: list[Callable[[], None]],
        consumed: list[int],
        requester: int,
    ) -> Sequence[Command]:
        """Return what a statement asks of the rules; the content of a draft is stored before."""
        request = statement.command
        try:
            if not isinstance(request, CommitRequest):
                assert not isinstance(request, GiveDraft)  # `run` has done that
                return [request]
            return self._prepare(request, principal, undo, finish, consumed, requester)
        except MregfsError as exc:
            raise at_statement(exc, statement) from None

    def _prepare(
        self,
        request: CommitRequest,
        principal: Principal,
        undo: ExitStack,
        finish: list[Callable[[], None]],
        consumed: list[int],
        requester: int,
    ) -> Sequence[Command]:
        project, draft = str(request.project), request.draft
        path = self._drafts.freeze(project, draft)
        undo.callback(self._drafts.thaw, project, draft)
        consumed.append(self._inode(project, draft))
        log.info("committing draft %s of %s", draft, project)
        prepared = self._committer.prepare(
            self._open_intake(path),
            request,
            principal=principal,
            progress=self._watching(requester),
        )
        undo.callback(prepared.abort)
        finish.append(prepared.done)
        finish.append(lambda: self._drafts.consumed(project, draft))
        return prepared.commands

    def _watching(self, requester: int) -> CommitProgress:
        """Return what gives a commit up when the thread that waits for it is killed.

        Until it has an answer the kernel does not let it go: Ctrl-C would seem to do nothing.
        """
        looked = ("", 0)

        def look(stage: str, done: int, total: int) -> None:
            nonlocal looked
            if (stage, done - _LOOK_EVERY) < looked:
                return
            looked = (stage, done)
            if self._is_dying(requester):
                raise HostError(
                    errno.EINTR, "the commit was given up, as whoever asked for it was killed"
                )

        return look

    def _inode(self, project: str, draft: str) -> int:
        staging = self._drafts.root(project).inode
        inode = self._drafts.lookup(staging, draft.encode()).inode
        self._drafts.forget(inode, 1)
        return inode
