"""The verbs that only look, on a store without a mount."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import CommandLine

DEFAULT = "default/default"


def test_ls_shows_artifacts_and_collections(promoted: CommandLine) -> None:
    heading, mnist, classifier = promoted("ls").splitlines()

    assert ["NAME", "KIND", "TYPE", "VERSIONS", "LATEST", "ALIASES"] == heading.split()
    assert "mnist artifact model 2 v1 best -> v0" == " ".join(mnist.split())
    assert "classifier collection model 2 v1 production -> v1" == " ".join(classifier.split())


def test_ls_of_all_projects_says_whose(promoted: CommandLine, model: Callable[..., Path]) -> None:
    promoted("commit", model("c", 3.0), "team/vision/other")

    assert ["default/default/mnist", "default/default/classifier", "team/vision/other"] == [
        line.split()[0] for line in promoted("ls", "--all").splitlines()[1:]
    ]
    assert "other" not in promoted("ls")
    assert "other" in promoted("ls", "--project", "team/vision")
    assert "other" in promoted("--project", "team/vision", "ls")


def test_ls_of_a_name_shows_versions_newest_first(promoted: CommandLine) -> None:
    lines = promoted("ls", "mnist").splitlines()

    assert ["VERSION", "SIZE", "CREATED", "DIGEST", "ALIASES"] == lines[0].split()
    assert ["v1", "v0"] == [line.split()[0] for line in lines[1:]]
    assert ["latest", "best"] == [line.split()[-1] for line in lines[1:]]
    assert ["v1"] == [line.split()[0] for line in promoted("ls", "mnist", "-n1").splitlines()[1:]]


def test_ls_of_a_collection_shows_what_is_linked(promoted: CommandLine) -> None:
    rows = [line.split() for line in promoted("ls", "classifier").splitlines()]

    assert ["VERSION", "SOURCE"] == rows[0][:2]
    assert [["v1", "mnist:v1"], ["v0", "mnist:v0"]] == [row[:2] for row in rows[1:]]


def test_ls_of_a_version_shows_files(promoted: CommandLine) -> None:
    rows = [line.split() for line in promoted("ls", "classifier:production").splitlines()]

    assert ["SIZE", "PATH"] == rows[0]
    assert ["config.json", "model.safetensors"] == [row[-1] for row in rows[1:]]
    assert "13 B" in promoted("ls", "artifacts/mnist/v1", "config.json")
    assert "13 B" in promoted("ls", "artifacts/mnist/v1/config.json")


def test_ls_of_files_in_directories_and_links(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "d" / "bin").mkdir(parents=True)
    (tmp_path / "d" / "bin" / "run").write_text("#!/bin/sh\n")
    (tmp_path / "d" / "bin" / "run").chmod(0o755)
    (tmp_path / "d" / "start").symlink_to("bin/run")
    cli("commit", tmp_path / "d", "program")

    paths = [line.split("  ")[-1].strip() for line in cli("ls", "program:v0").splitlines()[1:]]

    assert {"bin/", "bin/run*", "start -> bin/run"} == set(paths)
    assert ["bin/run"] == [entry["path"] for entry in cli.json("ls", "program:v0", "bin")]


def test_ls_as_json_keeps_its_keys(promoted: CommandLine) -> None:
    owner, version, file = (
        promoted.json("ls")[0],
        promoted.json("ls", "mnist")[0],
        promoted.json("ls", "mnist:v0")[0],
    )

    assert {"kind", "project", "name", "type", "versions", "aliases"} <= owner.keys()
    assert {"artifact", "version", "number", "digest", "size", "created_at_ns"} <= version.keys()
    assert {"path", "kind", "size", "executable", "digest", "target"} == file.keys()


def test_tree_draws_what_has_an_alias_and_counts_the_rest(
    promoted: CommandLine, model: Callable[..., Path]
) -> None:
    promoted("commit", model("c", 3.0), "mnist")

    assert (
        "default/default\n"
        "├── artifacts\n"
        "│   └── mnist (model)\n"
        "│       ├── v2  [latest]\n"
        "│       ├── v0  [best]\n"
        "│       └── … 1 more version\n"
        "└── collections\n"
        "    └── classifier (model)\n"
        "        ├── v1  [latest, production]\n"
        "        └── … 1 more version\n"
    ) == promoted("tree")


def test_tree_of_one_draws_all_of_it(promoted: CommandLine) -> None:
    assert (
        "classifier (model)\n├── v1 -> mnist:v1  [latest, production]\n└── v0 -> mnist:v0\n"
    ) == promoted("tree", "classifier")
    (drawn,) = promoted.json("tree", "classifier")
    assert ["v1", "v0"] == [version["version"] for version in drawn["versions"]]


def test_show_a_version_through_its_collection(promoted: CommandLine) -> None:
    shown = promoted("show", "classifier:production")

    assert "version:  default/default/mnist:v1\n" in shown
    assert '"accuracy": 0.98' in shown
    assert "tags:     shipped\n" in shown
    assert "links:    default/default/classifier:v1\n" in shown
    info = promoted.json("show", "classifier:production")
    assert ("v1", {"accuracy": 0.98}, "tester (root)") == (
        info["version"],
        info["metadata"],
        info["author"],
    )


def test_show_the_past_of_an_alias(promoted: CommandLine) -> None:
    assert "mnist:v0\n" in promoted("show", "classifier:production@{1}")


def test_show_an_owner_with_its_protections(promoted: CommandLine) -> None:
    promoted("protect", "classifier:production", "--group", "daemon")
    promoted("protect", "classifier:gold", "--group", "daemon")

    shown = promoted("show", "classifier")

    assert "production -> v1  (protected: group daemon)" in shown
    assert "gold  (protected: group daemon)" in shown
    assert {"production": "daemon", "gold": "daemon"} == promoted.json("show", "classifier")[
        "protections"
    ]


def test_what_could_steer_a_terminal_is_escaped(
    promoted: CommandLine,
) -> None:
    promoted("describe", "mnist:v0", "red \x1b[31m alert\nsecond line")

    shown = promoted("show", "mnist:v0")

    assert "\x1b" not in shown
    assert "red \\x1b[31m alert\n" in shown
    assert "second line\n" in shown


def test_history_of_an_alias_says_who_and_why(promoted: CommandLine) -> None:
    newest, first = promoted("history", "classifier:production").splitlines()[1:]

    assert newest.endswith("better")
    assert "tester" in newest
    assert "production: v0 -> v1" in newest
    assert "nothing -> v0" in first
    (line,) = promoted.json("history", "classifier:production", "-n", "1")
    assert {"sequence", "at_ns", "author", "reason", "what"} == line.keys()


def test_diff_names_files_and_tensors(cli: CommandLine, model: Callable[..., Path]) -> None:
    cli("commit", model("a", notes="x"), "mnist")
    cli("commit", model("b", 2.0, vocabulary="words"), "mnist")

    rows = [line.split() for line in cli("diff", "mnist:v0", "mnist:v1").splitlines()[1:]]

    assert ["A", "5", "B", "vocabulary"] in rows
    assert ["D", "1", "B", "notes"] in rows
    assert "M" in [row[0] for row in rows]
    assert ["head:", "values", "changed"] in rows
    assert not any("body:" in row for row in rows)
    assert {"added", "removed", "changed"} == cli.json("diff", "mnist:v0", "mnist:v1").keys()
    assert "the files are the same\n" == cli("diff", "mnist:v0", "mnist:v0")


def test_du_says_what_deleting_frees(promoted: CommandLine) -> None:
    usage = promoted.json("du", "mnist:v0")

    sizes = {"logical", "unique", "shared", "freed_by_deleting"}
    assert sizes | {"files", "versions", "unknown"} == usage.keys()
    assert usage["unique"] + usage["shared"] <= usage["logical"] + 1024
    assert "deleting frees:" in promoted("du", "mnist")
    assert 2 == promoted.json("du")["versions"]


def test_status_without_a_mount(promoted: CommandLine) -> None:
    status = promoted.json("status")

    assert [] == status["mounts"]
    assert (1, 1, 2) == tuple(
        status["store"][key] for key in ("artifacts", "collections", "versions")
    )
    assert f"store:       {promoted.store}\n" in promoted("status")


def test_wait_returns_at_once_when_it_differs_already(promoted: CommandLine) -> None:
    assert f"{DEFAULT}/mnist:v1\n" == promoted("wait", "mnist")
    assert "v1" == promoted.json("wait", "classifier:production", "--changed-from", "v0")["version"]


def test_wait_gives_up_with_its_own_exit_code(promoted: CommandLine) -> None:
    code, line = promoted.fail(
        "wait", "classifier:production", "--changed-from", "v1", "--timeout", "0"
    )

    assert 9 == code
    assert "did not change" in line


HEAVY = {
    *("trio", "pyfuse3", "rich", "numpy", "asyncio", "ssl", "subprocess", "multiprocessing"),
    *("pyfastcdc", "zstandard", "tempfile", "shutil", "unittest", "email", "http"),
    *(
        "mregfs.daemon",
        "mregfs.model.rules",
        "mregfs.model.grammar",
        "mregfs.registry.write.commit",
    ),
}
"""What takes long to import, or belongs to those who change something."""


@pytest.mark.parametrize("words", ["ls", "ls mnist:v0", "show mnist", "history mnist:best", "tree"])
def test_who_only_looks_imports_nothing_heavy(promoted: CommandLine, words: str) -> None:
    """The interpreter lists what it imports: the 0.2 s of a verb have no room for these."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "mregfs", *words.split()],
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}

    assert "mregfs.cli.main" in imported
    assert set() == imported & HEAVY


def test_history_counts_one_file(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"w")
    cli("import", tmp_path / "weights", "mnist")

    assert "v0 committed: 1 file, 1 byte" in cli("history", "mnist:v0")


def test_status_has_no_empty_lines_of_facts() -> None:
    from mregfs.cli import store as host

    facts = {"reason": "", "refused": {}, "passthrough": {"reason": "", "refused": {}, "on": True}}

    assert [("passthrough", "on: yes")] == [pair for pair in host._pairs(facts) if pair[1]]
