"""The command as a program: help, error lines, exit codes, closed pipes, laziness."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from mregfs import errors
from mregfs.cli import main as main_module
from mregfs.cli.main import group, run
from mregfs.cli.verbs import VERBS
from tests.cli.conftest import CommandLine, run_module


def mregfs(
    *arguments: str, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, away from any mount and store of this host."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MREGFS_")}
    return subprocess.run(
        [sys.executable, "-m", "mregfs", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=clean | {"XDG_DATA_HOME": "/nonexistent"} | environment,
    )


class TestHelp:
    def test_lists_every_verb_and_imports_none(self) -> None:
        code = (
            "import sys; from mregfs.cli.main import run; run(['--help'])\n"
            "print(sorted(m for m in sys.modules if m.startswith(('mregfs.', 'msgspec'))))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )

        assert all(f"\n  {name} " in done.stdout for name in VERBS)
        assert (
            "['mregfs.cli', 'mregfs.cli.main', 'mregfs.cli.streams', 'mregfs.cli.verbs', "
            "'mregfs.errors', 'mregfs.model', 'mregfs.model.forms', 'mregfs.model.paths']"
            == done.stdout.splitlines()[-1]
        )

    @pytest.mark.parametrize("name", VERBS)
    def test_every_verb_says_in_its_help_what_the_table_says(self, name: str) -> None:
        command = group.get_command(group.make_context("mregfs", [name]), name)

        assert command is not None
        assert command.help is not None
        assert VERBS[name].summary == command.help.split("\n")[0].removesuffix("\x08")

    @pytest.mark.parametrize("name", VERBS)
    def test_every_verb_has_help(self, name: str) -> None:
        answer = CliRunner().invoke(group, [name, "--help"])

        assert 0 == answer.exit_code
        assert f"Usage: mregfs {name}" in answer.output.replace("group", "mregfs")

    @pytest.mark.parametrize(
        ("name", "usage"),
        [
            ("ls", "[REF] [PATH]"),
            ("tree", "[REF]"),
            ("du", "[REF]"),
            ("pin", "[REF]"),
            ("umount", "[MOUNTPOINT]"),
            ("show", "REF"),
        ],
    )
    def test_usage_tells_what_may_be_left_out(self, name: str, usage: str) -> None:
        answer = CliRunner().invoke(group, [name, "--help"])

        assert f"{name} [OPTIONS] {usage}\n" in answer.output

    def test_without_a_verb_it_is_shown_as_a_usage_error(self) -> None:
        done = mregfs()

        assert (2, "") == (done.returncode, done.stdout)
        assert "Usage: mregfs" in done.stderr

    def test_version(self) -> None:
        import mregfs as package

        done = mregfs("--version")

        assert (0, f"mregfs {package.__version__}\n") == (done.returncode, done.stdout)


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["lst"], "there is no verb 'lst'; did you mean 'ls'?"),
            (["frobnicate"], "there is no verb 'frobnicate': see mregfs --help"),
            (["ls", "--nonsense"], "No such option '--nonsense'"),
            (["show"], "Missing argument 'REF'"),
            (["wait", "x", "--timeout", "soon"], "'soon' is not a valid float"),
            (["completion", "csh"], "'csh' is not one of 'bash', 'zsh', 'fish'"),
            (["mount", "a", "b", "c"], "mount takes a store and a mount point"),
        ],
    )
    def test_usage(self, arguments: list[str], says: str) -> None:
        done = mregfs(*arguments)

        assert (2, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n"))
        assert done.stderr.startswith("mregfs: ")
        assert says in done.stderr

    @pytest.mark.parametrize(
        "kind",
        [
            getattr(errors, name)
            for name in errors.__all__
            if name not in ("MregfsError", "HostError")
        ],
    )
    def test_every_error_is_one_line_with_its_exit_code(
        self,
        kind: type[errors.MregfsError],
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        def fail(_arguments: object) -> int:
            raise kind("what\nis wrong", "what to do")

        monkeypatch.setattr(main_module, "_run", fail)

        assert kind.exit_code == run([])
        assert "mregfs: what is wrong: what to do\n" == capsys.readouterr().err

    def test_what_nobody_expected_is_one_line_too(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def fail(_arguments: object) -> int:
            raise ZeroDivisionError("oops")

        monkeypatch.setattr(main_module, "_run", fail)
        monkeypatch.delenv("MREGFS_DEBUG", raising=False)

        assert 70 == run([])
        line = "mregfs: internal error (ZeroDivisionError: oops); run with MREGFS_DEBUG=1 for"
        assert f"{line} the traceback\n" == capsys.readouterr().err

        monkeypatch.setenv("MREGFS_DEBUG", "1")

        assert 70 == run([])
        assert "Traceback" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("error", "code", "says"),
        [
            (PermissionError(13, "Permission denied", "/srv/store"), 7, "Permission denied"),
            (NotADirectoryError(20, "Not a directory", "/srv/store"), 14, "Not a directory"),
        ],
    )
    def test_the_hosts_refusal_names_the_file(
        self,
        error: OSError,
        code: int,
        says: str,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """What it refuses to this user alone ends as what a rule forbids."""

        def fail(_arguments: object) -> int:
            raise error

        monkeypatch.setattr(main_module, "_run", fail)

        assert code == run([])
        assert f"mregfs: /srv/store: {says}\n" == capsys.readouterr().err

    @pytest.mark.parametrize(("number", "code"), [(1, 7), (13, 7), (28, 14)])
    def test_what_the_host_forbids_is_forbidden(self, number: int, code: int) -> None:
        assert code == errors.HostError(number, "refused").exit_code


class TestStreams:
    def test_a_closed_pipe_is_no_ones_business(self) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing, "w") as closed:
            done = subprocess.run(
                [sys.executable, "-m", "mregfs", "completion", "bash"],
                stdout=closed,
                stderr=subprocess.PIPE,
                check=False,
            )

        assert (141, b"") == (done.returncode, done.stderr)

    @pytest.mark.parametrize(
        ("words", "outcome"),
        [
            ("completion bash", "write it elsewhere"),
            ("ls", "write it elsewhere"),
            ("tag --help", "write it elsewhere"),
            ("tag mnist +tagged", "what was asked is done"),
            ("commit DIR new", "what was asked is done"),
            ("commit DIR new --json", "what was asked is done"),
            ("export mnist out", "what was asked is done"),
            ("init other", "what was asked is done"),
        ],
    )
    def test_a_full_disk_is_said(
        self, promoted: CommandLine, model: Callable[..., Path], words: str, outcome: str
    ) -> None:
        """Standard output on a full disk: the line tells whether anything was changed."""
        directory = str(model("made"))
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                run_module(*(directory if word == "DIR" else word for word in words.split())),
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )

        line = f"standard output could not be written (No space left on device): {outcome}"
        assert (14, f"mregfs: {line}\n") == (done.returncode, done.stderr)

    def test_a_full_disk_is_said_of_much_output(self, promoted: CommandLine) -> None:
        """More than what is kept back fails at the write, and leaves nothing to flush."""
        promoted("describe", "mnist", "x" * 60_000)
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                run_module("show", "mnist"), stdout=full, stderr=subprocess.PIPE, check=False
            )

        assert (14, True) == (done.returncode, b"standard output" in done.stderr)

    @pytest.mark.parametrize(
        ("closed", "words", "code"),
        [
            (">&-", "ls", 0),
            (">&-", "show nothing", 3),
            ("2>&-", "show nothing", 3),
            ("2>&-", "reindex", 0),
            ("<&-", "init STORE2", 0),
            ("<&- >&- 2>&-", "ls", 0),
            ("<&- >&- 2>&-", "init STORE2", 0),
            ("<&- >&- 2>&-", "show nothing", 3),
            ("<&- >&- 2>&-", "reindex", 0),
        ],
    )
    def test_closed_streams_are_as_dev_null(
        self, cli: CommandLine, closed: str, words: str, code: int
    ) -> None:
        """What stands at 0, 1 and 2 is not what was opened next, a file of the store."""
        program = [sys.executable, "-m", "mregfs", *words.replace("STORE", str(cli.store)).split()]
        command = ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", *program]
        done = subprocess.run(command, capture_output=True, check=False)

        assert code == done.returncode

    def test_json_is_one_line_for_a_program(self) -> None:
        done = mregfs("completion", "bash", "--json")

        assert 1 == done.stdout.count("\n")
        assert {"shell", "script"} == set(json.loads(done.stdout))


class TestBytes:
    """Arguments that are no UTF-8: paths may be, and are shown readably; text may not."""

    @pytest.mark.parametrize(
        "words",
        [
            ("describe", "z", "\udcff"),
            ("set", "z", "k=\udcff"),
            ("tag", "z", "+a", "--reason", "\udcff"),
            ("show", "\udcff"),
            ("ln", "\udcff", "z"),
            ("ls", "--project", "\udcff"),
            ("commit", ".", "z", "--description", "\udcff"),
        ],
    )
    def test_text_is_refused(self, cli: CommandLine, words: tuple[str, ...]) -> None:
        code, said = cli.fail(*words)

        assert (5, True) == (code, "\\xff' is not UTF-8: " in said)
        assert "udcff" not in said

    def test_paths_are_taken_and_shown(self, tmp_path: Path) -> None:
        store = f"{tmp_path}/\udcff"

        made = mregfs_bytes("init", store)
        assert (0, b"") == (made.returncode, made.stderr)
        assert b"/\xff\n" in made.stdout
        again = mregfs_bytes("init", store)
        assert (4, b"") == (again.returncode, again.stdout)
        assert b"/\\xff" in again.stderr
        told = mregfs_bytes("init", store + "2", "--json")
        assert (0, b"") == (told.returncode, told.stderr)
        assert json.loads(told.stdout)["store"].endswith("/\\xff2")

    def test_streams_that_cannot_say_it(self, cli: CommandLine) -> None:
        cli("mkdir", "artifacts/z", "--description", "\u2713")

        done = mregfs_bytes("tree", MREGFS_STORE=str(cli.store), PYTHONIOENCODING="latin-1")

        assert (0, b"") == (done.returncode, done.stderr)
        assert b"\\u2514" in done.stdout


def mregfs_bytes(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """As `mregfs`, with what it wrote as bytes."""
    return subprocess.run(
        [sys.executable, "-m", "mregfs", *arguments],
        capture_output=True,
        check=False,
        env={**os.environ, "XDG_DATA_HOME": "/nonexistent", **environment},
    )


def test_ctrl_c_is_one_line_and_130() -> None:
    code = (
        "import sys, time, mregfs.cli.main as m\n"
        "def wait(_): print('on', flush=True); time.sleep(60)\n"
        "m._run = wait\n"
        "sys.exit(m.run([]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)

    assert (130, "mregfs: interrupted\n") == (process.returncode, said)


@pytest.mark.parametrize("module", ["mregfs.cli.main", "mregfs.cli.verbs", "click"])
@pytest.mark.parametrize("how", ["runpy.run_module('mregfs', run_name='__main__')", "script()"])
def test_ctrl_c_while_importing_is_one_line_and_130(module: str, how: str) -> None:
    """The first tenth of a second is no exception; also for the console script."""
    code = (
        "import importlib.metadata, runpy, sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *more):\n"
        f"        if name == {module!r}: raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "def script():\n"
        "    scripts = importlib.metadata.entry_points(group='console_scripts')\n"
        "    scripts['mregfs'].load()()\n" + how
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (130, "", "mregfs: interrupted\n") == (done.returncode, done.stdout, done.stderr)


def test_the_page_lists_every_exit_code() -> None:
    """The manual names each class of errors at its exit code."""
    page = (Path(main_module.__file__).parents[1] / "manual/command-line.md").read_text()
    rows = dict(re.findall(r"^\| (\d+) \| (.*) \|$", page, re.MULTILINE))
    codes = {getattr(errors, name).exit_code: name for name in errors.__all__}

    for code, name in codes.items():
        if name != "MregfsError":
            assert rows[str(code)].startswith(name)
    others = {main_module.EXIT_USAGE, main_module.EXIT_INTERNAL, main_module.EXIT_INTERRUPTED}
    assert {"0", "141", *map(str, others)} <= rows.keys()


def test_no_message_names_a_verb_that_is_not_there() -> None:
    sources = Path(main_module.__file__).parents[1].rglob("*.py")
    named = {
        verb
        for source in sources
        for verb in re.findall(r"(?:: |\()mregfs ([a-z]+)[ ){\"]", source.read_text())
    }

    assert {"umount", "mount", "ls"} <= named
    assert named <= VERBS.keys()
