"""What every test runs under: reproducible hypothesis, a stack dump on SIGUSR1, no stray warnings.

Decided here: the hypothesis profiles, and that a warning in the log of mregfs fails the test unless
the test expected it. Not decided here: what a mount needs (`mount/conftest.py`).
"""

import faulthandler
import logging
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Suites that tests of several directories take over.
for suite in ("file_tree", "host_cache", "index", "intake", "object_store", "pack_store"):
    pytest.register_assert_rewrite(f"tests.contracts.{suite}")

# Hundreds of interpreters are started; without byte code each compiles all it imports.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

settings.register_profile(
    "default", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("fast", settings.get_profile("default"), max_examples=40)
settings.register_profile(
    "deep", settings.get_profile("default"), derandomize=False, max_examples=2000
)
settings.load_profile("default")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what can be asked of the tests: no passthrough, long attacks and soaks."""
    parser.addoption(
        "--no-passthrough", action="store_true", help="mount without kernel passthrough"
    )
    parser.addoption(
        "--attack-steps", type=int, default=0, help="operations of three users on two mounts"
    )
    parser.addoption(
        "--crash-images", type=int, default=0, help="disks after a power cut, of each file system"
    )
    parser.addoption(
        "--write-permissions", action="store_true", help="write the manual's permission matrix anew"
    )
    parser.addoption(
        "--write-commands", action="store_true", help="write the manual's page of commands anew"
    )
    parser.addoption("--soak-minutes", type=float, default=0, help="how long to kill daemons")


def pytest_configure(config: pytest.Config) -> None:
    """Let SIGUSR1 print where every thread is, and signals reach the programs that tests start."""
    # In the background of a script SIGINT is ignored, under nohup SIGHUP; a program inherits that,
    # and no handler.
    for number, handler in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, lambda *_: None),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        descriptor = os.dup(2)
    faulthandler.register(signal.SIGUSR1, file=descriptor, all_threads=True)
    config.add_cleanup(lambda: faulthandler.unregister(signal.SIGUSR1))
    config.add_cleanup(lambda: os.close(descriptor))


class ExpectedWarnings(logging.Handler):
    """Collects what mregfs logs at WARNING and above; knows which of it the test expects."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._records: list[logging.LogRecord] = []
        self._expected: list[re.Pattern[str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)

    def expect(self, pattern: str) -> None:
        """Allow records whose message the pattern finds something in."""
        self._expected.append(re.compile(pattern))

    def unexpected(self) -> list[str]:
        return [
            f"{record.levelname} {record.name}: {record.getMessage()}"
            for record in self._records
            if not any(pattern.search(record.getMessage()) for pattern in self._expected)
        ]


@pytest.fixture(autouse=True)
def expected_warnings() -> Iterator[ExpectedWarnings]:
    """Fail the test when mregfs logs a warning that it did not `expect(pattern)`."""
    handler = ExpectedWarnings()
    logger = logging.getLogger("mregfs")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    unexpected = handler.unexpected()
    assert [] == unexpected


@pytest.fixture
def tmp_path(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Make a directory for the test alone; on a disk, if the test is marked so."""
    if request.node.get_closest_marker("disk") is None:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="mregfs-test-", dir="/var/tmp") as path:
        yield Path(path).resolve()


@pytest.fixture
def wait_until() -> Callable[..., None]:
    """Poll a condition until it holds; fail the test when it does not within `timeout` seconds."""
    return poll


def poll(condition: Callable[[], object], what: str, timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout} s in vain until {what}"
        time.sleep(0.005)
