"""The control file from the command line's side: replies, and mounts that do not reply."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from mregfs import errors
from mregfs.cli import control
from mregfs.cli.control import MountGoneError, transact
from mregfs.cli.place import Mount
from mregfs.cli.session import Session, command_line, line_of
from mregfs.model.forms import COMMANDS
from mregfs.model.grammar import parse_line
from mregfs.model.names import DEFAULT_PROJECT
from tests.cli.conftest import CommandLine

MOUNT = Mount("/models", "/srv/store")


def reply_of(error: errors.MregfsError) -> bytes:
    """Return what the daemon replies with (`vfs.control`)."""
    return msgspec.json.encode(
        {
            "ok": False,
            "error": type(error).__name__,
            "errno": error.errno,
            "exit_code": error.exit_code,
            "message": error.message,
            "hint": error.hint,
        }
    )


class TestReplies:
    def test_results(self) -> None:
        reply = b'{"ok":true,"sequence":7,"results":[{"version":"v1"}]}\n'

        assert [{"version": "v1"}] == control._results(reply, MOUNT)

    @pytest.mark.parametrize(
        "error",
        [
            *(
                getattr(errors, name)("what", "what to do")
                for name in errors.__all__
                if name not in ("MregfsError", "HostError")
            ),
            errors.HostError(errno.EDQUOT, "what", "what to do"),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_every_error_arrives_as_it_was(self, error: errors.MregfsError) -> None:
        with pytest.raises(type(error)) as caught:
            control._results(reply_of(error), MOUNT)

        assert (str(error), error.errno, error.exit_code) == (
            str(caught.value),
            caught.value.errno,
            caught.value.exit_code,
        )

    @pytest.mark.parametrize("reply", [b"", b"\0", b'{"ok": false, "error": "SystemExit"}'])
    def test_anything_else_is_a_mount_that_does_not_work(self, reply: bytes) -> None:
        with pytest.raises(errors.UnavailableError):
            control._results(reply, MOUNT)


def test_without_a_control_file_nothing_was_asked(tmp_path: Path) -> None:
    with pytest.raises(MountGoneError, match="No such file"):
        transact(Mount(str(tmp_path), "/srv/store"), "mkdir collections/a\n")


def test_what_does_not_fit_into_one_write_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidError, match="put more into a file"):
        transact(Mount(str(tmp_path), "/srv/store"), "x" * (control.MAX_WRITE + 1))


HUNG = """
import os, signal, sys, threading
from mregfs.cli import place
from mregfs.cli.main import main
point, store, *sys.argv[1:] = sys.argv[1:]
place.read_mounts = lambda: [place.Mount(point, store, owner=os.geteuid())]
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
main()
"""


def test_ctrl_c_leaves_a_mount_that_does_not_answer(cli: CommandLine, tmp_path: Path) -> None:
    """A FIFO takes the command, gives it back, and then nothing more, as a mount that hangs.

    What was asked may still be done, and the line says so.
    """
    (tmp_path / "point" / ".mregfs").mkdir(parents=True)
    (tmp_path / "point" / ".mregfs" / "status").write_text("{}")
    os.mkfifo(tmp_path / "point" / ".mregfs" / "control")

    done = subprocess.run(
        [sys.executable, "-c", HUNG, tmp_path / "point", cli.store, "mkdir", "collections/a"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert (130, 1) == (done.returncode, done.stderr.count("\n"))
    assert done.stderr.startswith("mregfs: interrupted: the daemon of the mount ")
    assert "gives a commit up if it still can" in done.stderr
    assert "mregfs history" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["plain"],
        ["with space", "quo'te", 'dou"ble', "back\\slash", "$HOME", "`x`", "a\nb", "", "#", "*"],
        ["--looks-like", "-an", "option", "--"],
        ["\u00fcml\u00e4ut", "\U0001f600", "\u202e"],
    ],
)
def test_lines_say_to_the_grammar_what_was_meant(words: list[str]) -> None:
    for word in words:
        line = command_line("describe", ["mnist:v1", word], {"reason": f"because {word}"}, "")

        statement = parse_line(line, DEFAULT_PROJECT)

        assert (word, f"because {word}") == (statement.command.description, statement.reason)


def test_a_project_is_named_with_its_entity(cli: CommandLine) -> None:
    """`access vision` means the entity of one's own project, whatever project the mount is of."""
    form = COMMANDS["access"]
    session = Session(str(cli.store), None, "team/x", as_json=False)
    located = session.located(form, {"of": "vision", "readers": "ml"})

    assert {"of": "team/vision", "readers": "ml"} == located
    assert located == session.for_mount(form, located, MOUNT)
    assert "access --readers ml --author tester -- team/vision\n" == line_of(form, located)
