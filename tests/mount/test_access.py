"""Who may read and change a registry, as real users find it through a real mount."""

import errno
import json
import os
import shlex
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mregfs.host.callers import groups_of_process
from mregfs.model.commands import GiveDraft
from tests.attack.commands import run_verb
from tests.attack.people import Person, answer_of
from tests.mount.conftest import MakeMount, Mount, reachable_directory
from tests.registry.changing import THEIRS, WRITTEN

TEAM, OTHERS = 64210, 64211
"""Groups that this host has no name for."""

FILES = {"weights": b"w" * 100_000, "config.json": b"{}"}


@pytest.fixture
def people() -> Iterator[dict[str, Person]]:
    """A member of the team, a member of another group, a stranger."""
    made = {
        "alice": Person("alice", 64201, (TEAM,)),
        "bob": Person("bob", 64202, (OTHERS,)),
        "eve": Person("eve", 64203),
    }
    try:
        yield made
    finally:
        for person in made.values():
            person.end()


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Make a directory that every user can reach."""
    with reachable_directory() as path:
        yield path


@pytest.fixture
def team(make_mount: MakeMount) -> Mount:
    """A mount that everybody may enter, of a store with a version, an alias and a collection."""
    mount = make_mount(options=("--allow-other",))
    mount.init()
    mount.start()
    mount.commit("mnist", FILES, "--alias best")
    mount.commit("mnist", {**FILES, "config.json": b"{1}"})
    mount.cli("ln", "mnist:v0", "prod:live")
    return mount


# ---- what people do; run in their own processes


def listing(path: str) -> list[str]:
    return sorted(os.listdir(path))


def reading(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def commanding(path: str, script: str) -> None:
    """Write a script on the control file, and fail as `echo … >` does."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, script.encode())
    finally:
        os.close(descriptor)


