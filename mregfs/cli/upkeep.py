"""The verbs about the bytes on this host: `pin`, `unpin`.

Decided here: what they print. Not decided here: what a pin does (`mregfs.api`).
"""

from typing import TYPE_CHECKING

import click

from mregfs.cli.output import as_builtins, count, human_size, print_json, print_table
from mregfs.cli.progress import progress
from mregfs.cli.session import Session, reference_argument, verb

if TYPE_CHECKING:
    from mregfs.registry.coalesce import Pin

__all__ = ["pin", "unpin"]


@click.command()
@reference_argument("ref", required=False)
@verb
def pin(session: Session, ref: str | None) -> None:
    """Keep a version's files in one piece on this host.

    A file that shares bytes with others is stored in several pieces, which the daemon reads. With a
    copy in one piece the kernel reads it by itself. Files that are open already stay as they are
    until they are closed. Without REF: list what is pinned.
    """
    registry = session.registry
    if ref is None:
        pins = registry.pinned()
        if session.as_json:
            print_json(as_builtins(pins))
        else:
            rows = [
                [each.version, str(each.files), human_size(each.size), _state(each)]
                for each in pins
            ]
            print_table(["version", "copies", "size", "state"], rows, right=["copies", "size"])
        return
    with progress() as report:
        made = registry.pin(
            session.locate(ref),
            progress=None if report is None else lambda done, total: report("copy", done, total),
        )
    if session.as_json:
        print_json(as_builtins(made))
    elif made.files:
        copies = count(made.files, "copy", "copies")
        click.echo(f"pinned {made.version}: {copies}, {human_size(made.size)}")
    else:
        click.echo(f"pinned {made.version}: its files are in one piece anyway")


def _state(pin: "Pin") -> str:
    return "complete" if pin.complete else "incomplete: pin it again"


@click.command()
@reference_argument("ref")
@verb
def unpin(session: Session, ref: str) -> None:
    """Let go of what pin made.

    The copies stay until others need the room.
    """
    freed = session.registry.unpin(session.locate(ref))
    if session.as_json:
        print_json(as_builtins(freed))
    else:
        click.echo(f"unpinned {freed.version}")
