"""Disks as a power cut may leave them: all that was flushed, and any of what was not.

Decided here: which images there are of a logged disk. Not decided here: what is on it, and what
must be found there.
"""

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from tests.attack.logged_disk import FLUSH, MARK, WRITE, Record, read_log

__all__ = ["FILE_SYSTEMS", "Disk", "Image", "images", "logged_disk", "looped"]

MIB = 1 << 20
_SECTOR = 4096
"""Bytes that a disk writes or does not. A superblock of ext4 that is torn needs fsck.ext4."""

FILE_SYSTEMS = {
    # Name: its size, and how it is made.
    "ext4": (96 * MIB, ("mkfs.ext4", "-q", "-F")),
    "xfs": (320 * MIB, ("mkfs.xfs", "-q", "-f")),
    "btrfs": (160 * MIB, ("mkfs.btrfs", "-q", "-f")),
}


@attrs.frozen
class Disk:
    """A file system on a disk that remembers what it is asked for."""

    path: Path
    log: Path
    size: int
    _mark: int

    def mark(self, said: Any) -> None:
        """Remember that something was acknowledged by now."""
        os.write(self._mark, json.dumps(said).encode())


@attrs.frozen
class Image:
    """A disk after a power cut, and the last that was acknowledged before."""

    path: Path
    acknowledged: Any
    lost: int
    """Writes that had not been flushed, and did not arrive."""


@contextmanager
def looped(image: Path, place: Path, kind: str) -> Iterator[Path]:
    """Mount an image."""
    device = _run("losetup", "-f", "--show", image)
    try:
        place.mkdir(exist_ok=True)
        _run("mount", "-t", kind, device, place)
        try:
            yield place
        finally:
            _run("umount", place)
    finally:
        _run("losetup", "-d", device)


@contextmanager
def logged_disk(place: Path, kind: str) -> Iterator[Disk]:
    """Make a file system on a disk that remembers, and mount it."""
    size, make = FILE_SYSTEMS[kind]
    point, log = place / "device", place / "log"
    point.mkdir()
    command = [sys.executable, "-m", "tests.attack.logged_disk", point, str(size), log]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            assert b"ready\n" == server.stdout.readline()
            _run(*make, point / "disk")
            mark = os.open(point / "mark", os.O_WRONLY)
            try:
                with looped(point / "disk", place / "disk", kind) as path:
                    yield Disk(path, log, size, mark)
            finally:
                os.close(mark)
        finally:
            server.terminate()


def images(disk: Disk, place: Path, number: int, seed: int) -> Iterator[Image]:
    """Yield disks as a power cut at some moment after the first mark may have left them."""
    chance = random.Random(seed)
    records = list(read_log(disk.log))
    first = next(index for index, record in enumerate(records) if record.kind == MARK)
    cuts = _cuts(records, first, number, chance)
    flushed, image = place / "flushed", place / "image"
    with flushed.open("wb") as file:
        file.truncate(disk.size)
    done = 0
    pending: list[Record] = []
    acknowledged: Any = None
    for cut in cuts:
        for record in records[done:cut]:
            if record.kind == WRITE:
                pending.append(record)
            elif record.kind == MARK:
                acknowledged = json.loads(record.data)
            elif record.kind == FLUSH:
                _apply(flushed, pending)
                pending = []
        done = cut
        _copy(flushed, image)
        share = chance.choice((0.0, 0.1, 0.5, 0.9, 1.0))
        arrived = [_torn(record, chance) for record in pending if chance.random() < share]
        chance.shuffle(arrived)
        _apply(image, arrived)
        yield Image(image, acknowledged, len(pending) - len(arrived))


def _cuts(records: list[Record], first: int, number: int, chance: random.Random) -> list[int]:
    """Return moments: just after a mark, or the likelier the more has not been flushed then."""
    weights = []
    pending = 0
    for record in records[first:]:
        pending = 0 if record.kind == FLUSH else pending + (record.kind == WRITE)
        weights.append(pending + 0.2)
    moments = range(first + 1, len(records) + 1)
    told = [moment for moment in moments if records[moment - 1].kind == MARK]
    after_marks = chance.choices(told, k=number // 2)
    return sorted(after_marks + chance.choices(moments, weights, k=number - len(after_marks)))


def _torn(record: Record, chance: random.Random) -> Record:
    """Return a write, or now and then only the sectors of it that made it."""
    if chance.random() < 0.9 or len(record.data) <= _SECTOR:
        return record
    sectors = chance.randrange(1, len(record.data) // _SECTOR + 1)
    return attrs.evolve(record, data=record.data[: sectors * _SECTOR])


def _apply(image: Path, writes: list[Record]) -> None:
    fd = os.open(image, os.O_WRONLY)
    try:
        for record in writes:
            os.pwrite(fd, record.data, record.offset)
    finally:
        os.close(fd)


def _copy(source: Path, target: Path) -> None:
    _run("cp", "--sparse=always", "--reflink=auto", source, target)


def _run(*command: str | Path) -> str:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False
    )
    assert 0 == done.returncode, (command, done.stderr)
    return done.stdout.strip()
