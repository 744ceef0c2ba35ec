"""The questions that are asked by a name: `.mregfs/query/COMMAND`.

Decided here: how a command becomes names that a directory can hold, and how it is read. Not decided
here: which questions there are (`forms`), the answers (`registry.read.answers`), who may ask (the
mount). The vfs parses; whoever looks through a mount spells.

A command is the text that the same verb of the CLI would take, split as in the control file. In a
name `%XX` stands for a byte; only `/`, `%` and NUL must be written so. A name has at most 255
bytes: one that ends in `%` is continued by the next one.
"""

import re
import shlex
from collections.abc import Iterable, Sequence

import msgspec

from mregfs.errors import InvalidError
from mregfs.model.forms import QUESTIONS
from mregfs.model.names import ProjectName, parse_project
from mregfs.model.tokenizer import Options, sort_options, split_commands

__all__ = [
    "MAX_QUERY",
    "MAX_STEP",
    "Query",
    "is_query",
    "parse_query",
    "query_text",
    "spell",
    "unspell",
]

MAX_QUERY = 32 << 10
"""Bytes of a command in names; a path in a version has up to 4095, each spelled with up to 3."""

MAX_STEP = 250
"""Bytes of one name that `spell` makes, without the `%` at its end; a name has at most 255."""

_FIRST_WORD = re.compile(rb"([a-z]+)(?:$|[ \t]|%20|%09|%$)")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})?")
_UNSAFE = re.compile(rb"[^ -$&-.0-~]")
"""All but printable ASCII, and of that `%` and `/`."""


class Query(msgspec.Struct, frozen=True):
    """One question."""

    name: str
    project: ProjectName
    """That names are in when they do not say."""
    operands: tuple[str, ...] = ()
    everywhere: bool = False
    """In all projects."""
    limit: int | None = None
    since: int | None = None
    after: str | None = None
    """Where an earlier answer ended (its `more`)."""


def is_query(name: bytes) -> bool:
    """Tell whether a first name could be that of a question: others do not exist."""
    word = _FIRST_WORD.match(name)
    return word is not None and word[1].decode() in QUESTIONS


def parse_query(text: str, project: ProjectName) -> Query:
    """Parse a question.

    Raises:
        InvalidError: it is malformed.
    """
    commands = [words for _, words in split_commands(text)]
    if len(commands) != 1:
        raise InvalidError("a query is one command", "ask one at a time")
    name, *words = commands[0]
    form = QUESTIONS.get(name)
    if form is None:
        raise InvalidError(f"{name!r} is not a query", f"ask one of: {', '.join(QUESTIONS)}")
    usage = f"usage: {form.usage}"
    try:
        options = sort_options(words, form.values | {"project"}, form.letters)
        named = options.one("project")
        query = Query(
            name,
            project if named is None else parse_project(named, project),
            tuple(options.operands),
            everywhere="all" in options.flags,
            limit=_number(options, "limit"),
            since=_number(options, "since"),
            after=options.one("after"),
        )
    except InvalidError as exc:
        raise InvalidError(exc.message, f"{exc.hint}; {usage}" if exc.hint else usage) from None
    count = len(query.operands)
    if not form.least <= count <= len(form.operands):
        how = "few" if count < form.least else "many"
        raise InvalidError(f"{name!r} has too {how} words", usage)
    return query


def _number(options: Options, name: str) -> int | None:
    said = options.one(name)
    if said is None:
        return None
    if not said.isascii() or not said.isdigit() or len(said) > 18:
        raise InvalidError(f"--{name} takes a number, not {said!r}")
    return int(said)


def query_text(name: str, operands: Iterable[str] = (), **options: str | int | bool | None) -> str:
    """Return the text of a question; options that are None or False are left out.

    A flag is called by its letter.
    """
    words = [name]
    for option, value in options.items():
        if value is True:
            words.append(f"-{option}")
        elif value is not None and value is not False:
            words.append(f"--{option}={value}")
    return shlex.join([*words, "--", *operands])


def spell(text: str) -> list[str]:
    """Return a text as names: each but the last one ends in `%`, and leads to the next.

    Raises:
        InvalidError: it is too long.
    """
    spelled = _UNSAFE.sub(lambda found: b"%%%02X" % found[0][0], text.encode()).decode()
    if len(spelled) > MAX_QUERY:
        raise InvalidError(
            f"the query takes {len(spelled)} bytes", f"use at most {MAX_QUERY}: name less"
        )
    steps = [spelled[start : start + MAX_STEP] for start in range(0, len(spelled), MAX_STEP)]
    return [f"{step}%" for step in steps[:-1]] + steps[-1:]


def unspell(names: Sequence[bytes]) -> str:
    """Return the text that names stand for; each but the last one ends in `%`.

    Raises:
        InvalidError: it is malformed or too long.
    """
    raw = b"".join(name.removesuffix(b"%") for name in names[:-1]) + b"".join(names[-1:])
    if len(raw) > MAX_QUERY:
        raise InvalidError(f"the query takes {len(raw)} bytes", f"use at most {MAX_QUERY}")
    return _decoded(raw)


def _decoded(raw: bytes) -> str:
    try:
        text = _ESCAPE.sub(_byte, raw).decode()
    except UnicodeDecodeError:
        raise InvalidError("the query is not UTF-8") from None
    if "\0" in text:
        raise InvalidError("the query holds a NUL byte")
    return text


def _byte(escape: re.Match[bytes]) -> bytes:
    if escape[1] is None:
        raise InvalidError("a '%' is followed by no hexadecimal digits", "write '%' as %25")
    return bytes((int(escape[1], 16),))
