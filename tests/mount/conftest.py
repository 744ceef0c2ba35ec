"""Real mounts: a store, a daemon in a process of its own, and programs that nobody here wrote.

Decided here: how a test gets a mount, and that no mount, no daemon and no warning in a daemon's log
outlives a test. Not decided here: what is asked of the mount (the tests).
"""

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy
import pytest
from safetensors.numpy import save as save_tensors

PATIENCE = 30.0
"""Seconds for a daemon to be ready or gone; it takes about one."""

PROBLEM = re.compile(r"\b(WARNING|ERROR|CRITICAL)\b|Traceback|^\w+(Error|Exception|Group): ")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything below this directory `fuse`; skip it where nothing can be mounted."""
    here = Path(__file__).parent
    usable = os.access("/dev/fuse", os.R_OK | os.W_OK) and os.geteuid() == 0
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker("fuse")
            if not usable:
                item.add_marker(pytest.mark.skip(reason="needs root and /dev/fuse"))


@pytest.fixture
def device_for_all() -> Iterator[None]:
    """Let every user open /dev/fuse, as udev does on hosts that have it.

    One test at a time: the tests of another worker may need the device open, or closed.
    """
    device = os.open("/dev/fuse", os.O_RDONLY)
    try:
        fcntl.flock(device, fcntl.LOCK_EX)
        mode = os.fstat(device).st_mode & 0o777
        os.chmod("/dev/fuse", 0o666)
        try:
            yield
        finally:
            os.chmod("/dev/fuse", mode)
    finally:
        os.close(device)


class Mount:
    """A store and where it is mounted; `start`, `stop` and `kill` are its daemon's life."""

    def __init__(
        self,
        directory: Path,
        *,
        options: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
        runner: tuple[str, ...] = (),
    ) -> None:
        self.path = directory / "mnt"
        self.store = directory / "store"
        self.log = directory / "daemon.log"
        self.options = options
        self.runner = runner
        """Words before every command: `setpriv …` for an unprivileged user."""
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("MREGFS_")},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "LC_ALL": "C.UTF-8",
            "MREGFS_STORE": str(self.store),
            "MREGFS_MOUNT": str(self.path),
            **(environment or {}),
        }
        self.daemon: subprocess.Popen[bytes] | None = None
        self._expected: list[re.Pattern[str]] = []

    # ---- the daemon

    def init(self) -> None:
        self.path.mkdir()
        self.cli("init", self.store, "--json")

    def start(self) -> None:
        """Mount, and return when the mount answers."""
        command = [*self.runner, sys.executable, "-m", "mregfs", "mount", self.store, self.path]
        with self.log.open("ab") as log:
            self.daemon = subprocess.Popen(
                [*command, "--foreground", *self.options],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE
        while not self.answers():
            assert self.daemon.poll() is None, f"the daemon ended:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"not mounted in time:\n{self.log.read_text()}"
            time.sleep(0.01)

    def answers(self) -> bool:
        try:
            return self.mounted() and bool(self.status())
        except (OSError, ValueError):
            return False

    def mounted(self) -> bool:
        return str(self.path) in mount_points()

    def stop(self) -> int:
        """End the daemon as an init system does, and return its exit code."""
        assert self.daemon is not None
        self.daemon.send_signal(signal.SIGTERM)
        code = self.daemon.wait(PATIENCE)
        self.daemon = None
        return code

    def kill(self) -> None:
        """End the daemon without a chance to clean up."""
        assert self.daemon is not None
        self.daemon.kill()
        self.daemon.wait(PATIENCE)
        self.daemon = None

    def clear(self) -> list[str]:
        """Leave nothing behind, whatever state this is in; return what was wrong."""
        wrong = []
        if self.daemon is not None:
            try:
                code = self.stop()
                if code != 0:
                    wrong.append(f"the daemon's exit code was {code}")
            except subprocess.TimeoutExpired:
                wrong.append("the daemon did not end on SIGTERM")
            if self.mounted():
                wrong.append("the daemon left its mount behind")
        for _ in range(5):
            if not self.mounted():
                break
            subprocess.run(["umount", "-l", self.path], check=False)
        if self.daemon is not None:
            self.kill()
        return wrong + self.problems()

    def expect_log(self, pattern: str) -> None:
        """Allow lines in the daemon's log that the pattern finds something in."""
        self._expected.append(re.compile(pattern))

    def problems(self) -> list[str]:
        """Return the lines of the daemon's log that nobody expected."""
        if not self.log.exists():
            return []
        return [
            line
            for line in self.log.read_text(errors="replace").splitlines()
            if PROBLEM.search(line) and not any(found.search(line) for found in self._expected)
        ]

    # ---- what is done with it

    def run(
        self, *command: str | Path, check: bool = True, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a program with the mount as working directory, unless told otherwise."""
        options.setdefault("cwd", self.path if self.mounted() else self.path.parent)
        done = subprocess.run(
            [*self.runner, *map(str, command)],
            env=self.environment,
            stdin=options.pop("stdin", subprocess.DEVNULL),
            capture_output=True,
            text=True,
            check=False,
            timeout=options.pop("timeout", 120),
            **options,
        )
        said = f"{command} exited {done.returncode}\n{done.stdout}{done.stderr}"
        assert done.returncode == 0 or not check, said
        return done

    def sh(self, script: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a shell command line in the mount (of the `echo` of dash no errno can be seen)."""
        return self.run("/bin/bash", "-c", script, check=check)

    def cli(self, *words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a verb of mregfs, as from outside the mount."""
        return self.run(sys.executable, "-m", "mregfs", *words, check=check, cwd=self.store.parent)

    def status(self) -> dict[str, Any]:
        return json.loads((self.path / ".mregfs/status").read_text())

    def control(self, script: str) -> Any:
        """Write commands on the control file, and return the reply from the same descriptor."""
        descriptor = os.open(self.path / ".mregfs/control", os.O_RDWR)
        try:
            os.write(descriptor, script.encode())
            reply = b""
            while piece := os.read(descriptor, 1 << 16):
                reply += piece
        finally:
            os.close(descriptor)
        return json.loads(reply)

    def draft(self, name: str, files: Mapping[str, bytes]) -> Path:
        """Write a draft through the mount."""
        top = self.path / "staging" / name
        for path, data in files.items():
            (top / path).parent.mkdir(parents=True, exist_ok=True)
            (top / path).write_bytes(data)
        return top

    def commit(self, name: str, files: Mapping[str, bytes], words: str = "") -> Path:
        """Make the files the next version of artifact `name`, and return its directory."""
        self.draft("draft-to-commit", files)
        before = set(self.versions(name))
        self.sh(f"echo 'commit draft-to-commit {name} {words}' > .mregfs/control")
        (number,) = set(self.versions(name)) - before
        return self.path / "artifacts" / name / number

    def versions(self, name: str, kind: str = "artifacts") -> list[str]:
        top = self.path / kind / name
        return (
            [entry for entry in os.listdir(top) if entry[0] == "v" and entry[1:].isdigit()]
            if top.exists()
            else []
        )


def mount_points() -> set[str]:
    """Return every mount point on this host, as the kernel names it."""
    with open("/proc/self/mountinfo", errors="surrogateescape", newline="\n") as table:
        return {
            re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), line.split(" ")[4]) for line in table
        }


@contextmanager
def reachable_directory() -> Iterator[Path]:
    """Make a directory that every user can reach; pytest's own are in a private one."""
    path = Path(tempfile.mkdtemp(prefix="mregfs-test-")).resolve()
    path.chmod(0o755)
    try:
        yield path
    finally:
        with open("/proc/self/mountinfo", errors="surrogateescape") as table:
            points = [line.split(" ")[4] for line in table]
        for point in points:
            if point.startswith(f"{path}/"):
                subprocess.run(["umount", "-l", point], check=False)
        shutil.rmtree(path, ignore_errors=os.geteuid() == 0)


@pytest.fixture(scope="session")
def passthrough(request: pytest.FixtureRequest) -> bool:
    """Whether the daemons of this run may use passthrough."""
    return not request.config.getoption("--no-passthrough")


MakeMount = Callable[..., Mount]


@contextmanager
def _mounts(directory: Path, *, passthrough: bool) -> Iterator[MakeMount]:
    """Give out mounts below `directory`; leave none of them, and fail for what went wrong."""
    made: list[Mount] = []

    def make(name: str = "registry", **options: Any) -> Mount:
        (directory / name).mkdir()
        environment = {} if passthrough else {"MREGFS_PASSTHROUGH": "0"}
        environment.update(options.pop("environment", {}))
        made.append(Mount(directory / name, environment=environment, **options))
        return made[-1]

    try:
        yield make
    finally:
        wrong = [problem for mount in made for problem in mount.clear()]
    assert [] == wrong


@pytest.fixture
def make_mount(tmp_path: Path, *, passthrough: bool) -> Iterator[MakeMount]:
    """Make mounts (not started): `make_mount("name", options=("--read-only",))`."""
    with _mounts(tmp_path, passthrough=passthrough) as make:
        yield make


@pytest.fixture
def registry_mount(make_mount: MakeMount) -> Mount:
    """A new store, mounted."""
    mount = make_mount()
    mount.init()
    mount.start()
    return mount


@pytest.fixture(scope="module")
def shared_mount(tmp_path_factory: pytest.TempPathFactory, *, passthrough: bool) -> Iterator[Mount]:
    """One mounted store for all tests of a module that only add to it."""
    with _mounts(tmp_path_factory.mktemp("shared"), passthrough=passthrough) as make:
        mount = make()
        mount.init()
        mount.start()
        yield mount


@pytest.fixture(scope="session")
def model_files() -> dict[str, bytes]:
    """A small model as training code saves it: weights, configuration, a vocabulary."""
    random = numpy.random.default_rng(17)
    weights = {
        f"layer{number}.weight": random.standard_normal((512, 256), dtype="float32")
        for number in range(8)
    }
    return {
        "model.safetensors": save_tensors(weights, metadata={"format": "np"}),
        "config.json": json.dumps({"layers": 8, "hidden": 256}).encode(),
        "tokenizer/vocabulary.txt": b"".join(b"word%d\n" % number for number in range(1000)),
    }
