"""A commit is what its caller could do himself, as real users find it through a real mount."""

import errno
import json
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mregfs.wiring.store  # noqa: F401 - alice may not be able to read this interpreter's modules
from tests.attack import operations
from tests.attack.commands import Outcome, run_verb
from tests.attack.people import Person, answer_of
from tests.mount.conftest import MakeMount, Mount, reachable_directory

TEAM = 64210
ALICE, BOB = 64201, 64202
LARGE = 300_000
"""Bytes of a file that becomes a pack as it is."""


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Make a directory that every user can reach."""
    with reachable_directory() as path:
        yield path


@pytest.fixture
def people() -> Iterator[dict[str, Person]]:
    """Two members of the team."""
    made = {
        "alice": Person("alice", ALICE, (TEAM,)),
        "bob": Person("bob", BOB, (TEAM,)),
    }
    try:
        yield made
    finally:
        for person in made.values():
            person.end()


@pytest.fixture
def team(make_mount: MakeMount) -> Mount:
    """A mount of root's for all, of a store that everybody reads and the team writes."""
    mount = make_mount(options=("--allow-other",))
    mount.init()
    mount.cli("access", "--writers", str(TEAM))
    mount.start()
    (mount.path / "staging").stat()
    return mount


# ---- what people do; run in their own processes


def making(top: str, mode: int, files: dict[str, tuple[bytes, int]]) -> None:
    """Make a directory and files in it, with just these modes."""
    os.umask(0)
    os.mkdir(top, 0o777)
    for name, (data, file_mode) in files.items():
        with open(os.open(f"{top}/{name}", os.O_CREAT | os.O_WRONLY, file_mode), "wb") as file:
            file.write(data)
    os.chmod(top, mode)


def asking(mount: str, script: str) -> dict[str, Any]:
    """Write a script on the control file, and return the reply."""
    descriptor = os.open(f"{mount}/.mregfs/control", os.O_RDWR)
    try:
        try:
            os.write(descriptor, script.encode())
        except OSError:
            pass  # the reply says why
        reply: dict[str, Any] = json.loads(os.read(descriptor, 1 << 20))
        return reply
    finally:
        os.close(descriptor)


def as_alice(mount: Mount, *words: str | Path) -> Outcome:
    """Run a verb as alice."""
    environment = {"MREGFS_STORE": str(mount.store), "MREGFS_MOUNT": str(mount.path)}
    return run_verb(words, uid=ALICE, groups=(TEAM,), environment=environment)


def using_api(place: str, draft: str) -> str:
    """Commit a directory by the Python API, as the user that this process is."""
    import mregfs
    from mregfs.errors import MregfsError

    try:
        with mregfs.Registry(place) as registry:
            registry.commit(draft, "stolen")
    except MregfsError as refused:
        return str(refused)
    return "ok"


def looks_of(top: Path) -> dict[str, tuple[int, ...]]:
    """Return inode, owner, mode and time of all in a directory, and of itself."""
    found = {}
    for path in (top, *sorted(top.rglob("*"))):
        status = path.lstat()
        row = status.st_ino, status.st_uid, status.st_gid, status.st_mode, status.st_mtime_ns
        found[str(path.relative_to(top))] = row
    return found


def test_nobody_commits_the_private_draft_of_another(team: Mount, people: Any) -> None:
    """By none of the ways; the draft stays as it was."""
    alice, bob = people["alice"], people["bob"]
    mount, draft = str(team.path), team.path / "staging/bobs"
    bob.do(making, str(draft), 0o700, {"key": (b"secret" * 100, 0o600)})
    bob.do(making, f"{draft}/below", 0o700, {"large": (os.urandom(LARGE), 0o600)})
    before = looks_of(draft)
    asked = alice.do(asking, mount, "commit bobs stolen\n")
    said = as_alice(team, "commit", draft, "stolen")
    by_api = alice.do(using_api, mount, str(draft))

    assert errno.EACCES == asked["errno"], asked
    assert "'bobs' is not yours to commit" in asked["message"]
    assert 7 == said.code
    assert "'bobs' is not yours to commit" in said.output
    assert "ok" != by_api
    alice.do(os.mkdir, f"{mount}/artifacts/stolen")
    assert answer_of(alice, operations.move, str(draft), f"{mount}/artifacts/stolen/next") in (
        "EACCES",
        "EPERM",
    )
    assert before == looks_of(draft)
    assert [] == os.listdir(f"{mount}/artifacts/stolen")
    assert [] == list(team.store.glob("intake/*"))
    bob.do(asking, mount, "commit bobs his\n")
    assert b"secret" * 100 == Path(mount, "artifacts/his/v0/key").read_bytes()


