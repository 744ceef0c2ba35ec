"""The Python API: what a program says and gets."""

import grp
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

import mregfs
from mregfs.api import init_store, open_store
from mregfs.errors import (
    ConflictError,
    ExistsError,
    ForbiddenError,
    ImmutableError,
    InvalidError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
)
from tests.registry.rig import write_files

FILES = {"config.json": b"{}", "sub/weights": b"w" * 10_000}


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[mregfs.Registry]:
    init_store(tmp_path / "store")
    with mregfs.Registry(tmp_path / "store", author="ann") as opened:
        yield opened


@pytest.fixture
def out(tmp_path: Path) -> Path:
    write_files(tmp_path / "out", FILES)
    return tmp_path / "out"


def test_load_ahead_leaves_no_import_to_the_first_commit(tmp_path: Path, out: Path) -> None:
    """Nothing of ours and no chunker is imported by a commit after it."""
    (out / "large").write_bytes(os.urandom(2 << 20))
    code = (
        "import sys; from mregfs.api import init_store, open_store\n"
        "from mregfs.model import operands; from mregfs.model.commands import Principal\n"
        "from mregfs.model.grammar import Statement\n"
        "from mregfs.registry.write.changes import OneSource\n"
        "from mregfs.model.names import DEFAULT_PROJECT\n"
        "init_store('store'); store = open_store('store'); store.changes; store.load_ahead()\n"
        "before = set(sys.modules)\n"
        "request = operands.commit_request('out', 'mnist', DEFAULT_PROJECT)\n"
        "source = OneSource(lambda: store.open_intake('out'))\n"
        "who = Principal('ann', privileged=True)\n"
        "store.changes.submit([Statement(request)], who, source)\n"
        "new = set(sys.modules) - before\n"
        "print(sorted(m for m in new if m.startswith(('mregfs', 'pyfastcdc'))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "[]\n" == done.stdout


def test_a_day_in_the_life(registry: mregfs.Registry, out: Path) -> None:
    """Commit, link, promote, roll back, look, read."""
    result = registry.commit(out, "mnist", aliases=["best"], metadata={"loss": 0.5}, tags=["a"])
    assert "v0" == result["version"]
    (out / "config.json").write_bytes(b"[]")
    result = registry.commit(out, "mnist", parents=["mnist:v0"], link="prod:live", reason="new")
    assert ("v1", "v0") == (result["version"], result["link"]["version"])
    registry.link("mnist:best", "prod:live", expect="v0")
    assert "v0" == registry.get("prod:live").version
    assert ("v1", ("live", "latest")) == (
        registry.get("prod:live").number,
        tuple(sorted(registry.get("prod:live").aliases, reverse=True)),
    )
    registry.rollback("prod:live")
    info = registry.get("prod:live")
    assert ("v1", "v0", "mnist") == (info.version, info.number, info.artifact)
    assert ("default/default/mnist:v0",) == info.parents
    assert ("default/default/prod:v0",) == info.links
    assert b"[]" == registry.read("prod:live", "config.json")
    assert ["v1", "v0"] == [each.version for each in registry.versions("mnist")]
    assert ["v1", "v0"] == [each.number for each in registry.versions("prod")]
    owner = registry.owner("prod")
    assert ("collection", "model", 2, {"latest": "v1", "live": "v0"}) == (
        owner.kind,
        owner.type,
        owner.versions,
        owner.aliases,
    )
    assert ["mnist"] == [each.name for each in registry.artifacts()]
    assert ["prod"] == [each.name for each in registry.collections("default")]
    assert ["default/default"] == registry.projects()
    with pytest.raises(ConflictError):
        registry.link("mnist:best", "prod:live", expect="v7")


def test_changing(registry: mregfs.Registry, out: Path) -> None:
    """Each operation has a method."""
    registry.create_artifact("mnist", "dataset")
    registry.create_collection("prod", description="what is served")
    registry.commit(out, "mnist")
    registry.link("mnist:v0", "prod:live")
    registry.move_alias("mnist:v0", "mnist:best")
    registry.tag("mnist:v0", ["x", "y"])
    registry.tag("mnist:v0", remove=["x"])
    registry.describe("prod", "better words")
    registry.set_metadata("mnist:v0", {"a": 1, "b": [2]})
    registry.set_metadata("mnist:v0", {}, ["a"])
    registry.protect("prod:live", "daemon")
    registry.unprotect("prod:live")
    registry.move("collections/prod", "collections/serving")
    info = registry.get("mnist:best")
    assert (("y",), {"b": [2]}) == (info.tags, info.metadata)
    owner = registry.owner("serving")
    assert ("better words", "dataset") == (owner.description, owner.type)
    registry.remove("serving:live")
    with pytest.raises(ConflictError):
        registry.remove("mnist:v0")
    registry.remove("mnist:v0", force=True)
    assert 0 == registry.owner("mnist").versions


def test_a_group_is_a_name_or_a_number_that_this_host_knows(
    registry: mregfs.Registry, out: Path
) -> None:
    registry.commit(out, "mnist", link="prod:live")
    for group in ("no-such-group", "123456789", "00", "-1", "99999999999999999999"):
        with pytest.raises(InvalidError, match="on this host"):
            registry.protect("prod:live", group)
        with pytest.raises(InvalidError, match="on this host"):
            registry.run(f"protect prod:live --group={group}")
    registry.protect("prod:live", str(os.getegid()))
    registry.remove("prod:live")


def test_a_mount_knows_its_callers_groups_by_name_and_number() -> None:
    from mregfs.host.callers import groups_of_process
    from mregfs.host.principals import principal

    gids = {os.getegid(), *groups_of_process(os.getpid())}
    groups = principal(os.geteuid(), gids, owner=0).groups
    assert all(str(gid) in groups for gid in (os.getegid(), *os.getgroups()))
    assert "4294967294" not in groups
    assert grp.getgrgid(os.getegid()).gr_name in groups


def test_scripts(registry: mregfs.Registry, out: Path) -> None:
    """The control file's language, all or nothing."""
    registry.commit(out, "mnist")
    results = registry.run("ln mnist:v0 prod:live\ntag mnist +good  # why not\n", reason="r")
    assert 2 == len(results)
    (line, *_) = registry.history("prod:live")
    assert ("live: nothing -> v0", "r", "ann (root)") == (line.what, line.reason, line.author)
    with pytest.raises(NotFoundError):
        registry.run("rm prod:live\nrm prod:nothing")
    assert "v0" == registry.get("prod:live").number
    with pytest.raises(UnsupportedError, match="in its mount"):
        registry.run("commit run-1 mnist")
    with pytest.raises(InvalidError, match="no command"):
        registry.run("# nothing\n")


def test_reading(registry: mregfs.Registry, out: Path, tmp_path: Path) -> None:
    """File objects, lists, exports."""
    (out / "sub" / "link").symlink_to("../config.json")
    (out / "sub" / "run.sh").write_bytes(b"#!")
    (out / "sub" / "run.sh").chmod(0o755)
    (out / "empty").mkdir()
    registry.commit(out, "mnist")
    with registry.open("mnist", "sub/weights") as file:
        assert b"www" == file.read(3)
        assert 9_999 == file.seek(-1, os.SEEK_END)
        assert (b"w", b"") == (file.read(), file.read())
    assert b"{}" == registry.read("mnist", "sub/link")
    assert ["config.json", "empty", "sub", "sub/link", "sub/run.sh", "sub/weights"] == [
        each.path for each in registry.files("mnist")
    ]
    assert ["sub/link", "sub/run.sh", "sub/weights"] == [
        each.path for each in registry.files("mnist", "sub")
    ]
    assert ["sub/weights"] == [each.path for each in registry.files("mnist", "sub/weights")]
    with pytest.raises(NotFoundError):
        registry.open("mnist", "nothing")
    with pytest.raises(InvalidError):
        registry.open("mnist", "sub")
    registry.export("mnist", str(tmp_path / "copy"))
    assert 0 == subprocess.run(["diff", "-r", out, tmp_path / "copy"], check=False).returncode
    assert os.access(tmp_path / "copy" / "sub" / "run.sh", os.X_OK)
    assert "../config.json" == os.readlink(tmp_path / "copy" / "sub" / "link")
    with pytest.raises(ExistsError):
        registry.export("mnist", str(tmp_path / "copy"))


def test_an_export_that_fails_leaves_nothing(
    registry: mregfs.Registry, out: Path, tmp_path: Path, expected_warnings: Any
) -> None:
    """Neither half of the files nor the directory."""
    expected_warnings.expect("no pack")
    registry.commit(out, "mnist")
    for pack in registry.store.packs.list():
        registry.store.packs.delete(pack)
    with pytest.raises(mregfs.errors.CorruptError):
        registry.export("mnist", str(tmp_path / "copy"))
    assert not (tmp_path / "copy").exists()


def test_circular_symlinks(registry: mregfs.Registry, out: Path) -> None:
    """Are not followed for ever."""
    (out / "a").symlink_to("b")
    (out / "b").symlink_to("a")
    registry.commit(out, "mnist")
    with pytest.raises(InvalidError, match="circle"):
        registry.open("mnist", "a")


def test_diff(registry: mregfs.Registry, out: Path) -> None:
    """Files that came, went and changed."""
    (out / "link").symlink_to("config.json")
    (out / "same").write_bytes(b"same")
    registry.commit(out, "mnist")
    (out / "link").unlink()
    (out / "link").symlink_to("same")
    (out / "config.json").rename(out / "renamed.json")
    (out / "sub" / "weights").chmod(0o755)
    (out / "same").write_bytes(b"other")
    registry.commit(out, "mnist")
    found = registry.diff("mnist:v0", "mnist:v1")
    assert ["renamed.json"] == [each.path for each in found.added]
    assert ["config.json"] == [each.path for each in found.removed]
    assert {"link": "target", "same": "content", "sub/weights": "executable"} == {
        each.path: each.what for each in found.changed
    }


def test_diff_of_tensors(registry: mregfs.Registry, out: Path) -> None:
    """Says which tensors changed, and how."""
    from safetensors.numpy import save_file

    np = pytest.importorskip("numpy")
    tensors = {name: np.zeros((4, 4), np.float32) for name in ("same", "values", "shape", "gone")}
    save_file(tensors, out / "m.safetensors")
    registry.commit(out, "mnist")
    tensors["values"] = tensors["values"] + 1
    tensors["shape"] = np.zeros((2, 8), np.float32)
    tensors["new"] = tensors.pop("gone")
    save_file(tensors, out / "m.safetensors")
    registry.commit(out, "mnist")
    (changed,) = registry.diff("mnist:v0", "mnist:v1").changed
    assert (
        "gone: removed, F32 [4, 4]",
        "new: added, F32 [4, 4]",
        "shape: F32 [4, 4] -> F32 [2, 8]",
        "values: values changed",
    ) == changed.tensors


def test_history(registry: mregfs.Registry, out: Path) -> None:
    """Of an artifact, a version, a collection; newest first, across a rename."""
    registry.commit(out, "mnist", aliases=["best"])
    registry.link("mnist:v0", "prod:live")
    registry.tag("mnist:v0", ["good"])
    registry.move("collections/prod", "collections/serving")
    registry.remove("serving:live")

    def told(ref: str) -> list[str]:
        return [line.what for line in registry.history(ref)]

    assert [
        "v0 tags: good",
        "v0 linked into default/default/prod as v0",
        "best: nothing -> v0",
        "v0 committed: 2 files, 10002 bytes",
    ] == told("mnist:v0")
    assert "created, of type model" == told("mnist")[-1]
    assert [
        "live: v0 -> nothing",
        "renamed from prod",
        "live: nothing -> v0",
        "v0 linked: default/default/mnist:v0",
        "created, of type model",
    ] == told("serving")
    assert ["live: v0 -> nothing", "live: nothing -> v0"] == told("serving:live")
    with pytest.raises(NotFoundError):
        registry.history("prod")


def test_history_knows_one_life_of_a_name(registry: mregfs.Registry, out: Path) -> None:
    """What an earlier collection of that name did is not told of the new one."""
    registry.create_collection("prod")
    registry.remove("prod")
    registry.create_collection("prod", "dataset")
    assert ["created, of type dataset"] == [line.what for line in registry.history("prod")]


def test_many_versions(registry: mregfs.Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists are read in batches, and complete."""
    from mregfs.registry.read import catalog
    from tests.registry.rig import PRINCIPAL, version

    monkeypatch.setattr(catalog, "_BATCH", 3)
    for number in range(7):
        registry.store.log.submit([version("mnist", number)], PRINCIPAL)
        registry.create_collection(f"c{number}")
        registry.link(f"mnist:v{number}", "prod")
    expected = [f"v{number}" for number in range(6, -1, -1)]
    assert expected == [info.version for info in registry.versions("mnist")]
    assert expected == [info.number for info in registry.versions("prod")]
    assert [*(f"c{n}" for n in range(7)), "prod"] == [each.name for each in registry.collections()]


def test_events(registry: mregfs.Registry) -> None:
    """One dict for each log entry, those of the past first."""
    for name in "abc":
        registry.create_collection(name, reason=f"because {name}")
    found = list(islice(registry.events(1), 2))
    assert [2, 3] == [event["sequence"] for event in found]
    assert "because c" == found[-1]["changes"][-1]["reason"]


def test_waiting(registry: mregfs.Registry, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until a reference resolves, or resolves to something else."""
    from mregfs.api import in_store as module

    monkeypatch.setattr(module, "POLL_SECONDS", 0.001)
    with pytest.raises(UnavailableError, match=r"0\.01 seconds"):
        registry.wait("mnist", timeout=0.01)
    registry.commit(out, "mnist")
    first = registry.wait("mnist")
    assert "v0" == first.version
    for same in ("v0", first.digest[:12], "mnist:v0"):
        with pytest.raises(UnavailableError):
            registry.wait("mnist", changed_from=same, timeout=0.01)

    def commit_later() -> None:
        (out / "config.json").write_bytes(b"changed")
        registry.commit(out, "mnist")

    thread = threading.Thread(target=commit_later)
    thread.start()
    assert "v1" == registry.wait("mnist", changed_from="v0", timeout=20).version
    thread.join()


def test_paths(registry: mregfs.Registry, out: Path) -> None:
    """Of the version's own directory, which never changes."""
    registry.commit(out, "mnist", aliases=["best"])
    registry.link("mnist:best", "prod:live")
    assert "artifacts/mnist/v0" == registry.path("prod:live")
    assert "/models/artifacts/mnist/v0" == registry.path("mnist:best", "/models")
    registry.commit(out, "other/mnist")
    assert "projects/default/other/artifacts/mnist/v0" == registry.path("other/mnist")


def test_figures(registry: mregfs.Registry, out: Path) -> None:
    """Status and usage."""
    registry.commit(out, "mnist")
    status = registry.status()
    assert (1, 1, 1, 0) == tuple(
        status[name] for name in ("entries", "versions", "artifacts", "collections")
    )
    assert (10_002, 2) == (registry.usage("mnist:v0").logical, registry.usage().files)
    assert 1 == registry.reindex()
    assert "v0" == registry.get("mnist").version


def test_stores(tmp_path: Path) -> None:
    """Made once; recognised; refused when newer or when there is none."""
    path = tmp_path / "store"
    with pytest.raises(InvalidError, match=r"is not a store: make one with: mregfs init"):
        open_store(path)
    init_store(path)
    with pytest.raises(ExistsError, match="is a store already"):
        init_store(path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ExistsError, match="is not empty"):
        init_store(tmp_path / "full")
    with pytest.raises(ExistsError, match="not a directory"):
        init_store(tmp_path / "full" / "file")
    description = path / "store.json"
    text = description.read_bytes()
    description.chmod(0o644)
    description.write_bytes(text.replace(b'"format":1', b'"format":2'))
    with pytest.raises(UnsupportedError, match=r"made by a newer mregfs \(format 2\): upgrade"):
        open_store(path)
    for damage in (b"", b"{}", b"[]", b'{"format":1,"id":"x","created_at":""}', b"\xff"):
        description.write_bytes(damage)
        with pytest.raises(InvalidError, match=r"store\.json is damaged"):
            open_store(path)


def test_read_only(tmp_path: Path, out: Path) -> None:
    """Everything can be seen, nothing changed."""
    init_store(tmp_path / "store")
    with mregfs.Registry(tmp_path / "store") as registry:
        registry.commit(out, "mnist")
    with mregfs.Registry(tmp_path / "store", read_only=True) as registry:
        assert b"{}" == registry.read("mnist", "config.json")
        for change in (
            lambda: registry.commit(out, "mnist"),
            lambda: registry.tag("mnist", ["x"]),
            lambda: registry.run("tag mnist +x"),
        ):
            with pytest.raises(ImmutableError):
                change()


def test_the_index_of_a_store_that_is_not_ours(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may not write in the store has an index of his own elsewhere."""
    init_store(tmp_path / "store")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with mregfs.Registry(tmp_path / "store") as registry:
        registry.commit(out, "mnist")
        identity, address = registry.store.id, registry.store.address
    monkeypatch.setattr(os, "access", lambda path, mode, **options: False)
    with mregfs.Registry(tmp_path / "store") as registry:
        assert "v0" == registry.get("mnist").version
        assert registry.store.read_only
    assert [f"{identity}-{address.digest}"] == os.listdir(tmp_path / "state" / "mregfs")
    assert ["index"] == os.listdir(tmp_path / "state" / "mregfs" / f"{identity}-{address.digest}")


def test_the_index_of_a_user_without_a_home(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in a temporary directory that is his alone, the same one every time."""
    init_store(tmp_path / "store")
    with mregfs.Registry(tmp_path / "store") as registry:
        registry.commit(out, "mnist")
        identity = registry.store.id
    (tmp_path / "file").touch()
    runtime = tmp_path / "run"
    runtime.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("mregfs.config.ROOT_HOME", tmp_path / "file")
    monkeypatch.setattr("pwd.getpwuid", lambda uid: (_ for _ in ()).throw(KeyError(uid)))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    store = str(tmp_path / "store")
    monkeypatch.setattr(os, "access", lambda path, mode, **options: False)
    private = runtime / f"mregfs-{os.geteuid()}"
    for _ in range(2):
        with mregfs.Registry(store) as registry:
            assert "v0" == registry.get("mnist").version
        assert [identity] == [each.name.partition("-")[0] for each in private.iterdir()]
        assert 0o700 == private.stat().st_mode & 0o777
    private.chmod(0o755)
    with pytest.raises(ForbiddenError, match="index") as caught:
        mregfs.Registry(store)
    assert "MREGFS_HOST_DIRECTORY" in str(caught.value)


def test_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which store, which author: the environment may say."""
    from mregfs import config

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert tmp_path / "mregfs" == config.default_store()
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert config.default_store().is_absolute()
    monkeypatch.setenv("MREGFS_AUTHOR", "somebody")
    assert "somebody" == config.said_author()
    monkeypatch.delenv("MREGFS_AUTHOR")
    assert "" == config.said_author()


@pytest.mark.slow
def test_processes_at_the_same_time(tmp_path: Path) -> None:
    """Four processes commit to one artifact: every number is given once, every file can be read."""
    init_store(tmp_path / "store")
    program = """
import pathlib, sys, mregfs
store, worker = sys.argv[1:]
out = pathlib.Path(store).parent / worker
out.mkdir()
with mregfs.Registry(store) as registry:
    for step in range(8):
        (out / "w").write_bytes(f"{worker} {step} ".encode() * 1000)
        print(registry.commit(out, "mnist", aliases=[worker])["version"])
"""
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", program, tmp_path / "store", f"w{number}"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    numbers = [line for worker in workers for line in worker.communicate()[0].split()]
    assert [0] * 4 == [worker.returncode for worker in workers]
    assert {f"v{number}" for number in range(32)} == set(numbers)
    assert 32 == len(numbers)
    with mregfs.Registry(tmp_path / "store") as registry:
        contents = {registry.read(f"mnist:v{number}", "w") for number in range(32)}
        assert {f"w{w} {s} ".encode() * 1000 for w in range(4) for s in range(8)} == contents
        assert {"latest": "v31"}.items() <= registry.owner("mnist").aliases.items()
