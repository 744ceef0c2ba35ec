"""Both paths of a request give the same answers: the fast path, and the one by the event loop.

Each operation of the fast path is asked the same of two mounts: one where it is on, one where it is
off. Decided here: what is asked. What the answers must be is said by the other tests.
"""

import ctypes
import errno
import mmap
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mregfs.fuse import wire
from mregfs.fuse.fast_path import FastPath
from tests.mount.conftest import Mount, _mounts

VERSION = "artifacts/mnist/v0"
MISSING = b"\xff-no-utf-8"
LIBC = ctypes.CDLL(None, use_errno=True)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mount, Mount]]:
    """Two mounts of equal content: with the fast path, and without.

    Without passthrough, so that reads and writes arrive.
    """
    with _mounts(tmp_path_factory.mktemp("both"), passthrough=False) as make:
        mounts = (make("fast"), make("slow", options=("-o", "nofastpath")))
        for mount in mounts:
            mount.init()
            mount.start()
            fill(mount)
        yield mounts


def fill(mount: Mount) -> None:
    files = {"config.json": b"{}", "sub/weights.bin": bytes(range(256)) * 2000, "run.sh": b"#!"}
    top = mount.draft("first", files)
    (top / "run.sh").chmod(0o755)
    (top / "link").symlink_to("sub/weights.bin")
    mount.control("commit first mnist --alias best")
    mount.commit("mnist", {"config.json": b"[1]"})
    mount.control("ln -sf mnist:v0 classifier:production")
    draft = mount.draft("draft", {"file": b"content", "sub/inner": b"inner"})
    (draft / "link").symlink_to("file")
    os.mkfifo(draft / "fifo")
    os.setxattr(draft / "file", "user.one", b"1" * 300)
    for number in range(400):
        (draft / "sub" / f"a-rather-long-name-{number:03}").touch()


# ---- what is asked


def stat_of(path: Path) -> tuple[int, ...]:
    found = path.lstat()
    return found.st_mode, found.st_nlink, found.st_size, found.st_uid, found.st_gid


def names(*paths: str) -> Callable[[Path], Any]:
    def ask(top: Path) -> Any:
        return [outcome(lambda path: stat_of(top / path), path) for path in paths]

    return ask


def missing(parent: str, name: bytes) -> Callable[[Path], Any]:
    return lambda top: os.lstat(os.path.join(os.fsencode(top / parent), name))


def links(*paths: str) -> Callable[[Path], Any]:
    return lambda top: [outcome(lambda path: os.readlink(top / path), path) for path in paths]


def held(top: Path) -> Any:
    """Of an open file, whose name is gone, and of one that is published."""
    with (top / "staging/draft/held").open("w+b") as file:
        file.write(b"12345")
        file.flush()
        (top / "staging/draft/held").unlink()
        published = os.open(top / VERSION / "config.json", os.O_RDONLY)
        try:
            return os.fstat(file.fileno()).st_size, os.fstat(published).st_mode
        finally:
            os.close(published)


def opened(path: str, flags: int) -> Callable[[Path], Any]:
    def ask(top: Path) -> Any:
        descriptor = os.open(top / path, flags, 0o640)
        try:
            return stat.S_IFMT(os.fstat(descriptor).st_mode), os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)

    return ask


