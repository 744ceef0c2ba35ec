"""The index on LMDB keeps the contract; and what it promises of damage and other processes."""

import contextlib
import ctypes
import faulthandler
import mmap
import os
import pathlib
import shutil
import signal
import stat
import subprocess
import threading

import lmdb
import pytest

from mregfs.errors import (
    ForbiddenError,
    InvalidError,
    NoSpaceError,
    NotFoundError,
    UnavailableError,
)
from mregfs.model.state import Put
from mregfs.stores.index_lmdb import IndexLmdb, environment, files, slots
from tests.contracts.index import TABLES, IndexContract

SMALL = 1 << 20


@pytest.fixture
def path(tmp_path):
    return tmp_path / "index"


@pytest.fixture
def index(path):
    with IndexLmdb(path, TABLES, map_size=SMALL) as index:
        yield index


class TestIndexLmdb(IndexContract):
    @pytest.fixture
    def index(self, path):
        with IndexLmdb(path, TABLES) as index:
            yield index


def fill(index: IndexLmdb, count: int = 100, size: int = 50, applied: int = 1) -> None:
    index.write(
        [Put("alias", b"%06d" % number, b"v" * size) for number in range(count)], applied=applied
    )


def count(index: IndexLmdb) -> int:
    with index.read() as view:
        return sum(1 for _ in view.scan("alias"))


def guard(path: pathlib.Path) -> list[str]:
    return (path / "guard").read_text().split()


def in_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    return thread


