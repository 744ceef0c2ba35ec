"""The objects in a directory keep the contract; and what they promise beyond."""

import contextlib
import errno
import itertools
import os
import pathlib
import stat
import threading
import time

import pytest

from mregfs.errors import (
    ExistsError,
    ForbiddenError,
    HostError,
    NoSpaceError,
    NotFoundError,
    UnsupportedError,
)
from mregfs.host.beneath import Beneath
from mregfs.stores.objects_dir import ObjectsDirectory
from tests.contracts.object_store import ObjectStoreContract


def keep_and_make_spares(objects: ObjectsDirectory, size: int) -> None:
    objects.keep_spares(size)
    objects._spares.fill()


class TestObjectsDirectory(ObjectStoreContract):
    @pytest.fixture
    def objects(self, tmp_path):
        made = ObjectsDirectory(Beneath.at(tmp_path))
        yield made
        made.close()


class TestObjectsDirectoryWithSpares(ObjectStoreContract):
    @pytest.fixture
    def objects(self, tmp_path):
        made = ObjectsDirectory(Beneath.at(tmp_path))
        keep_and_make_spares(made, 1)  # which is the size of most objects here
        yield made
        made.close()


@pytest.fixture
def directory(tmp_path):
    return ObjectsDirectory(Beneath.at(tmp_path))


def files_below(path: pathlib.Path) -> list[str]:
    """Return the names of all files, but the one that says that the probe was made here."""
    found = {str(each.relative_to(path)) for each in path.rglob("*") if each.is_file()}
    return sorted(found - {"tmp/exclusive"})


def test_the_probe_accepts_an_exclusive_store_and_leaves_nothing(directory):
    directory.probe_exclusive()

    assert [] == list(directory.list(""))


def test_of_many_processes_that_create_one_key_exactly_one_wins(tmp_path, start, wait_for):
    """The processes run up key after key, as appends to a log do."""
    processes, keys = 4, 25
    (tmp_path / "won").mkdir()

    def race(me: int) -> None:
        objects = ObjectsDirectory(Beneath.at(tmp_path))
        for key in range(keys):
            try:
                objects.create(f"log/{key:04}", b"%d" % me * 1000)
            except ExistsError:
                continue
            (tmp_path / "won" / f"{key:04}.{me}").touch()

    children = [start(lambda me=me: race(me)) for me in range(processes)]
    for child in children:
        wait_for(child)

    won = sorted(path.name.split(".") for path in (tmp_path / "won").iterdir())
    assert [f"{key:04}" for key in range(keys)] == [key for key, _ in won]
    objects = ObjectsDirectory(Beneath.at(tmp_path))
    for key, me in won:
        assert me.encode() * 1000 == objects.get(f"log/{key}")


def test_a_reader_sees_the_whole_object_or_none(directory, start, wait_for):
    """Objects are large enough that a torn one would be seen."""
    data = os.urandom(1 << 20)
    count = 15

    def write() -> None:
        for number in range(count):
            directory.create(f"log/{number}", data)

    child = start(write)
    for number in range(count):
        while True:
            try:
                found = directory.get(f"log/{number}")
            except NotFoundError:
                continue
            assert data == found
            break
    wait_for(child)


def test_after_a_kill_every_object_is_whole(directory, start):
    data = os.urandom(1 << 16)

    def write() -> None:
        for number in itertools.count():
            directory.create(f"log/{number:06}", data)

    child = start(write)
    while not directory.exists("log/000009"):
        pass
    os.kill(child, 9)
    os.waitpid(child, 0)

    keys = list(directory.list("log/"))
    assert len(keys) >= 10
    assert all(data == directory.get(key) for key in keys)


def test_objects_are_read_only_files_and_nothing_else_stays(directory, tmp_path):
    directory.create("log/1", b"x")

    assert ["log/1"] == files_below(tmp_path)
    found = (tmp_path / "log/1").stat()
    assert 0 == found.st_mode & 0o222
    assert 1 == found.st_nlink


