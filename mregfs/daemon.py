"""The life of one mount: put the parts together, serve, say when ready, end in order.

Decided here: which parts a mount is made of, what its status says, readiness (a pipe of the CLI's,
systemd's notify socket), signals, the order of the end. Not decided here: adapters of the store
(`api`), requests (`fuse`, `vfs`), options (`cli.mounting`).

The order of the end: no new requests, those under way are answered, unmounted, the log follower
stops, the index and the store are closed. A transaction that has begun is carried to its end.
"""

import contextlib
import gc
import logging
import os
import resource
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from importlib import metadata

import msgspec
import trio
from msgspec.structs import replace

import mregfs
from mregfs.api import Store, open_store
from mregfs.api.store import STAGING
from mregfs.drafts import DraftDirectory
from mregfs.errors import ForbiddenError, InvalidError, MregfsError
from mregfs.fuse import mountpoint as mountpoints
from mregfs.fuse.notices import Notices
from mregfs.fuse.passthrough import passthrough_state
from mregfs.fuse.serve import serve
from mregfs.fuse.waits import is_dying
from mregfs.host import mount_table
from mregfs.host.callers import (
    Credentials,
    give_up_privileges,
    groups_of_process,
    why_not_for_others,
)
from mregfs.host.principals import group_number, principal, user_of
from mregfs.model.commands import Principal
from mregfs.model.names import ProjectName, parse_project
from mregfs.model.rules.access import may_read
from mregfs.ports.intake import Intake
from mregfs.registry.keep.aliased import Aliased
from mregfs.registry.log.tail import LogTail
from mregfs.registry.read.answers import Answers
from mregfs.registry.read.content import Verification
from mregfs.vfs.coalescing import Coalescing
from mregfs.vfs.events import EventReaders
from mregfs.vfs.filesystem import RegistryFileSystem
from mregfs.vfs.follower import Follower
from mregfs.vfs.gestures import Gestures
from mregfs.vfs.interface import Caller, DraftTree, KernelNotices
from mregfs.vfs.modes import Modes
from mregfs.vfs.parts import Parts
from mregfs.vfs.query import Questions
from mregfs.vfs.transactions import Transactions
from mregfs.vfs.tree import Tree
from mregfs.vfs.xattrs import Attributes as ExtendedAttributes

__all__ = ["MountOptions", "Mounted", "run_mount"]

log = logging.getLogger(__name__)

LOAD_AHEAD_AFTER = 1.0
"""Seconds after which what the first commit needs is imported. Whoever waited for the mount looks
names up meanwhile, which imports would slow down."""

HOUSEKEEPING_INTERVAL = 60
"""Seconds between two looks whether a checkpoint is due, or a pack was deleted that is open here; a
checkpoint of 100 000 versions takes half a second of a thread."""


WAITER_INTERVAL_MS = 200
"""Between two looks whether the mount has been told to be ready."""


class MountOptions(msgspec.Struct, frozen=True):
    """What `mregfs mount` was asked for."""

    store: str
    mountpoint: str
    project: str
    allow_other: bool = False
    read_only: bool = False
    private_drafts: bool | None = None
    """Whether a draft can be read by its user alone; None: as the store says (`mregfs access`)."""
    passthrough: bool = True
    verify: Verification = "first-read"
    coalesce: str = "pinned"
    """`off`, `pinned` or `aliased`: which files are read from a copy in one piece."""
    cache_size: int | None = None
    """Bytes of all such copies; None: as at the last mount, or the default."""
    ready_fd: int | None = None
    """Descriptor that gets `ready` and a newline once the mount answers, and is closed then."""
    log_level: str = "INFO"
    """As `logging` names them."""


