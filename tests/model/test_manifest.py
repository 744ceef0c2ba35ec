"""Manifests: one form for one content, and nothing hostile gets in."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mregfs.errors import CorruptError, InvalidError
from mregfs.model import manifest as module
from mregfs.model.digest import EMPTY_DIGEST
from mregfs.model.manifest import (
    Manifest,
    ManifestEntry,
    decode_manifest,
    encode_manifest,
    make_manifest,
    manifest_digest,
    path_problem,
    symlink_problem,
)

names = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=20
).filter(lambda name: name not in (".", ".."))


@st.composite
def entry_lists(draw: st.DrawFn) -> list[ManifestEntry]:
    """Draw a tree, in any order."""
    entries: dict[str, ManifestEntry] = {}
    directories = [""]
    for name in draw(st.lists(names, max_size=12)):
        parent = draw(st.sampled_from(directories))
        path = f"{parent}/{name}" if parent else name
        if path in entries or len(path.encode()) > 1000:
            continue
        kind = draw(st.sampled_from(("file", "directory", "symlink")))
        if kind == "directory":
            directories.append(path)
            entries[path] = ManifestEntry(path, kind)
        elif kind == "symlink":
            entries[path] = ManifestEntry(path, kind, target="a/b")
        else:
            size, executable = draw(st.integers(0, 2**40)), draw(st.booleans())
            entries[path] = ManifestEntry(path, kind, size, executable, EMPTY_DIGEST)
    return draw(st.permutations(list(entries.values())))


@given(entry_lists())
def test_order_does_not_matter_and_nothing_is_lost(entries: list[ManifestEntry]) -> None:
    """Any order of the same entries gives the same bytes; decoding gives the entries back."""
    manifest = make_manifest(entries)
    data = encode_manifest(manifest)
    assert data == encode_manifest(make_manifest(reversed(entries)))
    assert manifest == decode_manifest(data, manifest_digest(data))
    assert set(entries) == set(manifest.entries)


def test_a_directory_comes_before_what_is_in_it() -> None:
    """Sorted by names, not by the bytes of paths: `a.b` is after all of `a/`."""
    made = make_manifest(
        [
            ManifestEntry("a.b", "directory"),
            ManifestEntry("a/z", "directory"),
            ManifestEntry("a", "directory"),
        ]
    )
    assert ["a", "a/z", "a.b"] == [entry.path for entry in made.entries]


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("", "name"),
        ("/a", "name"),
        ("a//b", "name"),
        ("a/", "name"),
        (".", "name"),
        ("a/../b", "name"),
        ("a\0b", "zero"),
        ("\udcff", "UTF-8"),
        ("x" * 256, "255"),
        ("é" * 128, "255"),
        ("/".join(["x" * 200] * 21), "4095"),
        ("é" * 127, ""),
        ("a b\n\t€", ""),
    ],
)
def test_paths(path: str, problem: str) -> None:
    """Only paths that any file system takes, and that stay inside."""
    found = path_problem(path)
    assert problem in found
    assert bool(problem) == bool(found)


@pytest.mark.parametrize(
    ("path", "target", "problem"),
    [
        ("a", "b", ""),
        ("a", "b/c", ""),
        ("d/a", "../b", ""),
        ("d/e/a", "../../b/c", ""),
        ("d/a", "./../b", ""),
        ("a", "../b", "out of"),
        ("d/a", "../../b", "out of"),
        ("d/a", "../..", "out of"),
        ("d/a", "..", ""),
        ("a", "/etc/passwd", "absolute"),
        ("a", "b/../c", "beginning"),
        ("a", "", "nothing"),
        ("a", "b\0", "nothing"),
        ("a", "\udcff", "UTF-8"),
        ("a", "x/" * 3000, "4095"),
    ],
)
def test_symlinks(path: str, target: str, problem: str) -> None:
    """A symlink leads nowhere but into its own version."""
    found = symlink_problem(path, target)
    assert problem in found
    assert bool(problem) == bool(found)


FILE = {"path": "a", "kind": "file", "size": 0, "digest": str(EMPTY_DIGEST)}


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"entries": [FILE], "format": 2}, "format 2"),
        ({"entries": [FILE, FILE]}, "there twice"),
        ({"entries": [FILE | {"path": "b"}, FILE]}, "out of order"),
        ({"entries": [FILE | {"path": "d/a"}]}, "no directory"),
        ({"entries": [FILE, FILE | {"path": "a/b"}]}, "no directory"),
        ({"entries": [FILE | {"path": "../a"}]}, "as a name"),
        ({"entries": [FILE | {"size": -1}]}, "size -1"),
        ({"entries": [FILE | {"size": 2**61}]}, "size"),
        ({"entries": [FILE | {"digest": "ab"}]}, "no digest"),
        ({"entries": [FILE | {"digest": "Z" * 64}]}, "no digest"),
        ({"entries": [FILE | {"kind": "fifo"}]}, "'fifo'"),
        ({"entries": [FILE | {"target": "b"}]}, "target"),
        ({"entries": [{"path": "a", "kind": "directory", "size": 1}]}, "with a size"),
        ({"entries": [{"path": "a", "kind": "symlink", "target": "/b"}]}, "absolute"),
        ({"entries": [FILE | {"more": 1}]}, "unknown field"),
        ({"entries": [FILE | {"size": "1"}]}, "Expected `int`"),
        ({}, "entries"),
        ([], "Expected `object`"),
    ],
)
def test_hostile_manifests_are_refused(document: object, problem: str) -> None:
    """Also those whose digest is right."""
    if isinstance(document, dict) and "entries" in document:
        document = {"format": 1} | document
    data = msgspec.json.encode(document, order="deterministic") + b"\n"
    with pytest.raises(CorruptError, match=problem):
        decode_manifest(data, manifest_digest(data))


def test_only_the_canonical_form_is_accepted() -> None:
    """Two byte strings never mean the same content."""
    data = encode_manifest(make_manifest([ManifestEntry("a", "directory")]))
    for other in (data + b"\n", data.replace(b":", b": ", 1), data.replace(b"1", b"1.0")):
        with pytest.raises(CorruptError):
            decode_manifest(other, manifest_digest(other))


def test_another_digest_is_refused() -> None:
    """A manifest is what its digest says."""
    data = encode_manifest(Manifest(()))
    with pytest.raises(CorruptError, match="its digest is"):
        decode_manifest(data, "0" * 64)


def test_the_digest_is_of_a_domain_of_its_own() -> None:
    """No file can have a manifest's digest: a file's never begins with the domain's bytes."""
    from blake3 import blake3

    data = encode_manifest(Manifest(()))
    assert blake3(data).hexdigest() != manifest_digest(data)
    assert blake3(b"mregfs-manifest-v1\n" + data).hexdigest() == manifest_digest(data)


def test_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither size nor number of entries is unbounded."""
    manifest = make_manifest([ManifestEntry("a", "directory"), ManifestEntry("b", "directory")])
    data = encode_manifest(manifest)
    monkeypatch.setattr(module, "MAX_ENTRIES", 1)
    with pytest.raises(CorruptError, match="more than 1"):
        decode_manifest(data, manifest_digest(data))
    with pytest.raises(InvalidError, match="more than 1"):
        make_manifest(manifest.entries)
    monkeypatch.setattr(module, "MAX_MANIFEST_SIZE", 10)
    with pytest.raises(CorruptError, match="too large"):
        decode_manifest(data, manifest_digest(data))


def test_figures() -> None:
    """Size and number of files are what the entries say."""
    made = make_manifest(
        [
            ManifestEntry("a", "file", 3, digest=str(EMPTY_DIGEST)),
            ManifestEntry("b", "file", 4, digest=str(EMPTY_DIGEST)),
            ManifestEntry("c", "directory"),
        ]
    )
    assert (7, 2) == (made.size, made.files)
