"""Mounts of stores that are not all they should be: what works without, works."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own."""
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "mregfs-test", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


@pytest.mark.parametrize("staging", [True, False])
@pytest.mark.parametrize("options", [("--read-only",), ()])
def test_a_store_on_a_read_only_disk_that_was_never_mounted_is(
    make_mount, disk, tmp_path, staging, options
) -> None:
    """It has no drafts; where a project has some, they are there to be read."""
    mount = make_mount(options=options)
    mount.expect_log("cannot be written by this user: mounting it read-only")
    mount.store = disk / "store"
    mount.environment |= {"MREGFS_STORE": str(mount.store), "XDG_STATE_HOME": str(tmp_path / "c")}
    mount.init()
    (tmp_path / "model").mkdir()
    (tmp_path / "model/weights").write_bytes(b"weights")
    mount.cli("commit", tmp_path / "model", "mnist")
    if not staging:
        (mount.store / "staging").rmdir()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    mount.start()

    assert [".mregfs", "artifacts", "collections", "projects"] == sorted(os.listdir(mount.path))
    assert b"weights" == (mount.path / "artifacts/mnist/v0/weights").read_bytes()
    for command in ("ls staging", "mkdir staging/run", "cat staging/run/file"):
        assert "No such file" in mount.sh(command, check=False).stderr
    assert {} == mount.status()["drafts"]
    mount.sh("df .")
    mount.stop()

    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    (mount.store / "staging/default/default/run").mkdir(parents=True)
    (mount.store / "staging/default/default/run/file").write_bytes(b"draft")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    mount.start()
    assert b"draft" == (mount.path / "staging/run/file").read_bytes()


def test_a_cache_that_is_not_usable_keeps_no_mount_from_being(make_mount) -> None:
    """Whole-file copies are for speed; but a size that was asked for is set, or refused."""
    mount = make_mount()
    mount.init()
    (mount.store / "cache/whole/lock").mkdir(parents=True)
    mount.expect_log("the cache of whole-file copies is left as it is: cannot use the cache")
    mount.start()
    version = mount.commit("mnist", {"config.json": b"{}"})

    assert b"{}" == (version / "config.json").read_bytes()
    mount.stop()
    assert "left as it is" in mount.log.read_text()
    words = ("mount", mount.store, mount.path, "-o", "cache_size=4M")
    assert 0 != mount.cli(*words, check=False).returncode


@pytest.mark.parametrize("said", ["option", "variable"])
def test_the_index_of_a_mount_may_be_kept_elsewhere(make_mount, tmp_path, said) -> None:
    """By the mount itself and by `mregfs mount` in the background; the store holds none then."""
    place = tmp_path / "host"
    options = ("-o", f"host_directory={place}")
    mount = make_mount(options=options if said == "option" else ())
    if said == "variable":
        mount.environment["MREGFS_HOST_DIRECTORY"] = str(place)
    mount.init()
    mount.start()
    mount.commit("mnist", {"weights": b"weights"})

    (index,) = place.glob("*/index")
    assert 0o700 == index.parent.stat().st_mode & 0o777
    # A verb that is not told looks by an index of its own.
    own = index if said == "variable" else mount.store / "index"
    assert str(own) == json.loads(mount.cli("status", "--json").stdout)["store"]["index"]
    shutil.rmtree(place)
    mount.commit("mnist", {"weights": b"other weights"})
    assert ["v0", "v1"] == sorted(os.listdir(mount.path / "artifacts/mnist"))[-2:]

    mount.stop()
    shutil.rmtree(place, ignore_errors=True)
    mount.cli(
        "mount", mount.store, mount.path, *(options * (said == "option")),
        "--log-file", tmp_path / "daemon.log",
    )  # fmt: skip
    assert b"weights" == (mount.path / "artifacts/mnist/v0/weights").read_bytes()
    assert [index] == list(place.glob("*/index"))
    mount.cli("umount", mount.path)
