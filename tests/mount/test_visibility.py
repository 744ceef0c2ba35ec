"""Who moves an alias, and who sees it when: never torn, never missing, at once."""

import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.bytes

RETARGETS = 10_000
SOAK_SECONDS = 600

MOVE_BY_RENAME = """
import os, sys
alias, moves = sys.argv[1], int(sys.argv[2])
temporary = os.path.join(os.path.dirname(alias), ".new")
for number in range(moves):
    os.symlink(f"v{number % 4}", temporary)
    os.replace(temporary, alias)
    seen = os.readlink(alias)
    assert seen == f"v{number % 4}", (number, seen)
"""

MOVE_BY_CONTROL = """
import os, sys
alias, moves = sys.argv[1], int(sys.argv[2])
top = os.path.dirname(os.path.dirname(os.path.dirname(alias)))
control = os.open(top + "/.mregfs/control", os.O_WRONLY)
relative = os.path.relpath(alias, top)
for number in range(moves):
    os.write(control, f"ln -sf {os.path.dirname(relative)}/v{number % 4} {relative}".encode())
    seen = os.readlink(alias)
    assert seen == f"v{number % 4}", (number, seen)
"""


def four_versions(mount) -> Path:
    """Return the alias production of a collection of four versions, each with its config.json."""
    for number in range(4):
        config = {"number": number, "filling": "x" * (3000 * number)}
        files = {"config.json": json.dumps(config).encode(), f"only-in-{number}": b""}
        mount.commit("mnist", files)
        mount.control(f"ln -sf artifacts/mnist/v{number} collections/reader/production")
    return mount.path / "collections/reader/production"


@pytest.fixture
def retargeted(registry_mount) -> Path:
    """Four versions and an alias of them, on the disk that holds the temporary directory."""
    return four_versions(registry_mount)


@pytest.fixture
def retargeted_fast(make_mount) -> Iterator[Path]:
    """The same in memory: 10 000 moves without waiting for the disk 30 000 times."""
    mount = make_mount()
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="mregfs-test-") as directory:
        mount.store = Path(directory, "store")
        mount.environment["MREGFS_STORE"] = str(mount.store)
        mount.init()
        mount.start()
        yield four_versions(mount)
        mount.stop()


def read_once(alias: Path) -> int:
    """Read through the alias as a server does, and return the version's own number."""
    config = json.loads((alias / "config.json").read_bytes())
    assert 3000 * config["number"] == len(config["filling"])
    return config["number"]


