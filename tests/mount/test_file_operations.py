"""Each file operation of the registry, with the tools that people have, through a real mount."""

import errno
import itertools
import json
import mmap
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def mnist(registry_mount):
    """A mount with the artifact mnist, of which there are v0 to v3."""
    for number in range(4):
        registry_mount.commit("mnist", {"config.json": b'{"number": %d}' % number})
    return registry_mount


def last_requests(mount, count=1) -> list[dict]:
    """Return the newest log entries, as .mregfs/events tells them."""
    sequence = mount.status()["sequence"]
    with (mount.path / ".mregfs/events").open("rb+", buffering=0) as events:
        events.write(b"since %d\n" % (sequence - count))
        lines = b""
        while lines.count(b"\n") < count:
            lines += events.read(1 << 20)
    return [json.loads(line) for line in lines.splitlines()]


def link(mount, path: str) -> str:
    return os.readlink(mount.path / path)


def number_in(path: Path) -> int:
    return json.loads((path / "config.json").read_text())["number"]


# ---- drafts and commits


@pytest.mark.bytes
@pytest.mark.parametrize(
    "fill",
    [
        "cp -r {source} staging/run-17",
        "cp -a {source}/. staging/run-17/",
        "rsync -a {source}/ staging/run-17/",
        "tar -C {source} -cf - . | tar -C staging/run-17 -xf -",
        "busybox cp -r {source}/. staging/run-17/",
    ],
)
def test_a_draft_is_filled_by_any_tool(registry_mount, tmp_path, fill) -> None:
    """Whatever copies files into a draft, what gets committed is those files."""
    source = tmp_path / "source"
    (source / "sub/empty").mkdir(parents=True)
    (source / "sub/program").write_text("#!/bin/sh\n")
    (source / "sub/program").chmod(0o755)
    (source / "weights").write_bytes(os.urandom(100_000))
    (source / "current").symlink_to("sub/program")
    prepare = "" if fill.startswith("cp -r") else "mkdir staging/run-17 && "
    registry_mount.sh(prepare + fill.format(source=source))
    registry_mount.sh("echo 'commit run-17 mnist --alias best' > .mregfs/control")

    version = registry_mount.path / "artifacts/mnist/v0"
    registry_mount.run("diff", "-r", "--no-dereference", source, version)
    assert os.access(version / "sub/program", os.X_OK)
    assert (version / "weights").stat().st_mode & 0o777 == 0o444
    assert [] == os.listdir(registry_mount.path / "staging")
    assert "v0" == link(registry_mount, "artifacts/mnist/best")
    assert "v0" == link(registry_mount, "artifacts/mnist/latest")


@pytest.mark.bytes
def test_a_draft_becomes_the_next_version_by_mv(mnist) -> None:
    """`mv staging/DRAFT artifacts/NAME/next` commits; `next` is no name that stays."""
    mnist.draft("run-18", {"config.json": b'{"number": 4}'})
    mnist.sh("mv staging/run-18 artifacts/mnist/next")
    assert 4 == number_in(mnist.path / "artifacts/mnist/v4")
    assert "v4" == link(mnist, "artifacts/mnist/latest")
    assert not os.path.lexists(mnist.path / "artifacts/mnist/next")
    assert not (mnist.path / "staging/run-18").exists()
    mnist.draft("run-19", {"config.json": b'{"number": 5}'})
    os.rename(mnist.path / "staging/run-19", mnist.path / "artifacts/mnist/next")
    assert 5 == number_in(mnist.path / "artifacts/mnist/v5")


def test_identical_content_makes_no_new_version(mnist) -> None:
    """A draft equal to v1 is answered with v1; the alias moves there, `latest` stays."""
    mnist.draft("again", {"config.json": b'{"number": 1}'})
    reply = mnist.control("commit again mnist --alias best")
    assert reply["ok"]
    assert (False, "v1") == (reply["results"][0]["created"], reply["results"][0]["version"])
    assert "v1" == link(mnist, "artifacts/mnist/best")
    assert "v3" == link(mnist, "artifacts/mnist/latest")
    assert ["v0", "v1", "v2", "v3"] == sorted(mnist.versions("mnist"))