def read(path: str, offset: int = 0, size: int = 1 << 20) -> Callable[[Path], Any]:
    def ask(top: Path) -> Any:
        descriptor = os.open(top / path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            return os.pread(descriptor, size, offset)
        finally:
            os.close(descriptor)

    return ask


def mapped(top: Path) -> Any:
    with (
        (top / VERSION / "sub/weights.bin").open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapping,
    ):
        return mapping[300_000:300_100]


def written(path: str, data: bytes, flags: int = os.O_WRONLY) -> Callable[[Path], Any]:
    def ask(top: Path) -> Any:
        descriptor = os.open(top / path, flags, 0o644)
        try:
            return os.write(descriptor, data)
        finally:
            os.close(descriptor)

    return ask


def patched(top: Path) -> Any:
    file = top / "staging/draft/patched"
    file.write_bytes(b"0123456789" * 1000)
    with file.open("r+b") as opened_file:
        opened_file.seek(5)
        opened_file.write(b"abc")
    with file.open("ab") as opened_file:
        opened_file.write(b"the end")
    return file.read_bytes()


def replied(script: bytes) -> Callable[[Path], Any]:
    """Write on `control`, and read the reply back, but for what two stores differ in."""

    def ask(top: Path) -> Any:
        descriptor = os.open(top / ".mregfs/control", os.O_RDWR)
        try:
            os.write(descriptor, script)
            return os.read(descriptor, 1 << 16)
        finally:
            os.close(descriptor)

    return ask


def attribute(path: str, name: str, room: int | None = None) -> Callable[[Path], Any]:
    """`room`: of the buffer; 0 asks for the size, None for a value of any size."""

    def ask(top: Path) -> Any:
        if room is None:
            return os.getxattr(top / path, name, follow_symlinks=False)
        buffer = ctypes.create_string_buffer(max(room, 1))
        found = LIBC.lgetxattr(os.fsencode(top / path), name.encode(), buffer, room)
        if found < 0:
            raise OSError(ctypes.get_errno(), "lgetxattr")
        return found, buffer.raw[:found] if room else b""

    return ask


def listed(*paths: str) -> Callable[[Path], Any]:
    def ask(top: Path) -> Any:
        found = {}
        for path in paths:
            with os.scandir(top / path) as entries:
                found[path] = sorted((e.name, e.is_dir(), e.is_symlink()) for e in entries)
        return found

    return ask


def removed_while_open(top: Path) -> Any:
    """A directory that goes while it is open: what is asked of it afterwards."""
    (top / "staging/draft/gone").mkdir()
    descriptor = os.open(top / "staging/draft/gone", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.rmdir(top / "staging/draft/gone")
        return os.listdir(descriptor), outcome(os.lstat, top / "staging/draft/gone")
    finally:
        os.close(descriptor)


def closed_and_made_again(top: Path) -> Any:
    """What was written is there when the file was closed, for whoever opens it then."""
    found = []
    for text in (b"one", b"three", b""):
        (top / "staging/draft/again").write_bytes(text)
        found.append((top / "staging/draft/again").read_bytes())
        (top / "staging/draft/again").unlink()
    return found


CASES: dict[int, dict[str, Callable[[Path], Any]]] = {
    wire.LOOKUP: {
        "registry": names("artifacts", "artifacts/mnist", VERSION, "collections/classifier"),
        "inside": names(f"{VERSION}/sub", f"{VERSION}/sub/weights.bin", f"{VERSION}/run.sh"),
        "links": names("artifacts/mnist/best", "collections/classifier/v0", f"{VERSION}/link"),
        "special": names(".mregfs/control", ".mregfs/events", ".mregfs/query/show mnist"),
        "drafts": names("staging", "staging/draft", "staging/draft/sub", "staging/draft/fifo"),
        "none": names("nothing", "artifacts/nothing", f"{VERSION}/nothing", "staging/nothing"),
        "no question": names(".mregfs/nothing", ".mregfs/query/nothing"),
        "no UTF-8": missing("artifacts", MISSING),
        "no UTF-8 inside": missing(VERSION, MISSING),
        "no UTF-8 in a draft": missing("staging/draft", MISSING),
        "too long": missing("staging/draft", b"x" * 300),
    },
    wire.GETATTR: {
        "open": held,
        "all": names(
            "", "artifacts", "projects", ".mregfs", ".mregfs/status", "staging/draft/file"
        ),
    },
    wire.READLINK: {
        "links": links("artifacts/mnist/best", "collections/classifier/production"),
        "link": links("collections/classifier/v0", f"{VERSION}/link", "staging/draft/link"),
        "own project": links("projects/default/default"),
        "no link": links("artifacts", f"{VERSION}/config.json", "staging/draft/file"),
    },
    wire.OPEN: {
        "published": opened(f"{VERSION}/config.json", os.O_RDONLY),
        "published, to write": opened(f"{VERSION}/config.json", os.O_RDWR),
        "published, to cut": opened(f"{VERSION}/config.json", os.O_RDONLY | os.O_TRUNC),
        "draft": opened("staging/draft/file", os.O_RDWR),
        "draft, cut": opened("staging/draft/sub/a-rather-long-name-000", os.O_WRONLY | os.O_TRUNC),
        "draft, new": opened("staging/draft/new", os.O_RDWR | os.O_CREAT),
        "draft, exclusive": opened("staging/draft/file", os.O_RDWR | os.O_CREAT | os.O_EXCL),
        "fifo": opened("staging/draft/fifo", os.O_RDONLY | os.O_NONBLOCK),
        "symlink": opened("staging/draft/link", os.O_RDONLY | os.O_NOFOLLOW),
        "directory": opened("artifacts", os.O_RDWR),
        "status, to write": opened(".mregfs/status", os.O_WRONLY),
        "question, to write": opened(".mregfs/query/show mnist", os.O_RDWR),
    },
    wire.READ: {
        "published": read(f"{VERSION}/sub/weights.bin"),
        "a piece": read(f"{VERSION}/sub/weights.bin", 100_001, 70_003),
        "beyond the end": read(f"{VERSION}/config.json", 100),
        "empty": read(f"{VERSION}/config.json", 0, 0),
        "mapped": mapped,
        "draft": read("staging/draft/file"),
        "usage": read(".mregfs/control"),
        "question": read(".mregfs/query/help"),
        "no news": read(".mregfs/events"),
        "directory": read("artifacts"),
    },
    wire.WRITE: {
        "draft": patched,
        "draft, new": written("staging/draft/made", b"x" * 200_000, os.O_WRONLY | os.O_CREAT),
        "control": written(".mregfs/control", b"tag mnist:v0 good\n"),
        "control, fails": written(".mregfs/control", b"ln nothing:v0 c:production\n"),
        "control, nonsense": written(".mregfs/control", b"nonsense\n"),
        "control, no UTF-8": written(".mregfs/control", MISSING + b"\n"),
        "control, reply": replied(b"ln nothing:v0 c:production\n"),
        "events": written(".mregfs/events", b"since 0"),
        "events, nonsense": written(".mregfs/events", b"until 0"),
    },
    wire.FLUSH: {"closed": closed_and_made_again},
    wire.RELEASE: {"closed": closed_and_made_again},
    wire.GETXATTR: {
        "version": attribute(VERSION, "user.mregfs.digest"),
        "file": attribute(f"{VERSION}/sub/weights.bin", "user.mregfs.digest"),
        "slow": attribute(f"{VERSION}/config.json", "user.mregfs.read_path"),
        "size": attribute(VERSION, "user.mregfs.digest", 0),
        "no room": attribute(VERSION, "user.mregfs.digest", 5),
        "room": attribute(VERSION, "user.mregfs.digest", 500),
        "none": attribute(VERSION, "user.mregfs.nothing"),
        "another's": attribute("artifacts", "user.other"),
        "draft": attribute("staging/draft/file", "user.one"),
        "draft, size": attribute("staging/draft/file", "user.one", 0),
        "draft, no room": attribute("staging/draft/file", "user.one", 7),
        "draft, none": attribute("staging/draft/file", "user.two"),
    },
    wire.OPENDIR: {
        "all": listed("", "artifacts", "collections/classifier", "projects/default", ".mregfs"),
        "gone": removed_while_open,
        "file": lambda top: os.listdir(top / VERSION / "config.json"),
    },
    wire.READDIRPLUS: {
        "registry": listed("artifacts/mnist", "collections", "projects"),
        "inside": listed(VERSION, f"{VERSION}/sub"),
        "drafts": listed("staging", "staging/draft"),
        "long": listed("staging/draft/sub"),
        "never listed": listed(".mregfs/query"),
    },
    wire.RELEASEDIR: {"gone": removed_while_open},
}
SILENT = {wire.FORGET, wire.BATCH_FORGET}
"""Nobody gets an answer: `test_what_was_listed_is_forgotten_with_its_names` counts them."""


def outcome(ask: Callable[..., Any], *what: Any) -> Any:
    """Return what is answered, or the errno."""
    try:
        return ask(*what)
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def requests(mount: Mount, opcode: int) -> tuple[int, int]:
    """Return how many requests of a kind arrived, and how many of all took the fast path."""
    figures = mount.status()["requests"]
    return figures["by_opcode"].get(str(opcode), 0), figures["on_fast_path"]


def test_each_operation_of_the_fast_path_is_asked() -> None:
    """Who adds an operation adds what both paths must agree on."""
    operations = FastPath(None, None, None, None).operations.keys()  # type: ignore[arg-type]

    assert operations == CASES.keys() | SILENT


@pytest.mark.parametrize(
    ("opcode", "case"), [(opcode, case) for opcode, cases in CASES.items() for case in cases]
)
def test_both_paths_answer_alike(both: tuple[Mount, Mount], opcode: int, case: str) -> None:
    ask = CASES[opcode][case]
    fast, slow = both

    assert outcome(ask, slow.path) == outcome(ask, fast.path)


@pytest.mark.parametrize("opcode", CASES)
def test_what_is_asked_arrives(both: tuple[Mount, Mount], opcode: int) -> None:
    """The cases drive the operation on both mounts, and on one of them by the fast path."""
    fast, slow = both
    for mount in both:
        before, at_once = requests(mount, opcode)
        for ask in CASES[opcode].values():
            outcome(ask, mount.path)
        arrived, answered = requests(mount, opcode)

        assert arrived > before, mount.path
        assert (answered > at_once) == (mount is fast)
    assert 0 == requests(slow, opcode)[1]
