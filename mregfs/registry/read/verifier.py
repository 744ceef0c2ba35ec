"""Verifies, once and in the background, the files that the kernel reads past the daemon.

Decided here: when such a file is verified, what is remembered of it, that a damaged one is not
opened again (`content.md` §4). Not decided here: which files the kernel reads by itself (`vfs`),
how a thread is told to keep out of everybody's way (whoever makes a `Verifier`). `open_content`
tells it what is open; each mount has one.

What is verified is what readers get: pages that the kernel has in memory are read from there, all
else from the medium past the page cache, which stays as it is.
"""

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

import msgspec

from mregfs.errors import CorruptError, MregfsError, NotFoundError
from mregfs.model.digest import BLOCK, block_digest
from mregfs.model.state import Put
from mregfs.ports import Clock
from mregfs.ports.host_cache import WholeFiles
from mregfs.ports.index import Index
from mregfs.ports.packs import PackFile, PackScanner, PackStore
from mregfs.registry.read import rows
from mregfs.registry.read.blocks import Blocks
from mregfs.registry.read.pace import Pace
from mregfs.registry.read.rows import Verdict

__all__ = ["Reading", "Verifier", "VerifierFigures"]

log = logging.getLogger(__name__)

IDLE_AFTER = 60.0
"""Seconds after which a file that is open still is verified all the same: a server that has mapped
a model keeps it open for weeks, and has read what it wants by then."""

RATE = 256 << 20
"""Bytes a second. A core digests twenty times as many, a disk reads ten times as many."""

_REMEMBERED = 1 << 16  # verdicts in memory; the index has all


class Reading:
    """A file that somebody reads past the daemon, and that is to be verified."""

    __slots__ = ("blocks", "key", "since", "users")

    def __init__(self, key: bytes, blocks: Blocks, since: float) -> None:
        self.key = key
        self.blocks = blocks
        self.since = since
        self.users = 0


class VerifierFigures(msgspec.Struct, frozen=True):
    """What has been verified in the background by this process."""

    waiting: int
    """Files that are open, or wait for their turn."""
    verified: int
    damaged: list[str]
    """Ids of packs, and digests of whole-file copies."""