@pytest.mark.usefixtures("umask_077")
def test_a_umask_keeps_nobody_from_reading_objects(directory, tmp_path, monkeypatch):
    """Nor for a moment: an object has its mode before its name."""
    tmp_path.chmod(0o755)
    keep_and_make_spares(directory, 6)
    modes = []
    link = os.link

    def record(source, target, **options) -> None:
        found = os.stat(source, dir_fd=options.get("src_dir_fd"))
        modes.append(stat.S_IMODE(found.st_mode))
        link(source, target, **options)

    monkeypatch.setattr(os, "link", record)
    directory.create("log/1", b"of six")
    directory.create("log/2", b"longer than six")
    directory.close()

    assert {0o444} == set(modes)
    assert {0o755} == {stat.S_IMODE((tmp_path / each).stat().st_mode) for each in ("log", "tmp")}


def test_a_create_costs_two_syncs_the_object_before_its_name(directory, tmp_path, monkeypatch):
    directory.create("log/1", b"x")
    synced = []

    def fsync(fd: int) -> None:
        synced.append((os.readlink(f"/proc/self/fd/{fd}"), (tmp_path / "log/2").exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    directory.create("log/2", b"x")

    (file, named), (folder, linked) = synced
    assert file.startswith(f"{tmp_path}/tmp/")
    assert not named
    assert (str(tmp_path / "log"), True) == (folder, linked)


def test_new_directories_are_made_durable_up_to_the_store(directory, tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync

    def record(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", record)
    directory.create("manifests/ab/abcd", b"x")

    expected = [str(tmp_path), str(tmp_path / "manifests"), str(tmp_path / "manifests/ab")]
    assert expected == synced[1:]


def test_directories_that_another_writer_has_just_made_are_made_durable(tmp_path, monkeypatch):
    """He may not have come to that yet, and our object is only as durable as the way to it."""
    (tmp_path / "manifests/ab").mkdir(parents=True)
    objects = ObjectsDirectory(Beneath.at(tmp_path))
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))

    objects.create("manifests/ab/abcd", b"x")
    objects.create("manifests/ab/abce", b"x")

    way = [str(tmp_path), str(tmp_path / "manifests")]
    assert way == sorted(each for each in synced if each in way)


def test_what_crashes_left_is_swept_after_a_day(directory, tmp_path):
    (tmp_path / "tmp").mkdir()
    for name, age in (("old", 2 * 86400), ("young", 3600)):
        path = tmp_path / "tmp" / name
        path.touch()
        modified = path.stat().st_mtime - age
        os.utime(path, (modified, modified))

    assert not directory.exists("log/1")
    assert ["tmp/old", "tmp/young"] == files_below(tmp_path)
    directory.create("log/1", b"x")

    assert ["log/1", "tmp/young"] == files_below(tmp_path)


def test_a_store_that_was_removed_is_not_made_and_not_empty(tmp_path):
    """Nothing is told from what is no more: not even that there is no such object."""
    path = tmp_path / "gone"
    path.mkdir()
    objects = ObjectsDirectory(Beneath.at(path))
    path.rmdir()

    for use in (objects.get, objects.exists, lambda key: objects.create(key, b"x"),
                lambda key: list(objects.list(key))):  # fmt: skip
        with pytest.raises(HostError, match="removed") as caught:
            use("log/1")
        assert errno.EIO == caught.value.errno

    assert not path.exists()


def test_a_store_that_was_renamed_goes_on(tmp_path):
    path = tmp_path / "store"
    path.mkdir()
    objects = ObjectsDirectory(Beneath.at(path))
    objects.create("log/1", b"x")
    path.rename(tmp_path / "elsewhere")

    objects.create("log/2", b"y")

    assert b"x" == objects.get("log/1")
    assert ["log/1", "log/2"] == list(objects.list(""))
    assert not path.exists()


@pytest.mark.parametrize("code", [errno.EEXIST, errno.EIO, errno.ETIMEDOUT])
def test_an_nfs_link_that_was_made_although_it_failed_is_a_win(directory, monkeypatch, code):
    link = os.link

    def lossy(source: str, target: str, **options) -> None:
        link(source, target, **options)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", lossy)
    directory.create("log/1", b"mine")

    assert b"mine" == directory.get("log/1")


def test_a_failed_link_stores_nothing(directory, tmp_path, monkeypatch):
    (tmp_path / "log").mkdir()

    def failing(source: str, target: str, **options) -> None:
        raise OSError(errno.EMLINK, "Too many links")

    monkeypatch.setattr(os, "link", failing)
    with pytest.raises(HostError) as caught:
        directory.create("log/1", b"mine")

    assert errno.EMLINK == caught.value.errno
    assert [] == files_below(tmp_path)


def test_a_temporary_name_that_is_gone_does_not_undo_the_create(directory, monkeypatch):
    """Somebody's clock is a day ahead, and its sweep takes what we are about to remove."""
    fsync = os.fsync

    def sweep(fd: int) -> None:
        fsync(fd)
        for path in (pathlib.Path(directory.path) / "tmp").iterdir():
            if path.stat().st_nlink == 2:
                path.unlink()

    monkeypatch.setattr(os, "fsync", sweep)
    directory.create("log/1", b"x")

    assert b"x" == directory.get("log/1")


def test_the_probe_refuses_a_file_system_that_lets_two_win(directory, monkeypatch):
    def replace(source: str, target: str, *, follow_symlinks: bool, **options) -> None:
        os.replace(source, target, **options)

    monkeypatch.setattr(os, "link", replace)
    # Renaming takes the temporary file away, as such a file system would not.
    monkeypatch.setattr(os, "unlink", lambda path, **options: None)

    with pytest.raises(UnsupportedError, match="two writers"):
        directory.probe_exclusive()


def test_a_full_disk_stores_nothing_and_loses_nothing(small_disk):
    objects = ObjectsDirectory(Beneath.at(small_disk))
    objects.create("log/1", b"kept")

    objects.create("big/1", bytes(1900 << 10))

    for size in (3 << 20, 200 << 10):
        with pytest.raises(NoSpaceError):
            objects.create("big/2", bytes(size))

    assert ["big/1", "log/1"] == files_below(small_disk)
    assert b"kept" == objects.get("log/1")
    objects.delete("big/1")
    objects.create("log/2", b"works again")


def test_a_store_of_another_user_can_be_read_but_not_written(tmp_path, as_nobody):
    for path in (tmp_path, *tmp_path.parents[:3]):
        path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o055)
    ObjectsDirectory(Beneath.at(tmp_path)).create("log/1", b"x")

    def use() -> None:
        objects = ObjectsDirectory(Beneath.at(tmp_path))
        assert b"x" == objects.get("log/1")
        for change in (lambda: objects.create("log/2", b""), lambda: objects.delete("log/1")):
            with pytest.raises(ForbiddenError, match="permissions"):
                change()

    as_nobody(use)


def test_a_read_only_disk_says_so(small_disk):
    import subprocess

    objects = ObjectsDirectory(Beneath.at(small_disk))
    objects.create("log/1", b"x")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)

    with pytest.raises(HostError, match="remount") as caught:
        objects.create("log/2", b"x")

    assert errno.EROFS == caught.value.errno
    assert b"x" == objects.get("log/1")


