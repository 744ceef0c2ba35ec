"""A damaged log costs its damaged part: what is known is shown, and nothing is appended."""

from collections.abc import Callable
from typing import Any

import pytest

from mregfs.errors import CorruptError, HostError, NotFoundError
from mregfs.model.changes import decode_entry, encode_entry, entry_key
from mregfs.registry.log import replay as replay_module
from mregfs.registry.log.replay import KEPT_ENTRIES, entry_digest, read_recent
from mregfs.stores.index_memory import IndexMemory
from mregfs.stores.objects_memory import ObjectsMemory
from tests.registry.rig import PRINCIPAL, make_log, tables, version

LAST = 6


@pytest.fixture
def filled(objects: ObjectsMemory, index: IndexMemory) -> ObjectsMemory:
    log = make_log(objects, index)
    for number in range(LAST):
        log.submit([version("mnist", number, aliases=("best",))], PRINCIPAL)
    return objects


def flipped(data: bytes) -> bytes:
    """Damage a value, not the form."""
    return data.replace(b"testhost", b"testhosu")


DAMAGE: dict[str, Callable[[bytes], bytes | None]] = {
    "lost": lambda data: None,
    "flipped": flipped,
    "no JSON": lambda data: b"\0" + data[1:],
    "cut": lambda data: data[: len(data) // 4],
    "cut in its padding": lambda data: data.rstrip() + b"  ",
    "empty": lambda data: b"",
}


def damage(objects: ObjectsMemory, sequence: int, how: str) -> None:
    data = DAMAGE[how](objects.get(entry_key(sequence)))
    if data is None:
        objects.delete(entry_key(sequence))
    else:
        objects._objects[entry_key(sequence)] = data


@pytest.mark.parametrize("how", DAMAGE)
def test_a_good_index_outlives_damage_of_the_newest_entry(
    filled: ObjectsMemory, index: IndexMemory, how: str, expected_warnings: Any
) -> None:
    """It is shown as it was; nothing is appended; the error names the entry, and the ways out."""
    expected_warnings.expect("shown as of log entry 6")
    before = tables(index)
    damage(filled, LAST, how)
    log = make_log(filled, index)
    for _ in range(2):
        assert LAST == log.catch_up()
        assert log.trouble is not None
    with pytest.raises(CorruptError, match=r"entry 6|0006\.json") as caught:
        log.submit([version("mnist", 9)], PRINCIPAL)
    assert 11 == caught.value.exit_code
    assert "fsck --repair" in caught.value.hint
    assert "reindex --accept-log" in caught.value.hint
    assert before == tables(index)
    assert not filled.exists(entry_key(LAST + 1))


@pytest.mark.parametrize("how", DAMAGE)
def test_damage_of_the_newest_entry_without_an_index_leaves_those_before_it(
    filled: ObjectsMemory, how: str, expected_warnings: Any
) -> None:
    """A lost one leaves no trace; of a flipped value only an index knows."""
    expected_warnings.expect("shown as of log entry 5")
    damage(filled, LAST, how)
    index = IndexMemory()
    log = make_log(filled, index)
    sound = how == "flipped"
    assert (LAST if sound else LAST - 1) == log.catch_up() == index.applied()
    assert (how in ("lost", "flipped")) == (log.trouble is None)


@pytest.mark.parametrize("how", DAMAGE)
def test_half_of_a_log_does_not_pass_for_all_of_it(filled: ObjectsMemory, how: str) -> None:
    """Without an index, and with damage in the middle: an error, again and again."""
    damage(filled, 3, how)
    index = IndexMemory()
    for _ in range(2):
        with pytest.raises(CorruptError, match=r"0003\.json"):
            make_log(filled, index).catch_up()
        assert 0 == index.applied()


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("sequence", [3, LAST])
def test_damage_behind_the_index_stops_nothing(
    filled: ObjectsMemory, index: IndexMemory, how: str, sequence: int
) -> None:
    """What others have built on an entry shows that the index is right about it."""
    make_log(filled, index).submit([version("mnist", LAST)], PRINCIPAL)
    behind = IndexMemory()
    with index.read() as view:
        recent = read_recent(view, LAST)
    damage(filled, sequence, how)
    log = make_log(filled, index)
    assert LAST + 1 == log.catch_up()
    assert LAST + 2 == log.submit([version("mnist", LAST + 1)], PRINCIPAL).sequence
    assert log.trouble is None
    assert recent is not None
    assert 0 == behind.applied()


def test_an_index_one_entry_behind_is_kept_when_its_last_entry_is_damaged(
    filled: ObjectsMemory, index: IndexMemory
) -> None:
    """The next entry names the one that the index knows: it goes on from there."""
    behind = IndexMemory()
    make_log(filled, behind).catch_up()
    make_log(filled, index).submit([version("mnist", LAST)], PRINCIPAL)
    damage(filled, LAST, "no JSON")
    assert LAST + 1 == make_log(filled, behind).catch_up()
    assert tables(index) == tables(behind)


def test_damage_under_a_log_that_is_in_use_is_noticed_before_an_append(
    filled: ObjectsMemory, index: IndexMemory, expected_warnings: Any
) -> None:
    """Also when the index was found right before."""
    expected_warnings.expect("shown as of log entry 6")
    log = make_log(filled, index)
    log.catch_up()
    lost = filled.get(entry_key(LAST))
    filled.delete(entry_key(LAST))
    with pytest.raises(CorruptError, match="ends at entry 5, but the index"):
        log.submit([version("mnist", 9)], PRINCIPAL)
    assert LAST == log.catch_up()
    filled.create(entry_key(LAST), lost)
    assert LAST == log.catch_up()
    assert log.trouble is None
    assert LAST + 1 == log.submit([version("mnist", 9)], PRINCIPAL).sequence


def test_the_entries_before_a_damaged_one_are_applied(
    filled: ObjectsMemory, monkeypatch: pytest.MonkeyPatch, expected_warnings: Any
) -> None:
    """However many share a batch; and none that the next one contradicts."""
    expected_warnings.expect("shown as of log entry")
    whole = {n: filled.get(entry_key(n)) for n in range(1, LAST + 1)}
    for batch in range(1, 5):
        monkeypatch.setattr(replay_module, "BATCH", batch)
        for how, last in (("no JSON", 4), ("flipped", 4)):
            index = IndexMemory()
            for number in range(2, LAST + 1):
                filled.delete(entry_key(number))
            log = make_log(filled, index)
            assert 1 == log.catch_up()
            for number in range(2, LAST + 1):
                filled.create(entry_key(number), whole[number])
            damage(filled, 5, how)
            assert last == log.catch_up(), (batch, how)


def test_the_store_that_is_gone_is_no_shorter_log(
    filled: ObjectsMemory, index: IndexMemory, expected_warnings: Any
) -> None:
    """Nor is another one in its place. What is known is shown; when it is back, all goes on."""
    expected_warnings.expect("cannot be reached any more: the disk is away")
    away: list[str] = []

    def identify() -> None:
        if away:
            raise NotFoundError(away[0])

    log = make_log(filled, index, identify=identify)
    assert LAST == log.catch_up()
    before, whole = tables(index), dict(filled._objects)
    for count in range(2):
        filled._objects.clear()
        away.append("the disk is away")
        assert LAST + count == log.catch_up()
        assert isinstance(log.trouble, HostError)
        with pytest.raises(HostError, match="bring it back"):
            log.submit([version("mnist", 9)], PRINCIPAL)
        with pytest.raises(HostError):
            make_log(filled, index, identify=identify).submit([version("mnist", 9)], PRINCIPAL)
        with pytest.raises(HostError):
            make_log(filled, IndexMemory(), identify=identify).catch_up()
        assert {} == filled._objects
        assert before == tables(index)
        filled._objects.update(whole)
        away.clear()
        assert LAST + count == log.catch_up()
        assert LAST + count + 1 == log.submit([version("mnist", LAST + count)], PRINCIPAL).sequence
        before, whole = tables(index), dict(filled._objects)


def test_the_index_has_the_bytes_of_the_newest_entries(
    filled: ObjectsMemory, index: IndexMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of so many, and of none that is large; by whichever way it was filled."""
    monkeypatch.setattr(replay_module, "KEPT_ENTRIES", 4)
    log = make_log(filled, index)
    log.submit([version("mnist", LAST, description="x" * 60_000, run="y")], PRINCIPAL)
    monkeypatch.setattr(replay_module, "MAX_KEPT", 50_000)
    log.submit([version("mnist", LAST + 1, description="x" * 60_000)], PRINCIPAL)
    log.checkpoint()
    loaded = IndexMemory()
    make_log(filled, loaded).catch_up()
    for each in (index, loaded):
        with each.read() as view:
            found = {n: read_recent(view, n) for n in range(1, LAST + 3)}
        kept = {number for number, data in found.items() if data is not None}
        assert set(range(LAST, LAST + 2)) <= kept
        assert LAST + 2 not in kept
        assert all(found[number] == filled.get(entry_key(number)) for number in kept)
    assert KEPT_ENTRIES == 1000


def hostile(objects: ObjectsMemory, **fields: Any) -> None:
    """Append an entry that follows from the last one, whatever it says."""
    last = max(int(key[4:24]) for key in objects._objects if key.startswith("log/"))
    data = objects.get(entry_key(last))
    entry = decode_entry(data, "")
    given = {name: getattr(entry, name) for name in entry.__struct_fields__}
    given |= {"sequence": last + 1, "previous": entry_digest(data), "at_ns": entry.at_ns + 1}
    objects.create(entry_key(last + 1), encode_entry(type(entry)(**(given | fields))))


def test_a_time_that_goes_back_is_damage(
    filled: ObjectsMemory, index: IndexMemory, expected_warnings: Any
) -> None:
    """Of the entry that says so; what is before it is shown."""
    expected_warnings.expect(r"as log/00000000000000000007.json says that it is older")
    hostile(filled, at_ns=5)
    for known in (index, IndexMemory()):
        assert LAST == make_log(filled, known).catch_up()


def test_what_a_hostile_writer_went_on_from_hides_nothing_before_it(
    filled: ObjectsMemory, expected_warnings: Any
) -> None:
    """An entry that cannot be applied was never part of a state, whatever follows it."""
    expected_warnings.expect(r"as log entry 7 cannot be applied")
    hostile(filled)  # the same facts again: the number was used before
    hostile(filled)
    index = IndexMemory()
    assert LAST == make_log(filled, index).catch_up() == index.applied()