class Verifier:
    """One thread that verifies; it begins with the first file.

    Args:
        index: where verdicts are remembered, in the table `verified`.
        packs: whose files the kernel reads.
        whole_files: likewise.
        open_scanner: gives what reads past the page cache, for the thread.
        begin_thread: called in the thread first, to lower its priorities.
        clock: tells the time.
        wanted: tells whether the kernel reads files by itself on this host; asked once, at the
            first open.
        rate: bytes a second; 0: as fast as it goes.
        idle_after: seconds.
    """

    def __init__(
        self,
        index: Index,
        packs: PackStore,
        whole_files: WholeFiles,
        *,
        open_scanner: Callable[[], AbstractContextManager[PackScanner]],
        begin_thread: Callable[[], None],
        clock: Clock,
        wanted: Callable[[], bool],
        rate: int = RATE,
        idle_after: float = IDLE_AFTER,
    ) -> None:
        self._index = index
        self._packs = packs
        self._whole_files = whole_files
        self._open_scanner = open_scanner
        self._begin_thread = begin_thread
        self._clock = clock
        self._wanted = wanted
        self._is_wanted: bool | None = None
        self._idle_after = idle_after
        self._ending = threading.Event()
        self._pace = Pace(rate, clock, self._ending.wait)
        self._changed = threading.Condition()
        self._open: dict[bytes, Reading] = {}
        self._due: dict[bytes, Reading] = {}
        self._known: dict[bytes, Verdict] = {}
        self._thread: threading.Thread | None = None
        self._verified = 0
        self._damaged: list[str] = []
        self._busy = False

    # ---- for whoever opens files; microseconds

    def opened(self, key: bytes, file: PackFile, blocks: Blocks) -> Reading | None:
        """Note that the kernel is about to read a file by itself; None: it is known to be sound.

        Args:
            key: the id of a pack, or the digest of a file whose copy it is.
            file: it, open.
            blocks: its digests.

        Raises:
            CorruptError: it is known to be damaged.
        """
        verdict = self._verdict(key)
        if verdict is not None and verdict.stamp == file.stamp():
            if verdict.damaged_at is None:
                return None
            raise CorruptError(
                f"{blocks.name} is damaged at byte {verdict.damaged_at}: {_spell(key)}",
                "see what else is: mregfs fsck --data",
            )
        if self._is_wanted is None:
            self._is_wanted = self._wanted()
        if not self._is_wanted:
            return None
        with self._changed:
            reading = self._due.pop(key, None) or self._open.get(key)
            if reading is None:
                reading = Reading(key, blocks, self._clock() / 1e9)
            reading.users += 1
            if not self._open:
                self._changed.notify()
            self._open[key] = reading
            if self._thread is None:
                self._start()
        return reading

    def closed(self, reading: Reading) -> None:
        """Note that one reader of a file has closed it: after the last one it is verified."""
        with self._changed:
            reading.users -= 1
            if reading.users == 0 and self._open.get(reading.key) is reading:
                del self._open[reading.key]
                self._due[reading.key] = reading
                self._changed.notify()

    def figures(self) -> VerifierFigures:
        """Return what has been done so far."""
        with self._changed:
            waiting = len(self._open) + len(self._due) + self._busy
            return VerifierFigures(waiting, self._verified, list(self._damaged))

    def close(self, timeout: float = 5.0) -> None:
        """End the thread, between two blocks; one that waits for its disk is left behind."""
        with self._changed:
            self._ending.set()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout)

    def _verdict(self, key: bytes) -> Verdict | None:
        known = self._known.get(key)
        if known is not None:
            return known
        with self._index.read() as view:
            row = view.get("verified", key)
        return None if row is None else rows.parse_verdict(row)

    # ---- the thread

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name="mregfs-verify", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the host has no thread for us now: at a later open
            return
        self._thread = thread

    def _work(self) -> None:
        self._begin_thread()
        while (reading := self._next()) is not None:
            try:
                self._verify(reading)
            except MregfsError as exc:
                log.error("%s cannot be verified: %s", reading.blocks.name, exc)
            finally:
                self._busy = False

    def _next(self) -> Reading | None:
        """Wait for a file whose turn it is; None: it is the end."""
        with self._changed:
            while not self._ending.is_set():
                if self._due:
                    reading = self._due.pop(next(iter(self._due)))
                    self._busy = True
                    return reading
                oldest = next(iter(self._open.values()), None)
                if oldest is None:
                    self._changed.wait()
                    continue
                left = oldest.since + self._idle_after - self._clock() / 1e9
                if left > 0:
                    self._changed.wait(min(left, self._idle_after))
                else:
                    del self._open[oldest.key]
                    self._busy = True
                    return oldest
        return None

    def _verify(self, reading: Reading) -> None:
        try:
            file = self._open_file(reading.key)
        except NotFoundError:
            return  # deleted meanwhile
        if file is None:
            return
        try:
            stamp = file.stamp()
            known = self._verdict(reading.key)
            if known is not None and known.stamp == stamp:
                return  # another process was faster
            bad = self._find_damage(file, reading.blocks)
            if bad is None or file.stamp() != stamp:
                return  # it is the end, or who knows what was read: at the next opportunity
        finally:
            file.close()
        self._judge(reading, stamp, bad)

    def _open_file(self, key: bytes) -> PackFile | None:
        if _is_pack(key):
            return self._packs.open_local(key.hex())
        return self._whole_files.open(key.hex())

    def _find_damage(self, file: PackFile, blocks: Blocks) -> list[int] | None:
        """Return the numbers of the damaged blocks; None when it is the end."""
        bad = []
        with self._open_scanner() as scanner:
            for number in range(len(blocks)):
                offset = number * BLOCK
                length = min(BLOCK, file.size - offset)
                self._pace.spend(length)
                if self._ending.is_set():
                    return None
                if file.is_cached(offset, length):
                    data = file.read(offset, length)
                else:
                    data = scanner.read(file, offset, length)
                if block_digest(data) != blocks.digest(number):
                    bad.append(number)
        return bad

    def _judge(self, reading: Reading, stamp: tuple[int, int], bad: list[int]) -> None:
        blocks = reading.blocks
        if bad:
            log.error(
                "%s is damaged in %d of %d blocks of 1 MiB, the first at byte %d: %s. %s. "
                "See what else is: mregfs fsck --data",
                blocks.name,
                len(bad),
                len(blocks),
                bad[0] * BLOCK,
                _spell(reading.key),
                "Whoever has it open may read wrong bytes; nobody opens it any more"
                if _is_pack(reading.key)
                else "The copy is given up",
            )
        with self._changed:
            self._verified += not bad
            if bad:
                self._damaged.append(reading.key.hex())
        if bad and not _is_pack(reading.key):
            self._whole_files.delete(reading.key.hex())
            return
        verdict = Verdict(stamp, bad[0] * BLOCK if bad else None)
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[reading.key] = verdict
        try:
            self._index.write([Put("verified", reading.key, rows.verdict_row(verdict))])
        except MregfsError as exc:
            log.info("what was verified is remembered in memory only: %s", exc)


def _is_pack(key: bytes) -> bool:
    return len(key) == rows.PACK_KEY_SIZE


def _spell(key: bytes) -> str:
    return f"pack {key.hex()}" if _is_pack(key) else f"the whole-file copy {key.hex()}"
