"""The peers: other ways to read the same files through a mount, each set up at its best.

Decided here: which peers, with which options. Images hold the files uncompressed: weights do not
compress, and so nobody loses time on it. Each peer is optional. Not decided here: what is measured.
"""

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.bench.places import (
    CHECKPOINT,
    PT,
    Place,
    UnavailableError,
    find_program,
    run,
    unmount,
    wait_for,
)

__all__ = ["SQUASHFUSE", "peers"]

SQUASHFUSE = "squashfuse"

_MS_RDONLY = 1


class _Mounted(Place):
    """A peer that has one source (an image, a repository) and one mount point."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._mountpoint = directory / "mnt"
        self._source = directory / "image"

    def backing(self) -> list[Path]:
        return [self._source]

    @contextlib.contextmanager
    def mounted(self) -> Iterator[Path]:
        self._mountpoint.mkdir(parents=True, exist_ok=True)
        daemon = self._mount()
        try:
            wait_for(lambda: os.path.ismount(self._mountpoint), f"{self.name} to mount")
            yield self._inside()
        finally:
            unmount(self._mountpoint)
            if daemon is not None:
                try:
                    daemon.wait(10)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()

    def _mount(self) -> "subprocess.Popen[bytes] | None":
        raise NotImplementedError

    def _inside(self) -> Path:
        return self._mountpoint

    def _daemon(self, *command: str | Path, **environment: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [find_program(str(command[0])), *command[1:]],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def _make_squashfs(tree: Path, image: Path) -> None:
    if image.exists():
        return
    image.parent.mkdir(parents=True, exist_ok=True)
    options = ["-noI", "-noD", "-noF", "-noX", "-no-xattrs", "-no-progress", "-quiet"]
    run("mksquashfs", tree, image, *options)


class Squashfuse(_Mounted):
    """squashfs in user space. The low-level variant, which is the faster of the two."""

    name = SQUASHFUSE

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._program = "squashfuse_ll"

    def prepare(self, tree: Path) -> None:
        try:
            find_program(self._program)
        except UnavailableError:
            self._program = "squashfuse"
            find_program(self._program)
        self._source = self._directory.parent / "tree.squashfs"
        _make_squashfs(tree, self._source)

    def _mount(self) -> "subprocess.Popen[bytes]":
        return self._daemon(self._program, "-f", self._source, self._mountpoint)

    def details(self) -> str:
        return f"`{self._program}`, uncompressed image with blocks of 128 KiB"


class KernelSquashfs(_Mounted):
    """squashfs in the kernel, through a loop device."""

    name = "kernel squashfs"

    def prepare(self, tree: Path) -> None:
        self._source = self._directory.parent / "tree.squashfs"
        _make_squashfs(tree, self._source)
        with self.mounted():
            pass

    def _mount(self) -> None:
        run("mount", "-t", "squashfs", "-o", "loop,ro", self._source, self._mountpoint)

    def details(self) -> str:
        return "loop device, the same image"


class KernelErofs(_Mounted):
    """EROFS in the kernel, on the image file itself: no loop device."""

    name = "kernel EROFS"

    def prepare(self, tree: Path) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        run("mkfs.erofs", self._source, tree)
        with self.mounted():
            pass

    def _mount(self) -> None:
        # mount(8) would set up a loop device; the system call takes the file (Linux 6.12).
        libc = ctypes.CDLL(None, use_errno=True)
        words = [os.fsencode(word) for word in (self._source, self._mountpoint, "erofs")]
        if libc.mount(*words, ctypes.c_ulong(_MS_RDONLY), None):
            raise UnavailableError(f"file-backed EROFS: {os.strerror(ctypes.get_errno())}")

    def details(self) -> str:
        return "file-backed mount, uncompressed"


class Rclone(_Mounted):
    """`rclone mount` of the directory itself, with its defaults (no cache of files)."""

    name = "rclone mount"

    def prepare(self, tree: Path) -> None:
        find_program("fusermount3")
        self._source = tree
        self._version = run("rclone", "version").split()[1]
        with self.mounted():
            pass

    def backing(self) -> list[Path]:
        return [self._source / CHECKPOINT, self._source / PT]

    def _mount(self) -> "subprocess.Popen[bytes]":
        remote = f":local:{self._source}"
        return self._daemon(
            "rclone", "mount", remote, self._mountpoint, "--read-only", "--config", "/dev/null"
        )

    def details(self) -> str:
        return f"{self._version}, local remote, defaults"


class Borg(_Mounted):
    """`borg mount` of an archive, neither compressed nor encrypted."""

    name = "borg mount"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._environment = {
            "BORG_BASE_DIR": str(directory / "home"),
            "BORG_FUSE_IMPL": "pyfuse3,llfuse",
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            "PYTHONPATH": "",
        }

    def prepare(self, tree: Path) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._tree = tree
        run("borg", "init", "--encryption", "none", self._source, env=self._environment)
        archive = f"{self._source}::tree"
        run("borg", "create", "--compression", "none", archive, tree, env=self._environment)
        with self.mounted() as inside:
            if not (inside / CHECKPOINT).exists():
                raise UnavailableError("borg mount shows no files")

    def backing(self) -> list[Path]:
        return [path for path in (self._source / "data").rglob("*") if path.is_file()]

    def _mount(self) -> "subprocess.Popen[bytes]":
        archive = f"{self._source}::tree"
        command = ("borg", "mount", "--foreground", archive, self._mountpoint)
        return self._daemon(*command, **self._environment)

    def _inside(self) -> Path:
        return self._mountpoint / self._tree.relative_to("/")

    def details(self) -> str:
        return f"{run('borg', '--version').strip()}, no compression, no encryption"


def peers(directory: Path) -> list[Place]:
    """Return every peer; each keeps its image below `directory`."""
    return [
        Squashfuse(directory / "squashfuse"),
        KernelErofs(directory / "erofs"),
        KernelSquashfs(directory / "squashfs"),
        Rclone(directory / "rclone"),
        Borg(directory / "borg"),
    ]
