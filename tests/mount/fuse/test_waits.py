"""Promises about processes that wait in read(2): they can be interrupted, and killed."""

import os
import select
import signal
import subprocess
import sys
import threading
import time

import pytest

SOON = 10.0
"""Seconds within which what takes milliseconds has to happen on a busy machine."""

READER = """
import mmap, os, signal, sys
def ignore(*_): print("signal", flush=True)
signal.signal(signal.SIGALRM, ignore)
file = os.open(sys.argv[1], os.O_RDONLY)
mapped = "mapped" in sys.argv
if mapped:
    mapping = mmap.mmap(file, 0, access=mmap.ACCESS_READ)
    mapping.madvise(mmap.MADV_RANDOM)
print("reading", flush=True)
try:
    print(mapping[0] if mapped else len(os.read(file, 100)), flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.fixture
def reader():
    """Start processes that read a file; none is left."""
    started = []

    def start(path, how="read"):
        process = subprocess.Popen(
            [sys.executable, "-c", READER, str(path), how],
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert "reading\n" == process.stdout.readline()
        wait_until_asleep(process.pid)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait(SOON)
        process.stdout.close()


def wait_until_asleep(pid):
    """Wait until a process waits for an answer of the daemon, in read(2) or at a page fault."""
    deadline = time.monotonic() + SOON
    while True:
        with open(f"/proc/{pid}/stat") as file:
            state = file.read().rpartition(")")[2].split()[0]
        with open(f"/proc/{pid}/syscall") as file:
            call = file.read().split()[0]
        if (state, call) in ((s, c) for s in "SD" for c in ("0", "-1")):  # read(2) on x86-64
            return
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("deadly", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_who_waits_for_news_can_be_killed(loopback, reader, deadly):
    process = reader(loopback.path / ".news")
    process.send_signal(deadly)

    assert -deadly == process.wait(SOON)


def test_who_waits_for_news_can_be_interrupted(loopback, reader):
    process = reader(loopback.path / ".news")
    process.send_signal(signal.SIGINT)

    assert "interrupted\n" == process.stdout.readline()
    assert 0 == process.wait(SOON)


def test_a_handled_signal_does_not_lose_the_news(loopback, reader):
    process = reader(loopback.path / ".news")
    process.send_signal(signal.SIGALRM)
    assert "signal\n" == process.stdout.readline()
    wait_until_asleep(process.pid)
    (loopback.path / ".news").write_bytes(b"twelve bytes")

    assert "12\n" == process.stdout.readline()


@pytest.mark.parametrize("how", ["read", "mapped"])
@pytest.mark.parametrize("first", [None, signal.SIGALRM])
def test_who_reads_a_slow_file_can_be_killed(loopback, reader, how, first):
    """Also when another signal came before: the kernel tells of the first one only."""
    process = reader(loopback.path / f".slow{len(how) + (first or 0)}", how)
    if first is not None:
        process.send_signal(first)
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)

    assert -signal.SIGKILL == process.wait(SOON)


@pytest.mark.parametrize("how", ["read", "mapped"])
def test_a_handled_signal_does_not_fail_a_read_of_an_ordinary_file(loopback, reader, how):
    """Nobody expects EINTR from a file on a disk, let alone SIGBUS from a mapping."""
    process = reader(loopback.path / f".slow{100 + len(how)}", how)
    process.send_signal(signal.SIGALRM)
    time.sleep(0.2)

    wait_until_asleep(process.pid)
    assert process.poll() is None


def test_hundreds_wait_and_others_are_served(loopback):
    waiting = [os.open(loopback.path / ".news", os.O_RDONLY) for _ in range(300)]
    results = []

    def read(file):
        results.append(os.read(file, 100))

    threads = [threading.Thread(target=read, args=(file,)) for file in waiting]
    for thread in threads:
        thread.start()
    started = time.monotonic()
    os.statvfs(loopback.path)
    os.listdir(loopback.path)
    assert time.monotonic() - started < SOON
    deadline = time.monotonic() + SOON
    while len(results) < len(threads):
        (loopback.path / ".news").write_bytes(b"x")
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for thread in threads:
        thread.join()
    for file in waiting:
        os.close(file)

    assert {b"x"} == set(results)


def test_dozens_of_slow_reads_do_not_hold_up_the_others(loopbacks, reader):
    """Readahead counts against a limit of the mount, which is 12 unless somebody asks for more."""
    loopback = loopbacks(backed=False).start()
    (loopback.path / "file").write_bytes(b"x" * 100_000)
    for number in range(30):
        reader(loopback.path / f".slow{number}")
    command = ["cat", loopback.path / "file"]
    done = subprocess.run(command, capture_output=True, timeout=SOON, check=True)

    assert b"x" * 100_000 == done.stdout


def test_without_the_extension_a_reader_is_interruptible_within_a_second(loopbacks, reader):
    loopback = loopbacks(extension=False).start()
    process = reader(loopback.path / ".news")
    time.sleep(1.2)  # the answer EINTR came once: the reader has asked again
    wait_until_asleep(process.pid)
    process.send_signal(signal.SIGKILL)

    assert -signal.SIGKILL == process.wait(SOON)
    assert 0 == loopback.stop()


def test_poll_tells_of_news(loopbacks):
    loopback = loopbacks().start()
    file = os.open(loopback.path / ".news", os.O_RDONLY)
    poll = select.poll()
    poll.register(file, select.POLLIN)
    assert [] == poll.poll(50)
    timer = threading.Timer(0.1, (loopback.path / ".news").write_bytes, [b"x"])
    timer.start()

    assert [(file, select.POLLIN)] == poll.poll(SOON * 1000)
    timer.join()
    os.close(file)
    assert 0 == loopback.stop()


def test_poll_finds_an_ordinary_file_ready(loopback, place):
    with (place / "file").open("w") as file:
        for _ in range(2):  # an ENOSYS would have turned poll off after the first time
            _, writable, _ = select.select([], [file], [], 0)
            assert [file] == writable
        before = loopback.state()["calls"]["poll"]
        select.select([], [file], [], 0)
        assert before + 1 == loopback.state()["calls"]["poll"]
