"""A system call that fails, whichever, costs nothing that was acknowledged, and says so in a line.

Each call that changes the file system is failed in turn, once and for good, with each errno that a
full or failing disk gives, in a commit of a draft and of a directory, a move of an alias, a
deletion, and what is done after a crash. Then the same is tried again, with nothing in its way.

Not failed here: what LMDB does in C; a full disk under a mount is `tests/mount/`'s.
"""

import errno
import fcntl
import itertools
import json
import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

import mregfs.cli.main
from mregfs.api import open_store
from mregfs.errors import MregfsError
from tests.attack.commands import Outcome, begin_call, run_verb
from tests.registry.rig import bytes_of, commit, write_files

pytestmark = pytest.mark.slow

CALLS = (
    "chmod", "chown", "fchmod", "fchown", "fdatasync", "fsync", "ftruncate", "link", "mkdir",
    "open", "pwrite", "rename", "replace", "rmdir", "symlink", "truncate", "unlink", "utime",
    "write", "writev",
)  # fmt: skip
NATIVE = ("openat2", "renameat2", "linkat")
FIRST = {"model.bin": random.Random(1).randbytes(400_000), "config.json": b"{}"}
SECOND = {
    "model.bin": random.Random(2).randbytes(400_000),
    "second.bin": random.Random(3).randbytes(300_000),
    "small.bin": random.Random(4).randbytes(5000),
    "config.json": b"{}",
}
DRAFT = "staging/default/default/run"


