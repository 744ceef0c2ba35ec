"""Promises about mount points: what is wrong with one is said, and nothing hangs on a dead one."""

import os
import re
import signal
import subprocess
import time

import pytest

from mregfs.errors import (
    ConflictError,
    InvalidError,
    MregfsError,
    NotFoundError,
)
from mregfs.fuse import mountpoint
from mregfs.fuse.mountpoint import Health


def test_mounts_are_found_by_store_and_by_path(loopbacks):
    loopback = loopbacks(source="/some store").start()
    (found,) = mountpoint.find(store="/some store")

    assert (str(loopback.path), "fuse.mregfs", "/some%20store") == (
        found.path,
        found.fstype,
        found.source,
    )
    assert [found] == mountpoint.find(path=loopback.path)
    assert [] == mountpoint.find(store="/another", path=loopback.path)


def test_a_path_with_blanks_is_found(loopbacks, tmp_path):
    odd = tmp_path / "a b\\c\té"
    odd.mkdir()
    loopback = loopbacks(mountpoint=str(odd)).start()

    assert [str(odd)] == [mount.path for mount in mountpoint.find(path=odd)]
    assert 0 == loopback.stop()


def test_a_symlink_to_a_mount_point_is_as_good_as_the_place_itself(loopbacks, tmp_path):
    (tmp_path / "real/place").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real/../real/./place")
    (tmp_path / "loop").symlink_to("loop")
    loopback = loopbacks(mountpoint=str(tmp_path / "link")).start()

    assert str(tmp_path / "real/place") == mountpoint.resolve(tmp_path / "link")
    assert [str(tmp_path / "real/place")] == [
        m.path for m in mountpoint.find(path=tmp_path / "link")
    ]
    assert str(tmp_path / "loop") == mountpoint.resolve(tmp_path / "loop")
    assert "/" == mountpoint.resolve("/..")
    mountpoint.unmount(tmp_path / "link")
    assert 0 == loopback.wait()


@pytest.mark.parametrize(
    ("store", "source"),
    [
        ("/var/lib/x", "/var/lib/x"),
        ("s3://b/p?x=1&y", "s3://b/p?x=1&y"),
        ("/a b%é", "/a%20b%25%C3%A9"),
    ],
)
def test_a_source_is_printable_ascii(store, source):
    assert source == mountpoint.source_name(store)


def test_a_killed_daemon_leaves_a_dead_mount_that_can_be_cleaned(loopbacks):
    loopback = loopbacks().start()
    assert Health.ALIVE is mountpoint.health(loopback.path)
    loopback.kill()

    assert mountpoint.is_dead(loopback.path)
    with pytest.raises(ConflictError, match="dead mount of loopback: unmount it: mregfs umount"):
        mountpoint.check(loopback.path)
    assert 1 == mountpoint.clean_dead(loopback.path)
    assert [] == mountpoint.find(path=loopback.path)
    assert not mountpoint.is_dead(loopback.path)
    assert 0 == mountpoint.clean_dead(loopback.path)
    mountpoint.check(loopback.path)


def test_dead_mounts_on_top_of_one_another_are_all_cleaned(loopbacks):
    loopback = loopbacks().start()
    above = loopbacks(mountpoint=str(loopback.path)).start()
    above.kill()
    loopback.kill()

    assert 2 == mountpoint.clean_dead(loopback.path)
    assert [] == mountpoint.find(path=loopback.path)


def test_a_live_mount_is_not_cleaned(loopbacks):
    loopback = loopbacks().start()

    assert 0 == mountpoint.clean_dead(loopback.path)
    assert 1 == len(mountpoint.find(path=loopback.path))


def test_a_hung_mount_hangs_nobody(loopbacks):
    loopback = loopbacks().start()
    loopback.daemon.send_signal(signal.SIGSTOP)
    started = time.monotonic()

    link = loopback.path.with_name("link")
    link.symlink_to(loopback.path)
    assert Health.HUNG is mountpoint.health(link, timeout=0.3)
    assert not mountpoint.is_dead(loopback.path, timeout=0.3)
    assert time.monotonic() - started < 5
    loopback.daemon.send_signal(signal.SIGCONT)
    assert Health.ALIVE is mountpoint.health(loopback.path)


def test_unmount_says_who_is_in_the_way(loopbacks):
    loopback = loopbacks().start()
    (loopback.path / "file").write_bytes(b"x")
    file = os.open(loopback.path / "file", os.O_RDONLY)
    with pytest.raises(ConflictError, match="is in use: close what is open there"):
        mountpoint.unmount(loopback.path)
    mountpoint.unmount(loopback.path, lazy=True)
    with pytest.raises(NotFoundError, match="nothing is mounted"):
        mountpoint.unmount(loopback.path)
    os.close(file)

    assert 0 == loopback.wait()


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda path: None, NotFoundError, "does not exist: make it: mkdir -p"),
        (lambda path: path.write_text(""), InvalidError, "is not a directory"),
    ],
)
def test_what_is_no_directory_is_refused(tmp_path, make, error, said):
    make(tmp_path / "place")
    with pytest.raises(error, match=said):
        mountpoint.check(tmp_path / "place")


