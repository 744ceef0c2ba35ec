"""Ordinary users: each a process that has dropped everything else, and does what it is asked to.

Decided here: how a user is made and asked, how long he may take, and that he has all of mregfs in
his process from the start. Not decided here: what he does (any function of a module that the tests
import: it is called in his process, by its name).
"""

import contextlib
import ctypes
import errno
import functools
import importlib
import os
import pickle
import pkgutil
import select
import signal
import struct
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import mregfs
from mregfs.model.chunking import load_cutter

__all__ = ["HungError", "Person", "RefusedError", "answer_of", "import_all", "whereabouts"]

PATIENCE = 20.0
"""Seconds for one job. A system call through a mount takes a millisecond, a commit some dozens."""

PR_SET_PDEATHSIG = 1


class HungError(AssertionError):
    """A job that did not end in time."""


class RefusedError(OSError):
    """What the kernel answered to the system call of a job."""


class Person:
    """A user of the host: no capabilities, no other groups, a process of his own.

    Args:
        name: how failures call him.
        uid: his, and his own group's, number.
        groups: his other groups.
    """

    def __init__(self, name: str, uid: int, groups: Sequence[int] = ()) -> None:
        self.name = name
        self.uid = uid
        self.groups = tuple(groups)
        import_all()
        ours, his = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(ours[0])
            os.close(his[1])
            _live(uid, self.groups, his[0], ours[1])
        os.close(ours[1])
        os.close(his[0])
        self._answers, self._jobs = ours[0], his[1]

    def begin(self, job: Callable[..., Any], *args: Any) -> None:
        """Have him start; `finish` gives what came of it."""
        _send(self._jobs, (job, args))

    def finish(self, patience: float = PATIENCE) -> Any:
        """Return what his job returned.

        Raises:
            RefusedError: a system call failed.
            HungError: it did not end.
        """
        ready, _, _ = select.select([self._answers], [], [], patience)
        if not ready:
            where = whereabouts(self.pid)
            self.end()
            raise HungError(f"{self.name} waited {patience} s in vain: {where}")
        kind, value = _receive(self._answers)
        if kind == "errno":
            raise RefusedError(value, f"{self.name}: {os.strerror(value)}")
        assert kind == "value", f"{self.name}: {value}"
        return value

    def do(self, job: Callable[..., Any], *args: Any) -> Any:
        """Have him do something, and return what it returned."""
        self.begin(job, *args)
        return self.finish()

    def end(self) -> None:
        """End his process."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            os.close(self._answers)
            os.close(self._jobs)
            self.pid = 0


def answer_of(person: Person, job: Callable[..., Any], *args: Any) -> str:
    """Return "ok", or the name of the errno that the kernel answered."""
    try:
        person.do(job, *args)
    except RefusedError as refused:
        return errno.errorcode[refused.errno or 0]
    return "ok"


@functools.cache
def import_all() -> None:
    """Import what a job may come to need, now or later.

    He cannot: Python and mregfs may stand below somebody's home directory, which only that user
    and root can search.
    """
    for found in pkgutil.walk_packages(mregfs.__path__, "mregfs."):
        if not found.name.startswith(("mregfs.__main__", "mregfs.cli.demo")):
            importlib.import_module(found.name)
    importlib.import_module("lmdb._envid")  # which lmdb looks for when it is first used
    load_cutter()


def _live(uid: int, groups: tuple[int, ...], jobs: int, answers: int) -> None:
    try:
        signal.alarm(0)
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setgroups(list(groups))
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        os.umask(0o022)
        os.environ.update(HOME="/nonexistent", USER=str(uid), LOGNAME=str(uid))
        while True:
            job, args = _receive(jobs)
            try:
                answer = ("value", job(*args))
            except OSError as refused:
                answer = ("errno", refused.errno)
            except BaseException:  # noqa: BLE001 - the other process is to know
                answer = ("failed", traceback.format_exc())
            _send(answers, answer)
    finally:
        os._exit(0)


def _send(pipe: int, what: Any) -> None:
    data = pickle.dumps(what)
    rest = memoryview(struct.pack("=I", len(data)) + data)
    while rest:
        rest = rest[os.write(pipe, rest) :]


def _receive(pipe: int) -> Any:
    (size,) = struct.unpack("=I", _read(pipe, 4))
    return pickle.loads(_read(pipe, size))


def _read(pipe: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = os.read(pipe, size - len(data))
        if not piece:
            os._exit(0) if os.getppid() == 1 else None
            raise EOFError("the other end is gone")
        data += piece
    return data


def whereabouts(pid: int) -> str:
    """Return where the kernel has each thread of a process, as far as it tells."""
    said = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/stack") as file:
            said.append(file.read().replace("\n", " "))
    return " / ".join(said)
