"""A commit that is killed, at any point, leaves a draft or a version: whole, and nothing else."""

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mregfs.api import Store, init_store, open_store
from mregfs.host import renames
from mregfs.ports.intake import Intake
from mregfs.stores.intake_dir import taking
from tests.registry.rig import bytes_of, commit, draft_intake, packs_of, write_files

FILES = {
    "model.bin": random.Random(1).randbytes(400_000),
    "second.bin": random.Random(2).randbytes(300_000),
    "small.bin": random.Random(3).randbytes(5000),
    "config.json": b"{}",
}
CALLS = (
    "chmod", "chown", "fchmod", "fchown", "fdatasync", "fsync", "link", "mkdir", "open", "rename",
    "rmdir", "unlink", "utime", "write",
)  # fmt: skip
RENAMES = ("exchange", "move")


class Killer:
    """Ends the process with SIGKILL right before its n-th call that changes the file system."""

    def __init__(self, fatal: int) -> None:
        self.fatal = fatal
        self.count = 0

    def arm(self) -> None:
        for name in CALLS:
            setattr(os, name, self._counted(getattr(os, name)))
        for name in RENAMES:
            setattr(taking, name, self._counted(getattr(taking, name)))

    def _counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            if self.count == self.fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return counted


def run_until(store_path: Path, fatal: int, work: Callable[[Store], object]) -> int | None:
    """Do something in a child that dies before its n-th change; return its calls if it survived."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            store = open_store(store_path)
            killer = Killer(fatal)
            killer.arm()
            work(store)
            os.write(writer, str(killer.count).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with open(reader, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or status == 0
    return int(answer) if answer else None


def check_everything(store: Store) -> None:
    """Check that all that the log names is there, and that every pack belongs to a version."""
    named: set[str] = set()
    for entry in store.log.entries(0):
        for change in entry.requests[0].changes:
            if hasattr(change, "layout"):
                from mregfs.model.layout import decode_layout, layout_key

                layout = decode_layout(store.objects.get(layout_key(change.layout)), "")
                named.update(layout.packs)
    assert named <= packs_of(store).keys()


@pytest.fixture
def places(tmp_path: Path) -> Callable[[int], tuple[Path, Path]]:
    """Make a fresh store with a draft."""

    def make(number: int) -> tuple[Path, Path]:
        store = tmp_path / f"store-{number}"
        init_store(store)
        draft = store / "staging" / "default" / "default" / "run"
        write_files(draft, FILES)
        (draft / "model.bin").chmod(0o640)
        (draft / "sub" / "deeper").mkdir(parents=True)
        (draft / "sub").chmod(0o2750)
        (draft / "sub" / "deeper").chmod(0o555)
        draft.chmod(0o755)
        if os.geteuid() == 0:
            os.chown(draft / "sub" / "deeper", 4711, 4712)
        return store, draft

    return make


def directories_of(draft: Path) -> dict[str, tuple[int, int, int, int]]:
    """Return whose the directories of a draft are, their modes and times."""
    found = {}
    for path in (draft, draft / "sub", draft / "sub" / "deeper"):
        status = path.stat()
        row = status.st_uid, status.st_gid, status.st_mode, status.st_mtime_ns
        found[str(path.relative_to(draft))] = row
    return found


def check_after_crash(store_path: Path, draft: Path, before: dict[str, Any]) -> bool:
    """Recover; check that there is a whole draft or a whole version; commit it.

    Returns:
        Whether the version was in the log already.
    """
    store = open_store(store_path)
    try:
        done = store.log.catch_up() == 1
        store.recover()
        check_everything(store)
        if done:
            assert FILES == bytes_of(store, "mnist", 0)
            assert not draft.exists()
        else:
            assert {name: (draft / name).read_bytes() for name in FILES} == FILES
            assert {1} == {(draft / name).stat().st_nlink for name in FILES}
            assert 0o640 == (draft / "model.bin").stat().st_mode & 0o777
            assert before == directories_of(draft)
            inode = (draft / "model.bin").stat().st_ino
            assert commit(store, draft)["created"]
            assert FILES == bytes_of(store, "mnist", 0)
            inodes = {os.stat(store.packs.path_of(pack)).st_ino for pack in packs_of(store)}
            assert inode in inodes, "the second commit copied"
        assert [] == os.listdir(draft.parent)
        assert [] == os.listdir(store_path / "intake")
        return done
    finally:
        store.close()


def crash_at(
    places: Callable[[int], tuple[Path, Path]],
    fatal: int,
    expected_warnings: Any,
    work: Callable[[Path, Store], object] = lambda draft, store: commit(store, draft),
) -> bool:
    """Kill a commit before its n-th change, and check; False when it came to its end first."""
    expected_warnings.expect("which a crash interrupted")
    store, draft = places(fatal)
    before = directories_of(draft)
    survived = run_until(store, fatal, lambda opened: work(draft, opened))
    done = check_after_crash(store, draft, before)
    assert survived is None or done
    return survived is None


@pytest.mark.parametrize("fatal", [5, 14, 20, 26, 32, 40, 50])
def test_killed_here_and_there(
    places: Callable[[int], tuple[Path, Path]], fatal: int, expected_warnings: Any
) -> None:
    """Some points of the next test, for every day."""
    assert crash_at(places, fatal, expected_warnings)


@pytest.mark.slow
def test_killed_anywhere(
    places: Callable[[int], tuple[Path, Path]], expected_warnings: Any
) -> None:
    """Before each single call that changes the file system."""
    fatal = 1
    while crash_at(places, fatal, expected_warnings):
        fatal += 1
    assert fatal > 60


def begun(draft: Path, store: Store) -> Intake:
    """Begin a commit, and return it where it has done most of what can be undone."""
    intake = draft_intake(store, draft)
    intake.take("ab" * 16, 0)
    intake.scan()
    intake.seal(["model.bin", "second.bin"], lambda count: None)
    intake.announce({"model.bin": "cd" * 16, "second.bin": "ef" * 16})
    intake.adopt("model.bin", "cd" * 16)
    return intake


def abandoned(draft: Path, store: Store) -> None:
    """Stop a commit as if its process had died."""
    begun(draft, store).abandon()


def given_up(draft: Path, store: Store) -> None:
    """Begin a commit, and put the draft back."""
    begun(draft, store).restore()
    commit(store, draft)


@pytest.mark.slow
@pytest.mark.parametrize("recovers", [True, False], ids=["recovery", "giving up"])
def test_killed_while_a_commit_is_undone(
    places: Callable[[int], tuple[Path, Path]], expected_warnings: Any, *, recovers: bool
) -> None:
    """Recovery, or a failing commit itself, is killed before each of its calls."""

    def recover(draft: Path, store: Store) -> None:
        store.recover()
        commit(store, draft)

    fatal = 1
    while True:
        expected_warnings.expect("which a crash interrupted")
        store_path, draft = places(fatal)
        before = directories_of(draft)
        if recovers:
            store = open_store(store_path)
            abandoned(draft, store)
            store.close()
        work = recover if recovers else given_up
        survived = run_until(store_path, fatal, lambda opened: work(draft, opened))  # noqa: B023
        done = check_after_crash(store_path, draft, before)
        if survived is not None:
            assert done
            break
        fatal += 1
    assert fatal > 60


@pytest.mark.slow
def test_without_exchange_a_commit_is_undone_likewise(
    places: Callable[[int], tuple[Path, Path]],
    expected_warnings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The file system cannot let two names change places: then it takes two renames."""
    monkeypatch.setattr(renames, "_built", False)
    for fatal in (*range(16, 26), 30, 50):
        assert crash_at(places, fatal, expected_warnings)
