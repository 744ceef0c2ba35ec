"""Directories on their way in: what sealing guarantees, for whom, and that nothing leads out."""

import errno
import inspect
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mregfs.api import init_store
from mregfs.errors import ConflictError, ExistsError, HostError, InvalidError, NoSpaceError
from mregfs.host.beneath import Beneath
from mregfs.host.callers import Credentials
from mregfs.stores.intake_dir import DraftPlace, IntakeDirectory
from mregfs.stores.intake_dir import intake as module
from mregfs.stores.packs_dir import PacksDirectory
from tests.contracts.intake import BIG, FILES, PACK, IntakeContract
from tests.registry.rig import in_child, write_files

NOBODY = 65534


@pytest.fixture
def place(tmp_path: Path) -> Path:
    init_store(tmp_path / "store")
    draft = tmp_path / "store" / "staging" / "default" / "default" / "run"
    write_files(draft, {"big": BIG, "d/small": b"small"})
    return draft


def store_of(draft: Path) -> Path:
    return draft.parents[3]


def open_intake(
    draft: Path, *, consume: bool = True, who: Credentials | None = None
) -> IntakeDirectory:
    """Return an intake of a draft as it is before it is taken."""
    store = store_of(draft)
    source = DraftPlace("default/default", draft.name) if consume else draft
    directory = Beneath.at(store)
    return IntakeDirectory(directory, PacksDirectory(directory), source, who)


def take(draft: Path, who: Credentials | None = None) -> IntakeDirectory:
    """Return an intake of a draft that is taken."""
    intake = open_intake(draft, who=who)
    intake.take("layout", 7)
    return intake


def at(draft: Path) -> Path:
    """Return where a taken draft is."""
    (found,) = (work / "tree" for work in (store_of(draft) / "intake").iterdir())
    return found


def pack_of(draft: Path) -> Path:
    return store_of(draft) / "packs" / "ab" / PACK


class TestIntakeOfDrafts(IntakeContract):
    @pytest.fixture
    def source(self, place):
        return place

    def local_packs(self, source):
        return PacksDirectory(Beneath.at(store_of(source)))

    def open(self, source, packs):
        place = DraftPlace("default/default", source.name)
        return IntakeDirectory(Beneath.at(store_of(source)), packs, place)

    def inside(self, source):
        return at(source)

    @pytest.fixture(autouse=True)
    def allow_recovery_to_speak(self, expected_warnings):
        expected_warnings.expect("the commit of the draft default/default/run, which a crash")


class TestIntakeOfDirectories(IntakeContract):
    is_consumed = False

    @pytest.fixture
    def source(self, tmp_path):
        init_store(tmp_path / "store")
        write_files(tmp_path / "elsewhere", FILES)
        return tmp_path / "elsewhere"

    def local_packs(self, source):
        return PacksDirectory(Beneath.at(source.parent / "store"))

    def open(self, source, packs):
        return IntakeDirectory(Beneath.at(source.parent / "store"), packs, source)

    def inside(self, source):
        return source


def test_the_life_of_a_draft(place: Path) -> None:
    """Scan, seal, announce, adopt, verify, release: the pack is the draft's file."""
    inode = (place / "big").stat().st_ino
    intake = take(place)
    assert {"big", "d", "d/small"} == {entry.path for entry in intake.scan()}
    intake.seal(["big"])
    assert BIG == intake.read_at("big", 0, 1 << 20)
    assert b"small" == intake.read("d/small")
    intake.announce({"big": PACK})
    assert intake.adopt("big", PACK)
    intake.verify()
    assert (0o40555, 0) == (place.stat().st_mode, len(os.listdir(place)))
    intake.release()
    assert not place.exists()
    assert (inode, 1) == (pack_of(place).stat().st_ino, pack_of(place).stat().st_nlink)
    assert [] == os.listdir(store_of(place) / "intake")


