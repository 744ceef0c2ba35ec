"""How a mount begins and ends: by signals, by umount, by force, at boot, for an ordinary user."""

import errno
import itertools
import json
import os
import pwd
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

NOBODY = pwd.getpwnam("nobody")


@pytest.fixture
def mount(registry_mount):
    """A mount with one version and one collection."""
    registry_mount.commit("mnist", {"config.json": b'{"number": 0}', "weights": b"w" * 3_000_000})
    registry_mount.control("ln -sf artifacts/mnist/v0 collections/classifier/production")
    return registry_mount


def is_whole(mount) -> bool:
    config = mount.path / "collections/classifier/production/config.json"
    return json.loads(config.read_text()) == {"number": 0}


# ---- the ends of a mount


@pytest.mark.bytes
def test_the_first_commit_waits_for_no_import(mount) -> None:
    """What a commit needs is loaded once the mount answers; the chunker stands for all of it."""
    mount.cli("umount", mount.path)
    mount.daemon.wait(20)
    mount.start()
    deadline = time.monotonic() + 20
    while "pyfastcdc" not in Path(f"/proc/{mount.daemon.pid}/maps").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_entries_are_written_into_spare_files(mount) -> None:
    """An alias move takes a file that lay ready, without a name."""
    descriptors = Path(f"/proc/{mount.daemon.pid}/fd")
    deadline = time.monotonic() + 20
    for number in itertools.count():
        ready = {os.stat(each).st_ino for each in descriptors.iterdir() if is_nameless(each)}
        mount.control(f"ln -sf artifacts/mnist/v0 collections/classifier/alias-{number}")
        if max((mount.store / "log").iterdir()).stat().st_ino in ready:
            break
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_nameless(descriptor: Path) -> bool:
    return os.readlink(descriptor).endswith("(deleted)")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_daemon_cleanly(mount, number) -> None:
    """SIGTERM and SIGINT unmount and exit 0; all is there at the next mount."""
    mount.daemon.send_signal(number)
    assert 0 == mount.daemon.wait(20)
    mount.daemon = None
    assert not mount.mounted()
    mount.start()
    assert is_whole(mount)


@pytest.mark.parametrize("command", ["mregfs umount {}", "umount {}", "fusermount3 -u {}"])
def test_unmounting_ends_the_daemon(mount, command) -> None:
    """However it is unmounted, the daemon exits 0."""
    mount.run(*command.format(mount.path).split(), cwd="/")
    assert 0 == mount.daemon.wait(20)
    mount.daemon = None
    assert not mount.mounted()


def test_a_busy_mount_is_not_unmounted(mount) -> None:
    """`mregfs umount` while a file is open says so; the mount stays."""
    with (mount.path / "artifacts/mnist/v0/weights").open("rb") as file:
        refused = mount.cli("umount", mount.path, check=False)
        assert 8 == refused.returncode
        assert 1 == len(refused.stderr.splitlines())
        assert b"w" == file.read(1)
    assert mount.answers()
    mount.cli("umount", mount.path)
    assert 0 == mount.daemon.wait(20)
    mount.daemon = None


def test_a_lazy_unmount_frees_who_waits_for_a_mount_that_hangs(mount) -> None:
    """Nobody waits any more once it is taken away; the daemon ends when it can."""
    mount.daemon.send_signal(signal.SIGSTOP)
    waiting = subprocess.Popen(["ls", mount.path / "artifacts/mnist/v0/nothing"])
    try:
        mount.cli("umount", "--lazy", mount.path)
        assert 2 == waiting.wait(20)
    finally:
        mount.daemon.send_signal(signal.SIGCONT)
    assert not mount.mounted()
    mount.daemon.wait(20)
    mount.daemon = None


