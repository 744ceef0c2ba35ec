"""Commits over a real directory: what the version is, where its bytes are, what is left."""

import contextlib
import errno
import fcntl
import mmap
import os
import random
import socket
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mregfs.api import Store
from mregfs.errors import (
    ConflictError,
    CorruptError,
    HostError,
    InvalidError,
    MregfsError,
    NoSpaceError,
    NotFoundError,
    UnavailableError,
)
from mregfs.model import operands
from mregfs.model.commands import CreateCollection, LinkVersion, MoveAlias
from mregfs.model.layout import layout_key
from mregfs.model.names import DEFAULT_PROJECT
from mregfs.model.reference import Location
from mregfs.registry.read import usage as usage_module
from mregfs.registry.read.catalog import Catalog
from mregfs.registry.read.usage import select, usage, usage_of_all
from mregfs.stores.index_memory import IndexMemory
from tests.registry.rig import (
    PRINCIPAL,
    bytes_of,
    commit,
    commit_intake,
    draft_intake,
    flip,
    in_threads,
    packs_of,
    taken,
    write_files,
)

Draft = Callable[[dict[str, bytes]], Path]

LARGE = random.Random(1).randbytes(3 << 20)
SMALL = random.Random(2).randbytes(50_000)
FILES = {"model.bin": LARGE, "sub/tokens.bin": SMALL, "config.json": b"{}", "empty": b""}


def snapshot(path: Path) -> dict[str, tuple[Any, ...]]:
    """Return what a person could see of a directory: names, modes, inodes, times, bytes."""
    found = {}
    for each in sorted(path.rglob("*")):
        status = each.lstat()
        data = each.read_bytes() if each.is_file() and not each.is_symlink() else b""
        key = (status.st_mode, status.st_uid, status.st_nlink, status.st_ino, status.st_mtime_ns)
        found[str(each.relative_to(path))] = (*(key if each.is_file() else key[:1]), data)
    return found


def safetensors(*tensors: bytes) -> bytes:
    entries, offset = [], 0
    for number, data in enumerate(tensors):
        end = offset + len(data)
        entries.append(
            f'"t{number}":{{"dtype":"U8","shape":[{len(data)}],"data_offsets":[{offset},{end}]}}'
        )
        offset = end
    header = ("{" + ",".join(entries) + "}").encode()
    return struct.pack("<Q", len(header)) + header + b"".join(tensors)


def test_a_draft_becomes_a_version(store: Store, draft: Draft) -> None:
    """All bytes are in it; the draft's directory is gone; aliases are set."""
    path = draft(FILES)
    result = commit(store, path, aliases=["best"])
    assert ("v0", True, ["best"]) == (result["version"], result["created"], result["aliases"])
    assert FILES == bytes_of(store, "mnist", 0)
    assert not path.exists()


