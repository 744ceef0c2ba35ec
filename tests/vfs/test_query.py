"""`.mregfs/query/COMMAND`: names that are questions, and what they are answered with."""

import errno
import json
import shlex
from typing import Any

import pytest
import trio

from mregfs.errors import HostError, MregfsError, NotFoundError
from mregfs.model.queries import spell
from mregfs.registry.read import answers
from mregfs.vfs import query
from mregfs.vfs.interface import Caller


async def ask(rig, text: str, caller: Caller | None = None) -> dict[str, Any]:
    """Return what the file system answers to a question."""
    found = await rig.walk(".mregfs/query/" + "/".join(spell(text)))
    opened = await rig.fs.open(found.inode, 0, caller or rig.caller)
    data = b""
    while piece := await rig.fs.read(opened.handle, len(data), 1 << 16):
        data += piece
    rig.fs.release(opened.handle)
    assert data.endswith(b"\n")
    return json.loads(data)


async def all_of(rig, text: str) -> list[Any]:
    """Return a whole list, answer by answer."""
    found: list[Any] = []
    command, after = text, ""
    while True:
        reply = await ask(rig, command)
        assert reply["ok"], reply
        found += reply["result"]
        if "more" not in reply:
            return found
        assert reply["more"] != after
        after = reply["more"]
        if text.startswith("log"):
            command = f"log --since={after}"
        else:
            command = f"{text} --after={shlex.quote(after)}"


@pytest.fixture
async def promoted(rig):
    """Two versions of mnist, the second one in a collection as production."""
    await rig.commit("mnist", {"config.json": b"{}", "deep/er/weights.bin": b"1" * 100})
    await rig.commit("mnist", {"config.json": b"[]", "new.txt": b"x"}, "--alias best")
    await rig.control("ln mnist:v0 classifier:production")
    await rig.control("ln -f mnist:v1 classifier:production")
    return rig


async def test_what_the_verbs_show_is_answered(promoted) -> None:
    owners = (await ask(promoted, "ls"))["result"]
    versions = (await ask(promoted, "ls mnist"))["result"]
    files = (await ask(promoted, "ls mnist:v0"))["result"]
    below = (await ask(promoted, "ls mnist:v0 deep"))["result"]
    version = (await ask(promoted, "show classifier:production"))["result"]
    owner = (await ask(promoted, "show classifier"))["result"]
    moves = (await ask(promoted, "history classifier:production"))["result"]
    differing = (await ask(promoted, "diff mnist:v0 mnist:v1"))["result"]
    used = (await ask(promoted, "du mnist"))["result"]
    status = (await ask(promoted, "status"))["result"]

    assert [("artifact", "mnist"), ("collection", "classifier")] == [
        (each["kind"], each["name"]) for each in owners
    ]
    assert ["v1", "v0"] == [each["version"] for each in versions]
    assert ["config.json", "deep", "deep/er", "deep/er/weights.bin"] == [e["path"] for e in files]
    assert ["deep/er", "deep/er/weights.bin"] == [each["path"] for each in below]
    assert ("mnist", "v1", ["latest", "production"]) == (
        version["artifact"],
        version["version"],
        version["aliases"],
    )
    assert {"latest": "v1", "production": "v1"} == owner["aliases"]
    assert ["production: v0 -> v1", "production: nothing -> v0"] == [m["what"] for m in moves]
    assert ["new.txt"] == [each["path"] for each in differing["added"]]
    assert ["config.json"] == [each["path"] for each in differing["changed"]]
    assert (2, 4, 105) == (used["versions"], used["files"], used["logical"])
    assert (1, 1, 2, 1) == tuple(
        status[name] for name in ("artifacts", "collections", "versions", "projects")
    )


async def test_the_path_is_below_the_top_of_the_mount(promoted) -> None:
    reply = await ask(promoted, "path classifier:production")

    assert {"path": "artifacts/mnist/v1"} == reply["result"]


async def test_the_log_is_told_after_a_number_and_from_its_end(promoted) -> None:
    head = (await ask(promoted, "log --limit 1"))["result"]
    rest = (await ask(promoted, "log --since 2"))["result"]

    assert [(await ask(promoted, "status"))["sequence"]] == [each["sequence"] for each in head]
    assert [3, 4] == [each["sequence"] for each in rest]
    assert "InvalidError" == (await ask(promoted, "log --since 99"))["error"]


async def test_each_open_is_answered_anew(promoted) -> None:
    before = await ask(promoted, "show mnist:best")
    await promoted.control("ln -f mnist:v0 mnist:best")

    assert ("v1", "v0") == (
        before["result"]["version"],
        (await ask(promoted, "show mnist:best"))["result"]["version"],
    )


