"""Owners, groups, modes and refusals in `staging/`: what the host gives in a directory of its own.

Each operation is made twice by the same user, in a plain directory and in a draft on the same file
system; what is there afterwards, and what was answered, must be equal.
"""

import contextlib
import errno
import fcntl
import mmap
import os
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.attack.people import Person, RefusedError
from tests.mount.conftest import MakeMount, Mount

TEAM = 64210
PEOPLE = {"alice": (64201, (TEAM,)), "bob": (64202, ()), "root": (0, ())}

Look = dict[str, tuple[str, int, int, int | None]]


@pytest.fixture
def people() -> Iterator[dict[str, Person]]:
    made = {name: Person(name, uid, groups) for name, (uid, groups) in PEOPLE.items()}
    yield made
    for person in made.values():
        person.end()


@pytest.fixture
def mount(make_mount: MakeMount) -> Mount:
    made = make_mount(options=("--allow-other",))
    made.path.parent.chmod(0o755)
    made.init()
    made.start()
    return made


def look(top: str) -> Look:
    """Return type and mode, owner, group and size of all there is."""
    found: Look = {}
    for place, directories, files in os.walk(top):
        for name in (".", *directories, *files):
            seen = os.lstat(f"{place}/{name}")
            size = None if stat.S_ISDIR(seen.st_mode) else seen.st_size
            path = os.path.relpath(f"{place}/{name}", top)
            found[path] = (oct(seen.st_mode), seen.st_uid, seen.st_gid, size)
    return found


# ---- the operations; each gets the directory, and is made in a process of the user's


def _make_all(top: str, umask: int) -> None:
    before = os.umask(umask)
    try:
        for mode in (0o666, 0o777, 0o600, 0o4777, 0o2777, 0o1777, 0o2766):
            os.close(os.open(f"{top}/f{mode:o}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
            os.mkdir(f"{top}/d{mode:o}", mode)
            os.mkfifo(f"{top}/p{mode:o}", mode)
        os.mknod(f"{top}/whiteout", stat.S_IFCHR | 0o666, os.makedev(0, 0))
        os.symlink("nowhere", f"{top}/s")
        os.mkdir(f"{top}/d777/below")
        os.close(os.open(f"{top}/d777/below/f", os.O_CREAT | os.O_WRONLY, 0o666))
    finally:
        os.umask(before)


def make_all_under_0(top: str) -> None:
    _make_all(top, 0)


def make_all_under_022(top: str) -> None:
    _make_all(top, 0o022)


def make_all_under_027(top: str) -> None:
    _make_all(top, 0o027)


def make_all_under_077(top: str) -> None:
    _make_all(top, 0o077)


def make_a_device(top: str) -> None:
    os.mknod(f"{top}/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))


def _set_id(top: str, mode: int = 0o6777) -> str:
    path = f"{top}/program"
    with open(path, "wb") as file:
        file.write(b"x" * 10_000)
    os.chmod(path, mode)
    return path


def set_id_and_write(top: str) -> None:
    with open(_set_id(top), "r+b", 0) as file:
        file.write(b"y")


def set_id_and_write_without_group_execute(top: str) -> None:
    with open(_set_id(top, 0o6767), "r+b", 0) as file:
        file.write(b"y")


def set_id_and_open_for_append(top: str) -> None:
    with open(_set_id(top), "ab", 0) as file:
        file.write(b"y")


def set_id_and_truncate(top: str) -> None:
    os.truncate(_set_id(top), 5)


def set_id_and_truncate_open(top: str) -> None:
    with open(_set_id(top), "r+b", 0) as file:
        file.truncate(5)


def set_id_and_open_to_truncate(top: str) -> None:
    os.close(os.open(_set_id(top), os.O_WRONLY | os.O_TRUNC))


def set_id_and_fallocate(top: str) -> None:
    with open(_set_id(top), "r+b", 0) as file:
        os.posix_fallocate(file.fileno(), 0, 20_000)


def set_id_and_copy_range(top: str) -> None:
    with open(f"{top}/source", "w+b", 0) as source, open(_set_id(top), "r+b", 0) as file:
        source.write(b"z" * 5000)
        os.copy_file_range(source.fileno(), file.fileno(), 5000, 0, 0)


def set_id_and_map(top: str) -> None:
    with open(_set_id(top), "r+b", 0) as file, mmap.mmap(file.fileno(), 100) as mapped:
        mapped[0] = 1
        mapped.flush()


def set_id_and_chgrp(top: str) -> None:
    os.chown(_set_id(top), -1, os.getgid())


def set_id_and_chown_nothing(top: str) -> None:
    os.chown(_set_id(top), -1, -1)


def set_id_and_chgrp_to_a_group_of_his(top: str) -> None:
    os.chown(_set_id(top), -1, TEAM)


def set_id_and_link(top: str) -> None:
    os.link(_set_id(top), f"{top}/again")


def chmod_set_group_id(top: str) -> None:
    path = f"{top}/file"
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))
    os.chmod(path, 0o2755)
    os.mkdir(f"{top}/directory")
    os.chmod(f"{top}/directory", 0o3777)


def chown_away(top: str) -> None:
    os.close(os.open(f"{top}/file", os.O_CREAT | os.O_WRONLY, 0o644))
    os.chown(f"{top}/file", 64299, -1)


def chgrp_away(top: str) -> None:
    os.close(os.open(f"{top}/file", os.O_CREAT | os.O_WRONLY, 0o644))
    os.chown(f"{top}/file", -1, 64299)


def attributes_of_all_kinds(top: str) -> None:
    path = f"{top}/file"
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))
    os.setxattr(path, "user.a", b"1", os.XATTR_CREATE)
    os.setxattr(path, "user.a", b"2", os.XATTR_REPLACE)
    assert b"2" == os.getxattr(path, "user.a")
    os.removexattr(path, "user.a")
    os.removexattr(path, "user.a")


