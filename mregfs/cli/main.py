"""The `mregfs` command: finds the verb, runs it, and turns every failure into one line.

Decided here: exit codes, the form of an error line, what happens on Ctrl-C and on a closed pipe.
Not decided here: what a verb does (its own module).
"""

import codecs
import importlib
import io
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import click

from mregfs.cli.verbs import SECTIONS, VERBS
from mregfs.errors import InvalidError, MregfsError, UnsupportedError

__all__ = [
    "EXIT_CLOSED_PIPE",
    "EXIT_INTERNAL",
    "EXIT_INTERRUPTED",
    "EXIT_USAGE",
    "OutputError",
    "group",
    "main",
]

EXIT_USAGE = 2
EXIT_HOST = 14
EXIT_INTERNAL = 70
EXIT_INTERRUPTED = 130
EXIT_CLOSED_PIPE = 141
"""What a shell reports for a program that a closed pipe ended (128 + SIGPIPE)."""

COMPLETE_VARIABLE = "_MREGFS_COMPLETE"
COMPLAINT = "mregfs: "
"""What every error line begins with."""

ESCAPE = "mregfs"
"""How the streams of this process write what they can't encode; see `_escape`."""
_SURROGATE = re.compile(r"[\udc80-\udcff]|\\udc[89a-f][0-9a-f]")
"""A byte of a path that is no UTF-8, as `os.fsdecode` has it, or as `repr` shows that."""

MAX_COMPLAINT = 2000
"""Characters of an error line; what is cut out of a longer one is before the hint at its end."""


class OutputError(OSError):
    """Standard output took no more; a closed pipe is a BrokenPipeError, as ever."""

    done = False
    """Whether what was asked is done nevertheless."""


class _Output(io.TextIOWrapper):
    """Standard output whose errors are known for what they are."""

    @classmethod
    def over(cls, stream: io.TextIOWrapper) -> "_Output":
        """Take over a stream, which must not be used any more."""
        encoding, line_buffering = stream.encoding, stream.line_buffering
        write_through = stream.write_through
        return cls(
            stream.detach(),
            encoding=encoding,
            errors=ESCAPE,
            line_buffering=line_buffering,
            write_through=write_through,
        )

    def write(self, text: str, /) -> int:
        """Write text."""
        with _told_apart():
            return super().write(text)

    def flush(self) -> None:
        """Write what is kept back."""
        with _told_apart():
            super().flush()


@contextmanager
def _told_apart() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise OutputError(exc.errno, exc.strerror) from exc


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
        command = getattr(module, verb.attribute)
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
    "Every verb takes --help, every one but demo --json.",
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
    _open_streams()
    codecs.register_error(ESCAPE, _escape)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout = _Output.over(sys.stdout)
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors=ESCAPE)
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError:
        # What is still buffered can't be written: keep the interpreter from trying at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _open_streams() -> None:
    """Put /dev/null where a caller closed a standard stream: no file of ours may get its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            stream = os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False)
            setattr(sys, name, stream)


def _escape(error: UnicodeError) -> tuple[str | bytes, int]:
    """Write the bytes of a path as they were, and any other character as an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    if _SURROGATE.match(error.object[error.start]):
        return os.fsencode(error.object[error.start]), error.start + 1
    return error.object[error.start].encode("ascii", "backslashreplace"), error.start + 1


def run(arguments: Sequence[str]) -> int:
    """Run one command line, and return its exit code; errors go to stderr as one line."""
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt as exc:
        _complain(f"interrupted: {exc}" if str(exc) else "interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return EXIT_CLOSED_PIPE
    except click.UsageError as exc:
        where = exc.ctx.command_path if exc.ctx else "mregfs"
        _complain(f"{exc.format_message().rstrip('.')}: see {where} --help")
        return EXIT_USAGE
    except click.ClickException as exc:
        _complain(exc.format_message())
        return EXIT_USAGE
    except MregfsError as exc:
        _complain(str(exc))
        _debug()
        return exc.exit_code
    except UnicodeEncodeError as exc:
        _complain(f"{exc.object!r} is not UTF-8, and cannot be used here: use another name")
        _debug()
        return InvalidError.exit_code
    except OutputError as exc:
        outcome = "what was asked is done" if exc.done else "write it elsewhere"
        _complain(f"standard output could not be written ({exc.strerror}): {outcome}")
        _debug()
        return EXIT_HOST
    except OSError as exc:
        what = f"{exc.filename}: " if exc.filename else ""
        _complain(f"{what}{exc.strerror or exc}")
        _debug()
        return EXIT_HOST
    except ModuleNotFoundError as exc:
        if (exc.name or "").startswith("mregfs"):
            return _internal(exc)
        _complain(
            f"this installation only looks through mounts: there is no module {exc.name}: "
            "install it with: pip install 'mregfs[mount]'"
        )
        _debug()
        return UnsupportedError.exit_code
    except Exception as exc:  # noqa: BLE001  the last place before the user: no traceback gets past
        return _internal(exc)
    return code


def _internal(exc: Exception) -> int:
    _complain(
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


def _complain(message: str) -> None:
    """Write one line to stderr: whatever the message holds, it stays one line."""
    text = " ".join(message.split()) if "\n" in message else message
    text = _SURROGATE.sub(
        lambda found: f"\\x{found[0].encode('unicode_escape')[-2:].decode()}", text
    )
    if len(text) > MAX_COMPLAINT:
        text = f"{text[: MAX_COMPLAINT - 400]} … {text[-400:]}"
    try:
        click.echo(f"{COMPLAINT}{text}", err=True)
    except OSError:
        return  # nobody listens to stderr any more


def _debug() -> None:
    if os.environ.get("MREGFS_DEBUG"):
        import traceback

        traceback.print_exc()