@pytest.mark.parametrize("how", ["control", "mv", "cli"])
def test_what_one_may_not_read_is_named_and_not_published(
    team: Mount, people: Any, how: str
) -> None:
    """Whoever lets others write into his draft does not get what they put there."""
    alice, bob = people["alice"], people["bob"]
    mount, draft = str(team.path), team.path / "staging/open"
    alice.do(making, str(draft), 0o777, {"own": (b"a", 0o644)})
    bob.do(making, f"{draft}/dir", 0o755, {"small": (b"b", 0o600), "read": (b"c", 0o644)})
    bob.do(making, f"{draft}/large", 0o755, {"weights": (os.urandom(LARGE), 0o600)})
    before = looks_of(draft)
    reason = f"{mount}/.mregfs/control"
    if how == "control":
        text = str(alice.do(asking, mount, "commit open stolen\n"))
    elif how == "cli":
        outcome = as_alice(team, "commit", draft, "stolen")
        assert 7 == outcome.code
        text = outcome.output
    else:
        alice.do(os.mkdir, f"{mount}/artifacts/stolen")
        answer = answer_of(alice, operations.move, str(draft), f"{mount}/artifacts/stolen/next")
        assert "EACCES" == answer
        text = alice.do(Path.read_text, Path(reason))

    assert "dir/small" in text
    assert "large/weights" in text
    assert "own" not in text.replace("owns", "").replace("owner", "")
    assert before == looks_of(draft)
    assert [] == team.versions("stolen")
    bob.do(os.chmod, f"{draft}/dir/small", 0o644)
    bob.do(os.chmod, f"{draft}/large/weights", 0o644)
    assert alice.do(asking, mount, "commit open fine\n")["ok"]
    assert ["v0"] == team.versions("fine")


@pytest.mark.parametrize("mode", [0o700, 0o744, 0o711])
def test_a_directory_that_one_may_not_use_is_named(team: Mount, people: Any, mode: int) -> None:
    """Both to list it and to use what is in it."""
    alice, bob = people["alice"], people["bob"]
    mount, draft = str(team.path), team.path / "staging/open"
    alice.do(making, str(draft), 0o777, {"own": (b"a", 0o644)})
    bob.do(making, f"{draft}/closed", mode, {"all": (b"b", 0o666)})
    before = looks_of(draft)

    refused = alice.do(asking, mount, "commit open stolen\n")
    assert errno.EACCES == refused["errno"]
    assert "'closed'" in refused["message"]
    assert before == looks_of(draft)


def test_a_draft_in_a_draft_is_not_one(team: Mount, people: Any) -> None:
    """Neither its owner nor that of the draft around it makes a version of it alone."""
    alice, bob = people["alice"], people["bob"]
    mount, draft = str(team.path), team.path / "staging/open"
    alice.do(making, str(draft), 0o777, {})
    bob.do(making, f"{draft}/his", 0o755, {"f": (b"b", 0o644)})
    alice.do(os.mkdir, f"{mount}/artifacts/m")
    for person in (alice, bob):
        assert not person.do(asking, mount, "commit open/his m\n")["ok"]
        assert not person.do(asking, mount, "commit staging/open/his m\n")["ok"]
        answer = answer_of(person, operations.move, f"{draft}/his", f"{mount}/artifacts/m/next")
        assert answer in ("EPERM", "EACCES")

    assert ["f"] == os.listdir(draft / "his")
    assert [] == team.versions("m")


def test_root_and_its_owner_commit_a_private_draft(team: Mount, people: Any) -> None:
    """And are told, once, that it is for everybody now, by the mode of its directory alone."""
    bob, mount = people["bob"], str(team.path)
    for name, mode in (("private", 0o700), ("group", 0o750), ("public", 0o755)):
        bob.do(making, f"{mount}/staging/{name}", mode, {"model.safetensors": (b"b", 0o600)})
    private = bob.do(asking, mount, "commit private one\n")
    public = bob.do(asking, mount, "commit public two\n")
    said = team.cli("commit", "staging/group", "three").stderr

    assert "for everybody who may read this project" in private["results"][0]["note"]
    assert "note" not in public["results"][0]
    assert 1 == said.count("for everybody who may read this project"), said


