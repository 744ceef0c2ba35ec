"""Drafts are files like any others: fio and stress-ng verify what they write there."""

import re
import shutil
import subprocess

import pytest

pytestmark = pytest.mark.bytes

FIO = ("fio", "--output-format=terse", "--size=16m", "--verify_fatal=1", "--do_verify=1")
JOBS = {
    "psync": ("--ioengine=psync", "--rw=randrw", "--bs=4k-64k", "--verify=crc32c"),
    "psync-fsync": ("--ioengine=psync", "--rw=randwrite", "--bs=16k", "--fsync=32", "--verify=md5"),
    "libaio": ("--ioengine=libaio", "--iodepth=16", "--rw=randwrite", "--bs=4k", "--verify=crc32c"),
    "mmap": ("--ioengine=mmap", "--rw=randrw", "--bs=4k", "--verify=crc32c"),
    "direct": ("--ioengine=libaio", "--direct=1", "--rw=randwrite", "--bs=4k", "--verify=crc32c"),
    "jobs": ("--ioengine=psync", "--numjobs=4", "--rw=write", "--bs=128k", "--verify=sha256"),
}

# Those of `stress-ng --class filesystem` that touch files, and not the host itself.
STRESSORS = (
    *("access", "chattr", "chdir", "chmod", "chown", "copy-file", "dentry", "dir"),
    *("dirdeep", "dirmany", "dnotify", "dup", "fallocate", "fcntl", "fiemap", "file-ioctl"),
    *("filename", "flock", "fpunch", "fsize", "fstat", "getdent", "handle", "hdd"),
    *("inode-flags", "inotify", "io", "iomix", "lease", "link", "locka", "lockf"),
    *("lockofd", "mknod", "open", "rename", "symlink", "sync-file", "touch", "utime"),
    *("xattr"),
)
SMALL = ("--hdd-bytes", "8m", "--copy-file-bytes", "128m", "--fallocate-bytes", "8m")
SMALL += ("--iomix-bytes", "8m", "--sync-file-bytes", "8m", "--fiemap-bytes", "8m")
SMALL += ("--dirdeep-inodes", "2048", "--chdir-dirs", "256", "--symlink-ops", "2000")


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS)
def test_fio_reads_back_what_it_wrote(shared_mount, job) -> None:
    """`fio --verify` finds every block as it was written."""
    directory = shared_mount.path / "staging" / f"fio-{job}"
    directory.mkdir()
    shared_mount.run(*FIO, f"--name={job}", f"--directory={directory}", *JOBS[job])
    shared_mount.run("rm", "-r", directory)


def stress(mount, directory, stressor: str) -> subprocess.CompletedProcess[str]:
    """Run one stressor for a second; its complaints are lines with `fail:`."""
    words = ("--timeout", "1s", "--verify", "--oomable", "--temp-path", directory, *SMALL)
    return mount.run("stress-ng", f"--{stressor}", "1", *words, check=False, timeout=90)


def complaints(done: subprocess.CompletedProcess[str]) -> list[str]:
    said = (done.stdout + done.stderr).splitlines()
    return sorted({re.sub(r"\[\d+\]|\d+", "N", line) for line in said if "fail:" in line})


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("stress-ng") is None, reason="stress-ng is not installed")
@pytest.mark.parametrize("stressor", STRESSORS)
def test_stress_finds_no_more_fault_than_natively(shared_mount, tmp_path, stressor) -> None:
    """Each file system stressor of stress-ng passes in a draft, if it passes on the host's disk."""
    draft = shared_mount.path / "staging" / f"stress-{stressor}"
    draft.mkdir()
    mounted = stress(shared_mount, draft, stressor)
    if mounted.returncode:
        native = stress(shared_mount, tmp_path, stressor)
        assert (native.returncode, complaints(native)) == (
            mounted.returncode,
            complaints(mounted),
        ), mounted.stdout + mounted.stderr
    assert shared_mount.answers()
    shared_mount.run("rm", "-rf", draft)