def asking(path: str, script: str) -> dict[str, Any]:
    """Write a script on the control file, and return the reply."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.write(descriptor, script.encode())
        reply: dict[str, Any] = json.loads(os.read(descriptor, 1 << 20))
        return reply
    finally:
        os.close(descriptor)


def moving_alias(directory: str, number: str, alias: str) -> None:
    """Do what `ln -sfn` does."""
    temporary = f"{directory}/CuXXXXXX"
    os.symlink(number, temporary)
    try:
        os.rename(temporary, f"{directory}/{alias}")
    except OSError:
        os.unlink(temporary)
        raise


Operation = tuple[Callable[..., Any], tuple[str, ...]]


def changes(mount: Path) -> dict[str, Operation]:
    """Return the operations that only writers may make; each undoes what another needs not."""
    control = f"{mount}/.mregfs/control"
    artifact, collection = f"{mount}/artifacts/mnist", f"{mount}/collections/prod"
    return {
        "tag": (commanding, (control, "tag mnist good\n")),
        "new link": (os.symlink, ("../../artifacts/mnist/v1", f"{collection}/gold")),
        "alias moved": (os.symlink, ("v1", f"{artifact}/second")),
        "ln -sfn": (moving_alias, (artifact, "v1", "best")),
        "rm alias": (os.unlink, (f"{artifact}/best",)),
        "mkdir collection": (os.mkdir, (f"{mount}/collections/new",)),
        "rename collection": (
            os.rename,
            (f"{mount}/collections/new", f"{mount}/collections/other"),
        ),
        "rmdir collection": (os.rmdir, (f"{mount}/collections/other",)),
        "mkdir artifact": (os.mkdir, (f"{mount}/artifacts/new",)),
        "mkdir draft": (os.mkdir, (f"{mount}/staging/draft",)),
    }


def answers(person: Person, mount: Path) -> dict[str, str]:
    return {
        name: answer_of(person, operation, *words)
        for name, (operation, words) in changes(mount).items()
    }


REFUSED = {"EACCES", "EPERM"}


def test_a_plain_store_is_read_by_everybody_and_changed_by_its_owner(
    team: Mount, people: dict[str, Person]
) -> None:
    for person in people.values():
        assert [".mregfs", "artifacts", "collections", "projects", "staging"] == person.do(
            listing, str(team.path)
        )
        assert FILES["weights"] == person.do(reading, f"{team.path}/artifacts/mnist/best/weights")
        refused = answers(person, team.path)
        assert set(refused.values()) <= REFUSED | {"ENOENT"}, refused
        assert "ENOENT" not in [refused[name] for name in ("tag", "rm alias", "mkdir draft")]
    assert "v1" == os.readlink(f"{team.path}/artifacts/mnist/latest")


def test_writers_write_and_readers_read(team: Mount, people: dict[str, Person]) -> None:
    """A group that is let in by a verb can at once what the others can at once no more."""
    team.cli("access", "--readers", str(OTHERS), "--writers", str(OTHERS))
    team.cli("access", "--readers", "*", "--writers", str(TEAM))
    assert {"ok"} == set(answers(people["alice"], team.path).values())
    for name in ("bob", "eve"):
        refused = answers(people[name], team.path)
        assert "ok" not in refused.values(), refused
        assert FILES["weights"] == people[name].do(
            reading, f"{team.path}/artifacts/mnist/latest/weights"
        )


def test_strangers_do_not_even_see_what_there_is(team: Mount, people: dict[str, Person]) -> None:
    """Of a registry with readers; and it is so from the moment at which that is said."""
    inside = f"{team.path}/artifacts/mnist/v0/weights"
    for person in people.values():
        person.do(reading, inside)
        person.do(listing, str(team.path / "collections"))
    team.cli("access", "--readers", str(TEAM), "--writers", str(TEAM))
    for name in ("bob", "eve"):
        for path in (team.path, team.path / "artifacts", team.path / "artifacts/mnist"):
            assert "EACCES" == answer_of(people[name], listing, str(path)), path
        for path in (inside, f"{team.path}/.mregfs/status", f"{team.path}/.mregfs/query/ls"):
            assert "EACCES" == answer_of(people[name], reading, str(path)), path
        assert "EACCES" == answer_of(people[name], os.mkdir, f"{team.path}/staging/x")
    assert {"ok"} == set(answers(people["alice"], team.path).values())
    team.cli("access", "--readers", "*")
    assert FILES["weights"] == people["eve"].do(reading, inside)


def test_readers_of_a_closed_registry_cannot_write(team: Mount, people: dict[str, Person]) -> None:
    """Where readers and writers are two groups a mode cannot say it: the rules do."""
    team.cli("access", "--readers", str(OTHERS), "--writers", str(TEAM))
    assert FILES["weights"] == people["bob"].do(reading, f"{team.path}/artifacts/mnist/v0/weights")
    refused = answers(people["bob"], team.path)
    assert "ok" not in refused.values(), refused
    both = Person("cleo", 64204, (TEAM, OTHERS))
    try:
        assert {"ok"} == set(answers(both, team.path).values())
    finally:
        both.end()


def test_a_project_has_readers_and_writers_of_its_own(
    team: Mount, people: dict[str, Person]
) -> None:
    team.cli("access", "--writers", str(TEAM))
    team.cli("access", "team/b", "--readers", str(OTHERS), "--writers", str(OTHERS))
    theirs = team.path / "projects/team/b"
    assert "ok" == answer_of(people["bob"], os.mkdir, f"{theirs}/collections/picks")
    assert "ok" == answer_of(people["bob"], os.mkdir, f"{theirs}/staging/draft")
    for name in ("alice", "eve"):
        assert "EACCES" == answer_of(people[name], listing, str(theirs))
        assert "EACCES" == answer_of(people[name], os.mkdir, f"{theirs}/collections/mine")
        assert "EACCES" == answer_of(people[name], os.mkdir, f"{theirs}/staging/mine")
    reply = people["alice"].do(
        asking, f"{team.path}/.mregfs/control", "mkdir projects/team/b/collections/mine\n"
    )
    assert (False, "ForbiddenError") == (reply["ok"], reply["error"])
    assert all(
        word in reply["message"] + reply["hint"]
        for word in (repr(str(OTHERS)), "uid 64201", "team/b", "mregfs access")
    )
    assert "ok" == answer_of(people["alice"], os.mkdir, f"{team.path}/collections/mine")
    assert "EPERM" == answer_of(
        people["bob"], commanding, f"{team.path}/.mregfs/control", "mkdir collections/his\n"
    )


def following(path: str) -> str:
    """Return all that happened, as the events file tells it."""
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        os.write(descriptor, b"since 0")
        return os.read(descriptor, 1 << 20).decode()
    finally:
        os.close(descriptor)


def test_what_is_told_leaves_out_what_may_not_be_seen(
    team: Mount, people: dict[str, Person]
) -> None:
    """Events and answers of a mount are for everybody who may enter it."""
    team.cli("access", "team/b", "--readers", str(OTHERS), "--writers", str(OTHERS))
    people["bob"].do(os.mkdir, f"{team.path}/projects/team/b/collections/plans")
    for name, seen in (("alice", False), ("eve", False), ("bob", True)):
        assert seen == ("plans" in people[name].do(following, f"{team.path}/.mregfs/events"))
        answer = people[name].do(reading, f"{team.path}/.mregfs/query/ls%20-a").decode()
        assert seen == ("plans" in answer), name


def test_figures_are_of_what_may_be_seen(team: Mount, people: dict[str, Person]) -> None:
    """Also how much space it takes; and `status` says who may read and write."""
    team.cli("access", "team/b", "--readers", str(OTHERS), "--writers", str(OTHERS))
    draft = team.path / "projects/team/b/staging/secret"
    draft.mkdir()
    (draft / "weights").write_bytes(os.urandom(1 << 20))
    team.cli("commit", draft, "team/b/secret")
    seen = {}
    for name in ("alice", "bob"):
        told = {
            question: json.loads(people[name].do(reading, f"{team.path}/.mregfs/query/{question}"))
            for question in ("status", "du")
        }
        status, used = (each["result"] for each in told.values())
        seen[name] = status["projects"], status["versions"], used["logical"] >= 1 << 20
        assert ("*", "") == (status["readers"], status["writers"])
    own = team.status()

    assert {"alice": (1, 2, False), "bob": (2, 3, True)} == seen
    assert ("*", "") == (own["readers"], own["writers"])
    assert "only the owner" in team.cli("status").stdout


def test_a_store_of_a_team_is_made_for_it(make_mount: MakeMount, people: dict[str, Person]) -> None:
    """`init --group`: closed on the host, open to the group by the mount, drafts private."""
    mount = make_mount(options=("--allow-other",))
    mount.path.mkdir()
    mount.cli("init", mount.store, "--group", str(TEAM))
    mount.start()
    draft = f"{mount.path}/staging/draft"
    alice, bob = people["alice"], people["bob"]

    assert 0o700 == mount.store.stat().st_mode & 0o7777
    alice.do(os.mkdir, draft)
    assert 0o700 == os.stat(draft).st_mode & 0o777
    alice.do(writing, f"{draft}/weights", b"w")
    alice.do(commanding, f"{mount.path}/.mregfs/control", "commit draft mnist\n")
    assert b"w" == alice.do(reading, f"{mount.path}/artifacts/mnist/latest/weights")
    assert "EACCES" == answer_of(bob, listing, f"{mount.path}/artifacts")
    assert answer_of(bob, os.mkdir, f"{mount.path}/staging/bobs") in REFUSED


def test_a_store_for_a_group_that_is_not_there_is_not_made(make_mount: MakeMount) -> None:
    mount = make_mount()
    done = mount.cli("init", mount.store, "--group", "no-such-group", check=False)

    assert 5 == done.returncode
    assert "there is no group 'no-such-group'" in done.stderr
    assert not mount.store.exists()


@pytest.mark.parametrize("project", ["", "team/b"])
@pytest.mark.parametrize("way", ["mount", "store"])
def test_who_may_not_read_gets_nothing_past_the_mount(
    team: Mount, people: dict[str, Person], project: str, way: str
) -> None:
    """The store's directory is closed as soon as not everybody may read all that is in it."""
    log = f"{team.store}/log/{1:020}.json"
    people["eve"].do(reading, log)
    if way == "store":
        team.stop()
    team.cli("access", *([project] if project else []), "--readers", str(TEAM))
    assert 0o700 == team.store.stat().st_mode & 0o7777
    assert "EACCES" == answer_of(people["eve"], reading, log)
    if way == "mount":
        team.stop()
    team.store.chmod(0o755)
    team.start()
    assert "EACCES" == answer_of(people["eve"], reading, log)


