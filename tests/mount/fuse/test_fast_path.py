"""Promises of the answers at once: the same answers, nobody waits for anybody, none is lost."""

import ctypes
import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

LOOKUP, READ = 1, 15


def at_once(loopback):
    return loopback.state()["passthrough"]["on_fast_path"]


def test_names_and_files_are_answered_without_pyfuse3(loopbacks):
    """A mount that fell back to the long way would work, and be five times slower."""
    loopback = loopbacks(backed=False).start()
    for number in range(20):
        (loopback.path / f"file-{number}").write_text(str(number))
    before, looked_up = at_once(loopback), loopback.requests(LOOKUP)
    for number in range(20):
        assert str(number) == (loopback.path / f"file-{number}").read_text()
        assert not (loopback.path / f"none-{number}").exists()

    asked = loopback.requests(LOOKUP) - looked_up
    assert asked >= 20
    assert at_once(loopback) - before >= asked + 60  # open, read, release


def test_without_the_extension_nothing_is(loopbacks):
    loopback = loopbacks(extension=False).start()
    (loopback.path / "file").write_text("x")

    assert "x" == (loopback.path / "file").read_text()
    assert 0 == at_once(loopback)


def test_an_answer_by_a_thread_keeps_nobody_waiting(loopbacks):
    """Reads that take long are under way together, and everything else goes on."""
    loopback = loopbacks().start()
    with ThreadPoolExecutor(3) as threads:
        readers = [threads.submit((loopback.path / ".later").read_bytes) for _ in range(3)]
        while loopback.state()["calls"].get("later", 0) < 3:
            assert not any(reader.done() for reader in readers)
        (loopback.path / "file").write_text("x")
        assert "x" == (loopback.path / "file").read_text()
        (loopback.path / ".later").write_bytes(b"text")
        assert [b"text"] * 3 == [reader.result(10) for reader in readers]


def test_an_error_in_a_thread_is_an_errno(loopbacks):
    loopback = loopbacks().start()
    (loopback.path / ".later").write_bytes(b"fail")
    with pytest.raises(OSError) as caught:
        (loopback.path / ".later").read_bytes()

    assert errno.ENXIO == caught.value.errno
    assert [] == loopback.problems()


@pytest.mark.parametrize("at_once", [True, False])
def test_what_a_thread_says_of_a_write_reaches_the_writer(loopbacks, at_once):
    """How much was written, or why nothing was."""
    loopback = loopbacks(at_once=at_once).start()
    file = os.open(loopback.path / ".patient0", os.O_WRONLY)
    try:
        assert 3 == os.write(file, b"0.0")
        assert 2 == os.write(file, b"half")
        with pytest.raises(OSError) as caught:
            os.write(file, b"fail")
    finally:
        os.close(file)

    assert errno.ENXIO == caught.value.errno
    assert [] == loopback.problems()


def test_transactions_under_way_do_not_hold_up_reads(loopbacks):
    """However many: their threads are not those that wait for a disk."""
    count = 24
    loopback = loopbacks().start()
    (loopback.path / ".later").write_bytes(b"text")
    with ThreadPoolExecutor(count) as threads:
        writing = [
            threads.submit((loopback.path / f".patient{number}").write_bytes, b"3")
            for number in range(count)
        ]
        while loopback.state()["calls"].get("patient", 0) < count:
            assert not any(each.done() for each in writing)
        assert b"text" == (loopback.path / ".later").read_bytes()
        assert not any(each.done() for each in writing)
        assert [1] * count == [each.result(20) for each in writing]


def test_the_end_waits_for_what_threads_answer(loopbacks):
    """Who reads when the mount ends gets an answer, not a dead connection."""
    loopback = loopbacks(grace=20).start()
    control = os.open(loopback.path / ".later", os.O_WRONLY)
    waiting = os.open(loopback.path / ".later", os.O_RDONLY)
    with ThreadPoolExecutor(1) as threads:
        # One read(2): another one, for the end of the file, would begin after the mount's end.
        reader = threads.submit(os.read, waiting, 10)
        while not loopback.state()["calls"].get("later"):
            pass
        ending = threading.Timer(0.3, lambda: os.write(control, b"text"))
        assert loopback.daemon is not None
        loopback.daemon.terminate()
        ending.start()
        assert b"text" == reader.result(10)
    os.close(waiting)
    os.close(control)
    assert 0 == loopback.wait()


