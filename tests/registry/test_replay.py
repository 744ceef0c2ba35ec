"""Replay: the log alone determines the index, by whichever way it gets there."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mregfs.errors import CorruptError
from mregfs.host.beneath import Beneath
from mregfs.model.changes import entry_key
from mregfs.model.checkpoint import checkpoint_key
from mregfs.model.state import Put
from mregfs.ports.objects import ObjectStore
from mregfs.registry.log import log as log_module
from mregfs.registry.log import replay as replay_module
from mregfs.registry.log.log import Log
from mregfs.stores.index_memory import IndexMemory
from mregfs.stores.objects_dir import ObjectsDirectory
from mregfs.stores.objects_memory import ObjectsMemory
from tests.registry.rig import PRINCIPAL, make_log, tables, version


@pytest.fixture
def filled(log: Log) -> Log:
    for number in range(12):
        log.submit([version("mnist", number, aliases=("best",))], PRINCIPAL)
    return log


def replayed(objects: ObjectsMemory) -> dict[str, list[tuple[bytes, bytes]]]:
    """Return the tables of an index that was just filled from the store."""
    index = IndexMemory()
    make_log(objects, index).catch_up()
    return tables(index)


def test_replay_gives_the_index_of_the_writer(
    filled: Log, objects: ObjectsMemory, index: IndexMemory
) -> None:
    """Byte for byte."""
    assert tables(index) == replayed(objects)


def test_replay_in_batches(
    filled: Log, objects: ObjectsMemory, index: IndexMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many entries share a transaction of the index makes no difference."""
    monkeypatch.setattr(replay_module, "BATCH", 5)
    assert tables(index) == replayed(objects)


def test_replay_starts_at_a_checkpoint(
    filled: Log, objects: ObjectsMemory, index: IndexMemory
) -> None:
    """Entries before the checkpoint are not read (but for its own, which it must fit)."""
    assert 12 == filled.checkpoint()
    filled.submit([version("mnist", 12)], PRINCIPAL)
    for sequence in range(1, 12):
        objects._objects[entry_key(sequence)] = b"nobody reads this"
    assert tables(index) == replayed(objects)