@pytest.mark.bytes
def test_an_open_draft_is_not_committed(registry_mount) -> None:
    """A commit while files are open for writing gets EBUSY, and names them."""
    draft = registry_mount.draft("busy", {"done": b"1", "sub/open": b"2"})
    with (draft / "sub/open").open("ab") as file:
        file.write(b"3")
        with pytest.raises(OSError) as caught:
            (registry_mount.path / ".mregfs/control").write_text("commit busy mnist")
        assert errno.EBUSY == caught.value.errno
        reply = registry_mount.control("commit busy mnist")
        assert not reply["ok"]
        assert errno.EBUSY == reply["errno"]
        assert "sub/open" in reply["message"]
        assert "done" not in reply["message"]
    assert registry_mount.control("commit busy mnist")["ok"]
    assert b"23" == (registry_mount.path / "artifacts/mnist/v0/sub/open").read_bytes()


@pytest.mark.bytes
def test_a_committed_draft_is_gone_when_control_answers(registry_mount) -> None:
    """Whatever the kernel remembers of it; also when its content is a version already."""
    for content in (b"one", b"one", b"two"):
        top = registry_mount.draft("run", {"file": content, "sub/file": b"below"})
        for path in (top / "sub", top):
            path.stat()
        assert registry_mount.control("commit run mnist")["ok"]
        for path in (top, top / "sub"):
            with pytest.raises(FileNotFoundError):
                path.stat()
    assert ["v0", "v1"] == sorted(registry_mount.versions("mnist"))


@pytest.mark.bytes
def test_another_mount_does_not_change_what_was_committed(make_mount) -> None:
    """Whatever it still has of the draft: a name, a descriptor, the number of a removed file."""
    mount, other = make_mount("one"), make_mount("other")
    mount.init()
    mount.start()
    other.path.mkdir()
    other.store = mount.store
    other.start()
    content = b"model" * 100_000
    for number in range(3):
        mount.draft(f"run{number}", {"model.bin": content + bytes([number]), "kept": b"small"})
    seen, held, removed = (other.path / f"staging/run{n}/model.bin" for n in range(3))
    seen.stat()
    reader, last = os.open(held, os.O_RDONLY), os.open(removed, os.O_RDONLY)
    (other.path / "staging/elsewhere").mkdir()

    for number in range(2):
        assert mount.control(f"commit run{number} mnist")["ok"]
    removed.unlink()
    changes = [
        lambda: os.open(seen, os.O_WRONLY),
        lambda: os.truncate(seen, 0),
        lambda: os.chmod(seen, 0o644),
        lambda: os.link(seen, other.path / "staging/elsewhere/stolen"),
        lambda: os.open(held, os.O_WRONLY),
        lambda: os.open(f"/proc/self/fd/{reader}", os.O_WRONLY),
        lambda: os.open(f"/proc/self/fd/{reader}", os.O_RDONLY | os.O_TRUNC),
        lambda: os.truncate(f"/proc/self/fd/{reader}", 0),
        lambda: os.fchmod(reader, 0o644),
        lambda: os.fchown(reader, 1, 1),
        lambda: os.utime(reader, (1, 1)),
        lambda: os.setxattr(reader, "user.key", b"value"),
    ]
    for change in changes:
        with pytest.raises(OSError, match=r"Stale|No such file") as caught:
            change()
        assert caught.value.errno in (errno.ESTALE, errno.ENOENT)

    assert content + b"\1" == os.pread(reader, 1 << 20, 0)
    os.close(reader)
    for number in range(2):
        model = mount.path / f"artifacts/mnist/v{number}/model.bin"
        assert content + bytes([number]) == model.read_bytes()
    assert {0o100444} == {
        path.stat().st_mode for path in mount.store.glob("packs/??/*") if path.stat().st_size > 5000
    }
    assert 0 == mount.cli("fsck", "--data").returncode

    os.truncate(f"/proc/self/fd/{last}", 0)  # nobody's but its owner's
    os.fchmod(last, 0o400)
    assert 0 == os.fstat(last).st_size
    os.close(last)


