"""The tail of the log: every entry once and in order, the newest in memory."""

import threading
import time

import pytest

from mregfs.errors import HostError
from mregfs.model.changes import Entry
from mregfs.registry.log import tail as module
from mregfs.registry.log.log import Log
from mregfs.registry.log.receipt import Receipt
from mregfs.registry.log.tail import LogTail
from mregfs.stores.index_memory import IndexMemory
from mregfs.stores.objects_memory import ObjectsMemory
from tests.conftest import ExpectedWarnings
from tests.registry.rig import PRINCIPAL, make_log, version


def append(log: Log, *numbers: int) -> Receipt:
    for number in numbers:
        receipt = log.submit([version("mnist", number)], PRINCIPAL)
    return receipt


def sequences(entries: "list[Entry] | tuple[Entry, ...]") -> list[int]:
    return [entry.sequence for entry in entries]


def test_own_entries_are_at_hand_at_once(log: Log, index: IndexMemory) -> None:
    """What this process appended is taken once, without another look at the store."""
    tail = LogTail(log, index, time.monotonic_ns)
    tail.offer(append(log, 0))
    assert [1] == sequences([*tail.waiting()])
    tail.offer(append(log, 1))
    tail.took(1)
    assert [2] == sequences([*tail.waiting()])
    tail.took(2)
    assert [] == [*tail.waiting()]
    assert (2, 2) == (tail.head, tail.taken)


def test_what_came_between_is_fetched(log: Log, index: IndexMemory) -> None:
    """An own entry that follows on others' is at hand with those before it."""
    tail = LogTail(log, index, time.monotonic_ns)
    append(log, 0, 1)
    receipt = append(log, 2)
    tail.offer(receipt)
    assert [] == [*tail.waiting()]
    tail.reach(receipt)
    assert [1, 2, 3] == sequences([*tail.waiting()])


def test_an_entry_is_offered_twice(log: Log, index: IndexMemory) -> None:
    """Requests that share an entry all offer it; it is told once."""
    tail = LogTail(log, index, time.monotonic_ns)
    receipt = append(log, 0)
    tail.offer(receipt)
    tail.reach(receipt)
    assert [1] == sequences([*tail.waiting()])


def test_old_entries_leave_memory_when_they_were_taken(
    log: Log, index: IndexMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many are kept as may be; none is lost before it was taken, and all can be read."""
    monkeypatch.setattr(module, "KEPT_ENTRIES", 2)
    tail = LogTail(log, index, time.monotonic_ns)
    tail.reach(append(log, 0, 1, 2, 3))
    assert [1, 2, 3, 4] == sequences([*tail.waiting()])
    tail.took(3)
    assert [3, 4] == sequences([*(tail.at_hand(2) or [])])
    assert tail.at_hand(1) is None
    assert [2, 3, 4] == sequences([*tail.entries(1)])


def test_large_entries_leave_memory_early(
    log: Log, index: IndexMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes of what is kept are bounded too, and the newest entry waits to be taken."""
    monkeypatch.setattr(module, "KEPT_BYTES", 1)
    tail = LogTail(log, index, time.monotonic_ns)
    tail.offer(append(log, 0))
    assert [1] == sequences([*tail.waiting()])
    tail.took(1)
    assert tail.at_hand(0) is None
    assert [] == [*(tail.at_hand(1) or [])]


def test_entries_of_other_processes_come_by_themselves(
    objects: ObjectsMemory, index: IndexMemory
) -> None:
    """The thread finds what others append, also when it has more than memory holds."""
    other = make_log(objects, IndexMemory())
    tail = LogTail(make_log(objects, index), index, time.monotonic_ns, interval=0.001)
    taken: list[int] = []
    done = threading.Event()

    def take() -> None:
        for entry in tail.waiting():
            taken.append(entry.sequence)
            tail.took(entry.sequence)
        if len(taken) >= 20:
            done.set()

    thread = threading.Thread(target=tail.run, args=(take,))
    thread.start()
    try:
        append(other, *range(20))
        assert done.wait(10)
    finally:
        tail.stop()
        thread.join()
    assert [*range(1, 21)] == taken


def test_a_slow_taker_holds_the_reader_up(
    objects: ObjectsMemory, index: IndexMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who does not take what is at hand does not fill the memory."""
    monkeypatch.setattr(module, "KEPT_ENTRIES", 3)
    other = make_log(objects, IndexMemory())
    append(other, *range(50))
    tail = LogTail(make_log(objects, index), index, time.monotonic_ns, interval=0.001)
    looked = threading.Semaphore(0)
    thread = threading.Thread(target=tail.run, args=(looked.release,))
    thread.start()
    try:
        for _ in range(5):
            assert looked.acquire(timeout=10)
        assert 50 == index.applied()
        assert len(tail.waiting()) <= 4
    finally:
        tail.stop()
        thread.join()


def test_a_store_that_fails_is_told_once(
    objects: ObjectsMemory,
    index: IndexMemory,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    expected_warnings: ExpectedWarnings,
) -> None:
    """One line says why the log cannot be followed; what is at hand stays, later all goes on."""
    log = make_log(objects, index)
    tail = LogTail(log, index, time.monotonic_ns, interval=0.001)
    tail.offer(append(log, 0))
    failed = threading.Semaphore(0)

    def fail() -> int:
        failed.release()
        raise HostError(5, "the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(log, "catch_up", fail)
        thread = threading.Thread(target=tail.run, args=(lambda: None,))
        thread.start()
        for _ in range(3):
            assert failed.acquire(timeout=10)
    try:
        assert [1] == sequences([*tail.waiting()])
        append(make_log(objects, IndexMemory()), 1)
        for _ in range(1000):
            if tail.head == 2:
                break
            threading.Event().wait(0.01)
        assert 2 == tail.head
    finally:
        tail.stop()
        thread.join()
    complaint = "the log cannot be followed: the disk is gone"
    expected_warnings.expect(f"^{complaint}$")
    assert [complaint] == [record.getMessage() for record in caplog.records]


def test_stop_without_a_start(log: Log, index: IndexMemory) -> None:
    """A tail that was never run, or is stopped first, ends at once."""
    tail = LogTail(log, index, time.monotonic_ns)
    tail.stop()
    tail.run(lambda: None)
