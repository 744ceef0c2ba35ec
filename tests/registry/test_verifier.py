"""What the kernel reads past the daemon is verified once, remembered, and refused when damaged."""

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mregfs.errors import CorruptError, ForbiddenError
from mregfs.host.beneath import Beneath
from mregfs.model.digest import BLOCK, block_digests, file_digest
from mregfs.registry.read.blocks import Blocks
from mregfs.registry.read.content import CONTENT_TABLES
from mregfs.registry.read.verifier import Verifier
from mregfs.stores.index_lmdb import IndexLmdb
from mregfs.stores.packs_dir import PacksDirectory
from mregfs.stores.scanner_direct import DirectScanner
from mregfs.stores.whole_files_dir import WholeFilesDirectory

DATA = os.urandom(3 * BLOCK + 4711)
BLOCKS = block_digests(DATA)

WaitUntil = Callable[[Callable[[], bool], str], None]


class World:
    """Packs, copies and an index; `verifier` is what a daemon on them has."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "cache").mkdir()
        self.packs = PacksDirectory(Beneath.at(directory))
        self.whole = WholeFilesDirectory(Beneath.at(directory))
        self.index = IndexLmdb(directory / "index", CONTENT_TABLES)
        self.verifiers: list[Verifier] = []

    def verifier(self, **more: float) -> Verifier:
        made = Verifier(
            self.index,
            self.packs,
            self.whole,
            open_scanner=DirectScanner,
            begin_thread=lambda: None,
            clock=time.time_ns,
            wanted=lambda: True,
            **{"rate": 0, **more},  # type: ignore[arg-type]
        )
        self.verifiers.append(made)
        return made

    def pack(self, data: bytes = DATA) -> str:
        pack = secrets.token_hex(16)
        self.packs.create(pack, [data])
        return pack

    def damage(self, pack: str, at: int = BLOCK + 5) -> None:
        path = self.packs.path_of(pack)
        os.chmod(path, 0o644)
        with open(path, "r+b") as file:
            file.seek(at)
            byte = file.read(1)
            file.seek(at)
            file.write(bytes([byte[0] ^ 1]))

    def read(self, verifier: Verifier, pack: str) -> None:
        """Open and close a pack, as a reader by passthrough does."""
        with self.packs.open(pack) as file:
            reading = verifier.opened(bytes.fromhex(pack), file, Blocks("'w'", BLOCKS))
        if reading is not None:
            verifier.closed(reading)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    for verifier in world.verifiers:
        verifier.close()
    world.index.close()
    world.packs.close()


def idle(verifier: Verifier) -> Callable[[], bool]:
    return lambda: verifier.figures().waiting == 0


def test_a_sound_file_is_verified_once_for_all_processes(
    world: World, wait_until: WaitUntil
) -> None:
    pack = world.pack()
    first = world.verifier()
    world.read(first, pack)
    wait_until(idle(first), "it is verified")
    world.read(first, pack)
    second = world.verifier()
    world.read(second, pack)

    assert (0, 1, []) == (first.figures().waiting, first.figures().verified, [])
    assert (0, 0) == (second.figures().waiting, second.figures().verified)


@pytest.mark.parametrize("cold", [False, True])
def test_a_damaged_file_is_told_once_and_opened_by_nobody_again(
    world: World, wait_until: WaitUntil, expected_warnings: Any, cold: bool
) -> None:
    pack = world.pack()
    world.damage(pack)
    if cold:  # then it is read past the page cache
        with world.packs.open(pack) as file:
            os.fsync(file.backing())
            os.posix_fadvise(file.backing(), 0, 0, os.POSIX_FADV_DONTNEED)
    first = world.verifier()
    expected_warnings.expect("is damaged in 1 of 4 blocks")
    world.read(first, pack)
    wait_until(idle(first), "it is verified")

    assert [pack] == first.figures().damaged
    for verifier in (first, world.verifier()):
        with pytest.raises(CorruptError, match=f"damaged at byte {BLOCK}: pack {pack}"):
            world.read(verifier, pack)


def test_what_was_changed_since_is_verified_again(
    world: World, wait_until: WaitUntil, expected_warnings: Any
) -> None:
    """Damage by a write after it was found sound; and what was put right is opened again."""
    pack = world.pack()
    verifier = world.verifier()
    expected_warnings.expect("is damaged in 1 of 4 blocks")
    for sound in (True, False, True):
        if verifier.figures().verified:
            world.damage(pack)
        world.read(verifier, pack)
        wait_until(idle(verifier), "it is verified")
        with world.packs.open(pack) as file:
            if sound:
                assert verifier.opened(bytes.fromhex(pack), file, Blocks("w", BLOCKS)) is None
            else:
                with pytest.raises(CorruptError):
                    verifier.opened(bytes.fromhex(pack), file, Blocks("w", BLOCKS))


def test_a_file_that_stays_open_is_verified_when_its_reader_is_idle(
    world: World, wait_until: WaitUntil
) -> None:
    pack = world.pack()
    verifier = world.verifier(idle_after=0.2)
    with world.packs.open(pack) as file:
        reading = verifier.opened(bytes.fromhex(pack), file, Blocks("w", BLOCKS))
        assert reading is not None
        assert 1 == verifier.figures().waiting
        wait_until(idle(verifier), "it is verified")
        verifier.closed(reading)
    assert (0, 1) == (verifier.figures().waiting, verifier.figures().verified)


def test_it_waits_for_the_last_of_several_readers(world: World, wait_until: WaitUntil) -> None:
    pack = world.pack()
    verifier = world.verifier()
    with world.packs.open(pack) as file:
        key, blocks = bytes.fromhex(pack), Blocks("w", BLOCKS)
        first, second = (verifier.opened(key, file, blocks) for _ in range(2))
        assert first is not None
        assert first is second
        verifier.closed(first)
        time.sleep(0.1)
        assert 0 == verifier.figures().verified
        verifier.closed(first)
        wait_until(lambda: verifier.figures().verified == 1, "it is verified")


def test_it_holds_its_rate_and_ends_between_two_blocks(world: World) -> None:
    pack = world.pack()
    verifier = world.verifier(rate=BLOCK)
    started = time.monotonic()
    world.read(verifier, pack)
    time.sleep(0.5)
    assert (1, 0) == (verifier.figures().waiting, verifier.figures().verified)
    verifier.close()

    assert time.monotonic() - started < 2
    assert not any(thread.name == "mregfs-verify" for thread in threading.enumerate())
    again = world.verifier()
    world.read(again, pack)
    assert 1 >= again.figures().waiting  # nothing was remembered


def test_a_damaged_whole_file_copy_is_deleted(
    world: World, wait_until: WaitUntil, expected_warnings: Any
) -> None:
    """It is made again; its file is read from its packs meanwhile."""
    digest = file_digest(BLOCKS, len(DATA)).hex()
    pack = world.pack()
    draft = world.whole.create(digest, len(DATA))
    assert draft is not None
    with world.packs.open(pack) as file:
        draft.append(file, 0, len(DATA))
    draft.finish()
    draft.close()
    verifier = world.verifier()
    expected_warnings.expect("is damaged in 1 of 4 blocks")
    for sound in (True, False):
        copy = world.whole.open(digest)
        assert copy is not None
        reading = verifier.opened(bytes.fromhex(digest), copy, Blocks("w", BLOCKS))
        assert reading is not None
        verifier.closed(reading)
        copy.close()
        wait_until(idle(verifier), "it is verified")
        assert sound == (digest in world.whole.files())
        if sound:
            (path,) = (world.directory / "cache/whole").glob(f"??/{digest}")
            path.chmod(0o644)
            with path.open("r+b") as stored:
                stored.write(b"\0")


def test_a_deleted_pack_and_an_index_that_takes_nothing_are_no_trouble(
    world: World, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    verifier = world.verifier(idle_after=0.1)
    gone, kept = world.pack(), world.pack()
    with world.packs.open(gone) as file:
        assert verifier.opened(bytes.fromhex(gone), file, Blocks("w", BLOCKS)) is not None
    world.packs.delete(gone)
    wait_until(idle(verifier), "it is given up")
    assert 0 == verifier.figures().verified

    def refuse(*_: object, **__: object) -> bool:
        raise ForbiddenError("read-only")

    monkeypatch.setattr(world.index, "write", refuse)
    world.read(verifier, kept)
    wait_until(idle(verifier), "it is verified")
    world.read(verifier, kept)
    assert (0, 1) == (verifier.figures().waiting, verifier.figures().verified)
