"""Changes that are asked of a mount: by a command on `control`, or by an operation.

Decided here: how a draft of the mount is taken, given back and handed over, when a commit is given
up, what the tail of the log is told. Not decided here: the order of a change and what is undone
(`registry.write.changes`), what a statement means (`model.grammar`, `model.rules`). Everything here
may block.
"""

import errno
import logging
from collections.abc import Callable, Sequence

from mregfs.errors import HostError, ImmutableError, MregfsError, NotFoundError
from mregfs.model.commands import CommitRequest, GiveDraft, Principal, User
from mregfs.model.grammar import Statement
from mregfs.ports.intake import Intake
from mregfs.registry.log.receipt import Receipt
from mregfs.registry.log.tail import LogTail
from mregfs.registry.write.changes import Changes, Source
from mregfs.registry.write.progress import CommitProgress
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


class Transactions:
    """The write side of one mount."""

    def __init__(
        self,
        changes: Changes,
        tail: LogTail,
        drafts: DraftTree,
        open_intake: Callable[[str, str, int, Caller], Intake],
        recover: Callable[[], None],
        with_groups: Callable[[Caller], Caller],
        find_user: Callable[[str], tuple[int, int] | None],
        is_dying: Callable[[int], bool],
        *,
        read_only: bool,
    ) -> None:
        self._changes = changes
        self._tail = tail
        self._drafts = drafts
        self._open_intake = open_intake
        self._recover = recover
        self._with_groups = with_groups
        self._find_user = find_user
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
        caller = self._with_groups(caller)
        changed = self._changes.submit(
            statements,
            User(caller.uid, frozenset({caller.gid, *(caller.groups or ())})),
            _DraftsOfMount(self._drafts, caller, self._open_intake, self._recover, self._find_user),
            progress=self._watching(requester),
        )
        receipt = changed.receipt
        keeps_names = receipt.entry is None or not changes_names(receipt.entry)
        self._learn(receipt, wait=not keeps_names)
        return Outcome(
            receipt.sequence,
            changed.results,
            keeps_names and not changed.consumed,
            changed.consumed,
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


class _DraftsOfMount:
    """The drafts of a mount, as one of its users may use them; see `changes.Drafts`."""

    def __init__(
        self,
        drafts: DraftTree,
        caller: Caller,
        open_intake: Callable[[str, str, int, Caller], Intake],
        recover: Callable[[], None],
        find_user: Callable[[str], tuple[int, int] | None],
    ) -> None:
        self._drafts = drafts
        self._caller = caller
        self._open_intake = open_intake
        self._recover = recover
        self._find_user = find_user

    def take(self, request: CommitRequest) -> Source:
        """Freeze a draft, and return it as the source of a commit."""
        project, draft = str(request.project), request.draft
        self._recover()  # a crash may have left another directory under the draft's name
        self._drafts.freeze(project, draft)
        try:
            inode = self._inode(project, draft)
            log.info("committing draft %s of %s", draft, project)
            intake = self._open_intake(project, draft, inode_on_host(inode), self._caller)
        except BaseException:
            self._drafts.thaw(project, draft)
            raise
        return Source(
            intake,
            consumed=lambda: self._drafts.consumed(project, draft),
            give_back=lambda: self._drafts.thaw(project, draft),
            inode=inode,
        )

    def give(self, request: GiveDraft, principal: Principal) -> Sequence[int]:
        """Make a draft another user's; its owner may, and root, and the owner of the store."""
        user = self._find_user(request.user)
        if user is None:
            raise NotFoundError(
                f"there is no user {request.user!r} on this host", "list them: getent passwd"
            )
        giver = None if principal.privileged else self._caller.uid
        return self._drafts.give(str(request.project), request.draft, *user, giver)

    def _inode(self, project: str, draft: str) -> int:
        staging = self._drafts.root(project).inode
        inode = self._drafts.lookup(staging, draft.encode()).inode
        self._drafts.forget(inode, 1)
        return inode
