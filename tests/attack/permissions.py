"""Each operation of the permission matrix: what one user does, once, to one thing of a registry.

Decided here: the operations and their names in the manual. Not decided here: who makes them, in
which registry, and what must come of them (`tests/mount/attack/test_permissions.py`). Each function
is called in the process of the user.
"""

import json
import os
import shutil
from collections.abc import Callable
from typing import NamedTuple

from mregfs.cli.main import run

__all__ = ["OPERATIONS", "TEAM", "Operation", "Spot", "make_draft"]

TEAM = 64210
"""The writers' group; this host has no name for it."""

THIRD_USER = 64299


class Spot(NamedTuple):
    """Where an operation is made."""

    mount: str
    store: str
    prefix: str
    """Of the project, from the top of the mount; empty: the mount's own project."""
    project: str
    """As the `access` verb takes it; empty: the store."""
    drafts: str
    """What the `access` verb says of drafts now."""
    number: int
    """A new one for each time: for names that nobody has used."""

    @property
    def top(self) -> str:
        return f"{self.mount}/{self.prefix}".rstrip("/")

    @property
    def draft(self) -> str:
        return f"{self.top}/staging/d{self.number}"

    @property
    def artifact(self) -> str:
        return f"{self.top}/artifacts/m"


class Operation(NamedTuple):
    """One line of the matrix."""

    section: str
    name: str
    make: Callable[[Spot], str | None]
    """Returns what came of it, if that is not plain success; raises OSError."""
    draft: int | None = None
    """The mode of the draft that it needs."""
    before: str = ""
    """What root says to `control` first; `P` is the prefix, `N` the number."""


# ---- what is used


def make_draft(path: str, mode: int) -> None:
    """Make a draft with one of everything."""
    before = os.umask(0)
    try:
        os.mkdir(path, 0o755)
        for name, file_mode in (("open", 0o644), ("private", 0o600), ("shared", 0o664)):
            with open(os.open(f"{path}/{name}", os.O_CREAT | os.O_WRONLY, file_mode), "w") as file:
                file.write(f"{name} {path}\n")
        os.mkdir(f"{path}/below", 0o755)
        if mode & 0o020:
            os.chown(path, -1, TEAM)
            os.chown(f"{path}/shared", -1, TEAM)
        os.chmod(path, mode)
    finally:
        os.umask(before)


def _read(path: str) -> None:
    with open(path, "rb") as file:
        file.read(1 << 16)


def _write(path: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, b"written\n")
    finally:
        os.close(descriptor)


def _control(spot: Spot, line: str) -> None:
    descriptor = os.open(f"{spot.mount}/.mregfs/control", os.O_WRONLY)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


def _cli(spot: Spot, *words: str) -> str | None:
    """Run a verb, in a process that is this one's child: a user may have no way to this Python."""
    child = os.fork()
    if not child:
        code = 70
        try:
            for name in [name for name in os.environ if name.startswith("MREGFS_")]:
                del os.environ[name]
            os.environ["MREGFS_MOUNT"] = spot.mount
            os.chdir("/")
            devnull = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(devnull, stream)
            code = run(words)
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return f"exit {code}" if code else None


def _listed(path: str) -> None:
    os.listdir(path)


# ---- looking


def _follow(spot: Spot) -> None:
    descriptor = os.open(f"{spot.mount}/.mregfs/events", os.O_RDONLY | os.O_NONBLOCK)
    os.close(descriptor)


def _ask(spot: Spot, question: str) -> None:
    """Ask by a name; a refusal is an answer, which tells the errno."""
    with open(f"{spot.mount}/.mregfs/query/{question.replace('/', '%2F')}") as file:
        answer = json.load(file)
    if not answer["ok"]:
        raise OSError(answer["errno"], answer["message"])


def _set_attribute(path: str) -> None:
    os.setxattr(path, "user.note", b"1", follow_symlinks=False)


# ---- changes of the registry


def _move_alias(spot: Spot) -> None:
    temporary = f"{spot.artifact}/CuXXXXXX"
    os.symlink("v1", temporary)
    try:
        os.rename(temporary, f"{spot.artifact}/best")
    except OSError:
        os.unlink(temporary)
        raise


