"""`watch` and `wait`: what they print, what they run, how they end."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mregfs.api import Registry
from tests.cli.conftest import CommandLine, run_module


@contextmanager
def following(*words: str | Path) -> Iterator[subprocess.Popen[str]]:
    """Run a verb that follows the log, in a process of its own."""
    process = subprocess.Popen(
        run_module(*words),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.fixture
def registry(promoted: CommandLine) -> Iterator[Registry]:
    """Another process's view, as it were, of the store that is followed."""
    with Registry(promoted.store, author="mover") as opened:
        yield opened


def test_watch_prints_one_line_for_each_entry(registry: Registry) -> None:
    with following("watch", "--since", "1") as watch:
        seen = [json.loads(line_of(watch)) for _ in range(2)]
        registry.tag("mnist", add=["live"], reason="shipped")
        seen.append(json.loads(line_of(watch)))

    assert [2, 3, 4] == [event["sequence"] for event in seen]
    assert {"sequence", "at", "host", "transaction", "changes"} == seen[2].keys()
    (change,) = seen[2]["changes"]
    assert ("mover", "shipped", "tagged") == (change["author"], change["reason"], change["change"])


def test_watch_runs_a_command_on_each_entry(registry: Registry, tmp_path: Path) -> None:
    out = tmp_path / "out"
    os.mkfifo(out)
    command = f'(cat; echo "$MREGFS_EVENT"; echo "number $MREGFS_SEQUENCE") > {out}'

    with following("watch", "--since", "2", "--exec", command):
        first, second, third = out.read_text().splitlines()

    assert first == second
    assert 3 == json.loads(first)["sequence"]
    assert "number 3" == third


def test_a_command_that_fails_does_not_end_watch(registry: Registry) -> None:
    command = 'echo "$MREGFS_SEQUENCE"; exit 7'
    with following("watch", "--since", "0", "--exec", command) as watch:
        seen = [line_of(watch).strip() for _ in range(3)]
        assert watch.stderr is not None
        said = watch.stderr.readline()

    assert ["1", "2", "3"] == seen
    assert "mregfs: the command failed (7) for log entry 1: going on\n" == said


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, "mregfs: interrupted\n"), (signal.SIGTERM, 143, "")],
)
def test_signals_end_watch_and_its_command(
    promoted: CommandLine, number: int, code: int, said: str
) -> None:
    command = 'echo "$$"; exec sleep 100'
    with following("watch", "--since", "0", "--exec", command) as watch:
        child = int(line_of(watch))
        watch.send_signal(number)
        _, error = watch.communicate(timeout=20)

    assert (code, said) == (watch.returncode, error)
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_watch_ends_when_nobody_reads_any_more(registry: Registry) -> None:
    with following("watch", "--since", "0") as watch:
        line_of(watch)
        assert watch.stdout is not None
        watch.stdout.close()
        registry.tag("mnist", add=["live"])
        assert 141 == watch.wait(20)
        assert watch.stderr is not None
        assert "" == watch.stderr.read()
        watch.stdout = None


def test_wait_prints_what_it_waited_for(registry: Registry) -> None:
    words = ("wait", "classifier:production", "--changed-from", "mnist:v1", "--timeout", "30")
    with following(*words) as wait:
        assert wait.poll() is None
        registry.link("mnist:v0", "classifier:production")
        out, _ = wait.communicate(timeout=20)

    assert (0, "default/default/mnist:v0\n") == (wait.returncode, out)


INTERRUPTED = """
import os, signal, sys, time
from mregfs.cli.main import main
sleep = time.sleep
time.sleep = lambda seconds: (os.kill(os.getpid(), signal.SIGINT), sleep(seconds))
sys.argv[1:] = ["wait", "mnist:never"]
main()
"""
"""Presses Ctrl-C when there is nothing to do but to wait."""


def test_ctrl_c_ends_wait(promoted: CommandLine) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False, timeout=60
    )

    assert (130, "", "mregfs: interrupted\n") == (done.returncode, done.stdout, done.stderr)
