"""The verbs that change what is in the registry; each is one line of the control file's grammar.

Decided here: their options, and the sentence that says what happened. Not decided here: what the
words mean (`model.grammar`), what is allowed (`model.rules`), which way the line goes (`session`).
"""

import sys
from collections.abc import Callable
from typing import Any

import click
import msgspec

from mregfs.cli.arguments import reason_option, reference_argument
from mregfs.cli.output import clean, count, print_json
from mregfs.cli.session import Session, read_text, verb
from mregfs.errors import InvalidError

__all__ = [
    "describe",
    "ln",
    "mkdir",
    "mv",
    "protect",
    "rm",
    "rollback",
    "say",
    "set_",
    "tag",
    "unprotect",
]

_Command = Callable[..., None]


def _expect(command: _Command) -> _Command:
    return click.option(
        "--expect",
        metavar="vN|none",
        help="Refuse unless the alias points there now (none: does not exist).",
    )(command)


def say(session: Session, result: dict[str, Any]) -> None:
    """Print what a command came to."""
    if session.as_json:
        print_json(result)
    else:
        click.echo(clean(_sentence(result)))
        if "note" in result:
            click.echo(clean(f"note: {result['note']}"), err=True)


def _sentence(result: dict[str, Any]) -> str:
    match result:
        case {"artifact": artifact, "created": True, "digest": digest, "version": version}:
            return f"committed {artifact}:{version} ({digest[:12]})"
        case {"artifact": artifact, "created": False, "version": version}:
            return f"{artifact}:{version} has this content already: no new version"
        case {"linked": linked, "collection": collection, "version": version, "source": source}:
            link = f"{collection}:{version}"
            moved = _moved(result) if result.get("alias") else ""
            if linked:
                return f"linked {source} as {link}" + (f"; {moved}" if moved else "")
            return moved or f"{link} is {source} already"
        case {"moved": _}:
            return _moved(result)
        case {"alias": alias, "group": group, "name": name}:
            if group is None:
                return f"anyone may move {name}:{alias}"
            return f"only group {group} may move {name}:{alias}"
        case {"alias": alias, "previous": previous, "name": name}:
            return f"dropped {name}:{alias} (was {previous})"
        case {"kind": kind, "name": name, "versions": versions, "links": links}:
            gone = [
                count(number, what)
                for number, what in ((versions, "version"), (links, "link"))
                if number
            ]
            return f"deleted {kind} {name}" + (f" with {' and '.join(gone)}" if gone else "")
        case {"collection": collection, "previous": previous}:
            return f"renamed {previous} to {collection}"
        case {"collection": name, "created": True} | {"artifact": name, "created": True}:
            kind = "collection" if "collection" in result else "artifact"
            return f"created {kind} {name}"
        case {"collection": collection, "version": version}:
            return f"took {result.get('source', version)} out of {collection} (was {version})"
        case {"artifact": artifact, "version": version}:
            return f"deleted {artifact}:{version}"
        case {"target": target, "tags": tags}:
            return f"{target}: tags {', '.join(tags)}" if tags else f"{target}: no tags"
        case {"target": target, "metadata": metadata}:
            return (
                f"{target}: metadata {', '.join(metadata)}"
                if metadata
                else f"{target}: no metadata"
            )
        case {"target": target}:
            return f"described {target}"
    return "done"


def _moved(result: dict[str, Any]) -> str:
    name = f"{result.get('name') or result.get('collection')}:{result['alias']}"
    previous = result.get("previous")
    if not result.get("moved", True):
        return f"{name} is {result['version']} already"
    was = f" (was {previous})" if previous else ""
    return f"{name} -> {result['version']}{was}"


@click.command()
@reference_argument("source")
@reference_argument("target")
@click.option("-s", "-f", "-n", "-T", "_like_ln", is_flag=True, hidden=True)
@_expect
@reason_option
@verb
def ln(
    session: Session,
    source: str,
    target: str,
    expect: str | None,
    reason: str | None,
    *,
    _like_ln: bool,
) -> None:
    """Link a version into a collection, or move an alias.

    TARGET is an alias, or a collection alone. The letters of `ln -sfn` may be given: what they say
    happens anyway.

    \b
    mregfs ln mnist:v3 classifier:production
    mregfs ln mnist:v3 mnist:best
    """
    result = session.change(
        "ln",
        session.locate(source, beside=True),
        session.locate(target),
        options={"expect": expect, "reason": reason},
        flags="sf",
    )
    say(session, result)


@click.command()
@reference_argument("target")
@click.option("--force", "-f", is_flag=True, help="With its aliases, links and versions.")
@_expect
@reason_option
@verb
def rm(
    session: Session, target: str, expect: str | None, reason: str | None, *, force: bool
) -> None:
    """Drop an alias, a link, a version or an empty owner.

    What an alias or a link still names is refused, unless --force drops those too.
    """
    result = session.change(
        "rm",
        session.locate(target),
        options={"expect": expect, "reason": reason},
        flags="f" if force else "",
    )
    say(session, result)


