"""The arguments and options of verbs, and what a shell completes them to.

Decided here: how click asks for what a form says; what completes to what. Not decided here: which
words a verb has (`model.forms`), what a shell makes of completions (`completion`). Completing
changes nothing; any error completes to nothing, and stays silent.

The names come from an index, or from a mount that somebody else may have made.
"""

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mregfs.cli.numbers import LIMIT
from mregfs.cli.session import SAID_AUTHOR, Session, verb
from mregfs.errors import MregfsError
from mregfs.model import paths
from mregfs.model.forms import AUTHOR, REASON, Form, Operand, Option
from mregfs.model.tokenizer import refuse_empty

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from mregfs.api import Registry

__all__ = ["declared", "reference_argument"]

_F = TypeVar("_F", bound=Callable[..., Any])

MAX_VERSIONS = 50
"""The newest numbers that are offered after `NAME:`; one can still type an older one."""


def reference_argument(name: str, *, required: bool = True) -> Callable[[_F], _F]:
    """Add an argument that is a reference or a path; a shell completes it."""
    return _argument(Operand(name, optional=not required))


def declared(
    form: Form, *, cls: type[click.Command] = click.Command, **settings: Any
) -> Callable[[Callable[..., None]], click.Command]:
    """Make a function the verb of a form: with its operands, its options and its help.

    The function gets a `Session`, and by keyword what is said: each under its `key`.

    Args:
        form: it says all about the verb.
        cls: the command's class.
        settings: for click.
    """

    def declare(function: Callable[..., None]) -> click.Command:
        command = verb(function)
        options = [option for option in form.options if option.on_command_line]
        if form.build and form.is_remembered:
            options.append(REASON)
            command = click.option(
                f"--{AUTHOR.name}",
                metavar=AUTHOR.value,
                help=AUTHOR.help,
                expose_value=False,
                callback=_keep_author,
            )(command)
        for option in reversed(options):
            command = _option(option)(command)
        for operand in reversed(form.operands):
            command = _argument(operand)(command)
        name = (form.verb or form.name).rpartition(" ")[2]
        return click.command(name, cls=cls, help=_help(form), **settings)(command)

    return declare


def _help(form: Form) -> str:
    examples = [
        f"mregfs {form.verb or form.name}{line.removeprefix(form.name)}" for line in form.examples
    ]
    paragraphs = [form.summary, form.about, "\n".join(("\b", *examples)) if examples else ""]
    return "\n\n".join(filter(None, paragraphs))


def _argument(operand: Operand) -> Callable[[_F], _F]:
    completers = {"reference": _references, "source": _references, "owner": _owners}
    return click.argument(
        operand.name,
        required=not operand.optional,
        nargs=-1 if operand.many else 1,
        metavar=operand.metavar,
        type=click.UNPROCESSED if operand.many else None,
        shell_complete=completers.get(operand.takes),
    )


def _option(option: Option) -> Callable[[_F], _F]:
    names = [f"--{option.name}", option.key.replace("-", "_")]
    if option.letter:
        names.append(f"-{option.letter}")
    if option.is_flag:
        return click.option(
            *names,
            is_flag=True,
            hidden=option.ignored,
            expose_value=not option.ignored,
            help=option.help,
        )
    kinds: dict[str, click.ParamType[Any]] = {"count": LIMIT, "number": click.IntRange(min=0)}
    kind = click.Choice(option.choices) if option.choices else kinds.get(option.takes)
    return click.option(
        *names,
        metavar=None if option.choices else option.value,
        type=kind,
        multiple=option.many,
        required=option.required,
        help=option.help,
    )


def _keep_author(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    refuse_empty(AUTHOR.name, value)
    ctx.meta[SAID_AUTHOR] = value


def _references(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> "list[CompletionItem]":
    """Complete a reference, or a path: names, then what follows the colon."""
    return _complete(ctx, incomplete, selectors=True)


def _owners(ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
    """Complete the name of an artifact or collection."""
    return _complete(ctx, incomplete, selectors=False)


def _complete(ctx: click.Context, incomplete: str, *, selectors: bool) -> "list[CompletionItem]":
    from click.shell_completion import CompletionItem

    first = incomplete.split("/", 1)[0]
    if first in ("", ".", "..", *paths.DIRECTORIES) and "/" in incomplete:
        return [CompletionItem(incomplete, type="file")]
    session = _session(ctx)
    try:
        head, colon, start = incomplete.partition(":")
        if colon and selectors:
            found = _selectors(session.registry, head, start)
        else:
            found = _names(session.registry, str(session.project), incomplete)
        return [item for item in found if f"{item.value}{item.help}".isprintable()]
    except (MregfsError, OSError):
        return []
    finally:
        session.close()


def _session(ctx: click.Context) -> Session:
    above = ctx.parent.params if ctx.parent else {}

    def option(name: str) -> str | None:
        value = ctx.params.get(name) or above.get(name)
        return value if isinstance(value, str) else None

    return Session(option("store"), option("mount"), option("project"), as_json=False)


def _names(registry: "Registry", project: str, incomplete: str) -> "list[CompletionItem]":
    from click.shell_completion import CompletionItem

    head, slash, start = incomplete.rpartition("/")
    if slash:
        project = head if "/" in head else f"{project.partition('/')[0]}/{head}"
    found = [
        CompletionItem(f"{head}{slash}{owner.name}", help=f"{owner.kind}, {owner.type}")
        for owner in (*registry.artifacts(project), *registry.collections(project))
        if owner.name.startswith(start)
    ]
    if not found and not slash:
        found = [
            CompletionItem(f"{name}/")
            for name in map(str, registry.projects())
            if name.startswith(incomplete)
        ]
    return found


def _selectors(registry: "Registry", head: str, start: str) -> "list[CompletionItem]":
    from click.shell_completion import CompletionItem

    owner = registry.owner(head)
    found = [
        CompletionItem(f"{head}:{alias}", help=version)
        for alias, version in owner.aliases.items()
        if alias.startswith(start)
    ]
    if start[:1] in ("", "v"):
        found += [
            CompletionItem(f"{head}:{info.version}")
            for info in islice(registry.versions(head), MAX_VERSIONS)
            if info.version.startswith(start)
        ]
    return found
