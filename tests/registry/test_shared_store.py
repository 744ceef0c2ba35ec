"""Whose store may be acted on, and what anybody may have put into one."""

import contextlib
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import mregfs
from mregfs.api import init_store, open_store
from mregfs.errors import ForbiddenError, HostError, ImmutableError, MregfsError
from tests.attack.people import import_all
from tests.registry.rig import write_files

pytestmark = pytest.mark.slow

OWNER, OTHER, GROUP = 1001, 1002, 2000


@pytest.fixture(autouse=True)
def _reachable(tmp_path: Path) -> None:
    """Other users get as far as the test's directory."""
    if os.geteuid() != 0:
        pytest.skip("becoming somebody else needs root")
    for path in (tmp_path, *tmp_path.parents[:3]):
        path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o055)
    (tmp_path / "home").mkdir(mode=0o700)
    os.chown(tmp_path / "home", OWNER, GROUP)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("made")
    init_store(place / "store")
    fill(place / "store", place / "out")
    return place / "store"


@pytest.fixture
def store(tmp_path: Path, made: Path) -> Path:
    """A store of root with a version of each kind of file, and a copy that was pinned."""
    shutil.copytree(made, tmp_path / "store", symlinks=True)
    return tmp_path / "store"


def fill(store: Path, out: Path) -> None:
    chance = random.Random(4)  # with other bytes the two may share too little
    data = chance.randbytes(4 << 20)
    with mregfs.Registry(store) as registry:
        for number, content in enumerate((data, data[: 3 << 20] + chance.randbytes(60_000))):
            write_files(out / str(number), {"weights": content, "small": os.urandom(99)})
            registry.commit(out / str(number), "mnist")
        registry.pin("mnist:v1")


def as_user(uid: int, function: Callable[[], None], home: Path | None = None) -> None:
    """Run a function in a child that is `uid`; it must not fail, nor take a minute."""
    import_all()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(60)
            if uid:
                os.setgroups([GROUP])
                os.setgid(GROUP)
                os.setuid(uid)
            if home is not None:
                os.environ["XDG_STATE_HOME"] = str(home)
            function()
            code = 0
        finally:
            if code:
                sys.excepthook(*sys.exc_info())
            os._exit(code)
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def snapshot(*paths: Path) -> dict[str, tuple[object, ...]]:
    """Return all that could be changed about files and directories, and what is in them."""
    found = {}
    for top in paths:
        for path in (top, *sorted(top.rglob("*"))):
            status = path.lstat()
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            found[str(path)] = (
                *(status.st_mode, status.st_uid, status.st_gid, status.st_ino, status.st_mtime_ns),
                content,
            )
    return found


# ---- whose it is


