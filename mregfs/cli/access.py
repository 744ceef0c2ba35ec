"""The verbs about who may do what: `access`, `draft`.

Decided here: their options, and how it is said who may read and change what. Not decided here: who
may (`model.rules.access`), how a draft is handed over (the daemon of its mount).
"""

from typing import Any

import click

from mregfs.cli.output import clean, print_json
from mregfs.cli.session import Session, reason_option, verb

__all__ = ["access"]

_EVERYBODY, _NOBODY = "*", ""


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
    store change it.

    \b
    mregfs access --readers ml --writers ml
    mregfs access team/vision --writers vision
    """
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
        f"{what}: {_who(result['readers'], result['writers'])} may read",
        f"{_who(result['writers'])} may change it and make drafts",
    ]
    if result["private_drafts"]:
        parts.append("drafts are private")
    inherited = result["inherited"] if result["project"] else ()
    if inherited:
        parts.append(f"as the store: {', '.join(name.replace('_', ' ') for name in inherited)}")
    return "; ".join(parts)


def _who(who: str, or_else: str = _NOBODY) -> str:
    named = who if who != _NOBODY else or_else
    if named == _EVERYBODY:
        return "everybody"
    return f"group {named}" if named != _NOBODY else "only the owner"
