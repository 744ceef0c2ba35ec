"""The verbs that change what is in the registry; each is one line of the control file's grammar.

Decided here: what the command line takes beyond the grammar, and the sentence that says what
happened. Not decided here: which words a verb has (`model.forms`), what they mean
(`model.grammar`), what is allowed (`model.rules`), which way the line goes (`session`).
"""

import sys
from collections.abc import Callable
from typing import Any

import click

from mregfs.cli.arguments import declared
from mregfs.cli.output import clean, count, print_json
from mregfs.cli.session import Session, read_text
from mregfs.model.forms import COMMANDS, Form

__all__ = ["VERBS", "say"]


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
            return f"unlinked {result.get('source', version)} from {collection} (was {version})"
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


class _TagCommand(click.Command):
    """Leaves `-TAG` alone, which is a tag to remove and not letters; so only `-h` alone is help."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words, but for `-TAG`."""
        return super().parse_args(ctx, ["--help"] if args == ["-h"] else args)


def _tag() -> click.Command:
    """Return the verb `tag`: options among its words are tags, and one may stand before TARGET."""
    form = COMMANDS["tag"]
    target, tags = form.operands

    @declared(
        form._replace(operands=(target, tags._replace(optional=True))),
        cls=_TagCommand,
        context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]},
    )
    @click.option("--remove", multiple=True, metavar="TAG", help="As -TAG.")
    def tag(session: Session, target: str, tags: tuple[str, ...], **said: Any) -> None:
        target, *named = sorted((target, *tags), key=lambda word: word[:1] in ("+", "-"))
        for word in named:
            if word.startswith("--"):
                raise click.NoSuchOption(word.partition("=")[0], ctx=click.get_current_context())
        named += [f"-{name}" for name in said.pop("remove")]
        say(session, session.change(form, {**said, "target": target, "tags": named}))

    return tag


def _from_input(said: dict[str, Any]) -> None:
    """Let `describe TARGET -` read the description from standard input."""
    if said["text"] == "-":
        from mregfs.model.grammar import MAX_SCRIPT

        said["text"] = read_text(sys.stdin, MAX_SCRIPT, "the description").rstrip("\n")


_EXTRAS: dict[str, Callable[[dict[str, Any]], None]] = {"describe": _from_input}
"""What is taken beyond the grammar, by verb: changes what was said."""


def _verb(form: Form) -> click.Command:
    """Return the verb of a form."""

    @declared(form)
    def change(session: Session, **said: Any) -> None:
        if form.name in _EXTRAS:
            _EXTRAS[form.name](said)
        say(session, session.change(form, said))

    return change


VERBS = {form.name: _verb(form) for form in COMMANDS.values() if not form.verb} | {"tag": _tag()}
"""The verbs, by name; some of these have a module of their own as well."""
