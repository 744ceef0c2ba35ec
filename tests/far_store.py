"""Stores in directories whose objects and packs are far away all the same: in a sleeping store.

Decided here: how the adapters of a directory are exchanged where a store is put together. Not
decided here: what a sleeping store does (`contracts/sleeping_store.py`).

Run as a program, this is `mregfs mount` over such a store.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Self

from mregfs.host.beneath import Beneath
from mregfs.stores.objects_dir import ObjectsDirectory
from mregfs.stores.packs_dir import PacksDirectory
from tests.contracts.sleeping_store import SleepingObjects, SleepingPacks

__all__ = ["FarMount", "far_away", "publish"]

PATIENCE = 60


class _Instead:
    """An adapter in the place of a directory's, which does what is asked beyond the port."""

    def __init__(self, far: Any, near: Any) -> None:
        self._far, self._near = far, near

    def __getattr__(self, name: str) -> Any:
        return getattr(self._far if hasattr(self._far, name) else self._near, name)


def _rooms() -> list[ModuleType]:
    import mregfs.wiring.opening  # noqa: F401 - with all that it opens

    return [room for name, room in sys.modules.items() if name.startswith("mregfs.wiring")]


@contextmanager
def far_away(delay: float = 0.3) -> Iterator[tuple[SleepingObjects, SleepingPacks]]:
    """Let stores that are opened from now on have their objects and packs in a sleeping store.

    There is one for all of them, and it has what there is in `store.json` of the first.
    """
    objects, packs = SleepingObjects(delay), SleepingPacks(delay)

    def far_objects(top: Beneath) -> _Instead:
        near = ObjectsDirectory(top)
        if near.exists("store.json") and "store.json" not in objects.list(""):
            objects.create("store.json", near.get("store.json"))
        return _Instead(objects, near)

    def far_packs(top: Beneath) -> _Instead:
        return _Instead(packs, PacksDirectory(top))

    exchanged = {"ObjectsDirectory": far_objects, "PacksDirectory": far_packs}
    before = [
        (room, name, getattr(room, name))
        for room in _rooms()
        for name in exchanged
        if hasattr(room, name)
    ]
    assert {name for _, name, _ in before} == set(exchanged)
    for room, name, _ in before:
        setattr(room, name, exchanged[name])
    try:
        yield objects, packs
    finally:
        for room, name, adapter in before:
            setattr(room, name, adapter)


class FarMount:
    """A mount over a store that is far away; its daemon is a process of its own."""

    def __init__(self, top: Path, delay: float = 0.3) -> None:
        self._delay = delay
        self.path = top / "models"
        self._store = top / "store"
        self.log = top / "log"
        """What the daemon says."""

    def __enter__(self) -> Self:
        self.path.mkdir()
        command = [
            sys.executable,
            "-m",
            "tests.far_store",
            str(self._delay),
            self._store,
            self.path,
        ]
        with self.log.open("wb") as log:
            self._daemon = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE
        while not os.path.ismount(self.path):
            if self._daemon.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"it was not mounted:\n{self.log.read_text()}")
            time.sleep(0.05)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._daemon.terminate()
        try:
            self._daemon.wait(PATIENCE)
        finally:
            self._daemon.kill()
            subprocess.run(["umount", "-l", self.path], capture_output=True, check=False)


def publish(mount: Path, artifact: str, files: dict[str, bytes]) -> Path:
    """Write a draft and commit it; return the way to the version."""
    draft = f"{artifact}-{time.monotonic_ns()}"
    (mount / "staging" / draft).mkdir()
    for name, data in files.items():
        (mount / "staging" / draft / name).write_bytes(data)
    descriptor = os.open(mount / ".mregfs/control", os.O_RDWR)
    try:
        os.write(descriptor, f"commit {draft} {artifact}".encode())
        reply = b""
        while piece := os.read(descriptor, 1 << 16):
            reply += piece
    finally:
        os.close(descriptor)
    if not json.loads(reply)["ok"]:
        raise RuntimeError(reply.decode())
    return mount / "artifacts" / artifact / "latest"


def main(delay: str, store: str, mountpoint: str, *options: str) -> None:
    """Mount a store and serve it: DELAY STORE MOUNTPOINT [OPTION…]."""
    from mregfs.api import init_store
    from mregfs.cli.main import main as command

    if not Path(store, "store.json").exists():
        init_store(store)
    with far_away(float(delay)):
        sys.argv = ["mregfs", "mount", "--foreground", store, mountpoint, *options]
        command()


if __name__ == "__main__":
    main(*sys.argv[1:])
