"""A store that vanishes under a live mount: what is known stays, the rest is an error."""

import errno
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import Mount

WEIGHTS = os.urandom(300_000)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, twice: the second mount keeps it when the first goes."""
    path, kept = tmp_path / "disk", tmp_path / "kept"
    path.mkdir()
    kept.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "mregfs-test", kept], check=True)
    subprocess.run(["mount", "--bind", kept, path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=False)
        subprocess.run(["umount", "-l", kept], check=True)


@pytest.fixture
def mount(make_mount, disk: Path) -> Mount:
    made: Mount = make_mount()
    made.store = disk / "store"
    made.environment["MREGFS_STORE"] = str(made.store)
    made.init()
    made.start()
    for number in range(2):
        made.commit("mnist", {"weights": WEIGHTS, "number": b"%d" % number})
    made.cli("ln", "mnist:v0", "mnist:best")
    return made


def what_is_known(mount: Mount) -> None:
    """Check that the registry is shown as it was."""
    top = mount.path / "artifacts/mnist"
    assert ["best", "latest", "v0", "v1"] == sorted(os.listdir(top))
    assert "v0" == os.readlink(top / "best")
    assert ["number", "weights"] == sorted(os.listdir(top / "v1"))
    assert b"1" == (top / "v1/number").read_bytes()


def errno_of(call: Callable[[], object]) -> int | None:
    try:
        call()
    except OSError as exc:
        return exc.errno
    return None


def control(mount: Mount, line: str) -> None:
    with open(mount.path / ".mregfs/control", "wb", buffering=0) as file:
        file.write(line.encode())


def wait_for_log(mount: Mount, words: str) -> None:
    deadline = time.monotonic() + 10
    while words not in mount.log.read_text():
        assert time.monotonic() < deadline, mount.log.read_text()
        time.sleep(0.05)


def test_a_store_that_is_removed_and_put_back(mount: Mount, tmp_path: Path) -> None:
    """One line at ERROR says so; nothing is made where it was; when it is back, all goes on."""
    mount.expect_log("the registry is shown as of log entry 3, as .*the directory was removed")
    mount.expect_log("is gone, and the log with it")
    mount.expect_log("the directory was removed; put it back where it was")
    mount.draft("before", {"file": b"draft"})
    backup = tmp_path / "backup"
    shutil.copytree(mount.store, backup, symlinks=True)
    shutil.rmtree(mount.store)

    for _ in range(3):
        what_is_known(mount)
        assert 3 == mount.status()["sequence"]
        assert errno.EIO == errno_of(
            lambda: control(mount, "ln -sf artifacts/mnist/v1 artifacts/mnist/best\n")
        )
        time.sleep(0.5)
    assert errno.EIO == errno_of(lambda: (mount.path / "staging/new").mkdir())
    assert not mount.store.exists()
    assert "the directory was removed" in mount.status()["trouble"]
    said = [line for line in mount.log.read_text().splitlines() if "is shown as of" in line]
    assert 1 == len(said), said

    back = mount.store.with_name("back")
    shutil.copytree(backup, back, symlinks=True)
    back.rename(mount.store)  # whole: the daemon takes it as soon as it is there
    control(mount, "ln -sf artifacts/mnist/v1 artifacts/mnist/best\n")
    assert "v1" == os.readlink(mount.path / "artifacts/mnist/best")
    assert mount.status()["trouble"] is None
    assert WEIGHTS == (mount.path / "artifacts/mnist/v1/weights").read_bytes()
    mount.cli("commit", backup / "log", "mnist")
    assert ["v0", "v1", "v2"] == sorted(mount.versions("mnist"))
    mount.commit("mnist", {"number": b"3"})
    assert ["v0", "v1", "v2", "v3"] == sorted(mount.versions("mnist"))
    assert b"draft" == (mount.path / "staging/before/file").read_bytes()
    mount.cli("fsck", "--data")


def test_a_store_that_is_renamed_goes_on(mount: Mount) -> None:
    elsewhere = mount.store.with_name("elsewhere")
    mount.store.rename(elsewhere)
    what_is_known(mount)
    control(mount, "ln -sf artifacts/mnist/v1 artifacts/mnist/best\n")
    assert "v1" == os.readlink(mount.path / "artifacts/mnist/best")
    assert not mount.store.exists()
    elsewhere.rename(mount.store)
    mount.commit("mnist", {"number": b"2"})


def test_a_disk_that_is_unmounted_below_the_mount(mount: Mount, disk: Path) -> None:
    """It is held, so the mount goes on; nothing is made on the bare mount point."""
    subprocess.run(["umount", "-l", disk], check=True)
    what_is_known(mount)
    control(mount, "ln -sf artifacts/mnist/v1 artifacts/mnist/best\n")
    assert "v1" == os.readlink(mount.path / "artifacts/mnist/best")
    assert [] == os.listdir(disk)
    mount.run("mregfs", "ls", "--store", mount.store, cwd=mount.path.parent)  # by the mount
    said = mount.run("mregfs", "fsck", "--store", mount.store, check=False, cwd=mount.path.parent)
    assert 5 == said.returncode
    assert "is not a store" in said.stderr
    assert [] == os.listdir(disk)


def test_another_store_in_its_place_is_not_taken_for_it(mount: Mount) -> None:
    mount.expect_log("the registry is shown as of log entry 3, as .*the directory was removed")
    mount.expect_log("is gone, and the log with it")
    mount.expect_log("the directory was removed; put it back where it was")
    shutil.rmtree(mount.store)
    mount.cli("init", mount.store)
    what_is_known(mount)
    assert errno.EIO == errno_of(lambda: control(mount, "rm artifacts/mnist/v1\n"))
    what_is_known(mount)
    assert ["probe", "staging", "store.json", "tmp"] == sorted(os.listdir(mount.store))


@pytest.mark.parametrize("harm", ["lost", "flipped"])
def test_a_newest_entry_that_is_damaged(mount: Mount, harm: str) -> None:
    """The mount comes up from the good index, changes nothing, and says which entry."""
    mount.expect_log("the registry is shown as of log entry 3")
    mount.expect_log("fsck --repair")
    mount.stop()
    entry = mount.store / "log/00000000000000000003.json"
    whole = entry.read_bytes()
    entry.unlink()
    if harm == "flipped":
        entry.write_bytes(whole.replace(b'"host"', b'"hosu"'))
        entry.chmod(0o444)
    mount.start()

    what_is_known(mount)
    assert "3" in mount.status()["trouble"]
    assert errno.EIO == errno_of(lambda: control(mount, "rm artifacts/mnist/v1\n"))
    said = mount.cli("rm", "mnist:v1", check=False)
    assert 11 == said.returncode
    assert "fsck --repair" in said.stderr
    for words in (("ls",), ("show", "mnist:v1"), ("history", "mnist"), ("du",), ("status",)):
        mount.cli(*words)
    assert 11 == mount.cli("fsck", check=False).returncode

    mount.cli("fsck", "--repair")
    assert whole == entry.read_bytes()
    control(mount, "ln -sf artifacts/mnist/v1 artifacts/mnist/best\n")
    assert "v1" == os.readlink(mount.path / "artifacts/mnist/best")
    assert mount.status()["trouble"] is None
