"""The life of one mount: serve, say when ready, end in order.

Decided here: what is done before the first request and beside the requests, signals, the order of
the end. Not decided here: which parts a mount is made of (`mounted`), requests (`fuse`, `vfs`),
options (`cli.mounting`).

The order of the end: no new requests, those under way are answered, unmounted, the log follower
stops, the index and the store are closed. A transaction that has begun is carried to its end.
"""

import gc
import logging
import signal

import trio
from msgspec.structs import replace

from mregfs.daemon.mounted import Mounted
from mregfs.daemon.options import MountOptions
from mregfs.daemon.process import log_to_stderr, raise_descriptor_limit, tell_systemd
from mregfs.daemon.waiter import Waiter
from mregfs.errors import ForbiddenError, InvalidError, MregfsError
from mregfs.fuse.notices import Notices
from mregfs.fuse.serve import serve
from mregfs.host.callers import give_up_privileges, why_not_for_others
from mregfs.model.names import ProjectName, parse_project
from mregfs.wiring.opening import open_store
from mregfs.wiring.store import Store

__all__ = ["run_mount"]

log = logging.getLogger(__name__)

LOAD_AHEAD_AFTER = 1.0
"""Seconds after which what the first commit needs is imported. Whoever waited for the mount looks
names up meanwhile, which imports would slow down."""

HOUSEKEEPING_INTERVAL = 60
"""Seconds between two looks whether a checkpoint is due, or a pack was deleted that is open here; a
checkpoint of 100 000 versions takes half a second of a thread."""


def run_mount(options: MountOptions) -> None:
    """Serve a mount until it is unmounted or the process gets SIGTERM or SIGINT.

    Raises:
        MregfsError: it could not be mounted, or the session broke off.
    """
    log_to_stderr(options.log_level)
    raise_descriptor_limit()
    _prepare_for_others(options)
    waiter = Waiter(options.ready_fd)
    project = parse_project(options.project)
    if "\n" in options.mountpoint:
        raise InvalidError("a mount point's name cannot hold a newline", "give another directory")
    store = open_store(
        options.store,
        read_only=options.read_only,
        verification=options.verify,
        coalesced=options.coalesce != "off",
        host_directory=options.host_directory,
    )
    try:
        store.log.catch_up()
        if store.read_only and not options.read_only:
            log.log(
                logging.WARNING if store.is_own else logging.INFO,
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
        log.warning("the cache of whole-file copies is left as it is: %s", exc)


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


async def _serve(store: Store, project: ProjectName, options: MountOptions, waiter: Waiter) -> None:
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
            tell_systemd("READY=1")
            nursery.start_soon(_load_ahead, store)

        await nursery.start(_watch_signals, stop)
        nursery.start_soon(mount.runner.follow)
        nursery.start_soon(mount.coalescing.run)
        nursery.start_soon(_housekeeping, store)
        try:
            await trio.lowlevel.checkpoint()
            if stop.is_set():
                nursery.cancel_scope.cancel()
                return
            await serve(
                mount.file_system,
                options.mountpoint,
                source=str(store.address),
                read_only=options.read_only,
                allow_other=options.allow_other,
                passthrough=options.passthrough,
                fast_path=options.fast_path,
                notices=notices,
                on_ready=on_ready,
                stop=stop,
            )
        finally:
            mount.coalescing.end()
        tell_systemd("STOPPING=1")
        nursery.cancel_scope.cancel()


async def _load_ahead(store: Store) -> None:
    """Make the store ready for commits, when those who waited for the mount have what they want."""
    await trio.sleep(LOAD_AHEAD_AFTER)
    await trio.to_thread.run_sync(store.load_ahead)


async def _housekeeping(store: Store) -> None:
    """Do what is due once a minute, in a thread."""
    while True:
        await trio.sleep(HOUSEKEEPING_INTERVAL)
        await trio.to_thread.run_sync(store.do_housekeeping)


async def _watch_signals(
    stop: trio.Event, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            log.info("%s: unmounting", signal.Signals(number).name)
            stop.set()