@pytest.mark.bytes
def test_a_mapping_that_outlives_its_descriptor_is_noticed(registry_mount) -> None:
    """A shared writable mapping goes on writing after close(2): no commit before it is gone."""
    draft = registry_mount.draft("mapped", {"weights": bytes(1 << 20), "config.json": b"{}"})
    descriptor = os.open(draft / "weights", os.O_RDWR)
    mapping = mmap.mmap(descriptor, 0)
    os.close(descriptor)
    mapping[0] = 1
    reply = registry_mount.control("commit mapped mnist")
    assert (False, errno.EBUSY) == (reply["ok"], reply["errno"])
    assert "weights" in reply["message"]
    assert "config.json" not in reply["message"]
    mapping[1] = 2
    mapping.close()

    assert registry_mount.control("commit mapped mnist")["ok"]
    published = (registry_mount.path / "artifacts/mnist/v0/weights").read_bytes()
    assert b"\1\2" == published[:2]


def test_writers_of_control_do_not_wait_for_each_other(mnist) -> None:
    """Each has an inode of its own: Linux lets one process at a time write to one."""
    control = mnist.path / ".mregfs/control"
    descriptors = [os.open(control, os.O_RDWR) for _ in range(4)]
    try:
        assert 4 == len({os.fstat(each).st_ino for each in descriptors})
        for number, descriptor in enumerate(descriptors):
            os.write(descriptor, f"ln -sf mnist:v{number} classifier:production".encode())
            assert json.loads(os.read(descriptor, 1 << 16))["ok"]
            assert f"v{number}" == link(mnist, "collections/classifier/production")
    finally:
        for each in descriptors:
            os.close(each)
    readers = [os.open(control, os.O_RDONLY) for _ in range(2)]
    assert 1 == len({os.fstat(each).st_ino for each in readers})
    for each in readers:
        os.close(each)


def make_fifo(draft: Path) -> None:
    os.mkfifo(draft / "pipe")


def make_absolute(draft: Path) -> None:
    (draft / "pipe").symlink_to("/etc/passwd")


def make_escaping(draft: Path) -> None:
    (draft / "pipe").symlink_to("../../other")


@pytest.mark.parametrize("make", [make_fifo, make_absolute, make_escaping])
def test_what_cannot_be_in_a_version_is_named(registry_mount, make) -> None:
    """A FIFO or a symlink out of the version: EINVAL, the path named, the draft untouched."""
    draft = registry_mount.draft("odd", {"fine": b"1"})
    make(draft)
    reply = registry_mount.control("commit odd mnist")
    assert not reply["ok"]
    assert errno.EINVAL == reply["errno"]
    assert "pipe" in reply["message"]
    assert ["fine", "pipe"] == sorted(os.listdir(draft))
    (draft / "pipe").unlink()
    assert registry_mount.control("commit odd mnist")["ok"]


# ---- links and aliases


def test_the_control_file_links_and_moves(mnist) -> None:
    """`ln -sf ARTIFACT-VERSION COLLECTION/ALIAS` makes the collection, the link and the alias."""
    mnist.sh("echo 'ln -sf artifacts/mnist/v1 collections/classifier/production' >.mregfs/control")
    assert "v0" == link(mnist, "collections/classifier/production")
    assert "../../artifacts/mnist/v1" == link(mnist, "collections/classifier/v0")
    assert 1 == number_in(mnist.path / "collections/classifier/production")
    mnist.sh("echo 'ln -sf artifacts/mnist/v3 collections/classifier/production' >.mregfs/control")
    assert "v1" == link(mnist, "collections/classifier/production")
    mnist.sh("echo 'ln -sf artifacts/mnist/v1 collections/classifier/production' >.mregfs/control")
    assert "v0" == link(mnist, "collections/classifier/production")
    assert ["v0", "v1"] == sorted(mnist.versions("classifier", "collections"))


LN = {
    "coreutils": "ln -sfn {target} {alias}",
    "coreutils -r": "ln -sfnr {target} {alias}",
    "mv -T": "ln -s {target} {directory}/.new && mv -T {directory}/.new {alias}",
    "python": 'python -c \'import os; os.symlink("{target}", "{directory}/.new");'
    ' os.replace("{directory}/.new", "{alias}")\'',
    "busybox": "busybox ln -sfn {target} {alias}",
}
TARGETS = {
    "absolute": "{mount}/artifacts/mnist/v3",
    "relative": "../../artifacts/mnist/v3",
    "own number": "v1",
}


