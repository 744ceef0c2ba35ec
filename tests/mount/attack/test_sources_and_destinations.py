"""What leaves a store for somebody's directory, and enters it from there, is what was asked for.

The directory is alice's: while root exports into it, or imports and commits from it, she swaps its
names for symlinks, as fast as she can, or fails the command at a moment of her choice. Nothing
outside changes, and nothing of root's is published.
"""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attack import operations
from tests.attack.canaries import Canaries
from tests.attack.commands import begin_verb, run_verb
from tests.attack.people import Person

ALICE = 64001
SECONDS = 2.0


@pytest.fixture
def canaries(tmp_path: Path) -> Canaries:
    return Canaries(tmp_path / "canaries", {"root": 0})


@pytest.fixture
def alice(tmp_path: Path) -> Iterator[Person]:
    person = Person("alice", ALICE)
    yield person
    person.end()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "alice"
    path.mkdir()
    os.chown(path, ALICE, ALICE)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store of root's, with a version of many files."""
    store, source = tmp_path / "store", tmp_path / "source"
    fill(source)
    for words in (("init", store), ("commit", source, "mnist", "--store", store)):
        outcome = run_verb(words)
        assert outcome.code == 0, outcome
    return store


def fill(place: Path) -> None:
    """Make a tree in which a command has something to do for a while."""
    for number in range(20):
        below = place / f"part-{number}" / "deep"
        below.mkdir(parents=True, exist_ok=True)
        for name in ("key.txt", "lock", "intent.json"):
            (below / name).write_bytes(b"%d" % number)
        (below.parent / "weights.bin").write_bytes(os.urandom(30_000))


def give(place: Path, uid: int) -> None:
    for path in [place, *place.rglob("*")]:
        os.chown(path, uid, uid, follow_symlinks=False)


def with_swapped_names(
    alice: Person, canaries: Canaries, place: Path, command, again, prefix=""
) -> int:
    """Run a command of root's again and again, while alice swaps all names; return how often."""
    victim, directory = canaries.files["root 600"], canaries.directories["root 700"]
    alice.begin(operations.swap_names, str(place), prefix, str(victim), str(directory), SECONDS)
    end = time.monotonic() + SECONDS
    times = 0
    while time.monotonic() < end:
        outcome = command()
        assert [] == outcome.problems()
        times += 1
        assert [] == canaries.changes(), outcome
        again()
    assert alice.finish() > 5 or prefix
    return times


def take(directory: Path, name: str) -> None:
    """Make a file in a directory that may be a symlink by now."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW, dir_fd=fd))
    finally:
        os.close(fd)


@pytest.mark.parametrize("fails", [False, True], ids=["", "that fails"])
@pytest.mark.parametrize("hers", [False, True], ids=["new", "her own"])
def test_an_export_fills_and_empties_its_own_directory_only(
    store, alice, canaries, home, hers, fails
) -> None:
    """Whether it makes the destination or finds it; when it fails, it takes its own away."""
    target = home / "out"

    def command():
        if hers:
            with contextlib.suppress(FileExistsError):
                target.mkdir()
            os.chown(target, ALICE, ALICE, follow_symlinks=False)
        running = begin_verb(["export", "mnist:v0", target, "--store", store])
        if fails:
            # It finds a name that is taken when it is nearly done.
            while running.running():
                with contextlib.suppress(OSError):
                    take(target, "part-9")
                    break
        return running.finish()

    def again():
        for path in home.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    path.unlink()

    with_swapped_names(alice, canaries, home, command, again)


@pytest.mark.parametrize(
    "words",
    [("commit", "{}"), ("import", "{}"), ("import", "{}/part-0/weights.bin")],
    ids=["commit", "import", "import a file"],
)
def test_nothing_is_published_that_is_not_in_the_directory(
    store, alice, canaries, home, words
) -> None:
    """What a symlink leads to is no part of a directory, however quickly it comes and goes."""
    source = home / "model"
    fill(source)
    give(source, ALICE)
    filled = [word.format(source) for word in words]

    def command():
        return run_verb([*filled, "stolen", "--store", store])

    with_swapped_names(alice, canaries, source, command, lambda: None)
    published = everything_in(store)
    assert not canaries.secrets_in(published)


def test_nothing_is_published_that_is_not_the_file(store, alice, canaries, home) -> None:
    """Nothing that the import of a single file needs is where she can swap it."""
    (home / "weights.bin").write_bytes(b"1")
    give(home, ALICE)

    def command():
        (home / "weights.bin").write_bytes(os.urandom(8))
        return run_verb(["import", home / "weights.bin", "stolen", "--store", store])

    with_swapped_names(alice, canaries, home, command, lambda: None, ".mregfs")
    assert not canaries.secrets_in(everything_in(store))


def everything_in(store: Path) -> bytes:
    """Return the bytes of all versions in a store."""
    found = []
    for artifact in ("mnist", "stolen", "odd"):
        outcome = run_verb(["ls", artifact, "--json", "--store", store])
        if outcome.code:
            continue
        for version in json.loads(outcome.output):
            target = store.parent / f"{artifact}-{version['version']}"
            outcome = run_verb(
                ["export", f"{artifact}:{version['version']}", target, "--store", store]
            )
            assert 0 == outcome.code, outcome
            found += [path.read_bytes() for path in target.rglob("*") if path.is_file()]
    assert found
    return b"".join(found)


@pytest.mark.parametrize("what", ["fifo", "socket", "device", "symlink out", "endless"])
@pytest.mark.parametrize("verb", ["commit", "import"])
def test_what_is_no_file_is_refused_by_name(store, home, canaries, what, verb) -> None:
    """In time, and in one line."""
    source = home / "model"
    fill(source)
    odd = source / "odd"
    if what == "fifo":
        os.mkfifo(odd)
    elif what == "socket":
        import socket

        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind(str(odd))
    elif what == "device":
        os.mknod(odd, 0o20666, os.makedev(1, 5))
    elif what == "endless":
        odd.symlink_to("/dev/zero")
    else:
        odd.symlink_to(canaries.files["root 600"])
    outcome = run_verb([verb, source, "odd", "--store", store])

    assert 5 == outcome.code, outcome
    assert "odd" in outcome.output
    assert [] == outcome.problems()
    assert not canaries.secrets_in(everything_in(store))


@pytest.mark.parametrize("what", ["fifo", "device", "endless"])
def test_an_import_of_what_never_ends_ends(store, home, what) -> None:
    """A single file to be imported is a file."""
    odd = home / "odd"
    if what == "fifo":
        os.mkfifo(odd)
    elif what == "device":
        os.mknod(odd, 0o20666, os.makedev(1, 5))
    else:
        odd.symlink_to("/dev/zero")
    outcome = run_verb(["import", odd, "odd", "--store", store])

    assert outcome.code not in (0, None), outcome
    assert [] == outcome.problems()