def run_mount(options: MountOptions) -> None:
    """Serve a mount until it is unmounted or the process gets SIGTERM or SIGINT.

    Raises:
        MregfsError: it could not be mounted, or the session broke off.
    """
    _log_to_stderr(options.log_level)
    _raise_descriptor_limit()
    _prepare_for_others(options)
    waiter = _Waiter(options.ready_fd)
    project = parse_project(options.project)
    if "\n" in options.mountpoint:
        raise InvalidError("a mount point's name cannot hold a newline", "give another directory")
    store = open_store(
        options.store,
        read_only=options.read_only,
        verification=options.verify,
        coalesced=options.coalesce != "off",
    )
    try:
        store.log.catch_up()
        if store.read_only and not options.read_only:
            is_own = os.fstat(store.directory.fd).st_uid == os.geteuid()
            log.log(
                logging.WARNING if is_own else logging.INFO,
                "%s cannot be written by this user: mounting it read-only",
                options.store,
            )
            options = replace(options, read_only=True)
        if not store.read_only:
            store.recover()
            _limit_cache(store, options.cache_size)
            store.protect_all()
            store.expect_appends()
        trio.run(_serve, store, project, options, waiter, strict_exception_groups=True)
    except BaseExceptionGroup as group:  # not except*, which before Python 3.11.4 raises groups
        raise _only(group) from None
    finally:
        store.close()


def _prepare_for_others(options: MountOptions) -> None:
    """Refuse to let users in whose requests could only be done with our own rights.

    Then give up what must not be lent to those who are let in.
    """
    why_not = why_not_for_others()
    if options.allow_other and not options.read_only and why_not:
        raise ForbiddenError(
            f"other users would write as the user who mounts: {why_not}",
            "mount as root, or with --read-only, or without --allow-other",
        )
    give_up_privileges()


def _limit_cache(store: Store, size: int | None) -> None:
    """Hold the cache of copies to a size; to the one it has, if it can be: reads need no cache."""
    try:
        store.whole_files.set_limit(size)
    except MregfsError as exc:
        if size is not None:
            raise
        log.warning("the cache of copies in one piece is left as it is: %s", exc)


