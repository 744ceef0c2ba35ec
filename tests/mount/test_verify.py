"""Damaged bytes are never given out: EIO where they are, all else reads; fsck names them."""

import ctypes
import errno
import json
import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.bytes

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


# ---- what the kernel reads by itself


@pytest.fixture
def passing_mount(make_mount, passthrough):
    """A damaged mount whose file the kernel reads by itself."""
    if not passthrough:
        pytest.skip("needs passthrough")
    mount = damaged_mount(make_mount)
    file = mount.path / "artifacts/mnist/v0/model.bin"
    if b"passthrough" != os.getxattr(file, "user.mregfs.read_path"):
        pytest.skip("read through the daemon here")
    return mount, file


def wait_for_verdict(mount, wait_until) -> None:
    wait_until(lambda: mount.status()["verified"]["waiting"] == 0, "all is verified")


def code_of_open(file: Path) -> int:
    try:
        os.close(os.open(file, os.O_RDONLY))
    except OSError as exc:
        return exc.errno or -1
    return 0


def test_a_damaged_file_that_the_kernel_reads_is_found_after_its_first_reader(
    passing_mount, wait_until
):
    """The first reader may be wrong; then it is an ERROR, and EIO, also after a restart."""
    mount, file = passing_mount
    assert MODEL != file.read_bytes()
    wait_for_verdict(mount, wait_until)

    assert [mount.pack] == mount.status()["verified"]["damaged"]
    assert errno.EIO == code_of_open(file)
    found = [line for line in mount.log.read_text().splitlines() if mount.pack in line]
    assert (
        "ERROR mregfs.registry.read.verifier: 'model.bin' is damaged in 1 of 8 blocks" in found[0]
    )
    assert bytes(50_000) == file.with_name("small.bin").read_bytes()

    mount.stop()
    mount.start()
    assert errno.EIO == code_of_open(file)
    assert 0 == mount.status()["verified"]["waiting"]

    flip_on_disk(mount.store)  # back to what it was, as by a restored backup
    assert MODEL == file.read_bytes()
    wait_for_verdict(mount, wait_until)
    assert [0, 1] == [code_of_open(file), mount.status()["verified"]["verified"]]
    mount.stop()
    mount.start()
    assert MODEL == file.read_bytes()
    assert {"waiting": 0, "verified": 0, "damaged": []} == mount.status()["verified"]


def test_who_has_a_damaged_file_open_goes_on(passing_mount, wait_until):
    """The kernel asks nobody about what is open, by whom else it may be opened or not."""
    mount, file = passing_mount
    with file.open("rb") as opened:
        first = file.read_bytes()
        wait_until(lambda: mount.status()["verified"]["waiting"] == 1, "it is open")
        assert first == opened.read()
    wait_for_verdict(mount, wait_until)
    assert errno.EIO == code_of_open(file)


def test_it_is_read_at_idle_priority(passing_mount, wait_until):
    mount, file = passing_mount
    file.read_bytes()
    wait_for_verdict(mount, wait_until)
    libc = ctypes.CDLL(None)
    number = {"x86_64": 252, "aarch64": 31}[os.uname().machine]  # ioprio_get
    tasks = os.listdir(f"/proc/{mount.daemon.pid}/task")
    classes = [libc.syscall(number, 1, int(task)) >> 13 for task in tasks]
    assert 1 == classes.count(3)


@pytest.mark.parametrize("option", ["verify=commit", "nopassthrough"])
def test_nothing_is_verified_in_the_background_where_that_is_not_wanted(make_mount, option):
    mount = make_mount(options=("-o", option))
    mount.init()
    mount.start()
    file = mount.commit("mnist", {"model.bin": MODEL}) / "model.bin"
    assert MODEL == file.read_bytes()
    assert mount.status()["verified"] in (None, {"waiting": 0, "verified": 0, "damaged": []})
