"""Promises of the passthrough path: the kernel reads and writes the backing file itself."""

import contextlib
import errno
import fcntl
import itertools
import mmap
import os
import resource
import shutil
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

FLUSH, COPY_FILE_RANGE = 25, 47
NOBODY = 65534
MiB = 1 << 20
GiB = 1 << 30


def tree(loopback):
    """The host directory that the mount's root shows."""
    return loopback.host / "default/default"


def test_reads_and_writes_never_reach_the_daemon(loopback, place):
    before = loopback.state()["calls"]
    data = os.urandom(3 * MiB + 17)
    (place / "file").write_bytes(data)
    with (place / "file").open("r+b") as file:
        for offset in range(0, MiB, 4096):
            os.pwrite(file.fileno(), b"x", offset)
        file.seek(0)
        read = file.read()
    calls = Counter(loopback.state()["calls"])
    calls.subtract(before)

    expected = bytearray(data)
    expected[0:MiB:4096] = b"x" * 256
    assert bytes(expected) == read
    assert (0, 0) == (calls["read"], calls["write"])
    assert calls["getxattr"] < 5  # no question for capabilities before each small write


def test_a_mapping_reads_and_writes_the_backing_file(loopback, place):
    (place / "file").write_bytes(b"a" * MiB)
    before = loopback.state()["calls"]
    with (place / "file").open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        assert b"a" * MiB == mapping[:]
        mapping[5:8] = b"xyz"
        mapping.flush()

    assert b"aaaaaxyzaa" == (place / "file").read_bytes()[:10]
    backing = tree(loopback) / place.name / "file"
    assert b"aaaaaxyzaa" == backing.read_bytes()[:10]
    after = loopback.state()["calls"]
    assert [before.get(call) for call in ("read", "write")] == [
        after.get(call) for call in ("read", "write")
    ]


def test_appends_of_two_writers_do_not_overwrite_each_other(place):
    one = os.open(place / "file", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    two = os.open(place / "file", os.O_WRONLY | os.O_APPEND)
    for number in range(50):
        os.write((one, two)[number % 2], b"%04d\n" % number)
    os.close(one)
    os.close(two)

    assert [b"%04d" % n for n in range(50)] == (place / "file").read_bytes().split()


def test_o_direct_works(place):
    buffer = mmap.mmap(-1, 4096)
    buffer.write(b"d" * 4096)
    file = os.open(place / "file", os.O_CREAT | os.O_RDWR | os.O_DIRECT)
    try:
        assert 4096 == os.pwrite(file, buffer, 0)
        back = mmap.mmap(-1, 4096)
        assert 4096 == os.preadv(file, [back], 0)
        assert buffer[:] == back[:]
    finally:
        os.close(file)


def test_fsync_and_truncate_reach_the_backing_file(loopback, place):
    with (place / "file").open("wb") as file:
        file.write(b"x" * 10000)
        file.flush()
        os.fsync(file.fileno())
        os.ftruncate(file.fileno(), 7)
        assert 7 == os.fstat(file.fileno()).st_size
    backing = tree(loopback) / place.name / "file"
    assert b"x" * 7 == backing.read_bytes()
    assert loopback.state()["calls"]["fsync"] >= 1


def test_a_descriptor_opened_for_reading_closes_without_a_flush(loopback, place):
    (place / "file").write_bytes(b"x")
    before = loopback.requests(FLUSH)
    for _ in range(10):
        (place / "file").read_bytes()

    assert before == loopback.requests(FLUSH)


def test_an_inode_open_by_passthrough_takes_every_mode_of_open(place):
    """All handles share one backing id: the kernel opens the backing file anew with their flags."""
    (place / "file").write_bytes(b"0123456789")
    reader = os.open(place / "file", os.O_RDONLY)
    writer = os.open(place / "file", os.O_WRONLY)
    both = os.open(place / "file", os.O_RDWR | os.O_APPEND)
    try:
        os.pwrite(writer, b"W", 0)
        os.write(both, b"A")
        assert b"W123456789A" == os.pread(reader, 100, 0)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(reader, b"x")
    finally:
        for file in (reader, writer, both):
            os.close(file)


def test_thousands_of_files_are_open_at_once(loopback, place):
    count = 3000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, count + 200), hard))
    files = []
    try:
        for number in range(count):
            file = os.open(place / str(number), os.O_CREAT | os.O_RDWR)
            files.append(file)
            os.write(file, b"%d" % number)
        state = loopback.state()["passthrough"]
        assert (count, count) == (state["handles"], state["backings"])
        for number in range(0, count, 97):
            assert b"%d" % number == os.pread(files[number], 10, 0)
    finally:
        for file in files:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    os.sync()