def attribute_of_a_link(top: str) -> None:
    os.symlink("nowhere", f"{top}/s")
    os.setxattr(f"{top}/s", "user.a", b"1", follow_symlinks=False)


def attribute_of_the_administrator(top: str) -> None:
    os.close(os.open(f"{top}/file", os.O_CREAT | os.O_WRONLY, 0o644))
    os.setxattr(f"{top}/file", "trusted.a", b"1")


def attribute_in_a_sticky_directory(top: str) -> None:
    os.setxattr(f"{top}/sticky", "user.a", b"1")


def remove_of_another(top: str) -> None:
    os.unlink(f"{top}/of-root")


def remove_of_another_in_a_sticky_directory(top: str) -> None:
    os.unlink(f"{top}/sticky/of-root")


def rename_of_another_in_a_sticky_directory(top: str) -> None:
    os.rename(f"{top}/sticky/of-root", f"{top}/sticky/new")


def rename_over_another_in_a_sticky_directory(top: str) -> None:
    os.close(os.open(f"{top}/sticky/mine", os.O_CREAT | os.O_WRONLY, 0o644))
    os.rename(f"{top}/sticky/mine", f"{top}/sticky/of-root")


def link_of_another(top: str) -> None:
    os.link(f"{top}/of-root", f"{top}/again")


def link_of_another_that_he_may_write(top: str) -> None:
    os.link(f"{top}/for-all", f"{top}/again")


def chmod_of_another(top: str) -> None:
    os.chmod(f"{top}/for-all", 0o600)


def times_of_another_to_now(top: str) -> None:
    os.utime(f"{top}/for-all")


def times_of_another(top: str) -> None:
    os.utime(f"{top}/for-all", (7, 7))


def times_of_what_he_may_not_write(top: str) -> None:
    os.utime(f"{top}/of-root")


def open_of_another_without_atime(top: str) -> None:
    os.close(os.open(f"{top}/for-all", os.O_RDONLY | os.O_NOATIME))


def append_to_another(top: str) -> None:
    with open(f"{top}/for-all", "ab", 0) as file:
        file.write(b"y")


def write_of_another_of_his_group(top: str) -> None:
    with open(f"{top}/of-team", "r+b", 0) as file:
        file.write(b"y")


def create_over_a_directory(top: str) -> None:
    os.close(os.open(f"{top}/sticky", os.O_CREAT | os.O_WRONLY, 0o644))


def create_in_what_is_closed(top: str) -> None:
    os.close(os.open(f"{top}/closed/file", os.O_CREAT | os.O_WRONLY, 0o644))


def create_in_a_directory_of_his_group(top: str) -> None:
    os.close(os.open(f"{top}/team/file", os.O_CREAT | os.O_WRONLY, 0o644))


def make_all_in_a_directory_of_a_group(top: str) -> None:
    """Its group is inherited; he is in it, or not."""
    _make_all(f"{top}/inherits", 0o022)


def chmod_what_has_another_group(top: str) -> None:
    os.close(os.open(f"{top}/inherits/file", os.O_CREAT | os.O_WRONLY, 0o644))
    os.chmod(f"{top}/inherits/file", 0o2755)
    os.mkdir(f"{top}/inherits/directory")
    os.chmod(f"{top}/inherits/directory", 0o755)


