"""A symlink of another user leads to what is his, and to nothing else."""

import errno
import os
from pathlib import Path

import pytest

from mregfs.host.following import open_followed

ALICE, BOB = 64001, 64002


def read(path: Path | str) -> bytes:
    fd = open_followed(str(path), os.O_RDONLY)
    try:
        return os.read(fd, 100)
    finally:
        os.close(fd)


def symlink(path: Path, target: str | Path, uid: int) -> Path:
    path.symlink_to(target)
    os.chown(path, uid, uid, follow_symlinks=False)
    return path


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name, uid in (("ours", 0), ("hers", ALICE), ("his", BOB)):
        directory = tmp_path / name
        directory.mkdir()
        (directory / "file").write_text(name)
        for path in (directory, directory / "file"):
            os.chown(path, uid, uid)
    return tmp_path


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs several users")


def test_a_path_without_symlinks_is_opened(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place / "ours")

    for path in (place / "ours/file", "file", "./file", "../ours//file"):
        assert b"ours" == read(path)


def test_one_s_own_symlinks_are_followed(place: Path) -> None:
    (place / "link").symlink_to("ours")
    (place / "absolute").symlink_to(place / "link/file")

    assert b"ours" == read(place / "link/file")
    assert b"ours" == read(place / "absolute")


@needs_root
def test_anybody_s_symlink_leads_to_his_own(place: Path) -> None:
    assert b"hers" == read(symlink(place / "link", "hers/file", ALICE))
    assert b"hers" == read(symlink(place / "above", "hers", ALICE) / "file")


@needs_root
@pytest.mark.parametrize("target", ["ours/file", "his/file"])
def test_nobody_s_symlink_leads_to_what_is_another_s(place: Path, target: str) -> None:
    link = symlink(place / "link", target, ALICE)
    above = symlink(place / "above", Path(target).parent, ALICE)

    for path in (link, above / "file"):
        with pytest.raises(PermissionError, match=f"a symbolic link of uid {ALICE}"):
            read(path)


@needs_root
def test_two_users_together_lead_to_neither(place: Path) -> None:
    """Each alone could lead to the file of the second."""
    symlink(place / "second", "his/file", BOB)

    assert b"his" == read(place / "second")
    with pytest.raises(PermissionError):
        read(symlink(place / "first", "second", ALICE))


def test_what_is_open_is_opened_by_its_number(place: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"piped")

    assert b"piped" == read(f"/proc/self/fd/{reading}")
    assert b"ours" == read(f"/proc/self/cwd/{os.path.relpath(place / 'ours/file')}")
    os.close(reading)
    os.close(writing)


def test_a_file_is_no_directory(place: Path) -> None:
    for path in (f"{place}/ours/file/", f"{place}/ours/file/below"):
        with pytest.raises(NotADirectoryError):
            read(path)


def test_symlinks_in_a_circle_end(place: Path) -> None:
    (place / "circle").symlink_to("circle")

    with pytest.raises(OSError) as caught:
        read(place / "circle")

    assert errno.ELOOP == caught.value.errno