def test_what_is_released_is_given_back(loopbacks):
    """Backing files and handles neither pile up in the kernel nor in the daemon."""
    loopback = loopbacks().start()
    (loopback.path / "file").write_bytes(b"x")
    before = loopback.state()
    for _ in range(2000):
        os.close(os.open(loopback.path / "file", os.O_RDONLY))
        os.close(os.open(loopback.path / "file", os.O_RDWR))
    os.statvfs(loopback.path)
    after = loopback.state()

    assert (0, 0) == (after["passthrough"]["handles"], after["passthrough"]["backings"])
    assert abs(before["descriptors"] - after["descriptors"]) <= 2
    assert 0 == loopback.stop()


def test_descriptors_given_away_are_closed(loopbacks):
    """With `owned` descriptors the same holds, and holes are still found."""
    loopback = loopbacks(owned=True).start()
    with (loopback.path / "file").open("wb") as file:
        file.truncate(8 * MiB)
        os.pwrite(file.fileno(), b"x", 4 * MiB)
    before = loopback.state()["descriptors"]
    one = os.open(loopback.path / "file", os.O_RDONLY)
    two = os.open(loopback.path / "file", os.O_RDONLY)
    os.close(one)
    assert b"x" == os.pread(two, 1, 4 * MiB)
    assert 4 * MiB == os.lseek(two, 0, os.SEEK_DATA)
    os.close(two)
    os.statvfs(loopback.path)

    assert before == loopback.state()["descriptors"]
    assert 0 == loopback.stop()


