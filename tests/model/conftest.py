"""A registry in a dict: decides and applies commands, so that tables of rules read as sentences."""

from collections.abc import Iterator
from typing import Any

import pytest

from mregfs.errors import MregfsError
from mregfs.model.changes import Change, Entry, Request, decode_entry, encode_entry
from mregfs.model.commands import Command, CommitRequest, LogVersion, Principal
from mregfs.model.grammar import parse_script
from mregfs.model.names import DEFAULT_PROJECT
from mregfs.model.records import AccessRecord, OwnerRecord
from mregfs.model.reference import Location, parse_location
from mregfs.model.rules import Overlay, Stamp, apply_changes, apply_entry, decide
from mregfs.model.state import State, access_key, encode_record

EVERYBODY_WRITES = encode_record(AccessRecord("*", "*", None, "", 0))
ANN = Principal("ann", frozenset({"ml"}))
BOB = Principal("bob")
ROOT = Principal("root", frozenset({"root"}), privileged=True)


class Nothing:
    """The view of an empty index, but that everybody may write: who may is a matter of its own."""

    def get(self, table: str, key: bytes) -> bytes | None:
        return EVERYBODY_WRITES if (table, key) == ("access", access_key("")) else None

    def scan(
        self, table: str, prefix: bytes = b"", start: bytes = b"", *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        del table, prefix, start, reverse
        return iter(())


class Book:
    """One registry. Each call of `run` or `do` is one log entry, one second after the last."""

    ann, bob, root = ANN, BOB, ROOT

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.view = Overlay(Nothing())

    @property
    def state(self) -> State:
        return State(self.view)

    @staticmethod
    def at(text: str) -> Location:
        return parse_location(text, DEFAULT_PROJECT)

    def owner(self, text: str) -> OwnerRecord:
        return self.state.find_owner(self.at(text))

    def do(
        self, *commands: Command, principal: Principal = ANN, reason: str = ""
    ) -> dict[str, Any]:
        """Carry commands out in one transaction, and return the last one's result."""
        sequence = len(self.entries) + 1
        stamp = Stamp(sequence, sequence * 10**9, principal.signature, reason)
        draft = Overlay(self.view)
        changes: list[Change] = []
        result: dict[str, Any] = {}
        for command in commands:
            decision = decide(State(draft), command, principal)
            draft.apply(apply_changes(draft, decision.changes, stamp))
            changes += decision.changes
            result = decision.result
        if changes:
            request = Request(
                principal.author or principal.user, tuple(changes), reason, principal.user
            )
            self.append(Entry(sequence, "0" * 64, "t", sequence * 10**9, "host", (request,)))
            assert draft.puts() == self.last_puts
        return result

    def append(self, entry: Entry) -> None:
        """Apply a log entry, as it is read back from the log."""
        read_back = decode_entry(encode_entry(entry), "log/x")
        self.last_puts = apply_entry(self.view, read_back)
        self.view.apply(self.last_puts)
        self.entries.append(read_back)

    def fact(self, *changes: Change) -> None:
        """Apply changes that nobody decided."""
        sequence = len(self.entries) + 1
        request = Request("mallory", changes)
        self.append(Entry(sequence, "0" * 64, "t", sequence * 10**9, "host", (request,)))

    def run(self, script: str, principal: Principal = ANN) -> dict[str, Any]:
        """Carry a script out; `commit NAME ARTIFACT` stores content that is NAME's own."""
        commands: list[Command] = []
        reason = ""
        for statement in parse_script(script, DEFAULT_PROJECT):
            request = statement.command
            reason = statement.reason
            if isinstance(request, CommitRequest):
                commands += self.committed(request)
            else:
                commands.append(request)
        return self.do(*commands, principal=principal, reason=reason)

    @staticmethod
    def committed(request: CommitRequest) -> tuple[Command, ...]:
        digest = request.draft.encode().hex().rjust(64, "0")
        return request.commands(digest=digest, layout="1" * 32, size=10, files=2, entries=3)

    def refuse(
        self,
        script: str | Command,
        error: type[MregfsError],
        *said: str,
        principal: Principal = ANN,
    ) -> None:
        """Check that a script is refused, that the message says so, and that nothing changed."""
        before = len(self.entries), self.view.puts()
        ask = self.run if isinstance(script, str) else self.do
        with pytest.raises(error) as caught:
            ask(script, principal=principal)
        assert error is type(caught.value)
        assert [] == [word for word in said if word not in str(caught.value)]
        assert before == (len(self.entries), self.view.puts())

    def aliases(self, name: str) -> dict[str, str]:
        """Return where the aliases of an artifact or collection point."""
        owner = self.owner(name)
        return {alias.name: f"v{alias.number}" for alias in self.state.aliases(owner.inode)}

    def numbers(self, name: str) -> list[int]:
        owner = self.owner(name)
        records = self.state.versions if owner.kind == "artifact" else self.state.links
        return [record.number for record in records(owner.inode)]

    def history(self, name: str, alias: str) -> list[tuple[int | None, int | None]]:
        """Return (number, previous) of each move, newest first."""
        reflog = self.state.reflog(self.owner(name).inode, alias)
        return [(move.number, move.previous) for move in reflog]

    def log_version(self, **fields: Any) -> LogVersion:
        given = {"artifact": "mnist", "digest": "ab" * 32, "size": 1, "files": 1, "entries": 1}
        return LogVersion(project=DEFAULT_PROJECT, layout="1" * 32, **{**given, **fields})


@pytest.fixture
def book() -> Iterator[Book]:
    """An empty registry; at the end its log is replayed and must give the same state."""
    book = Book()
    yield book
    again = Overlay(Nothing())
    for entry in book.entries:
        again.apply(apply_entry(again, entry))
    assert book.view.puts() == again.puts()


@pytest.fixture
def mnist(book: Book) -> Book:
    """A registry with an artifact of three versions and a collection of two links."""
    book.run("commit one mnist --alias best\ncommit two mnist\ncommit three mnist")
    book.run("ln mnist:v0 classifier:production\nln mnist:v2 classifier")
    return book
