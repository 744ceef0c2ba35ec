"""Every error of a user: its exit code, one line that says what to do, and nothing changed."""

import json
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import CommandLine, run_module

BAD = [
    # a bad name
    ("commit DIR bad/na/me/x", 5, "is not a reference"),
    ("commit DIR mnist:v3", 5, "name the artifact alone"),
    ("commit DIR .hidden", 5, "is not a valid"),
    ("commit DIR mnist --alias v7", 5, "cannot be an alias"),
    ("commit DIR mnist --alias Latest", 5, "kept by the registry"),
    ("commit DIR mnist --metadata [1]", 5, "JSON"),
    ("commit DIR mnist --metadata {", 5, "JSON"),
    ("commit DIR mnist --metadata @missing.json", 3, "there is no file 'missing.json'"),
    ("ls --project a/b/c", 5, "does not name a project"),
    ("show mnist@zz", 5, "is not a digest"),
    ("show mnist:production@{soon}", 5, "is not a point in history"),
    ("rm mnist:latest", 5, "kept by the registry"),
    ("ln mnist:v0 classifier:v9", 5, "numbers are given by the registry"),
    ("ln mnist:v0 classifier:x --expect first", 5, "--expect vN or none"),
    ("mkdir shelf", 5, "write artifacts/NAME or collections/NAME"),
    # an unknown reference
    ("show nothing", 3, "mregfs ls"),
    ("show mnist:v9", 3, "mregfs ls"),
    ("show mnist:gone", 3, "has no alias 'gone'"),
    ("ls nothing", 3, "mregfs ls"),
    ("ls mnist:v0 missing.txt", 3, "missing.txt"),
    ("tree nothing", 3, "mregfs ls"),
    ("history nothing", 3, "mregfs ls"),
    ("diff mnist:v0 mnist:v9", 3, "has no v9"),
    ("du nothing", 3, "mregfs ls"),
    ("export nothing out", 3, "mregfs ls"),
    ("path mnist", 3, "mregfs mount"),
    ("ln mnist:v9 classifier:production", 3, "has no v9"),
    ("ln mnist:v0 mnist:best --project other", 3, "in project default/other"),
    ("rollback mnist:best", 3, "mregfs history"),
    ("commit DIR mnist --parent nothing:v0", 3, "nothing"),
    ("commit missing mnist", 3, "there is no draft and no directory"),
    ("import missing mnist", 3, "there is no 'missing'"),
    ("unprotect classifier:production", 3, "is not protected"),
    # the wrong kind or type
    ("commit FILE mnist", 5, "mregfs import"),
    ("commit DIR mnist --type dataset", 5, "is of type 'model'"),
    ("commit DIR classifier", 4, "choose another name"),
    ("mv artifacts/mnist artifacts/cifar", 5, "collection"),
    ("import /dev/null mnist", 5, "is a device"),
    ("mv staging/run-1 artifacts/mnist/next", 13, "in its mount"),
    ("show /etc/passwd", 5, "not below a mount"),
    ("export mnist missing/out", 3, "make it: mkdir -p "),
    # the store itself
    ("commit STORE mnist", 5, "is the store: name the directory of the model alone"),
    ("commit . mnist", 5, "holds the store"),
    ("commit / mnist", 5, "'/' holds the store"),
    ("import / mnist", 5, "'/' holds the store"),
    # a duplicate
    ("mkdir collections/mnist", 4, "choose another name"),
    ("mv collections/classifier collections/mnist", 4, "choose another name"),
    ("init STORE", 4, "is a store already"),
    ("init DIR", 4, "is not empty"),
    ("export mnist DIR", 4, "name a new or an empty directory"),
    # in use, or not as expected
    ("rm mnist:v0", 8, "--force"),
    ("rm mnist", 12, "--force"),
    ("ln mnist:v0 classifier:production --expect v0", 8, "look again"),
    # a variable that is not set
    ("init EMPTY", 5, "PATH is empty: name a path"),
    ("ls --store EMPTY", 5, "--store is empty"),
    ("--store EMPTY init", 5, "--store is empty"),
    ("ls --mount EMPTY", 5, "--mount is empty"),
    ("mount EMPTY out", 5, "PATH is empty"),
    ("mount STORE EMPTY", 5, "PATH is empty"),
    ("mount STORE out --log-file EMPTY", 5, "--log-file is empty"),
    ("umount EMPTY", 5, "MOUNTPOINT is empty"),
    ("export mnist EMPTY", 5, "DESTINATION is empty"),
    ("commit EMPTY mnist", 5, "DRAFT is empty"),
    ("import EMPTY mnist", 5, "SOURCE is empty"),
    # an address
    ("init s3://bucket/models", 13, "object storage are not supported by this version: name a dir"),
    ("ls --store gs://bucket/models", 13, "object storage"),
    ("mount s3://bucket/models out", 13, "object storage"),
    # numbers without an end, or beyond it
    ("ls mnist -n 99999999999999999999", 2, "not in the range"),
    ("history mnist --limit 99999999999999999999", 2, "not in the range"),
    ("wait mnist --timeout nan", 2, "is not a finite number"),
    ("wait mnist:gone --timeout inf", 2, "is not a finite number"),
    ("fsck --data --rate nan", 2, "is not a finite number"),
    ("fsck --data --rate inf", 2, "not in the range"),
    ("fsck --data --rate 1e308", 2, "not in the range"),
    ("fsck --rate 5", 2, "--rate says how fast --data reads"),
    ("watch --since 99", 5, "before 99: name an entry it has"),
    ("commit DIR mnist --metadata @/dev/zero", 5, "takes more than 1048576 characters"),
    ("mount STORE out -o cache_size=\u0663", 5, "is not a size"),
    # not a store
    ("ls --store DIR", 5, "mregfs init"),
    ("ls --store missing", 5, "mregfs init"),
    ("mount DIR out", 5, "mregfs init"),
    ("mount STORE out -o frobnicate", 5, "unknown mount option 'frobnicate'"),
    ("umount out", 3, "no store is mounted"),
    ("ls --mount out", 3, "mregfs mount"),
]


