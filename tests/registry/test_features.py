"""A store that a later program has written to: what this one still does, and what it refuses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import mregfs
from mregfs.api import init_store, open_store
from mregfs.errors import CorruptError, MregfsError, UnsupportedError
from mregfs.model.changes import ENTRY_GRAIN, decode_entry, encode_entry, entry_key
from mregfs.registry.log.log import Log
from mregfs.registry.log.replay import entry_digest
from mregfs.stores.index_memory import IndexMemory
from mregfs.stores.objects_memory import ObjectsMemory
from tests.registry.rig import PRINCIPAL, make_log, version, write_files

Change = Callable[[dict[str, Any]], None]


def append(log: Log, objects: ObjectsMemory, change: Change) -> None:
    """Append what a later program might: an entry of ours, changed."""
    receipt = make_log(objects, IndexMemory()).submit([version("later", 7)], PRINCIPAL)
    key = entry_key(receipt.sequence)
    raw = msgspec.json.decode(objects.get(key))
    change(raw)
    objects.delete(key)
    objects.create(key, msgspec.json.encode(raw) + b"\n")


def with_features(**features: list[str]) -> Change:
    return lambda raw: raw.update(features=features)


def numbers(log: Log) -> list[int]:
    return [entry.sequence for entry in log.entries(0)]


def test_unknown_fields_are_kept_and_ignored(log: Log, objects: ObjectsMemory) -> None:
    """In an entry, a request and a change; the bytes stay, and so does the chain."""

    def change(raw: dict[str, Any]) -> None:
        raw["shard"] = 3
        raw["requests"][0]["ticket"] = "ML-7"
        for fact in raw["requests"][0]["changes"]:
            fact["colour"] = ["red"]

    append(log, objects, change)
    log.submit([version("mnist", 0)], PRINCIPAL)

    assert [1, 2] == numbers(log)
    first = objects.get(entry_key(1))
    assert b"ML-7" in first
    assert entry_digest(first) == decode_entry(objects.get(entry_key(2)), "").previous


def test_an_entry_without_features_says_nothing_of_them(log: Log, objects: ObjectsMemory) -> None:
    receipt = log.submit([version("mnist", 0)], PRINCIPAL)
    assert receipt.entry is not None
    assert b"features" not in encode_entry(receipt.entry, grain=ENTRY_GRAIN)


def test_a_feature_for_information_changes_nothing(log: Log, objects: ObjectsMemory) -> None:
    append(log, objects, with_features(shiny=[]))
    assert 2 == log.submit([version("mnist", 0)], PRINCIPAL).sequence


def test_facts_of_unknown_kinds_are_passed_over_when_that_is_allowed(
    log: Log, objects: ObjectsMemory, index: IndexMemory
) -> None:
    """The feature says that a reader need not know them. Without one they are damage."""

    def change(raw: dict[str, Any]) -> None:
        raw["requests"][0]["changes"].append({"change": "starred", "project": "a/b", "stars": 5})
        raw["requests"].append(
            {"author": "ann", "changes": [{"change": "starred", "project": "a/b"}]}
        )

    append(log, objects, lambda raw: (change(raw), with_features(stars=["write"])(raw))[0])
    assert 1 == log.catch_up()
    assert 2 == len(next(log.entries(0)).requests)

    other = ObjectsMemory()
    append(log, other, change)
    with pytest.raises(CorruptError, match="starred"):
        make_log(other, IndexMemory()).catch_up()


def test_what_must_be_known_to_read_is_where_reading_ends(
    log: Log, objects: ObjectsMemory, index: IndexMemory, expected_warnings: Any
) -> None:
    """What was before is shown still; nothing can be appended; one line says why."""
    log.submit([version("mnist", 0)], PRINCIPAL)
    append(log, objects, with_features(shards=["read"]))
    expected_warnings.expect("shown as of log entry 1, as .*'shards'")

    assert 1 == log.catch_up()
    assert isinstance(log.trouble, UnsupportedError)
    with pytest.raises(UnsupportedError, match=r"00002.json cannot be read .* feature 'shards'"):
        log.submit([version("mnist", 1)], PRINCIPAL)


def test_what_must_be_known_to_write_leaves_reading(log: Log, objects: ObjectsMemory) -> None:
    append(log, objects, with_features(bundles=["write", "delete"]))
    assert 1 == log.catch_up()
    for ask in (log.submit, log.rehearse):
        with pytest.raises(UnsupportedError, match=r"cannot be changed .* feature 'bundles'"):
            ask([version("mnist", 0)], PRINCIPAL)
    assert [1] == numbers(log)


def in_store_json(path: Path, **features: list[str]) -> None:
    """Give a store features, as a later program would when it makes one."""
    place = path / "store.json"
    raw = msgspec.json.decode(place.read_bytes())
    raw["features"] = features
    place.chmod(0o644)
    place.write_bytes(msgspec.json.encode(raw) + b"\n")


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A store with two versions."""
    init_store(tmp_path / "store")
    with mregfs.Registry(tmp_path / "store") as registry:
        for number in range(2):
            write_files(tmp_path / str(number), {"a": b"%d" % number})
            registry.commit(tmp_path / str(number), "mnist")
    return tmp_path / "store"


def test_a_store_that_cannot_be_read_is_not_opened(made: Path) -> None:
    in_store_json(made, shards=["read", "write"], more=["read"])
    with pytest.raises(UnsupportedError, match="feature 'more', the feature 'shards'") as caught:
        open_store(made)
    assert "upgrade mregfs" == caught.value.hint


@pytest.mark.parametrize(
    ("operation", "refused"),
    [
        ("write", {"commit", "rm", "tag"}),
        ("delete", {"rm"}),
        ("check", {"fsck"}),
        ("telepathy", set()),
    ],
)
def test_each_operation_is_refused_alone(
    made: Path, tmp_path: Path, operation: str, refused: set[str]
) -> None:
    """And with one line that names the feature."""
    in_store_json(made, shiny=[operation])
    write_files(tmp_path / "new", {"a": b"new"})
    with mregfs.Registry(made) as registry:
        actions: dict[str, Callable[[], object]] = {
            "show": lambda: registry.get("mnist:v0"),
            "commit": lambda: registry.commit(tmp_path / "new", "mnist"),
            "tag": lambda: registry.tag("mnist:v1", ["x"]),
            "rm": lambda: registry.remove("mnist:v0"),
            "fsck": registry.fsck,
        }
        said: dict[str, MregfsError] = {}
        for name, action in actions.items():
            try:
                action()
            except UnsupportedError as exc:
                said[name] = exc
    assert refused == said.keys()
    assert all("the feature 'shiny'" in exc.message for exc in said.values())


def test_a_store_from_before_the_format_was_settled_is_named_as_such(made: Path) -> None:
    """Its `store.json` says nothing of features; its log is not touched."""
    place = made / "store.json"
    raw = msgspec.json.decode(place.read_bytes())
    del raw["features"]
    place.chmod(0o644)
    place.write_bytes(msgspec.json.encode(raw) + b"\n")
    with pytest.raises(UnsupportedError, match="from before its format was settled"):
        open_store(made)
