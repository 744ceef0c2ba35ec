"""The verbs next to a live mount: which way a change goes, drafts, where one stands."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import make_model, run_module

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.skipif(
        not os.access("/dev/fuse", os.R_OK | os.W_OK) or os.geteuid() != 0,
        reason="needs root and /dev/fuse",
    ),
]


class Mounted:
    """A mounted store, and the command in processes of their own."""

    def __init__(self, directory: Path) -> None:
        self.store = directory / "store"
        self.path = directory / "models"
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("MREGFS_")
        } | {"MREGFS_STORE": str(self.store)}

    def run(
        self, *words: str | Path, cwd: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            run_module(*words),
            env=self.environment | environment,
            cwd=cwd or self.store.parent,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def __call__(self, *words: str | Path, cwd: Path | None = None, **environment: str) -> str:
        done = self.run(*words, cwd=cwd, **environment)
        assert (0, "") == (done.returncode, done.stderr)
        return done.stdout.rstrip("\n")

    def draft(self, name: str, project: str = "", **files: str) -> Path:
        top = self.path / project / "staging" / name
        top.mkdir(parents=True)
        for path, text in files.items():
            (top / path).write_text(text)
        return top


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    """One mount for all tests here; each uses names of its own."""
    made = Mounted(tmp_path_factory.mktemp("mounted"))
    made("init")
    made.path.mkdir()
    said = made("mount", made.path, "--log-file", made.store.parent / "log")
    assert f"mounted {made.store} on {made.path}" == said
    yield made
    made("umount", made.path)
    assert not os.path.ismount(made.path)


def test_a_draft_is_known_by_its_name_and_by_its_paths(mounted: Mounted) -> None:
    mounted.draft("by-name", a="1")
    mounted.draft("by-path", a="2")
    mounted.draft("by-place", a="3")
    mounted.draft("by-tree", a="4")
    mounted.draft("in-mount", a="5")

    assert mounted("commit", "by-name", "drafts").startswith("committed drafts:v0")
    assert mounted("commit", mounted.path / "staging/by-path", "drafts").startswith("committed")
    here = mounted.path / "staging/by-place"
    assert mounted("commit", ".", "drafts", cwd=here).startswith("committed drafts:v2")
    assert mounted("mv", "staging/by-tree", "artifacts/drafts/next").startswith("committed")
    assert mounted("commit", "in-mount", "drafts", cwd=mounted.path).startswith("committed")
    assert {"v0", "v1", "v2", "v3", "v4", "latest"} == set(
        os.listdir(mounted.path / "artifacts/drafts")
    )
    assert "3" == (mounted.path / "artifacts/drafts/v2/a").read_text()


def test_a_draft_takes_all_that_can_be_said(mounted: Mounted) -> None:
    mounted.draft("said", a="said")

    result = json.loads(
        mounted(
            *("commit", "said", "talk", "--alias", "best", "--metadata", '{"quote": "it\'s"}'),
            *("--description", "two\nlines", "--tag", "x", "--link", "shelf:production", "--json"),
        )
    )

    assert ("v0", "shelf") == (result["version"], result["link"]["collection"])
    info = json.loads(mounted("show", "shelf:production", "--json"))
    assert ({"quote": "it's"}, "two\nlines") == (info["metadata"], info["description"])


def test_a_draft_that_is_still_open_is_refused(mounted: Mounted) -> None:
    draft = mounted.draft("open", a="1")
    with (draft / "a").open("a"):
        done = mounted.run("commit", "open", "opened")

    assert 8 == done.returncode
    assert 1 == done.stderr.count("\n")
    assert "a" in done.stderr
    assert mounted("commit", "open", "opened").startswith("committed")


def test_a_name_that_is_draft_and_directory_is_not_guessed(
    mounted: Mounted, tmp_path: Path
) -> None:
    mounted.draft("twice", a="1")
    (tmp_path / "twice").mkdir()

    done = mounted.run("commit", "twice", "guessed", cwd=tmp_path)

    assert 5 == done.returncode
    assert "./twice" in done.stderr
    assert mounted("commit", "./twice", "guessed", cwd=tmp_path).startswith("committed")


def test_changes_are_seen_when_the_verb_returns(mounted: Mounted, tmp_path: Path) -> None:
    for number in range(2):
        mounted("commit", make_model(tmp_path / str(number), float(number)), "moved")
    for number in (1, 0, 1):
        mounted("ln", f"moved:v{number}", "moved:production")
        assert f"v{number}" == os.readlink(mounted.path / "artifacts/moved/production")
    mounted("rm", "moved:production")
    assert not os.path.lexists(mounted.path / "artifacts/moved/production")


def test_names_are_taken_from_where_one_stands(mounted: Mounted, tmp_path: Path) -> None:
    for number in range(2):
        mounted("commit", make_model(tmp_path / str(number), float(number)), "stood")
    mounted("ln", "stood:v0", "stand:production")
    here = mounted.path / "collections/stand"

    assert "stand:production -> v1 (was v0)" in mounted(
        "ln", "../../artifacts/stood/v1", "production", cwd=here
    )
    assert "stand:staging -> v0" == mounted("ln", "v0", "staging", cwd=here)
    assert "dropped stand:staging (was v0)" == mounted("rm", "staging", cwd=here)
    assert "stood:v1" in mounted("show", here / "production")
    assert ["v1", "v0"] == [
        line.split()[0] for line in mounted("ls", ".", cwd=here).split("\n")[1:]
    ]
    inside = mounted.path / "artifacts/stood/v1"
    assert "config.json" in mounted("ls", ".", cwd=inside)


def test_the_store_of_the_mount_one_stands_in(mounted: Mounted, tmp_path: Path) -> None:
    mounted("commit", make_model(tmp_path / "a"), "found")

    assert "found" in mounted("ls", cwd=mounted.path / "artifacts", MREGFS_STORE="")
    assert "found" in mounted("ls", MREGFS_STORE="", MREGFS_MOUNT=str(mounted.path))
    assert "found" in mounted("ls", "--mount", "models", MREGFS_STORE="")


def test_path_is_the_versions_own(mounted: Mounted, tmp_path: Path) -> None:
    mounted("commit", make_model(tmp_path / "a"), "paved", "--link", "pave:production")
    mounted("commit", make_model(tmp_path / "b"), "team/vision/paved")

    path = mounted("path", "pave:production")

    assert str(mounted.path / "artifacts/paved/v0") == path
    assert os.path.realpath(mounted.path / "collections/pave/production") == path
    other = mounted("path", "paved", "--project", "team/vision")
    assert str(mounted.path / "projects/team/vision/artifacts/paved/v0") == other
    assert (Path(other) / "config.json").exists()


def test_another_project_goes_through_the_same_mount(mounted: Mounted, tmp_path: Path) -> None:
    project = ("--project", "team/sound")
    mounted("commit", make_model(tmp_path / "a"), "heard", *project)

    assert "shelf:production -> v0" in mounted("ln", "heard:v0", "shelf:production", *project)
    assert "v0" == os.readlink(mounted.path / "projects/team/sound/collections/shelf/production")
    mounted.draft("take", "projects/team/sound", a="1")
    assert mounted("commit", "take", "heard", *project).startswith("committed heard:v1")
    assert "heard" not in mounted("ls")


def test_status_tells_of_the_mount(mounted: Mounted) -> None:
    (mount,) = json.loads(mounted("status", "--json"))["mounts"]

    assert (str(mounted.path), "alive", False) == (
        mount["mount"],
        mount["state"],
        mount["read_only"],
    )
    shown = mounted("status")
    assert re.search(rf"^mount: +{re.escape(str(mounted.path))}$", shown, re.MULTILINE)
    assert re.search(r"limit: \d+(\.\d)? [MGT]iB\n", shown)
    assert "used: 0 B\n" in shown


def test_a_mount_point_that_is_taken_is_refused(mounted: Mounted) -> None:
    done = mounted.run("mount", mounted.path)

    assert 8 == done.returncode
    assert 1 == done.stderr.count("\n")
    assert str(mounted.path) in done.stderr


def test_a_read_only_mount_does_not_stand_in_the_way(mounted: Mounted, tmp_path: Path) -> None:
    """A read-only mount takes no commands; the store itself does, for who may write it."""
    shut = tmp_path / "shut"
    store = tmp_path / "store"
    shut.mkdir()
    mounted("init", store)
    mounted("mount", "--read-only", store, shut, "--log-file", tmp_path / "log")
    try:
        made = mounted("mkdir", "collections/made", MREGFS_STORE=str(store))
        (shut / "collections/made").stat()
    finally:
        mounted("umount", shut)

    assert "created collection made" == made


def test_a_dead_mount_is_gone_after_the_next_mount(mounted: Mounted, tmp_path: Path) -> None:
    point = tmp_path / "point"
    store = tmp_path / "store"
    point.mkdir()
    mounted("init", store)
    words = ("mount", store, point, "--log-file", tmp_path / "log", "--json")
    os.kill(json.loads(mounted(*words))["pid"], signal.SIGKILL)
    environment = {"MREGFS_STORE": str(store)}

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").write_text("x")
    mounted("commit", tmp_path / "out", "mnist", **environment)
    refused = mounted.run("path", "mnist", **environment)
    assert (9, "") == (refused.returncode, refused.stdout)
    assert "mount it again" in refused.stderr
    # Nothing waits for it: changes go to the store.
    assert "created" in mounted("mkdir", "collections/a", **environment)
    assert "dead" == json.loads(mounted("status", "--json", **environment))["mounts"][0]["state"]
    mounted(*words)
    try:
        assert ["a"] == os.listdir(point / "collections")
    finally:
        mounted("umount", point)
    table = Path("/proc/self/mountinfo").read_text()
    assert f" {point} " not in table
