"""Damaged bytes are never given out: EIO where they are, all else reads; fsck names them."""

import errno
import json
import os
from pathlib import Path

import pytest

MIB = 1 << 20
MODEL = os.urandom(8 * MIB)
BAD = 3 * MIB + 12345
"""The byte in which a bit is flipped."""


def flip_on_disk(store: Path) -> str:
    """Flip a bit of the pack that is MODEL, and return its id."""
    pack = max((store / "packs").glob("??/*"), key=lambda path: path.stat().st_size)
    pack.chmod(0o644)
    with pack.open("r+b") as file:
        file.seek(BAD)
        byte = file.read(1)
        file.seek(BAD)
        file.write(bytes([byte[0] ^ 4]))
    return pack.name


def damaged_mount(make_mount, *options: str, environment: dict[str, str] | None = None):
    mount = make_mount(
        options=("-o", ",".join(options)) if options else (), environment=environment or {}
    )
    mount.init()
    mount.start()
    mount.commit("mnist", {"model.bin": MODEL, "small.bin": bytes(50_000)})
    mount.stop()
    mount.pack = flip_on_disk(mount.store)
    mount.start()
    mount.expect_log("is damaged")
    return mount


def assert_only_the_block_is_lost(mount, file: Path) -> None:
    """Read every MiB on its own, then all at once."""
    lost = []
    for start in range(0, len(MODEL), MIB):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
            assert MODEL[start : start + MIB] == os.pread(descriptor, MIB, start)
        except OSError as exc:
            lost.append((start, exc.errno))
        finally:
            os.close(descriptor)
    assert [(3 * MIB, errno.EIO)] == lost
    with file.open("rb") as opened, pytest.raises(OSError) as caught:
        opened.read()
    assert errno.EIO == caught.value.errno
    assert "ERROR" in "".join(
        line for line in mount.log.read_text().splitlines() if "model.bin" in line
    )


def test_always_verifies_each_read_and_takes_no_passthrough(make_mount):
    mount = damaged_mount(make_mount, "verify=always")
    file = mount.path / "artifacts/mnist/v0/model.bin"

    assert b"cached: verify=always" == os.getxattr(file, "user.mregfs.read_path")
    assert "always" == mount.status()["verify"]
    assert_only_the_block_is_lost(mount, file)
    assert bytes(50_000) == file.with_name("small.bin").read_bytes()


def test_always_finds_what_changes_between_two_reads(make_mount):
    mount = make_mount(environment={"MREGFS_VERIFY": "always"})
    mount.init()
    mount.start()
    mount.commit("mnist", {"model.bin": MODEL})
    file = mount.path / "artifacts/mnist/v0/model.bin"
    assert MODEL == file.read_bytes()

    flip_on_disk(mount.store)
    mount.expect_log("is damaged")
    with pytest.raises(OSError) as caught:
        file.read_bytes()
    assert errno.EIO == caught.value.errno


def test_the_first_read_is_verified_on_the_cached_path(make_mount):
    mount = damaged_mount(make_mount, "verify=first-read", "nopassthrough")
    assert "first-read" == mount.status()["verify"]
    assert_only_the_block_is_lost(mount, mount.path / "artifacts/mnist/v0/model.bin")


def test_fsck_names_the_file_and_the_block_and_exits_11(make_mount):
    mount = damaged_mount(make_mount)

    assert 0 == mount.cli("fsck").returncode
    found = mount.cli("fsck", "--data", check=False)
    assert 11 == found.returncode
    assert "default/default/mnist:v0 model.bin is damaged in 1 of 8 blocks" in found.stdout
    assert mount.pack in found.stdout
    assert 1 == len(found.stderr.splitlines())

    found = mount.cli("fsck", "--data", "--rate", "500", "--json", "mnist:v0", check=False)
    assert 11 == found.returncode
    report = json.loads(found.stdout)
    assert report["damaged"]
    assert ["data"] == [each["kind"] for each in report["findings"]]


def test_status_says_whether_the_file_system_guards_packs(registry_mount):
    assert registry_mount.status()["fs_verity"]