@pytest.mark.parametrize(("words", "code", "says"), BAD, ids=[words for words, *_ in BAD])
def test_user_errors(
    promoted: CommandLine, tmp_path: Path, words: str, code: int, says: str
) -> None:
    """One line, its exit code, and the log and the index are as before."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "new").write_text("not committed yet")
    before = promoted("status", "--json"), promoted("ls", "--json", "--all")
    places = {"EMPTY": "", "DIR": str(tmp_path / "c"), "FILE": "file", "STORE": str(promoted.store)}

    failed = promoted.fail(*(places.get(word, word) for word in words.split()))

    assert code == failed[0]
    assert says in failed[1]
    assert json.loads(before[0])["store"]["entries"] == promoted.json("status")["store"]["entries"]
    assert before[1] == promoted("ls", "--json", "--all")
    assert {"store", "file", "c"} == set(os.listdir(tmp_path))


def test_an_address_in_the_environment_is_refused(
    promoted: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MREGFS_STORE", "s3://bucket/models")

    for words in (["init"], ["ls"], ["mount", tmp_path], ["status"]):
        code, said = promoted.fail(*words)
        assert (13, True) == (code, "object storage" in said)
    assert ["store"] == os.listdir(tmp_path)


def test_a_description_without_an_end_is_refused(
    promoted: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open("/dev/zero") as endless:
        monkeypatch.setattr("sys.stdin", endless)
        code, said = promoted.fail("describe", "mnist", "-")

    assert (5, True) == (code, "the description takes more than" in said)


def test_what_cannot_be_in_a_version_is_named(cli: CommandLine, tmp_path: Path) -> None:
    directory = tmp_path / "d"
    directory.mkdir()
    os.mkfifo(directory / "pipe")
    (directory / "away").symlink_to("/etc/passwd")

    code, line = cli.fail("commit", directory, "mnist")

    assert 5 == code
    assert "pipe" in line
    assert "away" in line


def test_a_newer_format_is_refused(promoted: CommandLine) -> None:
    description = promoted.store / "store.json"
    newer = json.loads(description.read_bytes()) | {"format": 999}
    description.chmod(0o644)
    description.write_text(json.dumps(newer))

    code, line = promoted.fail("ls")

    assert 13 == code
    assert "999" in line
    assert "upgrade" in line


def test_a_damaged_store_is_refused(promoted: CommandLine) -> None:
    (promoted.store / "store.json").chmod(0o644)
    (promoted.store / "store.json").write_text("{")

    code, line = promoted.fail("ls")

    assert 5 == code
    assert "store.json is damaged" in line


def test_someone_elses_store_can_be_read_and_not_changed(
    promoted: CommandLine, model: Callable[..., Path], tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs two users")
    if subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", *run_module("--version")],
        capture_output=True,
        check=False,
    ).returncode:
        pytest.skip("nobody cannot run this Python")
    for directory in (tmp_path, *tmp_path.parents[:3]):
        directory.chmod(stat.S_IMODE(directory.stat().st_mode) | 0o055)
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*as_nobody, *run_module(*words)],
            env=os.environ | {"HOME": str(tmp_path / "home"), "MREGFS_MOUNT": ""},
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )

    (tmp_path / "home").mkdir(mode=0o777)
    (tmp_path / "home").chmod(0o777)

    looked = run("ls", "--store", str(promoted.store))
    refused = run("tag", "mnist", "+x", "--store", str(promoted.store))

    assert (0, "") == (looked.returncode, looked.stderr)
    assert "mnist" in looked.stdout
    assert (6, 1) == (refused.returncode, refused.stderr.count("\n"))


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory on a disk that can be filled."""
    small = tmp_path / "small"
    small.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "none", small], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("needs to mount a tmpfs")
    yield small
    subprocess.run(["umount", "-l", small], check=True)


