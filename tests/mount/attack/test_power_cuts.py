"""What was acknowledged is there after a power cut, whatever of the rest reached the disk.

`make crash IMAGES=300` makes as many images of each file system as one has time for.
"""

import ctypes
import os
import random
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mregfs.api import open_store
from mregfs.errors import MregfsError
from tests.attack.commands import begin_call, run_verb
from tests.attack.power_cuts import FILE_SYSTEMS, Disk, images, logged_disk, looped
from tests.registry.rig import bytes_of, commit, write_files

EVERY_DAY = 4
ROUNDS = 6


def files_of(number: int) -> dict[str, bytes]:
    """Return what is in a version: a large file, a small one, a tiny one; some of it shared."""
    chance = random.Random(number // 2)
    return {
        "model.bin": chance.randbytes(600_000) + bytes([number]) * 1000,
        "below/small.bin": random.Random(number).randbytes(20_000),
        "config.json": b"%d" % number,
    }


@contextmanager
def others_write(disk: Disk) -> Iterator[None]:
    """Have something else written to the disk all the time, and never flushed."""
    stop = threading.Event()
    start_writing = ctypes.CDLL(None).sync_file_range  # not in `os`

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            fd = os.open(disk.path / f"other-{number % 20}", os.O_CREAT | os.O_WRONLY)
            os.pwrite(fd, os.urandom(40_000), number % 7 * 10_000)
            start_writing(fd, ctypes.c_long(0), ctypes.c_long(0), 2)
            os.close(fd)
            time.sleep(0.01)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def work(disk: Disk) -> None:
    """Commit drafts and directories, move an alias, delete: each is marked when it is said."""
    store = disk.path / "store"
    must("init", store)
    disk.mark({"sequence": 0, "versions": []})
    versions: list[int] = []
    sequence = 0

    def acknowledged() -> None:
        nonlocal sequence
        sequence += 1
        disk.mark({"sequence": sequence, "versions": versions})

    for number in range(ROUNDS):
        if number % 2:
            draft = store / "staging/default/default/run"
            write_files(draft, files_of(number))
            assert 0 == begin_call(lambda: commit_draft(store)).finish().code
        else:
            source = disk.path / f"source-{number}"
            write_files(source, files_of(number))
            must("commit", source, "mnist", "--store", store)
        versions.append(number)
        acknowledged()
        must("ln", f"mnist:v{number}", "mnist:best", "--store", store)
        acknowledged()
        if number == ROUNDS // 2:
            versions.remove(0)
            must("rm", "--force", "mnist:v0", "--store", store)
            acknowledged()


def commit_draft(store: Path) -> int:
    opened = open_store(store)
    try:
        commit(opened, store / "staging/default/default/run")
    finally:
        opened.close()
    return 0


def must(*words: str | Path) -> str:
    outcome = run_verb(words)
    assert 0 == outcome.code, outcome
    return outcome.output


def damage_of(store: Path, acknowledged: dict[str, Any]) -> list[str]:
    """Return what is not there that was acknowledged, and what is not as it was."""
    wrong = []
    outcome = run_verb(["fsck", "--data", "--store", store])
    if outcome.code != 0:
        wrong.append(f"damaged: fsck --data: {outcome.output}")
    opened = open_store(store)
    try:
        sequence = opened.log.catch_up()
        if sequence < acknowledged["sequence"]:
            wrong.append(f"lost: {acknowledged['sequence']} was acknowledged, {sequence} is there")
        for number in range(ROUNDS):
            try:
                found = bytes_of(opened, "mnist", number)
            except MregfsError as exc:
                # v0 may have been deleted since.
                if number in acknowledged["versions"] and number != 0:
                    wrong.append(f"lost: v{number}: {exc}")
                continue
            if found != files_of(number):
                wrong.append(f"wrong bytes: v{number}")
    finally:
        opened.close()
    return wrong


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", FILE_SYSTEMS)
def test_what_was_acknowledged_survives_a_power_cut(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest, expected_warnings: Any
) -> None:
    """On each file system: no version lost, none with wrong bytes, `fsck --data` clean."""
    if shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"needs mkfs.{kind}")
    expected_warnings.expect("")
    wanted = request.config.getoption("--crash-images") or EVERY_DAY
    with logged_disk(tmp_path, kind) as disk, others_write(disk):
        work(disk)
    (tmp_path / "log.now").unlink()
    wrong: list[str] = []
    lost_writes = made = 0
    for image in images(disk, tmp_path, wanted, int.from_bytes(os.urandom(4), "big")):
        made += 1
        lost_writes += image.lost
        with looped(image.path, tmp_path / "after", kind) as after:
            wrong += [
                f"image {made}: {each}" for each in damage_of(after / "store", image.acknowledged)
            ]
    sys.stderr.write(
        f"\n{kind}: {made} images, {lost_writes} unflushed writes lost, "
        f"{sum('lost:' in each for each in wrong)} lost, "
        f"{sum('wrong' in each for each in wrong)} wrong, "
        f"{sum('damaged' in each for each in wrong)} damaged\n"
    )

    assert [] == wrong