def test_only_the_owner_and_root_say_who_may(team: Mount, people: dict[str, Person]) -> None:
    team.cli("access", "--writers", str(TEAM))
    control = f"{team.path}/.mregfs/control"
    assert "EPERM" == answer_of(people["alice"], commanding, control, "access --writers '*'\n")
    assert "ok" == answer_of(people["alice"], commanding, control, "access\n")


# ---- drafts


def writing(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


def making(top: str) -> None:
    """Make a draft with everything that one may hold."""
    os.mkdir(top)
    os.mkdir(f"{top}/below")
    writing(f"{top}/below/weights", b"w" * 10_000)
    os.symlink("/etc/hostname", f"{top}/out")
    os.link(f"{top}/below/weights", f"{top}/same")
    os.chmod(f"{top}/below/weights", 0o600)


def owners(top: Path) -> dict[str, int]:
    found = {str(path.relative_to(top)): path.lstat().st_uid for path in top.rglob("*")}
    return {".": top.lstat().st_uid, **found}


def test_a_draft_is_handed_over(team: Mount, people: dict[str, Person]) -> None:
    """With all that is in it; what its links point at stays whose it is."""
    team.cli("access", "--writers", "*")
    top = team.path / "staging/hers"
    people["alice"].do(making, str(top))
    control = f"{team.path}/.mregfs/control"
    assert "EPERM" == answer_of(people["bob"], commanding, control, "give hers 64202\n")
    assert "EACCES" == answer_of(people["bob"], reading, f"{top}/below/weights")
    people["alice"].do(commanding, control, "give hers 64202\n")
    assert {64202} == set(owners(top).values())
    assert 0 == os.stat("/etc/hostname").st_uid
    assert b"w" * 10_000 == people["bob"].do(reading, f"{top}/below/weights")
    assert "ok" == answer_of(people["bob"], os.rename, str(top), f"{team.path}/staging/his")
    assert "EACCES" == answer_of(people["alice"], reading, f"{team.path}/staging/his/same")
    said = team.cli("draft", "give", "his", "64201").stdout
    assert "gave draft his to 64201\n" == said
    assert {64201} == set(owners(team.path / "staging/his").values())


def test_a_draft_is_not_handed_over_while_it_is_written_or_with_others_files(
    team: Mount, people: dict[str, Person]
) -> None:
    team.cli("access", "--writers", "*")
    top = team.path / "staging/hers"
    people["alice"].do(making, str(top))
    before = owners(top)
    with (top / "below/weights").open("r+b"):
        done = team.cli("draft", "give", "hers", "64202", check=False)
        assert "open for writing" in done.stderr
    assert before == owners(top)
    (top / "below/roots").write_bytes(b"root's")
    reply = people["alice"].do(asking, f"{team.path}/.mregfs/control", "give hers 64202\n")
    assert not reply["ok"]
    assert "hers/below/roots" in reply["message"]
    assert {**before, "below/roots": 0} == owners(top)
    for script in ("give nothing 64202\n", "give hers nobody-here\n", "give hers 64202\ntag a b\n"):
        assert not people["alice"].do(asking, f"{team.path}/.mregfs/control", script)["ok"]


def test_drafts_are_as_their_umask_says_or_private(
    make_mount: MakeMount, people: dict[str, Person]
) -> None:
    """By an option of the mount, or for the whole store; nobody else can look in."""
    mount = make_mount(options=("--allow-other",))
    mount.init()
    mount.start()
    mount.cli("access", "--writers", "*")
    modes = {}
    for number, drafts in enumerate(("open", "private")):
        mount.cli("access", "--drafts", drafts)
        top = f"{mount.path}/staging/draft{number}"
        people["alice"].do(os.mkdir, top)
        modes[drafts] = os.stat(top).st_mode & 0o777
        people["alice"].do(os.mkdir, f"{top}/below")
        assert 0o755 == os.stat(f"{top}/below").st_mode & 0o777
    assert {"open": 0o755, "private": 0o700} == modes
    mount.stop()
    mount.options = ("--allow-other", "-o", "noprivate-drafts")
    mount.start()
    people["alice"].do(os.mkdir, f"{mount.path}/staging/open")
    assert 0o755 == os.stat(mount.path / "staging/open").st_mode & 0o777


# ---- whose groups


def test_the_groups_are_those_of_who_opened(team: Mount, tmp_path: Path) -> None:
    """A descriptor that was passed on, whose opener's pid is now another's, gains nothing."""
    team.cli("access", "--writers", "*")
    team.cli("protect", "prod:live", "--group", "games")
    control = f"{team.path}/.mregfs/control"
    mine, his = socket.socketpair()
    opener = os.fork()
    if not opener:
        os.setgroups([])
        os.setgid(64203)
        os.setuid(64203)
        descriptor = os.open(control, os.O_RDWR)
        socket.send_fds(his, [b"x"], [descriptor])
        os._exit(0)
    _, (descriptor,), _, _ = socket.recv_fds(mine, 1, 1)
    mine.close()
    his.close()
    os.waitpid(opener, 0)
    reader, writer = os.pipe()
    impostor = _fork_as(opener)
    if not impostor:
        os.close(writer)
        os.setgroups([60])
        os.setgid(64202)
        os.setuid(64202)
        os.read(reader, 1)
        os._exit(0)
    try:
        assert opener == impostor
        while not groups_of_process(impostor):
            time.sleep(0.001)
        os.write(descriptor, b"ln mnist:v1 prod:live\n")
        reply = json.loads(os.read(descriptor, 1 << 16))
        assert (False, "ForbiddenError") == (reply["ok"], reply["error"])
        assert "v0" == os.readlink(f"{team.path}/collections/prod/live")
    finally:
        os.close(descriptor)
        os.close(writer)
        os.waitpid(impostor, 0)


def _fork_as(pid: int) -> int:
    """Fork until the child has a certain process id; return 0 in that child."""
    ready, told = os.pipe()
    for _ in range(2000):
        with open("/proc/sys/kernel/ns_last_pid", "w") as last:
            last.write(str(pid - 1))
        child = os.fork()
        if not child:
            if os.getpid() == pid:
                return 0
            os._exit(0)
        if child == pid:
            os.close(ready)
            os.close(told)
            return child
        os.waitpid(child, 0)
    raise AssertionError(f"no child got the process id {pid}")


def test_an_author_stands_beside_the_user(team: Mount, people: dict[str, Person]) -> None:
    team.cli("access", "--writers", str(TEAM))
    people["alice"].do(commanding, f"{team.path}/.mregfs/control", "tag mnist good --author root\n")
    (line, *_) = json.loads(team.cli("history", "mnist", "--json").stdout)
    assert "root (uid 64201)" == line["author"]
    team.cli("tag", "mnist", "better", "--author", "the nightly build")
    (line, *_) = json.loads(team.cli("history", "mnist", "--json").stdout)
    assert "the nightly build (root)" == line["author"]


def test_each_face_refuses_everything_to_whoever_may_not(
    team: Mount, people: dict[str, Person]
) -> None:
    """On the control file and by a verb, in the same words; the log is as it was."""
    team.cli("access", "--writers", str(TEAM))
    team.cli("access", str(THEIRS), "--writers", str(OTHERS))
    alice = people["alice"]
    alice.do(making, f"{team.path}/staging/mine")
    before = team.status()["sequence"]
    environment = {"MREGFS_STORE": str(team.store), "MREGFS_MOUNT": str(team.path)}
    for kind, line in WRITTEN.items():
        reply = alice.do(asking, f"{team.path}/.mregfs/control", f"{line}\n")
        assert not reply["ok"], kind
        assert errno.EPERM == reply["errno"], (kind, reply)
        assert "'uid 64201'" in reply["message"]
        words = shlex.split(line)
        if kind is GiveDraft:
            words = ["draft", "give", f"{team.path}/{words[1]}", words[2]]
        said = run_verb(words, uid=64201, groups=(TEAM,), environment=environment)
        assert 0 != said.code, kind
        assert reply["message"] in said.output, kind
    assert before == team.status()["sequence"]
    assert ["mine"] == alice.do(listing, f"{team.path}/staging")
