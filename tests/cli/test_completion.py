"""Shell completion: what bash, zsh and fish are told."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mregfs.cli.main import run
from tests.cli.conftest import CommandLine


def bash(line: str, **environment: str) -> list[str]:
    """Complete a line in a real bash, with the script that `mregfs completion bash` prints."""
    script = """
        source <("$PYTHON" -m mregfs completion bash)
        mregfs() { "$PYTHON" -m mregfs "$@"; }
        env() { command env "${@:1:$#-1}" "$PYTHON" -m mregfs; }
        compopt() { :; }
        COMP_POINT=${#COMP_LINE}
        _mregfs_completion mregfs
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    done = subprocess.run(
        ["bash", "-c", script],
        env=os.environ | {"COMP_LINE": line, "PYTHON": sys.executable} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "" == done.stderr
    return [word for word in done.stdout.splitlines() if word]


Complete = Callable[..., list[str]]


@pytest.fixture
def complete(
    promoted: CommandLine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Complete:
    """Ask as the script of a shell does, in this process: `complete("mregfs show m", "zsh")`."""

    def ask(line: str, shell: str = "bash") -> list[str]:
        words = line.split(" ")
        question = {
            "bash": {"COMP_LINE": line, "COMP_WORDBREAKS": ""},
            "zsh": {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)},
            "fish": {"COMP_WORDS": line, "COMP_CWORD": words[-1]},
        }[shell]
        capsys.readouterr()
        with monkeypatch.context() as environment:
            for name, value in question.items():
                environment.setenv(name, value)
            environment.setenv("_MREGFS_COMPLETE", f"{shell}_complete")
            run([])
        out, error = capsys.readouterr()
        assert "" == error
        lines = [answer for answer in out.splitlines() if answer]
        return [answer.partition(",")[2] for answer in lines] if shell == "bash" else lines

    return ask


def test_verbs_and_options(complete: Complete) -> None:
    assert ["protect"] == complete("mregfs pro")
    assert ["--json"] == complete("mregfs ls --js")
    assert ["bash", "fish"] == sorted({*complete("mregfs completion ")} - {"zsh"})


def test_names_then_aliases_and_numbers(complete: Complete) -> None:
    assert ["mnist"] == complete("mregfs show m")
    assert ["classifier", "mnist"] == sorted(complete("mregfs rm "))
    assert ["mnist:best", "mnist:latest", "mnist:v0", "mnist:v1"] == sorted(
        complete("mregfs show mnist:")
    )
    assert ["classifier:production"] == complete("mregfs ln mnist:v0 classifier:pro")
    assert ["mnist"] == complete("mregfs commit somewhere m")


def test_other_projects(promoted: CommandLine, complete: Complete, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    promoted("import", tmp_path / "d", "team/vision/cats")

    assert ["team/vision/cats"] == complete("mregfs show team/vision/")
    assert ["team/vision/cats:latest"] == complete("mregfs show team/vision/cats:l")
    assert ["cats"] == complete("mregfs show --project team/vision c")
    assert ["team/vision/"] == complete("mregfs show te")


def test_bash_breaks_words_at_colons(promoted: CommandLine) -> None:
    assert ["best", "latest", "v1", "v0"] == bash("mregfs show mnist:")


def test_a_name_with_a_space_is_quoted_for_bash(promoted: CommandLine, complete: Complete) -> None:
    promoted("ln", "mnist:v0", "MNIST 28x28:production")

    assert ["MNIST\\ 28x28"] == complete("mregfs show M")
    assert ["production"] == bash("mregfs show MNIST\\ 28x28:p")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_get_names_with_help(complete: Complete, shell: str) -> None:
    answer = "\n".join(complete("mregfs show m", shell))

    assert "mnist" in answer
    assert "artifact, model" in answer


def test_every_script_defines_a_completion(cli: CommandLine) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "_MREGFS_COMPLETE" in cli("completion", shell)


@pytest.mark.parametrize("line", ["mregfs show x", "mregfs show nothing:", "mregfs show a:b@c:"])
def test_errors_complete_to_nothing(
    complete: Complete, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    assert [] == complete(line)
    monkeypatch.setenv("MREGFS_STORE", "/nonexistent")
    assert [] == complete(line)
