"""Drafts are used with the rights of whoever asks: by two mounts of root's, in races that he wins.

A user swaps two names of his own draft by one mount as fast as he can, while he uses one of them by
the other. One of the two is a symlink to what is not his. What he aims at belongs to the test.
"""

import os
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attack import operations
from tests.attack.canaries import Canaries
from tests.attack.people import Person, answer_of
from tests.mount.conftest import Mount

ALICE, BOB, DAVE = 64201, 64202, 64203
SECONDS = 1.0
"""Of each fight: on the code that was to be mended a mode was won in 0.4 s, 5 times of 5."""


@pytest.fixture
def alice() -> Iterator[Person]:
    person = Person("alice", ALICE)
    yield person
    person.end()


@pytest.fixture
def bob() -> Iterator[Person]:
    person = Person("bob", BOB)
    yield person
    person.end()


KINDS = [kind for kind in operations.ALPHABET if kind not in ("commit", "mv")]


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", KINDS)
def test_a_swapped_name_leads_nowhere(
    mounts: tuple[Mount, Mount], alice: Person, tmp_path: Path, kind: str
) -> None:
    """Not to a file of root's, not to one of another user, not to a directory."""
    canaries = Canaries(tmp_path / "canaries", {"root": 0, "dave": DAVE})
    for path in canaries.files.values():
        os.setxattr(path, "user.canary", b"sings")
    canaries.before = canaries.look()
    victims = [*canaries.files.values(), *canaries.directories.values()]
    first, second = (str(mount.path) for mount in mounts)
    rounds = 0
    for number, victim in enumerate(victims):
        rounds += alice.do(
            operations.duel, kind, first, second, f"fight{number}", str(victim), "", SECONDS * 0.3
        )
    assert [] == canaries.changes()
    assert rounds > len(victims)
    for path in canaries.files.values():
        assert b"sings" == os.getxattr(path, "user.canary")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["create", "mkdir", "symlink", "mknod"])
def test_what_another_has_made_stays_his(
    mounts: tuple[Mount, Mount], alice: Person, bob: Person, kind: str
) -> None:
    """Also where it takes the name of what is being made just then."""
    first, second = (str(mount.path) for mount in mounts)
    top = f"{first}/staging/fight"
    alice.do(operations.mkdir, top, 0o777)
    bob.do(operations.create, f"{top}/other", "bobs", 0o644)
    kept = os.open(mounts[0].store / "staging/default/default/fight/other", os.O_RDONLY)
    try:
        alice.do(operations.duel, kind, first, second, "fight", "", "", 2 * SECONDS)
        found = os.fstat(kept)  # she may have removed it: the directory is hers
        assert (BOB, 0o644) == (found.st_uid, stat.S_IMODE(found.st_mode))
    finally:
        os.close(kept)


def make_and_remove(top: str, seconds: float) -> int:
    """Make one of each kind, and remove it, for some time."""
    end = time.monotonic() + seconds
    count = 0
    while time.monotonic() < end:
        os.close(os.open(f"{top}/file", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o4755))
        os.mkdir(f"{top}/directory", 0o700)
        os.symlink("/etc/shadow", f"{top}/symlink")
        os.mkfifo(f"{top}/fifo")
        os.unlink(f"{top}/file")
        os.rmdir(f"{top}/directory")
        os.unlink(f"{top}/symlink")
        os.unlink(f"{top}/fifo")
        count += 1
    return count


def test_what_a_user_makes_is_his_from_the_first_moment(
    mounts: tuple[Mount, Mount], alice: Person
) -> None:
    """A symlink of root's would lead where protected_symlinks lets no other lead."""
    top = mounts[0].path / "staging/draft"
    alice.do(operations.mkdir, str(top), 0o755)
    on_host = mounts[0].store / "staging/default/default/draft"
    owners: set[tuple[int, int]] = set()
    looks = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal looks
        while not done.is_set():
            for name in ("file", "directory", "symlink", "fifo"):
                try:
                    found = os.lstat(f"{on_host}/{name}")
                except FileNotFoundError:
                    continue
                looks += 1
                owners.add((found.st_uid, found.st_gid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        made = 0
        while made <= 10 or looks <= 10:  # on a busy host a second may not do
            made += alice.do(make_and_remove, str(top), SECONDS)
    finally:
        done.set()
        watcher.join()
    assert {(ALICE, ALICE)} == owners


# ---- what a mount of another cannot give


def test_a_descriptor_kept_gives_no_right_that_the_host_took(
    mounts: tuple[Mount, Mount], alice: Person, bob: Person
) -> None:
    """What one mount has let a user find, he cannot change once the other has closed it."""
    top = f"{mounts[0].path}/staging/draft"
    alice.do(operations.mkdir, top, 0o777)
    bob.do(operations.hold, top)
    bob.do(operations.use_held, 0, "create", "mine")
    alice.do(os.chmod, f"{mounts[1].path}/staging/draft", 0o700)
    # The first mount's kernel remembers the mode of a second ago; the host does not.
    assert "EACCES" == answer_of(bob, operations.use_held, 0, "create", "late")
    assert "EACCES" == answer_of(bob, operations.use_held, 0, "unlink", "mine")
    assert "EPERM" == answer_of(bob, operations.use_held, 0, "chmod", "")
