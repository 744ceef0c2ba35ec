"""The verbs `mount` and `umount`: check, start the daemon, wait until it answers.

Decided here: the options of mount(8) that are taken, where the daemon's log goes, how the parent
learns that the mount is ready. Not decided here: when a directory can be mounted on
(`fuse.mountpoint`), what the daemon does (`mregfs.daemon`).
"""

import errno
import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

import click
import msgspec

from mregfs import errors
from mregfs.cli.output import print_json
from mregfs.cli.policies import NAMES, Policies
from mregfs.cli.progress import Report, progress
from mregfs.cli.session import Session, verb
from mregfs.cli.streams import COMPLAINT
from mregfs.config import default_store
from mregfs.errors import (
    InvalidError,
    MregfsError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
)
from mregfs.host.mounts import read_mounts, read_status
from mregfs.model.names import DEFAULT_PROJECT, parse_project
from mregfs.wiring.address import StoreAddress

__all__ = ["mount", "parse_options", "umount"]

READY_VARIABLE = "MREGFS_READY_FD"
LEVEL_VARIABLE = "MREGFS_LOG"
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

READY_TIMEOUT = 600.0
"""Seconds until a daemon that says nothing is given up; systemd's unit gives it as many. Replay of
a log of a million entries takes two minutes."""

_LONGEST_NAME = 200
"""Bytes of a log's name without digest and ending; a file's name may have 255."""

TICK = 0.1
"""Seconds between two signs of life while the daemon starts."""

END_TIMEOUT = 10.0
"""Seconds that `umount` waits for the daemon's end; the mount itself is gone before that."""

_IGNORED = frozenset(
    (
        *("async", "atime", "auto", "defaults", "dev", "diratime", "exec", "group", "lazytime"),
        *("loud", "mand", "netdev", "noatime", "noauto", "nodev", "nodiratime", "noexec"),
        *("nofail", "nolazytime", "nomand", "norelatime", "nosuid", "nouser", "owner", "relatime"),
        *("rw", "silent", "strictatime", "suid", "sync", "user", "users", "_netdev"),
    )
)
"""Options of mount(8) that are for mount(8) itself, or that our mounts always or never have."""


class GivenOptions(msgspec.Struct):
    """What `-o` and the options of `mregfs mount` ask for."""

    read_only: bool = False
    allow_other: bool = False
    passthrough: bool = True
    fast_path: bool = True
    private_drafts: bool | None = None
    project: str | None = None
    host_directory: str | None = None
    policies: Policies = msgspec.field(default_factory=Policies.of_environment)


def parse_options(texts: tuple[str, ...]) -> GivenOptions:
    """Parse the values of `-o`, as mount(8) and /etc/fstab give them.

    Raises:
        InvalidError: an option that nobody knows, or a value that is missing.
    """
    given = GivenOptions()
    for option in ",".join(texts).split(","):
        name, equals, value = option.strip().partition("=")
        if name == "ro":
            given.read_only = True
        elif name == "allow_other":
            given.allow_other = True
        elif name == "nopassthrough":
            given.passthrough = False
        elif name == "nofastpath":
            given.fast_path = False
        elif name in ("private-drafts", "noprivate-drafts"):
            given.private_drafts = name == "private-drafts"
        elif name == "project" and equals:
            given.project = value
        elif name == "host_directory" and value:
            given.host_directory = os.path.abspath(value)
        elif name in NAMES and equals:
            given.policies.set(name, value)
        elif name and name not in _IGNORED and not name.startswith(("x-", "X-", "comment")):
            raise InvalidError(
                f"unknown mount option {option!r}",
                "mregfs knows ro, allow_other, nopassthrough, nofastpath, private-drafts, "
                "noprivate-drafts, project=ENTITY/PROJECT, host_directory=DIR, "
                "verify=first-read|commit|always, coalesce=off|pinned|aliased, cache_size=BYTES",
            )
    return given


