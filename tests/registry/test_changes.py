"""The one door for changes: who may not is refused, whatever he asks, before anything is done."""

import ast
import ctypes
import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

import mregfs
from mregfs import Registry
from mregfs.errors import ConflictError, ForbiddenError, HostError, InvalidError, UnsupportedError
from mregfs.model.commands import Asked, CommitRequest, GiveDraft, Principal, User
from mregfs.model.grammar import Statement, parse_script
from mregfs.model.names import DEFAULT_PROJECT
from mregfs.registry.write.changes import Changed, OneSource, Source
from mregfs.wiring.opening import init_store
from mregfs.wiring.store import Store
from tests.registry.changing import ALL, UNWRITTEN, WRITTEN
from tests.registry.rig import PRINCIPAL, draft_intake, in_child

PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP = 28, 1 << 2  # linux/prctl.h, linux/securebits.h
EVE = Principal("eve", frozenset({"readers"}))


class Untouched:
    """Drafts of which nobody may so much as ask."""

    def take(self, request: CommitRequest) -> Source:
        raise AssertionError(f"{request.draft} was taken")

    def give(self, request: GiveDraft, principal: Principal) -> Sequence[int]:
        raise AssertionError(f"{request.draft} was given away")


def asked(kind: type) -> Asked:
    if kind in UNWRITTEN:
        return UNWRITTEN[kind]
    (statement,) = parse_script(WRITTEN[kind], DEFAULT_PROJECT)
    return statement.command


def ask(store: Store, script: str, **said: str) -> Changed:
    return store.changes.submit(parse_script(script, DEFAULT_PROJECT), PRINCIPAL, **said)


def test_there_is_an_example_of_everything_that_can_be_asked() -> None:
    assert ALL == WRITTEN.keys() | UNWRITTEN.keys()
    assert ALL == {type(asked(kind)) for kind in ALL}


@pytest.mark.parametrize("kind", sorted(ALL, key=lambda kind: kind.__name__))
def test_whoever_may_not_is_refused_whatever_he_asks(store: Store, kind: type) -> None:
    """In the same words whether there is such a thing or not, and no draft is touched."""
    with pytest.raises(ForbiddenError, match="'eve'"):
        store.changes.submit([Statement(asked(kind))], EVE, Untouched())
    assert 0 == store.log.catch_up()


def test_one_forbidden_line_keeps_the_drafts_of_all_others_untouched(store: Store) -> None:
    """Nothing is hashed for a transaction that cannot be."""
    ask(store, "access --writers readers\naccess team/theirs --writers others")
    script = "commit mine mnist\ntag team/theirs/m good"
    with pytest.raises(ForbiddenError, match=r"^line 2 \(tag\): only members of group 'others'"):
        store.changes.submit(parse_script(script, DEFAULT_PROJECT), EVE, Untouched())


def test_the_api_answers_whoever_may_not_as_the_door_does(tmp_path: Path) -> None:
    """A program that gave up its rights: the store is open, and he is nobody special any more."""
    init_store(tmp_path / "store")
    with Registry(tmp_path / "store") as registry:
        (tmp_path / "mine").mkdir()

        def check() -> None:
            # As a service of somebody's that root started: he may still open the store's files.
            assert 0 == ctypes.CDLL(None).prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP)
            os.setgroups([])
            os.setegid(64203)
            os.seteuid(64203)
            changes = registry.store.changes
            for kind, line in WRITTEN.items():
                messages = []
                who = User(64203, frozenset({64203}))
                for refused in (
                    lambda: changes.submit([Statement(asked(kind))], who, Untouched()),  # noqa: B023
                    lambda: registry.run(line),  # noqa: B023
                ):
                    with pytest.raises(ForbiddenError, match="'uid 64203'") as caught:
                        refused()
                    messages.append(str(caught.value))
                assert messages[0] == messages[1], kind
            with pytest.raises(ForbiddenError, match="'uid 64203'"):
                registry.commit(tmp_path / "mine", "team/theirs/m")

        in_child(check)
        assert 0 == registry.store.log.catch_up()


