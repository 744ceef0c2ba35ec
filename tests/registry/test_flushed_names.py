"""A name is there after a power cut when its directory was flushed since, on any file system.

Journals of common file systems keep more than that: the flush of any file takes along the names
that were made before, so disks that are cut off (`mount/attack/test_power_cuts.py`) show no flush
of a directory that is missing. Here the strictest disk there may be is built from what was flushed.
"""

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mregfs.api import open_store
from mregfs.errors import MregfsError
from tests.attack.commands import begin_call, run_verb
from tests.registry.rig import bytes_of, commit, write_files

pytestmark = pytest.mark.slow

Names = dict[tuple[int, int], dict[str, int]]
"""Of each directory that was flushed: its names then, and the inode of each."""

OF_THE_HOST = ("index", "cache", "tmp")
"""Directories that may be as lost as one likes."""


class Flushes:
    """Notes each flush of a directory, in this process and those that it forks.

    Args:
        record: the file for the notes.
        skipped: tells, of the path of a directory, whether its flush is left out.
    """

    def __init__(self, record: Path, skipped: Callable[[str], bool]) -> None:
        self._record = record
        self._skipped = skipped
        self._fsync = os.fsync
        record.touch()

    def __call__(self, fd: int) -> None:
        status = os.fstat(fd)
        path = f"/proc/self/fd/{fd}"
        if stat.S_ISDIR(status.st_mode):
            if self._skipped(os.readlink(path)):
                return
            with os.scandir(path) as entries:
                names = {entry.name: entry.inode() for entry in entries}
            with self._record.open("a") as file:
                file.write(json.dumps([status.st_dev, status.st_ino, names]) + "\n")
        self._fsync(fd)

    def names(self) -> Names:
        return {
            (device, inode): names
            for device, inode, names in map(json.loads, self._record.read_text().splitlines())
        }


def strictest(directory: Path, copy: Path, flushed: Names) -> list[Path]:
    """Copy a directory, but for the names that were not flushed; return those."""
    status = directory.stat()
    names = flushed.get((status.st_dev, status.st_ino), {})
    lost = []
    copy.mkdir(mode=stat.S_IMODE(status.st_mode))
    for path in directory.iterdir():
        if names.get(path.name) != path.lstat().st_ino:
            lost.append(path)
        elif path.is_dir() and not path.is_symlink():
            lost += strictest(path, copy / path.name, flushed)
        else:
            shutil.copy2(path, copy / path.name, follow_symlinks=False)
    return lost


CONTENT = [
    {"model.bin": bytes([number]) * 600_000, "below/small.bin": b"%d" % number * 9000}
    for number in range(4)
]


def what_is_lost(place: Path, flushed: Callable[[], Names]) -> list[str]:
    """Work on a store, and return what the strictest disk lacks of what was acknowledged."""
    store = place / "store"
    wrong: list[str] = []
    versions = 0

    def acknowledged(*words: str | Path) -> None:
        if words:
            outcome = run_verb(words)
            assert 0 == outcome.code, outcome
        copy = place / "copy"
        status = place.stat()
        if "store" not in flushed().get((status.st_dev, status.st_ino), {}):
            wrong.append("the store")
        strictest(store, copy, flushed())
        for name in OF_THE_HOST:
            shutil.rmtree(copy / name, ignore_errors=True)
        wrong.extend(damage_of(copy, sequence, versions))
        shutil.rmtree(copy)

    sequence = 0
    acknowledged("init", store)
    for number, files in enumerate(CONTENT):
        versions += 1
        sequence += 1
        if number % 2:
            draft = store / "staging/default/default/run"
            write_files(draft, files)
            assert 0 == begin_call(lambda: commit_draft(store)).finish().code
            acknowledged()
        else:
            write_files(place / f"source-{number}", files)
            acknowledged("commit", place / f"source-{number}", "mnist", "--store", store)
        sequence += 1
        acknowledged("ln", f"mnist:v{number}", "mnist:best", "--store", store)
    return wrong


def commit_draft(store: Path) -> int:
    opened = open_store(store)
    try:
        commit(opened, store / "staging/default/default/run")
    finally:
        opened.close()
    return 0


def damage_of(store: Path, sequence: int, versions: int) -> list[str]:
    try:
        opened = open_store(store)
    except MregfsError as exc:
        return [str(exc)]
    try:
        found = opened.log.catch_up()
        if found < sequence:
            return [f"{sequence} was acknowledged, {found} is there"]
        return [
            f"v{number}"
            for number in range(versions)
            if bytes_of(opened, "mnist", number) != CONTENT[number]
        ]
    except MregfsError as exc:
        return [str(exc)]
    finally:
        opened.close()


def test_each_name_of_what_is_acknowledged_was_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushes = Flushes(tmp_path / "flushes", lambda _: False)
    monkeypatch.setattr(os, "fsync", flushes)
    (tmp_path / "place").mkdir()

    assert [] == what_is_lost(tmp_path / "place", flushes.names)


@pytest.mark.parametrize("below", ["", "log", "packs", "packs/??", "layouts", "manifests"])
def test_a_flush_of_a_directory_that_is_left_out_is_found(
    tmp_path: Path, below: str, monkeypatch: pytest.MonkeyPatch, expected_warnings: Any
) -> None:
    """That of one directory of the store is enough."""
    expected_warnings.expect("is damaged: there is no pack")
    place = tmp_path / "place"
    left_out = place / "store" / below
    flushes = Flushes(tmp_path / "flushes", lambda path: Path(path).match(str(left_out)))
    monkeypatch.setattr(os, "fsync", flushes)
    place.mkdir()

    assert what_is_lost(place, flushes.names)
