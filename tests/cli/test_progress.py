"""Progress bars: on a terminal, only there, and only for what takes a while."""

import os
import pty
import signal
import subprocess
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
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "90"}

    _, shown = on_a_terminal(program, environment)

    lines = shown.splitlines()
    assert "\x1b[1m" in lines[0]
    assert "…" in lines[1]
    assert max(len(line) for line in lines[1:]) <= 90


INTERRUPTED = """
import importlib, sys, time
from mregfs.cli import main
place, name = {where!r}.split(":")
*path, last = name.split(".")
owner = importlib.import_module(place)
for each in path:
    owner = getattr(owner, each)
function = getattr(owner, last)

def slow(*args, **kwargs):
    result = function(*args, **kwargs)
    print("on", flush=True)
    time.sleep(60)
    return result

setattr(owner, last, slow)
sys.argv[1:] = ["commit", {directory!r}, "mnist"]
main.main()
"""


@pytest.mark.parametrize(
    "where",
    [
        "mregfs.registry.write.commit:hash_files",
        "mregfs.stores.packs_dir:PacksDirectory.create",
        "mregfs.stores.packs_dir:PacksDirectory.sync",
        "mregfs.stores.objects_dir:ObjectsDirectory.create",
    ],
)
def test_ctrl_c_during_a_commit_leaves_nothing_behind(
    cli: CommandLine, tmp_path: Path, where: str
) -> None:
    """Neither a version nor bytes of one, wherever it is; and the directory can be committed."""
    directory = tmp_path / "d"
    directory.mkdir()
    (directory / "weights").write_bytes(os.urandom(3_000_000))
    (directory / "small").write_bytes(os.urandom(50_000))
    program = INTERRUPTED.format(where=where, directory=str(directory))
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "MREGFS_STORE": str(cli.store)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert "on\n" == process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)

    assert (130, "mregfs: interrupted\n") == (process.returncode, said)
    assert [] == bytes_of_versions(cli.store)
    assert {"weights", "small"} == {each.name for each in directory.iterdir()}
    cli("commit", str(directory), "mnist")
    assert bytes_of_versions(cli.store)


def bytes_of_versions(store: Path) -> list[Path]:
    """Return every file of the store that holds bytes of files, or says where they are."""
    places = ("packs", "layouts", "staging", "tmp")
    kept = {store / "tmp" / "exclusive", store / "tmp" / "reserve"}
    found = [path for name in places for path in (store / name).rglob("*") if path.is_file()]
    return [path for path in found if path not in kept]
