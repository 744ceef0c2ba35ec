"""`.mregfs/control`: command lines in, JSON out, on the same descriptor.

Decided here: which writes are one transaction, that what is cut is refused, what a reply looks
like, who gets a failure as the errno of its write, and what a plain `cat` shows. Not decided here:
the grammar (`model.grammar`), what commands do (`transactions`).
"""

import errno
import itertools
import re
from collections import Counter
from typing import Any, NamedTuple

import msgspec

from mregfs.errors import HostError, InvalidError, MregfsError
from mregfs.model.forms import COMMANDS
from mregfs.model.grammar import MAX_SCRIPT
from mregfs.model.tokenizer import split_commands
from mregfs.vfs.interface import Caller, OpenFlags
from mregfs.vfs.numbers import CONTROL, CONTROLS

__all__ = ["ControlSessions", "Outcome", "usage_text"]

_MAX_REMEMBERED = 1024

_WHOLE = 4096
"""Bytes of a write that may have been cut where it ends: what programs buffer at least."""

_BEGIN = re.compile(rb"\A(?:[ \t\r]*(?:#[^\n]*)?\n)*[ \t]*begin[ \t\r]*(?:\n|\Z)")
_END = re.compile(rb"^[ \t]*end[ \t\r]*\n", re.MULTILINE)
_SEND_WHOLE = "send it with: mregfs run FILE; or write `begin` before it and `end` after it"


class Outcome(NamedTuple):
    """What a script came to: its sequence number in the log, and a result per command."""

    sequence: int
    results: list[dict[str, Any]]
    keeps_names: bool = False
    """True when no name came or went: aliases moved, and nothing else happened."""
    consumed: tuple[int, ...] = ()
    """Inodes of drafts that became versions, or another user's: the kernel is to ask again."""


class Session(msgspec.Struct):
    """One open descriptor."""

    caller: Caller
    inode: int
    writes: bool
    reads_back: bool
    """False for a descriptor that was opened for writing only: it gets errnos instead."""
    reply: bytes = b""
    cursor: int = 0
    script: bytearray | None = None
    """What was written since `begin`; None: each write is a transaction."""
    is_cut: bool = False
    """A write was cut and its failure is not read yet: what is written now may be its rest."""


def usage_text() -> str:
    """Return what `cat .mregfs/control` shows before anything was written."""
    lines = [
        "# write commands, one a line; one write is one transaction; read the reply as JSON",
        "# or `begin`, then commands in any number of writes, then `end`: one transaction",
    ]
    lines += [f"#   {form.usage}\n#       {form.summary}" for form in COMMANDS.values()]
    return "\n".join(lines) + "\n"


