"""What attacks run in: a directory that every user of the host can reach.

Decided here: where attacks take place, and how many of them there are. Not decided here: what they
are (the tests).
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import MakeMount, Mount, reachable_directory


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Make a directory that every user can reach; pytest's own are in a private one."""
    with reachable_directory() as path:
        yield path


@pytest.fixture(scope="module")
def place_for_all() -> Iterator[Path]:
    """Make a directory that every user can reach, for all tests of a module."""
    with reachable_directory() as path:
        yield path


@pytest.fixture
def two_mounts(make_mount: MakeMount, tmp_path: Path) -> tuple[Mount, Mount]:
    """Two mounts for everybody of one store that is still to be made."""
    first = make_mount("one", options=("--allow-other",))
    second = make_mount("two", options=("--allow-other",))
    for directory in (tmp_path / "one", tmp_path / "two"):
        directory.chmod(0o755)
    second.store = first.store
    second.path.mkdir()
    return first, second


@pytest.fixture
def mounts(two_mounts: tuple[Mount, Mount]) -> tuple[Mount, Mount]:
    """Two mounts of one store, for everybody, in which everybody writes."""
    first, second = two_mounts
    first.init()
    first.cli("access", "--writers", "*")
    for mount in two_mounts:
        mount.start()
    for mount in two_mounts:
        os.listdir(mount.path / "staging")
    return first, second