@click.command()
@reference_argument("source")
@reference_argument("target")
@reason_option
@verb
def mv(session: Session, source: str, target: str, reason: str | None) -> None:
    """Rename a collection, or commit a draft.

    \b
    mregfs mv collections/old collections/new
    mregfs mv staging/run-17 artifacts/mnist/next
    """
    result = session.change(
        "mv", session.locate(source), session.locate(target), options={"reason": reason}
    )
    say(session, result)


@click.command()
@reference_argument("target")
@click.option("--type", "kind", metavar="TYPE", help="Of an artifact: model, unless given.")
@click.option("--description", metavar="TEXT")
@reason_option
@verb
def mkdir(
    session: Session, target: str, kind: str | None, description: str | None, reason: str | None
) -> None:
    """Create an empty collection or artifact.

    TARGET is collections/NAME or artifacts/NAME. A collection without a type takes that of the
    first version linked into it.
    """
    result = session.change(
        "mkdir",
        session.locate(target),
        options={"type": kind, "description": description, "reason": reason},
    )
    say(session, result)


class _TagCommand(click.Command):
    """Leaves `-TAG` alone, which is a tag to remove and not letters; so only `-h` alone is help."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words, but for `-TAG`."""
        return super().parse_args(ctx, ["--help"] if args == ["-h"] else args)


@click.command(
    cls=_TagCommand,
    context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]},
)
@reference_argument("target")
@click.argument("tags", nargs=-1, metavar="[+TAG | -TAG]...", type=click.UNPROCESSED)
@click.option("--remove", multiple=True, metavar="TAG", help="As -TAG.")
@reason_option
@verb
def tag(
    session: Session,
    target: str,
    tags: tuple[str, ...],
    remove: tuple[str, ...],
    reason: str | None,
) -> None:
    """Add and remove tags."""
    target, *named = sorted((target, *tags), key=lambda word: word[:1] in ("+", "-"))
    for word in named:
        if word.startswith("--"):
            raise click.NoSuchOption(word.partition("=")[0], ctx=click.get_current_context())
    words = [*named, *(f"-{name}" for name in remove)]
    say(
        session,
        session.change("tag", session.locate(target), words=words, options={"reason": reason}),
    )


@click.command()
@reference_argument("target")
@click.argument("text")
@reason_option
@verb
def describe(session: Session, target: str, text: str, reason: str | None) -> None:
    """Set a description.

    TEXT may be - for standard input.
    """
    if text == "-":
        from mregfs.model.grammar import MAX_SCRIPT

        text = read_text(sys.stdin, MAX_SCRIPT, "the description").rstrip("\n")
    say(
        session,
        session.change(
            "describe", session.locate(target), words=[text], options={"reason": reason}
        ),
    )


@click.command("set")
@reference_argument("target")
@click.argument("values", nargs=-1, required=True, metavar="KEY=JSON|KEY-...")
@reason_option
@verb
def set_(session: Session, target: str, values: tuple[str, ...], reason: str | None) -> None:
    """Set and remove keys of the metadata.

    What is no JSON is taken as text.

    \b
    mregfs set mnist:v3 accuracy=0.98 dataset=mnist draft-
    """
    words = list(map(_as_json, values))
    say(
        session,
        session.change("set", session.locate(target), words=words, options={"reason": reason}),
    )


def _as_json(word: str) -> str:
    """Return KEY=TEXT as KEY="TEXT": a shell takes away the quotes that JSON wants.

    What begins as an object, a list or a string has to be one, so that a slip is not taken as text;
    nor is an infinity.
    """
    from mregfs.model.metadata import parse_value

    key, equals, text = word.partition("=")
    if not equals or text[:1] in ("{", "[", '"') or text in ("Infinity", "-Infinity"):
        return word
    try:
        parse_value(text)
    except InvalidError:
        return f"{key}={msgspec.json.encode(text).decode()}"
    return word


@click.command()
@reference_argument("target")
@click.option("--to", metavar="N|TIME|VERSION", help="N moves ago, a time, or a version.")
@_expect
@reason_option
@verb
def rollback(
    session: Session, target: str, to: str | None, expect: str | None, reason: str | None
) -> None:
    """Move an alias back to where it was.

    One move back, unless --to says where.

    \b
    mregfs rollback classifier:production --reason 'bad on night images'
    mregfs rollback classifier:production --to 2026-11-01
    """
    result = session.change(
        "rollback",
        session.locate(target),
        options={"to": to, "expect": expect, "reason": reason},
    )
    say(session, result)


@click.command()
@reference_argument("target")
@click.option("--group", required=True, metavar="G", help="Who may move or drop the alias.")
@reason_option
@verb
def protect(session: Session, target: str, group: str, reason: str | None) -> None:
    """Let only one group move an alias.

    TARGET is an alias, which need not exist yet.
    """
    result = session.change(
        "protect", session.locate(target), options={"group": group, "reason": reason}
    )
    say(session, result)


@click.command()
@reference_argument("target")
@reason_option
@verb
def unprotect(session: Session, target: str, reason: str | None) -> None:
    """Let anyone move an alias again."""
    say(session, session.change("unprotect", session.locate(target), options={"reason": reason}))
