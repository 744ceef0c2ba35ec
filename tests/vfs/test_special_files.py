"""`.mregfs/control`, `.mregfs/events` and `.mregfs/status`."""

import errno
import json
import time
from collections.abc import Sequence
from select import POLLIN

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from mregfs.errors import MregfsError
from mregfs.model.grammar import Statement
from mregfs.registry.log.tail import LogTail
from mregfs.vfs.control import Outcome
from mregfs.vfs.events import EventReaders
from mregfs.vfs.interface import Caller, OpenFlags
from tests.vfs.rig import WRITE_ONLY, Rig

NONBLOCK = 0o4000


async def opened(rig: Rig, path: str, flags: int, caller: Caller | None = None) -> int:
    found = await rig.walk(path)
    return (await rig.fs.open(found.inode, flags, caller or rig.caller)).handle


async def test_a_script_is_one_transaction(rig: Rig) -> None:
    """All lines of one write, or none: the second line's refusal takes back the first."""
    await rig.commit("mnist", {"a": b"1"})
    head = rig.store.index.applied()
    reply = await rig.control("mkdir collections/one\nln mnist:v9 one:production\n")

    assert not reply["ok"]
    assert errno.ENOENT == reply["errno"]
    assert "line 2" in str(reply["message"])
    assert head == rig.store.index.applied()
    assert [] == await rig.names("collections")
    reply = await rig.control("mkdir collections/one\nln mnist:v0 one:production\n")
    assert head + 1 == reply["sequence"] == rig.store.index.applied()


async def test_a_writer_that_cannot_read_gets_the_errno(rig: Rig) -> None:
    """`echo … >` fails with the errno, and the reason waits for the same user's next `cat`."""
    handle = await opened(rig, ".mregfs/control", WRITE_ONLY)
    with pytest.raises(MregfsError) as caught:
        await rig.fs.write(handle, 0, b"ln nothing:v0 c:production\n")
    assert errno.ENOENT == caught.value.errno
    rig.fs.release(handle)

    mine = await opened(rig, ".mregfs/control", 0)
    theirs = await opened(rig, ".mregfs/control", 0, Caller(uid=1234))
    assert "nothing" in json.loads(await rig.fs.read(mine, 0, 4096))["message"]
    assert (await rig.fs.read(theirs, 0, 4096)).startswith(b"#")


@pytest.mark.parametrize(
    "script", [b"\xff\xfe", b"ln a\0b c", b"frobnicate", b"ln 'x", b"", b"#\n"]
)
async def test_nonsense_is_refused(rig: Rig, script: bytes) -> None:
    """Whatever is written, there is a reply that says what was wrong."""
    handle = await opened(rig, ".mregfs/control", 2)
    await rig.fs.write(handle, 0, script)
    reply = json.loads(await rig.fs.read(handle, len(script), 4096))

    assert not reply["ok"]
    assert errno.EINVAL == reply["errno"]


@pytest.mark.parametrize(
    "script",
    [
        b"mkdir collections/a\nmkdir collections/b",
        b"describe mnist 'two\nlines'",
        b"mkdir collections/a --description " + b"x" * 4096,
    ],
)
async def test_what_may_be_cut_is_refused_with_what_follows_it(rig: Rig, script: bytes) -> None:
    """The next write may begin with the rest of a line, which must not become a command."""
    handle = await opened(rig, ".mregfs/control", WRITE_ONLY)
    with pytest.raises(MregfsError, match="mregfs run") as caught:
        await rig.fs.write(handle, 0, script)
    assert errno.EINVAL == caught.value.errno
    with pytest.raises(MregfsError, match="rest of it"):
        await rig.fs.write(handle, len(script), b"\nmkdir collections/c\n")

    assert [] == await rig.names("collections")


async def test_a_failure_that_is_read_lets_the_descriptor_go_on(rig: Rig) -> None:
    handle = await opened(rig, ".mregfs/control", 2)
    await rig.fs.write(handle, 0, b"mkdir collections/a\nmkdir coll")
    assert not json.loads(await rig.fs.read(handle, 0, 4096))["ok"]
    await rig.fs.write(handle, 0, b"mkdir collections/b\n")

    assert json.loads(await rig.fs.read(handle, 0, 4096))["ok"]
    assert ["b"] == await rig.names("collections")


@pytest.mark.parametrize("size", [1, 5, 4096])
async def test_begin_and_end_make_one_transaction_of_any_writes(rig: Rig, size: int) -> None:
    """Wherever the writes are cut; and `end` within a quoted text is text."""
    await rig.commit("mnist", {"a": b"1"})
    head = rig.store.index.applied()
    text = b"# all at once\nbegin\nmkdir collections/a\ndescribe mnist 'to the\nend\nof it'\nend\n"
    handle = await opened(rig, ".mregfs/control", WRITE_ONLY)
    first, rest = text[:20], text[20:]
    for piece in (first, *(rest[at : at + size] for at in range(0, len(rest), size))):
        assert head == rig.store.index.applied()
        assert len(piece) == await rig.fs.write(handle, 0, piece)

    assert head + 1 == rig.store.index.applied()
    assert ["a"] == await rig.names("collections")
    await rig.fs.write(handle, 0, b"mkdir collections/b")  # the descriptor goes on as before
    assert ["a", "b"] == await rig.names("collections")


