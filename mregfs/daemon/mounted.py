"""One mount: the parts of the file system put together over an open store.

Decided here: which parts a mount is made of, and what each is given. Not decided here: adapters of
the store (`wiring`), when a mount begins and ends (`lifecycle`), what its status says (`status`).
"""

import logging
import time
from collections.abc import Sequence

from mregfs.daemon.callers import places_of, with_groups
from mregfs.daemon.options import MountOptions
from mregfs.daemon.status import Status
from mregfs.drafts import DraftDirectory
from mregfs.errors import MregfsError
from mregfs.fuse.passthrough import passthrough_state
from mregfs.fuse.waits import is_dying
from mregfs.host.callers import Credentials
from mregfs.host.principals import group_number, user_of
from mregfs.model.commands import Principal, User
from mregfs.model.names import ProjectName
from mregfs.model.rules.access import may_read
from mregfs.ports.intake import Intake
from mregfs.registry.keep.aliased import Aliased
from mregfs.registry.log.tail import LogTail
from mregfs.registry.read.answers import Answers
from mregfs.vfs.attached import Attached
from mregfs.vfs.coalescing import Coalescing
from mregfs.vfs.control import ControlSessions
from mregfs.vfs.crossing import Crossing
from mregfs.vfs.events import EventReaders
from mregfs.vfs.follower import Follower
from mregfs.vfs.interface import Caller, DraftTree, KernelNotices
from mregfs.vfs.modes import Modes
from mregfs.vfs.operations import FileOperations
from mregfs.vfs.pending import PendingLinks
from mregfs.vfs.query import QueryNames, Questions
from mregfs.vfs.registry_tree import RegistryTree
from mregfs.vfs.router import Router
from mregfs.vfs.runner import Runner
from mregfs.vfs.special import SpecialTree
from mregfs.vfs.transactions import Transactions
from mregfs.vfs.tree import Tree
from mregfs.vfs.xattrs import ExtendedAttributes
from mregfs.wiring.host_directories import STAGING
from mregfs.wiring.store import Store

__all__ = ["Mounted"]

log = logging.getLogger(__name__)


class Mounted:
    """The parts of one mount put together.

    Args:
        store: opened; whoever opened it closes it.
        project: the one whose artifacts and collections are at the top.
        options: of the mount.
        notices: how the kernel is told what it must forget.
    """

    def __init__(
        self, store: Store, project: ProjectName, options: MountOptions, notices: KernelNotices
    ) -> None:
        self._store = store
        self._project = project
        self._options = options
        self._modes = Modes(store.index, *store.owner, group_number)
        tree = Tree(project, store.content, self._modes)
        verifier = (
            store.verify_in_background(lambda: passthrough_state().available)
            if options.verify == "first-read"
            else None
        )
        self.tail = LogTail(store.log, store.index, time.monotonic_ns)
        aliased = Aliased(store.index, self.tail.entries, store.coalescer)
        self.coalescing = Coalescing(aliased.follow, self._may_coalesce)
        self.drafts: DraftTree = DraftDirectory(store.host.drafts, STAGING, shown=self._shown)
        transactions = Transactions(
            store.changes,
            self.tail,
            self.drafts,
            self._open_draft_intake,
            store.recover,
            with_groups,
            user_of,
            is_dying,
            read_only=options.read_only,
        )
        refused: dict[str, int] = {}
        status = Status(
            store,
            project,
            options,
            modes=self._modes,
            tail=self.tail,
            drafts=self.drafts,
            verifier=verifier,
            refused=refused,
        )
        control = ControlSessions()
        events = EventReaders(self.tail, self._may_read)
        follower = Follower(
            self.tail,
            store.index,
            tree,
            notices,
            [events.wake, self.coalescing.wake],
            lambda: self._share_staging(notices),
        )
        operations = FileOperations(tree, store.index, project, self._mountpoints)
        self.runner = Runner(
            project, transactions, operations, follower, self.tail, notices, control
        )
        names = QueryNames()
        questions = Questions(self._answers(), names, self._may_read)
        special = SpecialTree(
            tree, self.runner, control, events, names, questions, status.report, with_groups
        )
        pending = PendingLinks(store.index, tree, store.clock, read_only=options.read_only)
        registry = RegistryTree(
            store.index,
            tree,
            store.content,
            operations,
            ExtendedAttributes(store.content, store.unique_size, self._read_path),
            pending,
            Attached(special, self.drafts),
            self.runner,
            notices,
        )
        crossing = Crossing(registry, special, self.drafts, operations, self.runner, notices)
        self.file_system = Router(registry, special, pending, self.drafts, crossing, refused)

    def _open_draft_intake(self, project: str, draft: str, inode: int, caller: Caller) -> Intake:
        """Return a draft on its way to become a version, for a caller who could do so himself."""
        who = Credentials(caller.uid, caller.gid, caller.groups or ())
        return self._store.open_draft_intake(project, draft, inode, who)

    def _identify(self, caller: Caller) -> Principal:
        """Return who a caller is for the rules and for history."""
        groups = frozenset({caller.gid, *(caller.groups or ())})
        return self._store.identify(User(caller.uid, groups))

    def _shown(self, project: str) -> tuple[int, int, bool]:
        """Return group and mode of a staging directory, and whether drafts in it are private."""
        shown = self._modes.staging(project)
        private = self._options.private_drafts
        if private is None:
            private = self._modes.access(project).private_drafts
        return shown.gid, shown.mode, private

    def hide_store(self) -> None:
        """Let nobody past the mount who may not see all that is in the store."""
        try:
            self._store.hide()
        except MregfsError as exc:
            log.error("users other than its readers can look into the store's directory: %s", exc)

    def _share_staging(self, notices: KernelNotices) -> None:
        """Let those make drafts who may now."""
        self.hide_store()
        try:
            for inode in self.drafts.share():
                notices.forget_attributes(inode)
        except MregfsError as exc:
            log.error("the staging area cannot be opened to its writers: %s", exc)

    def _may_read(self, caller: Caller, project: str) -> bool:
        """Tell whether a caller may read a project."""
        return may_read(self._modes.access(project), self._identify(caller))

    def _may_coalesce(self) -> bool:
        """Tell whether whole-file copies are to be made unasked, and would be used."""
        options = self._options
        return (
            options.coalesce == "aliased"
            and options.verify != "always"
            and not self._store.read_only
            and passthrough_state().available
        )

    def _read_path(self, content: str) -> str:
        """Return how a published file is read, given how its bytes are stored; and why so."""
        if self._options.verify == "always":
            return "cached: verify=always"
        if content == "remote":
            return "cached: stored elsewhere"
        if content not in ("whole", "coalesced"):
            return f"cached: stored as {content}"
        state = passthrough_state()
        if not state.available:
            return f"cached: {state.reason}"
        return "passthrough: coalesced" if content == "coalesced" else "passthrough"

    def _mountpoints(self, caller: Caller) -> Sequence[str]:
        """Return the paths by which a caller's name space shows this mount, longest first."""
        return sorted(places_of(caller.pid, self._options.mountpoint), key=len, reverse=True)

    def _answers(self) -> Answers:
        store = self._store
        return Answers(
            self._project, store.index, store.log, store.content, store.facts, time.monotonic_ns
        )
