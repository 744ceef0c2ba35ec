"""The standard streams of the process: how they are opened, what is written to them, what fails.

Decided here: how bytes of a path that are no UTF-8 are written, the form of an error line, what a
failed write of standard output is. Not decided here: what is printed (`output`), which errors there
are and the exit codes (`main`).
"""

import codecs
import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

__all__ = ["COMPLAINT", "OutputError", "complain", "let_go_of_output", "set_up"]

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


def set_up() -> None:
    """Make the streams of this process ready for whatever is to be written."""
    _open_streams()
    codecs.register_error(ESCAPE, _escape)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout = _Output.over(sys.stdout)
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors=ESCAPE)


def let_go_of_output() -> None:
    """Write what is kept back of standard output, or drop it where it takes no more."""
    try:
        sys.stdout.flush()
    except OSError:
        # What is still buffered can't be written: keep the interpreter from trying at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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


def complain(message: str) -> None:
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