def test_a_large_file_is_not_copied(store: Store, draft: Draft) -> None:
    """The pack is the draft's very file, read-only; small files share one; tiny ones need none."""
    path = draft(FILES)
    inode = (path / "model.bin").stat().st_ino
    commit(store, path)
    packs = packs_of(store)
    assert sorted([len(LARGE), -(-len(SMALL) // 64) * 64]) == sorted(packs.values())
    (pack,) = (pack for pack, size in packs.items() if size == len(LARGE))
    found = os.stat(store.packs.path_of(pack))
    assert (inode, 1, 0o444) == (found.st_ino, found.st_nlink, stat.S_IMODE(found.st_mode))


def test_another_directory_is_left_alone(store: Store, tmp_path: Path) -> None:
    """Outside the staging area nothing changes, and nothing there can change the pack."""
    path = tmp_path / "out"
    write_files(path, FILES)
    before = snapshot(path)
    commit(store, path, consume=False)
    assert before == snapshot(path)
    (path / "model.bin").write_bytes(b"other")
    assert FILES == bytes_of(store, "mnist", 0)
    assert [] == os.listdir(Path(store.host.drafts.path) / "intake")


def test_directories_symlinks_and_modes(store: Store, draft: Draft) -> None:
    """Empty directories, symlinks and the executable bit are content; times are not."""
    path = draft({"run.sh": b"#!/bin/sh\n"})
    (path / "run.sh").chmod(0o750)
    (path / "a" / "empty").mkdir(parents=True)
    (path / "a" / "link").symlink_to("../run.sh")
    first = commit(store, path)
    found = Catalog(store.index).resolve(Location(DEFAULT_PROJECT, "mnist", number=0)).version
    entries = {p: (e.kind, e.executable, e.target) for p, e in store.content.walk(found)}
    assert {
        "a": ("directory", False, ""),
        "a/empty": ("directory", False, ""),
        "a/link": ("symlink", False, "../run.sh"),
        "run.sh": ("file", True, ""),
    } == entries
    again = draft({"run.sh": b"#!/bin/sh\n"})
    os.utime(again / "run.sh", (1, 1))
    (again / "a" / "empty").mkdir(parents=True)
    (again / "a" / "link").symlink_to("../run.sh")
    other = commit(store, again, artifact="other")
    assert first["digest"] != other["digest"]


@pytest.mark.slow
def test_a_tree_deeper_than_python_recurses(store: Store, draft: Draft) -> None:
    """Also to whoever lists it: as deep as a path of the manifest may be."""
    path = draft({"config.json": b"{}"})
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(2000):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    with open(os.open("deep", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=fd), "wb") as file:
        file.write(b"deep")
    os.close(fd)
    commit(store, path)
    found = Catalog(store.index).resolve(Location(DEFAULT_PROJECT, "mnist", number=0)).version
    paths = [name for name, _ in store.content.walk(found)]
    assert 2002 == len(paths)
    assert "d/" * 2000 + "deep" in paths
    assert not path.exists()


def test_the_same_content_makes_no_version(store: Store, draft: Draft) -> None:
    """The reply names the old one; nothing is stored again; the draft has served its purpose."""
    commit(store, draft(FILES))
    before = packs_of(store)
    path = draft(FILES)
    result = commit(store, path, aliases=["same"])
    assert ("v0", False) == (result["version"], result["created"])
    assert before == packs_of(store)
    assert not path.exists()
    assert 1 == len(list(store.objects.list("layouts/")))


def test_files_that_are_stored_take_no_space_again(store: Store, draft: Draft) -> None:
    """Whole files are shared among versions and artifacts, and within a version."""
    commit(store, draft(FILES))
    before = packs_of(store)
    commit(store, draft(FILES | {"copy.bin": LARGE, "copy2": SMALL, "new": b"n"}), artifact="other")
    assert before == packs_of(store)
    assert LARGE == bytes_of(store, "other", 0)["copy.bin"]
    commit(store, draft({"x": b"x" * 5000, "y": b"x" * 5000, "z": LARGE[::-1], "zz": LARGE[::-1]}))
    assert 2 == len(packs_of(store)) - len(before)


def test_parts_that_are_stored_take_no_space_again(store: Store, draft: Draft) -> None:
    """A file that shares enough tensors with a stored one brings only the others."""
    tensors = [random.Random(n).randbytes(1 << 20) for n in range(4)]
    fresh = random.Random(9).randbytes(1 << 20)
    commit(store, draft({"m.safetensors": safetensors(*tensors)}))
    before = packs_of(store)
    second = safetensors(fresh, *tensors[:3])
    commit(store, draft({"m.safetensors": second}))
    (added,) = packs_of(store).keys() - before.keys()
    assert len(fresh) <= packs_of(store)[added] <= len(fresh) + 4096
    assert second == bytes_of(store, "mnist", 1)["m.safetensors"]
    third = safetensors(*tensors, fresh)
    commit(store, draft({"m.safetensors": third}))
    assert third == bytes_of(store, "mnist", 2)["m.safetensors"]
    assert sum(packs_of(store).values()) < len(second) + len(fresh) + 3 * 4096


def test_files_of_one_commit_share_parts(store: Store, draft: Draft) -> None:
    """Two files with the same tensors are stored once."""
    tensors = [random.Random(n).randbytes(1 << 20) for n in range(3)]
    files = {"a": safetensors(*tensors), "b": safetensors(*reversed(tensors))}
    commit(store, draft(files))
    assert files == bytes_of(store, "mnist", 0)
    assert sum(packs_of(store).values()) < len(files["a"]) + 10_000


def test_sharing_is_decided_by_digests(
    store: Store, draft: Draft, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks that only look alike are stored apart."""
    from mregfs.registry.write import cutting

    monkeypatch.setattr(cutting, "sketch", lambda read, start, size: size.to_bytes(16, "big"))
    files = [random.Random(n).randbytes(2 << 20) for n in range(2)]
    for data in files:
        commit(store, draft({"m": safetensors(data)}))
    for number, data in enumerate(files):
        assert safetensors(data) == bytes_of(store, "mnist", number)["m"]


def test_a_large_file_without_tensors_shares_its_ends(
    store: Store, draft: Draft, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only its ends are looked at, until something is found there; then all of it is."""
    from mregfs.registry.write import cutting

    monkeypatch.setattr(cutting, "_ALL_BY_CONTENT", 1 << 20)
    data = random.Random(5).randbytes(12 << 20)
    commit(store, draft({"m": data}))
    changed = data[: 5 << 20] + b"inserted" + data[5 << 20 :]
    commit(store, draft({"m": changed}))
    assert changed == bytes_of(store, "mnist", 1)["m"]
    assert sum(packs_of(store).values()) < len(data) + (5 << 20)


def test_bytes_of_deleted_versions_are_not_shared(store: Store, draft: Draft) -> None:
    """What nobody refers to may be deleted at any time, so nothing may begin to refer to it."""
    from mregfs.model.commands import DeleteVersion

    commit(store, draft({"m": LARGE}))
    target = Location(DEFAULT_PROJECT, "mnist", number=0)
    store.log.submit([DeleteVersion(target)], PRINCIPAL)
    before = packs_of(store)
    commit(store, draft({"m": LARGE}))
    (added,) = packs_of(store).keys() - before.keys()
    for pack in before:
        store.packs.delete(pack)
    assert {"m": LARGE} == bytes_of(store, "mnist", 1)
    assert len(LARGE) == packs_of(store)[added]


def test_missing_packs_are_not_shared(store: Store, draft: Draft) -> None:
    """A commit repairs what it brings."""
    commit(store, draft({"m": LARGE}))
    for pack in packs_of(store):
        store.packs.delete(pack)
    commit(store, draft({"m": LARGE}), artifact="other")
    assert {"m": LARGE} == bytes_of(store, "other", 0)


@pytest.mark.parametrize("name", ["model.bin", "sub/tokens.bin"])
def test_damaged_files_are_not_shared(
    store: Store, draft: Draft, expected_warnings: Any, name: str
) -> None:
    """Good bytes are never given up for damaged ones, and the next commit shares the good ones."""
    commit(store, draft({name: FILES[name]}))
    (pack,) = packs_of(store)
    flip(store.packs.path_of(pack), len(FILES[name]) - 7)
    expected_warnings.expect("is damaged: block")
    commit(store, draft({name: FILES[name]}), artifact="other")
    assert {name: FILES[name]} == bytes_of(store, "other", 0)
    after = packs_of(store)
    assert 2 == len(after)
    commit(store, draft({name: FILES[name], "more": b"m"}), artifact="other")
    assert after == packs_of(store)
    assert FILES[name] == bytes_of(store, "other", 1)[name]


@pytest.mark.parametrize("size", [0, 10_000, (3 << 20) - 1])
@pytest.mark.parametrize("name", ["model.bin", "sub/tokens.bin"])
def test_packs_that_were_cut_short_are_not_shared(
    store: Store, draft: Draft, name: str, size: int
) -> None:
    """A commit repairs what it brings, also in a file that is only similar."""
    commit(store, draft({name: FILES[name]}))
    (pack,) = packs_of(store)
    os.chmod(store.packs.path_of(pack), 0o644)
    os.truncate(store.packs.path_of(pack), min(size, len(FILES[name]) - 1))
    for number, more in enumerate((b"", b"more")):
        commit(store, draft({name: FILES[name] + more}), artifact="other")
        assert {name: FILES[name] + more} == bytes_of(store, "other", number)


def test_a_draft_is_not_given_up_for_a_damaged_version(
    store: Store, draft: Draft, expected_warnings: Any
) -> None:
    """The same content is a version already, but no longer: the draft stays."""
    commit(store, draft({"m": LARGE, "config.json": b"{}"}))
    (pack,) = packs_of(store)
    flip(store.packs.path_of(pack), 5)
    path = draft({"m": LARGE, "config.json": b"{}"})
    before = snapshot(path)
    expected_warnings.expect("is damaged: block 0")
    with pytest.raises(CorruptError, match="v0 has this content already, but 'm' is damaged"):
        commit(store, path)
    assert before == snapshot(path)


def test_stored_bytes_that_cannot_be_read_are_not_shared(
    store: Store, draft: Draft, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails under an old version does not fail a new one."""
    from mregfs.stores.packs_dir import PackDescriptor

    tensors = [random.Random(n).randbytes(1 << 20) for n in range(4)]
    commit(store, draft({"m": safetensors(*tensors), "n": LARGE}))
    commit(store, draft({"opaque": random.Random(7).randbytes(9 << 20)}))

    def fail(self: PackDescriptor, offset: int, length: int) -> bytes:
        raise HostError(errno.EIO, "cannot read the pack")

    files = {
        "m": safetensors(*tensors[1:]),
        "n": LARGE,
        "opaque": random.Random(7).randbytes(9 << 20) + b"more",
    }
    with monkeypatch.context() as patch:
        patch.setattr(PackDescriptor, "read", fail)
        commit(store, draft(files), artifact="other")
    assert files == bytes_of(store, "other", 0)


def test_more_commands_in_the_same_transaction(store: Store, draft: Draft) -> None:
    """The new version can be linked before anybody knows its number."""
    request = operands.commit_request("run", "mnist", DEFAULT_PROJECT, link="classifier:production")
    latest = Location(DEFAULT_PROJECT, "mnist", alias="latest")
    extra = [
        CreateCollection(DEFAULT_PROJECT, "more"),
        LinkVersion(latest, Location(DEFAULT_PROJECT, "more", alias="best")),
        MoveAlias(Location(DEFAULT_PROJECT, "mnist", alias="extra"), latest),
    ]
    intake = draft_intake(store, draft(FILES))
    receipt = commit_intake(store, intake, request, *extra, reason="because").receipt
    assert 1 == receipt.sequence
    assert 5 == len(receipt.results)
    for ref in (("classifier", "production"), ("more", "best"), ("mnist", "extra")):
        found = Catalog(store.index).resolve(Location(DEFAULT_PROJECT, ref[0], alias=ref[1]))
        assert 0 == found.version.number


# ---- refusals, and what they leave behind


def failing(store: Store, path: Path, error: type[MregfsError], match: str, **more: Any) -> None:
    """Check that a commit fails, and that nothing has changed."""
    before, packs = snapshot(path), packs_of(store)
    with pytest.raises(error, match=match):
        commit(store, path, **more)
    assert before == snapshot(path)
    assert packs == packs_of(store)
    assert [] == list(store.objects.list("layouts/"))
    intake = Path(store.host.drafts.path) / "intake"
    assert not intake.exists() or [] == os.listdir(intake)


def test_everything_that_cannot_be_in_a_version_is_named(store: Store, draft: Draft) -> None:
    """All of it, in one message."""
    path = draft(FILES)
    os.mkfifo(path / "fifo")
    (path / "absolute").symlink_to("/etc/passwd")
    (path / "sub" / "escaping").symlink_to("../../x")
    (path / os.fsdecode(b"bad\xff")).write_bytes(b"")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(path)
        try:
            server.bind("socket")
        finally:
            os.chdir(here)
        with pytest.raises(InvalidError) as caught:
            commit(store, path)
    for words in (
        "'fifo' is a FIFO",
        "'absolute' points at the absolute path '/etc/passwd'",
        "'sub/escaping' points out of the directory",
        r"bad\xff' is not UTF-8",
        "'socket' is a socket",
    ):
        assert words in str(caught.value)


def test_open_files_are_named(store: Store, draft: Draft) -> None:
    """Large and small ones that somebody could still write to: all of them."""
    path = draft(FILES)
    with (path / "model.bin").open("ab"), (path / "config.json").open("ab"):
        failing(store, path, ConflictError, r"'config.json', 'model.bin'")
    assert commit(store, path)["created"]


def test_a_writable_mapping_is_noticed(store: Store, draft: Draft) -> None:
    """Also after its descriptor was closed."""
    path = draft(FILES)
    with (path / "model.bin").open("r+b") as file:
        mapping = mmap.mmap(file.fileno(), 0)
    failing(store, path, ConflictError, "'model.bin'")
    mapping.close()
    assert commit(store, path)["created"]


def test_readers_do_not_matter(store: Store, draft: Draft) -> None:
    """A file may be open for reading, or mapped so."""
    path = draft(FILES)
    with (path / "model.bin").open("rb") as file:
        assert commit(store, path)["created"]
        assert LARGE == file.read()


@pytest.mark.parametrize("known", [False, True])
def test_a_write_during_the_commit_is_noticed(
    store: Store, draft: Draft, tmp_path: Path, *, known: bool
) -> None:
    """Whoever opens a sealed file for writing makes the commit fail, and then gets to write.

    Also when the content that was digested is a version already: the draft is another one now.
    """
    if known:
        write_files(tmp_path / "before", FILES)
        commit(store, tmp_path / "before", consume=False)
    packs = packs_of(store)
    path = draft(FILES)
    writer: list[threading.Thread] = []

    def write() -> None:
        with open(f"/proc/self/fd/{kept}", "ab") as file:
            file.write(b"more")

    def disturb(stage: str, done: int, total: int) -> None:
        if not writer and stage == "hash":
            with pytest.raises(BlockingIOError):  # this breaks the lease without waiting for it
                os.open(f"/proc/self/fd/{kept}", os.O_WRONLY | os.O_NONBLOCK)
            writer.append(threading.Thread(target=write))
            writer[0].start()

    before = snapshot(path)
    kept = os.open(path / "model.bin", os.O_PATH)  # a way that nobody can take from him
    request = operands.commit_request("run", "mnist", DEFAULT_PROJECT)
    with pytest.raises(ConflictError, match=r"changed while being committed: 'model.bin'"):
        commit_intake(store, draft_intake(store, path), request, progress=disturb)
    writer[0].join()
    os.close(kept)
    assert packs == packs_of(store)
    assert LARGE + b"more" == (path / "model.bin").read_bytes()
    assert {name: row for name, row in before.items() if name != "model.bin"} == {
        name: row for name, row in snapshot(path).items() if name != "model.bin"
    }


def test_a_small_file_that_changes_is_noticed(store: Store, draft: Draft) -> None:
    """Its bytes are copied, and must be the ones that were digested."""
    path = draft(FILES)

    def disturb(stage: str, done: int, total: int) -> None:
        if stage == "hash" and done == total:
            (taken(store) / "sub" / "tokens.bin").write_bytes(SMALL[::-1])

    request = operands.commit_request("run", "mnist", DEFAULT_PROJECT)
    with pytest.raises(ConflictError, match=r"'sub/tokens.bin'"):
        commit_intake(store, draft_intake(store, path), request, progress=disturb)
    assert {} == packs_of(store)
    assert LARGE == (path / "model.bin").read_bytes()


def test_hard_linked_files_are_copied(store: Store, draft: Draft, tmp_path: Path) -> None:
    """Another name for the same inode must not lead into a pack."""
    path = draft(FILES)
    os.link(path / "model.bin", tmp_path / "elsewhere")
    commit(store, path)
    (tmp_path / "elsewhere").write_bytes(b"changed")
    assert FILES == bytes_of(store, "mnist", 0)
    assert not path.exists()


def test_a_request_against_the_rules_is_refused_before_reading(
    store: Store, draft: Draft, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hours of hashing do not come before a simple no."""
    from mregfs.registry.write import commit as module

    commit(store, draft({"a": b"a"}), artifact="other", type="dataset")
    for key in store.objects.list("layouts/"):
        store.objects.delete(key)
    monkeypatch.delattr(module, "hash_files")
    failing(store, draft(FILES), InvalidError, "of type 'dataset'", artifact="other", type="model")


def test_a_missing_directory(store: Store, tmp_path: Path) -> None:
    """Says so."""
    with pytest.raises(NotFoundError, match="nowhere"):
        commit(store, tmp_path / "nowhere", consume=False)


class Failing:
    """Stands before a store's adapter and makes one method fail, once."""

    def __init__(self, inner: Any, method: str, error: BaseException, *, after: bool) -> None:
        self._inner, self._method, self._error, self._after = inner, method, error, after
        self.failed = False

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name != self._method or self.failed:
            return found

        def fail(*args: Any, **kwargs: Any) -> Any:
            self.failed = True
            if self._after:
                found(*args, **kwargs)
            raise self._error

        return fail


@pytest.mark.parametrize("error", [NoSpaceError("full"), KeyboardInterrupt()])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("part", "method"),
    [("_packs", "create"), ("_packs", "sync"), ("objects", "create"), ("_index", "read")],
)
def test_any_failure_leaves_the_draft_whole(
    store: Store, draft: Draft, part: str, method: str, error: BaseException, *, after: bool
) -> None:
    """Whichever step fails, before or after it took effect, an interrupt included."""
    path = draft(FILES)
    before = snapshot(path)
    committer = store.committer
    setattr(committer, part, Failing(getattr(committer, part), method, error, after=after))
    with pytest.raises(type(error)):
        commit(store, path)
    assert before == snapshot(path)
    if not (part == "_packs" and method == "create" and after):  # the pack is the fake's secret
        assert {} == packs_of(store)
    assert [] == list(store.objects.list("layouts/"))
    assert 0 == store.log.catch_up()
    assert commit(store, path)["created"]
    assert FILES == bytes_of(store, "mnist", 0)


@pytest.mark.parametrize("error", [NoSpaceError("full"), KeyboardInterrupt()])
def test_an_entry_that_is_refused_leaves_only_the_draft(
    store: Store, draft: Draft, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """Packs and layout are stored by then; nothing refers to them, so they go."""
    path = draft(FILES)
    before = snapshot(path)

    def refuse(*args: Any) -> Any:
        assert 1 == len(list(store.objects.list("layouts/")))
        raise error

    monkeypatch.setattr(store.log, "submit", refuse)
    with pytest.raises(type(error)):
        commit(store, path)
    assert before == snapshot(path)
    assert {} == packs_of(store)
    assert [] == list(store.objects.list("layouts/"))


@pytest.mark.parametrize("error", [UnavailableError("?"), KeyboardInterrupt()])
def test_a_failure_after_the_append_is_a_success(
    store: Store, draft: Draft, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """When the entry is in the log, the version stays, and the draft goes."""
    path = draft(FILES)
    submit = store.log.submit

    def lost(*args: Any, **kwargs: Any) -> Any:
        submit(*args, **kwargs)
        raise error

    monkeypatch.setattr(store.log, "submit", lost)
    with pytest.raises(type(error)):
        commit(store, path)
    assert not path.exists()
    assert FILES == bytes_of(store, "mnist", 0)


def test_a_commit_in_doubt_is_left_to_recovery(
    store: Store, draft: Draft, monkeypatch: pytest.MonkeyPatch, expected_warnings: Any
) -> None:
    """While nobody can say whether the entry arrived, neither draft nor packs are touched."""
    path = draft(FILES)
    doubt = True
    has_layout = store.log.has_layout
    monkeypatch.setattr(store.log, "has_layout", lambda *args: None if doubt else has_layout(*args))

    def unanswered(*args: Any) -> Any:
        raise UnavailableError("no answer")

    monkeypatch.setattr(store.log, "submit", unanswered)
    with pytest.raises(UnavailableError):
        commit(store, path)
    assert LARGE == (taken(store) / "model.bin").read_bytes()
    assert 2 == len(packs_of(store))
    assert [] == os.listdir(path)
    monkeypatch.undo()
    doubt = False
    expected_warnings.expect("undoing the commit")
    result = commit(store, path)
    assert result["created"]
    assert FILES == bytes_of(store, "mnist", 0)


def test_the_same_content_at_the_same_time(new_store: Callable[[], Store], draft: Draft) -> None:
    """Two commits of one content make one version, and only one set of packs stays."""
    stores = [new_store(), new_store()]
    paths = [draft(FILES), draft(FILES)]
    results: list[dict[str, Any]] = []
    in_threads(
        [
            lambda store=store, path=path: results.append(commit(store, path))
            for store, path in zip(stores, paths, strict=True)
        ]
    )
    assert [False, True] == sorted(each["created"] for each in results)
    assert {"v0"} == {each["version"] for each in results}
    assert 2 == len(packs_of(stores[0]))
    assert FILES == bytes_of(stores[1], "mnist", 0)


def test_damage_is_an_error_never_wrong_bytes(
    store: Store, draft: Draft, expected_warnings: Any
) -> None:
    """A flipped bit in a pack is noticed at the first read of its block."""
    commit(store, draft(FILES))
    expected_warnings.expect("is damaged: block 2")
    (pack,) = (pack for pack, size in packs_of(store).items() if size == len(LARGE))
    flip(store.packs.path_of(pack), (2 << 20) + 7)
    with pytest.raises(CorruptError, match=r"model\.bin"):
        bytes_of(store, "mnist", 0)


def test_a_commit_that_copies_nothing_can_be_given_up_before_it_stores(
    store: Store, draft: Draft
) -> None:
    """Whoever waits is asked once more when all is digested and cut; the draft is whole."""
    path = draft({"m": LARGE})
    before = snapshot(path)

    def give_up(stage: str, done: int, total: int) -> None:
        if stage == "store":
            raise HostError(errno.EINTR, "given up")

    request = operands.commit_request("run", "mnist", DEFAULT_PROJECT)
    with pytest.raises(HostError, match="given up"):
        commit_intake(store, draft_intake(store, path), request, progress=give_up)
    assert before == snapshot(path)
    assert {} == packs_of(store)
    assert 0 == store.log.catch_up()


def test_progress_ends_at_its_total(store: Store, draft: Draft) -> None:
    """Every byte is hashed, and only bytes that need it are copied."""
    steps: list[tuple[str, int, int]] = []
    request = operands.commit_request("run", "mnist", DEFAULT_PROJECT)
    intake = draft_intake(store, draft(FILES))
    commit_intake(store, intake, request, progress=lambda *step: steps.append(step))
    total = sum(map(len, FILES.values()))
    assert ("hash", total, total) == [step for step in steps if step[0] == "hash"][-1]
    assert ("store", len(SMALL), len(SMALL)) == steps[-1]
    assert sorted(steps, key=lambda step: (step[0], step[1])) == steps


def test_usage(store: Store, draft: Draft) -> None:
    """What a version shares with others is not its own."""
    tensors = [random.Random(n).randbytes(1 << 20) for n in range(3)]
    commit(store, draft({"m": safetensors(*tensors[:2]), "c": b"tiny"}))
    commit(store, draft({"m": safetensors(*tensors[:2])[:-1] + b"x", "c": b"tiny"}))
    one, both = (
        usage(store.index, store.content, select(store.index, where))
        for where in (Location(DEFAULT_PROJECT, "mnist", number=1), None)
    )
    assert one.unique + one.shared == one.logical
    assert (1 << 20) <= one.shared < one.logical
    assert (2, 4) == (both.versions, both.files)
    assert sum(packs_of(store).values()) + 8 == both.unique == both.freed_by_deleting
    assert 0 == both.shared
    assert both == usage_of_all(store.index, store.content)


@pytest.mark.slow
def test_usage_looks_at_few_neighbours(store: Store, draft: Draft) -> None:
    """Versions that share everything are asked until nothing is left to share, not all of them."""
    for number in range(40):
        commit(store, draft({"m": LARGE, "number": bytes([number])}))
    versions = select(store.index, None)
    one = usage(store.index, store.content, versions[7:8])
    assert (1, len(LARGE)) == (one.unique, one.shared)
    read = 0

    class Counting:
        """The index, counting the rows of layouts that are read."""

        @contextlib.contextmanager
        def read(self) -> Iterator[Any]:
            with store.index.read() as view:

                class View:
                    get = view.get

                    def scan(self, table: str, *args: Any, **more: Any) -> Iterator[Any]:
                        nonlocal read
                        for row in view.scan(table, *args, **more):
                            read += table == "layout"
                            yield row

                yield View()

    assert one == usage(Counting(), store.content, versions[7:8])  # type: ignore[arg-type]
    assert read <= 6


def test_usage_is_the_same_whatever_the_index_has(
    store: Store, draft: Draft, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Into an index that has no content yet: it is counted, and not loaded."""
    monkeypatch.setattr(usage_module, "_JOINED_FROM", 2)
    for name in ("one", "two", "three"):
        commit(store, draft({"m": LARGE, "c": b"tiny"}), name)
    tensors = [random.Random(n).randbytes(1 << 20) for n in range(3)]
    for last in (b"x", b"y"):
        commit(store, draft({"m": safetensors(*tensors)[:-1] + last}), "four")
    before = usage_of_all(store.index, store.content)
    assert sum(packs_of(store).values()) + 3 * 4 == before.unique
    where = Location(DEFAULT_PROJECT, "four", number=0)
    one = usage(store.index, store.content, select(store.index, where))
    assert 0 < one.shared

    store.log.rebuild(IndexMemory())
    assert before == usage_of_all(store.index, store.content)
    assert [] == _keys(store, "content")
    for number in (0, 1):
        where = Location(DEFAULT_PROJECT, "four", number=number)
        assert one == usage(store.index, store.content, select(store.index, where))
        assert before == usage_of_all(store.index, store.content)


def test_usage_says_what_it_cannot_count(store: Store, draft: Draft) -> None:
    commit(store, draft({"m": LARGE}), "one")
    commit(store, draft({"m": LARGE, "c": b"tiny"}), "two")
    (lost,) = select(store.index, Location(DEFAULT_PROJECT, "two", number=0))
    store.log.rebuild(IndexMemory())
    store.objects.delete(layout_key(lost.layout))

    found = usage_of_all(store.index, store.content)
    assert (2, 1, len(LARGE)) == (found.versions, found.unknown, found.unique)
    kept = select(store.index, Location(DEFAULT_PROJECT, "one", number=0))
    assert 1 == usage(store.index, store.content, kept).unknown


def _keys(store: Store, table: str) -> list[bytes]:
    with store.index.read() as view:
        return [key for key, _ in view.scan(table)]


def test_descriptors_are_given_back(store: Store, draft: Draft) -> None:
    """Neither success nor failure leaks any."""
    commit(store, draft({"a": b"a" * 300_000}))
    before = len(os.listdir("/proc/self/fd"))
    path = draft(FILES)
    with (path / "model.bin").open("ab"), pytest.raises(ConflictError):
        commit(store, path)
    commit(store, path)
    store.packs.close()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_lease_is_given_back(store: Store, draft: Draft, tmp_path: Path) -> None:
    """After a failed commit the draft can be written again at once."""
    path = draft(FILES)
    with (path / "config.json").open("ab"), pytest.raises(ConflictError):
        commit(store, path)
    fd = os.open(path / "model.bin", os.O_WRONLY | os.O_NONBLOCK)
    assert fcntl.F_UNLCK == fcntl.fcntl(fd, fcntl.F_GETLEASE)
    os.close(fd)
