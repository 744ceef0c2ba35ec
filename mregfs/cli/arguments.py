"""The arguments and options that several verbs take, and what a shell completes them to.

Decided here: how a reference, a name and the reason of a change are asked for; what completes to
what. Not decided here: what a shell makes of it (`completion`). Completing changes nothing; any
error completes to nothing, and stays silent.

The names come from an index, or from a mount that somebody else may have made.
"""

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mregfs.cli.session import AUTHOR, Session
from mregfs.errors import MregfsError
from mregfs.model import paths

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from mregfs.api import Registry

__all__ = ["owner_argument", "reason_option", "reference_argument"]

_F = TypeVar("_F", bound=Callable[..., Any])

MAX_VERSIONS = 50
"""The newest numbers that are offered after `NAME:`; one can still type an older one."""


def _metavar(name: str, *, required: bool) -> str:
    return name.upper() if required else f"[{name.upper()}]"


def reference_argument(name: str, *, required: bool = True) -> Callable[[_F], _F]:
    """Add an argument that is a reference or a path; a shell completes it."""
    return click.argument(
        name,
        required=required,
        metavar=_metavar(name, required=required),
        shell_complete=_references,
    )


def owner_argument(name: str, *, required: bool = True) -> Callable[[_F], _F]:
    """Add an argument that is the name of an artifact or collection; a shell completes it."""
    return click.argument(
        name,
        required=required,
        metavar=_metavar(name, required=required),
        shell_complete=_owners,
    )


def _keep_author(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    ctx.meta[AUTHOR] = value


def reason_option(command: _F) -> _F:
    """Add what history remembers of every change: why, and who stands behind this user."""
    command = click.option("--reason", metavar="TEXT", help="Why; history remembers it.")(command)
    return click.option(
        "--author",
        metavar="NAME",
        expose_value=False,
        callback=_keep_author,
        help="Whom history names beside this user; by default $MREGFS_AUTHOR.",
    )(command)


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
