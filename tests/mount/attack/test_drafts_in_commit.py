"""A draft while it is committed: out of everybody's reach, and back as it was when that fails.

A commit takes the draft: an empty directory of the daemon's has its name meanwhile. The file that
makes it last is sparse, and as large as the disk.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attack.people import Person, answer_of
from tests.mount.conftest import Mount

ALICE = 64201


@pytest.fixture
def alice() -> Iterator[Person]:
    person = Person("alice", ALICE)
    yield person
    person.end()


_kept: list[int] = []


def make(top: str) -> None:
    """Make a draft with modes of its own, and work in it."""
    os.mkdir(top, 0o750)
    os.mkdir(f"{top}/below", 0o700)
    for name in ("file", "below/file"):
        with open(os.open(f"{top}/{name}", os.O_CREAT | os.O_WRONLY, 0o640), "wb") as file:
            file.write(b"x" * 100_000)
    with open(f"{top}/large", "wb") as file:
        room = os.statvfs(file.fileno())
        file.truncate(room.f_blocks * room.f_frsize // 4 * 3)  # more is refused at once
    _kept.append(os.open(f"{top}/file", os.O_RDONLY))
    _kept.append(os.open(f"{top}/below", os.O_RDONLY | os.O_DIRECTORY))
    os.chdir(f"{top}/below")


def commit(control: str, line: str) -> None:
    descriptor = os.open(control, os.O_WRONLY)
    os.write(descriptor, line.encode())


def create(path: str) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))


def write(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY))


def create_in_what_is_kept() -> None:
    os.close(os.open("new", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644, dir_fd=_kept[1]))


def unlink_in_what_is_kept() -> None:
    os.unlink("file", dir_fd=_kept[1])


def open_what_is_kept() -> None:
    os.close(os.open(f"/proc/self/fd/{_kept[0]}", os.O_WRONLY))


def create_where_one_works() -> None:
    create("new")


def chmod_what_is_kept() -> None:
    os.fchmod(_kept[0], 0o777)


def read_what_is_kept() -> bytes:
    return os.pread(_kept[0], 1 << 20, 0)


KEPT = (
    create_in_what_is_kept,
    unlink_in_what_is_kept,
    open_what_is_kept,
    create_where_one_works,
    chmod_what_is_kept,
)


def _by_name(person: Person, top: str) -> dict[str, str]:
    """Return what comes of each change by name."""
    return {
        "create": answer_of(person, create, f"{top}/new"),
        "create below": answer_of(person, create, f"{top}/below/new"),
        "write": answer_of(person, write, f"{top}/below/file"),
        "mkdir": answer_of(person, os.mkdir, f"{top}/new"),
        "symlink": answer_of(person, os.symlink, "/etc", f"{top}/new"),
        "unlink": answer_of(person, os.unlink, f"{top}/file"),
        "rename": answer_of(person, os.rename, f"{top}/file", f"{top}/new"),
        "link": answer_of(person, os.link, f"{top}/file", f"{top}/new"),
        "truncate": answer_of(person, os.truncate, f"{top}/file", 0),
        "chmod": answer_of(person, os.chmod, f"{top}/file", 0o640),
        "chmod of it": answer_of(person, os.chmod, top, 0o777),
        "rename of it": answer_of(person, os.rename, top, f"{top}.new"),
        "rmdir": answer_of(person, os.rmdir, top),
    }


def _look(top: Path) -> dict[str, tuple[str, int, int]]:
    found = {}
    for path in (top, *top.rglob("*")):
        seen = path.lstat()
        found[str(path.relative_to(top))] = (oct(seen.st_mode), seen.st_uid, seen.st_size)
    for name in (".", "below"):
        found[name] = (*found[name][:2], 0)
    return found


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_draft_in_a_commit_is_nobodys(mounts: tuple[Mount, Mount], alice: Person) -> None:
    first = mounts[0]
    top, again = (f"{mount.path}/staging/draft" for mount in mounts)
    on_host = first.store / "staging/default/default/draft"
    alice.do(make, top)
    before = _look(on_host)
    os.listdir(again)
    committer = Person("alice, committing", ALICE)
    try:
        committer.begin(commit, f"{first.path}/.mregfs/control", "commit draft large\n")
        deadline = time.monotonic() + 30
        while on_host.stat().st_uid == ALICE:
            assert time.monotonic() < deadline, "the commit did not take the draft"
            time.sleep(0.01)

        refused = _by_name(alice, top)
        assert {"EBUSY"} == set(refused.values()), refused
        assert b"x" * 100_000 == alice.do(read_what_is_kept)
        for change in KEPT:
            assert answer_of(alice, change) in ("EBUSY", "EACCES"), change
        elsewhere = _by_name(alice, again)
        # For a second that mount's kernel lets her in by what it remembers of the directory; the
        # mode of a file is then hers to change, as by a descriptor, until it is the version's.
        assert elsewhere.pop("chmod") in ("ok", "EACCES", "EPERM")
        assert "ok" not in elsewhere.values(), elsewhere
    finally:
        committer.end()
    deadline = time.monotonic() + 30
    while on_host.stat().st_uid != ALICE or answer_of(alice, os.chmod, top, 0o750) != "ok":
        assert time.monotonic() < deadline, "the draft did not come back"
        time.sleep(0.05)
    assert before == _look(on_host)
    assert {"ok"} == {
        answer_of(alice, create, f"{where}/{n}") for n, where in enumerate((top, again))
    }
