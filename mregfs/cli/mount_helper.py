"""`mount.mregfs`: what mount(8) runs for a line of /etc/fstab whose type is `mregfs`.

Decided here: the words that mount(8) gives its helpers, and the exit codes that it reads. Not
decided here: what an option means (`mounting`).
"""

import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from mregfs.cli.main import EXIT_USAGE, run

__all__ = ["main"]

MOUNT_USAGE = 1
MOUNT_FAILED = 32
"""Exit codes of mount(8)."""


@click.command(add_help_option=False)
@click.argument("source")
@click.argument("mountpoint")
@click.option("-o", "options", multiple=True)
@click.option("-t", "kind")
@click.option("-N", "namespace")
@click.option("-s", "sloppy", is_flag=True)
@click.option("-f", "fake", is_flag=True)
@click.option("-n", "no_table", is_flag=True)
@click.option("-v", "verbose", is_flag=True)
def helper(
    source: str, mountpoint: str, options: tuple[str, ...], *, sloppy: bool, fake: bool, **_: object
) -> None:
    """Mount SOURCE on MOUNTPOINT: mount.mregfs SOURCE MOUNTPOINT [-sfnv] [-N NS] [-o OPTS]."""
    wanted = [option for text in options for option in text.split(",") if option]
    if sloppy:
        wanted = [option for option in wanted if _is_known(option)]
    if fake:
        return
    code = run(["mount", "-o", ",".join(wanted), "--", source, mountpoint])
    if code:
        raise click.exceptions.Exit(MOUNT_USAGE if code == EXIT_USAGE else MOUNT_FAILED)


def _is_known(option: str) -> bool:
    from mregfs.cli.mounting import parse_options
    from mregfs.errors import InvalidError

    try:
        parse_options((option,))
    except InvalidError:
        return False
    return True


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run as the helper of mount(8), and exit."""
    try:
        code = helper.main(arguments, prog_name="mount.mregfs", standalone_mode=False)
    except click.ClickException as exc:
        click.echo(f"mount.mregfs: {exc.format_message()}", err=True)
        code = MOUNT_USAGE
    sys.exit(code)
