"""What every `ports.Index` promises: subclass it, and give the adapter as `index`."""

import itertools
import threading

import pytest

from mregfs.errors import InvalidError
from mregfs.model.state import Put
from mregfs.ports.index import Index

TABLES = ("alias", "version")
KEYS = (b"a", b"aa", b"ab", b"ab\0", b"ab\xff", b"ab\xff\xff", b"ac", b"b", b"\xff", b"\xff\xff")


def rows(index, table="alias", **arguments):
    with index.read() as view:
        return list(view.scan(table, **arguments))


def in_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


class IndexContract:
    """One test a promise. `index` is empty at first, and has the tables `TABLES`."""

    @pytest.fixture
    def index(self) -> Index:
        raise NotImplementedError

    def test_a_new_index_is_empty(self, index):
        assert 0 == index.applied()
        assert [] == rows(index)
        with index.read() as view:
            assert view.get("alias", b"x") is None

    def test_what_was_written_is_read_back(self, index):
        large = bytes(range(256)) * 1000

        assert index.write([Put("alias", b"k", b"v"), Put("version", b"k", large)])
        assert index.write([Put("alias", b"empty", b"")])

        with index.read() as view:
            assert b"v" == view.get("alias", b"k")
            assert large == view.get("version", b"k")
            assert b"" == view.get("alias", b"empty")
            assert isinstance(view.get("version", b"k"), bytes)

    def test_puts_apply_in_their_order_and_none_deletes(self, index):
        index.write([Put("alias", b"a", b"1"), Put("alias", b"b", b"1"), Put("alias", b"a", b"2")])
        index.write([Put("alias", b"b", None), Put("alias", b"missing", None)])
        index.write([Put("alias", b"c", b"1"), Put("alias", b"c", None)])

        assert [(b"a", b"2")] == rows(index)

    def test_scan_equals_filtering_the_sorted_keys(self, index):
        """Every prefix, start and direction over keys that try the edges of byte order."""
        index.write([Put("alias", key, b"v" + key) for key in KEYS])
        index.write([Put("version", b"ab", b"other table")])
        starts = (b"", *KEYS, b"\0", b"abc", b"abz", b"az", b"ab\xff\x01", b"c", b"\xff\xff\xff")
        prefixes = (
            b"",
            b"a",
            b"ab",
            b"ab\xff",
            b"b",
            b"\xff",
            b"\xff\xff",
            b"zz",
            b"\0",
            b"ab\xfe",
        )

        for prefix, start, reverse in itertools.product(prefixes, starts, (False, True)):
            expected = [key for key in sorted(KEYS) if key.startswith(prefix)]
            if reverse:
                expected = [key for key in reversed(expected) if not start or key <= start]
            else:
                expected = [key for key in expected if key >= start]
            found = rows(index, prefix=prefix, start=start, reverse=reverse)
            assert [(key, b"v" + key) for key in expected] == found, (prefix, start, reverse)

    def test_scan_of_an_empty_table_ends_at_once(self, index):
        for prefix, start, reverse in itertools.product((b"", b"a"), (b"", b"a"), (False, True)):
            assert [] == rows(index, prefix=prefix, start=start, reverse=reverse)

    def test_a_view_does_not_see_later_writes(self, index):
        index.write([Put("alias", b"a", b"old"), Put("version", b"a", b"old")])

        with index.read() as view:
            scan = view.scan("alias")
            in_thread(lambda: index.write([Put("alias", b"a", b"new"), Put("alias", b"b", b"new")]))
            in_thread(lambda: index.write([Put("version", b"a", b"new")]))
            in_thread(lambda: index.write([Put("alias", b"c", b"new")]))

            assert [(b"a", b"old")] == list(scan)
            assert b"old" == view.get("version", b"a")
            assert view.get("alias", b"b") is None
            with index.read() as newer:
                assert b"new" == newer.get("alias", b"b")
            in_thread(index.clear)
            assert b"old" == view.get("alias", b"a")

        assert [] == rows(index)

    def test_a_thread_may_write_while_it_has_a_view(self, index):
        with index.read() as view:
            assert index.write([Put("alias", b"a", b"1")], applied=1)
            assert 1 == index.applied()
            assert view.get("alias", b"a") is None

        assert [(b"a", b"1")] == rows(index)

    def test_a_failed_view_is_given_back(self, index):
        with pytest.raises(ZeroDivisionError), index.read():
            raise ZeroDivisionError

        index.write([Put("alias", b"a", b"1")])
        assert [(b"a", b"1")] == rows(index)

    def test_the_applied_number_is_set_with_the_puts(self, index):
        assert index.write([Put("alias", b"a", b"1")], applied=7)
        assert 7 == index.applied()
        assert index.write([Put("alias", b"b", b"1")])
        assert 7 == index.applied()
        assert index.write([], applied=1 << 40)
        assert 1 << 40 == index.applied()

    def test_a_write_that_expects_another_state_changes_nothing(self, index):
        assert index.write([Put("alias", b"a", b"1")], expected=0, applied=1)

        assert not index.write([Put("alias", b"a", b"2")], expected=0, applied=1)
        assert not index.write([Put("alias", b"a", None)], expected=2)

        assert [(b"a", b"1")] == rows(index)
        assert 1 == index.applied()
        assert index.write([Put("alias", b"a", b"2")], expected=1, applied=2)

    def test_of_threads_that_expect_the_same_state_exactly_one_writes(self, index):
        threads, turns = 4, 25
        barrier = threading.Barrier(threads)
        won: list[int] = []

        def race() -> None:
            for turn in range(turns):
                barrier.wait()
                if index.write([Put("alias", b"n", b"%d" % turn)], expected=turn, applied=turn + 1):
                    won.append(turn)

        runners = [threading.Thread(target=race) for _ in range(threads)]
        for runner in runners:
            runner.start()
        for runner in runners:
            runner.join()

        assert list(range(turns)) == won
        assert turns == index.applied()

    def test_clear_empties_all_tables(self, index):
        index.write([Put("alias", b"a", b"1"), Put("version", b"a", b"1")], applied=3)

        index.clear()

        assert 0 == index.applied()
        assert [] == rows(index) == rows(index, "version")
        assert index.write([Put("alias", b"b", b"1")], expected=0, applied=1)
        assert [(b"b", b"1")] == rows(index)

    def test_a_write_anew_leaves_only_what_it_puts(self, index):
        index.write([Put("alias", b"a", b"1"), Put("version", b"a", b"1")], applied=3)

        assert not index.write([], expected=2, applied=5, anew=True)
        assert [(b"a", b"1")] == rows(index) == rows(index, "version")
        with index.read() as before:
            assert index.write([Put("alias", b"b", b"2")], expected=3, applied=4, anew=True)
            assert b"1" == before.get("alias", b"a")
            assert before.get("alias", b"b") is None

        assert 4 == index.applied()
        assert [(b"b", b"2")] == rows(index)
        assert [] == rows(index, "version")
        assert index.write([Put("version", b"c", b"3")], expected=4, applied=5)
        assert [(b"c", b"3")] == rows(index, "version")

    def test_keys_have_1_to_511_bytes(self, index):
        index.write([Put("alias", b"k" * 511, b"v")])

        for key in (b"", b"k" * 512):
            with pytest.raises(InvalidError, match="bytes"):
                index.write([Put("alias", b"a", b"v"), Put("alias", key, b"v")])
            with index.read() as view:
                assert view.get("alias", key) is None

        assert [(b"k" * 511, b"v")] == rows(index)

    def test_a_closed_view_gives_nothing(self, index):
        index.write([Put("alias", b"a", b"1"), Put("alias", b"b", b"1")])
        with index.read() as view:
            scan = view.scan("alias")
            assert (b"a", b"1") == next(scan)

        with pytest.raises(RuntimeError, match="closed"):
            next(scan)
        with pytest.raises(RuntimeError, match="closed"):
            view.get("alias", b"a")
        with pytest.raises(RuntimeError, match="closed"):
            next(view.scan("alias"))

    def test_closing_twice_is_fine(self, index):
        index.close()
        index.close()

    def test_what_was_reserved_is_written(self, index):
        """It changes nothing by itself; what has no room is told before (`test_index_lmdb`)."""
        puts = [Put("alias", b"%04d" % number, bytes(1000)) for number in range(100)]

        index.reserve(puts)

        assert (0, []) == (index.applied(), rows(index))
        assert index.write(puts, expected=0, applied=1)
        assert 100 == len(rows(index))
