"""An overlay is a view: whatever is on top, it reads as if it had been stored."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mregfs.model.rules import Overlay
from mregfs.model.state import Put
from mregfs.stores.index_memory import IndexMemory

keys = st.binary(min_size=1, max_size=3).map(lambda key: bytes(b % 3 for b in key))
puts = st.lists(
    st.builds(Put, st.sampled_from("ab"), keys, st.none() | st.binary(max_size=2)), max_size=25
)


@given(
    below=puts, above=puts, prefix=keys | st.just(b""), start=keys | st.just(b""), data=st.data()
)
def test_reading_through_is_reading_what_was_written(below, above, prefix, start, data):
    stored, index = IndexMemory(), IndexMemory()
    index.write(below)
    stored.write([*below, *above])
    with index.read() as view, stored.read() as expected:
        overlay = Overlay(view)
        for _ in range(3):
            overlay.apply(above)
        reverse = data.draw(st.booleans())

        assert list(expected.scan("a", prefix, start, reverse=reverse)) == list(
            overlay.scan("a", prefix, start, reverse=reverse)
        )
        for table in "ab":
            for key, value in expected.scan(table):
                assert value == overlay.get(table, key)
        again = IndexMemory()
        again.write([*below, *overlay.puts()])
        with again.read() as replayed:
            assert list(expected.scan("a")) == list(replayed.scan("a"))


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_goes_on_in_order_while_what_it_has_shown_is_changed(reverse):
    index = IndexMemory()
    index.write([Put("t", bytes([number]), b"0") for number in range(2, 20, 2)])
    with index.read() as view:
        overlay = Overlay(view)
        overlay.apply(("t", bytes([number]), b"1") for number in range(1, 20, 2))
        seen = []
        for key, _ in overlay.scan("t", reverse=reverse):
            behind = key[0] + (1 if reverse else -1)
            overlay.apply([("t", key, None), ("t", bytes([behind, 0]), b"2")])
            seen.append(key[0])

        assert sorted(range(1, 20), reverse=reverse) == seen


def test_a_prefix_may_end_in_the_highest_byte():
    index = IndexMemory()
    with index.read() as view:
        overlay = Overlay(view)
        overlay.apply([("t", key, b"1") for key in (b"a\xfe", b"a\xff\xff", b"b", b"\xff\xff")])

        assert [b"a\xff\xff"] == [key for key, _ in overlay.scan("t", b"a\xff", reverse=True)]
        assert [b"\xff\xff"] == [key for key, _ in overlay.scan("t", b"\xff", reverse=True)]


def test_an_overlay_lies_on_an_overlay():
    index = IndexMemory()
    index.write([Put("t", b"a", b"1"), Put("t", b"c", b"3")])
    with index.read() as view:
        middle = Overlay(view)
        middle.apply([("t", b"b", b"2"), ("t", b"a", None)])
        top = Overlay(middle)
        top.apply([("t", b"d", b"4"), ("t", b"c", None)])

        assert [(b"b", b"2"), (b"d", b"4")] == list(top.scan("t"))
        assert (None, b"2", None) == (top.get("t", b"a"), top.get("t", b"b"), top.get("t", b"c"))
        assert [("t", b"c", None), ("t", b"d", b"4")] == top.puts()
