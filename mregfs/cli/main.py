"""The `mregfs` command: finds the verb, runs it, and turns every failure into one line.

Decided here: exit codes, what happens on Ctrl-C and on a closed pipe. Not decided here: what a verb
does (its own module), the form of an error line (`streams`).
"""

import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from mregfs.cli.streams import OutputError, complain, let_go_of_output, set_up
from mregfs.cli.verbs import COMPLETE_VARIABLE, SECTIONS, VERBS
from mregfs.errors import ForbiddenError, InvalidError, MregfsError, UnsupportedError

__all__ = [
    "EXIT_CLOSED_PIPE",
    "EXIT_INTERNAL",
    "EXIT_INTERRUPTED",
    "EXIT_USAGE",
    "group",
    "main",
]

EXIT_USAGE = 2
EXIT_HOST = 14
EXIT_INTERNAL = 70
EXIT_INTERRUPTED = 130
EXIT_CLOSED_PIPE = 141
"""What a shell reports for a program that a closed pipe ended (128 + SIGPIPE)."""


class VerbGroup(click.Group):
    """The group of all verbs; imports the module of a verb when that verb is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all verbs, without importing them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a verb and return its command; None when there is no such verb."""
        verb = VERBS.get(cmd_name)
        if verb is None:
            return None
        module = importlib.import_module(f"mregfs.cli.{verb.module}")
        command = getattr(module, verb.attribute) if verb.attribute else module.VERBS[cmd_name]
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb named by the first argument.

        Raises:
            UsageError: there is none; the message names the nearest one.
        """
        if args[0] not in VERBS and not args[0].startswith("-") and not ctx.resilient_parsing:
            from difflib import get_close_matches

            near = get_close_matches(args[0], VERBS, n=1)
            raise click.UsageError(
                f"there is no verb {args[0]!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
                ctx,
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of verbs, section by section."""
        width = max(map(len, VERBS)) - 1
        for title, verbs in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(name.ljust(width), verb.summary) for name, verb in verbs.items()]
                )

    def shell_complete(
        self, ctx: click.Context, incomplete: str
    ) -> "list[click.shell_completion.CompletionItem]":
        """Complete the name of a verb, or an option of the group."""
        from click.shell_completion import CompletionItem

        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        return [
            CompletionItem(name, help=verb.summary)
            for name, verb in VERBS.items()
            if name.startswith(incomplete)
        ]


@click.command(
    cls=VerbGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="A reference is [[ENTITY/]PROJECT/]NAME[:ALIAS | :vN | @DIGEST]. "
    "Every verb takes --help, every one but demo --json. `mregfs help` lists the manual.",
)
@click.option("--store", metavar="STORE", help="Store to use.")
@click.option("--mount", metavar="DIR", help="Mount to use.")
@click.option("--project", metavar="[E/]P", help="Project that names are in.")
@click.option("--version", is_flag=True, help="Print the version of mregfs.")
@click.pass_context
def group(
    ctx: click.Context, store: str | None, mount: str | None, project: str | None, *, version: bool
) -> None:
    """A model registry that you mount."""
    if version:
        import mregfs

        click.echo(f"mregfs {mregfs.__version__}")
        ctx.exit()
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(EXIT_USAGE)
    ctx.obj = {"store": store, "mount": mount, "project": project}


def main() -> NoReturn:
    """Run the command line of this process, and exit."""
    set_up()
    code = run(sys.argv[1:])
    let_go_of_output()
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command line, and return its exit code; errors go to stderr as one line."""
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt as exc:
        complain(f"interrupted: {exc}" if str(exc) else "interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return EXIT_CLOSED_PIPE
    except click.UsageError as exc:
        where = exc.ctx.command_path if exc.ctx else "mregfs"
        complain(f"{exc.format_message().rstrip('.')}: see {where} --help")
        return EXIT_USAGE
    except click.ClickException as exc:
        complain(exc.format_message())
        return EXIT_USAGE
    except MregfsError as exc:
        complain(str(exc))
        _debug()
        return exc.exit_code
    except UnicodeEncodeError as exc:
        complain(f"{exc.object!r} is not UTF-8, and cannot be used here: use another name")
        _debug()
        return InvalidError.exit_code
    except OutputError as exc:
        outcome = "what was asked is done" if exc.done else "write it elsewhere"
        complain(f"standard output could not be written ({exc.strerror}): {outcome}")
        _debug()
        return EXIT_HOST
    except OSError as exc:
        what = f"{exc.filename}: " if exc.filename else ""
        complain(f"{what}{exc.strerror or exc}")
        _debug()
        return ForbiddenError.exit_code if isinstance(exc, PermissionError) else EXIT_HOST
    except ModuleNotFoundError as exc:
        if (exc.name or "").startswith("mregfs"):
            return _internal(exc)
        complain(
            f"this installation only reads through mounts: there is no module {exc.name}: "
            "install it with: pip install 'mregfs[mount]'"
        )
        _debug()
        return UnsupportedError.exit_code
    except Exception as exc:  # noqa: BLE001  the last place before the user: no traceback gets past
        return _internal(exc)
    return code


def _internal(exc: Exception) -> int:
    complain(
        f"internal error ({type(exc).__name__}: {exc}); run with MREGFS_DEBUG=1 for the traceback"
    )
    _debug()
    return EXIT_INTERNAL


def _run(arguments: Sequence[str]) -> int:
    instruction = os.environ.get(COMPLETE_VARIABLE)
    if instruction:
        from mregfs.cli.completion import complete

        return complete(group, COMPLETE_VARIABLE, instruction)
    try:
        with group.make_context("mregfs", list(arguments)) as ctx:
            group.invoke(ctx)
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except click.Abort:
        raise KeyboardInterrupt from None
    return 0


def _debug() -> None:
    if os.environ.get("MREGFS_DEBUG"):
        import traceback

        traceback.print_exc()
