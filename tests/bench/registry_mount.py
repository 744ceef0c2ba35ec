"""mregfs as the bench uses it: the command line makes and mounts stores, files do the rest.

Decided here: how a store is made, mounted and spoken to. Nothing of mregfs is imported: what is
measured is what users run.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.places import (
    CHECKPOINT,
    PATIENCE,
    Place,
    UnavailableError,
    file_system,
    unmount,
)

__all__ = ["CACHED", "DEDUPLICATED", "MREGFS", "TRUSTED", "MountedStore", "Published", "Store"]

MREGFS = "mregfs"
CACHED = "mregfs, cached path"
DEDUPLICATED = "mregfs, deduplicated"
TRUSTED = "mregfs, cached path, verify=commit"
"""Like most peers: reads are not compared with any digest."""


class MountedStore:
    """A store that is mounted; its daemon is a process of its own."""

    def __init__(self, store: Path, path: Path, daemon: "subprocess.Popen[bytes]") -> None:
        self.store = store
        self.path = path
        self.pid = daemon.pid

    def control(self, script: str) -> list[dict[str, Any]]:
        """Run commands as one transaction, and return their results.

        Raises:
            UnavailableError: mregfs refused; its message is in the error's.
        """
        descriptor = os.open(self.path / ".mregfs/control", os.O_RDWR)
        try:
            os.write(descriptor, script.encode())
            reply = b""
            while piece := os.read(descriptor, 1 << 16):
                reply += piece
        finally:
            os.close(descriptor)
        answer = json.loads(reply)
        if not answer["ok"]:
            raise UnavailableError(f"mregfs: {script.strip()}: {answer['message']}")
        return list(answer["results"])

    def echo(self, command: str) -> None:
        """Do what `echo COMMAND > .mregfs/control` does.

        Raises:
            OSError: mregfs refused.
        """
        descriptor = os.open(self.path / ".mregfs/control", os.O_WRONLY | os.O_TRUNC)
        try:
            os.write(descriptor, command.encode() + b"\n")
        finally:
            os.close(descriptor)

    def draft(self, name: str) -> Path:
        """Make a draft, and return its directory."""
        path = self.path / "staging" / name
        path.mkdir()
        return path

    def publish(self, source: Path, artifact: str) -> Path:
        """Copy a directory into a draft, commit it, and return the directory of the version."""
        draft = self.path / "staging" / f"to-{artifact}"
        shutil.copytree(source, draft, copy_function=shutil.copyfile)
        return self.commit(draft.name, artifact)

    def commit(self, draft: str, artifact: str) -> Path:
        """Commit a draft, and return the directory of the version."""
        (result,) = self.control(f"commit {draft} {artifact}\n")
        return self.path / "artifacts" / artifact / str(result["version"])

    def read_path(self, file: Path) -> str:
        """Return how mregfs says that it serves a published file."""
        return os.getxattr(file, "user.mregfs.read_path").decode()

    def written(self) -> int:
        """Return how many bytes the daemon has caused to be written to disk so far."""
        lines = Path(f"/proc/{self.pid}/io").read_text().splitlines()
        return int(dict(line.split(": ") for line in lines)["write_bytes"])

    def resident(self) -> int:
        """Return the daemon's resident set in bytes."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        value = next(line.split()[1] for line in lines if line.startswith("VmRSS"))
        return int(value) * 1024


class Store:
    """One store directory (new, or the one at `path`), and a mount point for it."""

    def __init__(self, directory: Path, path: Path | None = None) -> None:
        self.path = path or directory / "store"
        self._mountpoint = directory / "mnt"
        self._log = directory / "daemon.log"

    def init(self) -> None:
        """Make the store."""
        self._mountpoint.mkdir(parents=True)
        mregfs("init", str(self.path))

    @contextlib.contextmanager
    def mounted(
        self, *, passthrough: bool = True, verify: str = "first-read"
    ) -> Iterator[MountedStore]:
        """Mount the store anew, wait until the mount answers, and unmount.

        Raises:
            UnavailableError: the daemon ended, or never answered; its log's end is in the message.
        """
        self._mountpoint.mkdir(parents=True, exist_ok=True)
        environment = {**_environment(), "MREGFS_VERIFY": verify}
        if not passthrough:
            environment["MREGFS_PASSTHROUGH"] = "0"
        command = [sys.executable, "-m", "mregfs", "mount", str(self.path), str(self._mountpoint)]
        with self._log.open("ab") as log:
            daemon = subprocess.Popen(
                [*command, "--foreground"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._wait_until_it_answers(daemon)
            yield MountedStore(self.path, self._mountpoint, daemon)
        finally:
            daemon.terminate()
            try:
                daemon.wait(30)
            except subprocess.TimeoutExpired:
                unmount(self._mountpoint)
                daemon.kill()
                daemon.wait()
            unmount(self._mountpoint)

    def _wait_until_it_answers(self, daemon: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + PATIENCE
        while not (os.path.ismount(self._mountpoint) and self._answers()):
            if daemon.poll() is not None or time.monotonic() > deadline:
                last = self._log.read_text(errors="replace").strip().splitlines()[-1:]
                raise UnavailableError(f"mregfs did not mount: {' '.join(last)}")
            time.sleep(0.002)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            return bool((self._mountpoint / ".mregfs/status").read_text())
        return False

    def complaints(self) -> list[str]:
        """Return the warnings and errors in the daemon's log."""
        if not self._log.exists():
            return []
        lines = self._log.read_text(errors="replace").splitlines()
        return [line for line in lines if "WARNING" in line or "ERROR" in line]

    def size(self) -> int:
        """Return the bytes of everything that the store keeps for its versions."""
        return sum(
            path.stat().st_size
            for place in ("packs", "manifests", "layouts", "log")
            for path in (self.path / place).rglob("*")
            if path.is_file()
        )

    def file_with_inode(self, inode: int) -> Path | None:
        """Return the file of the store's directory that has this inode number."""
        for directory, _, names in os.walk(self.path):
            for name in names:
                path = Path(directory, name)
                if path.lstat().st_ino == inode:
                    return path
        return None


class Published(Place):
    """One version in a store, read through the mount."""

    def __init__(
        self,
        name: str,
        store: Store,
        version: str,
        *,
        passthrough: bool = True,
        verify: str = "first-read",
    ) -> None:
        self.name = name
        self.store = store
        self._version = version
        self._passthrough = passthrough
        self._verify = verify
        self._read_path = ""

    def prepare(self, tree: Path) -> None:
        with self.mounted() as inside:
            self._read_path = os.getxattr(inside / CHECKPOINT, "user.mregfs.read_path").decode()

    @contextlib.contextmanager
    def mounted(self) -> Iterator[Path]:
        with self.store.mounted(passthrough=self._passthrough, verify=self._verify) as mount:
            yield mount.path / self._version

    def backing(self) -> list[Path]:
        packs = (self.store.path / "packs").rglob("*")
        return [path for path in packs if path.is_file()]

    def twin(self) -> Path | None:
        if not self._read_path.startswith("passthrough"):
            return None
        return max(self.backing(), key=lambda path: path.stat().st_size)

    def details(self) -> str:
        return f"store on {file_system(self.store.path)}, read path `{self._read_path}`"


def mregfs(*words: str) -> str:
    """Run the command line, and return what it printed.

    Raises:
        UnavailableError: it failed; its own words are in the message.
    """
    done = subprocess.run(
        [sys.executable, "-m", "mregfs", *words],
        env=_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["nothing said"]
        raise UnavailableError(f"mregfs {' '.join(words)}: {said[-1]}")
    return done.stdout


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("MREGFS_")}
