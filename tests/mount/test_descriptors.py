"""A daemon with few descriptors: users are refused more files, everything else goes on."""

import errno
import os

import pytest

pytestmark = pytest.mark.bytes

FEW = 64
LIMITED = ("prlimit", f"--nofile={FEW}", "setpriv", "--bounding-set", "-sys_resource")


@pytest.fixture
def mount(make_mount):
    """A mount whose daemon may have 64 descriptors, also as root; artifact `x` has 100 files."""
    mount = make_mount(runner=LIMITED)
    mount.init()
    mount.runner = ()
    mount.start()
    mount.commit("x", {f"{number}.bin": os.urandom(300_000) for number in range(100)})
    mount.stop()
    mount.runner = LIMITED
    mount.start()
    mount.expect_log("WARNING mregfs.fuse.adapter: Too many open files: users are refused")
    return mount


def open_all_that_may_be(path: str, flags: int) -> list[int]:
    """Open `path % 0`, `path % 1` and so on, until that is refused."""
    descriptors: list[int] = []
    with pytest.raises(OSError) as caught:
        for number in range(1000):
            descriptors.append(os.open(path % number, flags, 0o644))  # noqa: PERF401
    assert errno.EMFILE == caught.value.errno
    return descriptors


@pytest.mark.parametrize("what", ["drafts", "versions"])
def test_who_opens_all_there_is_stops_neither_others_nor_the_daemon(mount, what):
    (mount.path / "staging/d").mkdir()
    if what == "drafts":
        held = open_all_that_may_be(f"{mount.path}/staging/d/%d", os.O_CREAT | os.O_RDWR)
    elif b"passthrough" == os.getxattr(
        mount.path / "artifacts/x/v0/0.bin", "user.mregfs.read_path"
    ):
        held = open_all_that_may_be(f"{mount.path}/artifacts/x/v0/%d.bin", os.O_RDONLY)
    else:
        pytest.skip("without passthrough the packs are opened when they are read")
    assert FEW // 3 < len(held) < FEW
    assert [] == [code for code in map(code_of, range(20), [mount] * 20) if code]
    for descriptor in held:
        os.close(descriptor)
    (mount.path / "staging/d/new").write_bytes(b"there is room again")
    # One line for the operator, however often it happened.
    assert 1 == mount.log.read_text().count("users are refused")
    assert "Traceback" not in mount.log.read_text()


def code_of(number: int, mount) -> int:
    """Do what takes descriptors of the daemon's own; return the errno of what failed."""
    try:
        assert mount.control(f"ln -sf x:v0 x:alias-{number}")["ok"]
        assert FEW // 4 > len(os.listdir(mount.path / "artifacts"))
        os.listdir(mount.path / "staging")
        assert mount.status()["sequence"] > number
        os.getxattr(mount.path / "artifacts/x/v0", "user.mregfs.unique_size")
    except OSError as exc:
        return exc.errno or -1
    return 0


def test_what_is_open_goes_on_and_is_read_on_when_descriptors_ran_out(mount):
    held = open_all_that_may_be(f"{mount.path}/staging/%d", os.O_CREAT | os.O_RDWR)
    for number, descriptor in enumerate(held):
        os.pwrite(descriptor, b"%d" % number, 0)
    for number, descriptor in enumerate(held):
        assert b"%d" % number == os.pread(descriptor, 10, 0)
        os.close(descriptor)