@click.command()
@click.argument("paths", metavar="[STORE] MOUNTPOINT", nargs=-1, required=True)
@click.option("--foreground", "-f", is_flag=True, help="Stay, and serve the mount.")
@click.option("--allow-other", is_flag=True, help="Let other users in.")
@click.option("--read-only", "-r", is_flag=True, help="Allow no change through this mount.")
@click.option(
    "--options", "-o", multiple=True, metavar="OPTS", help="As in mount(8), separated by commas."
)
@click.option("--log-file", metavar="FILE", help="Where a daemon in the background writes.")
@verb
def mount(
    session: Session,
    paths: tuple[str, ...],
    *,
    foreground: bool,
    allow_other: bool,
    read_only: bool,
    options: tuple[str, ...],
    log_file: str | None,
) -> None:
    """Mount a store.

    STORE is a directory made by `mregfs init`; without it the store is chosen as for every verb.
    A dead mount that a killed daemon left on MOUNTPOINT is taken away first. Returns when the mount
    answers; the daemon goes on in the background.
    """
    from mregfs.fuse import mountpoint as mountpoints

    if len(paths) > 2:
        raise click.UsageError("mount takes a store and a mount point")
    if find_spec("pyfuse3") is None:
        raise UnsupportedError(
            "this installation only reads through mounts",
            "install the rest with: pip install 'mregfs[mount]'",
        )
    given = parse_options(options)
    store = _store(session, paths[0] if len(paths) == 2 else None)
    place = os.path.abspath(paths[-1])
    project = str(
        parse_project(
            session.named_project
            or given.project
            or os.environ.get("MREGFS_PROJECT")
            or str(DEFAULT_PROJECT)
        )
    )
    log_level = _log_level()
    ready_fd = _ready_descriptor() if foreground else None
    os.environ.pop(READY_VARIABLE, None)
    mountpoints.clean_dead(place)
    mountpoints.check_apart(store, place)
    mountpoints.check(place, allow_other=allow_other or given.allow_other)
    if foreground:
        from mregfs import daemon

        daemon.run_mount(
            daemon.MountOptions(
                store=store,
                mountpoint=place,
                project=project,
                allow_other=allow_other or given.allow_other,
                read_only=read_only or given.read_only,
                private_drafts=given.private_drafts,
                passthrough=given.passthrough and os.environ.get("MREGFS_PASSTHROUGH") != "0",
                fast_path=given.fast_path,
                verify=given.policies.verify,
                coalesce=given.policies.coalesce,
                cache_size=given.policies.cache_size,
                host_directory=given.host_directory,
                ready_fd=ready_fd,
                log_level=log_level,
            )
        )
        return
    arguments = ["--foreground", "--project", project]
    if allow_other or given.allow_other:
        arguments.append("--allow-other")
    if read_only or given.read_only:
        arguments.append("--read-only")
    if not given.passthrough:
        arguments += ["-o", "nopassthrough"]
    if not given.fast_path:
        arguments += ["-o", "nofastpath"]
    if given.private_drafts is not None:
        arguments += ["-o", "private-drafts" if given.private_drafts else "noprivate-drafts"]
    if given.host_directory is not None:
        arguments += ["-o", f"host_directory={given.host_directory}"]
    arguments += ["-o", given.policies.options()]
    log = Path(log_file).absolute() if log_file else _log_path(place)
    pid = _start([*arguments, "--", store, place], log)
    session.done = True
    if session.as_json:
        print_json(
            {
                "mountpoint": place,
                "store": store,
                "project": project,
                "pid": pid,
                "log_file": str(log),
            }
        )
    else:
        click.echo(f"mounted {store} on {place}")


def _store(session: Session, named: str | None) -> str:
    if named and session.named_store:
        raise click.UsageError("name the store once: as STORE or with --store")
    said = named or session.named_store or os.environ.get("MREGFS_STORE")
    address = StoreAddress.parse(said or default_store()).resolved()
    store = address.directory
    if not os.path.exists(os.path.join(store, "store.json")):
        raise InvalidError(f"{store} is not a store", f"make one with: mregfs init {store}")
    return store


def _log_level() -> str:
    """Return the level that `MREGFS_LOG` names.

    Raises:
        InvalidError: there is none of that name.
    """
    said = os.environ.get(LEVEL_VARIABLE) or "INFO"
    if said.upper() not in (*_LEVELS, "WARN", "FATAL"):
        raise InvalidError(
            f"{LEVEL_VARIABLE}={said!r} is not a level", f"write one of {', '.join(_LEVELS)}"
        )
    return said.upper()


def _ready_descriptor() -> int | None:
    """Return the descriptor that `MREGFS_READY_FD` names; None when it is not set.

    Raises:
        InvalidError: it names none that this process may write.
    """
    said = os.environ.get(READY_VARIABLE)
    if not said:
        return None
    try:
        mode = fcntl.fcntl(int(said), fcntl.F_GETFL) & os.O_ACCMODE
    except (OSError, OverflowError, ValueError):
        mode = os.O_RDONLY
    if mode == os.O_RDONLY:
        raise InvalidError(
            f"{READY_VARIABLE}={said!r} is not a descriptor that is open for writing",
            "name one that this process has inherited, or leave it out",
        )
    return int(said)


def _log_path(place: str) -> Path:
    """Return where the daemon of a mount logs: /models/a becomes models-a.log.

    A path that another one would come to the same name with, or whose name would be too long, has
    its digest at the end.
    """
    name = place.strip("/").replace("/", "-") or "root"
    if "-" in place or len(os.fsencode(name)) > _LONGEST_NAME:
        from hashlib import sha256

        start = os.fsencode(name)[:_LONGEST_NAME].decode(errors="ignore")
        name = f"{start}.{sha256(os.fsencode(place)).hexdigest()[:12]}"
    if os.geteuid() == 0:
        return Path("/var/log/mregfs") / f"{name}.log"
    import platformdirs

    return Path(platformdirs.user_state_dir("mregfs", appauthor=False)) / f"{name}.log"


