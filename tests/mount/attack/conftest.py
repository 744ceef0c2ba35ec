"""What attacks run in: a directory that every user of the host can reach.

Decided here: where attacks take place, and how many of them there are. Not decided here: what they
are (the tests).
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Make a directory that every user can reach; pytest's own are in a private one."""
    yield from _place_for_all()


def _place_for_all() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="mregfs-attack-")).resolve()
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


@pytest.fixture(scope="module")
def place_for_all() -> Iterator[Path]:
    """Make a directory that every user can reach, for all tests of a module."""
    yield from _place_for_all()
