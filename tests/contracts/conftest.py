"""What several contract suites need: small disks, other users, other processes."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

NOBODY = 65534


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file system of 2 MiB of its own."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=755", "mregfs-test", str(path)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.fixture
def as_nobody() -> Callable[[Callable[[], None]], None]:
    """Run a function in a child without privileges, and fail as it fails."""
    if os.geteuid() != 0:
        pytest.skip("becoming nobody needs root")

    def run(function: Callable[[], None]) -> None:
        def become() -> None:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            function()

        wait_for(start(become))

    return run


@pytest.fixture
def umask_077() -> Iterator[None]:
    """What the test makes is nobody else's, as far as the process has a say."""
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.fixture(name="start")
def start_fixture() -> Iterator[Callable[[Callable[[], None]], int]]:
    """Start a function in a child process, and return its process id."""
    children: list[int] = []

    def start_child(function: Callable[[], None]) -> int:
        children.append(start(function))
        return children[-1]

    yield start_child
    for pid in children:
        with contextlib.suppress(
            ChildProcessError, ProcessLookupError
        ):  # the test has waited for it
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@pytest.fixture(name="wait_for")
def wait_for_fixture() -> Callable[[int], None]:
    """Wait for a child, and require that it did not fail."""
    return wait_for


def start(function: Callable[[], None]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        function()
        code = 0
    finally:
        if code:
            sys.excepthook(*sys.exc_info())
        os._exit(code)


def wait_for(pid: int) -> None:
    _, status = os.waitpid(pid, 0)
    assert 0 == os.waitstatus_to_exitcode(status)
