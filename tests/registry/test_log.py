"""Appending: exactly once, in order, whatever the store or other writers do meanwhile."""

import threading
from typing import Any

import pytest

from mregfs.errors import (
    ConflictError,
    CorruptError,
    InvalidError,
    NotFoundError,
    UnavailableError,
)
from mregfs.model.changes import ENTRY_GRAIN, Entry, decode_entry, encode_entry, entry_key
from mregfs.model.commands import DropAlias, MoveAlias, Tag
from mregfs.model.names import DEFAULT_PROJECT
from mregfs.model.reference import Location
from mregfs.model.state import State
from mregfs.registry.log import append as module
from mregfs.registry.log.log import Log
from mregfs.registry.log.replay import NO_DIGEST, entry_digest
from mregfs.stores.index_memory import IndexMemory
from mregfs.stores.objects_memory import ObjectsMemory
from tests.registry.rig import PRINCIPAL, FlakyObjects, in_threads, make_log, tables, version

BEST = Location(DEFAULT_PROJECT, "mnist", alias="best")


def test_a_transaction_is_one_entry(log: Log, objects: ObjectsMemory) -> None:
    """All commands of a request share an entry, a time and a reason; each has its result."""
    receipt = log.submit(
        [version("mnist", 0, aliases=("best",)), version("cifar", 1)], PRINCIPAL, "why"
    )
    assert 1 == receipt.sequence
    assert ["mnist", "cifar"] == [result["artifact"] for result in receipt.results]
    entry = decode_entry(objects.get(entry_key(1)), "")
    assert entry == receipt.entry
    assert [("ann", "why")] == [(each.author, each.reason) for each in entry.requests]
    assert 1 == log.catch_up()


def test_later_commands_see_earlier_ones(log: Log) -> None:
    """A command is decided on top of those before it in its transaction."""
    receipt = log.submit([version("mnist", 0, aliases=("best",)), DropAlias(BEST)], PRINCIPAL)
    assert "v0" == receipt.results[1]["previous"]


def test_a_failing_command_undoes_its_transaction(log: Log, index: IndexMemory) -> None:
    """Nothing is appended when one of several commands is refused."""
    with pytest.raises(NotFoundError):
        log.submit([version("mnist", 0), DropAlias(BEST)], PRINCIPAL)
    assert 0 == log.catch_up()
    assert all(not rows for rows in tables(index).values())


def test_nothing_to_change_appends_nothing(log: Log) -> None:
    """A transaction without changes has the head as its sequence, and no entry."""
    log.submit([version("mnist", 0)], PRINCIPAL)
    receipt = log.submit([Tag(Location(DEFAULT_PROJECT, "mnist"))], PRINCIPAL)
    assert (1, None) == (receipt.sequence, receipt.entry)
    assert 1 == len(receipt.results)


def test_entries_are_chained(log: Log, objects: ObjectsMemory) -> None:
    """Each entry names the digest of the one before; times rise."""
    for number in range(3):
        log.submit([version("mnist", number)], PRINCIPAL)
    entries = list(log.entries(0))
    digests = [entry_digest(objects.get(entry_key(n))) for n in (1, 2)]
    assert [NO_DIGEST, *digests] == [entry.previous for entry in entries]
    assert sorted({entry.at_ns for entry in entries}) == [entry.at_ns for entry in entries]
    assert [2, 3] == [entry.sequence for entry in log.entries(1)]


def test_a_clock_that_goes_back_does_not_take_history_along(objects: ObjectsMemory) -> None:
    """Entries' times rise although the host's clock was set back."""
    times = iter([10**18, 10**18, 5, 5, 5, 5])
    log = make_log(objects, clock=lambda: next(times))
    log.submit([version("mnist", 0)], PRINCIPAL)
    receipt = log.submit([version("mnist", 1)], PRINCIPAL)
    assert receipt.entry is not None
    assert 10**18 < receipt.entry.at_ns


def test_an_append_whose_answer_got_lost_is_not_repeated(objects: ObjectsMemory) -> None:
    """When the create took effect but reported failure, the writer finds its own entry."""
    flaky = FlakyObjects(objects)
    log = make_log(flaky)
    flaky.after = 1
    receipt = log.submit([version("mnist", 0)], PRINCIPAL)
    assert 1 == receipt.sequence
    assert 1 == log.catch_up()


def test_an_append_that_did_not_arrive_is_sent_again(objects: ObjectsMemory) -> None:
    """The same bytes go to the same key until they can be read there."""
    flaky = FlakyObjects(objects)
    log = make_log(flaky)
    flaky.before = 3
    assert 1 == log.submit([version("mnist", 0)], PRINCIPAL).sequence
    assert 4 == len(flaky.creates)
    assert 1 == len(set(flaky.creates))