def _open_log(log: Path) -> BinaryIO:
    """Open the daemon's log at its end.

    Raises:
        HostError: the host does not let us.
    """
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return log.open("ab")
    except OSError as exc:
        raise errors.HostError(
            exc.errno or errno.EIO,
            f"the daemon's log {str(log)!r} cannot be written ({exc.strerror})",
            "name another file with --log-file",
        ) from exc


def _start(arguments: list[str], log: Path) -> int:
    """Start the daemon, wait until its mount answers, and return its process id.

    Raises:
        MregfsError: it ended before that; the error is the one it gave.
    """
    output = _open_log(log)
    reading, writing = os.pipe()
    try:
        with output:
            start = os.fstat(output.fileno()).st_size
            # -P: what lies in the working directory is nothing that a daemon should import.
            daemon = subprocess.Popen(
                [sys.executable, "-P", "-m", "mregfs", "mount", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[writing],
                start_new_session=True,
                env=os.environ | {READY_VARIABLE: str(writing)},
            )
    finally:
        os.close(writing)
    try:
        with progress() as report:
            line = _first_line(reading, report)
        if line == "ready":
            return daemon.pid
        code = daemon.wait(READY_TIMEOUT)
    except BaseException:
        daemon.send_signal(signal.SIGTERM)
        raise
    finally:
        os.close(reading)
    raise _error_of(code, line or _complaint(log, start) or f"see {log}")


def _first_line(descriptor: int, report: Report | None) -> str:
    text = b""
    deadline = time.monotonic() + READY_TIMEOUT
    while b"\n" not in text:
        ready, _, _ = select.select([descriptor], [], [], TICK)
        if not ready:
            if report is not None:
                report("mounting", 0, 0)
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"the daemon was not ready after {READY_TIMEOUT:.0f} s",
                    "see its log, or run it with --foreground",
                )
            continue
        piece = os.read(descriptor, 4096)
        if not piece:
            break
        text += piece
    return text.decode(errors="replace").partition("\n")[0]


def _complaint(log: Path, start: int) -> str:
    """Return the error line that `main` wrote at the end of a daemon, or an empty string."""
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read(1 << 20).decode(errors="replace").splitlines()
    said = [line for line in lines if line.startswith(COMPLAINT)]
    return said[-1].removeprefix(COMPLAINT) if said else ""


def _error_of(code: int, message: str) -> MregfsError:
    """Return the error that a daemon ended with: its exit code names the class."""
    for name in errors.__all__:
        kind = getattr(errors, name)
        if kind.exit_code == code and kind not in (MregfsError, errors.HostError):
            found: MregfsError = kind(message)
            return found
    return errors.HostError(errno.EIO, message)


@click.command()
@click.argument("mountpoint", required=False, metavar="[MOUNTPOINT]")
@click.option(
    "--lazy",
    "-l",
    is_flag=True,
    help="Take the mount away now, though files are open: the daemon ends with the last of them.",
)
@verb
def umount(session: Session, mountpoint: str | None, *, lazy: bool) -> None:
    """Unmount a store.

    Without MOUNTPOINT: the mount chosen as for every verb. Returns when the daemon has ended.
    """
    from mregfs.fuse import mountpoint as mountpoints

    if mountpoint is None:
        if not session.place.mounts:
            raise NotFoundError(
                f"the store {session.place.store!r} is not mounted", "see: findmnt -t fuse.mregfs"
            )
        mountpoint = session.place.mounts[0].point
    place = os.path.abspath(mountpoint)
    if not mountpoints.find(path=place):
        place = os.path.realpath(place)
    if not mountpoints.find(path=place):
        raise NotFoundError(f"no store is mounted on {mountpoint!r}", "see: findmnt -t fuse.mregfs")
    state = mountpoints.health(place)
    if state is mountpoints.Health.HUNG and not lazy:
        raise UnavailableError(
            f"the mount {mountpoint!r} does not answer", f"run: mregfs umount --lazy {place}"
        )
    if state is not mountpoints.Health.DEAD or not mountpoints.clean_dead(place):
        daemon = None if lazy else _daemon_of(place)
        mountpoints.unmount(place, lazy=lazy, force=state is mountpoints.Health.HUNG)
        if daemon is not None:
            _wait_for_end(daemon)
    session.done = True
    if session.as_json:
        print_json({"mountpoint": place})


def _daemon_of(place: str) -> int | None:
    """Return the process id of the daemon that serves a mount, if it says so."""
    for mount in read_mounts():
        if mount.point == place and mount.is_whole:
            try:
                pid = read_status(mount).get("pid")
            except UnavailableError:
                return None
            return pid if isinstance(pid, int) else None
    return None


def _wait_for_end(pid: int) -> None:
    """Wait until a process that has nothing more to do is gone, for as long as its grace is."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:  # gone already, or in another name space
        return
    try:
        select.select([descriptor], [], [], END_TIMEOUT)
    finally:
        os.close(descriptor)
