"""What a host keeps of a store: where, whose, and never of two stores in one place."""

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import mregfs
from mregfs.api import init_store, open_store
from mregfs.config import host_homes
from mregfs.errors import ForbiddenError
from mregfs.model.names import DEFAULT_PROJECT
from mregfs.model.reference import parse_location
from mregfs.wiring.address import StoreAddress
from mregfs.wiring.holding import hold_store
from mregfs.wiring.host_directories import HostDirectories
from mregfs.wiring.opening import open_index
from mregfs.wiring.store import Store
from tests.registry.rig import commit, write_files

BUCKET = StoreAddress.parse("s3://bucket/models")
ID = "ab" * 16


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("MREGFS_HOST_DIRECTORY", raising=False)
    return tmp_path / "state" / "mregfs"


def of_bucket(address: StoreAddress = BUCKET, said: str | None = None) -> HostDirectories:
    return HostDirectories(address, ID, within=None, index_within=False, said=said)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_of_a_bucket_everything_is_in_one_directory_of_this_users_alone(home: Path) -> None:
    before = os.umask(0)
    try:
        host = of_bucket()
        index = next(host.for_index())
    finally:
        os.umask(before)
    expected = home / f"{ID}-{BUCKET.digest}"

    assert {str(expected)} == {host.cache.path, host.drafts.path, index.path}
    assert [0o700, 0o700] == [mode_of(home), mode_of(expected)]
    assert os.geteuid() == expected.stat().st_uid
    index.close()
    host.close()


def test_two_addresses_of_one_id_share_nothing() -> None:
    one, other = of_bucket(), of_bucket(StoreAddress.parse("s3://bucket/copy"))

    assert one.cache.identity != other.cache.identity
    one.close()
    other.close()


def test_rights_that_others_have_are_taken_away(home: Path) -> None:
    of_bucket().cache.close()
    own = home / f"{ID}-{BUCKET.digest}"
    home.chmod(0o777)
    own.chmod(0o755)

    host = of_bucket()

    assert str(own) == host.cache.path
    assert [0o755, 0o700] == [mode_of(home), mode_of(own)]
    host.close()