def test_a_commit_is_rehearsed_on_top_of_the_lines_before_it(store: Store, tmp_path: Path) -> None:
    """What those make, it may use; when one of them is wrong, it is named and nothing is read."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a").write_bytes(b"a")
    source = OneSource(lambda: store.open_intake(tmp_path / "files"))
    ask(store, "mkdir collections/taken")
    script = parse_script("rmdir collections/taken\ncommit x taken", DEFAULT_PROJECT)
    assert 2 == len(store.changes.submit(script, PRINCIPAL, source).results)

    wrong = parse_script("rmdir collections/none\ncommit x mnist", DEFAULT_PROJECT)
    with pytest.raises(Exception, match=r"line 1 \(rmdir\)"):
        store.changes.submit(wrong, PRINCIPAL, Untouched())


def test_a_source_ends_in_one_of_two_ways(store: Store) -> None:
    """Consumed when the version is there, else given back; whoever fails, all before it is."""
    ended: list[str] = []

    class Two(Untouched):
        def take(self, request: CommitRequest) -> Source:
            name = request.draft
            path = Path(store.host.drafts.path, "staging", "default", "default", name)
            intake = draft_intake(store, path)
            return Source(
                intake, lambda: ended.append(name), lambda: ended.append(f"{name} back"), 7
            )

    one = _draft(store, "one")
    _draft(store, "two")
    script = "commit one mnist\ncommit two mnist\nln mnist:v0 mnist:best --expect v7"
    with pytest.raises(ConflictError):
        store.changes.submit(parse_script(script, DEFAULT_PROJECT), PRINCIPAL, Two())
    assert ["two back", "one back"] == ended
    assert (one / "file").exists()

    ended.clear()
    script = "commit one mnist\ncommit two mnist"
    changed = store.changes.submit(parse_script(script, DEFAULT_PROJECT), PRINCIPAL, Two())
    assert {"one", "two"} == set(ended)
    assert (7, 7) == changed.consumed
    assert not one.exists()


def test_all_drafts_end_whatever_is_raised_when_one_does(store: Store) -> None:
    """A mount that cannot thaw one draft does not keep the others frozen."""
    ended: list[str] = []

    class Broken(Untouched):
        def take(self, request: CommitRequest) -> Source:
            name = request.draft

            def end() -> None:
                ended.append(name)
                raise HostError(errno.EIO, f"{name} is stuck")

            path = Path(store.host.drafts.path, "staging", "default", "default", name)
            return Source(draft_intake(store, path), end, end)

    _draft(store, "one")
    _draft(store, "two")
    for script in (
        "commit one mnist\ncommit two mnist\nln mnist:v0 mnist:best --expect v7",
        "commit one mnist\ncommit two mnist",
    ):
        ended.clear()
        with pytest.raises(HostError, match="is stuck"):
            store.changes.submit(parse_script(script, DEFAULT_PROJECT), PRINCIPAL, Broken())
        assert {"one", "two"} == set(ended)
    assert 1 == store.log.catch_up()


def _draft(store: Store, name: str) -> Path:
    path = Path(store.host.drafts.path, "staging", "default", "default", name)
    path.mkdir(parents=True)
    (path / "file").write_bytes(os.urandom(400_000))
    return path


def test_author_and_reasons_are_said_once(store: Store) -> None:
    ask(store, "mkdir artifacts/a --reason one\nmkdir artifacts/b --reason one", reason="all")
    request = store.log.entry(1).requests[0]
    assert ("all; one", "ann") == (request.reason, request.author)
    ask(store, "mkdir artifacts/c --author bob", author="carol")
    assert "bob" == store.log.entry(2).requests[0].author
    ask(store, "mkdir artifacts/d", author="carol")
    assert "carol" == store.log.entry(3).requests[0].author
    with pytest.raises(InvalidError, match="there is no command"):
        ask(store, "# nothing")


def test_who_has_no_mount_has_no_drafts(store: Store) -> None:
    for line in ("commit run mnist", "give run root"):
        with pytest.raises(UnsupportedError, match="in its mount"):
            ask(store, line)


def test_nobody_else_submits() -> None:
    """Whoever calls `submit` of a log stands here: it is the door."""
    callers = []
    top = Path(mregfs.__file__).parent
    for path in sorted(top.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Attribute) and node.attr in ("submit", "rehearse")):
                continue
            if ast.unparse(node.value).rpartition(".")[2] in ("log", "_log", "registry_log"):
                callers.append(str(path.relative_to(top)))
    assert {"registry/write/changes.py"} == set(callers)
