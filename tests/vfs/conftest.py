"""Fixtures of the file system without a mount."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vfs.rig import Rig, open_rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A file system over a new store."""
    with open_rig(tmp_path) as made:
        yield made