def test_a_frozen_daemon_is_in_nobodys_way_and_the_hint_says_what_works(mount) -> None:
    """What needs no mount goes on; what needs it says how to be rid of it, and that does it."""
    mount.daemon.send_signal(signal.SIGSTOP)
    try:
        assert 0 == mount.cli("fsck").returncode
        assert 0 == mount.cli("reindex").returncode
        assert 0 == mount.cli("ls", "--project", "default").returncode
        for words in (["ls"], ["rm", "mnist:v0"], ["umount", mount.path]):
            refused = mount.cli(*words, check=False)
            assert 9 == refused.returncode
            assert f"mregfs umount --lazy {mount.path}" in refused.stderr
            assert 1 == len(refused.stderr.splitlines())
        mount.cli("umount", "--lazy", mount.path)
        assert 0 == mount.cli("ls").returncode
    finally:
        mount.daemon.send_signal(signal.SIGCONT)
    mount.daemon.wait(20)
    mount.daemon = None


def test_a_mount_that_is_killed_while_it_waits_leaves_no_daemon(make_mount) -> None:
    """Its daemon notices at the latest when it is ready, and does not mount for nobody."""
    mount = make_mount()
    mount.init()
    verb = subprocess.Popen(
        [sys.executable, "-m", "mregfs", "mount", "--log-file", mount.log, mount.store, mount.path],
        env=mount.environment,
    )
    children = Path(f"/proc/{verb.pid}/task/{verb.pid}/children")
    while not (found := children.read_text().split()):
        assert verb.poll() is None
    daemon = os.pidfd_open(int(found[0]))
    signal.pidfd_send_signal(daemon, signal.SIGSTOP)
    verb.kill()
    verb.wait()
    signal.pidfd_send_signal(daemon, signal.SIGCONT)
    assert [daemon] == select.select([daemon], [], [], 20)[0]
    os.close(daemon)
    assert not mount.mounted()
    mount.start()


@pytest.mark.bytes
def test_a_killed_daemon_leaves_what_was_acknowledged(mount) -> None:
    """After SIGKILL the mount is dead; the next one cleans up, and has every commit and draft."""
    mount.draft("run-1", {"half": b"written"})
    mount.kill()
    with pytest.raises(OSError) as caught:
        os.statvfs(mount.path)
    assert errno.ENOTCONN == caught.value.errno
    mount.start()
    assert is_whole(mount)
    assert b"written" == (mount.path / "staging/run-1/half").read_bytes()
    assert mount.control("commit run-1 mnist")["ok"]
    table = Path("/proc/self/mounts").read_text()
    assert 1 == table.count(f" {mount.path} ")


@pytest.mark.bytes
def test_open_files_survive_a_killed_daemon(mount, passthrough) -> None:
    """Under passthrough the kernel reads the backing file itself, also without a daemon."""
    path = mount.path / "artifacts/mnist/v0/weights"
    if not passthrough or os.getxattr(path, "user.mregfs.read_path") != b"passthrough":
        pytest.skip("read through the daemon here")
    with path.open("rb") as file:
        mount.kill()
        assert b"w" * 3_000_000 == file.read()
    mount.start()


def test_a_kill_during_moves_loses_none_that_was_answered(mount) -> None:
    """Moves that were acknowledged before a SIGKILL are there after the next mount."""
    mount.commit("mnist", {"config.json": b'{"number": 1}'})
    control = os.open(mount.path / ".mregfs/control", os.O_WRONLY)
    for number in range(30):
        os.write(control, f"ln -sf artifacts/mnist/v{number % 2} collections/c{number}/p".encode())
    mount.kill()
    with pytest.raises(OSError, match="not connected"):
        os.write(control, b"mkdir collections/never")
    os.close(control)
    mount.start()
    for number in range(30):
        links = os.listdir(mount.path / f"collections/c{number}")
        assert ["latest", "p", "v0"] == sorted(links)


def test_a_mount_in_the_background_answers_at_once(make_mount) -> None:
    """`mregfs mount` returns when the mount is usable, and leaves a daemon behind."""
    mount = make_mount()
    mount.init()
    mount.cli("mount", mount.store, mount.path, "--log-file", mount.log)
    try:
        assert mount.answers()
        mount.sh("mkdir collections/works")
    finally:
        mount.cli("umount", mount.path)
    assert not mount.mounted()


