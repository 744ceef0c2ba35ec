"""The command language of the control file, which the CLI and the Python API speak as well.

Decided here: which commands there are, their words, options and help. Not decided here: what words
name (`operands`), how text is split (`tokenizer`), what a command leads to (`rules`). A refusal is
an InvalidError with the usage of the command.
"""

from collections.abc import Callable, Sequence

import msgspec

from mregfs.errors import InvalidError, MregfsError
from mregfs.model.commands import (
    Asked,
    Command,
    CommitRequest,
    Describe,
    GiveDraft,
    Protect,
    SetAccess,
    SetMetadata,
    Tag,
    Unprotect,
)
from mregfs.model.metadata import parse_metadata, parse_value
from mregfs.model.names import ProjectName, parse_project
from mregfs.model.operands import (
    Strip,
    commit_request,
    create_command,
    give_request,
    link_command,
    locate,
    move_command,
    remove_command,
    remove_owner_command,
    rollback_command,
    same,
)
from mregfs.model.reference import Location
from mregfs.model.rules.access import NOBODY
from mregfs.model.rules.preconditions import check_text
from mregfs.model.tokenizer import Options, sort_options, split_commands

__all__ = [
    "COMMANDS",
    "CommandForm",
    "Statement",
    "at_statement",
    "author_of",
    "commit_request",
    "create_command",
    "link_command",
    "locate",
    "move_command",
    "parse_line",
    "parse_script",
    "parse_words",
    "remove_command",
    "remove_owner_command",
    "rollback_command",
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
    """Whom history is to name beside the user who asks."""
    line: int = 0
    """Where it stands in its script; 0 when it is alone or was never written."""
    name: str = ""
    """The command's name."""


class _Words(msgspec.Struct, frozen=True):
    """What a form builds a command of."""

    options: Options
    project: ProjectName
    strip: Strip

    @property
    def operands(self) -> list[str]:
        return self.options.operands

    def locate(self, position: int = 0) -> Location:
        return locate(self.operands[position], self.project, self.strip)


class CommandForm(msgspec.Struct, frozen=True):
    """How one command is written."""

    usage: str
    help: str
    """One line."""
    build: Callable[[_Words], Asked]
    least: int
    """How many operands it has at least."""
    most: int | None
    """How many at most; None: any number."""
    values: frozenset[str] = frozenset()
    """Options that take a value; `--reason` and `--author` always do."""
    letters: dict[str, str] = {}
    """Flags, by letter."""
    minus_is_operand: bool = False


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
        raise InvalidError(f"{name} is not a command", f"write one of: {', '.join(COMMANDS)}")
    form = COMMANDS[words[0]]
    usage = f"usage: {form.usage}"
    try:
        options = sort_options(
            words[1:],
            form.values | {"reason", "author"},
            form.letters,
            minus_is_operand=form.minus_is_operand,
        )
        reason = check_text(options.one("reason") or "", "reason", MAX_REASON)
        author = check_text(options.one("author") or "", "author", MAX_AUTHOR)
    except InvalidError as exc:
        raise InvalidError(exc.message, f"{exc.hint}; {usage}" if exc.hint else usage) from None
    count = len(options.operands)
    if count < form.least:
        raise InvalidError(f"{words[0]!r} has too few words", usage)
    if form.most is not None and count > form.most:
        raise InvalidError(f"{words[0]!r} has too many words", usage)
    return Statement(form.build(_Words(options, project, strip)), reason, author, name=words[0])


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


# ---- the commands


def _commit(words: _Words) -> CommitRequest:
    options = words.options
    metadata = options.one("metadata")
    return commit_request(
        words.operands[0],
        words.operands[1],
        words.project,
        aliases=options.values.get("alias", ()),
        type=options.one("type"),
        metadata=None if metadata is None else parse_metadata(metadata),
        description=options.one("description") or "",
        tags=options.values.get("tag", ()),
        run=options.one("run") or "",
        parents=options.values.get("parent", ()),
        link=options.one("link"),
        strip=words.strip,
    )


def _ln(words: _Words) -> Command:
    source, target = words.operands
    expect = words.options.one("expect")
    return link_command(source, target, words.project, expect=expect, strip=words.strip)


def _rm(words: _Words) -> Command:
    return remove_command(
        words.operands[0],
        words.project,
        force="force" in words.options.flags,
        expect=words.options.one("expect"),
        strip=words.strip,
    )


def _mv(words: _Words) -> Command | CommitRequest:
    source, target = words.operands
    return move_command(source, target, words.project, strip=words.strip)


def _mkdir(words: _Words) -> Command:
    return create_command(
        words.operands[0],
        words.project,
        type=words.options.one("type"),
        description=words.options.one("description") or "",
        strip=words.strip,
    )


def _rmdir(words: _Words) -> Command:
    return remove_owner_command(words.operands[0], words.project, strip=words.strip)


def _tag(words: _Words) -> Command:
    tags = words.operands[1:]
    return Tag(
        words.locate(),
        add=tuple(tag.removeprefix("+") for tag in tags if not tag.startswith("-")),
        remove=tuple(tag[1:] for tag in tags if tag.startswith("-")),
    )


def _describe(words: _Words) -> Command:
    return Describe(words.locate(), words.operands[1])


def _set(words: _Words) -> Command:
    values = {}
    remove = []
    for word in words.operands[1:]:
        key, equals, text = word.partition("=")
        if equals:
            values[key] = parse_value(text)
        elif word.endswith("-"):
            remove.append(word[:-1])
        else:
            raise InvalidError(f"{word!r} sets nothing", "write KEY=JSON, or KEY- to remove it")
    return SetMetadata(words.locate(), values, tuple(remove))


def _protect(words: _Words) -> Command:
    group = words.options.one("group")
    if group is None:
        raise InvalidError("no group is named", f"usage: {COMMANDS['protect'].usage}")
    return Protect(words.locate(), group)


def _unprotect(words: _Words) -> Command:
    return Unprotect(words.locate())


def _give(words: _Words) -> GiveDraft:
    draft, user = words.operands
    return give_request(draft, user, words.project, words.strip)


def _access(words: _Words) -> Command:
    options = words.options
    drafts = options.one("drafts")
    if drafts not in (None, "private", "open"):
        raise InvalidError(f"--drafts {drafts!r} means nothing", "write private or open")
    return SetAccess(
        parse_project(words.operands[0], words.project) if words.operands else None,
        readers=_who(options.one("readers")),
        writers=_who(options.one("writers")),
        private_drafts=None if drafts is None else drafts == "private",
        inherit="inherit" in options.flags,
    )


def _who(text: str | None) -> str | None:
    """Return readers or writers as the log has them."""
    if not text and text is not None:
        raise InvalidError("no group is named", "write a group, * for everybody, - for nobody")
    return NOBODY if text == "-" else text


def _rollback(words: _Words) -> Command:
    return rollback_command(
        words.operands[0],
        words.project,
        to=words.options.one("to"),
        expect=words.options.one("expect"),
        strip=words.strip,
    )


_COMMIT_VALUES = frozenset(
    {"alias", "type", "metadata", "description", "tag", "run", "parent", "link"}
)

COMMANDS: dict[str, CommandForm] = {
    "commit": CommandForm(
        "commit DRAFT ARTIFACT [--alias A]... [--type T] [--metadata JSON] [--description TEXT] "
        "[--tag T]... [--run R] [--parent REF]... [--link COLLECTION[:ALIAS]] [--reason TEXT]",
        "Make a draft the next version of an artifact.",
        _commit,
        2,
        2,
        _COMMIT_VALUES,
    ),
    "ln": CommandForm(
        "ln [-sfnT] SOURCE TARGET [--expect vN|none] [--reason TEXT]",
        "Link a version into a collection, or move an alias.",
        _ln,
        2,
        2,
        frozenset({"expect"}),
        # An alias always moves, and is never followed: these say what happens anyway.
        {"s": "symbolic", "f": "force", "n": "no-dereference", "T": "no-target-directory"},
    ),
    "rm": CommandForm(
        "rm [-f | --force] TARGET [--expect vN] [--reason TEXT]",
        "Drop an alias, unlink, or delete a version, an artifact or a collection.",
        _rm,
        1,
        1,
        frozenset({"expect"}),
        {"f": "force"},
    ),
    "mv": CommandForm(
        "mv SOURCE TARGET [--reason TEXT]",
        "Rename a collection, or commit: mv staging/DRAFT artifacts/NAME/next.",
        _mv,
        2,
        2,
    ),
    "mkdir": CommandForm(
        "mkdir [--type T] [--description TEXT] artifacts/NAME|collections/NAME [--reason TEXT]",
        "Create an empty artifact or collection.",
        _mkdir,
        1,
        1,
        frozenset({"type", "description"}),
    ),
    "rmdir": CommandForm(
        "rmdir artifacts/NAME|collections/NAME [--reason TEXT]",
        "Delete an empty artifact or collection.",
        _rmdir,
        1,
        1,
    ),
    "tag": CommandForm(
        "tag TARGET [+]TAG|-TAG... [--reason TEXT]",
        "Add and remove tags of a version, an artifact or a collection.",
        _tag,
        2,
        None,
        minus_is_operand=True,
    ),
    "describe": CommandForm(
        "describe TARGET TEXT [--reason TEXT]",
        "Set the description of a version, an artifact or a collection.",
        _describe,
        2,
        2,
        minus_is_operand=True,
    ),
    "set": CommandForm(
        "set TARGET KEY=JSON|KEY-... [--reason TEXT]",
        "Set and remove keys of the metadata of a version, an artifact or a collection.",
        _set,
        2,
        None,
        minus_is_operand=True,
    ),
    "protect": CommandForm(
        "protect TARGET --group G [--reason TEXT]",
        "Let only members of a group move or drop an alias.",
        _protect,
        1,
        1,
        frozenset({"group"}),
    ),
    "unprotect": CommandForm(
        "unprotect TARGET [--reason TEXT]",
        "Let anyone move or drop an alias again.",
        _unprotect,
        1,
        1,
    ),
    "give": CommandForm(
        "give DRAFT USER",
        "Make a draft another user's: alone in its transaction, and of no interest to history.",
        _give,
        2,
        2,
    ),
    "access": CommandForm(
        "access [PROJECT] [--readers GROUP|*|-] [--writers GROUP|*|-] [--drafts private|open] "
        "[--inherit] [--reason TEXT]",
        "Say who may read and who may change the store, or a project (*: everybody, -: its owner).",
        _access,
        0,
        1,
        frozenset({"readers", "writers", "drafts"}),
        {"i": "inherit"},
    ),
    "rollback": CommandForm(
        "rollback TARGET [--to N|TIME|VERSION] [--expect vN] [--reason TEXT]",
        "Move an alias back to where it was before, or N moves ago.",
        _rollback,
        1,
        1,
        frozenset({"to", "expect"}),
    ),
}