@pytest.mark.parametrize(
    ("question", "error", "number"),
    [
        ("show nothing", "NotFoundError", errno.ENOENT),
        ("show", "InvalidError", errno.EINVAL),
        ("show 'a", "InvalidError", errno.EINVAL),
        ("ls --frob", "InvalidError", errno.EINVAL),
        ("ls --limit=x", "InvalidError", errno.EINVAL),
        ("ls --after=1/2", "InvalidError", errno.EINVAL),
        ("history --after=x mnist", "InvalidError", errno.EINVAL),
        ("diff mnist:v0", "InvalidError", errno.EINVAL),
        ("ls mnist:v0 none", "NotFoundError", errno.ENOENT),
        ("show a\nshow b", "InvalidError", errno.EINVAL),
    ],
)
async def test_a_failure_is_an_answer(promoted, question, error, number) -> None:
    reply = await ask(promoted, question)

    assert (False, error, number) == (reply["ok"], reply["error"], reply["errno"])
    assert reply["message"]


@pytest.mark.parametrize("name", [b"frob", b".git", b"shower x", b"sh", b"%73how", b"\xff"])
async def test_what_is_no_question_does_not_exist(rig, name) -> None:
    query_directory = await rig.walk(".mregfs/query")
    with pytest.raises(MregfsError) as caught:
        await rig.fs.lookup(query_directory.inode, name)

    assert caught.value.errno in (errno.ENOENT, errno.EINVAL)


async def test_nothing_is_listed(promoted) -> None:
    await ask(promoted, "ls")

    assert [] == await promoted.names(".mregfs/query")
    assert "query" in await promoted.names(".mregfs")


@pytest.mark.parametrize("raw", ["show%20mnist%3Abest", "show mnist:best", "show%20mnist:b%65st"])
async def test_only_what_a_name_cannot_hold_must_be_escaped(promoted, raw) -> None:
    found = await promoted.walk(f".mregfs/query/{raw}")
    opened = await promoted.fs.open(found.inode, 0, promoted.caller)
    reply = json.loads(await promoted.fs.read(opened.handle, 0, 1 << 16))
    promoted.fs.release(opened.handle)

    assert "v1" == reply["result"]["version"]


async def test_long_questions_take_several_names(rig) -> None:
    deep = "/".join(["ünï cödé 'quoted'" * 5] * 20)
    await rig.commit("mnist", {f"{deep}/file": b"x"})
    names = spell(f"ls mnist:v0 -- {shlex.quote(deep)}")

    reply = await ask(rig, f"ls mnist:v0 -- {shlex.quote(deep)}")

    assert len(names) > 10
    assert max(map(len, names)) <= 255
    assert [f"{deep}/file"] == [each["path"] for each in reply["result"]]


@pytest.mark.parametrize("name", ["show %", "show %zz", "show %ff", "show a%00"])
async def test_a_malformed_escape_is_an_answer(rig, name) -> None:
    parts = [name, "x"] if name.endswith("%") and name == "show %" else [name]
    found = await rig.walk(".mregfs/query/" + "/".join(parts))
    opened = await rig.fs.open(found.inode, 0, rig.caller)
    reply = json.loads(await rig.fs.read(opened.handle, 0, 1 << 16))
    rig.fs.release(opened.handle)

    assert not reply["ok"]


async def test_a_question_that_is_too_long_is_refused(rig) -> None:
    parent = (await rig.walk(".mregfs/query")).inode
    for number in range(200):
        name = b"ls " + b"x" * 240 + b"%" if not number else b"x" * 250 + b"%"
        parent = (await rig.fs.lookup(parent, name)).inode
    found = await rig.fs.lookup(parent, b"x")
    opened = await rig.fs.open(found.inode, 0, rig.caller)
    reply = json.loads(await rig.fs.read(opened.handle, 0, 1 << 16))
    rig.fs.release(opened.handle)

    assert "InvalidError" == reply["error"]


async def test_lists_come_in_pieces_that_go_on_where_they_ended(promoted, monkeypatch) -> None:
    for name in ("'a b'", "zeta"):
        await promoted.commit(name, {"f": b"x"})
    await promoted.control("mkdir collections/other")
    await promoted.control("tag mnist +x\ntag mnist:v0 +y\ntag mnist +z\n")
    await promoted.control("mv collections/classifier collections/renamed")
    questions = ["ls", "ls -a", "ls mnist", "ls mnist:v0", "ls mnist:v0 deep", "history mnist"]
    questions += ["history renamed", "history renamed:production", "log --since 0", "projects"]
    whole = {each: (await ask(promoted, each))["result"] for each in questions}

    for most in (1, 2, 3):
        monkeypatch.setattr(answers, "MAX_ITEMS", most)
        for each in questions:
            assert whole[each] == await all_of(promoted, each), (most, each)