def adopted(place: Path) -> IntakeDirectory:
    """Return an intake of `place` whose large file is a pack already."""
    intake = take(place)
    intake.scan()
    intake.seal(["big"])
    intake.announce({"big": PACK})
    intake.adopt("big", PACK)
    return intake


def verified(place: Path) -> IntakeDirectory:
    """Return an intake of `place` as it is when its version is put into the log."""
    intake = adopted(place)
    intake.verify()
    return intake


def test_a_buffer_is_filled_or_the_file_has_changed(place: Path) -> None:
    """A read beyond the end would be digested as zeros."""
    (place / "big").write_bytes(bytes(range(256)) * 2000)
    intake = take(place)
    intake.scan()
    intake.seal(["big"])
    buffer = bytearray(300)
    intake.read_into("big", 1000, memoryview(buffer))
    assert buffer == (bytes(range(256)) * 8)[1000:1300]
    with pytest.raises(ConflictError, match=r"changed while being committed: 'big'"):
        intake.read_into("big", 512_000 - 299, memoryview(buffer))
    intake.restore()


@pytest.mark.parametrize("other_name", [False, True])
def test_who_waits_for_the_end_of_a_commit_does_not_get_the_pack(
    place: Path, wait_until: Callable[..., None], expected_warnings, *, other_name: bool
) -> None:
    """He opened the draft's file, past the mount, when nothing could fail the commit any more."""
    expected_warnings.expect("'big' was opened for writing or linked elsewhere")
    intake = verified(place)
    fd = intake._sealed["big"].fd
    opened: list[int] = []
    big = at(place) / "big"
    writer = threading.Thread(target=lambda: opened.append(os.open(big, os.O_RDWR)))
    writer.start()
    wait_until(lambda: not module.lease.held(fd), "the writer waits for the lease")
    if other_name:
        os.link(big, place.parent / "kept")

    intake.release()

    writer.join(20)
    (descriptor,) = opened
    assert b"XXX" + BIG[3:] == os.pread(descriptor, os.pwrite(descriptor, b"XXX", 0) * 200_000, 0)
    os.close(descriptor)
    found = pack_of(place).stat()
    assert BIG == pack_of(place).read_bytes()
    assert (0o100444, 1) == (found.st_mode, found.st_nlink)
    assert not place.exists()
    assert [] == os.listdir(store_of(place) / "intake")


@pytest.mark.parametrize("way", [os.link, os.rename])
def test_a_file_taken_out_of_the_draft_late_is_not_the_pack(
    place: Path, expected_warnings, way: Callable[[Path, Path], None]
) -> None:
    """Root gave it another name, past the mount."""
    expected_warnings.expect("'big' was opened for writing or linked elsewhere")
    intake = verified(place)
    way(at(place) / "big", place.parent / "taken")

    intake.release()

    assert 0o100644 == (place.parent / "taken").stat().st_mode
    (place.parent / "taken").write_bytes(b"changed")
    assert BIG == pack_of(place).read_bytes()


def test_write_bits_that_somebody_gave_back_are_taken_again(place: Path) -> None:
    """A pack that its former owner could open would be his to change."""
    intake = verified(place)
    big = at(place) / "big"
    inode = big.stat().st_ino
    big.chmod(0o666)
    if os.geteuid() == 0:
        os.chown(big, NOBODY, NOBODY)

    intake.release()

    found = pack_of(place).stat()
    assert (0o100444, inode, os.geteuid()) == (found.st_mode, found.st_ino, found.st_uid)


def test_a_pack_that_is_not_needed_stays_away(place: Path, wait_until: Callable[..., None]) -> None:
    """The same content was committed by somebody else meanwhile."""
    intake = verified(place)
    fd = intake._sealed["big"].fd
    big = at(place) / "big"
    writer = threading.Thread(target=lambda: os.close(os.open(big, os.O_RDWR)))
    writer.start()
    wait_until(lambda: not module.lease.held(fd), "the writer waits for the lease")
    pack_of(place).unlink()

    intake.release()

    writer.join(20)
    assert not pack_of(place).exists()