def test_the_kernel_gives_back_what_it_read_from(loopbacks, tmp_path, wait_until):
    """A deleted file that was read by passthrough takes no space once it is closed."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64M", "tmpfs", disk], check=True)
    try:
        loopback = loopbacks(host=str(disk / "host")).start()
        free = os.statvfs(disk).f_bfree
        for _ in range(3):
            (loopback.path / "file").write_bytes(b"x" * 20 * MiB)
            with (loopback.path / "file").open("rb") as file:
                assert 1 == loopback.state()["passthrough"]["backings"]
                (loopback.path / "file").unlink()
                assert b"x" == file.read(1)
            wait_until(lambda: os.statvfs(disk).f_bfree >= free - 16, "the space is free again")
        assert 0 == loopback.stop()
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_what_the_kernel_may_keep_goes_by_passthrough_all_the_same(loopbacks):
    """And where it does not, the pages are there at the next open."""
    data = os.urandom(3 * MiB)
    backed = loopbacks(keep_cache=True).start()
    (backed.path / "file").write_bytes(data)
    assert data == (backed.path / "file").read_bytes()
    assert "read" not in backed.state()["calls"]

    for at_once, keep in itertools.product((True, False), repeat=2):
        plain = loopbacks(keep_cache=keep, backed=False, at_once=at_once).start()
        (plain.path / "file").write_bytes(data)
        assert data == (plain.path / "file").read_bytes()
        calls = plain.state()["calls"].get("read", 0)
        assert data == (plain.path / "file").read_bytes()
        assert keep is (calls == plain.state()["calls"].get("read", 0))


def test_descriptors_that_the_kernel_does_not_take_are_closed_too(loopbacks):
    loopback = loopbacks(owned=True, passthrough=False).start()
    (loopback.path / "file").write_bytes(b"x")
    before = loopback.state()["descriptors"]
    for _ in range(50):
        assert b"x" == (loopback.path / "file").read_bytes()
    os.statvfs(loopback.path)

    assert abs(before - loopback.state()["descriptors"]) <= 2
    assert 0 == loopback.stop()


def test_holes_are_found(place):
    with (place / "file").open("wb") as file:
        file.truncate(16 * MiB)
        os.pwrite(file.fileno(), b"data", 8 * MiB)
        assert 8 * MiB == os.lseek(file.fileno(), 0, os.SEEK_DATA)
        hole = os.lseek(file.fileno(), 8 * MiB, os.SEEK_HOLE)
        assert 8 * MiB < hole < 9 * MiB
        with pytest.raises(OSError, match="No such device or address"):
            os.lseek(file.fileno(), 16 * MiB, os.SEEK_DATA)


def test_a_file_without_descriptor_has_no_holes(loopback):
    """`.slow0` has no backing file: the answer comes from its size, without reading it."""
    file = os.open(loopback.path / ".slow0", os.O_RDONLY)
    try:
        assert 5 == os.lseek(file, 5, os.SEEK_DATA)
        assert MiB == os.lseek(file, 5, os.SEEK_HOLE)
        with pytest.raises(OSError, match="No such device or address"):
            os.lseek(file, MiB, os.SEEK_HOLE)
    finally:
        os.close(file)


def test_cp_keeps_a_file_sparse(loopback, place):
    with (place / "sparse").open("wb") as file:
        file.truncate(64 * MiB)
    subprocess.run(["cp", "--sparse=auto", place / "sparse", place / "copy"], check=True)

    assert 64 * MiB == (place / "copy").stat().st_size
    assert 0 == (tree(loopback) / place.name / "copy").stat().st_blocks


def test_fallocate_acts_on_the_backing_file(loopback, place):
    file = os.open(place / "file", os.O_CREAT | os.O_RDWR)
    try:
        os.posix_fallocate(file, 0, 4 * MiB)
        assert 4 * MiB == os.fstat(file).st_size
        os.pwrite(file, b"x" * 4 * MiB, 0)
        subprocess.run(
            ["fallocate", "-p", "-o", str(MiB), "-l", str(MiB), place / "file"], check=True
        )
        assert b"x\0" == os.pread(file, 2, MiB - 1)
        assert MiB == os.lseek(file, 0, os.SEEK_HOLE)
    finally:
        os.close(file)
    found = (tree(loopback) / place.name / "file").stat()
    assert (4 * MiB, True) == (found.st_size, found.st_blocks * 512 < 4 * MiB)


def test_what_the_host_says_of_fallocate_reaches_the_program(place):
    file = os.open(place / "file", os.O_CREAT | os.O_RDWR)
    try:
        with pytest.raises(OSError, match="File too large"):
            os.posix_fallocate(file, 0, 1 << 61)
    finally:
        os.close(file)


def test_what_is_done_by_threads_leaves_no_descriptor(loopbacks):
    """Whether it succeeds or not: a source without descriptor, a host that shares no blocks."""
    loopback = loopbacks().start()
    file = os.open(loopback.path / "file", os.O_CREAT | os.O_RDWR)
    absent = os.open(loopback.path / ".absent", os.O_RDONLY)
    os.write(file, b"x" * 4096)
    before = loopback.state()["descriptors"]
    for source in (absent, file):
        for _ in range(50):
            os.posix_fallocate(file, 0, 8192)
            with contextlib.suppress(OSError):
                os.copy_file_range(source, file, 4096, 0, 4096)
    after = loopback.state()["descriptors"]
    os.close(file)
    os.close(absent)

    assert abs(before - after) <= 2
    assert loopback.requests(COPY_FILE_RANGE) > 50


@pytest.fixture
def freezing_disk(tmp_path):
    """A host file system of its own, which can be frozen: then nothing that writes comes back."""
    image, disk = tmp_path / "image", tmp_path / "disk"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(64 * MiB)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, disk], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["fsfreeze", "-u", disk], check=False, capture_output=True)
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_disk_that_hangs_takes_eight_threads_and_no_more(loopbacks, freezing_disk, wait_until):
    loopback = loopbacks(host=str(freezing_disk / "host"), owned=True).start()
    files = [os.open(loopback.path / str(each), os.O_CREAT | os.O_RDWR) for each in range(30)]
    tasks = Path(f"/proc/{loopback.daemon.pid}/task")

    def threads() -> int:
        return [each.read_text() for each in tasks.glob("*/comm")].count("mregfs-host\n")

    before = loopback.state()["descriptors"]
    subprocess.run(["fsfreeze", "-f", freezing_disk], check=True)
    try:
        callers = [
            threading.Thread(target=os.posix_fallocate, args=(file, 0, 8192)) for file in files
        ]
        for each in callers:
            each.start()

        def arrived() -> bool:
            return loopback.state()["descriptors"] >= before + 60

        wait_until(arrived, "all requests have arrived")
        assert 8 == threads()
    finally:
        subprocess.run(["fsfreeze", "-u", freezing_disk], check=True)
    for each in callers:
        each.join(20)
    assert {8192} == {os.fstat(file).st_size for file in files}
    assert before == loopback.state()["descriptors"]
    assert 8 == threads()
    for file in files:
        os.close(file)


def test_fallocate_on_what_has_no_backing_file_is_unsupported(loopback):
    command = ["fallocate", "-l", "4096", loopback.path / ".stale"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert "Operation not supported" in done.stderr


def test_copies_within_the_mount_are_whole(place):
    data = os.urandom(5 * MiB + 3)
    (place / "one").write_bytes(data)
    source = os.open(place / "one", os.O_RDONLY)
    target = os.open(place / "two", os.O_CREAT | os.O_WRONLY)
    copied = 0
    while piece := os.copy_file_range(source, target, len(data)):
        copied += piece
    os.close(source)
    os.close(target)

    assert len(data) == copied
    assert data == (place / "two").read_bytes()


SETUID = """
set -e
n="setpriv --reuid 65534 --regid 65534 --clear-groups"
try() {
    rm -f s; echo 0123456789 > s; chown 65534:65534 s; chmod ${mode:-6755} s
    $n "$@" > /dev/null 2>&1 || true
    stat -c "%a after $*" s
}
try sh -c 'echo x >> s'
try sh -c 'echo x > s'
try sh -c ': > s'
try truncate -s 1 s
try fallocate -l 100 s
try fallocate -p -l 4096 s
try chown 65534 s
try chmod 6755 s
try touch s
try cat s
try dd if=/etc/passwd of=s conv=notrunc
try cp --sparse=never /etc/passwd s
for mode in 2644 4644 2755 1755 0777; do try sh -c 'echo x >> s'; done
rm -f s; echo x > s; chmod 6755 s; echo x >> s; stat -c '%a after root wrote' s
"""


@pytest.fixture
def sharing_disk(tmp_path):
    """A host file system whose files can share blocks."""
    if shutil.which("mkfs.xfs") is None:
        pytest.skip("needs mkfs.xfs")
    image, disk = tmp_path / "image", tmp_path / "disk"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(400 * MiB)
    subprocess.run(["mkfs.xfs", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, disk], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_cp_shares_the_blocks_where_the_host_can(loopbacks, sharing_disk):
    loopback = loopbacks(host=str(sharing_disk / "host"), owned=True).start()
    data = os.urandom(64 * MiB + 12345)
    (loopback.path / "one").write_bytes(data)
    os.sync()
    free = os.statvfs(sharing_disk).f_bavail
    subprocess.run(["cp", loopback.path / "one", loopback.path / "two"], check=True)
    os.sync()
    used = (free - os.statvfs(sharing_disk).f_bavail) * os.statvfs(sharing_disk).f_bsize

    assert data == (loopback.path / "two").read_bytes()
    assert used < MiB
    assert 0 == loopback.stop()


def test_blocks_beyond_4_gib_are_shared_too(loopbacks, sharing_disk):
    """From any offset to any other, and more than 4 GiB by one call, which may be a short one."""
    loopback = loopbacks(host=str(sharing_disk / "host")).start()
    data = os.urandom(MiB)
    with (loopback.path / "one").open("wb") as file:
        os.pwrite(file.fileno(), data, 5 * GiB)
        os.pwrite(file.fileno(), b"end", 9 * GiB)
    (loopback.path / "piece").touch()
    (loopback.path / "whole").touch()
    for how, target in (
        (f"-s {5 * GiB} -d {6 * GiB} -l {MiB}", "piece"),
        (f"-l {9 * GiB + 3}", "whole"),
    ):
        copy = ["xfs_io", "-c", f"copy_range {how} {loopback.path}/one", loopback.path / target]
        subprocess.run(copy, check=True)

    assert 6 * GiB + MiB == (loopback.path / "piece").stat().st_size
    assert 9 * GiB + 3 == (loopback.path / "whole").stat().st_size
    for target, offset in (("piece", 6 * GiB), ("whole", 5 * GiB)):
        with (loopback.path / target).open("rb") as file:
            assert data == os.pread(file.fileno(), MiB, offset)
            assert b"\0" == os.pread(file.fileno(), 1, offset - 1)
    with (loopback.path / "whole").open("rb") as file:
        assert b"end" == os.pread(file.fileno(), 10, 9 * GiB)
    assert loopback.requests(COPY_FILE_RANGE) >= 4
    assert 0 == loopback.stop()


@pytest.mark.parametrize("hollow", [False, True])
def test_sharing_blocks_takes_setuid_bits_away(loopbacks, sharing_disk, tmp_path, hollow):
    """As copy_file_range(2) does on any file system for who is not root, and only then."""
    host = str(sharing_disk / "host")
    loopback = loopbacks(host=host, hollow=hollow, allow_other=True).start()
    for directory in (tmp_path, *tmp_path.parents):
        directory.chmod(directory.stat().st_mode | 0o011)
    (loopback.path / "one").write_bytes(b"x" * MiB)
    os.sync()
    modes = []
    for user in (NOBODY, 0):
        target = loopback.path / f"two-{user}"
        target.touch()
        os.chown(target, NOBODY, NOBODY)
        target.chmod(0o6755)
        copy = ["xfs_io", "-c", f"copy_range -l {MiB} {loopback.path}/one", target]
        subprocess.run(copy, check=True, user=user, group=user, extra_groups=[])
        modes.append(target.stat().st_mode & 0o7777)
        assert b"x" * MiB == target.read_bytes()

    assert [0o755, 0o6755] == modes
    assert 0 == loopback.stop()


@pytest.mark.parametrize("hollow", [False, True])
@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("backed", [True, False])
def test_setuid_bits_go_as_they_do_natively(loopbacks, tmp_path, backed, at_once, hollow):
    """The kernel leaves it to us, or every small write would ask for capabilities first.

    Some kernels announce it by a change of nothing, for which chown(2) takes the bits away: they
    must go without that, too.
    """
    loopback = loopbacks(backed=backed, at_once=at_once, hollow=hollow, allow_other=True).start()
    script = SETUID if backed else SETUID.replace("try fallocate", ": not supported")
    said = []
    for place in (loopback.path / "here", tmp_path / "native"):
        place.mkdir()
        for directory in (place, *place.parents):
            if directory.stat().st_mode & 0o777 == 0o700:
                directory.chmod(0o711)
        place.chmod(0o777)
        done = subprocess.run(
            ["sh", "-c", script], cwd=place, capture_output=True, text=True, check=True
        )
        said.append(done.stdout.splitlines())

    assert said[1] == said[0]
    assert "755 after sh -c echo x >> s" == said[0][0]


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o2644], ids=oct)
def test_a_set_id_file_is_read_by_the_daemon_and_the_mount_says_why(loopback, place, mode):
    """Nobody would see a write by passthrough, which has to take such bits away."""
    (place / "file").write_bytes(b"x" * 100)
    (place / "file").chmod(mode)
    before = loopback.state()
    with (place / "file").open("r+b") as file:
        assert b"x" * 100 == os.pread(file.fileno(), 200, 0)
        os.pwrite(file.fileno(), b"y", 0)
        after = loopback.state()

    reason = "it is setuid or setgid, and writes must take that away"
    assert before["calls"].get("read", 0) < after["calls"]["read"]
    assert before["calls"].get("write", 0) < after["calls"]["write"]
    assert (0, 0) == (after["passthrough"]["handles"], after["passthrough"]["backings"])
    for counts in (lambda state: state["refused"], lambda state: state["passthrough"]["refused"]):
        assert 1 == counts(after)[reason] - counts(before).get(reason, 0)

    (place / "file").chmod(0o644)
    with (place / "file").open("r+b") as file:
        assert b"y" == os.pread(file.fileno(), 1, 0)
        assert (1, 1) == (
            loopback.state()["passthrough"]["handles"],
            loopback.state()["passthrough"]["backings"],
        )


def test_without_backing_files_everything_works_the_same(loopbacks):
    for settings in ({"passthrough": False}, {"backed": False}, {"extension": False}):
        loopback = loopbacks(**settings).start()
        data = os.urandom(2 * MiB + 5)
        (loopback.path / "file").write_bytes(data)
        assert data == (loopback.path / "file").read_bytes()
        with (loopback.path / "file").open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
            assert data == mapping[:]
        state = loopback.state()
        assert state["calls"]["read"] > 2
        assert (0, 0) == (state["passthrough"]["handles"], state["passthrough"]["backings"])
        assert ("backed" in settings) == state["passthrough"]["available"]
        assert ("extension" not in settings) == state["passthrough"]["extension"]
        assert [] == loopback.problems()
        assert 0 == loopback.stop()


def test_the_reason_is_a_sentence(loopbacks):
    off = loopbacks(passthrough=False).start()
    (off.path / "file").write_bytes(b"x")
    assert {} == off.state()["passthrough"]["refused"]  # of no single file
    assert (
        "passthrough is turned off by an option of the mount"
        == (off.state()["passthrough"]["reason"])
    )
    missing = loopbacks(extension=False).start()
    assert "is not built" in missing.state()["passthrough"]["reason"]


def test_a_backing_file_on_overlayfs_is_refused_and_read_by_the_daemon(loopbacks, tmp_path):
    loopback = loopbacks()
    for name in ("lower", "upper", "work"):
        (tmp_path / name).mkdir()
    loopback.host.mkdir()
    layers = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    subprocess.run(["mount", "-t", "overlay", "o", "-o", layers, loopback.host], check=True)
    try:
        loopback.start()
        (loopback.path / "file").write_bytes(b"stacked")
        assert b"stacked" == (loopback.path / "file").read_bytes()
        stacked = "it lies on a stacked file system (overlayfs): no passthrough there"
        refused = loopback.state()["refused"]
        assert {stacked: refused[stacked]} == refused
        with (loopback.path / "file").open("rb") as one, (loopback.path / "file").open("rb") as two:
            assert b"stacked" == one.read() == two.read()
            refused = loopback.state()["refused"]
            assert 1 == refused["the file is open by the cached path already"]
        assert 0 == loopback.stop()
    finally:
        loopback.clear()
        subprocess.run(["umount", "-l", loopback.host], check=True)


def test_an_unprivileged_daemon_falls_back(loopbacks, device_for_all, tmp_path):
    for directory in (tmp_path, *tmp_path.parents):
        directory.chmod(directory.stat().st_mode | 0o011)
    loopback = loopbacks(uid=65534).start()
    done = subprocess.run(
        ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "sh", "-c",
         "cd $M && printf hello > f && cat f .state"],
        env={**os.environ, "M": str(loopback.path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert done.stdout.startswith("hello{")
    assert "the daemon lacks CAP_SYS_ADMIN" in done.stdout
    assert 0 == loopback.stop()


def test_open_files_outlive_a_killed_daemon(loopbacks):
    loopback = loopbacks().start()
    (loopback.path / "file").write_bytes(b"a" * MiB)
    file = os.open(loopback.path / "file", os.O_RDONLY)
    with mmap.mmap(file, 0, access=mmap.ACCESS_READ) as mapping:
        loopback.kill()
        with pytest.raises(OSError, match="endpoint is not connected") as caught:
            os.statvfs(loopback.path)
        assert errno.ENOTCONN == caught.value.errno
        assert b"a" * MiB == os.pread(file, MiB, 0)
        assert b"a" == mapping[MiB - 1 : MiB]
    os.close(file)


def test_a_reader_does_not_count_as_a_writer_once_the_writer_is_gone(loopback, place):
    """A commit takes a read lease: it is to fail for writers, and for nobody else."""
    writer = os.open(place / "file", os.O_CREAT | os.O_WRONLY)
    reader = os.open(place / "file", os.O_RDONLY)
    os.write(writer, b"x")
    host = os.open(tree(loopback) / place.name / "file", os.O_RDONLY)
    try:
        with pytest.raises(BlockingIOError):
            fcntl.fcntl(host, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        os.close(writer)
        os.statvfs(loopback.path)  # whatever it answers, RELEASE has been answered before
        fcntl.fcntl(host, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        assert b"x" == os.read(reader, 10)
    finally:
        os.close(reader)
        os.close(host)


CHURN = """
import contextlib, os, random, sys
random.seed(int(sys.argv[1]))
for _ in range(600):
    name = str(random.randrange(4))
    mode = random.choice((os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND))
    files = [os.open(name, mode | os.O_CREAT, 0o644) for _ in range(random.randrange(1, 4))]
    if mode == os.O_RDONLY:
        os.pread(files[0], 10, 0)
    else:
        os.write(files[-1], b"x")
    if random.random() < 0.05:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
    for file in files:
        os.close(file)
