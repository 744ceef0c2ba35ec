"""What another user has mounted is nothing to go by: no store is chosen by it, and nobody waits.

Decided here: that root looks at no store because of somebody else's mount, whatever the mount is
called and wherever it stands. The file systems here are a stranger's by the kernel's word
(`user_id`), call themselves mregfs, and never answer.
"""

import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mregfs.api import Registry
from mregfs.errors import CorruptError, UnavailableError
from mregfs.host.mounts import read_mounts
from mregfs.model.queries import query_text, spell

NOBODY = 65534
LOOKING = (
    ("ls",),
    ("tree",),
    ("show", "mnist"),
    ("history", "mnist"),
    ("status",),
    ("du",),
    ("diff", "mnist:v0", "mnist:v1"),
    ("path", "mnist"),
    ("export", "mnist:v0", "out"),
    ("wait", "mnist"),
    ("watch",),
    ("log",),
)
ONLY = """
for point in $(findmnt -n -l -o TARGET -t fuse.mregfs); do
    [ "$point" = "$ONLY" ] || umount -l "$point"
done
exec "$@"
"""
"""Other tests have mounts of root's at the same time."""

libc = ctypes.CDLL(None, use_errno=True)


class Stranger:
    """Mounts file systems that are another user's and never answer."""

    def __init__(self) -> None:
        self._descriptors: list[int] = []
        self._points: list[Path] = []

    def mount(self, point: Path, source: str) -> Path:
        point.mkdir(parents=True)
        os.chown(point, NOBODY, NOBODY)
        descriptor = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={descriptor},rootmode=40000,user_id={NOBODY},group_id={NOBODY}"
        nosuid_nodev = 2 | 4
        done = libc.mount(
            os.fsencode(source), os.fsencode(point), b"fuse.mregfs", nosuid_nodev, options.encode()
        )
        assert 0 == done, os.strerror(ctypes.get_errno())
        self._descriptors.append(descriptor)
        self._points.append(point)
        return point

    def clear(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)
        for point in self._points:
            libc.umount2(os.fsencode(point), 2)


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    found = Stranger()
    yield found
    found.clear()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of root's with two versions, which is not mounted."""
    top = tmp_path_factory.mktemp("roots")
    run("--store", top / "store", "init")
    for number in range(2):
        draft = top / f"draft{number}"
        draft.mkdir()
        (draft / "config.json").write_text(str(number))
        run("--store", top / "store", "commit", draft, "mnist")
    return top / "store"