class Signal:
    """An event between processes."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()

    def set(self) -> None:
        os.write(self._write, b"x")

    def wait(self) -> None:
        assert b"x" == os.read(self._read, 1)

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


@pytest.fixture
def signals():
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(contextlib.closing(Signal())) for _ in range(2)]


# ---- several processes


def test_of_processes_that_expect_the_same_state_exactly_one_writes(index, path, start, wait_for):
    """Each key names its writer; a lost compare-and-set would write one twice."""
    processes, turns = 3, 200

    def race(me: int) -> None:
        with IndexLmdb(path, TABLES) as mine:
            while (seen := mine.applied()) < turns:
                mine.write([Put("alias", b"%06d" % seen, b"%d" % me)], expected=seen,
                           applied=seen + 1)  # fmt: skip

    children = [start(lambda me=me: race(me)) for me in range(processes)]
    for child in children:
        wait_for(child)

    assert turns == index.applied() == count(index)


def test_another_process_sees_a_write_at_once(index, path, start, wait_for, signals):
    there, here = signals

    def read() -> None:
        with IndexLmdb(path, TABLES) as mine:
            assert 0 == mine.applied()
            there.set()
            here.wait()
            assert 1 == mine.applied()
            assert 100 == count(mine)

    child = start(read)
    there.wait()
    fill(index)
    here.set()
    wait_for(child)


def test_the_map_grows_by_itself_and_the_others_follow(index, path, start, wait_for, signals):
    """The other process has the small map open, then reads and writes beyond its end."""
    there, here = signals

    def follow() -> None:
        with IndexLmdb(path, TABLES, map_size=SMALL) as mine:
            assert 0 == count(mine)
            there.set()
            here.wait()
            assert 1 == mine.applied()
            assert 8000 == count(mine)
            mine.write([Put("version", b"k", b"v" * (16 << 20))], applied=2)

    child = start(follow)
    there.wait()
    fill(index, 8000, 1000)
    here.set()
    wait_for(child)

    assert 2 == index.applied()
    with index.read() as view:
        assert 16 << 20 == len(view.get("version", b"k") or b"")


def test_growing_waits_for_views_of_other_threads(index, wait_until):
    inside, leave = threading.Event(), threading.Event()
    fill(index, 10)

    def read() -> None:
        with index.read() as view:
            inside.set()
            leave.wait()
            assert 10 == sum(1 for _ in view.scan("alias"))

    reader = in_thread(read)
    inside.wait()
    writer = in_thread(lambda: fill(index, 8000, 1000, applied=2))
    wait_until(lambda: index._environment._alone, "the writer wants to grow the map")
    late = in_thread(lambda: count(index))
    leave.set()
    for thread in (reader, writer, late):
        thread.join()

    assert 8000 == count(index)


def test_a_thread_that_must_grow_under_its_own_view_is_told_to_try_again(index):
    with index.read(), pytest.raises(UnavailableError, match="try again"):
        fill(index, 8000, 1000)
    assert 0 == index.applied()

    with index.read():
        for _ in range(20):
            with contextlib.suppress(UnavailableError):
                fill(index, 2000, 100)
                break
    assert 1 == index.applied()


def test_readers_writers_and_growth_do_not_tear(index):
    """Every view must see as many keys as the applied number says."""
    turns = 150
    failures: list[object] = []

    def write() -> None:
        for turn in range(turns):
            key = b"%06d" % turn
            puts = [Put("alias", key, b"v" * 100), Put("version", key, b"v" * 40000)]
            index.write(puts, expected=turn, applied=turn + 1)

    def read() -> None:
        while (before := index.applied()) < turns:
            with index.read() as view:
                aliases = sum(1 for _ in view.scan("alias"))
                versions = sum(1 for _ in view.scan("version"))
            if aliases != versions or aliases < before:
                failures.append((before, aliases, versions))

    threads = [in_thread(each) for each in (write, read, read)]
    for thread in threads:
        thread.join()

    assert [] == failures
    assert turns == count(index)


def test_many_threads_read_at_a_time(index):
    fill(index, 10)
    barrier = threading.Barrier(64)
    counts: list[int] = []

    def read() -> None:
        with index.read() as view:
            barrier.wait()
            counts.append(sum(1 for _ in view.scan("alias")))

    threads = [in_thread(read) for _ in range(64)]
    for thread in threads:
        thread.join()

    assert [10] * 64 == counts


def test_openers_in_one_process_share_and_the_last_closes(index, path, tmp_path):
    (tmp_path / "way").symlink_to(path)
    other = IndexLmdb(tmp_path / "way", TABLES)
    fill(index)

    assert 1 == other.applied()
    other.close()
    with pytest.raises(RuntimeError, match="closed"):
        other.applied()
    assert 1 == index.applied()

    index.close()
    assert "clean" == guard(path)[0]
    with IndexLmdb(path, TABLES) as again:
        assert 100 == count(again)


def test_one_process_cannot_open_it_with_two_schemas(index, path):
    with pytest.raises(InvalidError, match="schema"):
        IndexLmdb(path, ("alias",))


def test_a_fork_takes_neither_views_nor_locks_from_the_parent(index, path, start, wait_for):
    fill(index)
    stop = threading.Event()
    failures: list[object] = []

    def read() -> None:
        while not stop.is_set():
            if (found := count(index)) not in (100, 200):
                failures.append(found)

    reader = in_thread(read)

    def use() -> None:
        assert 100 == count(index)
        assert index.write([Put("version", b"child", b"1")], expected=1, applied=2)
        index.close()

    for turn in range(5):
        wait_for(start(use if turn == 0 else lambda: count(index)))
    fill(index, 200, applied=3)
    stop.set()
    reader.join()

    assert [] == failures
    assert 3 == index.applied()
    with index.read() as view:
        assert b"1" == view.get("version", b"child")


def test_a_killed_reader_does_not_keep_its_slot(index, path, start, signals):
    there, _ = signals
    fill(index)

    def read() -> None:
        with IndexLmdb(path, TABLES) as mine, mine.read():
            there.set()
            threading.Event().wait()

    child = start(read)
    there.wait()
    assert 1 == index.applied()
    readers = index._environment._handle.env.readers
    assert str(child) in readers()
    os.kill(child, 9)
    os.waitpid(child, 0)

    index.close()
    with IndexLmdb(path, TABLES) as again:
        assert str(child) not in again._environment._handle.env.readers()


def take_all_slots(path: pathlib.Path, ready: "Signal") -> None:
    """Begin read transactions until there is no slot left, as many threads would."""
    with IndexLmdb(path, TABLES) as mine:
        mine.applied()  # opens it
        env, views = mine._environment._handle.env, []
        with contextlib.suppress(lmdb.ReadersFullError):
            while True:
                views.append(env.begin())
        ready.set()
        threading.Event().wait()


def test_slots_of_the_dead_keep_nobody_out_while_a_frozen_process_lives(
    index, path, start, signals, wait_until
):
    """LMDB needs a slot to open, so who opens frees those of the dead without it."""
    there, _ = signals
    fill(index)
    index.sync()
    frozen = start(lambda: keep_a_view(path, there))
    there.wait()
    os.kill(frozen, signal.SIGSTOP)
    reader = start(lambda: take_all_slots(path, there))
    there.wait()
    index.close()  # nobody is left who could free them but who comes now
    os.kill(reader, signal.SIGKILL)
    os.waitpid(reader, 0)
    try:
        with IndexLmdb(path, TABLES) as again:
            assert 100 == count(again)
            readers = again._environment._handle.env.readers()
            assert str(frozen) in readers
            assert str(reader) not in readers
    finally:
        os.kill(frozen, signal.SIGKILL)


def keep_a_view(path: pathlib.Path, ready: "Signal") -> None:
    with IndexLmdb(path, TABLES) as mine, mine.read():
        ready.set()
        threading.Event().wait()


def test_slots_of_the_living_are_kept_and_their_process_is_named(path, start, signals):
    there, _ = signals
    reader = start(lambda: take_all_slots(path, there))
    there.wait()
    try:
        with pytest.raises(UnavailableError, match=rf"as many .* takes, by process {reader}"):
            IndexLmdb(path, TABLES)
    finally:
        os.kill(reader, signal.SIGKILL)


def test_a_slot_table_whose_owner_died_in_it_is_taken_over(index, path, start, signals):
    """The mutex of the table is robust: the kernel gives it to who waits for it."""
    there, _ = signals
    fill(index)

    def die_with_the_mutex() -> None:
        memory = mmap.mmap(os.open(path / "lock.mdb", os.O_RDWR), 0)
        mutex = (ctypes.c_char * 1).from_buffer(memory, slots._MUTEX)
        ctypes.CDLL(None).pthread_mutex_lock(ctypes.byref(mutex))
        there.set()
        threading.Event().wait()

    child = start(die_with_the_mutex)
    there.wait()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with (path / "lock.mdb").open("r+b") as lock:
        assert 0 == slots.free_slots(lock.fileno())
    with IndexLmdb(path, TABLES) as again:
        assert 100 == count(again)


# ---- deleted, replaced


def remove_all(path: pathlib.Path) -> None:
    shutil.rmtree(path)


def remove_data(path: pathlib.Path) -> None:
    (path / "data.mdb").unlink()


@pytest.mark.parametrize("remove", [remove_all, remove_data])
def test_an_index_deleted_while_open_starts_anew(index, path, remove, start, wait_for):
    fill(index)

    remove(path)

    assert 0 == index.applied()
    assert 0 == count(index)
    assert index.write([Put("alias", b"a", b"1")], expected=0, applied=1)

    def look() -> None:
        with IndexLmdb(path, TABLES) as mine:
            assert 1 == mine.applied() == count(mine)

    wait_for(start(look))


def test_a_write_after_the_deletion_does_not_go_to_the_ghost(index, path):
    fill(index)
    remove_all(path)

    assert not index.write([Put("alias", b"a", b"1")], expected=1, applied=2)
    assert 0 == index.applied()


def test_readers_notice_within_a_second(index, path, monkeypatch):
    fill(index)
    now = [1e9]
    monkeypatch.setattr(environment, "monotonic", lambda: now[0])
    assert 100 == count(index)
    now[0] += 10
    assert 100 == count(index)

    remove_all(path)
    now[0] += environment.CHECK_SECONDS

    assert 0 == count(index)


def test_an_index_replaced_by_another_process_is_followed(
    path, start, wait_for, signals, expected_warnings
):
    expected_warnings.expect("another version")
    _, here = signals

    def replace() -> None:
        here.wait()
        with IndexLmdb(path, TABLES, schema="new") as mine:
            assert 0 == mine.applied()

    child = start(replace)
    index = IndexLmdb(path, TABLES)
    fill(index)
    here.set()
    wait_for(child)

    # Back to the own schema: two versions of the program on one index take turns.
    assert 0 == index.applied()
    index.close()


def test_a_lost_lock_file_replaces_the_index(path, start, wait_for, signals):
    """Two sets of locks on one file would let two processes write at a time."""
    _, here = signals

    def look() -> None:
        here.wait()
        with IndexLmdb(path, TABLES) as mine:
            assert 0 == mine.applied()

    child = start(look)
    index = IndexLmdb(path, TABLES)
    fill(index)
    (path / "lock.mdb").unlink()
    here.set()
    wait_for(child)

    assert 0 == index.applied()
    index.close()


# ---- damage


def truncated(path: pathlib.Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_to_metas(path: pathlib.Path) -> None:
    os.truncate(path, 8192)


def cut_within_meta(path: pathlib.Path) -> None:
    os.truncate(path, 5000)


def emptied(path: pathlib.Path) -> None:
    os.truncate(path, 0)


def zeroed(path: pathlib.Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def garbage(path: pathlib.Path) -> None:
    path.write_bytes(os.urandom(1 << 16))


def text(path: pathlib.Path) -> None:
    path.write_text("not a database\n")


def other_version(path: pathlib.Path) -> None:
    with path.open("r+b") as file:
        for page in (0, 4096):
            file.seek(page + 20)
            file.write(b"\x02\0\0\0")


def garbage_pages(path: pathlib.Path) -> None:
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(os.urandom(path.stat().st_size - 8192))


def zeroed_pages(path: pathlib.Path) -> None:
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(bytes(path.stat().st_size - 8192))


def one_flipped_root(path: pathlib.Path) -> None:
    with path.open("r+b") as file:
        for page in (0, 4096):
            file.seek(page + 128)
            file.write(b"\xff\xff\xff\x0f")


DAMAGES = (truncated, cut_to_metas, cut_within_meta, emptied, zeroed, garbage, text, other_version,
           garbage_pages, zeroed_pages, one_flipped_root)  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_index_starts_anew(path, damage, expected_warnings):
    expected_warnings.expect("rebuilt from the log")
    with IndexLmdb(path, TABLES) as index:
        fill(index, 2000)
    before = (path / "data.mdb").stat().st_size
    assert before > 16384

    damage(path / "data.mdb")

    with IndexLmdb(path, TABLES) as index:
        assert 0 == index.applied()
        assert 0 == count(index)
        fill(index, 100)
        assert 100 == count(index)
    assert (path / "data.mdb.damaged").exists()


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_under_a_running_process_ends_at_the_next_start_at_the_latest(
    path, damage, start, expected_warnings
):
    """The process that reads the damage may die of it (SIGBUS); nobody dies twice."""
    expected_warnings.expect("rebuilt from the log")
    with IndexLmdb(path, TABLES) as index:
        fill(index, 2000)

    def run() -> None:
        faulthandler.disable()
        index = IndexLmdb(path, TABLES)
        index.write([Put("version", b"k", b"v")])
        damage(path / "data.mdb")
        with contextlib.suppress(UnavailableError, RuntimeError):
            count(index)
        os._exit(0)

    child = start(run)
    os.waitpid(child, 0)

    with IndexLmdb(path, TABLES) as index:
        assert 0 == index.applied() == count(index)


def test_damage_that_lmdb_reports_is_wiped_before_the_next_use(index, path, expected_warnings):
    expected_warnings.expect("rebuilt from the log")
    fill(index, 2000)
    garbage_of_branches(path / "data.mdb")

    with pytest.raises(UnavailableError, match="try again"):
        count(index)

    assert 0 == index.applied()
    fill(index)
    assert 100 == count(index)


def test_garbage_over_a_used_index_is_no_lack_of_room(index, path, expected_warnings):
    expected_warnings.expect("rebuilt from the log")
    fill(index, 2000)
    with (path / "data.mdb").open("r+b") as file:
        file.write(b"\xa5" * 4096)

    with contextlib.suppress(UnavailableError):
        fill(index, 100, applied=2)

    fill(index, 100, applied=2)
    assert 100 == count(index)


def garbage_of_branches(path: pathlib.Path) -> None:
    """Claim that every page is of no kind that LMDB knows."""
    with path.open("r+b") as file:
        for page in range(8192, path.stat().st_size, 4096):
            file.seek(page + 10)
            file.write(b"\0\0")


def test_a_damaged_lock_file_does_no_harm(path):
    with IndexLmdb(path, TABLES) as index:
        fill(index)
    (path / "lock.mdb").write_bytes(b"\xff" * 70000)

    with IndexLmdb(path, TABLES) as index:
        assert 100 == count(index)


# ---- crashes


def test_a_writer_killed_at_any_moment_leaves_whole_transactions(path, start, wait_until):
    def write() -> None:
        index = IndexLmdb(path, TABLES, map_size=SMALL)
        for turn in range(1 << 30):
            number = b"%d" % turn
            puts = [Put("alias", b"%06d" % (turn % 500), number * 50), Put("version", b"n", number)]
            index.write(puts, expected=index.applied(), applied=turn + 1)

    for goal in (50, 700, 2000):
        child = start(write)
        with IndexLmdb(path, TABLES, map_size=SMALL) as index:
            index.clear()
            wait_until(lambda index=index, goal=goal: index.applied() > goal, "it has written")
            os.kill(child, 9)
            os.waitpid(child, 0)

            applied = index.applied()
            with index.read() as view:
                assert b"%d" % (applied - 1) == view.get("version", b"n")
            if not index.write([Put("alias", b"mine", b"1")], expected=applied, applied=applied):
                # Killed between the end of a transaction and telling readers of it: the next
                # writer finds it, and then all see it.
                assert applied + 1 == index.applied()


def test_an_index_whose_user_was_killed_is_kept(path, start, monkeypatch):
    def write() -> None:
        fill(IndexLmdb(path, TABLES))
        os._exit(0)

    os.waitpid(start(write), 0)
    assert "dirty" == guard(path)[0]

    with IndexLmdb(path, TABLES) as index:
        assert 100 == count(index)
        assert 1 == index.applied()
    assert "clean" == guard(path)[0]
    monkeypatch.setattr(files.IndexFiles, "_note_clean", lambda self: pytest.fail("looked again"))
    with IndexLmdb(path, TABLES) as index:
        assert 100 == count(index)


def test_after_a_crash_of_the_host_a_dirty_index_starts_anew(path, start, expected_warnings):
    expected_warnings.expect("when the host stopped")

    def write() -> None:
        fill(IndexLmdb(path, TABLES))
        os._exit(0)

    os.waitpid(start(write), 0)
    (path / "guard").write_text("dirty 00000000-0000-0000-0000-000000000000\n")

    with IndexLmdb(path, TABLES) as index:
        assert 0 == index.applied() == count(index)


def test_after_a_crash_of_the_host_a_clean_index_is_kept(path, monkeypatch):
    with IndexLmdb(path, TABLES) as index:
        fill(index)
    monkeypatch.setattr(files, "_boot_id", lambda: "another")

    with IndexLmdb(path, TABLES) as index:
        assert 100 == count(index)


def test_without_a_guard_nothing_is_trusted(path, expected_warnings):
    expected_warnings.expect("no valid guard")
    with IndexLmdb(path, TABLES) as index:
        fill(index)
    (path / "guard").unlink()

    with IndexLmdb(path, TABLES) as index:
        assert 0 == index.applied()


def test_the_guard_is_durable_before_the_first_write(path, monkeypatch):
    with IndexLmdb(path, TABLES) as index:
        fill(index)
    with IndexLmdb(path, TABLES) as index:
        assert 100 == count(index)
        assert "clean" == guard(path)[0]
        synced = []
        monkeypatch.setattr(os, "fsync", lambda fd: synced.append(guard(path)[0]))

        fill(index, applied=2)
        fill(index, applied=3)

        assert ["dirty"] == synced


def test_sync_makes_clean_until_the_next_write(index, path):
    fill(index)
    assert "dirty" == guard(path)[0]

    index.sync()
    assert "clean" == guard(path)[0]

    fill(index, applied=2)
    assert "dirty" == guard(path)[0]


def test_only_the_last_process_marks_clean(path, start, wait_for, signals):
    _, here = signals

    def write() -> None:
        here.wait()
        with IndexLmdb(path, TABLES) as mine:
            mine.write([Put("version", b"k", b"v")])
            mine.sync()

    child = start(write)
    index = IndexLmdb(path, TABLES)
    fill(index)
    here.set()
    wait_for(child)
    assert "dirty" == guard(path)[0]

    index.close()
    assert "clean" == guard(path)[0]


def test_another_schema_starts_anew(path, expected_warnings):
    expected_warnings.expect("another version")
    with IndexLmdb(path, TABLES) as index:
        fill(index)

    with IndexLmdb(path, TABLES, schema="2") as index:
        assert 0 == index.applied() == count(index)
        fill(index)
    with IndexLmdb(path, (*TABLES, "inode"), schema="2") as index:
        assert 0 == index.applied() == count(index)


# ---- rights and space


def test_reading_only_makes_and_repairs_nothing(path):
    with pytest.raises(NotFoundError):
        IndexLmdb(path, TABLES, read_only=True)
    assert not path.exists()

    with IndexLmdb(path, TABLES) as index:
        fill(index)
    with IndexLmdb(path, TABLES, read_only=True) as index:
        assert 1 == index.applied()
        assert 100 == count(index)
        with pytest.raises(ForbiddenError):
            index.write([])
        with pytest.raises(ForbiddenError):
            index.clear()
    truncated(path / "data.mdb")
    with pytest.raises(NotFoundError, match="truncated"):
        IndexLmdb(path, TABLES, read_only=True)


def test_a_reader_and_a_writer_of_one_process_share(path):
    with IndexLmdb(path, TABLES) as index:
        fill(index)
    with IndexLmdb(path, TABLES, read_only=True) as reader:
        assert 100 == count(reader)
        with IndexLmdb(path, TABLES) as writer:
            fill(writer, 200, applied=2)
            assert 200 == count(reader)
            with pytest.raises(ForbiddenError):
                reader.write([])


def test_a_directory_of_another_user_is_refused(path, as_nobody):
    for each in path.parents[:3]:
        each.chmod(stat.S_IMODE(each.stat().st_mode) | 0o055)
    with IndexLmdb(path, TABLES) as index:
        fill(index)

    def use() -> None:
        for where in (path, path.parent / "new"):
            with pytest.raises(ForbiddenError, match=str(where)):
                IndexLmdb(where, TABLES)

    as_nobody(use)


def test_a_full_disk_keeps_the_old_state(small_disk):
    with IndexLmdb(small_disk / "index", TABLES) as index:
        fill(index)

        for size in (100, 1000):
            with pytest.raises(NoSpaceError):
                fill(index, 40000, size, applied=2)

        assert 1 == index.applied()
        assert 100 == count(index)
        assert index.write([Put("alias", b"a", b"1")], expected=1, applied=2)
        assert 101 == count(index)
    with IndexLmdb(small_disk / "index", TABLES) as index:
        assert 101 == count(index)


@pytest.mark.parametrize("left", [0, 4096, 8192, 40000, 80000])
def test_a_disk_too_full_for_an_index_says_so(small_disk, left, expected_warnings):
    expected_warnings.expect("is not an LMDB file")
    with (small_disk / "filler").open("wb", buffering=0) as filler:
        filler.write(bytes(4 << 20))
    os.truncate(small_disk / "filler", (small_disk / "filler").stat().st_size - left)

    with pytest.raises(NoSpaceError):
        IndexLmdb(small_disk / "index", TABLES)

    (small_disk / "filler").unlink()
    with IndexLmdb(small_disk / "index", TABLES) as index:
        fill(index)
        assert 100 == count(index)


def test_a_read_only_disk_can_be_read(small_disk):
    path = small_disk / "index"
    with IndexLmdb(path, TABLES) as index:
        fill(index)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)

    with IndexLmdb(path, TABLES, read_only=True) as index:
        assert 100 == count(index)
    with pytest.raises(ForbiddenError, match="may write"):
        IndexLmdb(path, TABLES)


def test_a_failed_disk_is_unavailable_until_it_works_again(index, monkeypatch):
    """LMDB's own panic: the environment is opened anew before the next use."""
    fill(index)
    handle = index._environment._handle

    monkeypatch.setattr(handle, "env", Panicking(handle.env))
    with pytest.raises(UnavailableError, match="try again"):
        fill(index, applied=2)

    assert 1 == index.applied()
    assert handle is not index._environment._handle
    fill(index, applied=2)


class Panicking:
    """An environment in which no write can begin."""

    def __init__(self, env: object) -> None:
        self.close = env.close

    def begin(self, write: bool) -> None:
        import lmdb

        raise lmdb.PanicError("mdb_txn_begin", -30795)
