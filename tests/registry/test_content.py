"""What is inside versions: lookups from the index alone, bytes put together and verified."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mregfs.errors import CorruptError, InvalidError, NotFoundError
from mregfs.host.beneath import Beneath
from mregfs.model.digest import BLOCK, block_digests, file_digest
from mregfs.model.layout import (
    Chunk,
    Extent,
    FileLayout,
    Layout,
    PackInfo,
    encode_layout,
    layout_key,
    make_layout,
)
from mregfs.model.manifest import (
    Manifest,
    ManifestEntry,
    encode_manifest,
    make_manifest,
    manifest_digest,
    manifest_key,
)
from mregfs.model.records import VersionRecord
from mregfs.registry.read import content as module
from mregfs.registry.read.blocks import Blocks
from mregfs.registry.read.content import Content
from mregfs.registry.read.open_content import OpenContent
from mregfs.stores.index_memory import IndexMemory
from mregfs.stores.objects_memory import ObjectsMemory
from mregfs.stores.packs_dir import PacksDirectory

A, B = "a" * 32, "b" * 32
MISSING = 1 << 20
"""Bytes of a pack that is not there."""


def digest_of(data: bytes) -> str:
    return file_digest(block_digests(data), len(data)).hex()


def file(path: str, data: bytes, **more: Any) -> ManifestEntry:
    return ManifestEntry(path, "file", len(data), digest=digest_of(data), **more)


class World:
    """A version made by hand, and a Content over it."""

    def __init__(self, path: Path) -> None:
        self.objects = ObjectsMemory()
        self.index = IndexMemory()
        self.packs = PacksDirectory(Beneath.at(path.parent))
        self.content = self.look()

    def look(self, **more: Any) -> Content:
        return Content(self.objects, self.packs, self.index, **more)

    def layout(self, files: dict[int, FileLayout]) -> Layout:
        """Return the layout of files in the packs that there are."""
        used = {extent.pack for each in files.values() for extent in each.extents}
        there = {pack: self.packs.size(pack) for pack in self.packs.list()}
        return make_layout(files, {pack: PackInfo(there.get(pack, MISSING)) for pack in used})

    def version(
        self, entries: list[ManifestEntry], files: dict[str, FileLayout], inode: int = 2000
    ) -> VersionRecord:
        manifest = make_manifest(entries)
        positions = {entry.path: n for n, entry in enumerate(manifest.entries, 1)}
        layout = self.layout({positions[path]: where for path, where in files.items()})
        data = encode_manifest(manifest)
        digest, layout_id = manifest_digest(data), f"{inode:032x}"
        self.objects.create(manifest_key(digest), data)
        self.objects.create(layout_key(layout_id), encode_layout(layout))
        return VersionRecord(
            inode=inode,
            artifact=1500,
            number=0,
            digest=digest,
            layout=layout_id,
            size=manifest.size,
            files=manifest.files,
            entries=len(manifest.entries),
            created_at_ns=0,
            author="ann",
        )


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "packs")


def test_a_version_is_loaded_once(world: World) -> None:
    """Before, it is not ready; after, the objects are not needed any more."""
    version = world.version([file("a", b"abc")], {"a": FileLayout(3, b"abc")})
    assert not world.content.ready(version)
    world.content.ensure(version)
    assert world.content.ready(version)
    for prefix in ("manifests/", "layouts/"):
        for key in list(world.objects.list(prefix)):
            world.objects.delete(key)
    world.content.ensure(version)
    entry = world.content.find(version, 0, "a")
    assert entry is not None
    with world.content.open(version, entry.position) as opened:
        assert ("inline", b"bc") == (opened.read_path, opened.read(1, 10))


def test_missing_objects_are_damage(world: World) -> None:
    """A version whose manifest or layout is gone cannot be read."""
    version = world.version([file("a", b"abc")], {"a": FileLayout(3, b"abc")})
    world.objects.delete(layout_key(version.layout))
    with pytest.raises(CorruptError, match="layouts/"):
        world.content.ensure(version)


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({}, "where the bytes of 'a'"),
        ({1: FileLayout(2, b"ab")}, "where the bytes of 'a'"),
        ({1: FileLayout(3, b"abc"), 2: FileLayout(0, b"")}, "another version"),
    ],
)
def test_a_layout_of_something_else_is_damage(
    world: World, files: dict[int, FileLayout], problem: str
) -> None:
    """Manifest and layout must fit each other."""
    version = world.version([file("a", b"abc")], {"a": FileLayout(3, b"abc")})
    world.objects.delete(layout_key(version.layout))
    world.objects.create(layout_key(version.layout), encode_layout(world.layout(files)))
    with pytest.raises(CorruptError, match=problem):
        world.content.ensure(version)


def test_looking_around(world: World) -> None:
    """By position, by name and by path; everything has the position of its manifest entry."""
    version = world.version(
        [
            ManifestEntry("d", "directory"),
            ManifestEntry("d/e", "directory"),
            file("d/é", b"x", executable=True),
            ManifestEntry("l", "symlink", target="d/é"),
        ],
        {"d/é": FileLayout(1, b"x")},
    )
    world.content.ensure(version)
    look = world.content
    root = look.entry(version, 0)
    assert root is not None
    assert ("directory", 0) == (root.kind, root.parent)
    found = dict(look.walk(version))
    assert ["d", "d/e", "d/é", "l"] == list(found)
    assert [1, 2, 3, 4] == [entry.position for entry in found.values()]
    assert [0, 1, 1, 0] == [entry.parent for entry in found.values()]
    for path, entry in found.items():
        assert entry == look.entry(version, entry.position)
        assert entry == look.find(version, entry.parent, entry.name)
        assert entry == look.find_path(version, f"/{path}/")
        assert path == look.path(version, entry.position)
    assert (True, bytes.fromhex(digest_of(b"x"))) == (found["d/é"].executable, found["d/é"].digest)
    assert ("d/é", 4) == (found["l"].target, found["l"].size)
    assert look.entry(version, 5) is None
    assert look.find(version, 0, "x") is None
    assert look.find(version, 0, "x" * 300) is None
    assert look.find_path(version, "d/é/x") is None
    for position, error in ((1, InvalidError), (0, InvalidError), (9, NotFoundError)):
        with pytest.raises(error):
            look.open(version, position)


def test_versions_do_not_mix(world: World) -> None:
    """The last entry of one is beside the first of the next."""
    first = world.version([file("a", b"1")], {"a": FileLayout(1, b"1")}, inode=2000)
    second = world.version([file("b", b"2")], {"b": FileLayout(1, b"2")}, inode=2002)
    world.content.ensure(first)
    world.content.ensure(second)
    assert ["a"] == [entry.name for entry in world.content.children(first, 0)]
    assert ["b"] == [entry.name for entry in world.content.children(second, 0)]


def test_children_come_in_batches(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """From any name on, each once, in order, and without a view between two of them."""
    monkeypatch.setattr(module, "_BATCH", 3)
    names = [f"f{number:02}" for number in range(7)]
    version = world.version(
        [file(name, b"x") for name in names], {name: FileLayout(1, b"x") for name in names}
    )
    world.content.ensure(version)
    for start in ("", "f", "f03", "f03\0", "f99"):
        expected = [name for name in names if name >= start]
        assert expected == [each.name for each in world.content.children(version, 0, start)]


DATA = bytes(range(256)) * (2 * BLOCK // 256) + b"tail"


@pytest.fixture
def parted(world: World) -> tuple[World, VersionRecord]:
    """A file of two blocks and a bit, in four extents over two packs."""
    third = len(DATA) // 3
    world.packs.create(A, [b"..", DATA[:third], b"..", DATA[2 * third :]])
    world.packs.create(B, [DATA[third : 2 * third]])
    extents = (
        Extent(A, 2, 100),
        Extent(A, 102, third - 100),
        Extent(B, 0, third),
        Extent(A, third + 4, len(DATA) - 2 * third),
    )
    place = FileLayout(len(DATA), extents=extents, blocks=block_digests(DATA))
    version = world.version([file("m", DATA)], {"m": place})
    world.content.ensure(version)
    return world, version


@given(st.integers(0, len(DATA) + 5), st.integers(0, len(DATA)))
def test_any_range_is_the_same_range_of_the_file(offset: int, length: int) -> None:
    """However extents and blocks lie under it."""
    extents = tuple(Extent(A, start, 70_000) for start in range(0, 140_000, 70_000))
    data = DATA[:140_000]

    class Pack:
        size = len(DATA)

        def backing(self) -> int:
            return 99

        def read(self, offset: int, length: int) -> bytes:
            return DATA[offset : offset + length]

        def is_cached(self, offset: int, length: int) -> bool:
            return 0 <= offset < offset + length <= self.size

        def close(self) -> None:
            pass

    class Packs:
        def open(self, pack: str) -> Pack:
            return Pack()

        def open_local(self, pack: str) -> Pack:
            return Pack()

    blocks = Blocks("m", block_digests(data))
    opened = OpenContent("m", FileLayout(len(data), extents=extents), Packs(), blocks)  # type: ignore[arg-type]
    assert data[offset : offset + length] == opened.read(offset, length)
    wanted = data[offset : offset + length]
    assert opened.read_cached(offset, length) in (None, wanted)
    opened.read(0, len(data))
    assert wanted == opened.read_cached(offset, length)


def test_extents(parted: tuple[World, VersionRecord]) -> None:
    """Runs in one pack are read at once; there is no file that the kernel could read itself."""
    world, version = parted
    with world.content.open(version, 1) as opened:
        assert DATA == opened.read(0, len(DATA))
        assert DATA[BLOCK - 3 : BLOCK + 3] == opened.read(BLOCK - 3, 6)
        assert ("extents", -1) == (opened.read_path, opened.backing())
        assert 3 == len(opened._extents)


@pytest.mark.disk
def test_what_was_read_before_needs_no_thread(parted: tuple[World, VersionRecord]) -> None:
    """Block by block, for all who open the file."""
    world, version = parted
    with world.content.open(version, 1) as opened:
        assert opened.read_cached(0, 10) is None
        opened.read(5, 1)
        assert DATA[:10] == opened.read_cached(0, 10)
        assert opened.read_cached(BLOCK - 1, 2) is None
        assert b"" == opened.read_cached(len(DATA), 5)
    with world.content.open(version, 1) as opened:
        assert DATA[:10] == opened.read_cached(0, 10)


@pytest.mark.parametrize(
    ("policy", "first", "second"),
    [("first-read", True, False), ("always", True, True), ("commit", False, False)],
)
def test_policies(
    parted: tuple[World, VersionRecord],
    expected_warnings: Any,
    policy: Any,
    first: bool,
    second: bool,
) -> None:
    """Damage is noticed at the first read of a block, at each, or never."""
    world, version = parted
    expected_warnings.expect("is damaged")
    content = world.look(verification=policy)
    path = Path(world.packs.path_of(B))
    path.chmod(0o644)
    whole = path.read_bytes()

    def noticed() -> bool:
        try:
            with content.open(version, 1) as opened:
                opened.read(len(DATA) // 2, 10)
        except CorruptError:
            return True
        return False

    path.write_bytes(whole[:-1] + b"?")
    assert first == noticed()
    path.write_bytes(whole)
    assert not noticed()
    path.write_bytes(whole[:-1] + b"?")
    assert second == noticed()


def test_missing_and_short_packs(
    parted: tuple[World, VersionRecord], expected_warnings: Any
) -> None:
    """Are damage, and said to be."""
    world, version = parted
    expected_warnings.expect("too short|no pack")
    path = Path(world.packs.path_of(B))
    path.chmod(0o644)
    path.write_bytes(b"short")
    with (
        world.content.open(version, 1) as opened,
        pytest.raises(CorruptError, match="too short"),
    ):
        opened.read(0, len(DATA))
    world.packs.delete(B)
    with world.content.open(version, 1) as opened, pytest.raises(CorruptError, match="no pack"):
        opened.read(0, len(DATA))


def test_a_whole_pack(world: World) -> None:
    """Has a descriptor for the kernel, unless the pack holds more than the file."""
    world.packs.create(A, [DATA])
    world.packs.create(B, [DATA, b"x"])
    places = {
        name: FileLayout(
            len(DATA), extents=(Extent(pack, 0, len(DATA)),), blocks=block_digests(DATA)
        )
        for name, pack in (("a", A), ("b", B))
    }
    version = world.version([file("a", DATA), file("b", DATA)], places)
    world.content.ensure(version)
    with world.content.open(version, 1) as a, world.content.open(version, 2) as b:
        assert ("whole", "extents", -1) == (a.read_path, b.read_path, b.backing())
        assert DATA == Path(f"/proc/self/fd/{a.backing()}").read_bytes()


def test_chunks_are_found_where_they_stand(world: World) -> None:
    """A chunk that two extents cut in two is not offered."""
    chunks = tuple(Chunk(length, bytes([length]) * 16) for length in (10, 20, 30))
    place = FileLayout(60, extents=(Extent(A, 5, 25), Extent(B, 7, 35)), chunks=chunks)
    version = world.version([file("m", b"m" * 60)], {"m": place})
    world.content.ensure(version)
    with world.index.read() as view:
        found = {key[0]: module.rows.parse_chunk(row) for key, row in view.scan("chunk")}
    assert {10: (A, 5), 30: (B, 12)} == {n: (p.pack, p.offset) for n, p in found.items()}


def test_an_empty_version(world: World) -> None:
    """Has its own directory, and nothing in it."""
    version = world.version([], {})
    world.content.ensure(version)
    assert world.content.ready(version)
    assert [] == list(world.content.children(version, 0))
    assert Manifest(()) == world.content.manifest(version)
