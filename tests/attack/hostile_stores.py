"""A store in whose directory somebody else has put what does not belong there.

Decided here: which of the store's names are replaced, and by what. Not decided here: who then does
what with the store.
"""

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import attrs
import msgspec

from tests.attack.commands import run_verb

__all__ = ["NAMES", "REPLACEMENTS", "Victims", "copy_store", "make_template", "plant"]

NAMES = (
    "store.json",
    "log",
    "log/NEWEST",
    "manifests",
    "manifests/XX",
    "manifests/XX/ID",
    "layouts",
    "layouts/ID",
    "packs",
    "packs/XX",
    "packs/XX/ID",
    "packs/tmp",
    "checkpoints",
    "index",
    "index/gate",
    "index/guard",
    "index/lock.mdb",
    "index/data.mdb",
    "intake",
    "intake/X",
    "intake/X/lock",
    "intake/X/intent.json",
    "tmp",
    "cache",
    "cache/whole",
    "cache/whole/tmp",
    "cache/whole/lock",
    "cache/whole/pins.json",
    "staging",
    "staging/default",
    "staging/default/default",
    "staging/default/default/run",
    "staging/default/default/run/model.bin",
)
"""Names below the store; capitals stand for the first name there, or for a made-up one."""

_MADE_UP = {"X": "0123456789abcdef0123456789abcdef", "XX": "ab", "ID": "abcdef", "NEWEST": ""}


@attrs.frozen
class Victims:
    """What the replacements lead to."""

    file: Path
    directory: Path


def make_template(place: Path) -> Path:
    """Make a store with two versions, an alias, a draft, and the leftovers of a commit."""
    store, source = place / "store", place / "model"
    source.mkdir()
    _must("init", store)
    for number in range(2):
        (source / "model.bin").write_bytes(os.urandom(300_000))
        (source / "config.json").write_bytes(b"%d" % number)
        _must("commit", source, "mnist", "--alias", "best", "--store", store)
    shutil.copytree(source, store / "staging/default/default/run")
    (store / "intake" / _MADE_UP["X"]).mkdir(parents=True, exist_ok=True)
    (store / "intake" / _MADE_UP["X"] / "lock").write_bytes(b"")
    return store


def _must(*words: str | Path) -> None:
    outcome = run_verb(words)
    assert outcome.code == 0, outcome


def copy_store(template: Path, to: Path, uid: int, gid: int, mode: int) -> Path:
    """Copy a store, and give all of it to somebody."""
    shutil.copytree(template, to, symlinks=True)
    for path in [to, *to.rglob("*")]:
        os.chown(path, uid, gid, follow_symlinks=False)
        if path.is_dir() and stat.S_IMODE(path.stat().st_mode) != 0o1777:
            path.chmod(mode)
    return to


def resolve(store: Path, name: str) -> Path:
    """Return the path that a name of `NAMES` stands for in this store."""
    path = store
    for part in name.split("/"):
        if part in _MADE_UP:
            there = sorted(os.listdir(path)) if path.is_dir() else []
            there = [entry for entry in there if entry != "tmp"]
            part = there[-1] if there else _MADE_UP[part] or "00000000000000000009.json"
        path /= part
    return path


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


def _symlink_to_file(path: Path, victims: Victims) -> None:
    path.symlink_to(victims.file)


def _symlink_to_directory(path: Path, victims: Victims) -> None:
    path.symlink_to(victims.directory)


def _symlink_to_nothing(path: Path, victims: Victims) -> None:
    path.symlink_to(victims.directory.parent / "not-there")


def _fifo(path: Path, victims: Victims) -> None:
    os.mkfifo(path, 0o666)
    path.chmod(0o666)


def _device(path: Path, victims: Victims) -> None:
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero: it never ends
    path.chmod(0o666)


def _symlink_to_device(path: Path, victims: Victims) -> None:
    path.symlink_to("/dev/zero")


def _foreign_file(path: Path, victims: Victims) -> None:
    path.write_bytes(b"this is not what you think\n" * 100)
    path.chmod(0o666)


def _directory(path: Path, victims: Victims) -> None:
    path.mkdir()
    path.chmod(0o777)
    (path / "lock").write_bytes(b"")
    (path / "model.bin").symlink_to(victims.file)


def _forged_intent(path: Path, victims: Victims) -> None:
    """The intent of a commit that never was: it names files to change and to remove."""
    path.mkdir()
    path.chmod(0o777)
    (path / "lock").write_bytes(b"")
    (path / "lock").chmod(0o666)
    inode = os.stat(victims.file).st_ino
    above = os.stat(path.parent)
    intent = {
        "draft": str(victims.file.parent),
        "layout": "abcdef",
        "since": 0,
        "adoptions": [
            {
                "path": victims.file.name,
                "pack": f"../../../../../../../../..{victims.directory}/lock",
                "inode": inode,
                "mode": 0o4777,
                "uid": above.st_uid,
                "gid": above.st_gid,
            }
        ],
        "entries": {victims.file.name: [inode, os.stat(victims.file).st_mtime_ns]},
    }
    (path / "intent.json").write_bytes(msgspec.json.encode(intent))


REPLACEMENTS: dict[str, Callable[[Path, Victims], None]] = {
    "symlink to a file": _symlink_to_file,
    "symlink to a directory": _symlink_to_directory,
    "symlink to nothing": _symlink_to_nothing,
    "fifo": _fifo,
    "device": _device,
    "symlink to a device": _symlink_to_device,
    "foreign file": _foreign_file,
    "directory": _directory,
    "forged intent": _forged_intent,
}


def plant(store: Path, name: str, replacement: str, victims: Victims, uid: int, gid: int) -> Path:
    """Put a replacement in the place of one of the store's names, as if `uid` had done it."""
    path = resolve(store, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove(path)
    REPLACEMENTS[replacement](path, victims)
    made = path
    while made != store:  # and the directories above, where they had to be made
        if os.lstat(made).st_uid != uid:
            os.chown(made, uid, gid, follow_symlinks=False)
        made = made.parent
    if path.is_dir() and not path.is_symlink():
        for below in path.rglob("*"):
            os.chown(below, uid, gid, follow_symlinks=False)
    return path