def _create(path: str, mode: int = 0o644) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))


_LOOK = "Looking"
_CHANGE = "Changing the registry"
_HOST = "Past the mount, in the store's directory"

_LOOKING = [
    Operation(_LOOK, "`ls /models`", lambda at: _listed(at.mount)),
    Operation(_LOOK, "`ls` in `artifacts/m`", lambda at: _listed(at.artifact)),
    Operation(_LOOK, "read a version's file", lambda at: _read(f"{at.artifact}/v0/open")),
    Operation(
        _LOOK, "read one that was 0600 in its draft", lambda at: _read(f"{at.artifact}/v0/private")
    ),
    Operation(_LOOK, "`ls staging`", lambda at: _listed(f"{at.top}/staging")),
    Operation(_LOOK, "`cat .mregfs/status`", lambda at: _read(f"{at.mount}/.mregfs/status")),
    Operation(_LOOK, "open `.mregfs/events`", _follow),
    Operation(
        _LOOK,
        "`cat '.mregfs/query/show m'`",
        lambda at: _ask(at, f"show {at.prefix}artifacts/m"),
    ),
    Operation(_LOOK, "`mregfs ls`", lambda at: _cli(at, "ls")),
    Operation(_LOOK, "`mregfs show m`", lambda at: _cli(at, "show", f"{at.prefix}artifacts/m")),
    Operation(
        _LOOK,
        "`mregfs access`, to see it",
        lambda at: _cli(at, "access", *([at.project] if at.project else [])),
    ),
]

_ALIAS = "ln -sf Partifacts/m/v0 Partifacts/m/best"

_CHANGING = [
    Operation(_CHANGE, "`mkdir staging/run`", lambda at: os.mkdir(at.draft)),
    Operation(_CHANGE, "`ln -sfn v1 artifacts/m/best`", _move_alias, before=_ALIAS),
    Operation(
        _CHANGE,
        "the same by `control`",
        lambda at: _control(at, _ALIAS.replace("P", at.prefix).replace("v0", "v1")),
        before=_ALIAS,
    ),
    Operation(
        _CHANGE,
        "the same by `mregfs ln`",
        lambda at: _cli(at, *_ALIAS.replace("P", at.prefix).replace("v0", "v1").split()),
        before=_ALIAS,
    ),
    Operation(
        _CHANGE,
        "`rm artifacts/m/best`",
        lambda at: os.unlink(f"{at.artifact}/best"),
        before=_ALIAS,
    ),
    Operation(
        _CHANGE,
        "`rm` of a version by `control`",
        lambda at: _control(at, f"rm {at.prefix}artifacts/m{at.number}/v0"),
        before="commit Pstaging/dN Partifacts/mN",
        draft=0o755,
    ),
    Operation(
        _CHANGE,
        "`rm -r` of a version",
        lambda at: os.unlink(f"{at.artifact}/v0/open"),
    ),
    Operation(
        _CHANGE, "`tag`", lambda at: _control(at, f"tag {at.prefix}artifacts/m/v0 t{at.number}")
    ),
    Operation(
        _CHANGE,
        "link a version into a collection",
        lambda at: os.symlink("../../artifacts/m/v1", f"{at.top}/collections/c/x{at.number}"),
    ),
    Operation(
        _CHANGE,
        "`mkdir` of a collection",
        lambda at: os.mkdir(f"{at.top}/collections/c{at.number}"),
    ),
    Operation(
        _CHANGE,
        "`rmdir` of one",
        lambda at: os.rmdir(f"{at.top}/collections/c{at.number}"),
        before="mkdir Pcollections/cN",
    ),
    Operation(
        _CHANGE, "`mkdir` of an artifact", lambda at: os.mkdir(f"{at.top}/artifacts/a{at.number}")
    ),
    Operation(
        _CHANGE,
        "`access`, to change it",
        lambda at: _control(at, f"access {at.project} --drafts {at.drafts}"),
    ),
]