def run(
    *words: str | Path, only: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a verb as root, who has no store of his own; with `only`, where no other mount is."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MREGFS_")}
    command: list[str] = [sys.executable, "-m", "mregfs", *map(str, words)]
    if only is not None:
        command = ["unshare", "-m", "--propagation", "private", "sh", "-c", ONLY, "sh", *command]
    return subprocess.run(
        command,
        env={**kept, "XDG_DATA_HOME": "/nonexistent", "ONLY": str(only), **environment},
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("words", LOOKING, ids=lambda words: words[0])
def test_root_chooses_no_store_by_it(
    stranger: Stranger, store: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """Not even when it says to be of a store that is root's."""
    point = stranger.mount(tmp_path / "mine", str(store))
    begun = time.monotonic()
    done = run(*words, only=point)

    assert (5, "") == (done.returncode, done.stdout)
    assert str(point) in done.stderr
    assert "--mount" in done.stderr
    assert 1 == done.stderr.count("\n")
    assert time.monotonic() - begun < 10


def test_a_key_that_completes_chooses_none_either(
    stranger: Stranger, store: Path, tmp_path: Path
) -> None:
    point = stranger.mount(tmp_path / "mine", str(store))
    asked = {"COMP_LINE": "mregfs show m", "_MREGFS_COMPLETE": "bash_complete"}
    theirs = run(only=point, **asked)
    named = run(**asked, MREGFS_STORE=str(store))

    assert ("", "") == (theirs.stdout.strip(), theirs.stderr)
    assert "plain,mnist" == named.stdout.strip()


def test_a_store_that_is_named_is_not_looked_at_through_it(
    stranger: Stranger, store: Path, tmp_path: Path
) -> None:
    point = stranger.mount(tmp_path / "mine", str(store))
    status = json.loads(run("--store", store, "status", "--json").stdout)
    changed = run("--store", store, "ln", "mnist:v0", "mnist:best")
    both = run("--store", store, "--mount", point, "ls")

    assert ([], 2) == (status["mounts"], status["store"]["versions"])
    assert (0, "") == (changed.returncode, changed.stderr)
    assert 5 == both.returncode
    assert "only another user says" in both.stderr


def test_who_names_it_looks_through_it_alone(
    stranger: Stranger, store: Path, tmp_path: Path
) -> None:
    """The kernel lets nobody else in; so there is an answer at once, and no store is opened."""
    point = stranger.mount(tmp_path / "mine", str(store))
    for words in (("--mount", point, "ls"), ("--mount", point, "ln", "mnist:v0", "mnist:worst")):
        done = run(*words)

        assert 7 == done.returncode
        assert 1 == done.stderr.count("\n")
    assert "worst" not in run("--store", store, "show", "mnist").stdout


FORGED = "x\n9 9 0:99 / /models rw - fuse.mregfs /srv/store rw,user_id=0"


@pytest.mark.parametrize(
    "name",
    ["two words", r"octal\040", "new\nline", "tab\there", FORGED, "é ", " - fuse.mregfs x ro"],
    ids=ascii,
)
def test_no_name_of_a_mount_point_forges_a_line(
    stranger: Stranger, tmp_path: Path, name: str
) -> None:
    before = {mount.point for mount in read_mounts()}
    point = stranger.mount(tmp_path / name, "/srv/store")
    found = [mount for mount in read_mounts() if str(tmp_path) in mount.point]

    assert [(str(point), NOBODY, False)] == [
        (mount.point, mount.owner, mount.is_believed) for mount in found
    ]
    assert "/models" not in {mount.point for mount in read_mounts()} - before


@pytest.mark.parametrize(
    "source",
    ["two words", r"octal\040", "new\nline rw,user_id=0", "x rw,user_id=0", "#", "%2Fsrv%ZZ"],
    ids=ascii,
)
def test_no_source_makes_it_somebody_elses(stranger: Stranger, tmp_path: Path, source: str) -> None:
    point = stranger.mount(tmp_path / "mine", source)
    found = [mount for mount in read_mounts() if mount.point == str(point)]

    assert [(NOBODY, False)] == [(mount.owner, mount.is_believed) for mount in found]


def test_sudo_keeps_no_variable_of_ours(tmp_path: Path) -> None:
    if shutil.which("sudo") is None:
        pytest.skip("sudo is not installed")
    done = subprocess.run(
        ["sudo", "-n", "-u", "#0", "env"],
        env={**os.environ, "MREGFS_STORE": "/x", "MREGFS_MOUNT": "/y", "MREGFS_PROJECT": "z"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert "MREGFS_" not in done.stdout


@pytest.fixture
def home() -> Iterator[Path]:
    """The home of another user."""
    found = Path(tempfile.mkdtemp(prefix="mregfs-home-"))
    os.chown(found, NOBODY, NOBODY)
    yield found
    shutil.rmtree(found)


def test_root_acts_on_no_store_that_a_variable_of_another_user_names(home: Path) -> None:
    """As `sudo -E` and `su` keep it."""
    who = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    subprocess.run(
        [*who, sys.executable, "-m", "mregfs", "init", home / ".local/share/mregfs"],
        cwd=home,
        check=True,
        capture_output=True,
    )
    before = sorted(home.rglob("*"))
    for environment in (
        {"MREGFS_STORE": str(home / ".local/share/mregfs")},
        {"HOME": str(home), "XDG_DATA_HOME": str(home / ".local/share")},
    ):
        done = run("ls", only=home, **environment)

        assert 7 == done.returncode
        assert "sudo -u" in done.stderr
    assert before == sorted(home.rglob("*"))


def test_roots_index_is_below_no_directory_of_another_user(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mregfs import config

    (home / ".cache" / "mine").mkdir(parents=True)
    os.chown(home / ".cache", NOBODY, NOBODY)
    monkeypatch.setenv("HOME", str(home))
    for cache in (home / ".cache", home / ".cache" / "mine", home / "none"):
        monkeypatch.setenv("XDG_STATE_HOME", str(cache))
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(cache))
        found = list(config.host_homes())

        assert config.ROOT_HOME in found
        assert [] == [each for each in found if each.is_relative_to(home)]
        assert not (home / ".cache" / "mregfs-0").exists()


VERSION = {
    "project": "default/default",
    "artifact": "mnist",
    "version": "v0",
    "owner": "default/default/mnist",
    "number": "v0",
    "digest": "00" * 32,
    "size": 1,
    "files": 1,
    "created_at_ns": 1,
    "author": "\x1b]0;author\x07",
    "description": "\x1b[2J",
    "metadata": {"\x1b": "\x1b"},
    "tags": ["\x1b"],
    "run": "",
    "parents": [],
    "aliases": [],
    "links": [],
}
WRONG: dict[str, object] = {
    "version": "vx",
    "number": "../..",
    "created_at_ns": 1 << 90,
    "size": -1,
    "files": -(1 << 62),
    "project": "../..",
    "digest": "",
    "artifact": "../../etc",
}
PATHS = ("..", "../owned", "/owned", "a/../../owned", "a//b", "./x", "", "nul\0", "a/..", "\ud800")


def look_alike(top: Path, **answers: object) -> Path:
    """Make a directory that answers as a mount would, with what it is told."""
    (top / ".mregfs" / "query").mkdir(parents=True, exist_ok=True)
    (top / ".mregfs" / "status").write_text(json.dumps({"project": "default/default"}))
    (top / "artifacts" / "mnist" / "v0").mkdir(parents=True, exist_ok=True)
    answers = {"status": {"id": "x"}, **answers}
    questions = {
        "help": "help",
        "status": query_text("status"),
        "show": query_text("show", ["default/default/mnist:v0"]),
        "path": query_text("path", ["default/default/mnist:v0"]),
        "files": query_text("ls", ["default/default/mnist:v0", ""], limit=100),
        "versions": query_text("ls", ["default/default/mnist"], limit=100),
    }
    for name, question in questions.items():
        reply = {"ok": True, "sequence": 1, "result": answers.get(name)}
        (top / ".mregfs" / "query" / spell(question)[0]).write_text(json.dumps(reply))
    return top


@pytest.mark.parametrize("field", WRONG)
def test_what_a_mount_makes_up_is_no_error_of_ours(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    field: str,
) -> None:
    from mregfs.cli.main import run as run_here

    monkeypatch.delenv("MREGFS_STORE", raising=False)
    lie = {**VERSION, field: WRONG[field]}
    path = {"path": "artifacts/mnist/v0"}
    top = look_alike(tmp_path / "top", show=lie, versions=[lie], path=path, files=[])
    out = str(tmp_path / "out")
    for words in (
        ("show", "mnist:v0"),
        ("ls", "mnist"),
        ("export", "mnist:v0", out),
        ("path", "mnist:v0"),
    ):
        for form in ((), ("--json",)):
            code = run_here(["--mount", str(top), *words, *form])
            said, error = capsys.readouterr()

            assert code in (0, 5, 9, 11, 13, 14), error
            assert "\x1b" not in said + error
            assert "../.." not in said or words[0] in ("show", "ls")
            shutil.rmtree(out, ignore_errors=True)


@pytest.mark.parametrize("path", PATHS, ids=ascii)
@pytest.mark.parametrize("kind", ["file", "directory", "symlink"])
def test_an_export_from_a_mount_that_lies_stays_where_it_was_sent(
    tmp_path: Path, path: str, kind: str
) -> None:
    entry = {"size": 1, "executable": False, "digest": "", "target": "/etc"}
    files = [
        {**entry, "path": "a", "kind": "directory"},
        {**entry, "path": path, "kind": kind},
    ]
    where = {"path": "artifacts/mnist/v0"}
    top = look_alike(tmp_path / "top", show=VERSION, path=where, files=files)
    (top / "artifacts" / "mnist" / "owned").write_text("x")
    (tmp_path / "home").mkdir()
    before = sorted(tmp_path.rglob("*"))

    with Registry(mount=top) as registry, pytest.raises((CorruptError, UnavailableError)):
        registry.export("mnist:v0", str(tmp_path / "home" / "out"))

    assert before == sorted(tmp_path.rglob("*"))
