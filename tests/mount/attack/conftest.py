"""What attacks run in: a directory that every user of the host can reach.

Decided here: where attacks take place, and how many of them there are. Not decided here: what they
are (the tests).
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import reachable_directory


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