@pytest.mark.parametrize("tool", LN)
@pytest.mark.parametrize("target", TARGETS)
def test_plain_tools_move_an_alias(mnist, tool, target) -> None:
    """A symlink put over an alias moves it; a version that is not linked yet is linked."""
    mnist.control("ln -sf artifacts/mnist/v1 collections/classifier/production")
    if target == "own number":
        mnist.control("ln -sf artifacts/mnist/v3 collections/classifier")
    text = TARGETS[target].format(mount=mnist.path)
    if tool == "coreutils -r":  # it works out the relative path itself, from the real one
        text = "collections/classifier/v1" if target == "own number" else "artifacts/mnist/v3"
    mnist.sh(
        LN[tool].format(
            target=text,
            alias="collections/classifier/production",
            directory="collections/classifier",
        )
    )
    assert 3 == number_in(mnist.path / "collections/classifier/production")
    assert "v1" == link(mnist, "collections/classifier/production")
    assert "../../artifacts/mnist/v3" == link(mnist, "collections/classifier/v1")
    names = os.listdir(mnist.path / "collections/classifier")
    assert {"v0", "v1", "latest", "production"} == set(names)


def test_gnu_ln_is_one_log_entry_and_busybox_two(mnist) -> None:
    """The atomic rename of `ln -sfn` is one entry; unlink and symlink of BusyBox are two."""
    mnist.control("ln -sf artifacts/mnist/v1 collections/classifier/production")
    mnist.control("ln -sf artifacts/mnist/v3 collections/classifier")
    before = mnist.status()["sequence"]
    mnist.sh("ln -sfn v1 collections/classifier/production")
    assert before + 1 == mnist.status()["sequence"]
    mnist.sh("busybox ln -sfn v0 collections/classifier/production")
    assert before + 3 == mnist.status()["sequence"]
    assert "v0" == link(mnist, "collections/classifier/production")


def test_an_alias_of_an_artifact_is_a_symlink_too(mnist) -> None:
    """`ln -s` makes an alias of an artifact, `ln -sfn` moves it, `mv` renames it, `rm` drops it."""
    mnist.sh("ln -s v1 artifacts/mnist/best")
    mnist.sh("ln -sfn v2 artifacts/mnist/best")
    assert 2 == number_in(mnist.path / "artifacts/mnist/best")
    mnist.sh("mv artifacts/mnist/best artifacts/mnist/champion")
    assert 2 == number_in(mnist.path / "artifacts/mnist/champion")
    assert not os.path.lexists(mnist.path / "artifacts/mnist/best")
    mnist.sh("rm artifacts/mnist/champion")
    assert not os.path.lexists(mnist.path / "artifacts/mnist/champion")
    assert ["v0", "v1", "v2", "v3"] == sorted(mnist.versions("mnist"))


LONG = 12 << 30
"""Bytes of a file that take little space, and seconds to digest."""