def test_an_append_survives_an_unreadable_answer(objects: ObjectsMemory) -> None:
    """Also when the entry cannot be read back at first."""
    flaky = FlakyObjects(objects)
    log = make_log(flaky)
    flaky.after, flaky.mute = 1, 2
    assert 1 == log.submit([version("mnist", 0)], PRINCIPAL).sequence
    assert 1 == log.catch_up()


def test_a_silent_store_leaves_the_outcome_open(objects: ObjectsMemory) -> None:
    """Whoever appended to a store that never answers is told so, within bounds."""
    flaky = FlakyObjects(objects)
    log = make_log(flaky)
    flaky.before = 10**9
    command = version("mnist", 0)
    with pytest.raises(UnavailableError, match="did not say"):
        log.submit([command], PRINCIPAL)
    assert log.has_layout(command.layout, 0) is None
    flaky.before = 0
    assert 1 == log.submit([version("cifar", 1)], PRINCIPAL).sequence
    assert log.has_layout(command.layout, 0) is False
    assert log.has_layout(version("cifar", 1).layout, 0) is True


def test_the_loser_of_a_race_decides_again(objects: ObjectsMemory) -> None:
    """Another process takes the number first: ours comes after, decided against its state."""

    class Racing(FlakyObjects):
        rival: Log | None = None

        def create(self, key: str, data: bytes) -> None:
            rival, self.rival = self.rival, None
            if rival is not None:
                rival.submit([version("mnist", 1)], PRINCIPAL)
            super().create(key, data)

    racing = Racing(objects)
    racing.rival = make_log(objects)
    receipt = make_log(racing).submit([version("mnist", 2)], PRINCIPAL)
    assert (2, "v1") == (receipt.sequence, receipt.results[0]["version"])


def test_the_loser_of_a_race_may_be_refused(objects: ObjectsMemory) -> None:
    """A compare-and-swap that was true before the race is refused after it."""
    setup = make_log(objects)
    setup.submit([version("mnist", 0, aliases=("best",)), version("mnist", 1)], PRINCIPAL)
    first = Location(DEFAULT_PROJECT, "mnist", number=1)

    class Racing(FlakyObjects):
        raced = False

        def create(self, key: str, data: bytes) -> None:
            if not self.raced:
                self.raced = True
                setup.submit([MoveAlias(BEST, first)], PRINCIPAL)
            super().create(key, data)

    with pytest.raises(ConflictError):
        make_log(Racing(objects)).submit([MoveAlias(BEST, first, expect="v0")], PRINCIPAL)
    assert 2 == setup.catch_up()


def test_threads_share_entries(objects: ObjectsMemory, index: IndexMemory) -> None:
    """Requests that wait at the same time go into one entry; none is lost, none is doubled."""
    started = threading.Event()
    gate = threading.Event()

    class Slow(FlakyObjects):
        def create(self, key: str, data: bytes) -> None:
            started.set()
            gate.wait(10)
            super().create(key, data)

    slow = Slow(objects)
    log = make_log(slow, index)
    results: list[str] = []

    def submit(number: int) -> None:
        receipt = log.submit([version("mnist", number)], PRINCIPAL)
        results.append(receipt.results[0]["version"])

    leader = threading.Thread(target=submit, args=(0,))
    leader.start()
    assert started.wait(10)
    followers = [threading.Thread(target=submit, args=(n,)) for n in range(1, 6)]
    for thread in followers:
        thread.start()
    while len(log._appender._queue) < 5:
        threading.Event().wait(0.001)
    gate.set()
    for thread in [leader, *followers]:
        thread.join()
    assert [f"v{n}" for n in range(6)] == sorted(results)
    assert 2 == log.catch_up()
    assert 5 == len(next(iter(log.entries(1))).requests)


def test_one_refused_request_does_not_refuse_its_neighbours(log: Log) -> None:
    """In a shared entry each request succeeds or fails alone."""
    good = [module._Waiting([version("mnist", n)], PRINCIPAL, "") for n in (0, 1)]
    bad = module._Waiting([version("mnist", 2), DropAlias(BEST)], PRINCIPAL, "")
    log._appender._settle([good[0], bad, good[1]])
    assert isinstance(bad.error, NotFoundError)
    assert ["v0", "v1"] == [
        each.receipt.results[0]["version"] for each in good if each.receipt is not None
    ]


