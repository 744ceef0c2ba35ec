"""The verbs that change something, on a store without a mount, and what they say of it."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mregfs.cli.script import _with_author
from tests.cli.conftest import CommandLine


def test_commit_says_what_it_made(cli: CommandLine, model: Callable[..., Path]) -> None:
    directory = model("a")
    made = cli("commit", directory, "mnist", "--link", "classifier:production")

    first, second = made.splitlines()
    assert first.startswith("committed mnist:v0 (")
    assert "linked default/default/mnist:v0 as classifier:v0; classifier:production -> v0" == second
    assert "mnist:v0 has this content already: no new version\n" == cli(
        "commit", directory, "mnist"
    )
    assert (directory / "config.json").exists()


def test_commit_takes_all_that_can_be_said(cli: CommandLine, model: Callable[..., Path]) -> None:
    cli("commit", model("a"), "base")
    (metadata := Path("metadata.json")).write_text('{"accuracy": 0.5, "loss": NaN}')

    result = cli.json(
        *("commit", model("b", 2.0), "mnist", "--alias", "best", "--alias", "gold"),
        *("--type", "classifier", "--metadata", f"@{metadata}", "--description", "first try"),
        *("--tag", "b", "--tag", "a", "--run", "run-17", "--parent", "base:v0"),
        *("--link", "shelf", "--reason", "a new one"),
    )

    assert ("v0", True, ["best", "gold"]) == (
        result["version"],
        result["created"],
        result["aliases"],
    )
    assert "shelf" == result["link"]["collection"]
    info = cli.json("show", "mnist:gold")
    assert {"accuracy": 0.5, "loss": None} == info["metadata"]
    assert ("first try", ["a", "b"], "run-17", ["default/default/base:v0"]) == (
        info["description"],
        info["tags"],
        info["run"],
        info["parents"],
    )
    assert "classifier" == cli.json("show", "mnist")["type"]
    assert "a new one" == cli.json("history", "mnist:gold")[0]["reason"]


def test_import_a_file_makes_a_version_of_it_alone(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"w" * 100)

    assert cli("import", tmp_path / "weights.bin", "mnist").startswith("committed mnist:v0")

    assert ["weights.bin"] == [entry["path"] for entry in cli.json("ls", "mnist:v0")]
    assert b"w" * 100 == (tmp_path / "weights.bin").read_bytes()
    assert not list(tmp_path.glob(".mregfs-import-*"))


def test_import_needs_no_room_next_to_the_file(cli: CommandLine) -> None:
    """In /proc nothing can be made, not even by root."""
    assert cli("import", "/proc/version", "kernel").startswith("committed kernel:v0")
    assert ["version"] == [entry["path"] for entry in cli.json("ls", "kernel:v0")]
    assert {"exclusive", "reserve"} >= set(os.listdir(cli.store / "tmp"))


def test_import_a_directory_is_a_commit(cli: CommandLine, model: Callable[..., Path]) -> None:
    cli("import", model("a"), "mnist", "--alias", "best")

    assert "v0" == cli.json("show", "mnist:best")["version"]


def test_export_gives_the_files_back(promoted: CommandLine, tmp_path: Path) -> None:
    said = promoted("export", "classifier:production", tmp_path / "out")

    assert said.startswith("exported mnist:v1 to ")
    assert {"config.json", "model.safetensors"} == set(os.listdir(tmp_path / "out"))
    assert {"path", "version", "digest", "size", "files"} == promoted.json(
        "export", "mnist:v0", tmp_path / "other"
    ).keys()
    again = promoted("import", tmp_path / "out", "mnist")
    assert "mnist:v1 has this content already: no new version\n" == again


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("ln mnist:v0 classifier:production", "classifier:production -> v0 (was v1)"),
        ("ln -sfn mnist:v0 classifier:production", "classifier:production -> v0 (was v1)"),
        ("ln v0 classifier:production", "classifier:production -> v0 (was v1)"),
        ("ln artifacts/mnist/v1 classifier:production", "classifier:production is v1 already"),
        ("ln mnist:v1 classifier", "classifier:v1 is default/default/mnist:v1 already"),
        ("ln mnist:v1 mnist:best", "mnist:best -> v1 (was v0)"),
        ("ln mnist shelf:new", "linked default/default/mnist:v1 as shelf:v0; shelf:new -> v0"),
        ("ln mnist:v0 mnist:new --expect none", "mnist:new -> v0"),
        ("rm classifier:production", "dropped classifier:production (was v1)"),
        (
            "rm collections/classifier/v0",
            "unlinked default/default/mnist:v0 from classifier (was v0)",
        ),
        ("rm mnist:v0 --force", "deleted mnist:v0"),
        ("rm classifier --force", "deleted collection classifier with 2 links"),
        ("rm mnist --force", "deleted artifact mnist with 2 versions and 2 links"),
        ("mv collections/classifier collections/reader", "renamed classifier to reader"),
        ("mkdir collections/shelf", "created collection shelf"),
        ("mkdir artifacts/cifar --type vision", "created artifact cifar"),
        ("tag mnist:v1 +live -shipped", "default/default/mnist:v1: tags live"),
        ("tag mnist:v1 --remove shipped", "default/default/mnist:v1: no tags"),
        ("describe mnist hello", "described default/default/mnist"),
        ("set mnist:v0 epochs=3 name=resnet", "default/default/mnist:v0: metadata epochs, name"),
        ("set mnist:v1 accuracy-", "default/default/mnist:v1: no metadata"),
        ("rollback classifier:production", "classifier:production -> v0 (was v1)"),
        ("rollback classifier:production --to 1", "classifier:production -> v0 (was v1)"),
        ("protect classifier:gold --group daemon", "only group daemon may move classifier:gold"),
    ],
)
def test_each_verb_says_what_happened(promoted: CommandLine, words: str, says: str) -> None:
    assert says == promoted(*words.split()).rstrip("\n")


def test_unprotect(promoted: CommandLine) -> None:
    promoted("protect", "classifier:production", "--group", "daemon")

    assert 7 == promoted.fail("rm", "classifier:production")[0]
    assert "anyone may move classifier:production\n" == promoted(
        "unprotect", "classifier:production"
    )


def test_set_takes_numbers_and_text_and_json(promoted: CommandLine) -> None:
    words = (
        "a=1.5",
        "b:=true",
        'c:={"x": [1]}',
        "d=2026-11-01",
        'e:=""',
        "f:=null",
        "git=831877e8",
    )
    promoted("set", "mnist:v0", *words)

    assert {
        "a": 1.5,
        "b": True,
        "c": {"x": [1]},
        "d": "2026-11-01",
        "e": "",
        "f": None,
        "git": "831877e8",
    } == promoted.json("show", "mnist:v0")["metadata"]
    assert 5 == promoted.fail("set", "mnist:v0", "broken:={x")[0]
    assert 5 == promoted.fail("set", "mnist:v0", "far:=Infinity")[0]


def test_words_may_look_like_options_and_hold_anything(promoted: CommandLine) -> None:
    text = "--force is 'quoted' \"twice\"\nand $HOME goes on\\"

    promoted("describe", "mnist:v0", "--", text)

    assert text == promoted.json("show", "mnist:v0")["description"]


def test_describe_from_standard_input(
    promoted: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("from a pipe\n"))
    promoted("describe", "mnist:v0", "-")

    assert "from a pipe" == promoted.json("show", "mnist:v0")["description"]


def test_a_rollback_keeps_its_reason(promoted: CommandLine) -> None:
    promoted("rollback", "classifier:production", "--reason", "bad on night images")

    assert "bad on night images" == promoted.json("history", "classifier:production")[0]["reason"]


def test_a_collection_with_a_space_in_its_name(promoted: CommandLine) -> None:
    promoted("ln", "mnist:v0", "MNIST Grayscale 28x28:production")

    assert "v0" == promoted.json("show", "MNIST Grayscale 28x28:production")["number"]


def test_results_as_json_are_those_of_the_control_file(promoted: CommandLine) -> None:
    moved = promoted.json("ln", "mnist:v0", "classifier:production")

    assert {
        "project": "default/default",
        "collection": "classifier",
        "version": "v0",
        "source": "default/default/mnist:v0",
        "linked": False,
        "alias": "production",
        "previous": "v1",
        "moved": True,
    } == moved


def test_reindex_gives_the_same_answers(promoted: CommandLine) -> None:
    before = promoted("ls", "--json"), promoted("history", "mnist")

    assert "replayed 3 log entries\n" == promoted("reindex")

    assert before == (promoted("ls", "--json"), promoted("history", "mnist"))
    assert {"entries": 3} == promoted.json("reindex")


def test_init_says_how_to_go_on(cli: CommandLine, tmp_path: Path) -> None:
    store = tmp_path / "second"

    assert f"made the store {store}\nmount it with: mregfs mount {store} MOUNTPOINT\n" == cli(
        "init", store
    )
    assert {"store": f"{tmp_path}/third"} == json.loads(cli("init", "third", "--json"))


def test_tags_of_one_letter_and_what_looks_like_options(promoted: CommandLine) -> None:
    promoted("tag", "mnist:v1", "+y", "+x", "+h")

    assert "default/default/mnist:v1: tags h, shipped, z\n" == promoted(
        "tag", "mnist:v1", "+z", "-y", "-x", "--reason", "-because"
    )
    assert "default/default/mnist:v1: tags z\n" == promoted(
        "tag", "-h", "mnist:v1", "-shipped", "--reason=why"
    )
    assert "-because" == promoted.json("history", "mnist")[1]["reason"]
    assert promoted("tag", "-h") == promoted("tag", "--help")
    assert (2, "No such option '--reasn': see mregfs tag --help") == promoted.fail(
        "tag", "mnist:v1", "--reasn", "x"
    )


def test_run_is_one_transaction_of_a_file_or_standard_input(
    promoted: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "script").write_text("tag mnist:v0 +a\nln mnist:v0 mnist:best")
    assert ["default/default/mnist:v0: tags a", "mnist:best is v0 already"] == promoted(
        "run", "script"
    ).splitlines()

    monkeypatch.setattr("sys.stdin", io.StringIO("mkdir collections/a\nln mnist:v9 mnist:best\n"))
    code, said = promoted.fail("run", "-")
    assert (3, True) == (code, said.startswith("line 2 (ln): "))
    assert 3 == promoted.fail("show", "a")[0]
    assert 3 == promoted.fail("run", "nowhere")[0]


@pytest.mark.parametrize(
    ("script", "sent"),
    [
        ("# a\n\ntag m 'x\ny'\nrm \\\n a:b\n", "\n\ntag --author=tester m 'x\ny'\nrm a:b\n"),
        ("rm a\nrm b --author ann", "rm a\nrm b --author ann\n"),
    ],
)
def test_a_script_gets_its_author_and_keeps_its_lines(
    cli: CommandLine, script: str, sent: str
) -> None:
    assert sent == _with_author(script)