def test_no_room_to_part_a_pack_from_its_writer(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    expected_warnings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The version is in the log: it is said what may happen to it, and nothing is left."""
    expected_warnings.expect("linked elsewhere|others can still change 'big'.*No space")
    intake = verified(place)
    os.link(at(place) / "big", place.parent / "kept")

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    intake.release()
    assert "others can still change 'big'" in caplog.text
    assert BIG == pack_of(place).read_bytes()
    assert [] == os.listdir(store_of(place) / "intake")


@pytest.mark.parametrize("consume", [True, False])
def test_no_room_for_the_work_directory(
    place: Path, monkeypatch: pytest.MonkeyPatch, *, consume: bool
) -> None:
    """Taking needs it, and copying."""

    def full(*args: object, **more: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    intake = open_intake(place, consume=consume)
    with monkeypatch.context() as patch, pytest.raises(NoSpaceError, match="No space left"):
        if not consume:
            intake.scan()
        patch.setattr(os, "mkdir", full)
        intake.take("layout", 7)
        intake.seal(["big"])
    intake.restore()
    assert BIG == (place / "big").read_bytes()


@pytest.mark.parametrize("now", [BIG + b"longer", BIG[:-1]])
def test_a_change_just_before_the_lease_is_noticed(
    place: Path, now: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest has the size that was scanned."""
    lease = module.lease.take

    def write_first(fd: int) -> None:
        if os.fstat(fd).st_size == len(BIG):
            (at(place) / "big").write_bytes(now)
        lease(fd)

    intake = take(place)
    intake.scan()
    monkeypatch.setattr(module.lease, "take", write_first)
    with pytest.raises(ConflictError, match=r"changed while being committed: 'big'"):
        intake.seal(["big"])
    intake.restore()
    assert now == (place / "big").read_bytes()


@pytest.mark.parametrize("steps", range(5))
def test_restore_at_any_point(place: Path, steps: int) -> None:
    """Modes, names and bytes are as before; no pack is left."""
    (place / "big").chmod(0o664)
    intake = take(place)
    todo: list[Callable[[], object]] = [
        intake.scan,
        lambda: intake.seal(["big"]),
        lambda: intake.announce({"big": PACK}),
        lambda: intake.adopt("big", PACK),
    ]
    for step in todo[:steps]:
        step()
    intake.restore()
    found = (place / "big").stat()
    assert (0o664, 1) == (stat.S_IMODE(found.st_mode), found.st_nlink)
    assert not pack_of(place).exists()
    with (place / "big").open("ab") as file:
        file.write(b"!")


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's file needs root")
def test_a_user_cannot_take_his_file_back(place: Path) -> None:
    """Root's daemon takes the pack over; a failed commit gives the draft back."""
    os.chown(place / "big", NOBODY, NOBODY)
    intake = adopted(place)
    assert 0 == pack_of(place).stat().st_uid
    intake.restore()
    assert (NOBODY, NOBODY) == ((place / "big").stat().st_uid, (place / "big").stat().st_gid)


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming nobody needs root")
def test_an_unprivileged_daemon_copies_what_is_not_its_own(place: Path) -> None:
    """The kernel gives leases of other users' files to nobody without CAP_LEASE."""
    for path in (*place.parents[:4], place, place / "d"):
        os.chown(path, NOBODY, NOBODY)
    for path in place.parents:
        if path.stat().st_uid == 0 and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o755)
    (place / "big").chmod(0o644)

    def work() -> None:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        intake = take(place)
        intake.scan()
        intake.seal(["big"])
        intake.announce({"big": PACK})
        assert not intake.adopt("big", PACK)
        assert b"small" == intake.read("d/small")
        intake.verify()
        assert BIG == pack_of(place).read_bytes()
        intake.restore()
        assert not pack_of(place).exists()

    in_child(work)


