"""What completion inserts is one word, whatever the name holds: in real shells, at a terminal.

The names are a stranger's, who made a directory that looks like a mount.
"""

import json
import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import pytest

from mregfs.model.queries import query_text, spell

NAMES = (
    "MNIST Grayscale 28x28",
    "dollar $(touch owned) $HOME",
    "backtick `touch owned`",
    "semicolon;touch owned",
    "quotes 'single' \"double\" none",
    "star * ? [a-z] {x,y}",
    "hash # & | < > ( ) ~ !! end",
    "reverse \\ \\n \\",
    "éü é",
)
UNSEEN = ("xnew\nline $(touch owned)", "yescape \x1b]0;owned\x07", "zreturn\rowned")
TELL = f"""#!{sys.executable}
import json, sys
with open("told", "w") as file:
    json.dump(sys.argv[1:], file)
print("to" + "ld", sys.argv[1])
"""
START = {
    "bash": (["--norc", "--noprofile", "-i"], "source <(mregfs completion bash)"),
    "zsh": (["-f", "-i"], "autoload -Uz compinit; compinit -u; source <(mregfs completion zsh)"),
    "fish": (["--no-config", "-i"], "mregfs completion fish | source"),
}


@pytest.fixture(scope="module")
def look_alike(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that answers as a mount would, with names that no registry takes."""
    top = tmp_path_factory.mktemp("alike")
    (top / ".mregfs" / "query").mkdir(parents=True)
    (top / ".mregfs" / "status").write_text(json.dumps({"project": "default/default"}))
    owners = [
        {"project": "default/default", "name": name, "kind": "artifact", "type": "model"}
        | {"description": "", "tags": [], "metadata": {}, "aliases": {}, "protections": {}}
        | {"versions": 1, "created_at_ns": 0, "changed_at_ns": 0, "author": "mallory"}
        for name in (*NAMES, *UNSEEN)
    ]
    answers: dict[str, object] = {
        "help": [],
        query_text("ls", limit=100, project="default/default"): owners,
        query_text("projects", limit=100): [],
    }
    for question, result in answers.items():
        path = top / ".mregfs" / "query" / "/".join(spell(question))
        path.write_text(json.dumps({"ok": True, "sequence": 1, "result": result}))
    return top


class Terminal:
    """A shell at a terminal of its own."""

    def __init__(self, shell: str, directory: Path, mount: Path) -> None:
        words, self._source = START[shell]
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "MREGFS_MOUNT": str(mount),
            "HOME": str(directory),
            "TERM": "dumb",
            "PS1": "> ",
        }
        environment.pop("MREGFS_STORE", None)
        self._pty, end = pty.openpty()
        self._shell = subprocess.Popen(
            ["setsid", "--ctty", shell, *words],
            stdin=end,
            stdout=end,
            stderr=end,
            cwd=directory,
            env=environment,
        )
        os.close(end)

    def __enter__(self) -> Self:
        self.type(f"{self._source}; echo rea''dy\r")
        self.read_until("ready")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._shell.kill()
        self._shell.wait()
        os.close(self._pty)

    def type(self, text: str) -> None:
        os.write(self._pty, text.encode())

    def read_until(self, wanted: str) -> str:
        deadline = time.monotonic() + 20
        said = b""
        while wanted not in said.decode(errors="replace"):
            assert time.monotonic() < deadline, said
            if select.select([self._pty], [], [], 0.2)[0]:
                try:
                    said += os.read(self._pty, 4096)
                except OSError:
                    raise AssertionError(f"the shell is gone: {said!r}") from None
        return said.decode(errors="replace")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shell", "quote"), [("bash", ""), ("bash", "'"), ("bash", '"'), ("zsh", ""), ("fish", "'")]
)
def test_a_name_becomes_one_word(look_alike: Path, tmp_path: Path, shell: str, quote: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    tell = tmp_path / "tell"
    tell.write_text(TELL)
    tell.chmod(0o755)
    with Terminal(shell, tmp_path, look_alike) as terminal:
        for number, name in enumerate(NAMES):
            terminal.type(f"mregfs show {quote}{name[:2]}\t")
            terminal.type(f"\x01./tell {number} \r")
            terminal.read_until(f"told {number}")
            told = json.loads((tmp_path / "told").read_text())
            assert [str(number), "mregfs", "show", name] == told
            assert not (tmp_path / "owned").exists()
        for name in UNSEEN:
            terminal.type(f"mregfs show {quote}{name[:2]}\t{quote}")
            terminal.type("\x01./tell unseen \r")
            terminal.read_until("told unseen")
            told = json.loads((tmp_path / "told").read_text())
            assert ["unseen", "mregfs", "show", name[:2]] == told
    assert not (tmp_path / "owned").exists()
