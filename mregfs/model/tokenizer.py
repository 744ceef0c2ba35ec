"""Text into words and options, as a POSIX shell and its tools would take them.

Decided here: quoting, comments, where a command ends, the forms of options. Not decided here: which
commands and options there are (`grammar`).

Quotes and backslashes mean what they mean to a shell; `$`, `*`, `;` and `|` mean nothing. A command
ends with its line; a quoted line break belongs to the word. `#` begins a comment where a word could
begin.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from mregfs.errors import InvalidError

__all__ = ["Options", "refuse_empty", "sort_options", "split_commands"]

_PIECE = re.compile(
    r"""(?P<space>(?:[ \t\r]|\\\n)+)
    |(?P<end>\n)
    |(?P<plain>[^ \t\r\n\\'"]+)
    |'(?P<single>[^']*)'
    |"(?P<double>[^"\\]*(?:\\.[^"\\]*)*)"
    |\\(?P<escaped>.)
    """,
    re.DOTALL | re.VERBOSE,
)
_ESCAPE_IN_QUOTES = re.compile(r'\\(?:\n|([$`"\\]))')


def split_commands(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the words of each command, and the number of the line on which it begins.

    Raises:
        InvalidError: a quote is never closed, or nothing follows a backslash.
    """
    words: list[str] = []
    word: str | None = None
    line = first = 1
    position = 0
    while position < len(text):
        if word is None and text[position] == "#":
            position = text.find("\n", position)
            if position < 0:
                break
        match = _PIECE.match(text, position)
        if match is None:
            what = "nothing follows a backslash"
            if text[position] != "\\":
                what = f"the quote {text[position]} is never closed"
            raise InvalidError(f"line {line}: {what}", "quote as in a shell")
        position = match.end()
        kind = match.lastgroup
        if kind not in ("space", "end"):
            if word is None and not words:
                first = line
            word = (word or "") + _unquoted(kind, match)
        elif word is not None:
            words.append(word)
            word = None
        line += match[0].count("\n")
        if kind == "end" and words:
            yield first, words
            words = []
    if word is not None:
        words.append(word)
    if words:
        yield first, words


def _unquoted(kind: str | None, match: re.Match[str]) -> str:
    if kind == "double":
        return _ESCAPE_IN_QUOTES.sub(lambda escape: escape[1] or "", match["double"])
    text: str = match[kind or 0]
    return text


def refuse_empty(option: str, value: object) -> None:
    """Pass what is said by an option, unless it is an empty text.

    A shell passes one for a variable that is not set: `--expect "$OLD"` would expect nothing.

    Raises:
        InvalidError: it is empty.
    """
    if value == "":
        raise InvalidError(
            f"--{option} is empty (is a variable not set?)", "give it a value, or leave it out"
        )


class Options(msgspec.Struct, frozen=True):
    """The words after a command's name, sorted."""

    operands: list[str]
    values: dict[str, list[str]]
    """By option, in the order given."""
    flags: frozenset[str]

    def one(self, option: str) -> str | None:
        """Return the value of an option that can be given once; None when it was not.

        Raises:
            InvalidError: it was given more often.
        """
        values = self.values.get(option, [])
        if len(values) > 1:
            raise InvalidError(f"--{option} is given twice", "give it once")
        return values[0] if values else None


def sort_options(
    words: Sequence[str],
    values: frozenset[str],
    letters: Mapping[str, str],
    *,
    minus_is_operand: bool = False,
) -> Options:
    """Tell options from operands; options may stand anywhere, and end at `--`.

    Args:
        words: what follows the command's name.
        values: long options that take a value, `--option VALUE` or `--option=VALUE`.
        letters: flags, by letter (`-f`, `-sf`); what they are called (`--force`).
        minus_is_operand: `-word` is an operand, not letters.

    Raises:
        InvalidError: there is no such option, or its value is missing, empty, or not wanted.
    """
    operands: list[str] = []
    given: dict[str, list[str]] = {}
    flags: set[str] = set()
    rest = iter(words)
    for word in rest:
        if word == "--":
            operands += rest
        elif word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            if name in values:
                found = value if equals else next(rest, None)
                if found is None:
                    raise InvalidError(f"--{name} needs a value")
                refuse_empty(name, found)
                given.setdefault(name, []).append(found)
            elif name in letters.values() and not equals:
                flags.add(name)
            else:
                raise InvalidError(f"there is no option {word!r}")
        elif word.startswith("-") and len(word) > 1 and not minus_is_operand:
            for letter in word[1:]:
                if letter not in letters:
                    raise InvalidError(
                        f"there is no option -{letter}", "write -- before words that begin with -"
                    )
                flags.add(letters[letter])
        else:
            operands.append(word)
    return Options(operands, given, frozenset(flags))
