"""The verbs that follow the log: `watch` and `wait`.

Decided here: what a command run on a change gets, and how following ends. Not decided here: what an
event says (`model.changes.event_line`), how often the log is looked at (`mregfs.Registry`).

They read the store, or a mount where this user cannot open the store. So they live on when a mount
goes away and comes back.
"""

import signal
import subprocess
import sys
from types import FrameType
from typing import Any, NoReturn

import click
import msgspec

from mregfs.cli.arguments import reference_argument
from mregfs.cli.numbers import SECONDS
from mregfs.cli.output import as_builtins, print_json, print_json_line
from mregfs.cli.session import Session, verb
from mregfs.errors import InvalidError

__all__ = ["wait", "watch"]

MAX_VARIABLE = 100_000
"""Bytes of an event that a command gets in its environment; Linux takes 128 KiB a variable."""


@click.command()
@click.option(
    "--since",
    type=click.IntRange(min=0),
    metavar="N",
    help="Begin after log entry N; without it, with what comes from now on.",
)
@click.option(
    "--exec",
    "command",
    metavar="CMD",
    help="Run CMD with sh for each log entry: the event is its input, and in $MREGFS_EVENT; "
    "$MREGFS_SEQUENCE is its number.",
)
@verb
def watch(session: Session, since: int | None, command: str | None) -> None:
    """Print each change, or run a command on it.

    One line of JSON for each log entry, until interrupted.

    \b
    mregfs watch | jq -r .sequence
    mregfs watch --exec 'systemctl reload my-model-server'
    """
    if since is not None:
        head = session.registry.head()
        if since > head:
            raise InvalidError(f"the log ends at {head}, before {since}", "name an entry it has")
    signal.signal(signal.SIGTERM, _end)
    for event in session.registry.events(since):
        if command is None:
            print_json_line(event)
        else:
            _run(command, event)


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


def _run(command: str, event: dict[str, Any]) -> None:
    """Run the command for one event; a signal to us ends it first, then us."""
    import os

    line = msgspec.json.encode(event) + b"\n"
    environment = os.environ | {"MREGFS_SEQUENCE": str(event["sequence"])}
    if len(line) <= MAX_VARIABLE:
        environment["MREGFS_EVENT"] = line.decode().rstrip("\n")
    process: subprocess.Popen[bytes] | None = None
    received: list[int] = []

    def end_process() -> None:
        if process is not None and received:
            try:
                os.killpg(process.pid, signal.SIGTERM)
            except ProcessLookupError:
                pass  # it has just ended

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        end_process()

    # Signals are noted, not raised: raised while the process starts they would leave it behind.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, note)
    try:
        process = subprocess.Popen(
            ["/bin/sh", "-c", command], stdin=subprocess.PIPE, env=environment, process_group=0
        )
        end_process()
        process.communicate(line)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _end)
    if received:
        _end(received[0], None)
    if process.returncode:
        click.echo(
            f"mregfs: the command failed ({process.returncode}) "
            f"for log entry {event['sequence']}: going on",
            err=True,
        )


@click.command()
@reference_argument("ref")
@click.option(
    "--changed-from",
    metavar="X",
    help="Wait until REF resolves to something else than X: a reference, vN, or a digest.",
)
@click.option(
    "--timeout",
    type=SECONDS,
    metavar="S",
    help="Give up after S seconds, with exit code 9.",
)
@verb
def wait(session: Session, ref: str, changed_from: str | None, timeout: float | None) -> None:
    """Wait until a reference resolves to something else.

    Without --changed-from: until it resolves to anything, which may be at once. Prints the version.
    """
    info = session.registry.wait(session.locate(ref), changed_from=changed_from, timeout=timeout)
    if session.as_json:
        print_json(as_builtins(info))
    else:
        click.echo(f"{info.project}/{info.artifact}:{info.version}")
    sys.stdout.flush()