def lock(top: str) -> None:
    with open(f"{top}/for-all", "r+b", 0) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def ask_for_access(top: str) -> None:
    answers = [
        (name, os.access(f"{top}/{name}", mode))
        for name in ("of-root", "for-all", "of-team", "closed", "team", "sticky")
        for mode in (os.R_OK, os.W_OK, os.X_OK)
    ]
    os.symlink(repr(answers), f"{top}/answers")


OPERATIONS: list[Callable[[str], None]] = [
    made
    for name, made in list(globals().items())
    if callable(made)
    and getattr(made, "__module__", "") == __name__
    and name[0] != "_"
    and name not in ("people", "mount", "look")
]


def _furnish(top: Path) -> None:
    """Put root's things in a directory that all may write in."""
    top.mkdir()
    for name, mode, gid in (("of-root", 0o644, 0), ("for-all", 0o666, 0), ("of-team", 0o664, TEAM)):
        (top / name).write_bytes(b"x" * 100)
        os.chown(top / name, 0, gid)
        (top / name).chmod(mode)
    for name, mode, gid in (
        ("sticky", 0o1777, 0),
        ("closed", 0o700, 0),
        ("team", 0o770, TEAM),
        ("inherits", 0o2777, TEAM),
    ):
        (top / name).mkdir()
        os.chown(top / name, 0, gid)
        (top / name).chmod(mode)
    (top / "sticky/of-root").write_bytes(b"x")
    top.chmod(0o777)


def _outcome(person: Person, operation: Callable[[str], None], top: Path) -> tuple[str, Look]:
    _furnish(top)
    try:
        person.do(operation, str(top))
        answer = "ok"
    except RefusedError as refused:
        answer = errno.errorcode[refused.errno or 0]
    return answer, look(str(top))


@pytest.mark.slow
@pytest.mark.parametrize("who", PEOPLE)
def test_a_draft_is_a_directory_of_the_host(
    mount: Mount, people: dict[str, Person], tmp_path: Path, who: str
) -> None:
    native, drafts = tmp_path / "native", mount.path / "staging"
    native.mkdir(mode=0o755)
    native.chmod(0o755)
    different: dict[str, Any] = {}
    answers = set()
    for operation in OPERATIONS:
        name = operation.__name__
        expected = _outcome(people[who], operation, native / name)
        came = _outcome(people[who], operation, drafts / name)
        answers.add(expected[0])
        if expected != came:
            changed = {
                path: (expected[1].get(path), came[1].get(path))
                for path in {*expected[1], *came[1]}
                if expected[1].get(path) != came[1].get(path)
            }
            different[name] = (expected[0], came[0], changed)
    if who != "root":
        # Any write takes these bits, also one that the kernel makes of a mapping; ext4's do not.
        program = (("0o106777", "0o100777"), different.pop("set_id_and_map")[2]["program"])
        assert program[0] == tuple(look[0] for look in program[1])
    assert {} == different
    assert "ok" in answers
    assert len(OPERATIONS) > 40


# ---- access control lists that an administrator has given a directory of the host


def acl(group: int, others: int) -> bytes:
    """Return the bytes of an access control list that is a mode."""
    entries = ((0x01, 7), (0x04, group), (0x20, others))
    return struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, bits, 0xFFFFFFFF) for tag, bits in entries
    )


@pytest.mark.parametrize(("group", "others"), [(7, 7), (7, 0), (5, 5), (4, 4), (0, 0)])
def test_nobody_gets_more_than_a_default_list_gives(
    mount: Mount, people: dict[str, Person], tmp_path: Path, group: int, others: int
) -> None:
    """Lists are not known in the mount; what the host has of them holds all the same."""
    native, draft = tmp_path / "native", mount.path / "staging/draft"
    on_host = mount.store / "staging/default/default/draft"
    for top in (native, draft):
        top.mkdir()
        top.chmod(0o777)
    for top in (native, on_host):
        with contextlib.suppress(FileExistsError):
            os.setxattr(top, "system.posix_acl_default", acl(group, others))
    for umask in ("0", "022", "077"):
        for top in (native, draft):
            (top / umask).mkdir()
            (top / umask).chmod(0o777)
            people["alice"].do(globals()[f"make_all_under_{umask}"], f"{top}/{umask}")
    expected, came = look(str(native)), look(str(draft))
    assert sorted(expected) == sorted(came)
    more = {
        path: (mode, came[path][0])
        for path, (mode, *_) in expected.items()
        if int(came[path][0], 8) & ~int(mode, 8)
    }
    assert {} == more
