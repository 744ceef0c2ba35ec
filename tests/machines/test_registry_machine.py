"""Any sequence of commands comes to what a registry of plain dicts comes to, and so does replay."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mregfs.errors import MregfsError
from mregfs.model import commands
from mregfs.model.changes import Change, Entry, Request, decode_entry, encode_entry
from mregfs.model.commands import Command, Principal
from mregfs.model.names import ProjectName
from mregfs.model.records import ArtifactRecord
from mregfs.model.reference import Location, When
from mregfs.model.rules import Overlay, Stamp, apply_changes, apply_entry, decide
from mregfs.model.state import FIRST_INODE, STATE_TABLES, State
from mregfs.stores.index_memory import IndexMemory
from tests.machines.registry_model import Key, Owner, PlainRegistry

KEYS = [(project, name) for project in ("e/p", "e/q") for name in ("a", "b c", "d")]
LAYOUT = "1" * 32
ALIASES = ("best", "production")
PRINCIPALS = (
    Principal("ann", frozenset({"ml"})),
    Principal("bob"),
    Principal("root", frozenset({"root"}), privileged=True),
)


class Step(NamedTuple):
    """One command, and what it means to the model."""

    command: Command
    expected: Callable[[PlainRegistry], object]


def locate(key: Key, number: int | None = None, alias: str | None = None) -> Location:
    return Location(ProjectName(*key[0].split("/")), key[1], number=number, alias=alias)


class Choice:
    """Makes commands of drawn integers, taken modulo what is there, so that most make sense."""

    def __init__(
        self, plain: PlainRegistry, draw: Callable[[int], int], principal: Principal
    ) -> None:
        self.plain = plain
        self.draw = draw
        self.principal = principal

    def key(self, *, fresh: bool = False) -> Key:
        keys = sorted(self.plain.owners)
        return KEYS[self.draw(len(KEYS))] if fresh or not keys else keys[self.draw(len(keys))]

    def number(self, key: Key) -> int:
        owner = self.plain.owners.get(key)
        numbers = [*sorted(owner.numbers), owner.next - 1] if owner else [0]
        return max(0, numbers[self.draw(len(numbers))])

    def alias(self, key: Key | None = None) -> str:
        """Choose an alias; mostly one that `key` has moved before."""
        owner = self.plain.owners.get(key) if key else None
        known = sorted(set(ALIASES) & set(owner.moves)) if owner else []
        aliases = ALIASES if self.maybe() or not known else known
        return aliases[self.draw(len(aliases))]

    def maybe(self) -> bool:
        return self.draw(3) == 0

    def expect(self, key: Key, alias: str) -> str | None:
        owner = self.plain.owners.get(key)
        now = owner.aliases.get(alias) if owner else None
        return [None, None, "none" if now is None else f"v{now}", "v1", "none"][self.draw(5)]

    def step(self) -> Step:
        makers = (
            self.log, self.log, self.log, self.link, self.link, self.link, self.move, self.drop,
            self.rollback, self.delete, self.delete_owner, self.create, self.rename, self.protect,
            self.unprotect, self.tag, self.access,
        )  # fmt: skip
        return makers[self.draw(len(makers))]()

    def access(self) -> Step:
        project = ["", "e/p", "e/q"][self.draw(3)]
        who = ["*", "*", "*", "ml", ""]
        readers = who[self.draw(5)] if self.maybe() else None
        writers = None if self.maybe() else who[self.draw(5)]
        name = ProjectName(*project.split("/")) if project else None
        return Step(
            commands.SetAccess(name, readers, writers),
            lambda p: p.access(project, readers, writers, self.principal),
        )

    def logged(self, key: Key, content: int) -> Step:
        project = ProjectName(*key[0].split("/"))
        command = commands.LogVersion(project, key[1], f"{content:064x}", LAYOUT, 1, 1, 2)
        return Step(command, lambda p: p.log(key, str(content), None, None, self.principal))

    def linked(self, source: Key, number: int, key: Key) -> Step:
        alias = ALIASES[0]
        return Step(
            commands.LinkVersion(locate(source, number), locate(key, alias=alias)),
            lambda p: p.link((source, number), key, alias, None, self.principal),
        )

    def log(self) -> Step:
        key, content = self.key(fresh=self.maybe()), self.draw(6)
        alias = self.alias() if self.maybe() else None
        of_type = [None, None, "model", "dataset"][self.draw(4)]
        command = commands.LogVersion(
            ProjectName(*key[0].split("/")), key[1], f"{content:064x}", LAYOUT, 1, 1, self.draw(4),
            type=of_type, aliases=() if alias is None else (alias,),
        )  # fmt: skip
        return Step(command, lambda p: p.log(key, str(content), alias, of_type, self.principal))

    def link(self) -> Step:
        source_key, key = self.key(), self.key(fresh=self.maybe())
        number = self.number(source_key)
        alias = None if self.maybe() else self.alias()
        expect = self.expect(key, alias) if alias else None
        return Step(
            commands.LinkVersion(locate(source_key, number), locate(key, alias=alias), expect),
            lambda p: p.link((source_key, number), key, alias, expect, self.principal),
        )

    def move(self) -> Step:
        key = self.key()
        alias = self.alias(key)
        source_key = self.key() if self.maybe() else key
        number, expect = self.number(source_key), self.expect(key, alias)
        return Step(
            commands.MoveAlias(locate(key, alias=alias), locate(source_key, number), expect),
            lambda p: p.move(key, alias, (source_key, number), expect, self.principal),
        )

    def drop(self) -> Step:
        key = self.key()
        alias = self.alias(key)
        expect = self.expect(key, alias)
        return Step(
            commands.DropAlias(locate(key, alias=alias), expect),
            lambda p: p.drop(key, alias, expect, self.principal),
        )

    def rollback(self) -> Step:
        key = self.key()
        alias, steps = self.alias(key), self.draw(4)
        back = steps if steps != 1 or self.maybe() else None
        when = None if back is None else When(steps=back)
        target = Location(ProjectName(*key[0].split("/")), key[1], alias=alias, when=when)
        return Step(
            commands.Rollback(target), lambda p: p.rollback(key, alias, back, self.principal)
        )

    def delete(self) -> Step:
        key, force = self.key(), self.maybe()
        number = self.number(key)
        return Step(
            commands.DeleteVersion(locate(key, number), force),
            lambda p: p.delete(key, number, force=force, principal=self.principal),
        )

    def delete_owner(self) -> Step:
        key, force = self.key(), self.maybe()
        return Step(
            commands.DeleteOwner(locate(key), force),
            lambda p: p.delete_owner(key, force=force, principal=self.principal),
        )

    def create(self) -> Step:
        key = self.key(fresh=True)
        project = ProjectName(*key[0].split("/"))
        if self.maybe():
            command: Command = commands.CreateArtifact(project, key[1], "dataset")
            return Step(command, lambda p: p.create(key, "artifact", "dataset"))
        of_type = [None, "model"][self.draw(2)]
        command = commands.CreateCollection(project, key[1], of_type)
        return Step(command, lambda p: p.create(key, "collection", of_type or ""))

    def rename(self) -> Step:
        key = self.key()
        new = (key[0], self.key(fresh=True)[1])
        return Step(
            commands.RenameCollection(locate(key), new[1]),
            lambda p: p.rename(key, new, self.principal),
        )

    def protect(self) -> Step:
        key, alias, group = self.key(), self.alias(), ["ml", "root"][self.draw(2)]
        return Step(
            commands.Protect(locate(key, alias=alias), group),
            lambda p: p.protect(key, alias, group, self.principal),
        )

    def unprotect(self) -> Step:
        key = self.key()
        groups = sorted(self.plain.owners[key].groups) if key in self.plain.owners else []
        alias = groups[self.draw(len(groups))] if groups else self.alias()
        return Step(
            commands.Unprotect(locate(key, alias=alias)),
            lambda p: p.unprotect(key, alias, self.principal),
        )

    def tag(self) -> Step:
        key, tag = self.key(), ["x", "y"][self.draw(2)]
        number = self.number(key) if self.maybe() else None
        return Step(commands.Tag(locate(key, number), (tag,)), lambda p: p.tag(key, number, tag))


def may(plain: PlainRegistry, command: Command, principal: Principal) -> None:
    """Ask the model whether somebody may change what a command is about, and see its source."""
    if not isinstance(command, commands.SetAccess):
        about = command.target if hasattr(command, "target") else command
        plain.writer(str(about.project), principal)
    if hasattr(command, "source"):
        plain.reader(str(command.source.project), principal)


class RegistryMachine(RuleBasedStateMachine):
    """One store in memory, with its log."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = PlainRegistry()
        self.index = IndexMemory()
        self.log: list[tuple[bytes, list[tuple[str, bytes, bytes | None]]]] = []
        self.next_inode = FIRST_INODE
        self.seen: dict[int, tuple[str, str, int]] = {}

    @initialize()
    def begin(self) -> None:
        """Begin with an artifact and a collection that has an alias with a past."""
        mnist, best = KEYS[0], KEYS[1]
        everybody = commands.SetAccess(None, writers="*")
        root = PRINCIPALS[2]
        self.carry_out(
            [lambda choice: Step(everybody, lambda p: p.access("", None, "*", root))], root
        )
        for content in range(3):
            self.carry_out([lambda choice, of=content: choice.logged(mnist, of)], PRINCIPALS[0])
        links = [lambda choice, of=number: choice.linked(mnist, of, best) for number in (0, 2)]
        self.carry_out(links, PRINCIPALS[0])

    @rule(
        numbers=st.lists(st.integers(0, 719), min_size=8, max_size=40),
        count=st.integers(1, 3),
        principal=st.sampled_from(PRINCIPALS),
    )
    def transact(self, numbers: list[int], count: int, principal: Principal) -> None:
        """Ask for one to three commands at once: all of them happen, or none."""
        self.carry_out([Choice.step] * count, principal, numbers)

    def carry_out(
        self,
        makers: Sequence[Callable[[Choice], Step]],
        principal: Principal,
        numbers: Sequence[int] = (),
    ) -> None:
        source = iter(numbers)
        plain = deepcopy(self.plain)
        choice = Choice(plain, lambda size: next(source, 0) % size, principal)
        sequence = len(self.log) + 1
        stamp = Stamp(sequence, sequence, principal.signature, "because")
        changes: list[Change] = []
        with self.index.read() as view:
            draft = Overlay(view)
            for maker in makers:
                step = maker(choice)
                expected = found = None
                try:
                    may(plain, step.command, principal)
                    step.expected(plain)
                except MregfsError as exc:
                    expected = type(exc)
                try:
                    decision = decide(State(draft), step.command, principal)
                except MregfsError as exc:
                    found = type(exc)
                assert expected is found, step.command
                if found is not None:
                    return
                draft.apply(apply_changes(draft, decision.changes, stamp))
                changes += decision.changes
        self.plain = plain
        if not changes:
            return
        request = Request(principal.user, tuple(changes), "because", principal.user)
        data = encode_entry(Entry(sequence, "0" * 64, "t", sequence, "h", (request,)))
        with self.index.read() as view:
            puts = apply_entry(view, decode_entry(data, "log/x"))
        assert draft.puts() == puts
        self.index.write(puts, applied=sequence)
        self.log.append((data, puts))

    @invariant()
    def the_state_is_that_of_the_plain_registry(self) -> None:
        with self.index.read() as view:
            state = State(view)
            found = [
                (owner.project, owner.name)
                for project in state.projects()
                for kind in (state.artifacts, state.collections)
                for owner in kind(f"{project.entity}/{project.name}")
            ]
            assert sorted(self.plain.owners) == sorted(found)
            for key, plain in self.plain.owners.items():
                self.compare(state, key, plain)

    @invariant()
    def nothing_is_left_of_what_is_gone(self) -> None:
        with self.index.read() as view:
            state = State(view)
            owned = {
                int.from_bytes(key[:8], "big")
                for table in ("version", "link", "alias", "alias_of", "digest", "reflog",
                              "protection", "backlink")
                for key, _ in view.scan(table)
            }  # fmt: skip
            assert all(state.owner_by_inode(owner) for owner in owned)
            assert len(list(view.scan("backlink"))) == len(list(view.scan("link")))
            assert len(list(view.scan("alias_of"))) == len(list(view.scan("alias")))

    def compare(self, state: State, key: Key, plain: Owner) -> None:
        owner = state.owner(*key)
        assert owner is not None
        assert owner == state.owner_by_inode(owner.inode)
        assert (plain.kind, plain.type) == (owner.kind, owner.type)
        assert (plain.next, len(plain.numbers)) == (owner.next_number, owner.count)
        assert plain.aliases == {at.name: at.number for at in state.aliases(owner.inode)}
        assert plain.groups == {
            alias: protection.group for alias, protection in state.protections(owner.inode)
        }
        for alias in (*ALIASES, "latest"):
            assert plain.moves.get(alias, [])[::-1] == [
                move.number for move in state.reflog(owner.inode, alias)
            ]
        assert sorted(plain.tags.get(None, ())) == list(owner.tags)
        if isinstance(owner, ArtifactRecord):
            versions = list(state.versions(owner.inode))
            assert sorted(plain.numbers) == [version.number for version in versions]
            for version in versions:
                assert int(plain.numbers[version.number]) == int(version.digest, 16)
                assert sorted(plain.tags.get(version.number, ())) == list(version.tags)
                assert (version.digest, version.number) in state.numbers_with_digest(
                    owner.inode, version.digest
                )
                links = self.plain.links(plain, version.number)
                inodes = {(state.owner(*to).inode, link) for to, link in links}
                assert inodes == set(state.links_to(owner.inode, version.number))
        else:
            links_found = list(state.links(owner.inode))
            assert sorted(plain.numbers) == [link.number for link in links_found]
            for link in links_found:
                artifact, number = self.plain.version(key, link.number)
                resolved = state.resolve_number(owner, link.number)
                assert number == resolved.version.number
                assert (
                    artifact is self.plain.owners[resolved.artifact.project, resolved.artifact.name]
                )

    @invariant()
    def inode_numbers_are_allotted_once(self) -> None:
        with self.index.read() as view:
            state = State(view)
            assert self.next_inode <= state.next_inode()
            self.next_inode = state.next_inode()
            for key, _ in view.scan("inode"):
                inode = int.from_bytes(key, "big")
                record = state.inode(inode)
                assert record is not None
                what = (record.kind, "" if record.kind == "collection" else record.name,
                        record.number)  # fmt: skip
                before = self.seen.setdefault(inode, what)
                assert record.kind == "gone" or what == before
                assert inode < self.next_inode

    def teardown(self) -> None:
        """Replay from the log alone gives the same puts, and so the same state, byte for byte."""
        again = IndexMemory()
        for number, (data, puts) in enumerate(self.log, start=1):
            with again.read() as view:
                assert puts == apply_entry(view, decode_entry(data, "log/x"))
            again.write(puts, applied=number)
        at_once = IndexMemory()
        with at_once.read() as view:
            overlay = Overlay(view)
            for data, _ in self.log:
                overlay.apply(apply_entry(overlay, decode_entry(data, "log/x")))
        at_once.write(overlay.puts())
        with self.index.read() as view, again.read() as second, at_once.read() as third:
            for table in STATE_TABLES:
                assert list(view.scan(table)) == list(second.scan(table))
                assert list(view.scan(table)) == list(third.scan(table))


RegistryMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30)
TestRegistryMachine = pytest.mark.slow(RegistryMachine.TestCase)