# ---- the directory's spare files


@pytest.fixture
def spared(tmp_path):
    """A directory that has files of six bytes ready."""
    objects = ObjectsDirectory(Beneath.at(tmp_path))
    keep_and_make_spares(objects, 6)
    yield objects
    objects.close()


def spares_of(place: pathlib.Path, size: int = 6) -> set[int]:
    """Return the inodes of open files of this size on this file system that have no name."""
    found = set()
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the descriptor of the list itself
            status = os.stat(f"/proc/self/fd/{descriptor}")
            if (status.st_nlink, status.st_size, status.st_dev) == (0, size, place.stat().st_dev):
                found.add(status.st_ino)
    return found


def test_an_object_of_their_size_is_a_spare_file(spared, tmp_path):
    spares = spares_of(tmp_path)

    spared.create("log/1", b"of six")
    spared.create("log/2", b"longer than six")

    assert (b"of six", b"longer than six") == (spared.get("log/1"), spared.get("log/2"))
    first, second = ((tmp_path / key).stat() for key in ("log/1", "log/2"))
    assert first.st_ino in spares
    assert second.st_ino not in spares
    assert (0o100444, 1) == (first.st_mode, first.st_nlink)


def test_the_first_object_of_their_size_has_them_made(tmp_path):
    objects = ObjectsDirectory(Beneath.at(tmp_path))
    objects.keep_spares(6)
    objects.create("log/1", b"longer than six")
    assert set() == spares_of(tmp_path)

    objects.create("log/2", b"of six")

    deadline = time.monotonic() + 20
    while not spares_of(tmp_path):
        assert time.monotonic() < deadline
    objects.close()


