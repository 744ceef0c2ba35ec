"""The verbs about who may do what: `access`, `draft`.

Decided here: their options, and how it is said who may read and change what. Not decided here: who
may (`model.rules.access`), how a draft is handed over (the daemon of its mount).
"""

from typing import Any

import click

from mregfs.cli.arguments import reason_option
from mregfs.cli.output import clean, print_json, who
from mregfs.cli.session import Session, command_line, not_a_writer, verb
from mregfs.errors import NotFoundError, UnavailableError

__all__ = ["access", "draft"]


@click.command()
@click.argument("of", required=False, metavar="[PROJECT]")
@click.option("--readers", metavar="GROUP|*|-", help="Who may look: *, everybody; -, the owner.")
@click.option("--writers", metavar="GROUP|*|-", help="Who may change it and make drafts.")
@click.option(
    "--drafts",
    type=click.Choice(["private", "open"]),
    help="Whether only its user may look into a new draft, or whom his umask lets.",
)
@click.option("--inherit", is_flag=True, help="Of a project: as of the store, from now on.")
@reason_option
@verb
def access(
    session: Session,
    of: str | None,
    readers: str | None,
    writers: str | None,
    drafts: str | None,
    reason: str | None,
    *,
    inherit: bool,
) -> None:
    """Say who may read and who may change a store.

    Without PROJECT: the whole store, where no project says otherwise. Without an option: only
    shows what holds. Groups are looked up on each host, by name. Only root and the owner of the
    store change it. Where not everybody may read all of it, the store's directory becomes its
    owner's alone (mode 0700), and the others use a mount.

    \b
    mregfs access --readers ml --writers ml
    mregfs access team/vision --writers vision
    """
    if (readers, writers, drafts) == (None, None, None) and not inherit:
        result = session.registry.access(of or None)
    else:
        result = session.change(
            "access",
            *([of] if of else []),
            options={"readers": readers, "writers": writers, "drafts": drafts, "reason": reason},
            flags="i" if inherit else "",
        )
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


@draft.command()
@click.argument("name", metavar="DRAFT")
@click.argument("user")
@verb
def give(session: Session, name: str, user: str) -> None:
    """Hand a draft over to another user.

    DRAFT is a directory of staging/ in a mount, by its path or by its name alone. It must be yours
    (or you root, or the owner of the store), with all that is in it, and not open for writing. All
    of it is USER's afterwards.
    """
    from mregfs.cli.control import MountGoneError, transact
    from mregfs.cli.intake import find_draft

    found = find_draft(session, name)
    if found is None:
        raise NotFoundError(f"there is no draft {name!r}", "name a directory of staging/")
    mount, path = found
    line = command_line("give", [session.place.for_mount(path, mount), user])
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
