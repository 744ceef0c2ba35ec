"""Where the same tree of files can be read: on the disk itself, and through mounts.

Decided here: what a study may ask of a place, and the first of them, the native directory. The
peers are in `peers`, mregfs is in `registry`. A place is mounted anew for each measurement, so that
`first` really is the first read through it.
"""

import abc
import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from tests.bench.figures import NATIVE

__all__ = ["CHECKPOINT", "PT", "SMALL", "Native", "Place", "UnavailableError", "run", "wait_for"]

CHECKPOINT = "model.safetensors"
PT = "optimizer.pt"
SMALL = "evaluation"
"""The files of the tree: a checkpoint, a `.pt` file, and a directory of 2000 small ones."""

PATIENCE = 60.0
"""Seconds for a mount to come up; the slowest (borg) takes two."""


class UnavailableError(Exception):
    """A place cannot be had on this machine; the message says why."""


class Place(abc.ABC):
    """A tree of files, read through something."""

    name: str
    """As the report calls it."""

    @abc.abstractmethod
    def prepare(self, tree: Path) -> None:
        """Pack, publish or archive the tree, once.

        Raises:
            UnavailableError: what this takes is not installed, or does not work here.
        """

    @abc.abstractmethod
    def mounted(self) -> AbstractContextManager[Path]:
        """Mount it anew, give the directory in which the tree is, and unmount."""

    @abc.abstractmethod
    def backing(self) -> list[Path]:
        """Return the files on the disk that hold the bytes of the large files."""

    def twin(self) -> Path | None:
        """Return the file on the disk that is the checkpoint, if the bytes stand in one as it is.

        The other files hold them elsewhere on the disk, or not in one piece.
        """
        return None

    def details(self) -> str:
        """Say what a reader of the report should know of how this place was set up."""
        return ""


class Native(Place):
    """The directory on the disk, with nothing in between."""

    name = NATIVE

    def __init__(self, tree: Path) -> None:
        self._tree = tree

    def prepare(self, tree: Path) -> None:
        """It is there already."""

    @contextlib.contextmanager
    def mounted(self) -> Iterator[Path]:
        yield self._tree

    def backing(self) -> list[Path]:
        return [self._tree / CHECKPOINT, self._tree / PT]

    def details(self) -> str:
        return f"{file_system(self._tree)}, no mount in between"


def file_system(path: Path) -> str:
    """Return the kind of file system that holds `path`."""
    done = subprocess.run(
        ["stat", "--file-system", "--format=%T", path], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def run(*command: str | Path, env: dict[str, str] | None = None) -> str:
    """Run a program and return what it printed.

    Raises:
        UnavailableError: there is no such program, or it failed; its own words are in the message.
    """
    program = find_program(str(command[0]))
    done = subprocess.run(
        [program, *command[1:]],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(env or {})},
    )
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        raise UnavailableError(f"{command[0]} exited {done.returncode}: {words[-1]}")
    return done.stdout


def find_program(name: str) -> str:
    """Return the path of a program: next to this Python, else in PATH.

    Raises:
        UnavailableError: there is none.
    """
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if not found:
        raise UnavailableError(f"{name} is not installed")
    return found


def wait_for(condition: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    """Poll until the condition holds.

    Raises:
        UnavailableError: it did not in time.
    """
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise UnavailableError(f"waited {patience:.0f} s in vain: {what}")
        time.sleep(0.002)


def unmount(mountpoint: Path) -> None:
    """Unmount, lazily when something still holds it; nothing happens when it is not mounted."""
    for flags in ((), (), ("--lazy",)):
        if not os.path.ismount(mountpoint):
            return
        subprocess.run(["umount", *flags, mountpoint], capture_output=True, check=False)
        if os.path.ismount(mountpoint):
            time.sleep(0.2)
