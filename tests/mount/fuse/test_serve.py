"""Promises about the life of a session: it begins whole, and ends whole, however it is ended."""

import os
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

SOON = 10.0


def mounted(path):
    """Return the lines of mountinfo for a mount point."""
    table = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in table if line.split()[4] == str(path)]


def test_a_stopped_session_leaves_nothing_mounted(loopbacks):
    loopback = loopbacks().start()
    assert 1 == len(mounted(loopback.path))

    assert 0 == loopback.stop()
    assert [] == mounted(loopback.path)
    assert [] == loopback.problems()


def test_the_mount_carries_its_options_and_its_source(loopbacks):
    loopback = loopbacks(source="/stores/with, comma\\and ümlaut", allow_other=True).start()
    (line,) = mounted(loopback.path)
    options, _, rest = line.partition(" - ")

    assert "nosuid,nodev" in options
    assert "fuse.mregfs /stores/with,%20comma\\134and%20%C3%BCmlaut " in rest
    assert "default_permissions,allow_other" in rest


def test_a_read_only_mount_refuses_writes(loopbacks):
    loopback = loopbacks(read_only=True).start()
    with pytest.raises(OSError, match="Read-only file system"):
        (loopback.path / "file").write_bytes(b"x")


def test_it_reads_ahead_in_large_requests(loopbacks):
    loopback = loopbacks().start()
    device = mounted(loopback.path)[0].split()[2]

    assert "2048\n" == Path(f"/sys/class/bdi/{device}/read_ahead_kb").read_text()


def test_who_waits_for_news_gets_the_end_of_the_file_at_the_end(loopbacks):
    loopback = loopbacks().start()
    reader = subprocess.Popen(["cat", loopback.path / ".news"], stdout=subprocess.PIPE)
    time.sleep(0.2)
    started = time.monotonic()

    assert 0 == loopback.stop()
    assert time.monotonic() - started < 4.0
    assert (b"", 0) == (reader.communicate(timeout=SOON)[0], reader.returncode)


def test_a_request_that_takes_too_long_is_given_up_after_the_grace(loopbacks):
    loopback = loopbacks(grace=0.5).start()
    errors = []

    def read():
        try:
            (loopback.path / ".slow0").read_bytes()
        except OSError as exc:
            errors.append(exc)

    thread = threading.Thread(target=read)
    thread.start()
    time.sleep(0.3)

    assert 0 == loopback.stop()
    thread.join(SOON)
    assert 1 == len(errors)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_transaction_that_has_begun_is_waited_for_beyond_the_grace(loopbacks, at_once):
    """However long it takes: its writer is told the outcome, not that the mount is gone."""
    loopback = loopbacks(grace=0.2, at_once=at_once).start()
    file = os.open(loopback.path / ".patient0", os.O_WRONLY)
    with ThreadPoolExecutor(1) as threads:
        writer = threads.submit(os.write, file, b"2.5")
        while not loopback.state()["calls"].get("patient"):
            pass
        assert 0 == loopback.stop()
        assert 3 == writer.result(SOON)
    os.close(file)
    assert [] == loopback.problems()


def test_a_read_whose_disk_hangs_is_left_behind_after_the_grace(loopbacks):
    """A mount ends although a thread does not, and the log says so."""
    loopback = loopbacks(grace=0.3).start()
    reader = subprocess.Popen(["cat", loopback.path / ".later"], stderr=subprocess.DEVNULL)
    while not loopback.state()["calls"].get("later"):
        pass
    assert 0 == loopback.stop()
    assert 1 == reader.wait(SOON)
    (said,) = loopback.problems()
    assert "A read did not end in time" in said


def test_an_unmount_from_outside_ends_it(loopbacks):
    loopback = loopbacks().start()
    subprocess.run(["umount", loopback.path], check=True)

    assert 0 == loopback.wait()
    assert [] == loopback.problems()


def test_a_lazy_unmount_ends_it_with_the_last_close(loopbacks):
    loopback = loopbacks().start()
    (loopback.path / "file").write_bytes(b"still here")
    file = os.open(loopback.path / "file", os.O_RDONLY)
    subprocess.run(["fusermount3", "-u", "-z", loopback.path], check=True)

    assert [] == mounted(loopback.path)
    time.sleep(0.3)
    assert loopback.daemon.poll() is None
    assert b"still here" == os.read(file, 100)
    os.close(file)
    assert 0 == loopback.wait()


def test_a_mount_that_fails_says_so_and_leaves_nothing(loopbacks):
    for settings in ({"options": ["nonsense"]}, {"mountpoint": "/dev/null/x"}):
        loopback = loopbacks(**settings)
        with pytest.raises(AssertionError):
            loopback.start()
        assert 1 == loopback.wait()
        assert "HostError" in loopback.log.read_text()
        assert [] == mounted(loopback.path)


def test_a_callback_that_fails_ends_the_session_with_its_own_error(loopbacks):
    loopback = loopbacks(fails="ready")
    with pytest.raises(AssertionError):
        loopback.start()

    assert 1 == loopback.wait()
    assert "HostError('not ready', '')\n" == loopback.log.read_text()
    assert [] == mounted(loopback.path)


def test_a_session_loop_that_breaks_off_unmounts_and_says_so(loopbacks):
    loopback = loopbacks(fails="loop").start()

    assert 1 == loopback.wait()
    assert "broke off: OSError(71, 'the device')\", 'mount it again'" in loopback.log.read_text()
    assert [] == mounted(loopback.path)


def test_a_bug_in_the_file_system_is_an_io_error_and_nothing_more(loopbacks):
    loopback = loopbacks().start()
    with pytest.raises(OSError, match="Input/output error"):
        (loopback.path / ".boom").read_bytes()

    assert b"{" == (loopback.path / ".state").read_bytes()[:1]
    assert any("this is a bug in mregfs" in problem for problem in loopback.problems())
    assert 0 == loopback.stop()


def test_stopping_while_files_are_open_and_mapped(loopbacks):
    loopback = loopbacks().start()
    (loopback.path / "file").write_bytes(b"x" * 100)
    file = os.open(loopback.path / "file", os.O_RDONLY)

    assert 0 == loopback.stop()
    assert b"x" * 100 == os.pread(file, 200, 0)
    os.close(file)


def test_it_can_be_mounted_again_at_once(loopbacks):
    loopback = loopbacks().start()
    (loopback.path / "file").write_bytes(b"x")
    assert 0 == loopback.stop()
    loopback.start()

    assert b"x" == (loopback.path / "file").read_bytes()
    assert 0 == loopback.stop()


def test_a_process_that_works_in_the_mount_does_not_hold_up_the_end(loopbacks):
    loopback = loopbacks().start()
    worker = subprocess.Popen(["sleep", "60"], cwd=loopback.path)
    try:
        assert 0 == loopback.stop()
        assert [] == mounted(loopback.path)
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.wait(SOON)
