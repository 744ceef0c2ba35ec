"""Which store, mount and project a command line means, and what its paths mean."""

import errno
import os
from pathlib import Path

import pytest

from mregfs.cli.place import Place, find_place
from mregfs.errors import InvalidError, NotFoundError, UnavailableError
from mregfs.host import mounts as mounts_module
from mregfs.host.mounts import Mount, read_mounts
from mregfs.model.names import ProjectName

OWN = os.geteuid()
MODELS = Mount("/models", "/srv/store", owner=OWN)
OTHER = Mount("/other", "/srv/other", owner=OWN)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def place(
    *mounts: Mount,
    store: str | None = None,
    mount: str | None = None,
    project: str | None = None,
    **environment: str,
) -> Place:
    return find_place(
        store=store, mount=mount, project=project, environment=environment, mounts=mounts
    )


def standing(directory: str, *mounts: Mount, project: str = "default/default") -> Place:
    """A place for the questions about paths: nothing here is really mounted."""
    entity, name = project.split("/")
    return Place(
        store=mounts[0].store,
        mounts=mounts,
        working_directory=directory,
        _project=ProjectName(entity, name),
        _projects={mount.point: ProjectName("default", "default") for mount in mounts},
    )


class TestStore:
    def test_option_beats_everything(self) -> None:
        found = place(MODELS, store="/x", MREGFS_STORE="/y")

        assert "/x" == found.store

    def test_environment_beats_mounts(self) -> None:
        assert "/y" == place(MODELS, MREGFS_STORE="/y").store

    def test_the_mount_one_stands_in_beats_the_default(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "getcwd", lambda: "/other/artifacts")

        assert "/srv/other" == place(MODELS, OTHER).store

    def test_the_only_mount(self) -> None:
        assert "/srv/store" == place(MODELS).store

    def test_two_mounts_of_one_store_are_one_store(self) -> None:
        assert "/srv/store" == place(MODELS, Mount("/again", "/srv/store", owner=OWN)).store

    def test_the_default_when_there_are_several(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from mregfs import config

        monkeypatch.setattr(config, "default_store", lambda: tmp_path / "default")
        with pytest.raises(InvalidError, match="/srv/other, /srv/store: name one with --store"):
            place(MODELS, OTHER)

        (tmp_path / "default").mkdir()

        assert str(tmp_path / "default") == place(MODELS, OTHER).store

    def test_relative_stores_are_made_absolute(self, tmp_path: Path) -> None:
        assert str(tmp_path / "registry") == place(store="registry").store


class TestMount:
    def test_option_gives_the_store_too(self) -> None:
        found = place(MODELS, OTHER, mount="/other", MREGFS_STORE="/srv/store")

        assert ("/srv/other", "/other") == (found.store, found.mounts[0].point)

    def test_environment_gives_the_store_too(self) -> None:
        assert "/srv/other" == place(MODELS, OTHER, MREGFS_MOUNT="/other/").store

    def test_unknown_mount_is_an_error(self) -> None:
        with pytest.raises(NotFoundError, match="mregfs mount"):
            place(MODELS, mount="/nowhere")

    def test_unknown_mount_in_the_environment_does_not_matter_when_the_store_is_named(self) -> None:
        assert "/srv/store" == place(OTHER, store="/srv/store", MREGFS_MOUNT="/models").store

    def test_mount_and_store_must_agree(self) -> None:
        with pytest.raises(InvalidError, match="leave the other out"):
            place(MODELS, mount="/models", store="/srv/other")
        with pytest.raises(InvalidError):
            place(MODELS, MREGFS_MOUNT="/models", MREGFS_STORE="/srv/other")

    def test_a_store_named_by_option_beats_a_mount_of_the_environment(self) -> None:
        found = place(MODELS, OTHER, store="/srv/other", MREGFS_MOUNT="/models")

        assert ["/other"] == [mount.point for mount in found.mounts]

    def test_the_mount_one_stands_in_comes_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        again = Mount("/again", "/srv/store", owner=OWN)
        monkeypatch.setattr(os, "getcwd", lambda: "/again/staging")

        assert [again, MODELS] == list(place(MODELS, again).mounts)

    def test_writable_mount_is_neither_read_only_nor_a_part(self) -> None:
        part = Mount("/part", "/srv/store", top="/artifacts", owner=OWN)
        shut = Mount("/shut", "/srv/store", read_only=True, owner=OWN)

        assert place(part, shut).writable_mount() is None
        assert MODELS == place(part, shut, MODELS).writable_mount()


class TestProject:
    def test_option_then_environment(self) -> None:
        assert ProjectName("e", "p") == place(project="e/p", MREGFS_PROJECT="x/y").project
        assert ProjectName("x", "y") == place(MREGFS_PROJECT="x/y").project

    def test_default_without_a_mount(self) -> None:
        assert ProjectName("default", "default") == place(store="/srv/store").project

    def test_the_mounts_own(self, tmp_path: Path) -> None:
        point = tmp_path / "mount"
        (point / ".mregfs").mkdir(parents=True)
        (point / ".mregfs" / "status").write_text('{"project": "acme/vision"}')

        assert (
            ProjectName("acme", "vision")
            == place(Mount(str(point), "/srv/store", owner=OWN)).project
        )


class TestPaths:
    @pytest.mark.parametrize(
        ("directory", "text", "expected"),
        [
            ("/", "mnist:v3", "mnist:v3"),
            ("/", "artifacts/mnist/v3", "artifacts/mnist/v3"),
            ("/", "artifacts/mnist/", "artifacts/mnist"),
            ("/", "/models/artifacts/mnist/v3", "artifacts/mnist/v3"),
            ("/", "/models/artifacts/../collections/c", "collections/c"),
            ("/models", "mnist", "mnist"),
            ("/models", "staging", "staging"),
            ("/models/artifacts/mnist", "v3", "artifacts/mnist/v3"),
            ("/models/artifacts/mnist", "other:v3", "other:v3"),
            ("/models/artifacts/mnist", "other@{1}", "other@{1}"),
            ("/models/collections/c", "production", "collections/c/production"),
            ("/models/collections/c", "../../artifacts/mnist/v3", "artifacts/mnist/v3"),
            ("/models/collections/c", ".", "collections/c"),
            ("/models/collections", "mnist", "mnist"),
            ("/models/projects/e/p/artifacts/m", "v1", "projects/e/p/artifacts/m/v1"),
            ("/models/staging", "./run-17", "staging/run-17"),
        ],
    )
    def test_what_a_word_means(self, directory: str, text: str, expected: str) -> None:
        assert expected == standing(directory, MODELS).locate(text)

    def test_a_path_outside_any_mount_is_refused(self) -> None:
        with pytest.raises(InvalidError, match="not below a mount"):
            standing("/", MODELS).locate("/etc/passwd")

    def test_the_mount_itself_names_nothing(self) -> None:
        with pytest.raises(InvalidError, match="the mount itself"):
            standing("/", MODELS).locate("/models")

    def test_a_path_keeps_the_project_of_its_mount(self) -> None:
        other = standing("/", MODELS, project="acme/vision")

        assert "projects/default/default/artifacts/m/v1" == other.locate("/models/artifacts/m/v1")

    def test_a_part_mounted_elsewhere_is_known(self) -> None:
        part = Mount("/part", "/srv/store", top="/artifacts/mnist")

        assert "artifacts/mnist/v3" == standing("/", part).locate("/part/v3")

    def test_symlinks_on_the_way_are_followed_but_not_the_last(self, tmp_path: Path) -> None:
        real = tmp_path / "real"
        real.mkdir()
        (tmp_path / "way").symlink_to(real)
        (real / "production").symlink_to("v3")
        mount = Mount(str(real), "/srv/store", top="/artifacts/mnist")

        located = standing("/", mount).locate(str(tmp_path / "way" / "production"))

        assert "artifacts/mnist/production" == located


def test_mount_table_is_read_as_the_kernel_writes_it(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        "40 22 0:50 / /my\\040models rw shared:9 - fuse.mregfs /srv/a\\134b%20c rw,user_id=0\n"
        "41 22 0:51 / /shut ro,nosuid - fuse.mregfs /srv/store rw\n"
        "42 22 0:51 /artifacts/m /part rw - fuse.mregfs /srv/store ro,user_id=1000\n"
        "43 22 0:52 / /shut rw - fuse.mregfs /srv/newer rw\n"
        "44 22 0:53 / /x rw - fuse.sshfs fuse.mregfs rw\n"
    )

    assert [
        Mount("/my models", "/srv/a\\b c", owner=0),
        Mount("/part", "/srv/store", read_only=True, top="/artifacts/m", owner=1000),
        Mount("/shut", "/srv/newer"),
    ] == read_mounts(str(table))


@pytest.mark.parametrize("name", ["a\u00a0b", "a\u3000b", "a\vb", "a\rb", "a\u2028b", "a#b"])
def test_only_a_blank_and_a_newline_part_the_mount_table(tmp_path: Path, name: str) -> None:
    """What else is blank to Unicode is part of a path."""
    table = tmp_path / "mountinfo"
    line = f"40 22 0:50 / /{name} rw - fuse.mregfs /srv/a\\043b rw\n"
    table.write_bytes(line.encode() + b"41 22 0:51 / /\xff\\011 rw - fuse.mregfs  rw\n")

    assert [Mount(f"/{name}", "/srv/a#b"), Mount("/\udcff\t", "")] == read_mounts(str(table))


def test_a_mount_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mregfs.errors import UnavailableError

    monkeypatch.setattr(mounts_module, "STATUS_TIMEOUT", 0.05)
    (tmp_path / ".mregfs").mkdir()
    os.mkfifo(tmp_path / ".mregfs" / "status")

    with pytest.raises(UnavailableError, match="does not answer"):
        mounts_module.read_status(Mount(str(tmp_path), "/srv/store"))


@pytest.mark.parametrize("code", [errno.ENOTCONN, errno.ECONNABORTED])
def test_no_path_is_given_below_a_dead_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    mount = Mount(str(tmp_path), "/store")
    mounts_module.check_alive(mount)

    def fail(path: str) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "statvfs", fail)
    with pytest.raises(UnavailableError, match="is dead") as caught:
        mounts_module.check_alive(mount)
    assert "mount it again" in str(caught.value)


def test_a_mount_of_somebody_else_is_closed_not_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mregfs.cli import store as host

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    mount = Mount(str(tmp_path), "/srv/store")
    assert {"mount": str(tmp_path), "state": "dead"} == host._mount_status(mount)

    monkeypatch.setattr(os, "stat", refuse)

    assert {"mount": str(tmp_path), "state": "closed to this user"} == host._mount_status(mount)
