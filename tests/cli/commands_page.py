"""Writes `mregfs/manual/commands.md`: every verb, and every command of the control file.

Nothing is said here: it is read off the forms (`mregfs.model.forms`), and off click for the verbs
that have none.
"""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import click

import mregfs
from mregfs.cli.main import group
from mregfs.cli.verbs import SECTIONS
from mregfs.model.forms import AUTHOR, COMMANDS, QUESTIONS, REASON

PAGE = Path(mregfs.__file__).parent / "manual/commands.md"

_HEAD = """\
# Commands

All verbs of `mregfs`, and the commands of `.mregfs/control`. This page is made of the same table as
`mregfs VERB --help` and `cat .mregfs/control` (`mregfs/model/forms.py`); after a change, write it
anew with `pytest tests/cli/test_commands_page.py --write-commands`.

A name is a [reference](references.md) or a path below a mount. Every verb takes `--help`; most take
`--store`, `--mount`, `--project` and `--json`.
"""
_RANGE = re.compile(r" *\[[^\]]*[<>]=[^\]]*\]$")
"""What click says of the numbers that an option takes."""
_EVERYWHERE = {"store", "mount", "project", "as_json", "help"}


def page() -> str:
    """Return the page."""
    context = group.make_context("mregfs", ["ls"])
    parts = [_HEAD]
    for title, verbs in SECTIONS.items():
        parts.append(f"## {title}\n")
        for name in verbs:
            command = group.get_command(context, name)
            assert command is not None
            for words, each in _verbs(name, command):
                parts += _verb(words, each)
    parts.append("## The control file\n")
    parts.append(
        "One command a line; the lines of one write are one transaction "
        "([transactions](transactions.md)).\n"
    )
    parts.append("| command | | Python |\n|---|---|---|")
    parts += [
        f"| `{_cell(form.usage)}` | {form.summary} | {_python(form.method)} |".replace("  |", " |")
        for form in COMMANDS.values()
    ]
    parts.append(
        f"\nEvery one that history remembers takes `--{REASON.name} {REASON.value}` and "
        f"`--{AUTHOR.name} {AUTHOR.value}`.\n"
    )
    parts.append("## Questions\n")
    parts.append("Asked by opening a name below `.mregfs/query`; the answer is JSON.\n")
    parts.append("| question | |\n|---|---|")
    parts += [f"| `{_cell(form.usage)}` | {form.summary} |" for form in QUESTIONS.values()]
    return "\n".join(parts).rstrip() + "\n"


def _verbs(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for below, each in command.commands.items():
            yield from _verbs(f"{name} {below}", each)
    else:
        yield name, command


def _verb(name: str, command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name=name)
    words = " ".join(command.collect_usage_pieces(context)[1:])
    yield f"### {name}\n"
    yield f"`mregfs {name}{f' {words}' if words else ''}`\n"
    text, *examples = inspect.cleandoc(command.help or "").split("\b\n")
    yield f"{text.strip()}\n"
    for example in examples:
        block, _, rest = example.partition("\n\n")
        yield f"```text\n{block.strip()}\n```\n"
        if rest.strip():
            yield f"{rest.strip()}\n"
    records = [
        option.get_help_record(context)
        for option in command.params
        if isinstance(option, click.Option) and option.name not in _EVERYWHERE
    ]
    rows = [
        f"| `{_cell(record[0])}` | {_cell(_RANGE.sub('', record[1]))} |"
        for record in records
        if record
    ]
    if rows:
        yield "\n".join(("| option | |", "|---|---|", *rows)) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _python(method: str) -> str:
    return f"`Registry.{method}`" if method else ""
