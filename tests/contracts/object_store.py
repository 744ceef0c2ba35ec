"""What every `ports.ObjectStore` promises: subclass it, and give the adapter as `objects`."""

import contextlib
import itertools
import os
import threading

import pytest

from mregfs.errors import ExistsError, InvalidError, NotFoundError
from mregfs.ports.objects import ObjectStore

KEYS = (
    "checkpoints/00000000000000000400.zst",
    "layouts/0001",
    "log/00000000000000000001.json",
    "log/00000000000000000002.json",
    "log/00000000000000000010.json",
    "manifests/ab/ab01",
    "manifests/ab/ab02",
    "manifests/abc",
    "manifests/ab.d",
    "manifests/ac/ac01",
    "store.json",
)


class ObjectStoreContract:
    """One test a promise. `objects` is empty at first."""

    @pytest.fixture
    def objects(self) -> ObjectStore:
        raise NotImplementedError

    def test_what_was_created_is_read_back(self, objects):
        for data in (b"", b"{}", bytes(range(256)) * 1000):
            key = f"manifests/{len(data)}"
            objects.create(key, data)

            assert data == objects.get(key)
            assert objects.exists(key)

    def test_a_missing_key_is_not_found(self, objects):
        objects.create("log/1/2", b"")

        for key in ("log/2", "log/1", "log/1/2/3", "nowhere/at/all"):
            assert not objects.exists(key)
            with pytest.raises(NotFoundError):
                objects.get(key)

    def test_an_existing_key_is_not_replaced(self, objects):
        objects.create("log/1", b"first")

        with pytest.raises(ExistsError):
            objects.create("log/1", b"second")

        assert b"first" == objects.get("log/1")

    def test_delete_removes_and_forgives(self, objects):
        objects.create("log/1", b"x")

        objects.delete("log/1")
        objects.delete("log/1")
        objects.delete("never/there")

        assert not objects.exists("log/1")
        assert [] == list(objects.list(""))
        objects.create("log/1", b"y")
        assert b"y" == objects.get("log/1")

    @pytest.mark.parametrize(
        "key",
        ["", "/", "/log", "log/", "a//b", "..", "../x", "a/../b", ".", "a/./b", ".a", "a/.b", "tmp",
         "tmp/x", "a\0b", "a\nb", "a b", "ä"],
    )  # fmt: skip
    def test_keys_that_are_none_are_refused(self, objects, key):
        for use in (
            objects.get,
            objects.exists,
            objects.delete,
            lambda key: objects.create(key, b""),
        ):
            with pytest.raises(InvalidError):
                use(key)

    def test_list_is_sorted_and_keeps_to_prefix_and_start(self, objects):
        for key in reversed(KEYS):
            objects.create(key, b"")
        prefixes = ("", "l", "log", "log/", "log/00000000000000000001.json", "manifests/ab", "zzz",
                    "manifests/ab/", "manifests/a", "log/0000000000000000000", "none/")  # fmt: skip
        starts = (
            "",
            *KEYS,
            "log",
            "log/",
            "manifests/ab/",
            "manifests/ab/zz",
            "manifests/b",
            "zzz",
        )

        for prefix, start in itertools.product(prefixes, starts):
            expected = sorted(key for key in KEYS if key.startswith(prefix) and key > start)
            assert expected == list(objects.list(prefix, start)), (prefix, start)

    def test_list_survives_changes_between_two_keys(self, objects):
        for number in range(5):
            objects.create(f"log/{number}", b"")

        found = []
        for key in objects.list("log/"):
            objects.delete(key)
            found.append(key)

        assert [f"log/{number}" for number in range(5)] == found

    def test_of_many_threads_that_create_one_key_exactly_one_wins(self, objects):
        threads, keys = 8, 10
        barrier = threading.Barrier(threads)
        winners: list[tuple[int, int]] = []

        def race(me: int) -> None:
            for key in range(keys):
                barrier.wait()
                try:
                    objects.create(f"log/{key}", b"%d" % me)
                except ExistsError:
                    continue
                winners.append((key, me))

        runners = [threading.Thread(target=race, args=(me,)) for me in range(threads)]
        for runner in runners:
            runner.start()
        for runner in runners:
            runner.join()

        assert list(range(keys)) == sorted(key for key, _ in winners)
        for key, me in winners:
            assert b"%d" % me == objects.get(f"log/{key}")

    def test_a_reader_sees_the_whole_object_or_none(self, objects):
        """Also who asks while it is being made; objects are large enough to be seen torn."""
        data, count = os.urandom(1 << 20), 5
        writer = threading.Thread(
            target=lambda: [objects.create(f"log/{number}", data) for number in range(count)]
        )
        writer.start()
        for number in range(count):
            is_there = False
            while not is_there:
                is_made = not writer.is_alive()
                is_there = objects.exists(f"log/{number}")
                assert is_there or not is_made
                with contextlib.suppress(NotFoundError):
                    assert data == objects.get(f"log/{number}")
            assert data == objects.get(f"log/{number}")
        writer.join()

    def test_what_one_thread_makes_another_one_sees(self, objects):
        made = []

        def make() -> None:
            objects.create("log/1", b"x")
            made.append(objects.get("log/1"))

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()

        assert [b"x"] == made
        assert b"x" == objects.get("log/1")
        assert ["log/1"] == list(objects.list("log/"))