"""


@pytest.mark.parametrize("settings", [{}, {"wavering": True}, {"owned": True, "wavering": True}])
def test_opens_and_closes_in_any_order_never_clash(loopbacks, settings):
    """The kernel answers EIO to an open whose way does not fit the other opens of the inode."""
    loopback = loopbacks(**settings).start()
    churning = [
        subprocess.Popen(
            [sys.executable, "-c", CHURN, str(seed)],
            cwd=loopback.path,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in range(4)
    ]
    said = [process.communicate(timeout=120)[1] for process in churning]

    assert [""] * 4 == said
    state = loopback.state()
    assert (0, 0) == (state["passthrough"]["handles"], state["passthrough"]["backings"])
    assert 0 == loopback.stop()


def test_locks_are_the_kernels_own(place):
    """pyfuse3 has no lock requests, so the kernel keeps fcntl and flock locks itself."""
    with (place / "file").open("w") as one, (place / "file").open("w") as two:
        fcntl.flock(one, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_pyfuse3_that_was_imported_first_is_noticed():
    """Its calls are bound by then: better a reason in `status` than silence."""
    script = "import pyfuse3; from mregfs.fuse.passthrough import passthrough_state as state; "
    script += "print(state().reason)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "pyfuse3 was imported before mregfs.fuse" in done.stdout
