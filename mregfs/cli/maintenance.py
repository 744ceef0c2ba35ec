"""The verbs about the bytes on this host: `pin`, `unpin`, `fsck`.

Decided here: what they print. Not decided here: what a pin does, what is checked
(`mregfs.api`).
"""

from typing import TYPE_CHECKING

import click

from mregfs.cli.arguments import reference_argument
from mregfs.cli.numbers import MEGABYTES_A_SECOND
from mregfs.cli.output import as_builtins, clean, count, human_size, print_json, print_table
from mregfs.cli.progress import progress
from mregfs.cli.session import Session, verb

if TYPE_CHECKING:
    from mregfs.registry.keep.check import Finding, Report
    from mregfs.registry.keep.coalesce import Pin
    from mregfs.registry.keep.repair import Step

__all__ = ["fsck", "pin", "unpin"]

_MOST_NAMES = 5


@click.command()
@reference_argument("ref", required=False)
@verb
def pin(session: Session, ref: str | None) -> None:
    """Keep a version's files in one piece on this host.

    A file that shares bytes with others is stored in several pieces, which the daemon reads. With a
    whole-file copy the kernel reads it by itself. Files that are open already stay as they are
    until they are closed. Without REF: list what is pinned.
    """
    if ref is None:
        pins = session.registry.pinned()
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
        made = session.writing.pin(
            session.locate(ref),
            progress=None if report is None else lambda done, total: report("copy", done, total),
        )
    session.done = True
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
    freed = session.writing.unpin(session.locate(ref))
    session.done = True
    if session.as_json:
        print_json(as_builtins(freed))
    else:
        click.echo(f"unpinned {freed.version}")


@click.command()
@click.argument("refs", nargs=-1, metavar="[REF]...")
@click.option("--data", is_flag=True, help="Read all stored bytes again, and verify them.")
@click.option(
    "--rate", type=MEGABYTES_A_SECOND, metavar="MB/S", help="With --data: read no faster than this."
)
@click.option("--repair", is_flag=True, help="Repair what can be, and say what it is.")
@click.option("--dry-run", is_flag=True, help="With --repair: only say what would be done.")
@click.option(
    "--from", "copy", metavar="STORE", help="With --repair: a copy of the store to take from."
)
@verb
def fsck(
    session: Session,
    refs: tuple[str, ...],
    *,
    data: bool,
    rate: float | None,
    repair: bool,
    dry_run: bool,
    copy: str | None,
) -> None:
    """Check that everything in the store is there and sound.

    Checks the log, and of every version (or of those that REF names) its manifest, its layout and
    that its packs are there; with --data also every byte. Changes nothing. Exits with 11 when
    something is damaged; what only takes space is told, and is no error.

    With --repair, what is damaged is made again where anything is left to make it from: the index
    and checkpoints, the cache, other versions with the same bytes, a copy of the store. A version
    that cannot be repaired is marked as damaged, and everything else goes on.
    """
    if rate is not None and not data:
        raise click.UsageError("--rate says how fast --data reads: give both")
    if repair and (refs or rate is not None):
        raise click.UsageError("--repair is for the whole store: leave out REF and --rate")
    if (dry_run or copy) and not repair:
        raise click.UsageError("--dry-run and --from say how to repair: add --repair")
    from mregfs.api import Registry
    from mregfs.errors import CorruptError

    store = session.place.own_store
    if repair:
        _repair(session, store, copy, data=data, dry_run=dry_run)
        return
    project = session.place.project if refs else session.place.project_said
    with (
        Registry(store, str(project), read_only=True) as registry,
        progress(sizes=data) as bar,
    ):
        report = registry.fsck(
            *map(session.locate, refs), data=data, rate=int((rate or 0) * 1e6), progress=bar
        )
    if session.as_json:
        print_json(as_builtins(report))
    else:
        _print_report(report)
    if report.damaged:
        damages = sum(finding.must for finding in report.findings)
        raise CorruptError(
            f"{store} is damaged: {count(damages, 'finding')}",
            "follow the advice below each finding",
        )


def _repair(session: Session, store: str, copy: str | None, *, data: bool, dry_run: bool) -> None:
    from mregfs.api import Registry
    from mregfs.errors import CorruptError

    steps: list[dict[str, object]] = []

    def tell(step: "Step") -> None:
        steps.append({"what": step.what, "lost": step.lost})
        if not session.as_json:
            click.echo(f"{'would ' if dry_run else ''}{clean(step.what)}")

    with (
        Registry(store, str(session.place.project_said), read_only=dry_run) as registry,
        progress(sizes=data) as bar,
    ):
        report = registry.repair(tell, copy=copy, data=data, dry_run=dry_run, progress=bar)
    session.done = bool(steps)
    if session.as_json:
        print_json({"steps": steps, "report": as_builtins(report)})
    else:
        _print_report(report)
    if report.damaged:
        damages = sum(finding.must for finding in report.findings)
        raise CorruptError(
            f"{store} is {'damaged' if dry_run else 'still damaged'}: {count(damages, 'finding')}",
            "leave out --dry-run" if dry_run else "take from a copy of the store: --from STORE",
        )


def _print_report(report: "Report") -> None:
    for finding in report.findings:
        _print_finding(finding)
    checked = [
        count(report.entries, "log entry", "log entries"),
        count(report.versions, "version"),
        count(report.files, "file"),
        count(report.packs, "pack"),
    ]
    read = f"; {human_size(report.bytes_read)} read and verified" if report.bytes_read else ""
    click.echo(f"checked {', '.join(checked)}{read}")


def _print_finding(finding: "Finding") -> None:
    click.echo(f"{'damaged' if finding.must else 'note'}: {clean(finding.what)}")
    if len(finding.names) > 1:
        for name in finding.names[:_MOST_NAMES]:
            click.echo(f"    {clean(name)}")
        if len(finding.names) > _MOST_NAMES:
            click.echo(f"    and {len(finding.names) - _MOST_NAMES} more (--json lists them)")
    click.echo(f"    {finding.advice}")
