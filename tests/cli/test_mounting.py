"""What `mregfs mount` takes, and what it makes of a daemon that ends."""

import os
from pathlib import Path

import pytest

from mregfs import errors
from mregfs.cli import mounting
from mregfs.cli.mounting import parse_options
from mregfs.errors import InvalidError
from tests.cli.conftest import CommandLine


class TestOptions:
    def test_those_of_fstab_are_left_aside(self) -> None:
        given = parse_options(
            ("defaults,rw,_netdev,nofail,noauto,user,exec,suid,x-systemd.automount,comment=x", "")
        )

        assert parse_options(()) == given

    def test_ours_are_taken(self) -> None:
        given = parse_options(("ro,allow_other", "nopassthrough,project=team/vision"))

        assert (True, True, False, "team/vision") == (
            given.read_only,
            given.allow_other,
            given.passthrough,
            given.project,
        )

    @pytest.mark.parametrize("option", ["frobnicate", "project", "rox", "RO", "max_read=1"])
    def test_anything_else_is_named(self, option: str) -> None:
        with pytest.raises(InvalidError, match=option):
            parse_options((f"ro,{option}",))


class TestEnvironment:
    """What the daemon would stumble over is refused before anything is begun."""

    @pytest.mark.parametrize("said", ["foo", "10", "NOTSET"])
    def test_a_level_that_logging_does_not_know(
        self, cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
    ) -> None:
        monkeypatch.setenv("MREGFS_LOG", said)

        code, line = cli.fail("mount", tmp_path)

        assert (5, True) == (code, f"MREGFS_LOG={said!r} is not a level: write one of" in line)

    def test_levels(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MREGFS_LOG", "debug")
        assert "DEBUG" == mounting._log_level()
        monkeypatch.setenv("MREGFS_LOG", "")
        assert "INFO" == mounting._log_level()

    @pytest.mark.parametrize("said", ["77", "x", "-1", "9" * 30, "0"])
    def test_a_descriptor_that_cannot_be_written(
        self, cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
    ) -> None:
        monkeypatch.setenv("MREGFS_READY_FD", said)
        standard = os.dup(0)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        try:
            code, line = cli.fail("mount", "--foreground", tmp_path)
        finally:
            os.dup2(standard, 0)
            os.close(standard)
            os.close(null)

        assert (5, True) == (code, "not a descriptor that is open for writing" in line)


class TestDaemonsEnd:
    @pytest.mark.parametrize(
        "kind",
        [getattr(errors, name) for name in errors.__all__ if name != "MregfsError"],
    )
    def test_the_exit_code_names_the_error(self, kind: type[errors.MregfsError]) -> None:
        error = mounting._error_of(kind.exit_code, "what: what to do")

        assert (kind, "what: what to do") == (type(error), str(error))

    def test_a_signal_is_the_hosts_doing(self) -> None:
        assert 14 == mounting._error_of(-9, "see the log").exit_code

    def test_the_last_complaint_of_this_start_counts(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        before = "mregfs: of an earlier start\n"
        log.write_text(before + "INFO starting\nmregfs: it: do that\nINFO ended\n")

        assert "it: do that" == mounting._complaint(log, len(before))
        assert "" == mounting._complaint(log, len(log.read_bytes()))

    def test_its_first_line_comes_through_the_pipe(self) -> None:
        reading, writing = os.pipe()
        os.write(writing, b"ready\n")
        assert "ready" == mounting._first_line(reading, None)
        os.close(writing)
        assert "" == mounting._first_line(reading, None)
        os.close(reading)

    def test_one_that_says_nothing_is_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(mounting, "READY_TIMEOUT", 0.05)
        monkeypatch.setattr(mounting, "TICK", 0.02)
        reading, writing = os.pipe()
        said: list[str] = []
        try:
            with pytest.raises(errors.UnavailableError, match="not ready"):
                mounting._first_line(reading, lambda what, _done, _total: said.append(what))
        finally:
            os.close(reading)
            os.close(writing)

        assert {"mounting"} == set(said)


def test_each_mount_point_has_a_log_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert Path("/var/log/mregfs/models-a.log") == mounting._log_path("/models/a")
    assert Path("/var/log/mregfs/root.log") == mounting._log_path("/")

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", "/home/me/state")
    assert Path("/home/me/state/mregfs/models.log") == mounting._log_path("/models")


def test_no_two_mount_points_share_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """`/` becomes `-`: a path that has a `-` itself, or is too long, is told apart."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    long = "/".join(["", *("x" * 100,) * 5])
    places = ["/a/b/c", "/a/b-c", "/a-b/c", "/a-b-c", long, long + "x", "/\u00e9" * 200]

    names = [mounting._log_path(place).name for place in places]

    assert "a-b-c.log" == names[0]
    assert len(places) == len(set(names))
    assert all(len(os.fsencode(name)) <= 255 for name in names)
    assert names == [mounting._log_path(place).name for place in places]


@pytest.mark.parametrize(
    ("log", "why"),
    [
        (".", "Is a directory"),
        ("x" * 300, "File name too long"),
        ("/proc/none/log", "No such file or directory"),
    ],
)
def test_a_log_that_cannot_be_made_is_named_as_what_it_is(log: str, why: str) -> None:
    with pytest.raises(errors.HostError) as caught:
        mounting._start([], Path(log).absolute())

    assert str(caught.value).startswith(f"the daemon's log '{Path(log).absolute()}' cannot be")
    assert str(caught.value).endswith(f"({why}): name another file with --log-file")