def test_what_is_mounted_on_is_refused(loopbacks):
    with pytest.raises(ConflictError, match=r"/proc is a mount point already \(proc of proc\)"):
        mountpoint.check("/proc")
    loopback = loopbacks().start()
    with pytest.raises(ConflictError, match="has a mount of loopback already: use it, or unmount"):
        mountpoint.check(loopback.path)


PROBE = """
import os, sys
from mregfs.errors import MregfsError
from mregfs.fuse import mountpoint
{prepare}
try:
    {what}
except MregfsError as exc:
    print(type(exc).__name__, exc)
else:
    print("fine")
"""


def ask(place, what, prepare="", user=65534):
    """Run a few lines as another user, the way the CLI would."""
    drop = f"os.setgroups([]); os.setgid({user}); os.setuid({user})" if user else ""
    script = PROBE.format(what=what, prepare=f"{prepare}\n{drop}")
    command = ["python3", "-c", script, str(place)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PATH": f"{os.path.dirname(os.sys.executable)}:/usr/bin:/bin"},
        cwd=os.path.dirname(os.path.dirname(mountpoint.__file__)) + "/..",
    )
    return done.stdout.strip()


def test_what_a_user_lacks_is_said(tmp_path, device_for_all):
    for directory in (tmp_path, *tmp_path.parents):
        directory.chmod(directory.stat().st_mode | 0o011)
    check = "mountpoint.check(sys.argv[1])"
    theirs, mine = tmp_path / "theirs", tmp_path / "mine"
    theirs.mkdir()
    mine.mkdir()
    os.chown(mine, 65534, 65534)

    assert "fine" == ask(mine, check)
    assert ask(theirs, check).startswith("ForbiddenError")
    assert "not yours to write" in ask(theirs, check)
    missing = ask(mine, check, prepare="os.environ['PATH'] = ''")
    assert missing.startswith("UnsupportedError fusermount3 is not installed")
    others = ask(mine, "mountpoint.check(sys.argv[1], allow_other=True)")
    allowed = re.search(r"^\s*user_allow_other\s*$", open_conf(), re.MULTILINE)
    assert (others == "fine") == bool(allowed)
    assert allowed or "add the line user_allow_other to /etc/fuse.conf" in others
    os.chmod("/dev/fuse", 0o600)
    assert ask(mine, check).startswith("ForbiddenError you may not open /dev/fuse")


def open_conf():
    """Return the text of /etc/fuse.conf; empty when there is none."""
    try:
        with open("/etc/fuse.conf") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def test_a_user_unmounts_what_is_theirs_and_nothing_else(loopbacks, tmp_path, device_for_all):
    for directory in (tmp_path, *tmp_path.parents):
        directory.chmod(directory.stat().st_mode | 0o011)
    theirs = loopbacks(uid=65534).start()
    roots = loopbacks(allow_other=True).start()
    unmount = "mountpoint.unmount(sys.argv[1])"

    assert ask(roots.path, unmount).startswith("ForbiddenError")
    assert "fine" == ask(theirs.path, unmount)
    assert 0 == theirs.wait()
    assert ask(theirs.path, unmount).startswith("NotFoundError nothing is mounted")


def test_root_without_the_capability_is_told(tmp_path):
    drop = ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"]
    script = PROBE.format(what="mountpoint.check(sys.argv[1])", prepare="")
    done = subprocess.run(
        [*drop, os.sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=os.path.dirname(os.path.dirname(mountpoint.__file__)) + "/..",
    )

    assert done.stdout.startswith("ForbiddenError root may not mount here: it lacks CAP_SYS_ADMIN")


def test_read_ahead_of_what_is_not_mounted_is_a_reason(tmp_path):
    assert f"nothing is mounted on {tmp_path}" == mountpoint.set_read_ahead(tmp_path)


def test_read_ahead_is_set_without_a_look_at_the_mount(loopbacks, monkeypatch):
    """The event loop that serves the mount does this: a look would wait for itself."""
    loopback = loopbacks().start()
    monkeypatch.setattr(mountpoint, "resolve", None)

    assert "" == mountpoint.set_read_ahead(str(loopback.path))


def test_every_error_says_what_to_do():
    for code in (16, 22, 1, 5):
        error = mountpoint._unmount_failed("/m", code)
        assert isinstance(error, MregfsError)
        assert error.hint


@pytest.mark.parametrize("place", ["store", ".", "store/packs", "link"])
def test_a_mount_point_that_would_cover_the_store_is_refused(tmp_path, place):
    """A daemon whose own files lie below its mount waits for itself for ever."""
    (tmp_path / "store/packs").mkdir(parents=True)
    (tmp_path / "beside").mkdir()
    (tmp_path / "link").symlink_to("store")

    with pytest.raises(InvalidError, match="overlap"):
        mountpoint.check_apart(str(tmp_path / "store"), tmp_path / place)
    mountpoint.check_apart(str(tmp_path / "store"), tmp_path / "beside")
