"""What every `ports.PackStore` promises: subclass it, and give the adapter as `packs`."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mregfs.errors import ExistsError, InvalidError, NotFoundError
from mregfs.ports.packs import PackStore

A, B, C = ("a" * 32, "ab" + "0" * 30, "c" * 32)
MIB = 1 << 20


def read(packs: PackStore, pack: str, offset: int = 0, length: int = 100 * MIB) -> bytes:
    with closing(packs.open(pack)) as opened:
        return opened.read(offset, length)


def is_missing(packs: PackStore, pack: str) -> bool:
    """Tell whether a pack is missing by all ways to ask."""
    for use in (packs.size, lambda pack: read(packs, pack), lambda pack: packs.sync([pack])):
        with pytest.raises(NotFoundError):
            use(pack)
    return pack not in packs.list()


class PackStoreContract:
    """One test a promise. `packs` is empty at first.

    `nearby` is a directory whose files the store can adopt as they are, if it can do so with any.
    """

    @pytest.fixture
    def packs(self) -> PackStore:
        raise NotImplementedError

    @pytest.fixture
    def nearby(self, tmp_path: Path) -> Path:
        return tmp_path

    @pytest.fixture
    def sealed(self, nearby: Path) -> Iterator[Callable[[bytes], int]]:
        """Return a descriptor of a new file with these bytes, somewhere behind its beginning."""
        opened: list[int] = []

        def seal(data: bytes) -> int:
            path = nearby / f"sealed-{len(opened)}"
            path.write_bytes(data)
            path.chmod(0o444)
            opened.append(os.open(path, os.O_RDONLY))
            os.lseek(opened[-1], len(data) // 2, os.SEEK_SET)
            return opened[-1]

        yield seal
        for descriptor in opened:
            os.close(descriptor)

    # ---- reading

    def test_a_pack_is_its_pieces_back_to_back(self, packs):
        assert 6 == packs.create(A, [b"abc", b"", memoryview(b"def")])

        with closing(packs.open(A)) as pack:
            assert 6 == pack.size == packs.size(A)
            assert b"abcdef" == pack.read(0, 6)
            assert b"cd" == pack.read(2, 2)
            assert b"ef" == pack.read(4, 100)
            assert b"" == pack.read(6, 1)
            assert b"" == pack.read(100, 1)
            assert b"" == pack.read(3, 0)

    def test_an_empty_pack_is_a_pack(self, packs):
        assert 0 == packs.create(A, [])

        with closing(packs.open(A)) as pack:
            assert 0 == pack.size
            assert b"" == pack.read(0, 10)

    def test_large_packs_come_back(self, packs):
        pieces = [os.urandom(MIB) for _ in range(5)]

        packs.create(A, iter(pieces))

        assert b"".join(pieces) == read(packs, A)
        assert pieces[3][5:9] == read(packs, A, 3 * MIB + 5, 4)

    def test_a_missing_pack_is_not_found(self, packs):
        """When it is opened, or first used."""
        assert is_missing(packs, A)
        packs.delete(A)
        assert [] == list(packs.list())

    @pytest.mark.parametrize("pack", ["", "a" * 31, "a" * 33, "A" * 32, "../" + "a" * 29, "g" * 32])
    def test_ids_that_are_none_are_refused(self, packs, sealed, pack):
        for use in (
            packs.open,
            packs.open_local,
            packs.size,
            packs.delete,
            lambda pack: packs.create(pack, []),
            lambda pack: packs.replace(pack, []),
            lambda pack: packs.adopt(pack, sealed(b"")),
            lambda pack: packs.sync([pack]),
        ):
            with pytest.raises(InvalidError):
                use(pack)

    def test_a_backing_file_has_just_the_bytes_of_the_pack(self, packs):
        """Where there is one, and then it changes its stamp when it is written."""
        packs.create(A, [b"abcdef"])
        with closing(packs.open(A)) as pack:
            descriptor = pack.backing()
            if descriptor is not None:
                assert b"abcdef" == os.pread(descriptor, 10, 0)
                assert pack.stamp() == pack.stamp()
                assert 6 == pack.stamp()[0]

    def test_what_is_opened_without_waiting_is_a_file_of_this_host(self, packs):
        packs.create(A, [b"abcdef"])

        pack = packs.open_local(A)

        if pack is None:
            with closing(packs.open(A)) as opened:
                assert opened.backing() is None
            assert packs.open_local(B) is None
            return
        with closing(pack):
            assert b"abcdef" == os.pread(pack.backing(), 10, 0) == pack.read(0, 10)
        with pytest.raises(NotFoundError):
            packs.open_local(B)

    def test_nothing_beyond_the_end_is_cached(self, packs):
        packs.create(A, [bytes(10_000)])
        with closing(packs.open(A)) as pack:
            pack.read(0, 10_000)
            assert not pack.is_cached(0, 10_001)
            assert not pack.is_cached(10_000, 1)
            assert not pack.is_cached(20_000, 1)

    def test_closing_is_idempotent_and_then_nothing_is_read(self, packs):
        packs.create(A, [b"abc"])
        pack, other = packs.open(A), packs.open(A)

        pack.close()
        pack.close()

        for use in (pack.backing, lambda: pack.read(0, 1)):
            with pytest.raises(ValueError, match="closed"):
                use()
        assert b"abc" == other.read(0, 3)
        other.close()

    def test_threads_read_one_pack_without_mixing_ranges_up(self, packs):
        pieces = [b"%07d\n" % number for number in range(1000)]
        packs.create(A, pieces)
        failures: list[int] = []
        with closing(packs.open(A)) as pack:

            def work(seed: int) -> None:
                for turn in range(30):
                    number = turn * seed % len(pieces)
                    if pack.read(8 * number, 8) != pieces[number]:
                        failures.append(number)

            threads = [threading.Thread(target=work, args=(seed,)) for seed in (7, 11, 13)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert [] == failures

    # ---- making

    def test_an_id_is_never_taken_twice(self, packs, sealed):
        packs.create(A, [b"first"])

        with pytest.raises(ExistsError):
            packs.create(A, [b"second"])
        with pytest.raises(ExistsError):
            packs.adopt(A, sealed(b"second"))

        assert b"first" == read(packs, A)
        assert [A] == list(packs.list())

    def test_pieces_that_fail_leave_nothing(self, packs):
        def pieces():
            yield b"abc"
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            packs.create(A, pieces())

        assert is_missing(packs, A)
        assert 3 == packs.create(A, [b"new"])

    def test_nobody_sees_a_pack_before_all_of_it_is_there(self, packs):
        seen = []

        def pieces():
            yield b"abc"
            seen.append(is_missing(packs, A))
            yield b"def"

        packs.create(A, pieces())

        assert [True] == seen
        assert b"abcdef" == read(packs, A)

    @pytest.mark.parametrize("size", [0, 5, 3 * MIB + 7])
    def test_an_adopted_file_is_a_pack_with_its_bytes(self, packs, sealed, size):
        """Wherever in the file its descriptor is; it stays open."""
        data = os.urandom(size)
        descriptor = sealed(data)

        packs.adopt(A, descriptor)
        packs.sync([A])

        assert data == read(packs, A)
        assert size == packs.size(A)
        assert [A] == list(packs.list())
        assert data == os.pread(descriptor, size + 1, 0)

    def test_an_adopted_file_is_the_pack_or_has_nothing_to_do_with_it(self, packs, sealed, nearby):
        is_pack = packs.adopt(A, sealed(b"abcdef"))
        path = nearby / "sealed-0"

        if is_pack:
            with closing(packs.open(A)) as pack:
                assert os.path.samestat(path.stat(), os.fstat(pack.backing()))
        else:
            path.chmod(0o644)
            path.write_bytes(b"changed")
        path.unlink()
        assert b"abcdef" == read(packs, A)

    def test_holes_of_an_adopted_file_are_zeros(self, packs, nearby):
        path = nearby / "sparse"
        with path.open("wb") as file:
            file.write(b"begin")
            file.seek(MIB)
            file.write(b"end")
            file.truncate(2 * MIB)
        with path.open("rb") as file:
            packs.adopt(A, file.fileno())

        assert path.read_bytes() == read(packs, A)

    def test_deleting_an_adopted_pack_leaves_the_file(self, packs, sealed, nearby):
        packs.adopt(A, sealed(b"abc"))

        packs.delete(A)

        assert is_missing(packs, A)
        assert b"abc" == (nearby / "sealed-0").read_bytes()

    def test_a_pack_is_replaced_whole_or_not_at_all(self, packs):
        packs.create(A, [b"damaged"])

        def pieces():
            yield b"abc"
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            packs.replace(A, pieces())
        assert b"damaged" == read(packs, A)

        packs.replace(A, [b"so", b"und"])
        packs.replace(B, [b"missing"])

        assert (b"sound", b"missing") == (read(packs, A), read(packs, B))
        assert (5, 7) == (packs.size(A), packs.size(B))
        assert [A, B] == list(packs.list())

    def test_what_is_durable_must_be_there(self, packs):
        packs.create(A, [b"x"])

        packs.sync([])
        packs.sync([A])
        with pytest.raises(NotFoundError):
            packs.sync([A, B])

    # ---- the others

    def test_list_names_all_packs_sorted(self, packs):
        assert [] == list(packs.list())
        for pack in (C, A, B):
            packs.create(pack, [b"x"])

        assert [A, B, C] == list(packs.list())

    def test_a_deleted_pack_is_gone_but_for_who_has_its_file_open(self, packs):
        packs.create(A, [b"abc"])
        with closing(packs.open(A)) as pack:
            is_local = pack.backing() is not None

            packs.delete(A)
            packs.delete(A)

            assert is_missing(packs, A)
            if is_local:
                assert b"abc" == pack.read(0, 3)