def _drafts(title: str, mode: int) -> list[Operation]:
    """Return what is done with a draft, and in it."""

    def at(name: str, make: Callable[[Spot], str | None]) -> Operation:
        return Operation(title, name, make, draft=mode)

    found = [
        at("`ls`", lambda at: _listed(at.draft)),
        at("read a file of 0644", lambda at: _read(f"{at.draft}/open")),
        at("read a file of 0600", lambda at: _read(f"{at.draft}/private")),
        at("write a file of 0644", lambda at: _write(f"{at.draft}/open")),
        at("write a file of 0664, of the writers' group", lambda at: _write(f"{at.draft}/shared")),
        at("truncate", lambda at: os.truncate(f"{at.draft}/open", 0)),
        at("create a file", lambda at: _create(f"{at.draft}/new")),
        at("`mkdir`", lambda at: os.mkdir(f"{at.draft}/new")),
        at("`ln -s`", lambda at: os.symlink("open", f"{at.draft}/new")),
        at("`ln`", lambda at: os.link(f"{at.draft}/open", f"{at.draft}/new")),
        at("`mv` of a file", lambda at: os.rename(f"{at.draft}/open", f"{at.draft}/new")),
        at("`rm`", lambda at: os.unlink(f"{at.draft}/open")),
        at("`rmdir`", lambda at: os.rmdir(f"{at.draft}/below")),
        at("`chmod`", lambda at: os.chmod(f"{at.draft}/open", 0o640)),
        at("`chgrp` to the writers' group", lambda at: os.chown(f"{at.draft}/open", -1, TEAM)),
        at("`chown` to a third user", lambda at: os.chown(f"{at.draft}/open", THIRD_USER, -1)),
        at("`touch -d`", lambda at: os.utime(f"{at.draft}/open", (7, 7))),
        at("`setfattr`", lambda at: _set_attribute(f"{at.draft}/open")),
        at("`mv` of the draft, in `staging/`", lambda at: os.rename(at.draft, f"{at.draft}.new")),
        at("`rm -r` of the draft", lambda at: shutil.rmtree(at.draft)),
        at(
            "commit by `control`",
            lambda at: _control(
                at, f"commit {at.prefix}staging/d{at.number} {at.prefix}artifacts/m{at.number}"
            ),
        ),
        at(
            "commit by `mv … artifacts/m/next`",
            lambda at: os.rename(at.draft, f"{at.artifact}/next"),
        ),
        at(
            "`give` by `control`",
            lambda at: _control(at, f"give {at.prefix}staging/d{at.number} {THIRD_USER}"),
        ),
    ]
    if mode == 0o755:  # a process each: once is enough
        found.append(
            at(
                "`mregfs commit`",
                lambda at: _cli(at, "commit", at.draft, f"{at.prefix}artifacts/m{at.number}"),
            )
        )
        found.append(
            at(
                "`mregfs draft give`",
                lambda at: _cli(at, "draft", "give", at.draft, str(THIRD_USER)),
            )
        )
    return found


def _host(at: Spot, path: str) -> str:
    return f"{at.store}/{path}"


_PAST = [
    Operation(_HOST, "`ls`", lambda at: _listed(at.store)),
    Operation(_HOST, "make a file", lambda at: _create(_host(at, f"x{at.number}"))),
    Operation(_HOST, "`ls index`", lambda at: _listed(_host(at, "index"))),
    Operation(_HOST, "open a lock file", lambda at: _read(_host(at, "index/gate"))),
    Operation(_HOST, "`ls staging/default`", lambda at: _listed(_host(at, "staging/default"))),
    Operation(_HOST, "read the log", lambda at: _read(_host(at, f"log/{1:020}.json"))),
    Operation(_HOST, "write to the log", lambda at: _write(_host(at, f"log/{1:020}.json"))),
]

OPERATIONS: list[Operation] = [
    *_LOOKING,
    *_CHANGING,
    *_drafts("A draft of mode 0755", 0o755),
    *_drafts("A draft of mode 0700", 0o700),
    *_drafts("A draft of mode 0775, of the writers' group", 0o775),
    *_PAST,
]
