"""The command line as the tests use it: in this process, on a store of its own."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
from safetensors.numpy import save_file

from mregfs.api import Registry, init_store
from mregfs.cli.main import run


class CommandLine:
    """Runs verbs in this process; `store` is a new store that they find in the environment."""

    def __init__(self, store: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.store = store
        self._capture = capture

    def __call__(self, *words: str | Path) -> str:
        """Run a verb that succeeds, and return what it printed."""
        self._capture.readouterr()
        code = run([str(word) for word in words])
        out, error = self._capture.readouterr()
        assert (0, "") == (code, error)
        return out

    def json(self, *words: str | Path) -> Any:
        """Run a verb with --json, and return what it printed, decoded."""
        out = self(*words, "--json")
        assert 1 == out.count("\n")
        return json.loads(out)

    def fail(self, *words: str | Path) -> tuple[int, str]:
        """Run a verb that fails, and return its exit code and its one line without `mregfs: `."""
        self._capture.readouterr()
        code = run([str(word) for word in words])
        out, error = self._capture.readouterr()
        assert "" == out
        assert error.startswith("mregfs: ")
        assert error.index("\n") == len(error) - 1
        assert "internal error" not in error
        return code, error[len("mregfs: ") : -1]


@pytest.fixture
def cli(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> CommandLine:
    """The command line, with a new store and nothing in it; no mount of this host is seen."""
    from mregfs.cli import place

    for name in ("MREGFS_MOUNT", "MREGFS_PROJECT", "MREGFS_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MREGFS_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("MREGFS_AUTHOR", "tester")
    monkeypatch.setattr(place, "read_mounts", list)
    monkeypatch.chdir(tmp_path)
    init_store(tmp_path / "store")
    return CommandLine(tmp_path / "store", capsys)


def make_model(directory: Path, weight: float = 1.0, **files: str) -> Path:
    """Make a directory as training code leaves it."""
    directory.mkdir()
    (directory / "config.json").write_text('{"layers": 2}')
    tensors = {
        "head": numpy.full((64, 64), weight, "float32"),
        "body": numpy.ones((64, 64), "float32"),
    }
    save_file(tensors, str(directory / "model.safetensors"))
    for path, text in files.items():
        (directory / path).write_text(text)
    return directory


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., Path]:
    """Make models below `tmp_path`: `model("name", 2.0, notes="x")`."""
    return lambda name, *args, **files: make_model(tmp_path / name, *args, **files)


@pytest.fixture(scope="session")
def promoted_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with mnist:v0 and v1, and classifier:production moved once; tests copy it."""
    directory = tmp_path_factory.mktemp("promoted")
    init_store(directory / "store")
    with Registry(directory / "store", author="tester") as registry:
        first, second = make_model(directory / "a"), make_model(directory / "b", 2.0)
        registry.commit(first, "mnist", aliases=["best"], link="classifier:production")
        registry.commit(second, "mnist", metadata={"accuracy": 0.98}, tags=["shipped"])
        registry.link("mnist:v1", "classifier:production", reason="better")
    return directory / "store"


@pytest.fixture
def promoted(cli: CommandLine, promoted_store: Path) -> CommandLine:
    """A command line on a copy of `promoted_store`."""
    shutil.rmtree(cli.store)
    shutil.copytree(promoted_store, cli.store)
    return cli


def run_module(*words: str | Path) -> list[str]:
    """Return the words that run the command in a process of its own."""
    return [sys.executable, "-m", "mregfs", *map(str, words)]
