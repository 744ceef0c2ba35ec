"""The staging area next to a directory of the host: the same system calls, the same answers.

50 000 random operations as four users, among them mmap, truncate, rename over, hard links and
unlink while open: results, errnos, attributes and contents must be equal throughout.
"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machines.native_machine import ROOT, HostSide, Machine, User
from tests.mount.conftest import Mount

pytestmark = pytest.mark.bytes

USERS = (ROOT, User(1001, 1001), User(1002, 1001, (1003,)), User(1003, 1003))
"""Root and three without rights, two of whom share a group. They need no account."""


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every user can reach, which pytest's own are not."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="mregfs-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [11, 12])
def test_staging_is_native(open_directory: Path, seed: int, *, passthrough: bool) -> None:
    """25 000 operations with each seed; the daemon logs nothing that an operator should see."""
    environment = {} if passthrough else {"MREGFS_PASSTHROUGH": "0"}
    mount = Mount(open_directory, options=("--allow-other",), environment=environment)
    native = open_directory / "native"
    native.mkdir()
    native.chmod(0o777)
    try:
        mount.init()
        mount.start()
        draft = mount.path / "staging" / "draft"
        draft.mkdir()
        draft.chmod(0o777)
        machine = Machine(
            seed, HostSide(native), HostSide(draft), users=USERS, strict=False, awkward=True
        )
        machine.run(25_000, compare_every=2500)
        assert machine.succeeded > 5000
    finally:
        wrong = mount.clear()
        shutil.rmtree(native)
    assert [] == wrong
