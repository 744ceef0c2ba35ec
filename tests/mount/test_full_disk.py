"""A full disk is not an outage: what reads works, deleting works, nothing is half done."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import Mount

MIB = 1 << 20
LOOKING = (
    ("ls",), ("ls", "mnist"), ("show", "mnist:v0"), ("history", "mnist"), ("status",), ("du",),
    ("tree", "mnist:v0"), ("diff", "mnist:v0", "mnist:v1"), ("path", "mnist:v0"), ("log",),
)  # fmt: skip


@pytest.fixture(params=["ext4", "tmpfs"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    path = tmp_path / "disk"
    path.mkdir()
    if request.param == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", "size=48m", "mregfs-test", path]
    else:
        maker = shutil.which(f"mkfs.{request.param}")
        if maker is None:
            pytest.skip(f"needs mkfs.{request.param}")
        image = tmp_path / "image"
        with image.open("wb") as file:
            file.truncate(320 * MIB if request.param == "xfs" else 64 * MIB)
        options = ["-F", "-m", "0"] if request.param == "ext4" else []
        subprocess.run([maker, "-q", *options, image], check=True)
        command = ["mount", "-o", "loop", image, path]
    if subprocess.run(command, check=False).returncode:
        pytest.skip(f"this host mounts no {request.param}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


@pytest.fixture
def mount(make_mount, disk: Path, tmp_path: Path) -> Mount:
    made: Mount = make_mount()
    made.store = disk / "store"
    made.environment |= {"MREGFS_STORE": str(made.store), "XDG_STATE_HOME": str(tmp_path / "cache")}
    made.init()
    made.start()
    for number in range(4):
        made.commit("mnist", {"weights": os.urandom(200_000), "config": b"%d" % number})
    made.cli("ln", "mnist:v0", "mnist:best")
    made.cli("ln", "mnist:v0", "mnist:production")
    return made


def fill(disk: Path) -> None:
    """Leave not a byte."""
    with open(disk / "filler", "ab", buffering=0) as file:
        for size in (MIB, 4096, 512, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as exc:
                assert "No space" in str(exc)  # noqa: PT017
    number = 0
    try:
        while number < 5000:
            (disk / f"filler-{number}").write_bytes(b"x")
            number += 1
    except OSError:
        pass


def clear(disk: Path) -> None:
    for path in disk.glob("filler*"):
        path.unlink()


def best_of(mount: Mount, alias: str = "best") -> tuple[str, str]:
    """Return where the alias is, by the mount and by a process that opens the store."""
    listed = json.loads(mount.cli("ls", "mnist", "--json", "--store", mount.store).stdout)
    found = next(each["version"] for each in listed if alias in each["aliases"])
    return os.readlink(mount.path / "artifacts/mnist" / alias), found


def test_looking_mounting_and_deleting_go_on(mount: Mount, disk: Path) -> None:
    mount.expect_log("deleting goes on from the reserve")
    mount.expect_log("No space left")
    fill(disk)

    for restarted in (False, True):
        if restarted:
            mount.kill()
            subprocess.run(["umount", "-l", mount.path], check=True)
            mount.start()
        for words in LOOKING:
            mount.cli(*words)
            mount.cli(*words, "--store", mount.store)
        assert b"1" == (mount.path / "artifacts/mnist/v1/config").read_bytes()
        assert 200_000 == len((mount.path / "artifacts/mnist/v1/weights").read_bytes())
        assert not mount.status()["read_only"]
    (mount.store.parent.parent / "new").mkdir()
    (mount.store.parent.parent / "new/weights").write_bytes(os.urandom(300_000))
    new = str(mount.store.parent.parent / "new")
    assert 10 == mount.cli("commit", new, "mnist", check=False).returncode

    mount.sh("echo 'rm artifacts/mnist/v1' > .mregfs/control")
    assert ["best", "latest", "production", "v0", "v2", "v3"] == sorted(
        os.listdir(mount.path / "artifacts/mnist")
    )
    fill(disk)
    mount.cli("rm", "mnist:v2", check=False)  # there was one reserve
    mount.cli("ls", "mnist")

    clear(disk)
    assert 0 == mount.cli("commit", new, "mnist").returncode
    mount.cli("fsck", "--data")


def test_an_alias_moves_at_once_or_not_at_all(mount: Mount, disk: Path) -> None:
    """What was said to be done is shown, by every process and after a restart."""
    mount.expect_log("No space left")
    fill(disk)
    refused = 0
    for turn in range(200):
        goal = f"v{turn % 4}"
        words = f"ln -sf artifacts/mnist/{goal} artifacts/mnist/best\n"
        if mount.control(words)["ok"]:
            assert goal == os.readlink(mount.path / "artifacts/mnist/best")
        else:
            refused += 1
        if refused > 3:
            break
    assert refused
    earlier = best_of(mount)
    moved = mount.cli("ln", "mnist:v1", "mnist:best", check=False).returncode
    assert moved in (0, 10)  # a few blocks may have come free meanwhile
    before = best_of(mount)
    assert before == (earlier if moved else ("v1", "v1"))
    assert before[0] == before[1]
    mount.stop()
    mount.start()
    assert before == best_of(mount)
    clear(disk)
    mount.cli("ln", "mnist:v3", "mnist:best")
    assert ("v3", "v3") == best_of(mount)


def test_a_reserve_that_was_used_is_taken_again(mount: Mount, disk: Path) -> None:
    mount.expect_log("deleting goes on from the reserve")
    mount.expect_log("No space left")
    reserve = mount.store / "tmp/reserve"
    assert 2 * MIB <= reserve.stat().st_blocks * 512
    mount.stop()  # it has some files ready for entries
    number = 0
    while reserve.exists():
        number += 1
        fill(disk)
        mount.cli("rm", f"mnist:v{number}")
    fill(disk)
    clear(disk)
    mount.start()
    assert 2 * MIB <= reserve.stat().st_blocks * 512


def test_a_disk_that_cannot_be_written_is_mounted_read_only(mount: Mount, disk: Path) -> None:
    """And status says so, also when it was asked to be mounted for writing."""
    mount.expect_log("cannot be written by this user: mounting it read-only")
    mount.stop()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    mount.start()

    assert mount.status()["read_only"]
    for words in LOOKING:
        mount.cli(*words)
    assert b"1" == (mount.path / "artifacts/mnist/v1/config").read_bytes()
    assert "Read-only file system" in mount.sh("mkdir staging/run", check=False).stderr
    assert "Read-only file system" in mount.sh("echo > .mregfs/control", check=False).stderr
    mount.stop()
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
