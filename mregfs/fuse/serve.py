"""Serving: one mounted session, from mount(2) to the last answer.

Decided here: the mount's options, when it counts as ready, and in which order it ends. Not decided
here: what is served (`vfs/`) and which process serves it (the daemon, which alone calls `serve`).

The order of the end: readers of event files get the end of file; while requests are still answered,
threads end what they have begun and notices are sent; the session loop ends when what is under way
has been answered, or the grace is over and the rest gets ENODEV; the file system is unmounted. Only
a transaction that has begun is waited for beyond the grace. A daemon that is killed has no such
end; its guard then sees to it that nobody waits for ever (`guard`).
"""

import errno
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterable

import trio

from mregfs.errors import HostError, MregfsError, UnavailableError
from mregfs.fuse import guard
from mregfs.fuse import mountpoint as mountpoints
from mregfs.fuse.adapter import Adapter
from mregfs.fuse.notices import Notices
from mregfs.fuse.passthrough import pyfuse3
from mregfs.vfs.interface import FileSystem

__all__ = ["serve"]

log = logging.getLogger(__name__)

_MIN_TASKS = 4
_MAX_TASKS = 10_000
"""Each blocked reader holds a task, and nobody else may wait for it."""

_GRACE = 5.0
"""Seconds that requests under way have to end by themselves once `stop` is set."""


def _mount_options(
    source: str, options: Iterable[str], *, read_only: bool, allow_other: bool
) -> set[str]:
    name = mountpoints.source_name(source).replace("\\", "\\\\").replace(",", "\\,")
    chosen = {f"fsname={name}", "subtype=mregfs", "default_permissions", "nodev", "nosuid"}
    if read_only:
        chosen.add("ro")
    if allow_other:
        chosen.add("allow_other")
    return chosen | set(options)


def _mount(adapter: Adapter, mountpoint: str, options: set[str]) -> None:
    try:
        pyfuse3.init(adapter, mountpoint, options)
    except RuntimeError as exc:
        if "fuse_session_new" in str(exc):
            raise HostError(
                errno.EINVAL, f"libfuse refuses the mount options {sorted(options)}"
            ) from None
        pyfuse3.close(unmount=False)
        raise HostError(
            errno.EIO, f"{mountpoint} could not be mounted", "libfuse has written why to stderr"
        ) from None
    adapter.mounted()


async def serve(
    fs: FileSystem,
    mountpoint: str | os.PathLike[str],
    *,
    source: str,
    options: Iterable[str] = (),
    read_only: bool = False,
    allow_other: bool = False,
    passthrough: bool = True,
    fast_path: bool = True,
    notices: Notices,
    on_ready: Callable[[], object],
    stop: trio.Event,
    grace: float = _GRACE,
) -> None:
    """Mount `fs` and answer for it until `stop` is set or somebody unmounts it.

    Returns when the last request is answered and nothing is mounted any more; after a lazy unmount
    from outside that is when the last file there is closed. When cancelled it ends in the same
    order, without grace.

    Args:
        fs: what is served.
        mountpoint: an existing directory; see `mountpoint.check`.
        source: address of the store, as /proc/mounts and findmnt show it.
        options: further options for libfuse, as after `-o`.
        read_only: mount with `ro`.
        allow_other: let other users in.
        passthrough: let the kernel read and write backing files itself where it can.
        fast_path: answer requests before pyfuse3 sees them where that is possible.
        notices: started with the session, stopped before it ends.
        on_ready: called once the mount has answered.
        stop: set it to end.
        grace: seconds that requests under way have to end by themselves.

    Raises:
        HostError: the mount failed.
        UnavailableError: the session broke off.
    """
    place = mountpoints.resolve(mountpoint)
    adapter = Adapter(fs, passthrough=passthrough, fast_path=fast_path)
    _mount(
        adapter,
        place,
        _mount_options(source, options, read_only=read_only, allow_other=allow_other),
    )
    session = _Session(adapter, notices, place)
    try:
        notices.start()
        await session.run(on_ready, stop, grace)
    except ExceptionGroup as group:
        raise _single(group) from None
    finally:
        if not notices.stop(timeout=grace):
            log.error("A notice is stuck in the kernel: requests on %s are aborted", place)
            _abort(place)
        adapter.closed()
        pyfuse3.close(unmount=True)
        session.guard.end()
    if session.failure is not None:
        raise UnavailableError(
            f"the session on {place} broke off: {_single(session.failure)!r}", "mount it again"
        ) from session.failure


def _single(error: Exception) -> Exception:
    """Take a lone error out of the groups that nurseries have put around it."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _abort(place: str) -> None:
    try:
        mountpoints.unmount(place, lazy=True, force=True)
    except MregfsError as exc:
        log.error("%s", exc)


class _Guard:
    """The process that watches over this one: `guard` says for what."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, place: str) -> None:
        """Start it; from the thread with whose end the process ends."""
        here = mountpoints.find(path=place)
        if not here:
            return
        what = (str(os.getpid()), here[-1].device, place)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__, *what],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )
        except OSError as exc:
            log.warning("There is no guard of %s: %s", place, exc)

    def end(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class _Session:
    """The session loop and its end."""

    def __init__(self, adapter: Adapter, notices: Notices, place: str) -> None:
        self._adapter = adapter
        self._notices = notices
        self._place = place
        self.guard = _Guard()
        self._ended = trio.Event()
        self._scope = trio.CancelScope(shield=True)
        self.failure: ExceptionGroup[Exception] | None = None

    async def run(self, on_ready: Callable[[], object], stop: trio.Event, grace: float) -> None:
        async with trio.open_nursery() as nursery:
            self._adapter.watch_in(nursery)
            nursery.start_soon(self._answer_requests)
            try:
                await self._until_ended(self._announce, on_ready)
                await self._until_ended(stop.wait)
            except trio.Cancelled:
                grace = 0
                raise
            finally:
                with trio.CancelScope(shield=True):
                    await self._wind_down(grace)
                    await trio.to_thread.run_sync(self._adapter.finish)
                nursery.cancel_scope.cancel()

    async def _answer_requests(self) -> None:
        try:
            with self._scope:
                await pyfuse3.main(_MIN_TASKS, _MAX_TASKS)
        except ExceptionGroup as exc:
            log.exception("The session on %s broke off", self._place)
            self.failure = exc
        finally:
            self._ended.set()

    async def _until_ended(self, function: Callable[..., object], *args: object) -> None:
        """Wait for `function`, or until the session has ended, whichever is first."""
        async with trio.open_nursery() as race:

            async def run() -> None:
                await function(*args)  # type: ignore[misc]
                race.cancel_scope.cancel()

            race.start_soon(run)
            await self._ended.wait()
            race.cancel_scope.cancel()

    async def _announce(self, on_ready: Callable[[], object]) -> None:
        await trio.to_thread.run_sync(os.statvfs, self._place, abandon_on_cancel=True)
        reason = mountpoints.set_read_ahead(self._place)
        if reason:
            log.info("Reads go in small requests: %s", reason)
        on_ready()
        self.guard.start(self._place)  # not before: who waits for the mount comes first

    async def _wind_down(self, grace: float) -> None:
        if self._ended.is_set():
            return
        deadline = trio.current_time() + grace
        self._adapter.end()
        await trio.to_thread.run_sync(self._adapter.wait_for_threads, grace)
        await trio.to_thread.run_sync(self._notices.stop, grace)
        pyfuse3.terminate()
        with trio.CancelScope(deadline=deadline):
            await self._ended.wait()
        self._scope.cancel()
        await self._ended.wait()