def test_spare_files_have_no_name_so_a_crash_leaves_none(spared, tmp_path):
    assert [] == files_below(tmp_path)
    assert spares_of(tmp_path)


def test_spare_files_are_made_anew_and_run_out_unnoticed(spared):
    for number in range(500):
        spared.create(f"log/{number}", b"%06d" % number)

    assert [b"%06d" % number for number in range(500)] == [
        spared.get(f"log/{number}") for number in range(500)
    ]


def test_an_existing_key_is_not_replaced_by_a_spare_file(spared, tmp_path):
    spared.create("log/1", b"first!")

    with pytest.raises(ExistsError):
        spared.create("log/1", b"second")

    assert b"first!" == spared.get("log/1")
    assert 1 == (tmp_path / "log/1").stat().st_nlink


def test_a_repeated_link_of_a_spare_file_is_a_success(spared, tmp_path, monkeypatch):
    """As when the answer to the first one is lost, and the name is found taken."""
    link = os.link

    def link_twice(*arguments, **options) -> None:
        link(*arguments, **options)
        link(*arguments, **options)

    (tmp_path / "log").mkdir()
    monkeypatch.setattr(os, "link", link_twice)

    spared.create("log/1", b"of six")

    assert b"of six" == spared.get("log/1")


def test_of_a_spare_file_the_bytes_are_durable_before_the_name(spared, tmp_path, monkeypatch):
    """Its bytes, its name, then the directory: an entry that was acknowledged is there."""
    (tmp_path / "log").mkdir()
    spares = spares_of(tmp_path)
    found = record_syncs(monkeypatch, lambda: (tmp_path / "log/1").exists())

    spared.create("log/1", b"of six")

    (file, data, named), (folder, _, linked), (above, _, _) = found
    assert file in spares
    assert (b"of six", False) == (data, named)
    assert ((tmp_path / "log").stat().st_ino, True) == (folder, linked)
    # Once: whoever made log/ a moment ago may not have come so far yet.
    assert tmp_path.stat().st_ino == above


def record_syncs(monkeypatch, look) -> list[tuple[int, bytes, bool]]:
    """Note of each sync: the inode, what is in it if it is a file, and what `look` says."""
    found = []

    def record(fd: int) -> None:
        status = os.fstat(fd)
        data = b""
        if stat.S_ISREG(status.st_mode):
            with open(f"/proc/self/fd/{fd}", "rb") as file:
                data = file.read()
        found.append((status.st_ino, data, look()))

    monkeypatch.setattr(os, "fsync", record)
    monkeypatch.setattr(os, "fdatasync", record)
    return found


def test_spare_files_are_durable_before_their_use(tmp_path, monkeypatch):
    """So that writing to one changes no size and allocates nothing: fdatasync is enough then."""
    objects = ObjectsDirectory(Beneath.at(tmp_path))
    objects.keep_spares(6)
    spares = objects._spares
    found = record_syncs(monkeypatch, lambda: bool(spares._ready))

    spares.fill()

    inodes = {os.fstat(fd).st_ino for fd in spares._ready}
    assert inodes
    assert [(inode, bytes(6), False) for inode, _, _ in found] == found
    assert inodes == {inode for inode, _, _ in found}
    objects.close()


