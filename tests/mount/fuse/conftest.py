"""Mounts of the loopback file system, each served by a process of its own.

Decided here: how a test of `mregfs.fuse` gets a mount without store, registry or vfs, and that none
outlives its test. Not decided here: what the loopback file system does (`loopback.py`).
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 20.0
PROGRAM = Path(__file__).with_name("loopback.py")
ROOM = Path(__file__).parents[3]
NOBODY = 65534

Figures = dict[str, Any]


class Loopback:
    """One mount: `path` shows the tree that lies below `host`."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.path = directory / "mnt"
        self.host = directory / "host"
        self.log = directory / "log"
        self.path.mkdir(parents=True)
        self.settings = settings
        if settings.get("uid"):
            os.chown(self.path, settings["uid"], settings["uid"])
            os.chown(directory, settings["uid"], settings["uid"])
        self.daemon: subprocess.Popen[bytes] | None = None

    def start(self) -> "Loopback":
        """Mount; return when the mount answers."""
        settings = {"host": str(self.host), "mountpoint": str(self.path), **self.settings}
        arguments = json.dumps(settings, separators=(",", ":"))
        with self.log.open("ab") as log:
            self.daemon = subprocess.Popen(
                [sys.executable, "-W", "error", str(PROGRAM), arguments],
                env={**os.environ, "PYTHONPATH": str(ROOM)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert self.daemon.stdout is not None
        said = self.daemon.stdout.readline()
        assert b"ready\n" == said, self.log.read_text()
        return self

    def stop(self) -> int:
        """End it as an init system does; return the exit code."""
        assert self.daemon is not None
        self.daemon.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Wait until it ends by itself; return the exit code."""
        assert self.daemon is not None
        try:
            return self.daemon.wait(PATIENCE)
        finally:
            if self.daemon.stdout is not None:
                self.daemon.stdout.close()

    def kill(self) -> None:
        """End it without a chance to clean up."""
        assert self.daemon is not None
        self.daemon.kill()
        self.wait()

    def state(self) -> Figures:
        """Return what the daemon says of itself."""
        found: Figures = json.loads((self.path / ".state").read_text())
        return found

    def requests(self, opcode: int) -> int:
        """Return how many requests of a kind the daemon has received."""
        return int(self.state()["passthrough"]["requests"].get(str(opcode), 0))

    def problems(self) -> list[str]:
        """Return what it logged that needs somebody's attention."""
        found = re.findall(r"^(?:WARNING|ERROR|Traceback).*", self.log.read_text(), re.MULTILINE)
        return [str(line) for line in found]

    def clear(self) -> None:
        """Leave nothing behind, whatever happened."""
        while str(self.path) in mounted():
            subprocess.run(["umount", "-l", str(self.path)], check=True)
        if self.daemon is not None and self.daemon.returncode is None:
            self.daemon.send_signal(signal.SIGCONT)
            try:
                self.daemon.wait(1)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
            self.wait()


def mounted() -> list[str]:
    """Return every mount point of this namespace."""
    table = Path("/proc/self/mountinfo").read_text()
    return [line.split()[4] for line in table.splitlines()]


MakeLoopback = Callable[..., Loopback]


@pytest.fixture
def loopbacks(tmp_path: Path) -> Iterator[MakeLoopback]:
    """Make mounts that are not started yet: `loopbacks(backed=False)`."""
    made: list[Loopback] = []

    def make(**settings: Any) -> Loopback:
        made.append(Loopback(tmp_path / f"loopback-{len(made)}", **settings))
        return made[-1]

    yield make
    for loopback in made:
        loopback.clear()


@pytest.fixture(scope="module", params=[True, False], ids=["at-once", "by-pyfuse3"])
def loopback(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Loopback]:
    """One mount with passthrough, open to all users, for the tests of a module that share it.

    Everything works the same whether requests are answered at once or by way of pyfuse3.
    """
    directory = tmp_path_factory.mktemp("shared") / "loopback"
    made = Loopback(directory, allow_other=True, at_once=request.param)
    directory = made.path.parent
    while directory != Path("/"):  # other users have to get there
        if not directory.stat().st_mode & 0o001:
            directory.chmod(directory.stat().st_mode | 0o011)
        directory = directory.parent
    try:
        yield made.start()
    finally:
        made.clear()


@pytest.fixture
def place(loopback: Loopback, request: pytest.FixtureRequest) -> Path:
    """A new directory in the shared mount, for everybody to write."""
    directory = loopback.path / re.sub(r"\W+", "-", request.node.name)[:80]
    directory.mkdir()
    directory.chmod(0o777)
    return directory
