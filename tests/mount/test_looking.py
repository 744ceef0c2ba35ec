"""Looking through the mount alone: another user, a container, a store that is closed or not there.

Decided here: that every verb that looks, and `Registry`, need nothing but a mount that may be read.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.mount.conftest import Mount

NOBODY = 65534
VERBS = (
    ("access",),
    ("access", "default/default"),
    ("ls",),
    ("ls", "-a"),
    ("ls", "mnist"),
    ("ls", "mnist:v0"),
    ("ls", "mnist:v0", "a 'b'"),
    ("tree",),
    ("tree", "classifier"),
    ("show", "mnist"),
    ("show", "classifier:production"),
    ("show", "mnist@{0}"),
    ("history", "classifier:production"),
    ("history", "mnist"),
    ("du",),
    ("du", "mnist:v1"),
    ("diff", "mnist:v0", "mnist:v1"),
    ("path", "classifier:production"),
    ("wait", "mnist:best"),
    ("log", "--since", "1"),
)
"""Every verb that looks, and what it is given."""


@contextmanager
def _closed(model_files: dict[str, bytes], *, passthrough: bool) -> Iterator[Mount]:
    """A store that is root's alone, mounted for everybody, with two versions and a collection."""
    directory = Path(tempfile.mkdtemp(prefix="mregfs-looking-"))
    directory.chmod(0o755)
    environment = {"MREGFS_MOUNT": "", "MREGFS_STORE": ""}
    if not passthrough:
        environment["MREGFS_PASSTHROUGH"] = "0"
    mount = Mount(directory, options=("--allow-other",), environment=environment)
    try:
        mount.init()
        mount.start()
        mount.commit("mnist", {**model_files, "a 'b'/ü%": b"1"}, "--alias best")
        mount.commit("mnist", {"config.json": b"{}", "run.sh": b"#!"})
        mount.control("ln mnist:v0 classifier:production")
        mount.control("ln -f mnist:v1 classifier:production --reason 'it is better'")
        mount.store.chmod(0o700)
        yield mount
    finally:
        wrong = mount.clear()
        shutil.rmtree(directory)
        assert [] == wrong