def test_a_storm_of_questions_lets_others_through(loopbacks):
    """The event loop gets its turn, although the next question is always there at once."""
    loopback = loopbacks().start()
    (loopback.path / "file").write_text("x")
    over = threading.Event()

    def ask() -> int:
        count = 0
        while not over.is_set():
            (loopback.path / f"none-{count}").exists()
            count += 1
        return count

    with ThreadPoolExecutor(5) as threads:
        asking = [threads.submit(ask) for _ in range(4)]
        waiting = os.open(loopback.path / ".news", os.O_RDONLY)
        news = threads.submit(os.read, waiting, 10)
        try:
            for _ in range(100):  # what only the event loop does: xattrs are set by way of it
                os.setxattr(loopback.path / "file", "user.key", b"value")
            (loopback.path / ".news").write_bytes(b"news")
            assert b"news" == news.result(20)
        finally:
            over.set()
            os.close(waiting)
        assert all(each.result() > 0 for each in asking)


@pytest.mark.parametrize("at_once", [True, False])
def test_extended_attributes_fit_or_are_measured(loopbacks, at_once):
    loopback = loopbacks(at_once=at_once).start()
    (loopback.path / "file").touch()
    os.setxattr(loopback.path / "file", "user.long", b"x" * 3000)
    os.setxattr(loopback.path / "file", "user.empty", b"")

    assert b"x" * 3000 == os.getxattr(loopback.path / "file", "user.long")
    assert b"" == os.getxattr(loopback.path / "file", "user.empty")
    assert {"user.long", "user.empty"} <= set(os.listxattr(loopback.path / "file"))


@pytest.mark.parametrize("at_once", [True, False])
def test_an_extended_attribute_takes_the_room_it_needs(loopbacks, at_once):
    """Its size is told where no room is given; too little is ERANGE, enough is enough."""
    loopback = loopbacks(at_once=at_once).start()
    (loopback.path / "file").touch()
    os.setxattr(loopback.path / "file", "user.ten", b"0123456789")
    libc = ctypes.CDLL(None, use_errno=True)
    room = ctypes.create_string_buffer(10)
    file = os.fsencode(loopback.path / "file")

    assert 10 == libc.getxattr(file, b"user.ten", None, 0)
    assert (10, b"0123456789") == (libc.getxattr(file, b"user.ten", room, 10), room.raw)
    assert -1 == libc.getxattr(file, b"user.ten", room, 9)
    assert errno.ERANGE == ctypes.get_errno()


def test_nothing_is_flushed_where_nothing_is_kept_back(loopbacks):
    """Closing what is written by passthrough costs no request; by the cached path it does."""
    flush = 25
    loopback = loopbacks().start()
    (loopback.path / "file").write_bytes(b"x" * 10_000)
    assert 0 == loopback.requests(flush)

    plain = loopbacks(backed=False).start()
    (plain.path / "file").write_bytes(b"x" * 10_000)
    assert 1 == plain.requests(flush)


@pytest.mark.soak
def test_a_million_opens_leave_nothing_behind(loopbacks):
    """Handles, backing files, descriptors and memory of the daemon."""
    loopback = loopbacks().start()
    for number in range(100):
        (loopback.path / f"file-{number}").write_bytes(b"x")

    def resident() -> int:
        assert loopback.daemon is not None
        with open(f"/proc/{loopback.daemon.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def open_all(count: int) -> None:
        for number in range(count):
            os.close(os.open(loopback.path / f"file-{number % 100}", os.O_RDONLY))

    open_all(10_000)
    before, memory = loopback.state(), resident()
    open_all(1_000_000)
    after = loopback.state()

    assert (0, 0) == (after["passthrough"]["handles"], after["passthrough"]["backings"])
    assert abs(before["descriptors"] - after["descriptors"]) <= 2
    assert resident() - memory < 4 << 20
