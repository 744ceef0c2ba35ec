"""What a crashed commit wrote down is believed of this user alone, and never waited for."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from mregfs.api import init_store, open_store
from mregfs.stores.intake_dir.work import Adoption, Intent, Record
from tests.registry.rig import write_files

ALICE = 64001
DRAFT = "staging/default/default/run"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with a draft, and a file of somebody's outside it."""
    path = tmp_path / "store"
    init_store(path)
    write_files(path / DRAFT, {"file": b"draft"})
    (tmp_path / "victim").write_bytes(b"outside")
    (tmp_path / "victim").chmod(0o600)
    return path


def intent(path: Path, *, draft: str = "run", project: str = "default/default") -> bytes:
    """Return an intent that would give everything away, if it were believed."""
    top = path / DRAFT
    inode = top.stat().st_ino
    return msgspec.json.encode(
        Intent(
            project,
            draft,
            "0" * 32,
            0,
            inode,
            0,
            (Record(inode, ALICE, ALICE, 0o777, 0),),
            (Adoption("file", "0" * 32, (top / "file").stat().st_ino, 0o666, ALICE, ALICE),),
        )
    )


def work(path: Path) -> Path:
    """Make a work directory that looks like a dead commit's."""
    made = path / "intake" / ("a" * 32)
    (path / "intake").mkdir(mode=0o700, exist_ok=True)
    made.mkdir(mode=0o700)
    (made / "lock").write_bytes(b"")
    (made / "lock").chmod(0o600)
    return made


def everything(place: Path) -> dict[str, tuple[int, ...]]:
    found = {}
    for path in (place, *place.rglob("*")):
        if not {"index", "probe", "tmp"} & set(path.relative_to(place).parts):
            status = path.lstat()
            found[str(path)] = (status.st_ino, status.st_mode, status.st_uid)
    return found


def recover(path: Path) -> None:
    begun = time.monotonic()
    opened = open_store(path)
    try:
        opened.recover()
    finally:
        opened.close()
    assert time.monotonic() - begun < 5


def fifo(made: Path, _store: Path) -> None:
    os.mkfifo(made / "intent.json", 0o600)


def symlink(made: Path, store: Path) -> None:
    (store.parent / "forged").write_bytes(intent(store))
    (made / "intent.json").symlink_to(store.parent / "forged")


def foreign(made: Path, store: Path) -> None:
    (made / "intent.json").write_bytes(intent(store))
    os.chown(made / "intent.json", ALICE, ALICE)


def writable(made: Path, store: Path) -> None:
    (made / "intent.json").write_bytes(intent(store))
    (made / "intent.json").chmod(0o666)


def directory(made: Path, _store: Path) -> None:
    (made / "intent.json").mkdir(0o700)


def foreign_directory(made: Path, store: Path) -> None:
    (made / "intent.json").write_bytes(intent(store))
    os.chown(made, ALICE, ALICE)


def foreign_lock(made: Path, store: Path) -> None:
    (made / "intent.json").write_bytes(intent(store))
    os.chown(made / "lock", ALICE, ALICE)


def lock_is_a_fifo(made: Path, store: Path) -> None:
    (made / "intent.json").write_bytes(intent(store))
    (made / "lock").unlink()
    os.mkfifo(made / "lock", 0o600)


def project_elsewhere(made: Path, store: Path) -> None:
    (made / "intent.json").write_bytes(intent(store, project="../.."))


PLANTED: list[Callable[[Path, Path], None]] = [
    fifo, symlink, foreign, writable, directory, foreign_directory, foreign_lock, lock_is_a_fifo,
    project_elsewhere,
]  # fmt: skip


@pytest.mark.skipif(os.geteuid() != 0, reason="needs several users")
@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_an_intent_that_is_not_ours_is_neither_believed_nor_waited_for(
    store: Path,
    plant: Callable[[Path, Path], None],
    caplog: pytest.LogCaptureFixture,
    expected_warnings: object,
) -> None:
    expected_warnings.expect("cannot undo the commit that left")  # type: ignore[attr-defined]
    plant(work(store), store)
    before = everything(store.parent)
    with caplog.at_level(logging.WARNING):
        recover(store)

    assert before == everything(store.parent)
    assert "cannot undo the commit that left" in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="needs several users")
def test_our_own_intent_is_believed(store: Path, expected_warnings: object) -> None:
    """Or the test above would show nothing."""
    expected_warnings.expect("which a crash interrupted")  # type: ignore[attr-defined]
    (work(store) / "intent.json").write_bytes(intent(store))
    recover(store)

    assert ALICE == (store / DRAFT).stat().st_uid
    assert [] == os.listdir(store / "intake")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs several users")
def test_a_work_directory_that_is_a_symlink_leads_nowhere(
    store: Path, expected_warnings: object
) -> None:
    expected_warnings.expect("cannot undo the commit that left")  # type: ignore[attr-defined]
    elsewhere = store.parent / "elsewhere"
    elsewhere.mkdir(0o700)
    for name in ("lock", "data"):
        (elsewhere / name).write_bytes(b"")
    (store / "intake").mkdir(mode=0o700)
    (store / "intake" / "b").symlink_to(elsewhere)
    recover(store)

    assert ["data", "lock"] == sorted(os.listdir(elsewhere))