def test_a_damaged_checkpoint_is_passed_over(
    filled: Log, objects: ObjectsMemory, index: IndexMemory, expected_warnings
) -> None:
    """The older one serves; with none left, replay starts at entry 1."""
    expected_warnings.expect("not using a checkpoint")
    filled.checkpoint()
    filled.submit([version("mnist", 12)], PRINCIPAL)
    filled.checkpoint()
    whole = objects.get(checkpoint_key(13))
    for damage in (whole[:-1], b"", whole[: len(whole) // 2], b"x" + whole[1:]):
        objects._objects[checkpoint_key(13)] = damage
        assert tables(index) == replayed(objects)
    objects._objects[checkpoint_key(12)] = b"nonsense"
    assert tables(index) == replayed(objects)


def test_a_checkpoint_of_another_log_is_passed_over(
    filled: Log, objects: ObjectsMemory, index: IndexMemory, expected_warnings
) -> None:
    """A checkpoint must have the digest of the entry that it names."""
    expected_warnings.expect("of another log")
    other = ObjectsMemory()
    other_log = make_log(other)
    for number in range(12):
        other_log.submit([version("cifar", number)], PRINCIPAL)
    other_log.checkpoint()
    objects.create(checkpoint_key(12), other.get(checkpoint_key(12)))
    assert tables(index) == replayed(objects)


def test_checkpoints_come_by_themselves(
    filled: Log, objects: ObjectsMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One every so many entries; three are kept; those of a large store are the daemon's work."""
    monkeypatch.setattr(log_module, "CHECKPOINT_EVERY", 4)
    monkeypatch.setattr(log_module, "CHEAP_CHECKPOINT", 28)
    for number in range(12, 40):
        filled.submit([version("mnist", number)], PRINCIPAL)
    expected = [checkpoint_key(number) for number in (20, 24, 28)]
    assert expected == list(objects.list("checkpoints/"))
    assert filled.checkpoint_due()
    assert 40 == filled.checkpoint()
    assert not filled.checkpoint_due()


def test_an_index_of_another_log_is_filled_anew(
    filled: Log, objects: ObjectsMemory, index: IndexMemory, expected_warnings
) -> None:
    """When others have gone on with that log, and it is sound."""
    expected_warnings.expect("not of this log")
    other = ObjectsMemory()
    used = IndexMemory()
    for number in range(5):
        make_log(other, used).submit([version("cifar", number)], PRINCIPAL)
    assert 12 == make_log(objects, used).catch_up()
    assert tables(index) == tables(used)


def test_an_index_is_not_emptied_for_a_log_that_cannot_be_replayed(
    filled: Log, objects: ObjectsMemory, expected_warnings
) -> None:
    """Of another log either; whoever asks sees what the index knows."""
    expected_warnings.expect("not of this log|shown as of log entry 5")
    other, used = ObjectsMemory(), IndexMemory()
    for number in range(5):
        make_log(other, used).submit([version("cifar", number)], PRINCIPAL)
    before = tables(used)
    objects._objects[entry_key(9)] = b"{"
    assert 5 == make_log(objects, used).catch_up()
    assert before == tables(used)


def test_rebuild_says_how_far_it_is(
    filled: Log, index: IndexMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Progress ends at the total; the index is the same as before."""
    monkeypatch.setattr(replay_module, "BATCH", 5)
    before = tables(index)
    steps: list[tuple[int, int]] = []
    assert 12 == filled.rebuild(IndexMemory(), lambda done, total: steps.append((done, total)))
    assert [(5, 12), (10, 12), (12, 12)] == steps
    assert before == tables(index)


def test_a_rebuild_takes_nothing_away_meanwhile(
    filled: Log, objects: ObjectsMemory, index: IndexMemory
) -> None:
    """Who reads at any step sees all of the state; what is appended meanwhile stays, too."""
    filled.checkpoint()
    with index.read() as view:
        rows = list(view.scan("version"))
    index.write([Put("version", b"damaged", b"?"), Put("content", b"x", b"y")])
    seen: list[tuple[int, bool]] = []

    class Watched(IndexMemory):
        """The index that is filled; another process appends when that has been done once."""

        def write(self, *args: Any, **more: Any) -> bool:
            with index.read() as view:
                seen.append((index.applied(), set(view.scan("version")) >= set(rows)))
            done = super().write(*args, **more)
            if len(seen) == 1:
                make_log(objects, index).submit([version("mnist", 12)], PRINCIPAL)
            return done

    assert 13 == filled.rebuild(Watched())
    assert [(12, True), (13, True)] == seen
    assert tables(index) == replayed(objects)


def test_an_emptied_index_fills_itself(filled: Log, index: IndexMemory) -> None:
    """Whoever deletes the index loses nothing."""
    before = tables(index)
    index.clear()
    assert 12 == filled.catch_up()
    assert before == tables(index)


@pytest.fixture(params=["memory", "directory"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """A log of five entries in either kind of store."""
    objects = (
        ObjectsMemory() if request.param == "memory" else ObjectsDirectory(Beneath.at(tmp_path))
    )
    log = make_log(objects)
    for number in range(5):
        log.submit([version("mnist", number)], PRINCIPAL)
    return objects


@pytest.mark.parametrize("missing", [1, 3])
def test_a_missing_entry_is_noticed_without_an_index(kept: ObjectStore, missing: int) -> None:
    """Again and again: nothing of the log gets into the index that could pass for all of it."""
    kept.delete(entry_key(missing))
    kept.create("log/zzz", b"somebody's notes")
    index = IndexMemory()
    for _ in range(2):
        with pytest.raises(CorruptError, match=f"{entry_key(missing)} is missing") as caught:
            make_log(kept, index).catch_up()
        assert "backup" in caught.value.hint
        assert 0 == index.applied()
    with pytest.raises(CorruptError):
        make_log(kept, index).submit([version("mnist", 7)], PRINCIPAL)
    assert not kept.exists(entry_key(missing))


def test_a_missing_entry_before_a_checkpoint_is_not_needed(kept: ObjectStore) -> None:
    """The checkpoint has what it did; `fsck` finds it."""
    make_log(kept).catch_up()
    log = make_log(kept)
    log.catch_up()
    log.checkpoint()
    log.submit([version("mnist", 5)], PRINCIPAL)
    kept.delete(entry_key(3))
    assert 6 == make_log(kept).catch_up()
    kept.delete(entry_key(6))
    assert 5 == make_log(kept).catch_up()


def test_a_missing_entry_is_noticed_before_the_first_append(kept: ObjectStore) -> None:
    """With an index that is behind the gap; what is there is not continued in its place."""
    index = IndexMemory()
    later = {sequence: kept.get(entry_key(sequence)) for sequence in (3, 4, 5)}
    for sequence in later:
        kept.delete(entry_key(sequence))
    assert 2 == make_log(kept, index).catch_up()
    for sequence in (4, 5):
        kept.create(entry_key(sequence), later[sequence])
    log = make_log(kept, index)
    assert 2 == log.catch_up()
    with pytest.raises(CorruptError, match=f"{entry_key(3)} is missing"):
        log.submit([version("mnist", 7)], PRINCIPAL)
    assert not kept.exists(entry_key(3))
    kept.create(entry_key(3), later[3])
    assert 6 == log.submit([version("mnist", 7)], PRINCIPAL).sequence


def test_appends_ask_once_what_is_behind_the_head(
    kept: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each process."""
    log = make_log(kept)
    log.catch_up()
    asked: list[str] = []
    whole = type(kept).list

    def counted(self: ObjectStore, prefix: str, start_after: str = "") -> Iterator[str]:
        asked.append(start_after)
        return whole(self, prefix, start_after)

    monkeypatch.setattr(type(kept), "list", counted)
    for number in range(5, 8):
        log.submit([version("mnist", number)], PRINCIPAL)
    assert [entry_key(5)] == asked


def test_an_index_that_is_ahead_is_given_up_only_when_that_is_asked(kept: ObjectStore) -> None:
    """The end of a log can be lost without a trace but this."""
    index = IndexMemory()
    make_log(kept, index).catch_up()
    before = tables(index)
    kept.delete(entry_key(5))
    for log in (make_log(kept, index), make_log(kept, index)):
        with pytest.raises(CorruptError, match="ends at entry 4, but the index of this host knows"):
            log.rebuild(IndexMemory())
        with pytest.raises(CorruptError, match="reindex --accept-log"):
            log.submit([version("mnist", 5)], PRINCIPAL)
        assert before == tables(index)
    log = make_log(kept, index)
    assert 4 == log.rebuild(IndexMemory(), accept_log=True)
    assert 5 == log.submit([version("mnist", 4)], PRINCIPAL).sequence
