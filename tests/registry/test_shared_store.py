"""A store that several users write in, root among them; each in a process of his own."""

import os
import random
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import mregfs
from mregfs.api import init_store
from tests.registry.rig import write_files

OWNER, GROUP, MEMBER = 1001, 2000, 1002


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    if os.geteuid() != 0:
        pytest.skip("becoming somebody else needs root")
    for path in (tmp_path, *tmp_path.parents[:3]):
        path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o055)
    # Loads every module: the children may not look into root's Python.
    init_store(tmp_path / "other")
    with mregfs.Registry(tmp_path / "other") as registry:
        commit_in_pieces(registry, tmp_path / "first")
        registry.pin("first:v1")
    store = tmp_path / "store"
    init_store(store)
    with mregfs.Registry(store) as registry:
        registry.run("access --writers '*'")
    for path in (store, *store.rglob("*")):
        os.chown(path, OWNER, GROUP)
        path.chmod(0o2775 if path.is_dir() else 0o444)
    return store


def as_user(uid: int, function: Callable[[], None]) -> None:
    """Run a function in a child that is `uid`, in the group of the store, with umask 022."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.umask(0o022)
            if uid:
                os.setgroups([GROUP])
                os.setgid(uid)
                os.setuid(uid)
            function()
            code = 0
        finally:
            if code:
                sys.excepthook(*sys.exc_info())
            os._exit(code)
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_root_locks_nobody_out(shared: Path, tmp_path: Path) -> None:
    def commit(number: int) -> None:
        with mregfs.Registry(shared) as registry:
            for turn in range(8):
                out = tmp_path / f"out-{number}-{turn}"
                write_files(out, {"weights": os.urandom(200_000), "small": os.urandom(99)})
                registry.commit(out, "mnist")
            assert str(shared / "index") == os.fspath(registry.store.index.path)

    tmp_path.chmod(0o777)
    for number, uid in enumerate((0, OWNER, MEMBER, 0, OWNER)):
        as_user(uid, lambda number=number: commit(number))

    check_modes(shared)


def check_modes(store: Path) -> None:
    """All of a store of a group is the group's."""
    for path in store.rglob("*"):
        found = path.stat()
        if path.is_dir():
            assert 0o2775 == stat.S_IMODE(found.st_mode), path
        elif path.parent.name == "index" or path.name in ("lock", "pins.json"):
            assert 0o664 == stat.S_IMODE(found.st_mode), path
        else:
            assert 0o444 == stat.S_IMODE(found.st_mode), path
        assert found.st_gid == GROUP, path
        assert found.st_uid in (OWNER, MEMBER), path


def commit_in_pieces(registry: mregfs.Registry, out: Path) -> None:
    """Commit a model, and one that shares most of it: a pin makes a copy of that one."""
    chance = random.Random(out.name)
    data = chance.randbytes(4 << 20)
    for number, content in enumerate((data, data[: 3 << 20] + chance.randbytes(60_000))):
        write_files(out / str(number), {"weights": content})
        registry.commit(out / str(number), out.name)


def test_the_cache_is_the_groups(shared: Path, tmp_path: Path) -> None:
    """Whoever was first, every member may pin, evict and unpin."""

    def pin(name: str) -> None:
        with mregfs.Registry(shared) as registry:
            commit_in_pieces(registry, tmp_path / name)
            pin = registry.pin(f"{name}:v1")
            assert (1, True) == (pin.files, pin.complete)
            whole = registry.store.whole_files
            whole.set_limit(None)
            for pinned in registry.pinned():
                registry.unpin(pinned.version)
            whole.set_limit(1 << 20)
            assert {} == whole.files()
            whole.set_limit(100 << 20)
            assert registry.pin(f"{name}:v1").complete

    tmp_path.chmod(0o777)
    for name, uid in (("root", 0), ("member", MEMBER), ("owner", OWNER), ("again", 0)):
        as_user(uid, lambda name=name: pin(name))

    check_modes(shared)


@pytest.mark.parametrize("uid", [0, OWNER])
def test_a_umask_takes_nothing_from_readers(shared: Path, tmp_path: Path, uid: int) -> None:
    """Everybody may read what a process with umask 077 wrote: log entries, packs, copies."""

    def write() -> None:
        os.umask(0o077)
        with mregfs.Registry(shared) as registry:
            store = registry.store
            commit_in_pieces(registry, tmp_path / "mnist")
            store.objects.keep_spares(4096)
            assert store.objects._spares is not None
            store.objects._spares.fill()
            store.objects.create("log/spare", bytes(4096))
            registry.pin("mnist:v1")

    tmp_path.chmod(0o777)
    as_user(uid, write)

    check_modes(shared)
    assert {"cache", "index", "layouts", "log", "manifests", "packs"} <= set(os.listdir(shared))