@pytest.mark.parametrize("name", ["a\u00a0b", "a\u3000b", "a\vb", "a\rb", "a b\t\\#"])
def test_any_name_can_be_mounted_on(make_mount, name) -> None:
    """What Unicode calls a blank or the end of a line is part of a mount point's name."""
    mount = make_mount()
    mount.init()
    mount.path = mount.path.with_name(name)
    mount.path.mkdir()
    mount.environment["MREGFS_MOUNT"] = str(mount.path)
    mount.start()
    mount.commit("mnist", {"a": b"1"})
    mount.sh('ln -sfn "$PWD/artifacts/mnist/v0" artifacts/mnist/best')
    assert "v0" == os.readlink(mount.path / "artifacts/mnist/best")
    assert "created" in mount.cli("mkdir", "collections/c").stdout
    mount.cli("umount", mount.path)
    assert 0 == mount.daemon.wait(20)
    mount.daemon = None


def test_any_name_may_be_mounted_on_by_others(mount) -> None:
    """Whether a store is on a network file system is asked of the whole table of mounts."""
    odd, later = mount.path.with_name("a\rb"), mount.path.with_name("later")
    for place in (odd, later):
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    try:
        store = later / "store"
        assert 0 == mount.run("mregfs", "init", store).returncode
        draft = later / "draft"
        draft.mkdir()
        (draft / "weights").write_bytes(b"w" * 300_000)
        mount.run("mregfs", "--store", store, "commit", draft, "mnist")
    finally:
        for place in (later, odd):
            subprocess.run(["umount", place], check=True)


# ---- what a mount can be asked to be


@pytest.mark.bytes
def test_a_read_only_mount_changes_nothing(mount) -> None:
    """Every change through a read-only mount is EROFS; reading and following work."""
    mount.stop()
    mount.options = ("--read-only",)
    mount.start()
    assert is_whole(mount)
    for command in (
        "echo 'mkdir collections/c' > .mregfs/control",
        "mkdir staging/d",
        "mkdir collections/c",
        "ln -sfn v0 collections/classifier/production",
        "rm collections/classifier/production",
        "touch artifacts/mnist/v0/config.json",
    ):
        done = mount.sh(command, check=False)
        assert "Read-only file system" in done.stderr, (command, done.stderr)
    assert is_whole(mount)


def test_two_mounts_of_one_store_see_each_other(mount, make_mount, wait_until) -> None:
    """A move through one mount is seen through another mount of the same store."""
    other = make_mount("other")
    other.path.mkdir()
    other.store = mount.store
    other.start()
    assert is_whole(other)
    mount.commit("mnist", {"config.json": b'{"number": 1}'})
    mount.sh("ln -sfn ../../artifacts/mnist/v1 collections/classifier/production")
    assert "v1" == os.readlink(other.path / "collections/classifier/production")
    config = other.path / "collections/classifier/production/config.json"
    wait_until(lambda: json.loads(config.read_text()) == {"number": 1}, "it is seen", timeout=2)
    other.sh("ln -sfn v0 collections/classifier/production")
    assert is_whole(mount)


def test_another_project_is_another_tree(mount) -> None:
    """`--project` mounts another project; both see the other below projects/."""
    mount.stop()
    mount.options = ("--project", "team/vision")
    mount.start()
    assert [] == os.listdir(mount.path / "artifacts")
    mount.commit("seen", {"a": b"1"})
    assert b"1" == (mount.path / "projects/team/vision/artifacts/seen/v0/a").read_bytes()
    other = mount.path / "projects/default/default/artifacts/mnist/v0/config.json"
    assert b'{"number": 0}' == other.read_bytes()
    mount.sh("ln -sfn ../../projects/default/default/artifacts/mnist/v0 artifacts/seen/x || true")
    mount.control("ln -sf default/default/mnist:v0 collections/mixed/production")
    mixed = mount.path / "collections/mixed/production/config.json"
    assert b'{"number": 0}' == mixed.read_bytes()


