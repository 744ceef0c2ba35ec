"""What the tests of the use cases share: logs in memory, commits, stores that fail."""

import errno
import fcntl
import itertools
import os
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mregfs.api import Store
from mregfs.errors import UnavailableError
from mregfs.host.callers import Credentials
from mregfs.model import operands
from mregfs.model.commands import Command, CommitRequest, LogVersion, Principal
from mregfs.model.grammar import Statement
from mregfs.model.names import DEFAULT_PROJECT
from mregfs.model.reference import Location
from mregfs.model.state import STATE_TABLES
from mregfs.ports.index import Index
from mregfs.ports.intake import Intake
from mregfs.registry.log.log import Log
from mregfs.registry.read.catalog import Catalog
from mregfs.registry.write.changes import Changed, OneSource
from mregfs.stores.index_memory import IndexMemory
from mregfs.stores.objects_memory import ObjectsMemory

PRINCIPAL = Principal("ann", privileged=True)


class Ticks:
    """A clock that moves by a millisecond each time it is read."""

    def __init__(self) -> None:
        self.now = 1_700_000_000 * 10**9

    def __call__(self) -> int:
        self.now += 10**6
        return self.now


def make_log(objects: Any, index: Index | None = None, **more: Any) -> Log:
    """Return a log over these objects, as a process of its own would have it."""
    ids = (os.urandom(16).hex() for _ in itertools.count())
    given: dict[str, Any] = {
        "clock": Ticks(),
        "new_id": lambda: next(ids),
        "host": "testhost",
        "pause": lambda seconds: None,
    }
    return Log(objects, IndexMemory() if index is None else index, **(given | more))


def version(name: str, number: int, **more: Any) -> LogVersion:
    """Return a command that logs a version with made-up content."""
    return LogVersion(
        DEFAULT_PROJECT,
        name,
        digest=f"{zlib.crc32(name.encode()):08x}{number:056x}",
        layout=f"{number:032x}",
        size=10,
        files=1,
        entries=1,
        **more,
    )


def tables(index: Index) -> dict[str, list[tuple[bytes, bytes]]]:
    """Return all that the log determines, as the index has it."""
    with index.read() as view:
        return {table: list(view.scan(table)) for table in STATE_TABLES}


class FlakyObjects:
    """Objects whose `create` can fail before or after it has taken effect.

    Attributes:
        before: how many more creates of log entries fail without effect.
        after: how many more succeed and report that they did not.
        mute: how many gets of log entries fail after a create that did.
    """

    def __init__(self, objects: ObjectsMemory) -> None:
        self.objects = objects
        self.before = self.after = self.mute = 0
        self.failed = False
        self.creates: list[tuple[str, bytes]] = []

    def create(self, key: str, data: bytes) -> None:
        if key.startswith("log/"):
            self.creates.append((key, data))
            if self.before:
                self.before -= 1
                self.failed = True
                raise UnavailableError("no answer")
        self.objects.create(key, data)
        if key.startswith("log/") and self.after:
            self.after -= 1
            self.failed = True
            raise UnavailableError("no answer")

    def get(self, key: str) -> bytes:
        if key.startswith("log/") and self.mute and self.failed:
            self.mute -= 1
            raise UnavailableError("no answer")
        self.failed = False
        return self.objects.get(key)

    def exists(self, key: str) -> bool:
        return self.objects.exists(key)

    def list(self, prefix: str, start_after: str = "") -> Iterator[str]:
        return self.objects.list(prefix, start_after)

    def delete(self, key: str) -> None:
        self.objects.delete(key)


def write_files(path: Path, files: dict[str, bytes]) -> None:
    path.mkdir(parents=True)
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)


def commit(
    store: Store, path: Path, artifact: str = "mnist", *, consume: bool = True, **more: Any
) -> dict[str, Any]:
    """Commit a directory, and return the first result."""
    request = operands.commit_request("run", artifact, DEFAULT_PROJECT, **more)
    intake = draft_intake(store, path) if consume else store.open_intake(path)
    return commit_intake(store, intake, request).results[0]


def commit_intake(
    store: Store, intake: Intake, request: CommitRequest, *more: Command, **said: Any
) -> Changed:
    """Commit one intake, and carry out more commands in the same transaction."""
    statements = [Statement(request), *map(Statement, more)]
    return store.changes.submit(statements, PRINCIPAL, OneSource(lambda: intake), **said)


def draft_intake(store: Store, path: Path, who: Credentials | None = None) -> Intake:
    """Return a draft of the store, given its path on the host, as the source of a commit."""
    project, name = os.path.split(path)
    return store.open_draft_intake(
        os.path.relpath(project, f"{store.host.drafts.path}/staging"), name, who=who
    )


def taken(store: Store) -> Path:
    """Return where the draft is that is being committed: no user but root can get there."""
    (found,) = (
        path
        for path in Path(store.host.drafts.path, "intake").glob("*/tree")
        if any(path.iterdir())
    )
    return found


def bytes_of(store: Store, artifact: str, number: int) -> dict[str, bytes]:
    """Return all files of a version, read and verified."""
    found = Catalog(store.index).resolve(Location(DEFAULT_PROJECT, artifact, number=number))
    store.content.ensure(found.version)
    files = {}
    for path, entry in store.content.walk(found.version):
        if entry.kind == "file":
            with store.content.open(found.version, entry.position) as opened:
                files[path] = opened.read(0, entry.size)
    return files


def packs_of(store: Store) -> dict[str, int]:
    """Return the size of every pack in the store."""
    return {pack: store.packs.size(pack) for pack in store.packs.list()}


def in_threads(functions: list[Callable[[], object]]) -> None:
    """Run functions at the same time; re-raise the first error."""
    errors: list[BaseException] = []

    def guarded(function: Callable[[], object]) -> None:
        try:
            function()
        except BaseException as exc:  # noqa: BLE001 - handed to the test
            errors.append(exc)

    threads = [threading.Thread(target=guarded, args=(each,)) for each in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def in_child(function: Callable[[], None]) -> None:
    """Run a function in a child process, and fail as it fails."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            function()
            code = 0
        finally:
            if code:
                sys.excepthook(*sys.exc_info())
            os._exit(code)
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def flip(path: str | os.PathLike[str], offset: int = 0) -> None:
    """Damage a stored file: change one bit of it, on the disk."""
    os.chmod(path, 0o644)
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))


def failing_reads(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Let a disk fail that holds one file."""
    inode = path.stat().st_ino
    for name in ("pread", "copy_file_range"):
        call = getattr(os, name)

        def fail(fd: int, *rest: Any, call: Callable[..., Any] = call) -> Any:
            if os.fstat(fd).st_ino == inode:
                raise OSError(errno.EIO, "Input/output error")
            return call(fd, *rest)

        monkeypatch.setattr(os, name, fail)

    def fail_to_clone(*arguments: Any) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "ioctl", fail_to_clone)