def _only(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error of a group of errors of ours, the first one: nurseries wrap what they let
    through; and any other group as it is.
    """
    if group.split(MregfsError)[1] is not None:
        return group
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first


async def _serve(
    store: Store, project: ProjectName, options: MountOptions, waiter: "_Waiter"
) -> None:
    notices = Notices()
    mount = Mounted(store, project, options, notices)
    mount.hide_store()
    stop = trio.Event()
    # What lives as long as the mount is never garbage: looking through it took 20 ms each time, in
    # which nobody was answered.
    gc.collect()
    gc.freeze()
    async with trio.open_nursery() as nursery:

        def on_ready() -> None:
            mount.coalescing.wake()
            log.info("%s is mounted on %s", options.store, options.mountpoint)
            waiter.tell()
            _tell_systemd("READY=1")
            nursery.start_soon(_load_ahead, store)

        await nursery.start(_watch_signals, stop)
        nursery.start_soon(mount.file_system.follow)
        nursery.start_soon(mount.coalescing.run)
        nursery.start_soon(_keep_house, store)
        try:
            await trio.lowlevel.checkpoint()
            if stop.is_set():
                nursery.cancel_scope.cancel()
                return
            await serve(
                mount.file_system,
                options.mountpoint,
                source=store.address,
                read_only=options.read_only,
                allow_other=options.allow_other,
                passthrough=options.passthrough,
                notices=notices,
                on_ready=on_ready,
                stop=stop,
            )
        finally:
            mount.coalescing.end()
        _tell_systemd("STOPPING=1")
        nursery.cancel_scope.cancel()


async def _load_ahead(store: Store) -> None:
    """Make the store ready for commits, when those who waited for the mount have what they want."""
    await trio.sleep(LOAD_AHEAD_AFTER)
    await trio.to_thread.run_sync(store.load_ahead)


async def _keep_house(store: Store) -> None:
    """Do what is due once a minute, in a thread."""
    while True:
        await trio.sleep(HOUSEKEEPING_INTERVAL)
        await trio.to_thread.run_sync(_keep_house_once, store)


def _keep_house_once(store: Store) -> None:
    """Let deleted packs go; store a checkpoint, so that an index is never rebuilt from entry 1."""
    store.packs.release_deleted()
    if store.read_only:
        return
    store.objects.reserve.fill()
    try:
        if store.log.checkpoint_due():
            store.log.checkpoint()
    except MregfsError as exc:
        log.warning("no checkpoint was written: %s", exc)


async def _watch_signals(
    stop: trio.Event, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            log.info("%s: unmounting", signal.Signals(number).name)
            stop.set()


class Mounted:
    """The parts of one mount put together, and what its status says of them.

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
        where = os.stat(store.path)
        self._modes = Modes(store.index, where.st_uid, where.st_gid, group_number)
        tree = Tree(project, store.content, self._modes)
        self._verifier = (
            store.verify_in_background(lambda: passthrough_state().available)
            if options.verify == "first-read"
            else None
        )
        self.tail = LogTail(store.log, store.index, time.monotonic_ns)
        aliased = Aliased(store.index, self.tail.entries, store.coalescer)
        self.coalescing = Coalescing(aliased.follow, self._may_coalesce)
        self.drafts: DraftTree = DraftDirectory(store.directory, STAGING, shown=self._shown)
        transactions = Transactions(
            store.log,
            self.tail,
            store.committer,
            self.drafts,
            self._open_draft_intake,
            store.recover,
            _with_groups,
            user_of,
            self._identify,
            is_dying,
            read_only=options.read_only,
        )
        self.file_system = RegistryFileSystem(
            Parts(
                project=project,
                index=store.index,
                tree=tree,
                content=store.content,
                drafts=self.drafts,
                transactions=transactions,
                gestures=Gestures(tree, store.index, project, self._mountpoints),
                xattrs=ExtendedAttributes(store.content, store.unique_size, self._read_path),
                notices=notices,
                with_groups=_with_groups,
                clock=store.clock,
                tail=self.tail,
                make_follower=lambda wake: Follower(
                    self.tail,
                    store.index,
                    tree,
                    notices,
                    self._waking(wake),
                    lambda: self._share_staging(notices),
                ),
                make_events=lambda: EventReaders(self.tail, self._may_read),
                status=self.status,
                questions=Questions(self._answers(), tree.queries, self._may_read),
                read_only=options.read_only,
            )
        )

    def _open_draft_intake(self, project: str, draft: str, inode: int, caller: Caller) -> Intake:
        """Return a draft on its way to become a version, for a caller who could do so himself."""
        who = Credentials(caller.uid, caller.gid, caller.groups or ())
        return self._store.open_draft_intake(project, draft, inode, who)

    def _identify(self, caller: Caller) -> Principal:
        """Return who a caller is for the rules and for history."""
        return principal(caller.uid, {caller.gid, *(caller.groups or ())}, self._modes.uid)

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
            log.error("others than its readers may look into the store's directory: %s", exc)

    def _share_staging(self, notices: KernelNotices) -> None:
        """Let those make drafts who may now."""
        self.hide_store()
        try:
            for inode in self.drafts.share():
                notices.forget_attributes(inode)
        except MregfsError as exc:
            log.error("the staging area is not open to whom it should be: %s", exc)

    def _may_read(self, caller: Caller, project: str) -> bool:
        """Tell whether a caller may read a project."""
        return may_read(self._modes.access(project), self._identify(caller))

    def _waking(self, wake: Callable[[], None]) -> Callable[[], None]:
        def wake_all() -> None:
            wake()
            self.coalescing.wake()

        return wake_all

    def _may_coalesce(self) -> bool:
        """Tell whether copies in one piece are to be made unasked, and would be used."""
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
        if content not in ("whole", "coalesced"):
            return f"cached: stored as {content}"
        state = passthrough_state()
        if not state.available:
            return f"cached: {state.reason}"
        return "passthrough: coalesced" if content == "coalesced" else "passthrough"

    def _mountpoints(self, caller: Caller) -> Sequence[str]:
        """Return the paths by which a caller's name space shows this mount, longest first."""
        return sorted(_places_of(caller.pid, self._options.mountpoint), key=len, reverse=True)

    def _answers(self) -> Answers:
        store = self._store
        return Answers(
            self._project, store.index, store.log, store.content, store.facts, time.monotonic_ns
        )

    def status(self) -> bytes:
        """Return the JSON of `.mregfs/status`."""
        store = self._store
        head = store.index.applied()
        passthrough = passthrough_state()
        access = self._modes.access(str(self._project))
        status = {
            "store": store.address,
            "store_id": store.id,
            "project": str(self._project),
            "mountpoint": self._options.mountpoint,
            "read_only": self._options.read_only,
            "readers": access.readers,
            "writers": access.writers,
            "trouble": store.log.trouble and str(store.log.trouble),
            "sequence": head,
            "lag": max(0, head - self.tail.taken),
            "checked_seconds_ago": round(self.tail.checked_ago(), 3),
            "pid": os.getpid(),
            "passthrough": {
                "available": passthrough.available,
                "reason": passthrough.reason,
                "handles": passthrough.handles,
                "refused": self.file_system.refused | passthrough.refused,
            },
            "verify": self._options.verify,
            "verified": self._verifier and self._verifier.figures(),
            "fs_verity": store.verity.why_not or "on",
            "coalesce": self._options.coalesce,
            "cache": store.whole_files.figures(),
            "drafts": dict(self.drafts.drafts(str(self._project))),
            "versions": _versions(),
        }
        return msgspec.json.format(msgspec.json.encode(status), indent=2) + b"\n"


def _versions() -> dict[str, str]:
    """Return the versions of everything that a bug report needs."""
    kernel = os.uname()
    found = {
        "mregfs": mregfs.__version__,
        "python": sys.version.split()[0],
        "kernel": f"{kernel.sysname} {kernel.release}",
        "store_format": "1",
    }
    for name in ("pyfuse3", "trio", "lmdb", "blake3", "msgspec"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _places_of(pid: int, mountpoint: str) -> set[str]:
    places = {mountpoint}
    own = mountpoints.find(path=mountpoint)
    if not own:
        return places
    with contextlib.suppress(OSError):  # the caller has ended, or is in a name space unknown to us
        places.update(
            entry.path
            for entry in mount_table.read(f"/proc/{pid or 'self'}/mountinfo")
            if entry.device == own[-1].device and entry.top == "/"
        )
    return places


def _with_groups(caller: Caller) -> Caller:
    """Return a caller with his groups; where they are not known he must wait for his answer."""
    if caller.groups is not None:
        return caller
    return msgspec.structs.replace(caller, groups=groups_of_process(caller.pid))


class _Waiter:
    """Whoever waits for the mount, at the other end of a pipe. When he is gone before it is ready,
    nobody wants it: the process gets SIGTERM.

    Args:
        descriptor: of the pipe; None: nobody waits.
    """

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        if descriptor is not None:
            threading.Thread(target=self._watch, name="mregfs-waiter", daemon=True).start()

    def tell(self) -> None:
        """Tell him that the mount is ready."""
        with self._lock:
            descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        with contextlib.suppress(OSError):  # he does not wait any more
            os.write(descriptor, b"ready\n")
        if descriptor > 2:  # a standard stream stays open, of which one is the log
            os.close(descriptor)

    def _watch(self) -> None:
        poller = select.poll()
        with self._lock:
            if self._descriptor is not None:
                poller.register(self._descriptor, 0)
        while True:
            gone = poller.poll(WAITER_INTERVAL_MS)
            with self._lock:
                if self._descriptor is None:
                    return
                if gone:
                    log.info("Nobody waits for the mount any more: it is given up")
                    os.kill(os.getpid(), signal.SIGTERM)
                    return


def _tell_systemd(state: str) -> None:
    """Send a state to systemd's notify socket (sd_notify(3)), when there is one."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.connect(address)
            sender.sendall(state.encode())
    except OSError as exc:
        log.warning("systemd was not told %s: %s", state, exc)


def _raise_descriptor_limit() -> None:
    """Open files of users are descriptors of the daemon: take as many as the host allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard
    if os.geteuid() == 0:
        with open("/proc/sys/fs/nr_open", encoding="ascii") as file:
            wanted = max(hard, min(int(file.read()), 1 << 20))
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
    except (OSError, ValueError) as exc:
        log.info("the limit of open files stays at %d: %s", soft, exc)


def _log_to_stderr(level: str) -> None:
    root = logging.getLogger("mregfs")
    if not root.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root.addHandler(handler)
        root.setLevel(level)