@pytest.mark.parametrize("planted", ["symlink", "file", "others write"])
def test_what_is_not_this_users_alone_is_not_used(
    home: Path, tmp_path: Path, planted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mregfs.config.ROOT_HOME", tmp_path / "next")
    monkeypatch.setenv("HOME", str(tmp_path / "next"))
    own = home / f"{ID}-{BUCKET.digest}"
    home.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    if planted == "symlink":
        own.symlink_to(tmp_path / "elsewhere")
    elif planted == "file":
        own.touch()
    else:
        own.mkdir(mode=0o777)
        own.chmod(0o777)
    before = own.lstat()

    host = of_bucket()

    assert host.cache.path.startswith(str(tmp_path / "next"))
    assert [] == os.listdir(tmp_path / "elsewhere")
    assert before == own.lstat()
    host.close()


def test_a_directory_that_was_named_is_used_or_refused(tmp_path: Path, home: Path) -> None:
    said = tmp_path / "said"
    host = of_bucket(said=str(said))
    assert str(said / f"{ID}-{BUCKET.digest}") == host.cache.path
    host.close()
    said.chmod(0o777)
    with pytest.raises(ForbiddenError, match="chmod go-w"):
        _ = of_bucket(said=str(said)).cache
    assert 0o777 == mode_of(said)
    assert not home.exists()


def test_of_another_user_it_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving a directory away needs root")
    (tmp_path / "said").mkdir()
    os.chown(tmp_path / "said", 65534, 65534)

    with pytest.raises(ForbiddenError, match="uid 65534"):
        _ = of_bucket(said=str(tmp_path / "said")).cache


def test_a_user_without_any_place_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mregfs.wiring.host_directories.host_homes", lambda: iter(()))
    with pytest.raises(ForbiddenError, match="set MREGFS_HOST_DIRECTORY"):
        _ = of_bucket().cache


def test_a_directory_that_is_removed_is_made_again(tmp_path: Path, home: Path) -> None:
    """The index goes on meanwhile: what was in it comes from the log."""
    init_store(tmp_path / "store")
    write_files(tmp_path / "out", {"config.json": b"{}"})
    with mregfs.Registry(tmp_path / "store") as registry:
        registry.commit(tmp_path / "out", "mnist")
    store = open_store(tmp_path / "store", host_directory=str(tmp_path / "said"))
    store.log.catch_up()
    shutil.rmtree(tmp_path / "said")

    assert 1 == store.log.catch_up()
    assert [store.index.path] == [str(path) for path in (tmp_path / "said").glob("*/index")]
    assert not (tmp_path / "store" / "index" / "data.mdb").samefile(f"{store.index.path}/data.mdb")
    store.close()


def test_a_directory_store_keeps_all_but_the_index_where_its_packs_are(
    tmp_path: Path, home: Path
) -> None:
    init_store(tmp_path / "store")
    store = open_store(tmp_path / "store")
    assert [str(tmp_path / "store")] * 2 == [store.host.cache.path, store.host.drafts.path]
    assert str(tmp_path / "store" / "index") == store.index.path
    store.close()

    store = open_store(tmp_path / "store", host_directory=str(tmp_path / "said"))
    assert [str(tmp_path / "store")] * 2 == [store.host.cache.path, store.host.drafts.path]
    assert store.index.path.startswith(str(tmp_path / "said" / store.id))
    store.close()
    assert not home.exists()


@pytest.fixture(params=["the same file system", "another file system"])
def elsewhere(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    path = tmp_path / "elsewhere"
    path.mkdir()
    if request.param == "the same file system":
        yield path
        return
    if os.geteuid() != 0:
        pytest.skip("mounting a disk needs root")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "none", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


@pytest.fixture
def apart(tmp_path: Path, elsewhere: Path) -> Iterator[Store]:
    """A store whose host keeps its own things as it does of a bucket, in `elsewhere`."""
    init_store(tmp_path / "store")
    held = hold_store(str(tmp_path / "store"))
    host = HostDirectories(
        BUCKET, held.description.id, within=None, index_within=False, said=str(elsewhere)
    )
    store = Store(
        StoreAddress.parse(tmp_path / "store"),
        held,
        host,
        open_index(host, held.objects),
        read_only=False,
        verification="first-read",
    )
    yield store
    store.close()


def test_drafts_and_copies_may_be_kept_apart_from_the_packs(
    tmp_path: Path, elsewhere: Path, apart: Store
) -> None:
    """As of a bucket: staging area, commits under way, index and cache need no room in the store.

    On one file system a draft still becomes a pack without being copied.
    """
    host = apart.host
    before = {each.name for each in (tmp_path / "store").iterdir()}
    data = os.urandom(4 << 20)
    draft = Path(host.drafts.path) / "staging/default/default/run"
    inodes = []
    for number, weights in enumerate((data, data[: 3 << 20] + os.urandom(60_000))):
        write_files(draft, {"weights": weights, "config.json": b"{}"})
        inodes.append((draft / "weights").stat().st_ino)
        assert f"v{number}" == commit(apart, draft)["version"]
        assert not draft.exists()
    apart.coalescer.pin(parse_location("mnist:v1", DEFAULT_PROJECT), None)

    packs = {path.stat().st_ino for path in (tmp_path / "store/packs").rglob("*") if path.is_file()}
    same = elsewhere.stat().st_dev == tmp_path.stat().st_dev
    assert same == (inodes[0] in packs)
    (copy,) = Path(host.cache.path).glob("cache/whole/??/*")
    assert weights == copy.read_bytes()
    assert [] == os.listdir(Path(host.drafts.path) / "intake")
    made = {each.name for each in (tmp_path / "store").iterdir()} - before
    assert made <= {"checkpoints", "layouts", "log", "manifests", "packs", "probe"}


def test_homes_are_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert all(home.is_absolute() for home in host_homes())
