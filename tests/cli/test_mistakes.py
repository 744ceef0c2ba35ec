"""A store, a mount and a reference that are mixed up: the line says what to write instead."""

from pathlib import Path

import pytest

from tests.cli.conftest import CommandLine


@pytest.mark.parametrize(
    "words", ["fsck", "ls", "show", "history", "du", "path", "pin", "rm", "tree"]
)
@pytest.mark.parametrize("how", ["absolute", "relative", "bare"])
def test_a_store_that_is_given_as_a_reference(
    cli: CommandLine, tmp_path: Path, words: str, how: str
) -> None:
    cli("init", tmp_path / "other")
    name = {"absolute": str(tmp_path / "other"), "relative": "./other", "bare": "other"}[how]

    code, said = cli.fail(*words.split(), name)

    assert 5 == code
    assert f"{name!r} is a store, not something in one: name it with --store {name}" == said


def test_a_store_that_is_given_as_a_reference_where_no_other_is(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MREGFS_STORE")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("mregfs.config.default_store", lambda: tmp_path / "none")

    code, said = cli.fail("fsck", cli.store)

    assert (5, f"name it with --store {cli.store}") == (code, said.partition(": ")[2])


def test_a_store_that_is_given_as_a_mount(cli: CommandLine) -> None:
    assert (
        5,
        f"'{cli.store}' is a store, not a mount: name it with --store {cli.store}",
    ) == cli.fail("ls", "--mount", cli.store)


def test_a_mount_that_is_given_as_a_store(cli: CommandLine, tmp_path: Path) -> None:
    mount = tmp_path / "models"
    (mount / ".mregfs").mkdir(parents=True)
    (mount / ".mregfs/status").write_text("{}")

    assert (5, f"'{mount}' is a mount, not a store: name it with --mount {mount}") == cli.fail(
        "ls", "--store", mount
    )


def test_a_reference_that_is_given_as_a_store(cli: CommandLine) -> None:
    assert (
        5,
        "'mnist:v3' is no store: name a directory with --store, and a reference without it",
    ) == cli.fail("ls", "--store", "mnist:v3")


def test_a_name_that_is_a_directory_too_is_still_a_name(
    promoted: CommandLine, tmp_path: Path
) -> None:
    promoted("init", tmp_path / "mnist")

    assert "VERSION" in promoted("ls", "mnist")


def test_a_directory_that_is_given_as_a_reference(cli: CommandLine, tmp_path: Path) -> None:
    code, said = cli.fail("show", tmp_path)

    assert 5 == code
    assert said.startswith(f"'{tmp_path}' is not below a mount of the store")
    assert said.endswith("a store is named with --store")
