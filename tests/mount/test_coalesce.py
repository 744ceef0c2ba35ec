"""Whole-file copies, through a mount: who reads how, before and after, while files are open."""

import json
import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.bytes

MIB = 1 << 20

MODEL = os.urandom(12 * MIB)
TUNED = MODEL[: 6 * MIB + 100] + os.urandom(5000) + MODEL[6 * MIB + 4100 :]


def read_path(file: Path) -> str:
    return os.getxattr(file, "user.mregfs.read_path").decode()


def commit_both(mount) -> Path:
    """Commit a model and one that shares most of it; return the second one's file."""
    mount.commit("mnist", {"model.bin": MODEL})
    return mount.commit("mnist", {"model.bin": TUNED}) / "model.bin"


def handles(mount) -> int:
    return mount.status()["passthrough"]["handles"]


@pytest.fixture
def can_pass(registry_mount) -> bool:
    return registry_mount.status()["passthrough"]["available"]


def test_a_pinned_file_goes_by_passthrough(registry_mount, can_pass):
    mount = registry_mount
    file = commit_both(mount)
    assert "cached: stored as extents" == read_path(file)
    assert TUNED == file.read_bytes()

    assert (
        "pinned default/default/mnist:v1: 1 copy, 12 MiB\n" == mount.cli("pin", "mnist:v1").stdout
    )
    (pin,) = json.loads(mount.cli("pin", "--json").stdout)
    assert ("default/default/mnist:v1", True) == (pin["version"], pin["complete"])
    cache = mount.status()["cache"]
    assert (len(TUNED), 1, len(TUNED)) == (cache["used"], cache["files"], cache["pinned"])
    assert cache["limit"] > 0
    if can_pass:
        assert "passthrough: coalesced" == read_path(file)
    with file.open("rb") as opened:
        assert (1 if can_pass else 0) == handles(mount)
        assert TUNED == opened.read()

    mount.cli("unpin", "mnist:v1")
    assert "[]" == mount.cli("pin", "--json").stdout.strip()
    assert TUNED == file.read_bytes()


def test_an_open_file_stays_on_its_path_until_it_is_closed(registry_mount, can_pass):
    mount = registry_mount
    file = commit_both(mount)
    with file.open("rb") as first:
        half = first.read(3 * MIB)
        mount.cli("pin", "mnist:v1")
        with file.open("rb") as second:
            assert TUNED == second.read()
            assert 0 == handles(mount)
        assert half + first.read() == TUNED
    with file.open("rb") as third:
        assert (1 if can_pass else 0) == handles(mount)
        whole = next((mount.store / "cache/whole").glob("??/*"))
        whole.unlink()
        assert TUNED == third.read()
    assert "cached: stored as extents" == read_path(file)
    assert TUNED == file.read_bytes()


def test_what_aliases_point_at_becomes_whole_in_the_background(make_mount, wait_until):
    mount = make_mount(options=("-o", "coalesce=aliased"))
    mount.init()
    mount.start()
    if not mount.status()["passthrough"]["available"]:
        pytest.skip("nobody would read the copies")
    file = commit_both(mount)
    assert "cached: stored as extents" == read_path(file)

    mount.control("ln -sf artifacts/mnist/v1 collections/classifier/production")

    wait_until(lambda: read_path(file) == "passthrough: coalesced", "the copy is made")
    assert TUNED == (mount.path / "collections/classifier/production/model.bin").read_bytes()
    assert "aliased" == mount.status()["coalesce"]

    mount.cli("rm", "mnist:v1", "--force")
    wait_until(lambda: not mount.status()["cache"]["files"], "the copy goes with its version")


def test_the_limit_is_kept_and_can_be_set(make_mount, wait_until):
    mount = make_mount(options=("-o", "cache_size=4M"), environment={"MREGFS_COALESCE": "aliased"})
    mount.init()
    mount.start()
    file = commit_both(mount)
    mount.control("ln mnist:v1 mnist:best")

    assert 4 * MIB == mount.status()["cache"]["limit"]
    assert "aliased" == mount.status()["coalesce"]
    refused = mount.cli("pin", "mnist:best", check=False)
    assert 10 == refused.returncode
    assert "cache_size" in refused.stderr
    assert TUNED == file.read_bytes()
    assert 0 == mount.status()["cache"]["used"]


def test_turned_off_no_copy_is_read(make_mount):
    mount = make_mount(options=("-o", "coalesce=off"))
    mount.init()
    mount.start()
    file = commit_both(mount)
    mount.cli("pin", "mnist:v1")

    assert "cached: stored as extents" == read_path(file)
    assert TUNED == file.read_bytes()


@pytest.mark.parametrize("option", ["coalesce=perhaps", "cache_size=much", "verify=never"])
def test_a_value_that_means_nothing_is_refused(make_mount, option):
    mount = make_mount()
    mount.init()
    refused = mount.cli("mount", mount.store, mount.path, "-o", option, check=False)

    assert 5 == refused.returncode
    assert option.partition("=")[2] in refused.stderr
