"""A directory held by descriptor: nothing outside of it is reached, nothing foreign is believed."""

import errno
import os
import stat
from pathlib import Path

import pytest

from mregfs.host import beneath
from mregfs.host.beneath import Beneath


@pytest.fixture(params=["openat2", "walking"])
def held(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if request.param == "walking":
        monkeypatch.setattr(beneath, "_native", None)
    (tmp_path / "top/a/b").mkdir(parents=True)
    (tmp_path / "top/a/b/file").write_bytes(b"inside")
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/file").write_bytes(b"outside")
    with Beneath.at(tmp_path / "top") as found:
        yield found


def read(held: Beneath, name: str) -> bytes:
    descriptor = held.open(name)
    try:
        return os.read(descriptor, 100)
    finally:
        os.close(descriptor)


def test_files_below_are_opened(held):
    assert b"inside" == read(held, "a/b/file")


@pytest.mark.parametrize("name", ["../victim/file", "a/../../victim/file", "/etc/hostname", "a/.."])
def test_no_name_leads_out(held, name):
    with pytest.raises(OSError, match=r".") as caught:
        read(held, name)

    assert caught.value.errno in (errno.EXDEV, errno.EPERM, errno.EISDIR)


@pytest.mark.parametrize(("link", "name"), [("a/l", "a/l"), ("l", "l/file")])
def test_no_symlink_is_followed(held, tmp_path, link, name):
    os.symlink(tmp_path / ("victim/file" if link == name else "victim"), tmp_path / "top" / link)
    with pytest.raises(OSError, match=r".") as caught:
        read(held, name)

    assert caught.value.errno in (errno.ELOOP, errno.ENOTDIR)


def test_a_fifo_holds_up_nobody(held, tmp_path):
    os.mkfifo(tmp_path / "top/pipe")
    with pytest.raises(OSError, match="a FIFO, which mregfs never makes there"):
        held.open("pipe")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_what_is_anothers_is_refused(held, tmp_path):
    os.chown(tmp_path / "top/a/b/file", 4711, 4711)
    with pytest.raises(OSError, match="belongs to uid 4711"):
        held.open("a/b/file")
    os.chown(tmp_path / "top/a", 4711, 4711)
    with pytest.raises(OSError, match="belongs to uid 4711"):
        held.open_directory("a")


def test_what_others_may_write_is_refused(held, tmp_path):
    (tmp_path / "top/a/b/file").chmod(0o664)
    with pytest.raises(OSError, match="chmod go-w"):
        held.open("a/b/file")


def test_it_stays_the_same_directory_under_another_name(held, tmp_path):
    (tmp_path / "top").rename(tmp_path / "moved")
    (tmp_path / "top").mkdir()

    assert b"inside" == read(held, "a/b/file")


def test_names_are_made_moved_and_removed(held, tmp_path):
    held.ensure_directory("x/y/z")
    descriptor = held.open("x/y/z/new", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o444)
    os.write(descriptor, b"data")
    held.link_open(descriptor, "x/second")
    os.close(descriptor)
    held.rename("x/y/z/new", "x/first")
    held.rmdir("x/y/z")

    assert ["first", "second", "y"] == sorted(held.listdir("x"))
    assert 2 == held.stat("x/first").st_nlink
    assert 0 == stat.S_IMODE(held.stat("x").st_mode) & 0o022
    held.unlink("x/first")
    assert not held.exists("x/first")