def test_a_directory_swapped_for_a_symlink_leads_nowhere(place: Path, tmp_path: Path) -> None:
    """Between scan and seal somebody points `d` at another directory."""
    write_files(tmp_path / "secret", {"small": b"secret"})
    intake = open_intake(place, consume=False)
    intake.scan()
    (place / "d").rename(place / "old")
    (place / "d").symlink_to(tmp_path / "secret")
    with pytest.raises(ConflictError, match="changed"):
        intake.seal(["big"])
    with pytest.raises(ConflictError, match="changed"):
        intake.read("d/small")
    intake.restore()


def test_a_file_exchanged_after_the_scan_is_noticed(place: Path) -> None:
    """Another inode, another size, or another type."""
    intake = open_intake(place, consume=False)
    intake.scan()
    (place / "big").unlink()
    os.mkfifo(place / "big")
    with pytest.raises(ConflictError, match="'big' changed"):
        intake.seal(["big"])
    intake.restore()


LONG = "d" * 50


@pytest.fixture
def deepen(place: Path) -> Iterator[Callable[[Path, int], str]]:
    """Make directories in one another, and a file in the last; return its path.

    There are more of them than Python recurses, for that is allowed less than usual.
    """
    limit = sys.getrecursionlimit()

    def make(directory: Path, levels: int) -> str:
        fd = os.open(directory, os.O_RDONLY)
        for _ in range(levels):
            os.mkdir(LONG, dir_fd=fd)
            below = os.open(LONG, os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = below
        file = os.open("deep", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=fd)
        os.write(file, BIG)
        os.close(file)
        os.close(fd)
        sys.setrecursionlimit(len(inspect.stack(0)) + 70)
        return f"{LONG}/" * levels + "deep"

    yield make
    sys.setrecursionlimit(limit)
    subprocess.run(["rm", "-rf", str(place.parent)], check=True)  # pytest could not


@pytest.mark.parametrize("end", ["release", "undo", "finish"])
def test_a_tree_deeper_than_python_recurses(
    place: Path, deepen: Callable[[Path, int], str], expected_warnings, end: str
) -> None:
    """And deeper than a path below the store can say: only names below it count."""
    expected_warnings.expect("which a crash interrupted")
    draft = place.parent / "deep"
    draft.mkdir()
    deep = deepen(draft, 80)
    intake = take(draft)
    assert {"file": 1, "directory": 80} == Counter(entry.kind for entry in intake.scan())
    intake.seal([deep])
    intake.announce({deep: PACK})
    assert intake.adopt(deep, PACK)
    intake.verify()
    if end == "release":
        intake.release()
    else:
        intake.abandon()
        open_intake(draft).recover(lambda layout, since: end == "finish")
    assert (end == "undo") == draft.exists()
    assert (end != "undo") == pack_of(place).exists()
    assert [] == os.listdir(store_of(place) / "intake")
    if end == "undo":
        again = take(draft)
        again.scan()
        found = again._tree.found[deep]
        assert (1, 0o100600) == (found.st_nlink, found.st_mode)
        again.release()


def test_a_tree_too_deep_for_a_path(place: Path, deepen: Callable[[Path, int], str]) -> None:
    """Says which limit that is."""
    deepen(place / "d", 81)
    intake = take(place)
    with pytest.raises(InvalidError, match="is longer than 4095 bytes: remove or replace"):
        intake.scan()
    intake.restore()


def test_many_problems_are_counted(place: Path) -> None:
    """A message lists some, and says how many more there are."""
    for number in range(50):
        os.mkfifo(place / f"fifo{number:02}")
    intake = take(place)
    with pytest.raises(InvalidError, match=r"fifo19.*and 30 more"):
        intake.scan()
    intake.restore()


def test_more_files_than_descriptors(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Says which limit to raise."""
    monkeypatch.setattr(module, "_SPARE_DESCRIPTORS", 1 << 40)
    intake = take(place)
    intake.scan()
    with pytest.raises(InvalidError, match="ulimit"):
        intake.seal(["big"])
    intake.restore()


def test_two_packs_never_get_one_name(place: Path) -> None:
    """An id that is taken is an error, and restore does not remove the other's pack."""
    pack_of(place).parent.mkdir(parents=True)
    pack_of(place).write_bytes(b"other")
    intake = take(place)
    intake.scan()
    intake.seal(["big"])
    intake.announce({"big": PACK})
    with pytest.raises(ExistsError):
        intake.adopt("big", PACK)
    intake.restore()
    assert b"other" == pack_of(place).read_bytes()


def test_recovery_leaves_the_living_alone(place: Path) -> None:
    """Only what no process holds is undone."""
    intake = adopted(place)
    open_intake(place).recover(lambda layout, since: False)
    assert pack_of(place).exists()
    intake.restore()


def test_recovery_removes_what_has_lost_its_lock(place: Path) -> None:
    """After a power cut a copy may be there that was flushed, and the lock not, which never is."""
    adopted(place).restore()
    work = store_of(place) / "intake"
    (work / "0123").mkdir(0o700)
    (work / "0123/copy-0").write_bytes(b"bytes")
    (work / "4567").mkdir(0o700)

    open_intake(place).recover(lambda layout, since: False)

    assert [] == os.listdir(work)


def test_recovery_believes_the_first_intent_where_the_second_is_not_whole(
    place: Path, expected_warnings
) -> None:
    """A power cut while it is written: nothing that it announces has begun."""
    expected_warnings.expect("undoing")
    intake = take(place)
    intake.scan()
    intake.abandon()
    (first,) = (store_of(place) / "intake").glob("*/intent.json")
    first.with_name("intent-2.json").write_bytes(first.read_bytes()[:50])

    open_intake(place).recover(lambda layout, since: False)

    assert ["big", "d"] == sorted(os.listdir(place))
    assert [] == os.listdir(store_of(place) / "intake")


def test_recovery_where_nothing_of_the_draft_is_on_the_disk(place: Path, expected_warnings) -> None:
    """A power cut may leave the intent alone, which was flushed; the draft never was."""
    expected_warnings.expect("undoing")
    adopted(place).abandon()
    (work,) = (store_of(place) / "intake").iterdir()
    shutil.rmtree(work / "tree")
    place.rename(work / "tree")
    place.parent.rmdir()

    open_intake(place).recover(lambda layout, since: False)

    assert not pack_of(place).exists()
    assert [] == os.listdir(store_of(place) / "intake")


def test_recovery_when_nobody_knows(place: Path, expected_warnings) -> None:
    """An intent is kept until it can be told whether the log has it."""
    expected_warnings.expect("cannot undo|finishing")
    adopted(place).abandon()

    def unknown(layout: str, since: int) -> bool:
        assert ("layout", 7) == (layout, since)
        raise ConflictError("?")

    open_intake(place).recover(unknown)
    assert pack_of(place).exists()
    assert [] == os.listdir(place)
    open_intake(place).recover(lambda layout, since: True)
    assert not place.exists()
    assert 1 == pack_of(place).stat().st_nlink
    assert [] == os.listdir(store_of(place) / "intake")


def test_a_draft_that_its_user_locked_is_removed(place: Path) -> None:
    """Modes of directories do not keep a draft from disappearing."""
    (place / "d").chmod(0o500)
    place.chmod(0o500)
    intake = take(place)
    intake.scan()
    intake.seal([])
    intake.release()
    assert not place.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.parametrize(("above", "why"), [(0, "is another mount"), (-1, "resource busy")])
def test_a_staging_area_on_another_mount_is_said_to_be(place: Path, above: int, why: str) -> None:
    """rename(2) refuses to cross mounts, also when it is the same file system."""
    where = place.parents[2] if above == 0 else place
    command = ["mount", "--bind", str(where), str(where)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        intake = open_intake(place)
        with pytest.raises(HostError, match=why):
            intake.take("layout", 7)
        intake.restore()
        assert BIG == (place / "big").read_bytes()
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True)