def test_the_figures_are_those_of_the_disk(mount) -> None:
    """`df` shows the size and the free space of the file system that the store is on."""
    ours, disk = os.statvfs(mount.path), os.statvfs(mount.store)
    assert (disk.f_blocks * disk.f_frsize) == (ours.f_blocks * ours.f_frsize)
    assert abs(disk.f_bavail * disk.f_frsize - ours.f_bavail * ours.f_frsize) < 1 << 30


def test_the_index_can_be_thrown_away(mount) -> None:
    """Without its index the store is the same at the next mount; inode numbers stay."""
    before = mount.sh("find . -path ./staging -prune -o -printf '%i %p %l\\n' | sort").stdout
    mount.stop()
    mount.cli("reindex")
    mount.start()
    assert (
        before == mount.sh("find . -path ./staging -prune -o -printf '%i %p %l\\n' | sort").stdout
    )


def test_the_index_can_be_rebuilt_under_the_mount(mount) -> None:
    """Nobody who reads meanwhile is told that something is not there; nor is anybody afterwards."""
    ours = mount.path / "artifacts/mnist"
    for number in range(1, 4):
        mount.draft(f"run-{number}", {f"below/{name}": b"%d" % number for name in range(50)})
        mount.control(f"commit run-{number} mnist")
    for number in range(1, 4):
        rebuilding = subprocess.Popen(
            [sys.executable, "-m", "mregfs", "reindex"],
            env=mount.environment,
            stdout=subprocess.DEVNULL,
        )
        version, round_ = ours / f"v{number}", 0
        while rebuilding.poll() is None:
            assert is_whole(mount)
            assert 50 == len(os.listdir(version / "below"))
            assert b"%d" % number == (version / "below" / str(round_ % 50)).read_bytes()
            round_ += 1
        assert 0 == rebuilding.returncode
        mount.cli("tag", f"mnist:v{number}", f"+seen-{number}")  # nothing is remembered of it now
        time.sleep(0.2)
        assert b"%d" % number == (version / "below/7").read_bytes()
        assert is_whole(mount)


# ---- at boot