class Failing:
    """Fails the n-th call that changes the file system, and those after it if it is for good."""

    def __init__(self, number: int, code: int, *, for_good: bool) -> None:
        self.number = number
        self.code = code
        self.for_good = for_good
        self.count = 0

    def arm(self) -> None:
        for name in CALLS:
            setattr(os, name, self._failing(getattr(os, name)))
        fcntl.ioctl = self._failing(fcntl.ioctl)  # reflinks
        try:
            from mregfs.host import _native
        except ImportError:
            return
        for name in NATIVE:
            if hasattr(_native, name):
                setattr(_native, name, self._failing(getattr(_native, name)))

    def _failing(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            if self.count == self.number or (self.for_good and self.count > self.number):
                raise OSError(self.code, os.strerror(self.code))
            return call(*args, **kwargs)

        return counted


class Killing(Failing):
    """Ends the process at the n-th call instead."""

    def _failing(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            if self.count == self.number:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return counted


# ---- what is done


def commit_draft(store: Path) -> int:
    try:
        opened = open_store(store)
        try:
            commit(opened, store / DRAFT)
        finally:
            opened.close()
    except MregfsError as exc:
        print(f"mregfs: {exc}")
        return exc.exit_code
    return 0


def commit_directory(store: Path) -> int:
    return mregfs.cli.main.run(
        ["commit", str(store.parent / "source"), "mnist", "--store", str(store)]
    )


def move_alias(store: Path) -> int:
    return mregfs.cli.main.run(["ln", "mnist:v0", "mnist:best", "--store", str(store)])


def delete(store: Path) -> int:
    return mregfs.cli.main.run(["rm", "--force", "mnist:v1", "--store", str(store)])


@attrs.frozen
class Operation:
    do: Callable[[Path], int]
    before: dict[str, Any]
    """What the store is like; see `state_of`."""
    after: dict[str, Any]
    killed_at: int = 0
    """The call at which a process died that did this before."""


OPERATIONS = {
    "commit a draft": Operation(commit_draft, {"versions": [0, 1]}, {"versions": [0, 1, 2]}),
    "commit a directory": Operation(
        commit_directory, {"versions": [0, 1]}, {"versions": [0, 1, 2]}
    ),
    "move an alias": Operation(move_alias, {"best": [1]}, {"best": [0]}),
    "delete": Operation(delete, {"versions": [0, 1]}, {"versions": [0]}),
    "after a crash": Operation(
        commit_draft, {"versions": [0, 1]}, {"versions": [0, 1, 2]}, killed_at=30
    ),
}


@pytest.fixture(autouse=True)
def crashes(expected_warnings: Any) -> None:
    """What could not be undone at once is undone when the store is opened next."""
    expected_warnings.expect("which a crash interrupted")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a store with two versions, an alias at the second, a draft and a directory."""
    place = tmp_path_factory.mktemp("template")
    for number in range(2):
        write_files(place / "source", {**FIRST, "number": b"%d" % number})
        if number == 0:
            must("init", place / "store")
        must("commit", place / "source", "mnist", "-a", "best", "--store", place / "store")
        shutil.rmtree(place / "source")
    write_files(place / "source", SECOND)
    write_files(place / "store" / DRAFT, SECOND)
    return place


def must(*words: str | Path) -> str:
    outcome = run_verb(words)
    assert 0 == outcome.code, outcome
    return outcome.output


def state_of(store: Path) -> dict[str, Any]:
    """Return which versions there are, all of them whole, and where the alias is."""
    opened = open_store(store)
    try:
        opened.log.catch_up()
        versions = []
        for number in range(3):
            try:
                found = bytes_of(opened, "mnist", number)
            except MregfsError:
                continue
            expected = SECOND if number == 2 else {**FIRST, "number": b"%d" % number}
            assert expected == {name: found[name] for name in expected}
            versions.append(number)
    finally:
        opened.close()
    listed = json.loads(must("ls", "mnist", "--json", "--store", store))
    best = [int(each["version"].lstrip("v")) for each in listed if "best" in each["aliases"]]
    return {"versions": versions, "best": best}


def run(place: Path, operation: Operation, hook: Failing | None) -> tuple[Outcome, int]:
    """Do it in a process of its own; return what came of it, and how many calls it made."""
    reader, writer = os.pipe()

    def call() -> int:
        if hook is not None:
            hook.arm()
        try:
            return operation.do(place / "store")
        finally:
            if hook is not None:
                # `os.write` may be the one that fails.
                os.fdopen(writer, "wb", buffering=0).write(str(hook.count).encode())

    outcome = begin_call(call).finish()
    os.close(writer)
    with open(reader, "rb") as pipe:
        count = pipe.read()
    return outcome, int(count or 0)


def fail_at(
    template: Path, place: Path, name: str, number: int, code: int, *, for_good: bool
) -> bool:
    """Do it with a failing call, check, and do it again; False when it made fewer calls."""
    operation = OPERATIONS[name]
    shutil.copytree(template, place, symlinks=True)
    if operation.killed_at:
        outcome, _ = run(place, operation, Killing(operation.killed_at, 0, for_good=False))
        assert -signal.SIGKILL == outcome.code, outcome
    outcome, count = run(place, operation, Failing(number, code, for_good=for_good))
    if count < number:
        assert 0 == outcome.code, outcome
        return False

    assert [] == outcome.problems()
    assert outcome.code == 0 or 1 == len(outcome.output.splitlines()), outcome
    found = state_of(place / "store")
    allowed = [operation.after] if outcome.code == 0 else [operation.before, operation.after]
    assert any(wanted.items() <= found.items() for wanted in allowed), (outcome, found)

    if operation.before.items() <= found.items():
        outcome, _ = run(place, operation, None)
        assert 0 == outcome.code, outcome
        assert operation.after.items() <= state_of(place / "store").items()
    must("fsck", "--data", "--store", place / "store")
    return True


CODES = (errno.ENOSPC, errno.EIO)


@pytest.mark.parametrize("for_good", [False, True], ids=["once", "for good"])
@pytest.mark.parametrize("code", CODES, ids=lambda code: errno.errorcode[code])
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_call_that_fails_here_and_there(template, tmp_path, name, code, for_good) -> None:
    """Some of the calls of the next test, for every day."""
    kinds = list(itertools.product(OPERATIONS, CODES, (False, True)))
    step = 7 if name == "move an alias" else 29
    for number in range(1 + kinds.index((name, code, for_good)) % step, 90, step):
        if not fail_at(template, tmp_path / str(number), name, number, code, for_good=for_good):
            break
        shutil.rmtree(tmp_path / str(number))


@pytest.mark.soak
@pytest.mark.parametrize("for_good", [False, True], ids=["once", "for good"])
@pytest.mark.parametrize("code", CODES, ids=lambda code: errno.errorcode[code])
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_call_that_fails_anywhere(template, tmp_path, name, code, for_good) -> None:
    """Each single call that changes the file system."""
    number = 1
    while fail_at(template, tmp_path / "place", name, number, code, for_good=for_good):
        shutil.rmtree(tmp_path / "place")
        number += 1
    assert number > 5
