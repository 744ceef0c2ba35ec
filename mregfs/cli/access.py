"""The verbs about who may do what: `access`, `draft`.

Decided here: how it is said who may read and change what. Not decided here: who may
(`model.rules.access`), how a draft is handed over (the daemon of its mount).
"""

from typing import Any

import click

from mregfs.cli.arguments import declared
from mregfs.cli.output import clean, print_json, who
from mregfs.cli.session import Session, line_of, not_a_writer
from mregfs.errors import NotFoundError, UnavailableError
from mregfs.model.forms import COMMANDS

__all__ = ["access", "draft"]


@declared(COMMANDS["access"])
def access(session: Session, of: str | None, reason: str | None, **said: Any) -> None:
    """Show who may read and change what; or say so, when an option is given."""
    if any(value not in (None, False) for value in said.values()):
        result = session.change(COMMANDS["access"], {**said, "of": of, "reason": reason})
    else:
        result = session.registry.access(of or None)
    if session.as_json:
        print_json(result)
    else:
        click.echo(clean(_sentence(result)))


def _sentence(result: dict[str, Any]) -> str:
    what = f"project {result['project']}" if result["project"] else "the store"
    parts = [
        f"{what}: {who(result['readers'] or result['writers'])} may read",
        f"{who(result['writers'])} may change it and make drafts",
    ]
    if result["private_drafts"]:
        parts.append("drafts are private")
    inherited = result["inherited"] if result["project"] else ()
    if inherited:
        parts.append(f"as the store: {', '.join(name.replace('_', ' ') for name in inherited)}")
    return "; ".join(parts)


@click.group()
def draft() -> None:
    """Do something with a draft."""


@draft.add_command
@declared(COMMANDS["give"])
def give(session: Session, draft: str, user: str) -> None:
    """Hand a draft over, by the mount that it is in."""
    from mregfs.cli.control import MountGoneError, transact
    from mregfs.cli.transfer import find_draft

    found = find_draft(session, draft)
    if found is None:
        raise NotFoundError(f"there is no draft {draft!r}", "name a directory of staging/")
    mount, path = found
    line = line_of(COMMANDS["give"], {"draft": session.place.for_mount(path, mount), "user": user})
    try:
        (result,) = transact(mount, line)
    except MountGoneError as exc:
        if isinstance(exc.__cause__, PermissionError):
            raise not_a_writer(mount.point) from exc
        raise UnavailableError(
            f"the mount {mount.point!r} takes no commands ({exc})", "unmount it, and mount it again"
        ) from exc
    session.done = True
    if session.as_json:
        print_json(result)
    else:
        click.echo(clean(f"gave draft {result['draft']} to {result['user']}"))
