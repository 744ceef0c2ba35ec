"""Progress bars: on a terminal, only there, and only for what takes a while."""

import os
import pty
import sys
from pathlib import Path

import pytest

from mregfs.cli.progress import progress
from tests.cli.conftest import CommandLine


def on_a_terminal(program: str, environment: dict[str, str]) -> tuple[int, str]:
    """Run a Python program on a new terminal; return its exit code and all that was shown."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [sys.executable, "-c", program], environment)
    shown = b""
    try:
        while piece := os.read(terminal, 1 << 16):
            shown += piece
    except OSError:  # the end of a terminal
        pass
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()


COMMIT = """
import sys
from mregfs.cli import main, progress
progress.DELAY = {delay}
sys.argv[1:] = ["commit", {directory!r}, "mnist"]
main.main()
"""


@pytest.mark.parametrize(("delay", "bar"), [(0, True), (60, False)])
def test_a_bar_appears_when_it_takes_a_while(
    cli: CommandLine, tmp_path: Path, delay: int, bar: bool
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "weights").write_bytes(b"w" * 5_000_000)
    program = COMMIT.format(delay=delay, directory=str(tmp_path / "d"))

    code, shown = on_a_terminal(program, {**os.environ, "TERM": "xterm"})

    assert 0 == code
    assert bar == ("MiB" in shown)
    assert "committed mnist:v0" in shown.splitlines()[-1]


def test_without_a_terminal_nobody_is_told() -> None:
    with progress() as report:
        assert report is None


def test_tables_on_a_terminal_fit_its_width(promoted: CommandLine) -> None:
    promoted("describe", "mnist", "x" * 500)
    promoted("rollback", "classifier:production", "--reason", "y" * 500)
    program = """
import sys
from mregfs.cli import main
sys.argv[1:] = ["history", "classifier:production"]
main.main()
"""
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}

    _, shown = on_a_terminal(program, environment)

    lines = shown.splitlines()
    assert "\x1b[1m" in lines[0]
    assert "…" in lines[1]
    assert max(len(line) for line in lines[1:]) <= 80
