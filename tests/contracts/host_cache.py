"""What every `ports.WholeFiles` promises: subclass it, and give the adapter as `whole`."""

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from mregfs.errors import CorruptError, InvalidError
from mregfs.ports.host_cache import WholeFiles
from mregfs.ports.packs import PackFile
from tests.contracts.sleeping_store import SleepingPacks

A, B, C, D = ("a" * 64, "ab" + "0" * 62, "c" * 64, "d" * 64)
LIMIT = 100_000


class FileOfThisHost:
    """A pack that is a file."""

    def __init__(self, path: Path, data: bytes) -> None:
        path.write_bytes(data)
        self._fd = os.open(path, os.O_RDONLY)
        self.size = len(data)

    def backing(self) -> int:
        return self._fd

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._fd, length, offset)

    def close(self) -> None:
        os.close(self._fd)


class WholeFilesContract:
    """One test a promise. `whole` is empty at first, and takes `LIMIT` bytes."""

    @pytest.fixture
    def whole(self) -> WholeFiles:
        raise NotImplementedError

    def not_used_for_long(self, whole: WholeFiles, digests: list[str]) -> None:
        """Have these files used some time ago, the first of them longest ago."""
        raise NotImplementedError

    @pytest.fixture(params=["a file of this host", "far away"])
    def pack(self, request, tmp_path: Path):
        """Make a pack with these bytes."""

        def make(data: bytes) -> PackFile:
            if request.param == "far away":
                packs = SleepingPacks(0)
                packs.create("a" * 32, [data])
                return packs.open("a" * 32)
            return FileOfThisHost(tmp_path / "pack", data)  # type: ignore[return-value]

        return make

    @pytest.fixture
    def add(self, whole: WholeFiles, tmp_path: Path) -> Callable[..., bool]:
        """Put a file of zeros into the cache; False: it was refused."""

        def add(digest: str, size: int, keep: tuple[str, ...] = ()) -> bool:
            draft = whole.create(digest, size, keep)
            if draft is None:
                return False
            with closing(FileOfThisHost(tmp_path / "zeros", bytes(size))) as zeros, closing(draft):
                draft.append(zeros, 0, size)
                draft.finish()
            return True

        return add

    # ---- making

    def test_nothing_is_seen_before_it_is_finished(self, whole, pack):
        with closing(pack(b"abcdef")) as source, closing(whole.create(A, 4)) as draft:
            draft.append(source, 1, 2)

            assert whole.open(A) is None
            assert {} == whole.files()
            assert 4 == whole.figures().used
            assert b"bc" == draft.read(0, 4)
            with pytest.raises(InvalidError):
                draft.finish()
            with pytest.raises(InvalidError):
                draft.append(source, 0, 3)

            draft.append(source, 4, 2)
            draft.finish()

        with closing(whole.open(A)) as opened:
            assert 4 == opened.size
            assert b"bcef" == opened.read(0, 100)
        assert {A: 4} == whole.files()

    def test_a_pack_that_is_too_short_is_damaged(self, whole, pack):
        with closing(pack(b"abcdef")) as source, closing(whole.create(A, 4)) as draft:
            with pytest.raises(CorruptError):
                draft.append(source, 5, 2)
            with pytest.raises(CorruptError):
                draft.append(source, 10, 2)

    @pytest.mark.parametrize("offset", [0, 1, 4096, 5000])
    def test_runs_of_packs_are_put_together_byte_for_byte(self, whole, pack, offset):
        data = os.urandom(30_000)
        size = 10_000 + 77 + 12_288
        with closing(pack(data)) as source, closing(whole.create(A, size)) as draft:
            draft.append(source, offset, 10_000)
            draft.append(source, 3, 77)
            draft.append(source, 4096, 12_288)
            assert size == len(draft.read(0, size + 1))
            draft.finish()

        with closing(whole.open(A)) as opened:
            expected = data[offset : offset + 10_000] + data[3:80] + data[4096:16_384]
            assert expected == opened.read(0, size)

    def test_what_is_given_up_leaves_nothing(self, whole):
        whole.create(A, 40).close()

        assert whole.open(A) is None
        assert 0 == whole.figures().used
        draft = whole.create(A, 40)
        assert draft is not None
        draft.close()

    def test_what_is_there_is_not_made_again(self, whole, add):
        assert add(A, 40)
        assert whole.create(A, 40) is None

    # ---- reading

    def test_a_complete_file_is_a_file_of_this_host(self, whole, add):
        """The kernel may read it by itself: that is what it is for."""
        add(A, 40)
        with closing(whole.open(A)) as opened:
            assert bytes(40) == os.pread(opened.backing(), 100, 0)
            assert opened.stamp() == opened.stamp()
            assert 40 == opened.stamp()[0]
            opened.read(0, 40)
            assert not opened.is_cached(0, 41)

    def test_a_use_does_not_change_the_stamp(self, whole, add):
        add(A, 40)
        with closing(whole.open(A)) as opened:
            before = opened.stamp()
        self.not_used_for_long(whole, [A])
        with closing(whole.open(A)) as opened:
            opened.read(0, 40)
            assert before[0] == opened.stamp()[0]

    def test_what_is_missing_is_none(self, whole):
        assert whole.open(A) is None
        whole.delete(A)
        assert {} == whole.files() == whole.pins()

    def test_an_open_file_outlives_its_deletion(self, whole, add):
        add(A, 40)
        with closing(whole.open(A)) as opened:
            whole.delete(A)

            assert bytes(40) == opened.read(0, 40)
        assert whole.open(A) is None

    # ---- room

    def test_what_was_unused_longest_is_evicted_first(self, whole, add):
        for digest in (A, B):
            add(digest, 40_000)
        self.not_used_for_long(whole, [A, B])
        whole.open(A).close()

        assert add(C, 60_000)
        assert {A: 40_000, C: 60_000} == whole.files()

    def test_pinned_and_kept_files_stay_and_nothing_is_evicted_in_vain(self, whole, add):
        whole.pin("x", [A])
        add(A, 40_000)
        add(B, 40_000)

        assert not add(C, 40_000, keep=(B,))
        assert not add(C, 80_000)
        assert {A: 40_000, B: 40_000} == whole.files()
        assert add(C, 60_000)
        assert {A: 40_000, C: 60_000} == whole.files()

    def test_what_is_larger_than_the_cache_is_refused(self, whole):
        assert whole.create(A, LIMIT + 1) is None
        assert 0 == whole.figures().used

    def test_what_is_being_made_counts(self, whole, add):
        with closing(whole.create(A, 80_000)):
            assert not add(B, 40_000)
        assert add(B, 40_000)

    def test_the_figures_add_up(self, whole, add):
        whole.pin("x", [A, D])
        add(A, 40)
        add(B, 20)
        with closing(whole.create(C, 10)):
            figures = whole.figures()
        assert (LIMIT, 70, 2, 40) == (figures.limit, figures.used, figures.files, figures.pinned)

    # ---- pins

    def test_pins_are_kept_by_name(self, whole):
        whole.pin("x", [A, B])
        whole.pin("y", iter([B]))
        whole.pin("x", [A])
        assert {"x": frozenset([A]), "y": frozenset([B])} == whole.pins()

        whole.unpin(["y", "nobody"])

        assert {"x": frozenset([A])} == whole.pins()

    def test_what_is_unpinned_may_be_evicted(self, whole, add):
        whole.pin("x", [A])
        add(A, 60_000)
        assert not add(B, 60_000)

        whole.unpin(["x"])

        assert add(B, 60_000)
        assert {B: 60_000} == whole.files()