async def test_an_answer_is_bounded_in_bytes_and_in_time(promoted, monkeypatch) -> None:
    monkeypatch.setattr(answers, "MAX_BYTES", 300)
    assert 2 == len(await all_of(promoted, "ls mnist"))
    assert "more" in await ask(promoted, "ls mnist")
    monkeypatch.setattr(answers, "MAX_BYTES", 50)
    reply = await ask(promoted, "diff mnist:v0 mnist:v1")
    assert (False, errno.E2BIG) == (reply["ok"], reply.get("errno"))

    monkeypatch.setattr(answers, "MAX_BYTES", 1 << 20)
    monkeypatch.setattr(answers, "MAX_SECONDS", 0.0)
    assert 2 == len(await all_of(promoted, "ls mnist"))
    for question in ("du", "du mnist", "diff mnist:v0 mnist:v1"):
        reply = await ask(promoted, question)
        assert (False, "HostError", errno.E2BIG) == (reply["ok"], reply["error"], reply["errno"])
        assert "ask for less" in reply["hint"]


async def test_a_forgotten_name_is_looked_up_again(promoted, monkeypatch) -> None:
    monkeypatch.setattr(query, "MAX_NAMES", 4)
    old = await promoted.walk(".mregfs/query/ls")
    for number in range(5):
        await promoted.walk(f".mregfs/query/ls {number}")
    with pytest.raises(HostError) as caught:
        await promoted.fs.open(old.inode, 0, promoted.caller)

    assert errno.ESTALE == caught.value.errno
    assert (await ask(promoted, "ls"))["ok"]


async def test_a_user_cannot_hold_answers_without_end(promoted, monkeypatch) -> None:
    monkeypatch.setattr(query, "MAX_HELD", 2000)
    found = await promoted.walk(".mregfs/query/ls")
    mine, theirs = Caller(1000, 1000, 0, 0), Caller(1001, 1001, 0, 0)
    handles = []
    with pytest.raises(MregfsError) as caught:
        while len(handles) < 10:
            opened = await promoted.fs.open(found.inode, 0, mine)
            handles.append(opened.handle)

    assert errno.EAGAIN == caught.value.errno
    assert 1 < len(handles) < 10
    handles.append((await promoted.fs.open(found.inode, 0, theirs)).handle)
    for handle in handles:
        promoted.fs.release(handle)
    promoted.fs.release((await promoted.fs.open(found.inode, 0, mine)).handle)


async def test_it_is_only_to_be_read(promoted) -> None:
    found = await promoted.walk(".mregfs/query/ls")
    parent = await promoted.walk(".mregfs/query")
    for attempt in (
        lambda: promoted.fs.open(found.inode, 1, promoted.caller),
        lambda: promoted.fs.unlink(parent.inode, b"ls", promoted.caller),
        lambda: promoted.fs.create(parent.inode, b"ls x", 0o644, 1, promoted.caller),
        lambda: promoted.fs.mkdir(parent.inode, b"d", 0o755, promoted.caller),
        lambda: promoted.fs.rename(parent.inode, b"ls", parent.inode, b"du", 0, promoted.caller),
    ):
        with pytest.raises(MregfsError) as caught:
            await attempt()
        assert caught.value.errno in (errno.EPERM, errno.EROFS)


async def test_many_ask_while_an_alias_moves(promoted) -> None:
    seen: list[str] = []

    async def asking() -> None:
        asked = 0
        while asked < 20 or len(set(seen)) < 2:  # some may be done before the first move is
            reply = await ask(promoted, "show mnist:best")
            seen.append(reply["result"]["version"])
            asked += 1

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(asking)
            turn = 0
            while turn < 30 or len(set(seen)) < 2:
                await promoted.control(f"ln -f mnist:v{turn % 2} mnist:best")
                turn += 1

    assert 200 <= len(seen)
    assert {"v0", "v1"} == set(seen)


async def test_closed_projects_are_not_told_of(promoted, monkeypatch) -> None:
    await promoted.control("mkdir projects/acme/secret/collections/c")
    await promoted.control("ln mnist:v0 acme/secret/c:here")
    closed = "acme/secret"
    monkeypatch.setattr(
        promoted.special._questions, "_may_read", lambda caller, project: project != closed
    )

    assert ["default/default"] == (await ask(promoted, "projects"))["result"]
    assert ["mnist", "classifier"] == [e["name"] for e in (await ask(promoted, "ls -a"))["result"]]
    assert "ForbiddenError" == (await ask(promoted, "ls --project acme/secret"))["error"]
    assert "ForbiddenError" == (await ask(promoted, "access acme/secret"))["error"]
    assert "*" == (await ask(promoted, "access default/default"))["result"]["readers"]
    assert "ForbiddenError" == (await ask(promoted, "show acme/secret/c:here"))["error"]
    for question in ("show mnist:v0", "history mnist", "history mnist:v0", "log --since 0"):
        assert "secret" not in json.dumps((await ask(promoted, question))["result"])
    with pytest.raises(NotFoundError):
        await promoted.walk(".mregfs/query/frob")
