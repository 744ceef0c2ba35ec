"""Carries statements out: commits drafts, appends to the log, all of a script or nothing.

Decided here: the order (freeze the drafts, store their content, append, give up the drafts), what
is undone when something fails, and whose name history gets. Not decided here: what a statement
means (`model.grammar`, `model.rules`) or how content is stored (`registry.write.commit`). It runs
in worker threads: everything here may block.
"""

import errno
import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from msgspec.structs import replace

from mregfs.errors import HostError, ImmutableError, InvalidError, MregfsError, NotFoundError
from mregfs.model.commands import Command, CommitRequest, GiveDraft, Principal
from mregfs.model.grammar import Statement, at_statement, author_of
from mregfs.ports.intake import Intake
from mregfs.registry.log.log import Log
from mregfs.registry.log.receipt import Receipt
from mregfs.registry.log.tail import LogTail
from mregfs.registry.write.commit import CommitProgress, Committer
from mregfs.vfs.control import Outcome
from mregfs.vfs.follower import changes_names
from mregfs.vfs.interface import Caller, DraftTree
from mregfs.vfs.numbers import inode_on_host

__all__ = ["Transactions"]

log = logging.getLogger(__name__)

_LOOK_EVERY = 32 << 20
"""Bytes between two looks whether somebody still waits for a commit: a look takes 30 us, and the
digests of so many bytes 3 ms or more."""

_CALLS_A_LOOK = 64
"""Reports between two looks, however few bytes they are of: a thousand small files are soon."""


PUBLISHED = (
    "the draft's directory was for its owner or group alone; "
    "the version is for everybody who may read this project"
)
"""Said once, in the reply, when a commit lets more people read what is in a draft."""


class _Script:
    """What the statements of one transaction come to, before and after the log has it."""

    def __init__(self) -> None:
        self.commands: list[Command] = []
        self.origins: list[Statement] = []
        """The statement of each command."""
        self.finish: list[Callable[[], None]] = []
        self.consumed: list[int] = []
        """Inodes of drafts that become versions."""
        self.notes: dict[int, str] = {}
        """What is said beside a command's result, if it made a version."""


class Transactions:
    """The write side of one mount."""

    def __init__(
        self,
        registry_log: Log,
        tail: LogTail,
        committer: Committer,
        drafts: DraftTree,
        open_intake: Callable[[str, str, int, Caller], Intake],
        recover: Callable[[], None],
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
        self._recover = recover
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
        script = _Script()
        with ExitStack() as undo:
            for statement in statements:
                made = self._commands(statement, principal, undo, script, caller, requester)
                script.commands += made
                script.origins += [statement] * len(made)
            try:
                receipt = self._log.submit(script.commands, principal, "; ".join(reasons))
            except MregfsError as exc:
                if exc.position is None:
                    raise
                raise at_statement(exc, script.origins[exc.position]) from None
            undo.pop_all()
        for step in script.finish:
            step()
        results = [
            {**result, "note": script.notes[position]}
            if position in script.notes and result.get("created")
            else result
            for position, result in enumerate(receipt.results)
        ]
        keeps_names = receipt.entry is None or not changes_names(receipt.entry)
        self._learn(receipt, wait=not keeps_names)
        return Outcome(
            receipt.sequence,
            results,
            keeps_names and not script.consumed,
            tuple(script.consumed),
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
        script: "_Script",
        caller: Caller,
        requester: int,
    ) -> Sequence[Command]:
        """Return what a statement asks of the rules; the content of a draft is stored before."""
        request = statement.command
        try:
            if not isinstance(request, CommitRequest):
                assert not isinstance(request, GiveDraft)  # `run` has done that
                return [request]
            return self._prepare(request, principal, undo, script, caller, requester)
        except MregfsError as exc:
            raise at_statement(exc, statement) from None

    def _prepare(
        self,
        request: CommitRequest,
        principal: Principal,
        undo: ExitStack,
        script: "_Script",
        caller: Caller,
        requester: int,
    ) -> Sequence[Command]:
        project, draft = str(request.project), request.draft
        self._recover()  # a crash may have left another directory under the draft's name
        self._drafts.freeze(project, draft)
        undo.callback(self._drafts.thaw, project, draft)
        inode = self._inode(project, draft)
        log.info("committing draft %s of %s", draft, project)
        intake = self._open_intake(project, draft, inode_on_host(inode), caller)
        prepared = self._committer.prepare(
            intake, request, principal=principal, progress=self._watching(requester)
        )
        undo.callback(prepared.abort)
        script.consumed.append(inode)
        script.finish.append(prepared.done)
        script.finish.append(lambda: self._drafts.consumed(project, draft))
        if intake.is_private:
            script.notes[len(script.commands)] = PUBLISHED
        return prepared.commands

    def _watching(self, requester: int) -> CommitProgress:
        """Return what gives a commit up when the thread that waits for it is killed.

        Until it has an answer the kernel does not let it go: Ctrl-C would seem to do nothing.
        """
        stage_before, done_before, calls = "", 0, 0

        def look(stage: str, done: int, total: int) -> None:
            nonlocal stage_before, done_before, calls
            calls += 1
            same = stage == stage_before
            if same and done < done_before + _LOOK_EVERY and calls < _CALLS_A_LOOK:
                return
            stage_before, done_before, calls = stage, done, 0
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