async def test_a_transaction_that_is_not_ended_is_not_done(rig: Rig) -> None:
    head = rig.store.index.applied()
    handle = await opened(rig, ".mregfs/control", WRITE_ONLY)
    await rig.fs.write(handle, 0, b"begin\nmkdir collections/a\nend")
    rig.fs.release(handle)

    assert head == rig.store.index.applied()
    reader = await opened(rig, ".mregfs/control", 0)
    assert "before its `end`" in json.loads(await rig.fs.read(reader, 0, 4096))["message"]


@pytest.mark.parametrize(
    ("pieces", "says"),
    [
        ([b"begin\n", b"mkdir collections/a\nfrobnicate\n", b"end\n"], "line 3 (frobnicate)"),
        ([b"begin\nmkdir collections/a\nend\nmkdir collections/b\n"], "follows `end`"),
        ([b"begin\n", b"begin\nmkdir collections/a\n", b"end\n"], "stands alone"),
        ([b"mkdir collections/a\nend\n"], "stands alone"),
        ([b"begin\n", b"#" * (1 << 20)], "over 1048576 bytes"),
        ([b"begin\n", b"\xff\n", b"end\n"], "not UTF-8"),
    ],
)
async def test_a_transaction_of_many_writes_is_done_whole_or_refused(
    rig: Rig, pieces: list[bytes], says: str
) -> None:
    handle = await opened(rig, ".mregfs/control", WRITE_ONLY)
    for piece in pieces[:-1]:
        await rig.fs.write(handle, 0, piece)
    with pytest.raises(MregfsError) as caught:
        await rig.fs.write(handle, 0, pieces[-1])

    assert (errno.EINVAL, True) == (caught.value.errno, says in str(caught.value))
    assert [] == await rig.names("collections")


async def test_who_opens_what_another_writes_to_is_sent_back_once(rig: Rig) -> None:
    """ESTALE makes Linux look the name up again, which then has another inode."""
    found = await rig.walk(".mregfs/control")
    first = await rig.fs.open(found.inode, WRITE_ONLY, Caller(pid=1))
    with pytest.raises(MregfsError) as caught:
        await rig.fs.open(found.inode, WRITE_ONLY, Caller(pid=2))
    assert errno.ESTALE == caught.value.errno
    again = await rig.walk(".mregfs/control")
    assert again.inode != found.inode
    assert again.mode == rig.fs.getattr(again.inode).mode == found.mode
    second = await rig.fs.open(again.inode, WRITE_ONLY, Caller(pid=2))

    with pytest.raises(MregfsError):
        await rig.fs.open(found.inode, WRITE_ONLY, Caller(pid=3))
    third = await rig.fs.open(found.inode, WRITE_ONLY, Caller(pid=3))  # never twice in a row
    for handle in (first.handle, second.handle, third.handle):
        rig.fs.release(handle)
    assert again.inode == (await rig.walk(".mregfs/control")).inode
    await rig.fs.open(found.inode, WRITE_ONLY, Caller(pid=4))


async def test_a_move_takes_no_name_away(rig: Rig) -> None:
    """What only moves aliases is answered before the kernel is told; what makes names is not."""
    for number in range(2):
        await rig.commit("mnist", {"a": b"%d" % number})
    await rig.control("ln -sf mnist:v0 c:production")
    await rig.control("ln -sf mnist:v1 c:production")
    rig.notices.forget_all()
    await rig.control("ln -sf mnist:v0 c:production")
    assert "v0" == await rig.readlink("collections/c/production")
    assert [] == rig.notices.names
    await rig.control("ln -sf mnist:v0 c:staging")
    assert [b"staging"] == [name for _, name in rig.notices.names]