@pytest.mark.parametrize("umask", [0o002, 0o077])
def test_others_read_a_store_and_only_its_owner_writes_in_it(tmp_path: Path, umask: int) -> None:
    """Whatever the umask: what the registry is made of can be read, what it works with cannot."""
    before = os.umask(umask)
    try:
        init_store(tmp_path / "store")
        fill(tmp_path / "store", tmp_path / "out")
    finally:
        os.umask(before)
    store = tmp_path / "store"

    for path in (store, *store.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        relative = path.relative_to(store).parts
        if relative[:1] == ("index",) or path.name == "lock":
            assert (0o700 if path.is_dir() else 0o600) == mode, path
        elif relative[:1] == ("tmp",):  # of use to its owner alone
            assert not mode & 0o022, path
        elif relative[:1] != ("intake",):
            assert (0o755 if path.is_dir() else 0o644 if path.name == "pins.json" else 0o444) == (
                mode
            ), path
        assert 0 == path.stat().st_uid


def test_a_copy_and_its_original_share_no_index(store: Path, tmp_path: Path) -> None:
    """They have one id. To another user each is shown as it is, whichever he looked at before."""
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", store, copy], check=True)

    def tags(of: Path) -> list[str]:
        with mregfs.Registry(of) as registry:
            assert registry.store.log.trouble is None
            return list(registry.get("mnist:v0").tags)

    def look(expected: dict[Path, list[str]]) -> None:
        """Look at both, together and one after the other."""
        with mregfs.Registry(store), mregfs.Registry(copy):
            assert expected == {of: tags(of) for of in (store, copy)}
        assert expected == {of: tags(of) for of in (copy, store)}

    home = tmp_path / "home"
    as_user(OWNER, lambda: look({store: [], copy: []}), home)
    with mregfs.Registry(store) as registry:
        registry.tag("mnist:v0", ["original"])
    as_user(OWNER, lambda: look({store: ["original"], copy: []}), home)
    with mregfs.Registry(copy) as registry:
        registry.tag("mnist:v0", ["copy"])
    as_user(OWNER, lambda: look({store: ["original"], copy: ["copy"]}), home)


def test_who_does_not_own_a_store_only_reads_it(store: Path, tmp_path: Path) -> None:
    before = snapshot(store)

    def look() -> None:
        with mregfs.Registry(store) as registry:
            assert registry.store.read_only
            assert ["v1", "v0"] == [each.version for each in registry.versions("mnist")]
            assert str(tmp_path / "home" / "mregfs") in str(registry.store.index.path)
            with pytest.raises(ImmutableError, match="reading only"):
                registry.tag("mnist:v0", ["x"])

    as_user(OWNER, look, tmp_path / "home")

    assert before == snapshot(store)


def test_a_private_store_is_nobody_elses_to_read(tmp_path: Path) -> None:
    init_store(tmp_path / "store", private=True)
    assert 0o700 == stat.S_IMODE((tmp_path / "store").stat().st_mode)

    def look() -> None:
        with pytest.raises(ForbiddenError, match="mount"):
            open_store(tmp_path / "store")

    as_user(OWNER, look)


def test_a_new_store_is_its_makers_alone(tmp_path: Path) -> None:
    """Also where the directory was there, and others could write in it."""
    (tmp_path / "store").mkdir()
    (tmp_path / "store").chmod(0o2777)

    init_store(tmp_path / "store")

    assert 0o755 == stat.S_IMODE((tmp_path / "store").stat().st_mode) & 0o777
    open_store(tmp_path / "store").close()


def test_root_makes_no_store_in_a_directory_of_another_user(tmp_path: Path) -> None:
    before = snapshot(tmp_path / "home")

    with pytest.raises(ForbiddenError, match="one user's alone"):
        init_store(tmp_path / "home")

    assert before == snapshot(tmp_path / "home")


def test_root_acts_on_no_store_of_another_user(store: Path) -> None:
    """It may hold anything: and so not even an index is made in it."""
    for path in (store, *store.rglob("*")):
        os.chown(path, OWNER, GROUP, follow_symlinks=False)
    before = snapshot(store)

    for read_only in (False, True):
        with pytest.raises(ForbiddenError, match=f"sudo -u '#{OWNER}' mregfs"):
            open_store(store, read_only=read_only)

    assert before == snapshot(store)


@pytest.mark.parametrize("folder", ["", "packs", "tmp", "index", "log", "cache/whole"])
@pytest.mark.parametrize("uid", [0, OWNER])
def test_a_store_that_others_may_write_in_is_refused_until_it_is_mended(
    store: Path, tmp_path: Path, folder: str, uid: int
) -> None:
    """By the line that the refusal says."""
    for path in (store / folder, *(store / folder).iterdir()):
        os.chown(path, 0, GROUP)
        if path.is_dir():
            path.chmod(0o2775)
    said = tmp_path / "said"
    said.touch()
    said.chmod(0o666)

    def refused() -> None:
        with pytest.raises(ForbiddenError, match="others than root may write") as caught:
            open_store(store)
        said.write_text(caught.value.hint)

    as_user(uid, refused, tmp_path / "home")

    line = said.read_text().partition("run: ")[2].partition(";")[0]
    subprocess.run(["sh", "-c", line], check=True)
    with mregfs.Registry(store) as registry:
        assert "v1" == registry.get("mnist").version
    as_user(OWNER, lambda: open_store(store).close(), tmp_path / "home")


def test_no_lock_can_be_opened_by_who_may_not_write(store: Path, tmp_path: Path) -> None:
    """So no stranger can hold one, and stop everybody."""

    def try_all() -> None:
        for name in ("index/gate", "index/guard", "index/lock.mdb", "cache/whole/lock"):
            with pytest.raises(PermissionError):
                os.open(store / name, os.O_RDONLY)

    as_user(OTHER, try_all)

    # Nor one that was made when others could.
    for path in (store / "index", *(store / "index").iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)
    open_store(store).close()
    as_user(OTHER, try_all)


# ---- what may stand where we have our names

NAMES = (
    *("index", "index/gate", "index/guard", "index/lock.mdb", "index/data.mdb"),
    *("tmp", "log", "log/00000000000000000001.json", "log/00000000000000000004.json"),
    *("packs", "packs/??", "packs/??/????????????????????????????????", "packs/tmp"),
    *("layouts", "layouts/*", "manifests", "manifests/??", "manifests/??/*"),
    *("cache", "cache/whole", "cache/whole/lock", "cache/whole/tmp", "cache/whole/pins.json"),
    *("cache/whole/??", "cache/whole/??/????*", "store.json"),
)


def plant(place: Path, kind: str, victim: Path) -> None:
    """Put something in the place of one of our files or directories."""
    aside = place.with_name(".aside")
    was_directory = place.is_dir()
    if os.path.lexists(place):
        place.rename(aside)
    match kind:
        case "symlink":
            place.symlink_to(victim if was_directory else victim / "file")
        case "dangling":
            place.symlink_to(victim / "made")
        case "fifo":
            os.mkfifo(place, 0o666)
        case "device":
            os.mknod(place, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero, without end
        case "file of another":
            place.write_bytes(b"his")
            os.chown(place, OTHER, GROUP)
        case "link to a file of another":
            os.link(victim / "his", place)
        case "directory":
            place.mkdir()
        case "directory of another":
            place.mkdir()
            os.chown(place, OTHER, GROUP)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    made = tmp_path / "victim"
    write_files(made, {"file": b"secret", "his": b"his", "lock": b"", "sub/file": b"more"})
    for path in made.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
        os.utime(path, (0, 0))
    os.chown(made / "his", OTHER, GROUP)
    return made


def do_everything(store: Path, out: Path) -> Iterator[Callable[[], object]]:
    """Yield all that is done on a store, each to be tried."""
    registry = mregfs.Registry(store)
    try:
        yield lambda: registry.versions("mnist")
        yield lambda: registry.open("mnist:v0", "weights").read()
        yield lambda: registry.open("mnist:v1", "weights").read()
        yield lambda: registry.commit(out, "mnist")
        yield lambda: registry.commit(out, "other")
        yield lambda: registry.tag("mnist:v0", ["x"])
        yield lambda: registry.pin("mnist:v1")
        yield lambda: registry.store.whole_files.set_limit(1 << 20)
        yield lambda: registry.fsck(data=True)
        yield registry.store.recover
        yield registry.store.protect_all
        yield lambda: registry.reindex()
    finally:
        registry.close()


KINDS = (
    *("symlink", "dangling", "fifo", "device", "file of another"),
    *("link to a file of another", "directory", "directory of another"),
)


@pytest.mark.parametrize("name", NAMES)
def test_what_was_put_in_the_place_of_our_names_is_never_acted_on(
    made: Path, tmp_path: Path, victim: Path, name: str
) -> None:
    """Nothing of anybody else changes or is published, and nothing waits for ever."""
    out = tmp_path / "new"
    write_files(out, {"weights": os.urandom(2 << 20), "small": os.urandom(50)})
    for number, kind in enumerate(KINDS):
        store = tmp_path / str(number)
        shutil.copytree(made, store, symlinks=True)
        place = next(iter(sorted(store.glob(name))), store / name)
        plant(place, kind, victim)
        before = snapshot(victim)

        def try_all(store: Path = store) -> None:
            with contextlib.suppress(MregfsError):
                for step in do_everything(store, out):
                    with contextlib.suppress(MregfsError):
                        step()

        as_user(0, try_all)

        assert before == snapshot(victim), kind
        published = [
            path
            for path in store.rglob("*")
            if path.is_file()
            and not path.is_symlink()
            and path.stat().st_uid == 0
            and b"secret" in path.read_bytes()
        ]
        assert [] == [path for path in published if ".aside" not in path.parts], kind


# ---- a store that vanishes


def test_a_store_that_was_renamed_goes_on(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "new"
    with mregfs.Registry(store) as registry:
        store.rename(tmp_path / "elsewhere")
        write_files(out, {"more": os.urandom(200_000), "small": b"1"})

        assert "v2" == registry.commit(out, "mnist")["version"]
        assert ["v2", "v1", "v0"] == [each.version for each in registry.versions("mnist")]
        assert b"1" == registry.open("mnist:v2", "small").read()

    assert not store.exists()
    with mregfs.Registry(tmp_path / "elsewhere") as registry:
        assert "v2" == registry.get("mnist").version


def test_a_store_that_was_removed_is_an_error_and_never_empty(
    store: Path, tmp_path: Path, expected_warnings
) -> None:
    """What the index knows stays; nothing is made where the store was; when it is back, all is."""
    from mregfs.registry.read.catalog import Catalog
    from mregfs.stores.index_lmdb import environment

    expected_warnings.expect("is gone, and the log with it")
    expected_warnings.expect("shown as of log entry 2, as .*the directory was removed")
    backup = tmp_path / "backup"
    shutil.copytree(store, backup, symlinks=True)
    out = tmp_path / "new"
    write_files(out, {"more": os.urandom(200_000), "small": b"1"})
    with mregfs.Registry(store) as registry:
        catalog = Catalog(registry.store.index)
        shutil.rmtree(store)
        environment_seconds, environment.CHECK_SECONDS = environment.CHECK_SECONDS, 0.0
        try:
            for _ in range(2):
                assert "v1" == f"v{catalog.resolve(registry._locate('mnist')).version.number}"
                assert ["v1", "v0"] == [each.version for each in registry.versions("mnist")]
                for use in (
                    lambda: registry.commit(out, "mnist"),
                    lambda: registry.tag("mnist:v0", ["x"]),
                ):
                    with pytest.raises(HostError, match="removed") as caught:
                        use()
                    assert 5 == caught.value.errno
            assert not store.exists()

            shutil.copytree(backup, store, symlinks=True)

            assert ["v1", "v0"] == [each.version for each in registry.versions("mnist")]
            assert "v2" == registry.commit(out, "mnist")["version"]
            assert b"1" == registry.open("mnist:v2", "small").read()
        finally:
            environment.CHECK_SECONDS = environment_seconds
    with mregfs.Registry(store) as registry:
        assert "v2" == registry.get("mnist").version


def test_another_store_in_the_place_of_ours_is_not_ours(store: Path, expected_warnings) -> None:
    expected_warnings.expect("is gone, and the log with it")
    expected_warnings.expect("shown as of log entry 2, as .*the directory was removed")
    with mregfs.Registry(store) as registry:
        shutil.rmtree(store)
        init_store(store)

        assert ["v1", "v0"] == [each.version for each in registry.versions("mnist")]
        with pytest.raises(HostError, match="removed"):
            registry.tag("mnist:v0", ["x"])

    assert ["probe", "staging", "store.json", "tmp"] == sorted(os.listdir(store))


def test_an_index_whose_log_is_going_is_not_begun_anew(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected_warnings
) -> None:
    """As in the middle of `rm -r`: then the index could only be filled with less."""
    from mregfs.registry.read.catalog import Catalog
    from mregfs.stores.index_lmdb import environment

    expected_warnings.expect("is gone, and the log with it")
    monkeypatch.setattr(environment, "CHECK_SECONDS", 0.0)
    with mregfs.Registry(store) as registry:
        shutil.rmtree(store / "log")
        shutil.rmtree(store / "index")

        for _ in range(2):
            found = Catalog(registry.store.index).resolve(registry._locate("mnist"))
            assert 1 == found.version.number

    assert not (store / "index").exists()