def test_closing_while_spare_files_are_made_gives_them_up(tmp_path):
    """Those that the closing one does not know of yet, too."""
    objects = ObjectsDirectory(Beneath.at(tmp_path))
    objects.keep_spares(6)
    spares = objects._spares
    make = spares._make
    made = []

    def make_and_close() -> int:
        made.append(make())
        objects.close()
        return made[-1]

    spares._make = make_and_close
    spares.fill()

    assert made
    assert [] == spares._ready
    for fd in made:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_without_threads_there_are_no_spare_files_and_no_error(tmp_path, monkeypatch):
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    objects = ObjectsDirectory(Beneath.at(tmp_path))
    objects.keep_spares(6)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        objects.create("log/1", b"of six")
        objects.close()
    assert b"of six" == objects.get("log/1")

    objects.keep_spares(6)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        objects.create("log/2", b"of six")
    objects.create("log/3", b"of six")
    assert objects._spares._thread is not None or objects._spares._ready
    objects.close()


def test_a_fork_leaves_the_spare_files_to_the_parent(spared, start, wait_for, monkeypatch):
    """Or both would write to one file, and call it two objects."""
    spares = spared._spares
    before = [os.fstat(fd).st_ino for fd in spares._ready]
    assert before

    def create() -> None:
        assert [] == spares._ready
        for number in range(3):
            spared.create(f"child/{number}", b"child%d" % number)
        spares.fill()
        assert spares._ready
        spared.create("child/3", b"child3")
        spared.close()

    with spares._lock:  # as another thread may hold it
        child = start(create)
    wait_for(child)
    for number in range(4):
        spared.create(f"parent/{number}", b"paren%d" % number)

    assert set(before) >= {os.stat(f"{spared.path}/{key}").st_ino for key in spared.list("parent/")}
    for number in range(4):
        assert b"child%d" % number == spared.get(f"child/{number}")
        assert b"paren%d" % number == spared.get(f"parent/{number}")


def test_closing_gives_up_the_spare_files(spared, tmp_path):
    before = spares_of(tmp_path)

    spared.close()
    spared.close()

    after = spares_of(tmp_path)
    assert before - after
    spared.create("log/1", b"of six")
    assert after == spares_of(tmp_path)


def test_a_file_system_without_nameless_files_has_no_spares(tmp_path, monkeypatch):
    """It is asked once."""
    asked = []
    real_open = os.open

    def refuse(path, flags, *rest, **options) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            asked.append(path)
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return real_open(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", refuse)
    objects = ObjectsDirectory(Beneath.at(tmp_path))
    keep_and_make_spares(objects, 6)
    for number in range(3):
        objects.create(f"log/{number}", b"of six")
    objects.close()

    assert 1 == len(asked)
    assert b"of six" == objects.get("log/2")


def test_with_spare_files_a_full_disk_still_takes_an_entry(small_disk):
    """It is no matter of luck: their blocks are theirs."""
    objects = ObjectsDirectory(Beneath.at(small_disk))
    objects.create("log/0", b"x")
    keep_and_make_spares(objects, 6)
    with pytest.raises(OSError, match="No space"), (small_disk / "rest").open("wb") as rest:
        while True:
            rest.write(bytes(4096))
            rest.flush()

    objects.create("log/1", b"of six")

    assert b"of six" == objects.get("log/1")
    objects.close()


def test_no_spare_files_on_a_full_disk(small_disk):
    objects = ObjectsDirectory(Beneath.at(small_disk))
    objects.create("big/1", bytes(2000 << 10))

    keep_and_make_spares(objects, 20 << 10)

    assert set() == spares_of(small_disk, 20 << 10)
    objects.delete("big/1")
    objects.create("log/1", bytes(20 << 10))
    objects.close()
