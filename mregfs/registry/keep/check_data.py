"""Reads stored bytes again, and verifies them: blocks of files in packs, and whole-file copies.

Decided here: the order (pack by pack), that what is shared is read once, how fast at most. Not
decided here: past which caches bytes are read (`ports.PackScanner`).
"""

from collections.abc import Iterable, Iterator, Sequence

from mregfs.errors import HostError, MregfsError
from mregfs.model.digest import BLOCK, DIGEST_SIZE, block_digest, file_digest
from mregfs.model.layout import Extent
from mregfs.ports.host_cache import WholeFiles
from mregfs.ports.packs import PackFile, PackScanner, PackStore
from mregfs.registry.keep.check_content import StoredFile
from mregfs.registry.keep.findings import CheckProgress, Findings, and_more
from mregfs.registry.read.pace import Pace

__all__ = ["DataCheck", "Pace", "blocks_of"]

_Run = tuple[str, int, int]
"""Pack, offset, length."""

_KEPT_OPEN = 64  # packs; a file that is put together from more is rare


class DataCheck:
    """Verifies bytes against the digests that they were committed with."""

    def __init__(
        self,
        packs: PackStore,
        scanner: PackScanner,
        pace: Pace,
        findings: Findings,
        progress: CheckProgress,
    ) -> None:
        self._packs = packs
        self._scanner = scanner
        self._pace = pace
        self._findings = findings
        self._progress = progress
        self._open: dict[str, PackFile] = {}
        self._verified: set[int] = set()  # hashes: what is shared by a thousand versions is many
        self._done = self._total = 0

    def run(self, files: Sequence[StoredFile], unusable: set[str], whole: WholeFiles) -> None:
        """Verify files, but for what is in packs that cannot be used, and the copies."""
        copies = whole.files()
        self._total = sum(file.size for file in files) + sum(copies.values())
        try:
            for file in files:
                self._look_at(file, unusable)
        finally:
            self._keep_open(0)
        for digest in sorted(copies):
            self._look_at_copy(digest, whole)
        self._findings.bytes_read += self._done

    def _look_at(self, file: StoredFile, unusable: set[str]) -> None:
        bad: list[str] = []
        packs: dict[str, None] = {}
        for number, runs in enumerate(blocks_of(file.extents)):
            expected = file.digests[number * DIGEST_SIZE : (number + 1) * DIGEST_SIZE]
            verified = hash((runs, expected))
            if verified in self._verified or any(run[0] in unusable for run in runs):
                self._total -= sum(run[2] for run in runs)
                continue
            try:
                data = b"".join(map(self._read, runs))
            except MregfsError as exc:
                where = f"cannot be read ({exc.message})"
            else:
                if block_digest(data) == expected:
                    self._verified.add(verified)
                    continue
                where = ", ".join(f"pack {pack} from byte {start}" for pack, start, _ in runs)
            packs.update(dict.fromkeys(run[0] for run in runs))
            bad.append(f"byte {number * BLOCK}: {where}")
        if bad:
            blocks = len(file.digests) // DIGEST_SIZE
            others = and_more(len(file.names) - 1)
            them, it = ("the versions", "them") if others else ("the version", "it")
            self._findings.must(
                "data",
                f"{file.names[0]}{others} {'are' if others else 'is'} damaged in"
                f" {len(bad)} of {blocks} blocks of 1 MiB; {bad[0]}",
                f"mregfs fsck --repair --data restores it where it can; else delete {them}, "
                f"commit {it} again",
                (*file.names, *bad) if others else bad,
                versions=dict.fromkeys(name.split(" ", 1)[0] for name in file.names),
                keys=packs,
            )

    def _read(self, run: _Run) -> bytes:
        pack, offset, length = run
        if pack not in self._open:
            self._keep_open(_KEPT_OPEN - 1)
            self._open[pack] = self._packs.open(pack)
        return self._scan(self._open[pack], offset, length)

    def _scan(self, pack: PackFile, offset: int, length: int) -> bytes:
        self._pace.spend(length)
        data = self._scanner.read(pack, offset, length)
        self._done += length
        self._progress("data", self._done, self._total)
        return data

    def _keep_open(self, count: int) -> None:
        while len(self._open) > count:
            self._open.pop(next(iter(self._open))).close()

    def _look_at_copy(self, digest: str, whole: WholeFiles) -> None:
        copy = whole.open(digest)
        if copy is None:
            return  # evicted meanwhile
        try:
            digests = [
                block_digest(self._scan(copy, offset, min(BLOCK, copy.size - offset)))
                for offset in range(0, copy.size, BLOCK)
            ]
            sound = bool(digests) and file_digest(b"".join(digests), copy.size).hex() == digest
        except HostError:
            sound = False
        finally:
            copy.close()
        if not sound:
            self._findings.must(
                "copy",
                f"the whole-file copy of the file with digest {digest} is damaged",
                f"delete cache/whole/{digest[:2]}/{digest} in the store: it is made again",
                [digest],
                keys=[digest],
            )


def blocks_of(extents: Iterable[Extent]) -> Iterator[tuple[_Run, ...]]:
    """Yield, for each block of a file, the runs of packs that it is put together from."""
    runs: list[_Run] = []
    room = BLOCK
    for extent in extents:
        offset, left = extent.offset, extent.length
        while left:
            length = min(left, room)
            runs.append((extent.pack, offset, length))
            offset, left, room = offset + length, left - length, room - length
            if not room:
                yield tuple(runs)
                runs, room = [], BLOCK
    if runs:
        yield tuple(runs)
