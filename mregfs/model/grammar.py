"""The command language of the control file, which the CLI and the Python API speak as well.

Decided here: how words become a command by its form. Not decided here: which forms there are
(`forms`), what words name (`operands`), how text is split (`tokenizer`), what a command leads to
(`rules`). A refusal is an InvalidError with the usage of the command.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from mregfs.errors import InvalidError, MregfsError
from mregfs.model import operands as builders
from mregfs.model.commands import Asked
from mregfs.model.forms import AUTHOR, COMMANDS, REASON, Form, Option
from mregfs.model.metadata import parse_metadata
from mregfs.model.names import ProjectName
from mregfs.model.operands import Strip, same
from mregfs.model.rules.preconditions import check_text
from mregfs.model.tokenizer import Options, refuse_empty, sort_options, split_commands

__all__ = [
    "MAX_SCRIPT",
    "Statement",
    "at_statement",
    "author_of",
    "build",
    "parse_line",
    "parse_script",
    "parse_words",
]

MAX_SCRIPT = 1 << 20
"""Characters of one script."""

MAX_REASON = 4096
"""Characters of a reason."""

MAX_AUTHOR = 256
"""Characters of an author's name."""


class Statement(msgspec.Struct, frozen=True):
    """One command as it was written."""

    command: Asked
    reason: str = ""
    """Why; history remembers it."""
    author: str = ""
    """The author that history shows beside the user who asks."""
    line: int = 0
    """Where it stands in its script; 0 when it is alone or was never written."""
    name: str = ""
    """The command's name."""


def parse_script(text: str, project: ProjectName, strip: Strip = same) -> list[Statement]:
    """Parse commands, one a line; blank lines and comments (`#`) say nothing.

    Raises:
        InvalidError: one is malformed; with several, the message names its line.
    """
    if len(text) > MAX_SCRIPT:
        raise InvalidError(
            f"the script has {len(text)} characters", f"write at most {MAX_SCRIPT} at once"
        )
    commands = list(split_commands(text))
    statements = []
    for line, words in commands:
        place = line if len(commands) > 1 else 0
        try:
            parsed = parse_words(words, project, strip)
        except MregfsError as exc:
            raise _at(exc, place, words[0]) from None
        statements.append(msgspec.structs.replace(parsed, line=place))
    return statements


def parse_line(line: str, project: ProjectName, strip: Strip = same) -> Statement:
    """Parse one command.

    Raises:
        InvalidError: it is malformed, or there is none, or there are several.
    """
    statements = parse_script(line, project, strip)
    if len(statements) != 1:
        raise InvalidError(f"there are {len(statements)} commands", "write one")
    return statements[0]


def parse_words(words: Sequence[str], project: ProjectName, strip: Strip = same) -> Statement:
    """Parse one command that is split into words already.

    Raises:
        InvalidError: it is malformed.
    """
    if not words or words[0] not in COMMANDS:
        name = repr(words[0]) if words else "nothing"
        if words and words[0] in ("begin", "end"):
            raise InvalidError(
                f"{name} stands alone on its line: before or after all commands of .mregfs/control",
                "write `begin`, the commands, then `end`; mregfs run needs neither",
            )
        raise InvalidError(f"{name} is not a command", f"write one of: {', '.join(COMMANDS)}")
    form = COMMANDS[words[0]]
    usage = f"usage: {form.usage}"
    try:
        options = sort_options(
            words[1:],
            form.values | {REASON.name, AUTHOR.name},
            form.letters,
            minus_is_operand=form.minus_is_operand,
        )
        reason = check_text(options.one(REASON.name) or "", REASON.name, MAX_REASON)
        author = check_text(options.one(AUTHOR.name) or "", AUTHOR.name, MAX_AUTHOR)
        said = {option.key: _value(option, options) for option in form.options}
    except InvalidError as exc:
        raise InvalidError(exc.message, f"{exc.hint}; {usage}" if exc.hint else usage) from None
    count = len(options.operands)
    if count < form.least:
        raise InvalidError(f"{words[0]!r} has too few words", usage)
    if form.most is not None and count > form.most:
        raise InvalidError(f"{words[0]!r} has too many words", usage)
    command = build(form, _arguments(form, options.operands), said, project, strip)
    return Statement(command, reason, author, name=words[0])


def build(
    form: Form,
    operands: Sequence[object],
    said: Mapping[str, object],
    project: ProjectName,
    strip: Strip = same,
) -> Asked:
    """Return the command of a form.

    Args:
        form: which command.
        operands: one for each operand of the form.
        said: by what code calls the options; None is as if it were left out.
        project: that names are in when they do not say.
        strip: see `operands`.

    Raises:
        InvalidError: what is said is no command, or an option is empty.
    """
    for option in form.options:
        refuse_empty(option.name, said.get(option.key))
    keywords = {
        option.key: said[option.key]
        for option in form.options
        if not option.ignored and said.get(option.key) is not None
    }
    command: Asked = getattr(builders, form.build)(*operands, project, strip=strip, **keywords)
    return command


def _arguments(form: Form, words: Sequence[str]) -> list[object]:
    """Return one argument for each operand: a word, the words that are left, or None."""
    arguments: list[object] = []
    for position, operand in enumerate(form.operands):
        if operand.many:
            arguments.append(words[position:])
        else:
            arguments.append(words[position] if position < len(words) else None)
    return arguments


def _value(option: Option, options: Options) -> Any:
    """Return what is said by an option, or None.

    Raises:
        InvalidError: it takes no such value, or is missing.
    """
    if option.is_flag:
        return option.name in options.flags or None
    if option.many:
        return options.values.get(option.name)
    value = options.one(option.name)
    if value is None:
        if option.required:
            raise InvalidError(f"no {option.name} is named")
        return None
    if option.choices and value not in option.choices:
        raise InvalidError(
            f"--{option.name} {value!r} is not a known value",
            f"write {' or '.join(option.choices)}",
        )
    return parse_metadata(value) if option.takes == "json" else value


def author_of(statements: Sequence[Statement]) -> str:
    """Return whom the statements of one transaction name as their author; empty: nobody.

    Raises:
        InvalidError: they name several.
    """
    authors = list(dict.fromkeys(each.author for each in statements if each.author))
    if len(authors) > 1:
        raise InvalidError(
            f"one transaction has one author, not {' and '.join(map(repr, authors))}",
            "write the commands of each one at a time",
        )
    return authors[0] if authors else ""


def at_statement(error: MregfsError, statement: Statement) -> MregfsError:
    """Add to an error the line and name of the command that it is about, and return it.

    Of a command that stands alone the error stays as it is.
    """
    return _at(error, statement.line, statement.name)


def _at(error: MregfsError, line: int, name: str) -> MregfsError:
    if not line:
        return error
    error.message = f"line {line} ({name}): {error.message}"
    return error