class ControlSessions:
    """All open descriptors of the control file of one mount."""

    def __init__(self) -> None:
        self._sessions: dict[int, Session] = {}
        self._last: dict[int, bytes] = {}
        self._inode = CONTROL
        self._numbers = itertools.count(CONTROLS)
        self._writers: Counter[int] = Counter()
        self._sent_back: set[int] = set()

    def inode(self) -> int:
        """Return the file's inode number for whoever looks it up now: one that no writer has open.

        Linux lets one process at a time write to an inode, and a commit is a write that may take
        minutes: whoever wants to move an alias meanwhile needs another inode.
        """
        if self._inode in self._writers:
            self._inode = next(self._numbers)
        return self._inode

    def _send_back(self, inode: int, caller: Caller) -> None:
        """Let who opens an inode that a writer has open look the name up again.

        Linux does so by itself on ESTALE, once; so nobody gets it twice in a row.
        """
        if caller.pid in self._sent_back:
            self._sent_back.discard(caller.pid)
        elif inode in self._writers:
            if len(self._sent_back) >= _MAX_REMEMBERED:
                self._sent_back.clear()
            self._sent_back.add(caller.pid)
            raise HostError(errno.ESTALE, "another process writes to this file", "open it again")

    def open(self, handle: int, inode: int, flags: OpenFlags, caller: Caller) -> None:
        """Add a descriptor. One that only reads begins with its user's last reply, or the usage.

        Raises:
            HostError: ESTALE, the file has to be looked up again.
        """
        session = Session(caller, inode, flags.writes, flags.reads)
        if session.writes:
            self._send_back(inode, caller)
            self._writers[inode] += 1
        else:
            session.reply = self._last.get(caller.uid) or usage_text().encode()
        self._sessions[handle] = session

    def close(self, handle: int) -> None:
        """Remove a descriptor. What was begun on it and not ended is not done."""
        session = self._sessions.pop(handle, None)
        if session is not None and session.script is not None:
            error = InvalidError(
                "the transaction was closed before its `end`: nothing of it is done",
                "write a last line `end`",
            )
            self.keep_reason(session.caller, error)
        if session is not None and session.writes:
            self._writers[session.inode] -= 1
            if not self._writers[session.inode]:
                del self._writers[session.inode]

    def caller(self, handle: int) -> Caller:
        """Return who opened the descriptor."""
        return self._sessions[handle].caller

    def script(self, handle: int, data: bytes) -> str | None:
        """Return the script that is whole with what was written now; None: its `end` is to come.

        Raises:
            InvalidError: it is cut, too long, not UTF-8, or holds a NUL.
        """
        session = self._sessions[handle]
        if session.is_cut:
            raise InvalidError(
                "an earlier write on this descriptor was refused, and this may be the rest of it",
                _SEND_WHOLE,
            )
        if session.script is None and not _BEGIN.match(data):
            if not data.endswith(b"\n") and (b"\n" in data or len(data) >= _WHOLE):
                session.is_cut = True
                raise InvalidError(
                    "the script ends within a line, so it may be cut",
                    f"end it with a newline, or {_SEND_WHOLE}",
                )
            return _decoded(data)
        begun = bytearray() if session.script is None else session.script
        line = begun.rfind(b"\n") + 1
        begun += data
        session.script, session.reply = begun, b""
        if len(begun) > MAX_SCRIPT:
            session.script, session.is_cut = None, True
            raise InvalidError(
                f"the transaction takes over {MAX_SCRIPT} bytes",
                "nothing of it is done: make it of several",
            )
        if not _END.search(begun, line):
            return None
        try:
            text = _between(_decoded(bytes(begun)))
        except InvalidError:
            session.script, session.is_cut = None, True
            raise
        if text is not None:
            session.script = None
        return text

    def succeeded(self, handle: int, outcome: Outcome) -> None:
        """Keep the reply for the descriptor and for its user's next `cat`."""
        self._keep(handle, {"ok": True, "sequence": outcome.sequence, "results": outcome.results})

    def failed(self, handle: int, error: MregfsError) -> None:
        """Keep the reply; raise the error where nobody would read it.

        Raises:
            MregfsError: `error`, when the descriptor was opened for writing only.
        """
        self._keep(handle, error.reply())
        if not self._sessions[handle].reads_back:
            raise error

    def keep_reason(self, caller: Caller, error: MregfsError) -> None:
        """Keep why something failed that was no write here, for its user's next `cat`."""
        self._remember(caller, _encoded(error.reply()))

    def _keep(self, handle: int, reply: dict[str, Any]) -> None:
        session = self._sessions[handle]
        session.reply, session.cursor = _encoded(reply), 0
        self._remember(session.caller, session.reply)

    def _remember(self, caller: Caller, reply: bytes) -> None:
        if len(self._last) >= _MAX_REMEMBERED:
            self._last.clear()
        self._last[caller.uid] = reply

    def read(self, handle: int, offset: int, size: int) -> bytes:
        """Return the next piece of the reply; at offset 0 begin again.

        The offset is otherwise ignored: writing a command moved the descriptor's.
        """
        session = self._sessions[handle]
        session.is_cut = False
        if offset == 0:
            session.cursor = 0
        data = session.reply[session.cursor : session.cursor + size]
        session.cursor += len(data)
        return data


def _decoded(data: bytes) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise InvalidError("the command is not UTF-8") from None
    if "\0" in text:
        raise InvalidError("the command holds a NUL byte")
    return text


def _between(text: str) -> str | None:
    """Return what stands between `begin` and `end`; None: `end` is part of a quoted text so far.

    Lines keep their numbers, counted from `begin`.

    Raises:
        InvalidError: something follows `end`.
    """
    lines = text.split("\n")
    commands = split_commands(text)
    ends = 0
    try:
        for line, words in commands:
            if words == ["end"]:
                ends = line
                break
    except InvalidError:  # a quote that a later write may close
        return None
    if not ends:
        return None
    if any(rest.strip() for rest in lines[ends:]):
        raise InvalidError(
            "something follows `end`: nothing is done", "write what follows with another write"
        )
    begins = next(at for at, line in enumerate(lines) if line.strip() == "begin")
    return "\n" * (begins + 1) + "\n".join(lines[begins + 1 : ends - 1]) + "\n"


def _encoded(reply: dict[str, Any]) -> bytes:
    return msgspec.json.encode(reply) + b"\n"
