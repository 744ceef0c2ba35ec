"""What is wrapped around adapters keeps their contracts; and does what it is for."""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from mregfs.errors import ExistsError, MregfsError, NotFoundError, UnavailableError
from mregfs.host.beneath import Beneath
from mregfs.stores.objects_memory import ObjectsMemory
from mregfs.stores.packs_dir import PacksDirectory
from mregfs.stores.wrapping import (
    Limits,
    Metrics,
    ObjectsAround,
    PacksAround,
    Records,
    Retry,
    Through,
)
from mregfs.stores.wrapping.around import Call
from tests.contracts.object_store import ObjectStoreContract
from tests.contracts.pack_store import A, B, C, PackStoreContract, read
from tests.contracts.sleeping_store import SleepingObjects, SleepingPacks

CALL = Call("get", "log/1")


def every_kind() -> list[Through]:
    return [Metrics(), Limits(2, 1 << 40), Records(logging.getLogger("test")), Retry()]


class Time:
    """A clock that moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


class Failing(Through):
    """A medium that gives no answer to some calls of each; before it has done them, or after."""

    def __init__(self, times: int = 1, *, after: bool = False) -> None:
        self._times = times
        self._after = after
        self._asked: dict[Any, int] = {}

    def run(self, call: Any, function: Any) -> Any:
        key = call.method, call.name
        self._asked[key] = self._asked.get(key, 0) + 1
        if self._asked[key] > self._times:
            self._asked[key] = 0
            return function()
        if self._after:
            function()
        raise UnavailableError("no answer")


def patient(attempts: int = 2) -> Retry:
    return Retry(attempts=attempts, sleep=lambda seconds: None)


class TestObjectsWithAllAround(ObjectStoreContract):
    @pytest.fixture
    def objects(self):
        objects = ObjectsMemory()
        for through in every_kind():
            objects = ObjectsAround(objects, through)
        return objects


@pytest.mark.parametrize("after", [False, True])
class TestObjectsThatFailOnce(ObjectStoreContract):
    """Retried, every promise holds: whether or not what had no answer was done."""

    @pytest.fixture
    def objects(self, after):
        return ObjectsAround(ObjectsAround(ObjectsMemory(), Failing(after=after)), patient(9))

    # Of those who race all may be told that a lost answer was theirs only if they bring the same.
    test_of_many_threads_that_create_one_key_exactly_one_wins = None


class TestPacksWithAllAround(PackStoreContract):
    @pytest.fixture
    def packs(self, tmp_path):
        packs = inner = PacksDirectory(Beneath.at(tmp_path))
        for through in every_kind():
            packs = PacksAround(packs, through)
        yield packs
        inner.close()


class TestPacksFarAwayWithAllAround(PackStoreContract):
    @pytest.fixture
    def packs(self):
        packs = SleepingPacks(0.0001)
        for through in every_kind():
            packs = PacksAround(packs, through)
        return packs


# ---- retry


def test_what_has_no_answer_is_asked_again_after_ever_longer_pauses():
    time = Time()
    objects = ObjectsMemory()
    objects.create("log/1", b"x")
    retry = Retry(attempts=5, first=1, longest=3, sleep=time.sleep, chance=lambda: 0.5)

    found = ObjectsAround(ObjectsAround(objects, Failing(4)), retry).get("log/1")

    assert b"x" == found
    assert [0.5, 1, 1.5, 1.5] == time.pauses


def test_the_last_failure_is_the_answer():
    time = Time()
    objects = ObjectsAround(ObjectsMemory(), Failing(9))

    with pytest.raises(UnavailableError):
        ObjectsAround(objects, Retry(attempts=3, sleep=time.sleep)).get("log/1")
    assert 2 == len(time.pauses)


@pytest.mark.parametrize("error", [NotFoundError, ExistsError, MregfsError])
def test_other_failures_are_answers(error: type[MregfsError]):
    time = Time()

    def fail() -> None:
        raise error("said")

    with pytest.raises(error):
        Retry(sleep=time.sleep).run(CALL, fail)
    assert [] == time.pauses


@pytest.mark.parametrize(("there", "wins"), [(b"mine", True), (b"another's", False)])
def test_a_creation_whose_answer_got_lost_is_found_to_be_ones_own(there: bytes, wins: bool):
    """And what another one stored under the key meanwhile is not."""
    objects = ObjectsMemory()

    class Lost(Through):
        def run(self, call: Any, function: Any) -> Any:
            if call.method == "create" and not objects.exists("log/1"):
                objects.create("log/1", there)
                raise UnavailableError("no answer")
            return function()

    retried = ObjectsAround(ObjectsAround(objects, Lost()), patient())
    if wins:
        retried.create("log/1", b"mine")
    else:
        with pytest.raises(ExistsError):
            retried.create("log/1", b"mine")
    assert there == objects.get("log/1")


@pytest.mark.parametrize("after", [False, True])
def test_an_adoption_whose_answer_got_lost_is_made_once(tmp_path, after: bool):
    packs = PacksAround(PacksAround(SleepingPacks(0), Failing(after=after)), patient(9))
    (tmp_path / "file").write_bytes(b"abc")
    with (tmp_path / "file").open("rb") as file:
        assert not packs.adopt(A, file.fileno())
    assert b"abc" == read(packs, A)


def test_a_listing_goes_on_behind_its_last_key():
    class Breaking(SleepingObjects):
        """Breaks off in the middle of each listing."""

        def list(self, prefix: str, start_after: str = "") -> Iterator[str]:
            for number, key in enumerate(super().list(prefix, start_after)):
                if number == 1500:
                    raise UnavailableError("no answer")
                yield key

    objects = Breaking(0)
    keys = [f"log/{number:05}" for number in range(3300)]
    for key in keys:
        objects.create(key, b"")

    assert keys == list(ObjectsAround(objects, patient()).list("log/"))


def test_what_can_be_read_only_once_is_sent_once():
    packs = PacksAround(PacksAround(SleepingPacks(0), Failing()), patient())

    with pytest.raises(UnavailableError):
        packs.create(A, iter([b"abc"]))

    assert 3 == packs.create(A, iter([b"abc"]))


# ---- limits


def test_no_more_calls_than_allowed_are_made_at_a_time():
    most, now, lock = 0, 0, threading.Lock()
    enough = threading.Barrier(3)

    def work() -> None:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        enough.wait(20)
        with lock:
            now -= 1

    limits = Limits(3)
    threads = [threading.Thread(target=lambda: limits.run(CALL, work)) for _ in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (3, 0) == (most, now)


def test_a_call_within_a_call_waits_for_nobody():
    """A pack is made again from others; with one call at a time, too."""
    packs = PacksAround(SleepingPacks(0), Limits(1))
    packs.create(A, [b"abc"])

    packs.replace(B, (read(packs, A) for _ in range(2)))

    assert b"abcabc" == read(packs, B)


def test_bytes_pass_no_faster_than_allowed(tmp_path):
    time = Time()
    limits = Limits(1, 1000, clock=time, sleep=time.sleep)
    packs = PacksAround(SleepingPacks(0), limits)
    objects = ObjectsAround(ObjectsMemory(), limits)

    packs.create(A, [bytes(1000), bytes(1000)])
    assert 2 == time.now
    read(packs, A, 0, 500)
    assert 2.5 == time.now
    objects.create("log/1", bytes(250))
    objects.get("log/1")
    assert 3 == time.now
    (tmp_path / "file").write_bytes(bytes(1000))
    with (tmp_path / "file").open("rb") as file:
        packs.adopt(C, file.fileno())
    assert 4 == time.now


# ---- records, metrics


def test_each_call_is_a_line_in_the_log(caplog):
    caplog.set_level(logging.DEBUG, "far")
    time = Time()
    objects = ObjectsAround(ObjectsMemory(), Records(logging.getLogger("far"), clock=time))

    objects.create("log/1", b"x")
    with pytest.raises(NotFoundError):
        objects.get("log/2")

    assert ["create log/1: 0.000 s", "get log/2: NotFoundError after 0.000 s"] == caplog.messages


def test_calls_bytes_and_seconds_are_counted(tmp_path):
    time = Time()

    class Slow(Through):
        def run(self, call: Any, function: Any) -> Any:
            time.sleep(0.5)
            return function()

    metrics = Metrics(clock=time)
    packs = PacksAround(PacksAround(SleepingPacks(0), Slow()), metrics)
    packs.create(A, [b"abc", b"def"])
    with closing(packs.open(A)) as opened:
        assert b"abcd" == opened.read(0, 4)
        assert b"ef" == opened.read(4, 4)
    for use in (packs.size, lambda pack: packs.sync([pack])):
        with pytest.raises(NotFoundError):
            use(B)

    found = {
        name: (each.calls, each.failed, each.bytes, each.seconds)
        for name, each in metrics.figures().items()
    }
    assert (1, 0, 6, 0.5) == found["create"]
    assert (2, 0, 6, 1.0) == found["read"]
    assert (1, 0, 0, 0.5) == found["size"]


def test_what_had_no_answer_is_counted_as_failed():
    metrics = Metrics()
    objects = ObjectsAround(ObjectsAround(ObjectsMemory(), Failing(2)), metrics)

    assert not ObjectsAround(objects, patient(3)).exists("log/1")

    assert (3, 2) == (metrics.figures()["exists"].calls, metrics.figures()["exists"].failed)


def test_files_of_this_host_are_read_past_all(tmp_path):
    """Opening and reading them is no call on a medium."""
    metrics = Metrics()
    with Beneath.at(tmp_path) as top:
        inner = PacksDirectory(top)
        inner.create(A, [b"abc"])
        with closing(PacksAround(inner, metrics).open_local(A)) as opened:
            assert b"abc" == opened.read(0, 3) == os.pread(opened.backing(), 3, 0)
        inner.close()

    assert {} == metrics.figures()
