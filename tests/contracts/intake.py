"""What every `ports.Intake` promises: subclass it, and say where a source is, how it is opened."""

import os
import stat
from contextlib import closing
from pathlib import Path

import pytest

from mregfs.errors import ConflictError, InvalidError, NotFoundError
from mregfs.ports.intake import Intake, IntakeEntry
from mregfs.ports.packs import PackStore
from tests.contracts.sleeping_store import SleepingPacks

PACK = "ab" * 16
BIG = b"b" * 300_000
FILES = {"big": BIG, "d/small": b"small"}


class IntakeContract:
    """One test a promise; with packs that are files of this host, and with packs far away."""

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        """Return a directory with `FILES`, which is to become a version."""
        raise NotImplementedError

    def local_packs(self, source: Path) -> PackStore:
        """Return packs beside the source."""
        raise NotImplementedError

    def open(self, source: Path, packs: PackStore) -> Intake:
        """Return the intake of a source."""
        raise NotImplementedError

    def inside(self, source: Path) -> Path:
        """Return where the files are while the source is taken."""
        raise NotImplementedError

    is_consumed = True
    """Whether the source is gone at the end."""

    @pytest.fixture(params=["here", "far away"])
    def packs(self, request, source: Path) -> PackStore:
        return self.local_packs(source) if request.param == "here" else SleepingPacks(0)

    @pytest.fixture
    def intake(self, source: Path, packs: PackStore) -> Intake:
        return self.open(source, packs)

    def as_before(self, source: Path, packs: PackStore) -> None:
        """Check that nothing has happened."""
        found = {
            str(path.relative_to(source)): path.read_bytes()
            for path in source.rglob("*")
            if path.is_file()
        }
        assert FILES == found
        assert 0o664 == stat.S_IMODE((source / "big").stat().st_mode)
        assert 1 == (source / "big").stat().st_nlink
        assert [] == list(packs.list())
        with (source / "big").open("ab") as file:
            file.write(b"!")

    # ---- looking

    def test_all_that_is_there_is_listed(self, source, intake):
        (source / "d/empty").mkdir()
        (source / "run").write_bytes(b"#!")
        (source / "run").chmod(0o755)
        (source / "link").symlink_to("d/small")
        with (source / "holes").open("wb") as file:
            file.truncate(1 << 20)
        intake.take("layout", 7)

        found = {entry.path: entry for entry in intake.scan()}
        intake.restore()

        assert IntakeEntry("d/small", "file", 5) == found["d/small"]
        assert IntakeEntry("run", "file", 2, executable=True) == found["run"]
        assert IntakeEntry("link", "symlink", target="d/small") == found["link"]
        assert ("directory", "directory") == (found["d"].kind, found["d/empty"].kind)
        assert (1 << 20, True) == (found["holes"].size, found["holes"].sparse)
        assert {"big", "d", "d/small", "d/empty", "run", "link", "holes"} == set(found)

    def test_what_cannot_be_in_a_version_is_refused_by_name(self, source, intake):
        os.mkfifo(source / "d/pipe")
        (source / "absolute").symlink_to("/etc/passwd")
        (source / "escaping").symlink_to("../../secret")
        intake.take("layout", 7)

        with pytest.raises(InvalidError) as caught:
            intake.scan()
        intake.restore()

        for name in ("pipe", "absolute", "escaping"):
            assert name in str(caught.value)

    def test_what_is_missing_is_not_found(self, source, packs):
        intake = self.open(source.parent / "missing", packs)
        with pytest.raises(NotFoundError):
            intake.take("layout", 7)
            intake.scan()
        intake.restore()

    # ---- reading

    def test_sealed_files_are_read_in_any_part(self, intake):
        intake.take("layout", 7)
        intake.scan()
        intake.seal(["big"], lambda count: None)

        buffer = bytearray(300)
        intake.read_into("big", 1000, memoryview(buffer))
        assert BIG[:300] == bytes(buffer)
        assert BIG == intake.read_at("big", 0, 1 << 20)
        assert b"bb" == intake.read_at("big", len(BIG) - 2, 10)
        assert (0, len(BIG)) == intake.data_run("big", 0)
        assert b"small" == intake.read("d/small")
        with pytest.raises(ConflictError, match="big"):
            intake.read_into("big", len(BIG) - 10, memoryview(buffer))
        intake.restore()

    @pytest.mark.parametrize("name", ["big", "d/small"])
    def test_what_is_open_for_writing_is_busy(self, source, packs, intake, name):
        (source / "big").chmod(0o664)
        intake.take("layout", 7)
        intake.scan()
        with (
            (self.inside(source) / name).open("r+b"),
            pytest.raises(ConflictError, match=name),
        ):
            intake.seal(["big"], lambda count: None)
        intake.restore()
        self.as_before(source, packs)

    def test_what_changed_since_the_scan_is_refused(self, source, intake):
        intake.take("layout", 7)
        intake.scan()
        (self.inside(source) / "big").write_bytes(BIG + b"longer")
        (self.inside(source) / "d/small").write_bytes(b"large")

        with pytest.raises(ConflictError, match="big"):
            intake.seal(["big"], lambda count: None)
        with pytest.raises(ConflictError, match="small"):
            intake.read("d/small")
        intake.restore()

    # ---- becoming a version

    def adopted(self, intake: Intake) -> None:
        intake.take("layout", 7)
        intake.scan()
        intake.seal(["big"], lambda count: None)
        intake.announce({"big": PACK})
        intake.adopt("big", PACK)

    def test_the_pack_has_the_bytes_of_the_file(self, source, packs, intake):
        self.adopted(intake)
        packs.sync([PACK])
        intake.verify()
        intake.release()

        with closing(packs.open(PACK)) as pack:
            assert BIG == pack.read(0, 1 << 20)
        assert source.exists() is not self.is_consumed

    def test_the_pack_never_changes_with_the_file(self, source, packs, intake):
        self.adopted(intake)
        intake.verify()
        intake.release()
        if not self.is_consumed:
            (source / "big").write_bytes(b"changed")
            (source / "big").unlink()

        with closing(packs.open(PACK)) as pack:
            assert BIG == pack.read(0, 1 << 20)

    @pytest.mark.parametrize("steps", range(7))
    def test_whatever_was_done_is_undone(self, source, packs, intake, steps):
        (source / "big").chmod(0o664)
        todo = [
            lambda: intake.take("layout", 7),
            intake.scan,
            lambda: intake.seal(["big"], lambda count: None),
            lambda: intake.announce({"big": PACK}),
            lambda: intake.adopt("big", PACK),
            intake.verify,
        ]
        for step in todo[:steps]:
            step()

        intake.restore()

        self.as_before(source, packs)

    def test_the_pack_of_another_one_is_not_taken_back(self, source, packs, intake):
        packs.create(PACK, [b"another's"])
        with pytest.raises(Exception, match=PACK):
            self.adopted(intake)

        intake.restore()

        with closing(packs.open(PACK)) as pack:
            assert b"another's" == pack.read(0, 100)
        assert (source / "big").exists()

    # ---- after a crash

    @pytest.mark.parametrize("done", [False, True])
    def test_what_is_abandoned_is_finished_or_undone_later(self, source, packs, intake, done):
        """What nothing is taken of is as it was already."""
        (source / "big").chmod(0o664)
        asked = []

        def committed(layout: str, since: int) -> bool:
            asked.append((layout, since))
            return done

        self.adopted(intake)
        intake.abandon()

        self.open(source, packs).recover(committed)

        assert ([("layout", 7)] if self.is_consumed else []) == asked
        if not self.is_consumed:
            packs.delete(PACK)
            self.as_before(source, packs)
        elif done:
            assert not source.exists()
            assert [PACK] == list(packs.list())
        else:
            self.as_before(source, packs)