async def test_a_command_waits_for_names_whoever_followed_its_entry(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another task may tell the kernel of the entry before the command that made it gets there."""
    await rig.commit("mnist", {"a": b"1"})
    await rig.control("ln -sf mnist:v0 c:production")
    transactions = rig.runner._transactions

    class FollowedAtOnce:
        def run(self, statements: Sequence[Statement], caller: Caller, requester: int) -> Outcome:
            outcome = transactions.run(statements, caller, requester)
            trio.from_thread.run_sync(rig.runner._follower.follow)
            return outcome

    monkeypatch.setattr(rig.runner, "_transactions", FollowedAtOnce())
    rig.notices.forget_all()
    await rig.control("rm c:production")

    assert [b"production"] == [name for _, name in rig.notices.names]
    assert 1 == rig.notices.drained


async def test_a_commit_of_an_open_draft_is_refused(rig: Rig) -> None:
    """EBUSY names the files that are still open; after their close the commit works."""
    await rig.write("staging/run/done", b"1")
    parent = (await rig.walk("staging/run")).inode
    handle = (await rig.fs.create(parent, b"busy", 0o644, WRITE_ONLY, rig.caller))[0].handle
    await rig.fs.write(handle, 0, b"2")
    reply = await rig.control("commit run mnist")
    assert errno.EBUSY == reply["errno"]
    assert "busy" in str(reply["message"])
    rig.fs.release(handle)

    assert (await rig.control("commit run mnist"))["ok"]
    assert b"2" == await rig.read("artifacts/mnist/v0/busy")


async def test_events_come_from_the_moment_of_open(rig: Rig) -> None:
    """A reader blocks until the next entry, and gets a line of JSON for it."""
    await rig.commit("mnist", {"a": b"1"})
    handle = await opened(rig, ".mregfs/events", 0)
    got: list[bytes] = []

    async def read() -> None:
        got.append(await rig.fs.read(handle, 0, 65536))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        assert [] == got
        await rig.control("ln mnist:v0 c:production --reason promoted")

    (line,) = got[0].splitlines()
    event = json.loads(line)
    assert rig.store.index.applied() == event["sequence"]
    assert ["collection-created", "linked", "alias-set"] == [c["change"] for c in event["changes"]]
    assert {"promoted"} == {c["reason"] for c in event["changes"]}


async def test_events_since(rig: Rig) -> None:
    """`since N` replays what came after N; small reads lose nothing between them."""
    for number in range(3):
        await rig.commit("mnist", {"a": b"%d" % number})
    head = rig.store.index.applied()
    handle = await opened(rig, ".mregfs/events", 2 | NONBLOCK)
    await rig.fs.write(handle, 0, b"since 0\n")
    data = b""
    with pytest.raises(MregfsError) as caught:
        while True:
            data += await rig.fs.read(handle, 0, 7)

    assert errno.EAGAIN == caught.value.errno
    assert [*range(1, head + 1)] == [json.loads(line)["sequence"] for line in data.splitlines()]
    for nonsense in (b"since -1", b"since 99999", b"until 3", b"\xff"):
        with pytest.raises(MregfsError):
            await rig.fs.write(handle, 0, nonsense)


async def test_events_are_not_ahead_of_the_index(rig: Rig) -> None:
    """The log may have more than the kernel was told of: what a line tells of is there with it."""
    for number in range(2):
        await rig.commit("mnist", {"a": b"%d" % number})
    shown = rig.store.index.applied()
    tail = LogTail(rig.store.log, rig.store.index, time.monotonic_ns)
    await rig.commit("mnist", {"a": b"2"})
    readers = EventReaders(tail, lambda caller, project: True)
    readers.open(2, OpenFlags(blocks=False), rig.caller)
    readers.write(2, b"since 0")
    lines = (await readers.read(2, 1 << 20)).splitlines()

    assert [*range(1, shown + 1)] == [json.loads(line)["sequence"] for line in lines]
    with pytest.raises(MregfsError):
        await readers.read(2, 1 << 20)


async def test_poll_tells_when_a_read_would_not_block(rig: Rig) -> None:
    """poll(2) is woken once per entry; other files are always ready."""
    await rig.commit("mnist", {"a": b"1"})
    handle = await opened(rig, ".mregfs/events", 0)
    woken: list[int] = []
    assert not await rig.fs.poll(handle, lambda: woken.append(1)) & POLLIN
    await rig.control("ln mnist:v0 c:production")

    assert [1] == woken
    assert await rig.fs.poll(handle, None) & POLLIN


async def test_entries_of_other_processes_reach_the_kernel(rig: Rig) -> None:
    """What another process appends wakes readers, and makes names stale in the kernel."""
    await rig.commit("mnist", {"a": b"1"})
    await rig.control("ln mnist:v0 c:production")
    other = Rig(rig.store)
    collection = (await rig.walk("collections/c")).inode
    handle = await opened(rig, ".mregfs/events", 0)
    rig.notices.forget_all()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.runner.follow)
        await other.control("rm c:production")
        with trio.fail_after(2):
            line = await rig.fs.read(handle, 0, 4096)
            await rig.notices.told.wait()
        nursery.cancel_scope.cancel()

    assert "alias-dropped" == json.loads(line)["changes"][0]["change"]
    assert (collection, b"production") in rig.notices.names


async def test_status_tells_where_the_mount_stands(rig: Rig) -> None:
    """Store, sequence number, lag, passthrough and versions, as JSON."""
    await rig.commit("mnist", {"a": b"1"})
    handle = await opened(rig, ".mregfs/status", 0)
    status = json.loads(await rig.fs.read(handle, 0, 65536))

    assert rig.store.index.applied() == status["sequence"]
    assert 0 == status["lag"]
    assert "default/default" == status["project"]
    assert rig.store.id == status["store_id"]
    assert isinstance(status["passthrough"]["available"], bool)
    assert status["versions"]["mregfs"]
