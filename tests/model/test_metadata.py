"""Metadata is a bounded JSON object, stored in one form."""

import math
from enum import Enum

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mregfs.errors import InvalidError
from mregfs.model.metadata import (
    MAX_DEPTH,
    MAX_SIZE,
    encode_metadata,
    normalise,
    parse_metadata,
    parse_value,
    parse_word,
)


class Colour(str, Enum):  # noqa: UP042 - its str() is not its value, unlike a StrEnum's
    RED = "red"


class Half(float):
    pass


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (math.nan, None),
        (1.0, 1.0),
        (-(1 << 63), -(1 << 63)),
        ((1 << 64) - 1, (1 << 64) - 1),
        ((1, (2,)), [1, [2]]),
        ({"b": math.nan}, {"b": None}),
        (Colour.RED, "red"),
        (Half(0.5), 0.5),
        (True, True),
        ("\0ü", "\0ü"),
        (nested(MAX_DEPTH - 1), nested(MAX_DEPTH - 1)),
    ],
)
def test_metadata_has_one_form(value, stored):
    metadata = normalise({"a": value})

    assert {"a": stored} == metadata
    assert type(stored) is type(metadata["a"])
    assert metadata == normalise(metadata)


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({str(i): 0 for i in range(101)}, "101 keys"),
        ({"a": {"b": [math.inf]}}, "metadata.a.b[0] is infinite"),
        ({"a": -math.inf}, "metadata.a is infinite"),
        ({"a": 1 << 64}, "over 64 bits"),
        ({"a": -(1 << 63) - 1}, "over 64 bits"),
        ({"a": {1: 2}}, "has the key 1"),
        ({"a": b"x"}, "'bytes'"),
        ({"a": {1, 2}}, "'set'"),
        ({"a": nested(MAX_DEPTH)}, "nested deeper"),
        ({"a": "x" * MAX_SIZE}, "bytes"),
        ({"a": "\udcff"}, "no Unicode"),
        ({"\udcff": 1}, "no Unicode"),
    ],
)
def test_what_is_out_of_bounds_is_refused(metadata, said):
    with pytest.raises(InvalidError) as caught:
        normalise(metadata)
    assert said in caught.value.message


def test_what_contains_itself_is_refused():
    metadata: dict[str, object] = {}
    metadata["a"] = metadata

    with pytest.raises(InvalidError, match="nested deeper"):
        normalise(metadata)


def test_text_is_json_with_pythons_nan():
    assert {"a": None, "b": [1, 2.5]} == parse_metadata('{"a": NaN, "b": [1, 2.5]}')
    assert "x" == parse_value('"x"')
    assert [1, None] == parse_value("[1, NaN]")


@pytest.mark.parametrize(
    "text",
    ["", "{", "a", "'a'", '{"a": Infinity}', '{"a": -Infinity}', '{"a": 1e999}', "[]", "null",
     "[" * 100_000, "1" * 5000, '"' + "x" * MAX_SIZE + '"', '{"a": ' + "9" * 400 + "}"],
)  # fmt: skip
def test_text_that_is_no_metadata_is_refused(text):
    with pytest.raises(InvalidError) as caught:
        parse_metadata(text)
    assert len(str(caught.value)) < 400


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abc"), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text("abcdef", min_size=1), json_values, max_size=5))
def test_stored_metadata_comes_back_from_both_codecs(values):
    metadata = normalise(values)

    assert metadata == msgspec.json.decode(encode_metadata(metadata))
    assert metadata == msgspec.msgpack.decode(msgspec.msgpack.encode(metadata))
    assert encode_metadata(metadata) == encode_metadata(
        parse_metadata(encode_metadata(metadata).decode())
    )


@pytest.mark.parametrize(
    "text",
    [
        *("3", "-3", "0", "0.98", "-0.0", "1.0", "1e22", "1.5e-10", "9223372036854775807"),
        "18446744073709551615",
    ],
)
def test_a_word_that_prints_back_is_a_number(text: str) -> None:
    number = parse_word(text)

    assert isinstance(number, int | float)
    assert text == encode_metadata({"a": number}).decode()[5:-1]


@pytest.mark.parametrize(
    "text",
    [
        *("831877e8", "1.10", "7e10953", "007", "+1", "1_000", "1e5", "1E22", ".98", "1.", " 1"),
        *("0x10", "NaN", "Infinity", "-inf", "true", "null", "[1]", "{}", '"a"', "-0", "\u0661"),
        *("18446744073709551616", "1" * 5000, "2026-11-01", "\ud800"),
    ],
)
def test_any_other_word_stays_text(text: str) -> None:
    """A commit, a version or a big number is never changed into what it resembles."""
    assert text == parse_word(text)
    assert isinstance(parse_word(text), str)


@given(st.text(max_size=30) | st.floats().map(repr) | st.integers().map(str))
def test_every_word_is_stored_as_it_was_written(text: str) -> None:
    found = parse_word(text)

    assert text == (found if isinstance(found, str) else msgspec.json.encode(found).decode())