def read_by_descriptor(alias: Path) -> int:
    """Resolve the alias once, and find everything of that version and nothing of another."""
    held = os.open(alias, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with open(os.open("config.json", os.O_RDONLY, dir_fd=held)) as file:
            number = json.load(file)["number"]
        assert {"config.json", f"only-in-{number}"} == set(os.listdir(held))
    finally:
        os.close(held)
    return number


def retarget_and_read(alias: Path, program: str, moves: int) -> dict[int, int]:
    """Let another process move the alias while this one reads; count what was seen."""
    seen = dict.fromkeys(range(4), 0)
    writer = subprocess.Popen([sys.executable, "-c", program, alias, str(moves)])
    try:
        while writer.poll() is None:
            seen[read_once(alias)] += 1
            seen[read_by_descriptor(alias)] += 1
    finally:
        writer.kill()
        writer.wait()
    assert 0 == writer.returncode
    return seen


@pytest.mark.slow
@pytest.mark.timeout(280)
@pytest.mark.parametrize("program", [MOVE_BY_RENAME, MOVE_BY_CONTROL], ids=["rename", "control"])
def test_a_reader_sees_only_whole_versions(retargeted_fast, program, passthrough) -> None:
    """10 000 retargets by another process: no ENOENT, no torn read, and the writer sees its own."""
    # How bytes are read has no part in it, so the run without passthrough may be short.
    moves = RETARGETS if passthrough else RETARGETS // 10
    seen = retarget_and_read(retargeted_fast, program, moves)
    assert all(seen.values()), seen


@pytest.mark.soak
@pytest.mark.timeout(SOAK_SECONDS * 2)
def test_a_reader_sees_only_whole_versions_for_minutes(retargeted) -> None:
    """The same for minutes, with both ways of moving at once."""
    deadline = time.monotonic() + SOAK_SECONDS
    while time.monotonic() < deadline:
        for program in (MOVE_BY_RENAME, MOVE_BY_CONTROL):
            seen = retarget_and_read(retargeted, program, RETARGETS)
            assert all(seen.values()), seen


MOVE_BY_API = """
import sys, time
from mregfs import Registry
with Registry(sys.argv[1]) as registry:
    for number in map(int, sys.stdin):
        registry.link(f"mnist:v{number}", "reader:production")
        print(time.monotonic_ns(), flush=True)
"""


def test_moves_by_other_processes_are_seen_within_100_ms(registry_mount, retargeted) -> None:
    """A move through the Python API in another process is seen by the next opens on this host."""
    mover = subprocess.Popen(
        [sys.executable, "-c", MOVE_BY_API, registry_mount.store],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**registry_mount.environment, "MREGFS_MOUNT": ""},
    )
    assert mover.stdin is not None
    assert mover.stdout is not None
    delays = []
    for number in (0, 1, 2, 3, 2, 1, 0, 1, 2, 3):
        mover.stdin.write(b"%d\n" % number)
        mover.stdin.flush()
        moved_at = int(mover.stdout.readline())
        while read_once(retargeted) != number:
            assert time.monotonic_ns() - moved_at < 2_000_000_000
        delays.append((time.monotonic_ns() - moved_at) / 1e6)
    mover.stdin.close()
    assert 0 == mover.wait(30)
    mover.stdout.close()
    assert sorted(delays)[len(delays) // 2] < 100, delays


def test_moves_by_the_command_line_are_seen_at_once(registry_mount, retargeted) -> None:
    """When the verb returns, the next open through the alias leads to the new version."""
    for number in (1, 2, 0):
        registry_mount.cli("ln", f"mnist:v{number}", "reader:production")
        assert number == read_once(retargeted)


def test_a_version_logged_elsewhere_appears(registry_mount, tmp_path, wait_until) -> None:
    """A version committed by another process appears, though its absence was seen."""
    registry_mount.commit("mnist", {"config.json": b"0"})
    path = registry_mount.path / "artifacts/mnist/v1/config.json"
    assert not path.exists()
    assert ["latest", "v0"] == sorted(os.listdir(registry_mount.path / "artifacts/mnist"))
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/config.json").write_bytes(b"1")
    registry_mount.cli("commit", tmp_path / "outside", "mnist")
    wait_until(path.exists, "v1 appears", timeout=2)
    assert ["latest", "v0", "v1"] == sorted(os.listdir(registry_mount.path / "artifacts/mnist"))
    assert b"1" == path.read_bytes()


# ---- events


def test_events_block_until_something_happens(registry_mount) -> None:
    """A reader of .mregfs/events waits, and gets one JSON line per log entry from then on."""
    got: list[dict] = []
    ready = threading.Event()

    def follow() -> None:
        with (registry_mount.path / ".mregfs/events").open() as events:
            ready.set()
            for line in events:
                got.append(json.loads(line))
                if len(got) == 3:
                    return

    registry_mount.control("mkdir collections/before")
    reader = threading.Thread(target=follow, daemon=True)
    reader.start()
    assert ready.wait(10)
    first = registry_mount.status()["sequence"]
    for name in ("a", "b", "c"):
        registry_mount.control(f"mkdir collections/{name}")
    reader.join(10)
    assert [first + 1, first + 2, first + 3] == [event["sequence"] for event in got]
    assert all("before" not in json.dumps(event) for event in got)


def test_events_can_be_polled(registry_mount) -> None:
    """`poll` says readable only when there is an entry, and wakes a waiter within a second."""
    events = os.open(registry_mount.path / ".mregfs/events", os.O_RDONLY | os.O_NONBLOCK)
    try:
        poll = select.poll()
        poll.register(events, select.POLLIN)
        assert [] == poll.poll(0)
        with pytest.raises(BlockingIOError):
            os.read(events, 4096)
        for name in ("a", "b"):
            mover = threading.Timer(0.1, registry_mount.control, [f"mkdir collections/{name}"])
            mover.start()
            assert [(events, select.POLLIN)] == poll.poll(5000)
            mover.join()
            assert name in os.read(events, 4096).decode()
            assert [] == poll.poll(0)
    finally:
        os.close(events)


def test_events_since_replay_the_log(registry_mount) -> None:
    """After `since N` a reader gets entry N + 1 first; a number beyond the log is refused."""
    for name in ("a", "b", "c"):
        registry_mount.control(f"mkdir collections/{name}")
    head = registry_mount.status()["sequence"]
    with (registry_mount.path / ".mregfs/events").open("rb+", buffering=0) as events:
        with pytest.raises(OSError, match="Invalid argument"):
            events.write(b"since %d\n" % (head + 1))
        events.write(b"since %d\n" % (head - 2))
        lines = b""
        while lines.count(b"\n") < 2:
            lines += events.read(4096)
    assert [head - 1, head] == [json.loads(line)["sequence"] for line in lines.splitlines()]


def test_a_slow_reader_holds_up_nobody(registry_mount) -> None:
    """Many readers, most of which never read: changes go on, and each reader gets all of them."""
    path = registry_mount.path / ".mregfs/events"
    readers = [os.open(path, os.O_RDONLY) for _ in range(50)]
    try:
        first = registry_mount.status()["sequence"]
        for number in range(200):
            registry_mount.control(f"mkdir collections/c{number}")
        for reader in (readers[0], readers[-1]):
            lines = b""
            while lines.count(b"\n") < 200:
                lines += os.read(reader, 300)
            numbers = [json.loads(line)["sequence"] for line in lines.splitlines()]
            assert list(range(first + 1, first + 201)) == numbers
    finally:
        for reader in readers:
            os.close(reader)


def test_a_blocked_reader_can_be_interrupted(registry_mount) -> None:
    """Ctrl-C ends `cat .mregfs/events`, and the daemon goes on."""
    cat = subprocess.Popen(["cat", registry_mount.path / ".mregfs/events"])
    with pytest.raises(subprocess.TimeoutExpired):
        cat.wait(0.3)
    cat.terminate()
    cat.wait(10)
    assert registry_mount.control("mkdir collections/after")["ok"]


def test_watch_runs_a_command_on_each_change(registry_mount, tmp_path, wait_until) -> None:
    """`mregfs watch --since N --exec CMD` runs it once for each log entry."""
    out = tmp_path / "out"
    head = registry_mount.status()["sequence"]
    words = ["watch", "--since", str(head), "--exec", f"echo changed >> {out}"]
    watch = subprocess.Popen(
        [sys.executable, "-m", "mregfs", *words], env=registry_mount.environment
    )
    try:
        for number in range(3):
            registry_mount.control(f"mkdir collections/c{number}")
        wait_until(lambda: out.exists() and out.read_text().count("changed") == 3, "3 changes")
    finally:
        watch.kill()
        watch.wait()


def test_wait_returns_when_the_alias_moves(registry_mount, retargeted) -> None:
    """`mregfs wait REF --changed-from X` blocks until the alias leads elsewhere."""
    wait = subprocess.Popen(
        [sys.executable, "-m", "mregfs", "wait", "reader:production", "--changed-from", "v3"],
        env=registry_mount.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            wait.wait(1.5)
        registry_mount.sh("ln -sfn v1 collections/reader/production")
        out, _ = wait.communicate(timeout=10)
    finally:
        wait.kill()
        wait.wait()
    assert 0 == wait.returncode
    assert "mnist:v1" in out