def is_frozen(draft: Path) -> bool:
    """Tell whether a draft is being committed."""
    try:
        os.utime(draft)
    except OSError as error:
        if error.errno == errno.EBUSY:
            return True
        raise
    return False


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize(
    "how",
    [
        "exec mregfs commit staging/run mnist",
        "exec /bin/echo commit run mnist > .mregfs/control",
        "exec mv staging/run artifacts/mnist/next",
    ],
)
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_commit_ends_with_whoever_waits_for_it(registry_mount, how, sent) -> None:
    """Ctrl-C leaves no version, a draft as it was, and no process that cannot be killed."""
    registry_mount.sh("mkdir artifacts/mnist staging/run")
    draft = registry_mount.path / "staging/run"
    with (draft / "weights").open("wb") as file:
        for offset in range(0, LONG, 1 << 20):  # blocks of which something is on the disk are read
            os.pwrite(file.fileno(), b"w", offset)
        file.truncate(LONG)
    asking = subprocess.Popen(
        ["sh", "-c", how],
        cwd=registry_mount.path,
        env=registry_mount.environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    # Not by the draft: a rename that is not answered keeps its directory locked.
    wait_until(lambda: "committing draft run" in registry_mount.log.read_text())
    assert asking.poll() is None
    asking.send_signal(sent)
    _, said = asking.communicate(timeout=60)
    wait_until(lambda: not is_frozen(draft))

    assert asking.returncode in (-sent, 130)
    if "mregfs commit" in how and sent == signal.SIGINT:
        assert said.startswith("mregfs: interrupted: ")
    assert ["weights"] == os.listdir(draft)
    assert [] == os.listdir(registry_mount.path / "artifacts/mnist")
    assert [] == os.listdir(registry_mount.store / "intake")
    assert LONG == (draft / "weights").stat().st_size
    (draft / "weights").write_bytes(b"w")
    registry_mount.sh("mregfs commit staging/run mnist")
    assert b"w" == (registry_mount.path / "artifacts/mnist/v0/weights").read_bytes()


@pytest.mark.parametrize("made", ["symlink", "replace"])
def test_an_alias_is_there_as_soon_as_it_is_renamed(mnist, made) -> None:
    """No reader comes before the notice by which the kernel forgets what it moved itself."""
    artifact = mnist.path / "artifacts/mnist"
    names = itertools.cycle(["best", "champion"])
    name = next(names)
    if made == "replace":
        (artifact / name).symlink_to("v1")
        (artifact / ".best").symlink_to("v2")
        (artifact / ".best").replace(artifact / name)
    else:
        (artifact / name).symlink_to("v2")
    for _ in range(200):
        new_name = next(names)
        (artifact / name).rename(artifact / new_name)
        assert 2 == number_in(artifact / new_name)
        assert not os.path.lexists(artifact / name)
        name = new_name


def test_rm_drops_the_alias_then_the_link(mnist) -> None:
    """`rm` of a link that has an alias is refused; without it, only the link goes."""
    mnist.control("ln -sf artifacts/mnist/v1 collections/classifier/production")
    refused = mnist.sh("rm collections/classifier/v0", check=False)
    assert "Device or resource busy" in refused.stderr
    mnist.sh("rm collections/classifier/production")
    assert not os.path.lexists(mnist.path / "collections/classifier/production")
    mnist.sh("rm collections/classifier/v0")
    assert [] == os.listdir(mnist.path / "collections/classifier")
    assert 1 == number_in(mnist.path / "artifacts/mnist/v1")


def test_numbers_are_not_used_again(mnist) -> None:
    """A link taken out leaves its number unused."""
    for number in (0, 1):
        mnist.control(f"ln -sf artifacts/mnist/v{number} collections/classifier")
    mnist.sh("rm collections/classifier/v1")
    mnist.control("ln -sf artifacts/mnist/v2 collections/classifier")
    assert ["v0", "v2"] == sorted(mnist.versions("classifier", "collections"))


def test_mkdir_and_rmdir_make_and_remove_collections(mnist) -> None:
    """Also names with inner spaces; a collection that holds links is not empty."""
    name = "MNIST Grayscale 28x28"
    mnist.run("mkdir", f"collections/{name}")
    assert name in os.listdir(mnist.path / "collections")
    mnist.run("ln", "-sfn", f"{mnist.path}/artifacts/mnist/v2", f"collections/{name}/production")
    refused = mnist.run("rmdir", f"collections/{name}", check=False)
    assert "Directory not empty" in refused.stderr
    mnist.run("mv", f"collections/{name}", "collections/digits")
    assert 2 == number_in(mnist.path / "collections/digits/production")
    assert name not in os.listdir(mnist.path / "collections")
    mnist.sh("rm collections/digits/production && rm collections/digits/v0")
    mnist.sh("rmdir collections/digits")
    assert [] == os.listdir(mnist.path / "collections")


# ---- transactions and guards


def test_several_lines_are_one_transaction(mnist) -> None:
    """Several lines in one write are one log entry."""
    before = mnist.status()["sequence"]
    mnist.sh(
        "cat > .mregfs/control <<END\n"
        "# what the next release is made of\n"
        "ln -sf artifacts/mnist/v1 collections/a/production\n"
        "ln -sf artifacts/mnist/v2 collections/b/production\n\n"
        "tag artifacts/mnist/v2 shipped\n"
        "END"
    )
    assert before + 1 == mnist.status()["sequence"]
    assert 1 == number_in(mnist.path / "collections/a/production")
    assert 2 == number_in(mnist.path / "collections/b/production")


def test_one_bad_line_undoes_all(mnist) -> None:
    """All or nothing: when one line fails, none has happened, and the line is named."""
    before = mnist.status()["sequence"]
    reply = mnist.control(
        "ln -sf artifacts/mnist/v1 collections/a/production\n"
        "ln -sf artifacts/mnist/v99 collections/b/production\n"
    )
    assert not reply["ok"]
    assert errno.ENOENT == reply["errno"]
    assert "v99" in reply["message"]
    assert [] == os.listdir(mnist.path / "collections")
    assert before == mnist.status()["sequence"]


def test_expect_is_compare_and_swap(mnist) -> None:
    """`--expect vN` fails with EBUSY when the alias points elsewhere by now."""
    mnist.control("ln -sf artifacts/mnist/v0 collections/classifier/production")
    move = "ln -sf artifacts/mnist/v2 collections/classifier/production --expect "
    refused = mnist.sh(f"echo '{move} v7' > .mregfs/control", check=False)
    assert 0 != refused.returncode
    assert "busy" in refused.stderr
    assert "v0" == link(mnist, "collections/classifier/production")
    mnist.sh(f"echo '{move} v0' > .mregfs/control")
    assert 2 == number_in(mnist.path / "collections/classifier/production")


def test_a_version_is_deleted_only_when_told_so(mnist) -> None:
    """`rm` on the control file deletes; aliases and links keep a version there unless forced."""
    mnist.control("ln -sf artifacts/mnist/v1 collections/classifier/production")
    reply = mnist.control("rm artifacts/mnist/v1")
    assert errno.EBUSY == reply["errno"]
    assert "classifier" in reply["message"]
    assert mnist.control("rm --force artifacts/mnist/v1")["ok"]
    assert not os.path.lexists(mnist.path / "artifacts/mnist/v1")
    assert not os.path.lexists(mnist.path / "collections/classifier/v0")
    assert mnist.control("rm artifacts/mnist/v0")["ok"]
    assert ["v2", "v3"] == sorted(mnist.versions("mnist"))


def test_rollback_goes_back_by_one(mnist) -> None:
    """`rollback` moves an alias to where it was before, and says who did it and why."""
    for number in (1, 2):
        mnist.control(f"ln -sf artifacts/mnist/v{number} collections/classifier/production")
    mnist.cli("rollback", "classifier:production", "--reason", "too slow")
    assert 1 == number_in(mnist.path / "collections/classifier/production")
    (entry,) = last_requests(mnist)
    assert "too slow" in json.dumps(entry)


# ---- what is refused


FORBIDDEN = {
    "write": ("echo x > artifacts/mnist/v0/config.json", "Read-only file system"),
    "append": ("echo x >> artifacts/mnist/v0/config.json", "Read-only file system"),
    "truncate": ("truncate -s 0 artifacts/mnist/v0/config.json", "Read-only file system"),
    "create": ("touch artifacts/mnist/v0/new", "Read-only file system"),
    "touch": ("touch -d yesterday artifacts/mnist/v0/config.json", "Read-only file system"),
    "unlink": ("rm -f artifacts/mnist/v0/config.json", "Read-only file system"),
    "rm -r": ("rm -rf artifacts/mnist/v0", "Read-only file system|not empty"),
    "rmdir": ("rmdir artifacts/mnist/v0", "Read-only file system|not empty"),
    "find": ("find artifacts/mnist/v0 -delete", "Read-only file system|not empty"),
    "rsync": ("rsync -r --delete staging/ artifacts/mnist/v0/", "Read-only file system"),
    "mkdir": ("mkdir artifacts/mnist/v0/sub", "Read-only file system"),
    "rename": ("mv artifacts/mnist/v0/config.json artifacts/mnist/v0/c", "Read-only file system"),
    "move out": ("mv artifacts/mnist/v0 staging/v0", "Read-only file system"),
    "over": ("mv -T staging/d artifacts/mnist/v0", "File exists|Read-only|not empty"),
    "chmod": ("chmod 600 artifacts/mnist/v0/config.json", "Read-only file system"),
    "chown": ("chown 1 artifacts/mnist/v0", "Read-only file system"),
    "xattr": ("setfattr -n user.x -v 1 artifacts/mnist/v0", "Read-only file system"),
    "hard link": (
        "ln artifacts/mnist/v0/config.json staging/d/c",
        "Read-only|cross-device|Invalid",
    ),
    "number": ("ln -s v0 artifacts/mnist/v9", "not permitted"),
    "latest": ("ln -sfn v0 artifacts/mnist/latest", "not permitted"),
    "nowhere": ("ln -s v99 artifacts/mnist/best", "No such file"),
    "outside": ("ln -s /etc artifacts/mnist/best", "Invalid argument"),
    "bad name": ("mkdir collections/a:b", "Invalid argument"),
    "taken": ("mkdir collections/mnist", "File exists"),
    "top": ("mkdir more", "not permitted"),
    "top file": ("touch file", "not permitted"),
    "missing": ("cat artifacts/mnist/v99/config.json", "No such file"),
    "not empty": ("rmdir artifacts/mnist", "not empty"),
    "fixed": ("rmdir staging", "not permitted|busy"),
    "unknown command": ("echo frobnicate > .mregfs/control", "Invalid argument"),
    "unknown draft": ("echo 'commit nothing mnist' > .mregfs/control", "No such file"),
}


@pytest.fixture(scope="module")
def guarded(shared_mount):
    shared_mount.commit("mnist", {"config.json": b'{"number": 0}'})
    shared_mount.draft("d", {"fine": b"1"})
    return shared_mount


@pytest.mark.parametrize("operation", FORBIDDEN)
def test_wrong_operations_change_nothing_and_say_why(guarded, operation) -> None:
    """Each wrong operation gets its errno, and leaves the registry as it was."""
    command, message = FORBIDDEN[operation]
    before = guarded.status()["sequence"]
    done = guarded.sh(command, check=False)
    assert 0 != done.returncode
    assert re.search(message, done.stderr), done.stderr
    assert before == guarded.status()["sequence"]
    assert '{"number": 0}' == (guarded.path / "artifacts/mnist/v0/config.json").read_text()
    assert ["fine"] == os.listdir(guarded.path / "staging/d")


def test_every_command_is_documented_in_the_control_file(registry_mount) -> None:
    """`cat .mregfs/control` shows how commands are written."""
    text = registry_mount.sh("cat .mregfs/control").stdout
    for word in ("commit", "ln", "rm", "rollback"):
        assert re.search(rf"^# *{word} ", text, re.MULTILINE), text


# ---- what is known of a version


def test_extended_attributes_tell_what_is_known(mnist) -> None:
    """`getfattr -d` shows digest, size, aliases and metadata of a version."""
    mnist.control("set artifacts/mnist/v2 accuracy=0.9 'note:=\"it works\"'")
    mnist.control("ln -sf v2 artifacts/mnist/best")
    done = mnist.run("getfattr", "--absolute-names", "-d", mnist.path / "artifacts/mnist/v2")
    found = dict(re.findall(r'^user\.mregfs\.(\w+)="(.*)"$', done.stdout, re.MULTILINE))
    assert re.fullmatch(r"[0-9a-f]{64}", found["digest"])
    assert str(len(b'{"number": 2}')) == found["size"]
    assert "best" in found["aliases"]
    assert found.keys() >= {"created_at", "metadata", "unique_size"}
    raw = os.getxattr(mnist.path / "artifacts/mnist/v2", "user.mregfs.metadata")
    assert {"accuracy": 0.9, "note": "it works"} == json.loads(raw)


def test_versions_are_listed_in_the_order_of_their_numbers(mnist) -> None:
    """`ls -U` lists v2 before v10."""
    for number in range(4, 12):
        mnist.commit("mnist", {"config.json": b'{"number": %d}' % number})
    listed = mnist.sh("ls -U artifacts/mnist").stdout.split()
    numbers = [int(name[1:]) for name in listed if name != "latest"]
    assert list(range(12)) == numbers


def test_the_mount_works_the_same_elsewhere(mnist, tmp_path) -> None:
    """Bind-mounted elsewhere, links resolve, and absolute paths there are understood."""
    mnist.control("ln -sf artifacts/mnist/v1 collections/classifier/production")
    other = tmp_path / "elsewhere"
    other.mkdir()
    subprocess.run(["mount", "--bind", mnist.path, other], check=True)
    try:
        assert 1 == number_in(other / "collections/classifier/production")
        alias = other / "collections/classifier/production"
        mnist.run("ln", "-sfn", other / "artifacts/mnist/v3", alias)
        assert 3 == number_in(mnist.path / "collections/classifier/production")
        with (other / ".mregfs/control").open("wb", buffering=0) as control:
            control.write(f"ln -sf {other}/artifacts/mnist/v2 {alias}".encode())
        assert 2 == number_in(alias)
    finally:
        subprocess.run(["umount", other], check=True)