def test_systemd_is_told_when_the_mount_answers(make_mount, tmp_path) -> None:
    """READY=1 arrives on the notify socket when the mount is usable, STOPPING=1 at the end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(20)
        mount = make_mount(environment={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        mount.init()
        mount.start()
        assert b"READY=1" in listener.recv(4096)
        mount.stop()
        assert b"STOPPING=1" in listener.recv(4096)


@pytest.mark.parametrize("setting", ["ExecStartPre", "ExecStopPost"])
def test_the_unit_clears_away_a_dead_mount_only(mount, setting) -> None:
    """What the systemd unit runs before and after the daemon unmounts a dead mount, no live one."""
    unit = (Path(__file__).parents[2] / "systemd/mregfs@.service").read_text()
    (line,) = re.findall(rf"^{setting}=-(/bin/sh .*)$", unit, re.MULTILINE)
    command = shlex.split(line.replace("$$", "$").replace("%f", str(mount.path)))
    subprocess.run(command, check=False)
    assert mount.answers()
    mount.kill()
    assert mount.mounted()
    subprocess.run(command, check=False)
    assert not mount.mounted()


@pytest.mark.parametrize("kind", ["mregfs", "fuse.mregfs"])
def test_the_helper_of_mount_8_mounts(make_mount, kind) -> None:
    """`mount.mregfs SOURCE MOUNTPOINT -o …`, as mount(8) calls it for a line of /etc/fstab."""
    mount = make_mount()
    mount.init()
    options = "rw,_netdev,nofail,noatime,x-systemd.automount,allow_other"
    mount.run("mount.mregfs", mount.store, mount.path, "-o", options, "-t", kind)
    try:
        assert mount.answers()
        assert not mount.status()["read_only"]
    finally:
        mount.run("umount", mount.path, cwd="/")
    refused = mount.run("mount.mregfs", mount.store, mount.path, "-o", "frobnicate", check=False)
    assert (32, False) == (refused.returncode, mount.mounted())
    assert "frobnicate" in refused.stderr
    mount.run("mount.mregfs", mount.store, mount.path, "-s", "-o", "frobnicate,ro")
    try:
        assert mount.status()["read_only"]
    finally:
        mount.run("umount", mount.path, cwd="/")


def test_fstab_needs_no_helper_in_sbin(make_mount) -> None:
    """`mount -t fuse mount.mregfs#STORE MOUNTPOINT` works as soon as the program is in the path."""
    mount = make_mount()
    mount.init()
    mount.run("/sbin/mount.fuse3", f"mount.mregfs#{mount.store}", mount.path, "-o", "rw,nofail")
    try:
        assert mount.answers()
    finally:
        mount.run("umount", mount.path, cwd="/")


# ---- an ordinary user


AS_NOBODY = ("setpriv", f"--reuid={NOBODY.pw_uid}", f"--regid={NOBODY.pw_gid}", "--clear-groups")
CAN_RUN = (
    "import subprocess, sys;"
    "subprocess.run([sys.executable, '-c', 'import mregfs.daemon'], check=True)"
)


def python_for_nobody() -> tuple[str, dict[str, str]]:
    """Return an interpreter that nobody may run, and the environment in which it has mregfs.

    That of the tests may be in the home directory of root; then the host's own will do.
    """
    paths = [str(Path(__file__).parents[2]), *filter(os.path.isdir, sys.path)]
    for python in (sys.executable, "/usr/bin/python3"):
        environment = {"PYTHONPATH": ":".join(paths)} if python != sys.executable else {}
        done = subprocess.run(
            [*AS_NOBODY, python, "-c", CAN_RUN],
            env={**os.environ, **environment},
            capture_output=True,
            check=False,
            cwd="/",
        )
        if done.returncode == 0:
            return python, environment
    pytest.skip("nobody cannot run a Python that has mregfs")


@pytest.fixture
def unprivileged(make_mount, device_for_all) -> Iterator:
    """A store that belongs to nobody, and a command that runs mregfs as nobody."""
    if shutil.which("fusermount3") is None or shutil.which("setpriv") is None:
        pytest.skip("fusermount3 or setpriv is not installed")
    python, environment = python_for_nobody()
    directory = Path(tempfile.mkdtemp(prefix="mregfs-test-", dir="/tmp"))
    directory.chmod(0o755)
    mount = make_mount(
        "unprivileged",
        runner=AS_NOBODY,
        environment={"HOME": str(directory), "USER": "nobody", **environment},
    )
    mount.path, mount.store = directory / "mnt", directory / "store"
    mount.environment |= {"MREGFS_STORE": str(mount.store), "MREGFS_MOUNT": str(mount.path)}
    os.chown(directory, NOBODY.pw_uid, NOBODY.pw_gid)
    mount.path.mkdir()
    os.chown(mount.path, NOBODY.pw_uid, NOBODY.pw_gid)
    mregfs = (python, "-m", "mregfs")
    mount.run(*mregfs, "init", mount.store, cwd=directory)
    yield mount, mregfs
    mount.clear()
    shutil.rmtree(directory)


def test_an_ordinary_user_mounts(unprivileged) -> None:
    """Without root: fusermount3 mounts, reads go through the daemon, all operations work."""
    # Nobody but the user sees into the mount, not even root: so everything is run as the user.
    mount, mregfs = unprivileged
    mount.run(*mregfs, "mount", mount.store, mount.path, "--log-file", mount.store / "../log")
    try:
        mount.run("mkdir", mount.path / "staging/run-1", cwd="/")
        mount.run("cp", "/etc/passwd", mount.path / "staging/run-1/file", cwd="/")
        script = f"cd {mount.path} && echo 'commit run-1 mnist --alias best' > .mregfs/control"
        mount.run("bash", "-c", script, cwd="/")
        mount.run("cmp", "/etc/passwd", mount.path / "artifacts/mnist/best/file", cwd="/")
        status = json.loads(mount.run("cat", mount.path / ".mregfs/status", cwd="/").stdout)
        assert not status["passthrough"]["available"]
        assert status["passthrough"]["reason"]
        with pytest.raises(PermissionError):
            os.listdir(mount.path)
    finally:
        mount.run(*mregfs, "umount", mount.path, cwd="/")
    assert not mount.mounted()


# ---- what can go wrong when mounting


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert 0 != done.returncode
    lines = done.stderr.splitlines()
    assert 1 == len(lines), done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]


def test_wrong_mounts_say_what_to_do(make_mount, tmp_path) -> None:
    """One clear line for each: no store, no directory, not empty, newer format, taken."""
    mount = make_mount()
    mount.init()
    nowhere = one_line(mount.cli("mount", mount.store, tmp_path / "missing", check=False))
    assert str(tmp_path / "missing") in nowhere
    (tmp_path / "plain").mkdir()
    assert "mregfs init" in one_line(
        mount.cli("mount", tmp_path / "plain", mount.path, check=False)
    )
    (tmp_path / "file").write_text("")
    assert "file" in one_line(mount.cli("mount", mount.store, tmp_path / "file", check=False))
    mount.start()
    assert str(mount.path) in one_line(mount.cli("mount", mount.store, mount.path, check=False))
    assert mount.answers()
    mount.stop()
    description = json.loads((mount.store / "store.json").read_text())
    number = next(key for key, value in description.items() if isinstance(value, int))
    newer = {**description, number: 999}
    (mount.store / "store.json").chmod(0o644)
    (mount.store / "store.json").write_text(json.dumps(newer))
    assert "999" in one_line(mount.cli("mount", mount.store, mount.path, check=False))
    assert not mount.mounted()


def test_without_dev_fuse_it_says_so(make_mount) -> None:
    """On a host or in a container without /dev/fuse: one line that says how to get it."""
    mount = make_mount()
    mount.init()
    mregfs = f"{sys.executable} -m mregfs mount {mount.store} {mount.path}"
    hidden = "mount -t tmpfs none /dev && : > /dev/null"
    done = mount.run("unshare", "-m", "sh", "-c", f"{hidden}; {mregfs}", check=False)
    assert "/dev/fuse" in one_line(done)


@pytest.mark.bytes
def test_a_full_disk_changes_nothing(make_mount, tmp_path) -> None:
    """On a full disk drafts and commands get ENOSPC; what was there stays."""
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", small], check=True)
    try:
        mount = make_mount()
        mount.store = small / "store"
        mount.environment["MREGFS_STORE"] = str(mount.store)
        mount.environment["XDG_STATE_HOME"] = str(tmp_path / "cache")
        mount.init()
        mount.start()
        mount.commit("mnist", {"config.json": b'{"number": 0}'})
        mount.sh("mkdir staging/big")
        done = mount.sh("head -c 64M /dev/zero > staging/big/file", check=False)
        assert "No space left" in done.stderr
        mount.expect_log("No space|ENOSPC")
        refused = [mount.control(f"describe mnist:v0 {n}{'d' * 9000}\n") for n in range(20)]
        assert (False, errno.ENOSPC) == (refused[-1]["ok"], refused[-1]["errno"])
        assert b'{"number": 0}' == (mount.path / "artifacts/mnist/v0/config.json").read_bytes()
        mount.sh("rm -r staging/big")
        mount.commit("mnist", {"config.json": b'{"number": 1}'})
        mount.stop()
    finally:
        subprocess.run(["umount", "-l", small], check=True)
