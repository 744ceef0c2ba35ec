"""Runs what operations and scripts ask of the registry, and tells the kernel what came of it.

Decided here: in which thread a change is made, and what the kernel is told before its answer. Not
decided here: what a change does (`transactions`), which names it makes stale (`follower`).
"""

import logging
from collections.abc import Sequence
from functools import partial

import trio

from mregfs.errors import MregfsError
from mregfs.model.commands import Command
from mregfs.model.grammar import Statement, parse_script
from mregfs.model.names import ProjectName
from mregfs.registry.log.tail import LogTail
from mregfs.vfs.control import ControlSessions, Outcome
from mregfs.vfs.follower import Follower
from mregfs.vfs.interface import Caller, KernelNotices
from mregfs.vfs.operations import FileOperations
from mregfs.vfs.transactions import Transactions

__all__ = ["Runner"]

log = logging.getLogger(__name__)

_DRAIN_LIMIT = 1.0
"""Seconds that a reply waits for the kernel to forget names; it takes well under a millisecond."""


class Runner:
    """Makes the changes of one mount, and follows those that others make."""

    def __init__(
        self,
        project: ProjectName,
        transactions: Transactions,
        operations: FileOperations,
        follower: Follower,
        tail: LogTail,
        notices: KernelNotices,
        control: ControlSessions,
    ) -> None:
        self._project = project
        self._transactions = transactions
        self._operations = operations
        self._follower = follower
        self._tail = tail
        self._notices = notices
        self._control = control
        # Commits may take minutes; they must not use up the threads that others wait for.
        self._writers = trio.CapacityLimiter(16)

    async def follow(self) -> None:
        """Watch the log for what others append, until cancelled; then its thread has ended."""
        loop = trio.lowlevel.current_trio_token()

        def on_news() -> None:
            loop.run_sync_soon(self._follow_quietly, idempotent=True)

        watch = partial(self._tail.run, on_news)
        alone = trio.CapacityLimiter(1)
        try:
            await trio.to_thread.run_sync(watch, abandon_on_cancel=True, limiter=alone)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._tail.stop)

    async def statements(self, statements: Sequence[Statement], caller: Caller) -> Outcome:
        """Carry out what an operation asks; why it fails is kept for its user's next `cat`."""
        try:
            run = partial(self._transactions.run, statements, caller, caller.pid)
            return await trio.to_thread.run_sync(run, limiter=self._writers)
        except MregfsError as exc:
            self._control.keep_reason(caller, exc)
            raise
        finally:
            self._follower.follow()

    async def commands(self, commands: Sequence[Command], caller: Caller) -> None:
        """Carry out the commands that an operation stands for, as one transaction."""
        await self.statements([Statement(command=command) for command in commands], caller)

    def script(
        self, text: str, caller: Caller, requester: int, loop: trio.lowlevel.TrioToken
    ) -> Outcome:
        """Carry out what was written on `control`; in a thread.

        Args:
            text: of the script.
            caller: who opened the file, with his groups.
            requester: the thread that waits, 0 if unknown.
            loop: the event loop that answers the kernel.
        """
        statements = parse_script(
            text, self._project, lambda path: self._operations.strip(path, caller)
        )
        # Before the transaction: another task may follow its entry before this one does.
        stale_names = self._follower.stale_names
        outcome = self._transactions.run(statements, caller, requester)
        if outcome.keeps_names:
            loop.run_sync_soon(self._follow_quietly)
            return outcome
        trio.from_thread.run_sync(self._follow_quietly, trio_token=loop)
        for inode in outcome.consumed:  # not the name: its directory may be locked for a commit
            self._notices.forget_attributes(inode)
        if outcome.consumed or self._follower.stale_names != stale_names:
            # An operation changes the kernel's own entry; after a command the kernel must forget
            # the name before its writer looks. That takes no lock that the writer holds.
            self._notices.drain(_DRAIN_LIMIT)
        return outcome

    def _follow_quietly(self) -> None:
        """Tell the kernel of what is new; what cannot be told now is told at the next entry."""
        try:
            self._follower.follow()
        except MregfsError as exc:
            log.error("the kernel is not told of what is new: %s", exc)