def test_files_that_are_adopted_are_the_daemon_s(team: Mount, people: Any) -> None:
    """Whoever wrote them cannot give himself the right to write them again."""
    bob, mount = people["bob"], str(team.path)
    files = {name: (os.urandom(LARGE), 0o666) for name in ("one", "two")}
    bob.do(making, f"{mount}/staging/run", 0o777, {**files, "small": (b"s", 0o666)})
    inodes = {os.lstat(f"{mount}/staging/run/{name}").st_ino & (1 << 48) - 1 for name in files}
    assert bob.do(asking, mount, "commit run m\n")["ok"]
    packs = [path.lstat() for path in (team.store / "packs").rglob("*") if path.is_file()]

    assert inodes <= {pack.st_ino & (1 << 48) - 1 for pack in packs}, "they were copied"
    assert {(0, 0, 0o444, 1)} == {
        (pack.st_uid, pack.st_gid, stat.S_IMODE(pack.st_mode), pack.st_nlink) for pack in packs
    }


def test_by_another_mount_nobody_gets_at_a_draft_that_is_committed(
    make_mount: MakeMount, team: Mount, people: Any
) -> None:
    """Not by its name, a directory that he has open, nor his working directory."""
    bob = people["bob"]
    other = make_mount("other", options=("--allow-other",))
    other.path.parent.chmod(0o755)
    other.store = team.store
    other.path.mkdir()
    other.start()
    (other.path / "staging").stat()
    draft = team.path / "staging/run"
    bob.do(making, str(draft), 0o777, {"a": (b"a", 0o666)})
    bob.do(making, f"{draft}/below", 0o777, {"weights": (b"w" * LARGE, 0o666)})
    elsewhere = f"{other.path}/staging/run"
    bob.do(operations.hold, f"{elsewhere}/below")
    with open(f"{draft}/sparse", "wb") as file:  # it takes a while to be digested
        for offset in range(0, 3 << 30, 1 << 20):
            os.pwrite(file.fileno(), b"w", offset)
    os.chmod(f"{draft}/sparse", 0o666)
    asking_him = Person("bob again", BOB, (TEAM,))
    try:
        asking_him.begin(asking, str(team.path), "commit run m\n")
        deadline = time.monotonic() + 20
        while not list((team.store / "intake").glob("*/tree/a")):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(0.1)
        answers = {
            "create": answer_of(bob, operations.create, f"{elsewhere}/new", "t", 0o644),
            "move": answer_of(bob, operations.move, elsewhere, f"{other.path}/staging/mine"),
            "exchange": answer_of(
                bob, operations.exchange, elsewhere, f"{other.path}/staging/mine"
            ),
            "chmod": answer_of(bob, operations.chmod_private, elsewhere, 0o700),
            "rmdir": answer_of(bob, operations.rmdir, elsewhere),
            "create held": answer_of(bob, operations.use_held, 0, "create", "new"),
            "append held": answer_of(bob, operations.use_held, 0, "append", "weights"),
            "cwd": answer_of(bob, operations.use_held, 0, "cwd", "new"),
        }
        assert "ok" not in answers.values(), answers
        reply = asking_him.finish(120)
    finally:
        asking_him.end()
    assert reply["ok"], reply
    assert {"a", "below", "sparse"} == set(os.listdir(team.path / "artifacts/m/v0"))
    assert ["weights"] == os.listdir(team.path / "artifacts/m/v0/below")


def committing_again_and_again(mount: str, name: str, seconds: float) -> int:
    """Make a draft, write into it, and commit it, always under the same name; return how often."""
    end = time.monotonic() + seconds
    times = 0
    while time.monotonic() < end:
        os.makedirs(f"{mount}/staging/{name}/a/b", exist_ok=True)
        Path(f"{mount}/staging/{name}/a/b/file").write_text(f"{name} {times}")
        reply = asking(mount, f"commit {name} {name}\n")
        assert reply["ok"], str(reply)
        times += 1
    return times


def test_a_draft_s_name_is_free_as_soon_as_it_is_a_version(team: Mount) -> None:
    """The host gives numbers of directories to the drafts of others meanwhile."""
    writers = [Person(f"writer{number}", ALICE, (TEAM,)) for number in range(6)]
    try:
        for writer in writers:
            writer.begin(committing_again_and_again, str(team.path), writer.name, 6.0)
        times = [writer.finish(60) for writer in writers]
    finally:
        for writer in writers:
            writer.end()

    assert min(times) > 2, times