def test_no_space_is_said_and_changes_nothing(
    cli: CommandLine, full_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MREGFS_STORE", str(full_disk / "store"))
    cli("init")
    big = tmp_path / "big"
    big.mkdir()
    (big / "weights").write_bytes(os.urandom(16 << 20))

    code, line = cli.fail("commit", big, "mnist")

    assert 10 == code
    assert "free" in line or "space" in line.lower()
    assert [] == cli.json("ls")
    (big / "weights").write_bytes(b"small")
    cli("commit", big, "mnist")


def test_a_draft_of_a_registry_that_one_may_not_change(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mregfs.cli import control, place

    def refuse(*_: object) -> None:
        raise control.MountGoneError("Permission denied") from PermissionError(13, "no")

    point = tmp_path / "point"
    (point / "staging/u3").mkdir(parents=True)
    monkeypatch.setattr(
        place, "read_mounts", lambda: [place.Mount(str(point), str(cli.store), owner=0)]
    )
    monkeypatch.setattr(control, "transact", refuse)

    says = f"you may not change the registry that is mounted on {str(point)!r}: ask its owner to"
    how = "let a group of yours: mregfs access --writers GROUP"
    assert (7, f"{says} {how}") == cli.fail("commit", "staging/u3", "art")


@pytest.mark.parametrize(
    "words",
    [
        ("set", "mnist", "=1"),
        ("commit", "DIR", "mnist", "--metadata", '{"": 1}'),
    ],
)
def test_metadata_needs_names(
    promoted: CommandLine, model: Callable[..., Path], words: tuple[str, ...]
) -> None:
    directory = model("c")
    code, said = promoted.fail(*(directory if word == "DIR" else word for word in words))

    assert (5, True) == (code, "the metadata has an empty key" in said)


@pytest.mark.parametrize("words", ["show LONG", "tag mnist +LONG", "mkdir artifacts/LONG"])
def test_long_names_are_cut(promoted: CommandLine, words: str) -> None:
    code, said = promoted.fail(*words.replace("LONG", "?" * 5000).split())

    assert (5, True) == (code, "…" in said)
    assert len(said) < 400


def test_an_error_line_has_an_end(promoted: CommandLine) -> None:
    _, said = promoted.fail("commit", "/" + "x" * 100_000, "mnist")

    assert len(said) < 2100
    assert said.endswith("name a directory of staging/ in the mount, or a path")
