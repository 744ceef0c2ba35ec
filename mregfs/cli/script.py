"""The verb `run`: many commands as one transaction.

Decided here: which way a script goes, and whom its author is. Not decided here: what a line means
(`model.grammar`); a line is as the control file takes it, so paths are from the top of a mount.
"""

import shlex
import sys
from typing import Any

from mregfs.cli.arguments import declared
from mregfs.cli.change import say
from mregfs.cli.output import print_json
from mregfs.cli.session import Session, author, check_unicode, not_a_writer, read_text
from mregfs.cli.verbs import VERBS
from mregfs.errors import InvalidError, NotFoundError
from mregfs.model.forms import AUTHOR, Form, Operand

__all__ = ["run"]

_RUN = Form(
    "run",
    VERBS["run"].summary,
    (Operand("source", "path", "FILE|-"),),
    (),
    "The lines are those of .mregfs/control of a mount; - is standard input. All of them happen, "
    "in one entry of the log, or none. Paths are from the top of the mount.",
    ("run changes.txt",),
)


@declared(_RUN)
def run(session: Session, source: str) -> None:
    """Carry out the commands of a file."""
    results = _run(session, _read(source))
    session.done = True
    if session.as_json:
        print_json(results)
    else:
        for result in results:
            say(session, result)


def _read(source: str) -> str:
    """Return the text of a script.

    Raises:
        InvalidError: it is no text, or too long.
        NotFoundError: there is no such file.
    """
    from mregfs.model.grammar import MAX_SCRIPT

    try:
        if source == "-":
            text = read_text(sys.stdin, MAX_SCRIPT, "the script")
        else:
            with open(source, encoding="utf-8") as file:
                text = read_text(file, MAX_SCRIPT, "the script")
    except FileNotFoundError:
        raise NotFoundError(f"there is no file {source!r}", "write FILE, or - for input") from None
    except UnicodeDecodeError:
        raise InvalidError(f"{source!r} is not UTF-8", "write commands into it") from None
    check_unicode(text)
    return text


def _run(session: Session, text: str) -> list[dict[str, Any]]:
    """Carry the script out by a mount of its project, else in the store."""
    from mregfs.cli.control import MountGoneError, transact

    place = session.place
    mount = place.writable_mount()
    if mount is not None and place.project_of(mount) == place.project:
        try:
            return transact(mount, _with_author(text))
        except MountGoneError as exc:
            if isinstance(exc.__cause__, PermissionError) and not session.owns_store:
                raise not_a_writer(mount.point) from exc
    return session.writing.run(text)


def _with_author(text: str) -> str:
    """Return a script that says its author, if no line does; commands keep their line numbers."""
    from mregfs.model.tokenizer import split_commands

    option, who = f"--{AUTHOR.name}", author()
    commands = list(split_commands(text))
    words_of_all = [word for _, words in commands for word in words]
    if any(word == option or word.startswith(f"{option}=") for word in words_of_all):
        who = ""
    script = ""
    for position, (line, words) in enumerate(commands):
        if who and position == 0:
            words[1:1] = [f"{option}={who}"]
        script += "\n" * (line - 1 - script.count("\n")) + shlex.join(words) + "\n"
    return script
