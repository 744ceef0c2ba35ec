"""Daemons and clients that are killed again and again, and the count of what is left at the end.

Decided here: who is killed and when, what counts as lost, wrong or damaged. Not decided here: what
the clients do (`client`), for how long (`test_soak`).
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random

from tests.soak.book import Book, Version
from tests.soak.client import compare, take_back
from tests.soak.content import TOKEN

__all__ = ["Soak"]

MOUNTS = 2
CLIENTS = 4
USERS = (60101, 60102, 60103)
TEAM = 60100
"""The clients' users, in turn, and their group."""

LIVES = {"daemons": 2.5, "clients": 2.0}
"""Seconds that each lives on the average."""

PATIENCE = 60.0
"""Seconds that anything may take."""

ROOM = Path(__file__).parents[2]

_PROBLEMS = (" ERROR ", " CRITICAL ", "Traceback")


class Daemon:
    """One mount of the store, whose daemon can be killed, also before it is ready."""

    kind = "daemons"

    def __init__(self, directory: Path, number: int) -> None:
        self.mount = directory / f"mnt{number}"
        self.log = directory / f"daemon{number}.log"
        self._store = directory / "store"
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = -1
        self._answers = False
        self.mount.mkdir()

    def start(self, seed: int = 0) -> None:
        """Begin to mount. A dead mount is taken away first."""
        self._answers = False
        self._ready, writing = os.pipe()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "mregfs",
                    "mount",
                    "-f",
                    "--allow-other",
                    self._store,
                    self.mount,
                ],
                cwd=ROOM,
                env={**os.environ, "MREGFS_READY_FD": str(writing)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[writing],
                start_new_session=True,
            )
        os.close(writing)

    def wait(self) -> None:
        """Wait until the mount answers."""
        if not self._answers:
            assert b"ready\n" == os.read(self._ready, 100), self._said()
            self._answers = True

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(PATIENCE)
        os.close(self._ready)

    def check_alive(self) -> None:
        """Fail when it has ended by itself."""
        assert self._process is not None
        assert self._process.poll() is None, self._said()

    def stop(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        assert 0 == self._process.wait(PATIENCE), self._said()
        os.close(self._ready)
        self._process = None

    def clear(self) -> None:
        """Leave nothing behind, whatever state this is in."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        while not subprocess.run(
            ["umount", "-l", self.mount], capture_output=True, check=False
        ).returncode:
            pass

    def _said(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]


class Runner:
    """One client, which can be killed, and begins again with its book."""

    kind = "clients"

    def __init__(self, directory: Path, mount: Path, name: str, user: int) -> None:
        self.book = directory / f"{name}.book"
        self._name = name
        self._mount = mount
        self._user = user
        self._said = directory / f"{name}.said"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, seed: int) -> None:
        words = (self._mount, self._name, str(seed), self.book, str(self._user), str(TEAM))
        with self._said.open("ab") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.soak.client", *words],
                cwd=ROOM,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )

    def kill(self) -> None:
        self.check_alive()
        assert self._process is not None
        self._process.kill()
        self._process.wait(PATIENCE)
        self._process = None

    def check_alive(self) -> None:
        """Fail when it has ended by itself, or hangs.

        A mapping of a file whose daemon was killed may end it (SIGBUS).
        """
        assert self._process is not None
        code = self._process.poll()
        assert code in (None, -signal.SIGBUS), (code, self._said.read_text())
        if self.book.exists():
            silence = time.time() - self.book.stat().st_mtime
            assert silence < PATIENCE, f"{self._name} hangs: {Book(self.book).errors}"

    def clear(self) -> None:
        if self._process is not None:
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(PATIENCE)


class Soak:
    """Everything of one soak, below a directory on a disk.

    Attributes:
        counts: of what happened; `lost`, `wrong` and `damaged drafts` must be 0 at the end.
        findings: each of what must not be, in words.

    Args:
        lives: how many seconds each lives on the average.
        spoil: is called with the mount and the books before all is counted.
    """

    def __init__(
        self,
        directory: Path,
        seed: int,
        say: Callable[[str], None],
        *,
        lives: Mapping[str, float] = LIVES,
        spoil: Callable[[Path, list[Book]], None] | None = None,
    ) -> None:
        self._directory = directory
        self._random = Random(seed)
        self._say = say
        self._lives = lives
        self._spoil = spoil
        self.counts: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.findings: list[str] = []
        self._run("init", self._store)
        self._run("access", "--writers", str(TEAM), "--store", self._store)
        self._daemons = [Daemon(directory, number) for number in range(MOUNTS)]
        self._clients = [
            Runner(
                directory,
                self._daemons[number % MOUNTS].mount,
                f"c{number}",
                USERS[number % len(USERS)],
            )
            for number in range(CLIENTS)
        ]

    def run(self, seconds: float) -> None:
        """Let clients work and kill them and the daemons for so long, then count."""
        try:
            for daemon in self._daemons:
                daemon.start()
                daemon.wait()
            for client in self._clients:
                self._begin(client)
            self._kill_until(time.monotonic() + seconds, seconds)
            for client in self._clients:
                client.kill()
            for daemon in self._daemons:
                daemon.wait()
                daemon.stop()
            self._daemons[0].start()
            self._daemons[0].wait()
            self._count()
            self._daemons[0].stop()
            self._check_store()
        finally:
            for each in (*self._clients, *self._daemons):
                each.clear()

    def report(self) -> str:
        """Return the counts, for people."""
        counts = self.counts
        acknowledged = counts["commits"] + counts["moves"] + counts["deletions"]
        lines = [
            f"kills: {counts['daemons'] + counts['clients']} "
            f"({counts['daemons']} of daemons, {counts['clients']} of clients)",
            f"acknowledged: {acknowledged} ({counts['commits']} commits, {counts['moves']} alias "
            f"moves, {counts['deletions']} deletions); "
            f"drafts revised: {counts['revisions']}; reads compared: {counts['reads']}; versions "
            f"compared at the end: {counts['compared']}",
            f"lost: {counts['lost']}",
            f"wrong: {counts['wrong']}",
            f"damaged drafts: {counts['damaged drafts']} (of {counts['drafts']} left over)",
        ]
        lines += [f"  {finding}" for finding in self.findings[:20]]
        lines += [f"  {count} x {error}" for error, count in self.errors.most_common(12)]
        return "\n".join(lines)

    # ---- the load

    def _begin(self, one: Daemon | Runner) -> None:
        one.start(self._random.randrange(1 << 32))

    def _kill_until(self, deadline: float, seconds: float) -> None:
        """Let each of them live for a while, again and again."""
        told = now = time.monotonic()
        everyone: list[Daemon | Runner] = [*self._daemons, *self._clients]
        ends = [now + self._life_of(one) for one in everyone]
        while now < deadline:
            next_end = min(ends)
            time.sleep(max(0.0, min(next_end, deadline) - now))
            now = time.monotonic()
            if now < next_end:
                continue
            for one in everyone:
                one.check_alive()
            number = ends.index(next_end)
            one = everyone[number]
            one.kill()
            self.counts[one.kind] += 1
            self._begin(one)
            ends[number] = time.monotonic() + self._life_of(one)
            if now - told > PATIENCE:
                told = now
                kills = self.counts["daemons"] + self.counts["clients"]
                self._say(f"{kills} kills, {deadline - now:.0f} of {seconds:.0f} s to go")

    def _life_of(self, one: Daemon | Runner) -> float:
        return self._random.expovariate(1 / self._lives[one.kind])

    # ---- the count

    def _count(self) -> None:
        mount = self._daemons[0].mount
        books = [Book(client.book) for client in self._clients]
        if self._spoil is not None:
            self._spoil(mount, books)
        there = self._tokens(mount)
        for book in books:
            book.close()
            self.counts.update(book.answers)
            self.errors.update(book.errors)
            for what in book.wrong:
                self._find("wrong", what)
            for version in book.versions.values():
                self._judge(version, there.pop(version.token, []), mount)
            for artifact, allowed in book.aliases.items():
                self._judge_alias(mount / "artifacts" / artifact, allowed)
        for token, places in there.items():
            self._find("wrong", f"nobody asked for {token!r}, which is {places}")

    def _tokens(self, mount: Path) -> dict[str, list[Path]]:
        """Return where each token is, after comparing all versions with what they must be."""
        found: dict[str, list[Path]] = {}
        for artifact in (mount / "artifacts").iterdir():
            for version in artifact.iterdir():
                if version.is_symlink():
                    continue
                self.counts["compared"] += 1
                try:
                    wrong = compare(version, Path.read_bytes)
                    found.setdefault((version / TOKEN).read_text(), []).append(version)
                except OSError as exc:
                    wrong = f"{exc.filename or version}: {exc.strerror}"
                if wrong:
                    self._find("wrong", wrong)
        return found

    def _judge(self, version: Version, places: list[Path], mount: Path) -> None:
        name = f"{version.artifact}:v{version.number} ({version.token})"
        draft = mount / "staging" / version.token
        if len(places) > 1:
            self._find("wrong", f"{name} is there more than once: {places}")
        if places and version.deletion == "done":
            self._find("wrong", f"{name} is deleted, and there")
        if version.state == "made" and not places and not version.deletion:
            self._find("lost", f"{name} was acknowledged, and is not there")
        if places and places[0].name != f"v{version.number}" and version.number is not None:
            self._find("wrong", f"{name} is {places[0]}")
        if version.state not in ("ready", "revising", "asked", "made"):
            return
        is_draft = draft.exists()
        self.counts["drafts"] += is_draft
        if is_draft and (places or version.state == "made"):
            self._find("damaged drafts", f"{name} is a version, and its draft is there too")
        elif not places and version.state != "made":
            try:
                if version.state == "revising":
                    take_back(draft)
                wrong = compare(draft, Path.read_bytes)
                (draft / "written").write_bytes(b"as before")
            except OSError as exc:
                wrong = f"{draft}: {exc.strerror}"
            if wrong:
                self._find("damaged drafts", f"{wrong} (it was {version.state})")

    def _judge_alias(self, top: Path, allowed: list[int | None]) -> None:
        found = os.readlink(top / "chosen") if os.path.lexists(top / "chosen") else None
        if found not in [number if number is None else f"v{number}" for number in allowed]:
            kind = "lost" if found is None else "wrong"
            self._find(kind, f"{top}/chosen is {found}, not one of {allowed}")

    def _check_store(self) -> None:
        """What the store itself says: fsck finds nothing, and no daemon had anything to say."""
        report = json.loads(self._run("fsck", "--data", "--json", "--store", self._store))
        for finding in report["findings"]:
            if finding["must"]:
                self._find("wrong", f"fsck: {finding['what']}")
        for daemon in self._daemons:
            for line in daemon.log.read_text(errors="replace").splitlines():
                if any(problem in line for problem in _PROBLEMS):
                    self._find("wrong", f"{daemon.log.name}: {line[:300]}")
        left = os.listdir(self._store / "intake") if (self._store / "intake").exists() else []
        if left:
            self._find("damaged drafts", f"intake/ still has {left[:5]}")

    @property
    def _store(self) -> Path:
        return self._directory / "store"

    def _find(self, kind: str, what: str) -> None:
        self.counts[kind] += 1
        self.findings.append(f"{kind}: {what}")

    def _run(self, *words: str | Path) -> str:
        command = [sys.executable, "-m", "mregfs", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode in (0, 11), done.stderr
        return done.stdout
