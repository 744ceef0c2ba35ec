"""Log entries and records come back as they were written, always as the same bytes."""

from typing import get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mregfs.errors import CorruptError
from mregfs.model import bounds, records
from mregfs.model.changes import (
    ENTRY_GRAIN,
    Change,
    Entry,
    PacksRetired,
    Request,
    decode_entry,
    encode_entry,
    entry_key,
    event_line,
)
from mregfs.model.records import Parent
from mregfs.model.state import encode_record

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
integers = st.integers(0, (1 << 63) - 1)
metadata = st.dictionaries(
    text.filter(bool), st.none() | st.booleans() | text | integers, max_size=3
)
names = st.from_regex(r"[A-Za-z0-9_]([A-Za-z0-9_.\- ]{0,6}[A-Za-z0-9_.\-])?", fullmatch=True)
projects = st.tuples(names, names).map("/".join).filter(lambda text: "s/" not in text)
digests = st.text("0123456789abcdef", min_size=64, max_size=64)
packs = st.text("0123456789abcdef", min_size=32, max_size=32)
numbers = st.integers(0, bounds.MAX_NUMBER)
by_name: dict[str, st.SearchStrategy] = {
    "alias": st.from_regex(r"[a-k][a-z0-9_.\-]{0,7}", fullmatch=True),
    "description": text,
    "digest": digests,
    "entries": st.integers(0, 1000),
    "files": st.integers(0, 1000),
    "layout": packs,
    "metadata": metadata,
    "number": numbers,
    "packs": st.dictionaries(packs, st.integers(0, 1 << 60), max_size=3),
    "previous": numbers,
    "previous_layout": packs,
    "private_drafts": st.none() | st.booleans(),
    "project": projects,
    "readers": st.sampled_from([None, "", "*", "ml", "1000"]),
    "writers": st.sampled_from([None, "", "*", "ml", "1000"]),
    "run": text,
    "shared": st.lists(packs, max_size=3, unique=True).map(tuple),
    "size": st.integers(0, 1 << 60),
    "source_project": projects,
    "tags": st.lists(names, max_size=3).map(tuple),
    "version": numbers,
}
by_name["parents"] = st.lists(st.builds(Parent, projects, names, numbers, digests), max_size=2).map(
    tuple
)
by_type = {
    str: text,
    int: integers,
    int | None: st.none() | integers,
    str | None: st.none() | text,
    bool | None: st.none() | st.booleans(),
    tuple[str, ...]: st.lists(text, max_size=3).map(tuple),
    dict[str, int]: by_name["packs"],
    tuple[Parent, ...]: by_name["parents"],
}


def build(cls: type) -> st.SearchStrategy:
    """Return any record, whatever may stand in the log."""
    fields = msgspec.structs.fields(cls)
    return st.builds(cls, **{field.name: by_type.get(field.type, metadata) for field in fields})


def build_fact(cls: type) -> st.SearchStrategy:
    """Return a fact that a command could have led to."""
    known = by_name
    if cls is PacksRetired:  # of the whole store; packs that have no size any more
        known = {"project": st.just(""), "packs": by_name["shared"]}
    return st.builds(cls, **{name: known.get(name, names) for name in cls.__struct_fields__})


changes = st.one_of([build_fact(cls) for cls in get_args(Change)])
requests = st.builds(
    Request, text, st.lists(changes, min_size=1, max_size=4).map(tuple), text, text
)
entries = st.builds(
    Entry,
    st.integers(1, bounds.MAX_NUMBER),
    digests,
    text,
    st.integers(1, bounds.MAX_TIME_NS),
    text,
    st.lists(requests, min_size=1, max_size=3).map(tuple),
)


@settings(max_examples=60)
@given(entries)
def test_entries_come_back_from_one_line_of_json(entry):
    data = encode_entry(entry)

    assert (b"\n", 1) == (data[-1:], data.count(b"\n"))
    assert entry == decode_entry(data, "log/1")
    assert data == encode_entry(decode_entry(data, "log/1"))
    padded = encode_entry(entry, grain=ENTRY_GRAIN)
    assert 0 == len(padded) % ENTRY_GRAIN
    assert (data[:-1], b"\n") == (padded[:-1].rstrip(b" "), padded[-1:])
    assert entry == decode_entry(padded, "log/1")


@settings(max_examples=60)
@given(entries)
def test_an_event_tells_all_changes_in_order(entry):
    event = msgspec.json.decode(event_line(entry))

    assert entry.sequence == event["sequence"]
    assert [change.__struct_config__.tag for r in entry.requests for change in r.changes] == [
        change["change"] for change in event["changes"]
    ]


NOT_STORED = {"OwnerRecord", "VersionSize"}
RECORDS = [getattr(records, name) for name in records.__all__ if name not in NOT_STORED]


@settings(max_examples=20)
@given(build(records.VersionRecord))
def test_the_size_of_a_version_is_read_from_the_beginning_of_its_record(version):
    size = msgspec.msgpack.decode(encode_record(version), type=records.VersionSize)

    assert (version.inode, version.size, version.entries) == (size.inode, size.size, size.entries)


@pytest.mark.parametrize("cls", RECORDS, ids=lambda cls: cls.__name__)
def test_records_come_back(cls):
    @settings(max_examples=20)
    @given(build(cls))
    def comes_back(record):
        data = encode_record(record)
        assert record == msgspec.msgpack.decode(data, type=cls)
        assert data == encode_record(msgspec.msgpack.decode(data, type=cls))

    comes_back()


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b"\xff", b'{"sequence": "1"}', encode_entry(
        Entry(1, "", "", 0, "", ()))[:-2] + b',"more":1}',
     b'{"sequence":1,"previous":"","transaction":"","at_ns":0,"host":"","requests":[{"author":"",'
     b'"changes":[{"change":"exploded","project":"a/b"}]}]}'],
)  # fmt: skip
def test_what_is_no_entry_is_corrupt_and_named(data):
    with pytest.raises(CorruptError, match="log/7"):
        decode_entry(data, "log/7")


def test_keys_sort_as_sequence_numbers_do():
    assert "log/00000000000000000042.json" == entry_key(42)
    assert entry_key(9) < entry_key(10)
