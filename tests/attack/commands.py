"""Verbs of `mregfs` run as somebody, each in a process of its own, with a limit of time.

Decided here: how a verb is run, and what is true of the output of every one, whatever it met. Not
decided here: which verbs. Nothing is started anew: the process is a fork that has imported already.
"""

import contextlib
import io
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import attrs

import mregfs.api
import mregfs.cli.main
from tests.attack.people import import_all, whereabouts

__all__ = ["Outcome", "begin_call", "begin_verb", "run_verb"]

PATIENCE = 10.0
"""Seconds for a verb; one that has to wait for somebody says so after 5 or 10."""

MEMORY = 2 << 30
"""Bytes that a verb may take: a file that never ends is refused long before."""

_PRELOADED = (mregfs.api, mregfs.cli.main)


@attrs.frozen
class Outcome:
    """What came of a verb."""

    code: int | None
    """None: it did not end."""
    output: str

    def problems(self) -> list[str]:
        """Return what no verb may do, whatever it meets."""
        if self.code is None:
            return [f"hung: {self.output[-500:]}"]
        lines = self.output.splitlines()
        wrong = [line for line in lines if "Traceback" in line or "bug in mregfs" in line]
        if self.code < 0 or self.code == 70:
            wrong.append(f"ended with {self.code}: {self.output[-500:]}")
        return wrong


@attrs.define
class Running:
    """A verb that was begun."""

    pid: int
    output: Path
    deadline: float

    def finish(self) -> Outcome:
        """Wait for its end."""
        code: int | None = None
        where = ""
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                break
            if time.monotonic() > self.deadline:
                where = whereabouts(self.pid)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                break
            time.sleep(0.002)
        text = self.output.read_text(errors="replace")
        self.output.unlink()
        return Outcome(code, text + where)

    def running(self) -> bool:
        """Tell whether it has not ended yet; `finish` is still to be called."""
        seen = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return seen is None and time.monotonic() < self.deadline


def begin_verb(
    words: Sequence[str | Path],
    *,
    uid: int = 0,
    groups: Sequence[int] = (),
    directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Running:
    """Start `mregfs WORDS` as a user, with an environment that says nothing of a store."""

    def verb() -> int:
        for variable in [name for name in os.environ if name.startswith("MREGFS_")]:
            del os.environ[variable]
        os.environ.update(environment or {})
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        if uid:
            os.setgroups(list(groups))
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        os.umask(0o022)
        os.chdir(directory or "/")
        return mregfs.cli.main.run([str(word) for word in words])

    if uid:
        import_all()
    return begin_call(verb)


def begin_call(function: Callable[[], int]) -> Running:
    """Start a function in a process of its own; what it returns is the exit code."""
    fd, name = tempfile.mkstemp(prefix="mregfs-verb-")
    pid = os.fork()
    if pid:
        os.close(fd)
        return Running(pid, Path(name), time.monotonic() + PATIENCE)
    code = 99
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(fd, 1)
        os.dup2(fd, 2)
        sys.stdin = os.fdopen(0, closefd=False)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", closefd=False)
        code = _run(function)
    finally:
        os._exit(code)


def _run(function: Callable[[], int]) -> int:
    try:
        code = function()
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else 1
    except BaseException:  # noqa: BLE001 - nothing may get into the fork's copy of the test
        traceback.print_exc()
        code = 98
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, io.UnsupportedOperation):
            stream.flush()
    return code


def run_verb(words: Sequence[str | Path], **how: object) -> Outcome:
    """Run `mregfs WORDS` as a user; see `begin_verb`."""
    return begin_verb(words, **how).finish()  # type: ignore[arg-type]