def test_many_threads_and_logs_keep_every_number(objects: ObjectsMemory) -> None:
    """Eight threads, two logs: each number is given once; both end at the same entry."""
    logs = [make_log(objects), make_log(objects)]
    numbers: list[str] = []

    def work(worker: int) -> None:
        for step in range(8):
            receipt = logs[worker % 2].submit([version("mnist", 100 * worker + step)], PRINCIPAL)
            numbers.append(receipt.results[0]["version"])

    in_threads([lambda worker=worker: work(worker) for worker in range(8)])
    assert {f"v{n}" for n in range(64)} == set(numbers)
    heads = {log.catch_up() for log in logs}
    assert 1 == len(heads)


def test_an_entry_too_large_is_refused(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction that fits no entry is refused; several that do not fit one share none."""
    monkeypatch.setattr(module, "MAX_ENTRY_SIZE", 4 * ENTRY_GRAIN)
    with pytest.raises(InvalidError, match="split the transaction"):
        log.submit([version("mnist", 0, description="x" * 6000)], PRINCIPAL)
    assert 0 == log.catch_up()
    waiting = [
        module._Waiting([version("mnist", n, description="x" * 2500)], PRINCIPAL, "")
        for n in range(4)
    ]
    waiting.insert(2, module._Waiting([version("cifar", 9, description="x" * 6000)], PRINCIPAL, ""))
    log._appender._settle(waiting)
    assert isinstance(waiting.pop(2).error, InvalidError)
    assert [f"v{n}" for n in range(4)] == [
        each.receipt.results[0]["version"] for each in waiting if each.receipt is not None
    ]


def test_a_full_index_does_not_undo_an_append(
    objects: ObjectsMemory, expected_warnings: "object"
) -> None:
    """What is in the log has happened; the index follows when it can."""
    from mregfs.errors import NoSpaceError

    class Full(IndexMemory):
        full = False

        def write(self, puts, *, expected=None, applied=None):
            if self.full:
                raise NoSpaceError("full")
            return super().write(puts, expected=expected, applied=applied)

    expected_warnings.expect("is in the log, but not in the index")  # type: ignore[attr-defined]
    index = Full()
    log = make_log(objects, index)
    log.catch_up()
    index.full = True
    assert 1 == log.submit([version("mnist", 0)], PRINCIPAL).sequence
    index.full = False
    assert 1 == log.catch_up()
    assert tables(index)["version"]


def test_interrupting_the_leader_settles_everybody(objects: ObjectsMemory) -> None:
    """A KeyboardInterrupt in one thread leaves no other thread waiting."""

    class Interrupted(FlakyObjects):
        def create(self, key: str, data: bytes) -> None:
            raise KeyboardInterrupt

    log = make_log(Interrupted(objects))
    waiting = [module._Waiting([version("mnist", n)], PRINCIPAL, "") for n in (0, 1)]
    with pytest.raises(KeyboardInterrupt):
        log._appender._settle(waiting)
    assert all(isinstance(each.error, UnavailableError) for each in waiting)


def test_a_rehearsal_changes_nothing(log: Log, index: IndexMemory) -> None:
    """It says what the rules would say."""
    log.rehearse([version("mnist", 0)], PRINCIPAL)
    with pytest.raises(NotFoundError):
        log.rehearse([DropAlias(BEST)], PRINCIPAL)
    with index.read() as view:
        assert State(view).artifact(DEFAULT_PROJECT, "mnist") is None


def test_a_chain_that_was_cut_is_noticed(log: Log, objects: ObjectsMemory) -> None:
    """An entry that was exchanged does not go unseen by whoever replays."""
    for number in range(3):
        log.submit([version("mnist", number)], PRINCIPAL)
    forged = decode_entry(objects.get(entry_key(2)), "")
    forged = Entry(**{f: getattr(forged, f) for f in forged.__struct_fields__} | {"host": "evil"})
    objects._objects[entry_key(2)] = encode_entry(forged)
    with pytest.raises(CorruptError, match=f"{entry_key(2)} was changed.*there are later entries"):
        make_log(objects).catch_up()
    with pytest.raises(CorruptError, match=entry_key(3)):
        list(log.entries(0))


def test_an_entry_in_the_wrong_place_is_noticed(
    log: Log, objects: ObjectsMemory, expected_warnings: Any
) -> None:
    """An entry says which one it is; nothing is appended after it, and looking goes on."""
    expected_warnings.expect("shown as of log entry 1")
    log.submit([version("mnist", 0)], PRINCIPAL)
    objects._objects[entry_key(2)] = objects.get(entry_key(1))
    assert 1 == log.catch_up()
    assert "says that it is entry 1" in str(log.trouble)
    with pytest.raises(CorruptError, match="says that it is entry 1"):
        log.submit([version("mnist", 1)], PRINCIPAL)
    with pytest.raises(CorruptError, match="says that it is entry 1"):
        log.catch_up(strict=True)