def as_nobody(
    mount: Mount, *words: str, before: tuple[str, ...] = (), **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a verb as a user who may not open the store."""
    home = mount.store.parent / "home"
    if not home.exists():
        home.mkdir()
        os.chown(home, NOBODY, NOBODY)
    who = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    return mount.run(*before, *who, sys.executable, "-m", "mregfs", *words, cwd=home, **options)


@pytest.fixture
def closed(model_files, *, passthrough) -> Iterator[Mount]:
    with _closed(model_files, passthrough=passthrough) as mount:
        yield mount


@pytest.fixture(scope="module")
def shared_closed(model_files, *, passthrough) -> Iterator[Mount]:
    with _closed(model_files, passthrough=passthrough) as mount:
        yield mount


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_a_user_without_the_store_sees_what_its_owner_sees(shared_closed, words) -> None:
    point = str(shared_closed.path)
    mine = shared_closed.cli("--store", shared_closed.store, "--mount", point, *words, "--json")
    theirs = as_nobody(shared_closed, "--mount", point, *words, "--json")

    assert mine.stdout == theirs.stdout
    assert mine.stdout.strip()


ALONE = """
for point in $(findmnt -n -l -o TARGET -t fuse.mregfs); do
    [ "$point" = "$ONLY" ] || umount -l "$point"
done
exec "$@"
"""


def alone(mount: Mount, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a verb as another user, where this is the only mount: other tests have theirs."""
    only = ("env", f"ONLY={mount.path}", "unshare", "-m", "--propagation", "private")
    return as_nobody(mount, *words, before=(*only, "sh", "-c", ALONE, "sh"))


def test_the_only_mount_of_root_is_found(shared_closed) -> None:
    found = alone(shared_closed, "show", "mnist:best", "--json")
    status = json.loads(alone(shared_closed, "status", "--json").stdout)

    assert "v0" == json.loads(found.stdout)["version"]
    assert str(shared_closed.path) == status["store"]["through"]
    assert "alive" == status["mounts"][0]["state"]


def test_export_copies_out_of_the_mount(shared_closed, model_files) -> None:
    target = shared_closed.store.parent / "home" / "out"
    point = str(shared_closed.path)
    as_nobody(shared_closed, "--mount", point, "export", "mnist:best", str(target))

    assert {**model_files, "a 'b'/ü%": b"1"} == {
        os.path.relpath(path, target): path.read_bytes()
        for path in target.rglob("*")
        if path.is_file()
    }


def test_a_change_is_refused_with_what_to_do(shared_closed) -> None:
    words = ("--mount", str(shared_closed.path), "ln", "mnist:v0", "classifier:production")
    refused = as_nobody(shared_closed, *words, check=False)

    assert 7 == refused.returncode
    assert refused.stderr.count("\n") == 1


def test_watch_and_wait_follow_the_mount(closed) -> None:
    """Also over a mount that goes away and comes back."""
    seen: list[str] = []
    home = closed.store.parent / "home"
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    watching = ("watch", "--since", "0")
    waiting = ("wait", "mnist:best", "--changed-from", "v0")
    with _started(closed, *watching) as watch, _started(closed, *waiting) as wait:
        reader = threading.Thread(target=lambda: seen.extend(watch.stdout or ()))
        reader.start()
        try:
            _until(lambda: len(seen) == 4)
            assert wait.poll() is None
            closed.control("ln -f mnist:v1 mnist:best")
            _until(lambda: len(seen) == 5)
            assert "default/default/mnist:v1\n" == wait.communicate(timeout=20)[0]
            closed.stop()
            closed.start()
            closed.control("ln -f mnist:v0 mnist:best")
            _until(lambda: len(seen) == 6)
        finally:
            watch.terminate()
            wait.terminate()
            reader.join()

    assert [1, 2, 3, 4, 5, 6] == [json.loads(line)["sequence"] for line in seen]


def _started(mount: Mount, *words: str) -> subprocess.Popen[str]:
    """Start a verb as a user who may not open the store."""
    who = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    return subprocess.Popen(
        [*who, sys.executable, "-m", "mregfs", "--mount", str(mount.path), *words],
        stdout=subprocess.PIPE,
        text=True,
        env=mount.environment,
        cwd=mount.store.parent / "home",
    )


def _until(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


CONTAINER = """
set -e
mount --bind "$MOUNT" "$SEEN"
mount -o remount,bind,ro "$SEEN"
mount -t tmpfs none "$STORE"
umount -l "$MOUNT"
cd /
exec "$@"
"""


def in_container(mount: Mount, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program where nothing is seen of the store but a read-only bind of its mount."""
    seen = mount.store.parent / "seen"
    seen.mkdir(exist_ok=True)
    environment = {"MOUNT": mount.path, "SEEN": seen, "STORE": mount.store}
    env = [f"{name}={value}" for name, value in environment.items()]
    inside = ("unshare", "-m", "--propagation", "private", "sh", "-c", CONTAINER, "sh")
    return mount.run("env", *env, *inside, *command, cwd="/")


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_a_container_that_sees_only_the_mount_sees_the_same(shared_closed, words) -> None:
    seen = str(shared_closed.store.parent / "seen")
    point = str(shared_closed.path)
    mine = shared_closed.cli("--store", shared_closed.store, "--mount", point, *words, "--json")
    theirs = in_container(
        shared_closed, sys.executable, "-m", "mregfs", "--mount", seen, *words, "--json"
    )

    assert mine.stdout.replace(point, seen) == theirs.stdout.replace(point, seen)


def test_a_container_needs_no_option(shared_closed, model_files) -> None:
    """Root there has one mount, of a store that is not there; all verbs that look work."""
    seen = shared_closed.store.parent / "seen"
    script = """
    for point in $(findmnt -n -l -o TARGET -t fuse.mregfs); do
        [ "$point" = "$SEEN" ] || umount -l "$point"
    done
    mregfs status --json && mregfs access --json && mregfs show mnist:best --json &&
    mregfs export mnist:best "$SEEN/../exported" >&2 &&
    timeout 2 mregfs watch --since 3
    """
    found = in_container(shared_closed, "sh", "-c", f"{script}\n[ $? = 124 ]")
    status, access, version, *events = map(json.loads, found.stdout.splitlines())
    exported = shared_closed.store.parent / "exported"

    assert str(seen) == status["store"]["through"]
    assert ["alive"] == [mount["state"] for mount in status["mounts"]]
    assert "*" == access["readers"]
    assert "v0" == version["version"]
    assert [4] == [event["sequence"] for event in events]
    for name, data in model_files.items():
        assert data == (exported / name).read_bytes()


SCRIPT = """
import sys
import mregfs
with mregfs.Registry(mount=sys.argv[1]) as registry:
    assert ["mnist"] == [each.name for each in registry.artifacts()]
    assert "v1" == registry.get("classifier:production").version
    assert b"{}" == registry.read("classifier:production", "config.json")
    with registry.open("mnist:v1", "config.json") as file:
        file.seek(1)
        assert b"}" == file.read()
    changed = registry.diff("mnist:v0", "mnist:v1")
    assert ["run.sh"] == [each.path for each in changed.added]
    assert 2 == registry.usage("mnist").versions
    assert ["v1", "v0"] == [each.number for each in registry.versions("mnist")]
    assert 4 == len(list(registry.log()))
    for wrong in ("registry.get('none')", "registry.read('mnist:v0', 'none')",
                  "registry.read('mnist:v0', '../../..')", "registry.path('mnist:v9')"):
        try:
            eval(wrong)
        except mregfs.errors.NotFoundError as error:
            assert error.message
        else:
            raise AssertionError(wrong)
    for refused in ("registry.link('mnist:v0', 'classifier')", "registry.store",
                    "registry.pin('mnist')", "registry.commit('/tmp', 'x')"):
        try:
            eval(refused)
        except mregfs.errors.ForbiddenError as error:
            assert error.hint
        else:
            raise AssertionError(refused)
assert not {"lmdb", "trio", "pyfuse3", "blake3", "zstandard"} & set(sys.modules), sys.modules
"""


def test_python_looks_through_a_mount(shared_closed) -> None:
    seen = shared_closed.store.parent / "seen"
    for point, run in ((shared_closed.path, shared_closed.run), (seen, None)):
        command = (sys.executable, "-c", f"import mregfs.errors\n{SCRIPT}", point)
        if run is None:
            in_container(shared_closed, *command)
        else:
            run(*command, cwd="/")


def test_the_store_of_the_container_is_not_taken_for_the_hosts(shared_closed) -> None:
    """Another store stands at the path that the mount tells of."""
    script = 'mregfs init "$STORE" >/dev/null; mregfs ls --json --mount "$SEEN"'
    found = in_container(shared_closed, "sh", "-c", script)

    assert ["mnist", "classifier"] == [each["name"] for each in json.loads(found.stdout)]


def test_ten_ask_while_an_alias_moves(closed) -> None:
    question = closed.path / ".mregfs/query/show mnist:best"
    seen: list[str] = []
    wrong: list[BaseException] = []

    def ask() -> None:
        mine: list[str] = []
        try:
            while len(mine) < 50:
                mine.append(json.loads(question.read_bytes())["result"]["version"])
        except BaseException as exc:  # noqa: BLE001
            wrong.append(exc)
        seen.extend(mine)

    threads = [threading.Thread(target=ask) for _ in range(10)]
    for thread in threads:
        thread.start()
    turn = 0
    while any(thread.is_alive() for thread in threads):
        turn += 1
        closed.control(f"ln -f mnist:v{turn % 2} mnist:best")
        now = json.loads(question.read_bytes())["result"]["version"]
        assert f"v{turn % 2}" == now
    for thread in threads:
        thread.join()

    assert [] == wrong
    assert 500 == len(seen)
    assert {"v0", "v1"} == set(seen)
