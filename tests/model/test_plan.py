"""Where the files of a commit go, decided without a file."""

import itertools

from mregfs.model.digest import BLOCK
from mregfs.model.layout import Chunk, Extent, FileLayout
from mregfs.model.plan import (
    ALIGNMENT,
    INLINE,
    LARGE,
    SHARED_PACK,
    Hashed,
    Known,
    Plan,
    in_parts,
    make_plan,
)

NOTHING = Known({}, {}, {}, {}, {})


def hashed(sizes: dict[str, int], **same: str) -> dict[str, Hashed]:
    """Return made-up digests: of each path its own, or that of the path in `same`."""
    return {
        path: Hashed(
            same.get(path, path).encode().ljust(32, b"."),
            b"b" * 32 * (-(-size // BLOCK)) if size > BLOCK else b"",
            b"x" * size if size <= INLINE else None,
        )
        for path, size in sizes.items()
    }


def planned(sizes: dict[str, int], known: Known = NOTHING, **same: str) -> Plan:
    numbers = itertools.count()
    return make_plan(sizes, hashed(sizes, **same), known, lambda: f"small{next(numbers)}")


def test_tiny_files_are_in_the_layout() -> None:
    plan = planned({"a": 0, "b": INLINE})
    assert {"a": FileLayout(0, b""), "b": FileLayout(INLINE, b"x" * INLINE)} == plan.files
    assert ({}, {}, (), ()) == (plan.packs, plan.adoptions, plan.shared, plan.parts)


def test_small_files_share_a_pack_at_aligned_places() -> None:
    sizes = {"b": INLINE + 1, "a": LARGE - 1, "c": INLINE + 2}
    plan = planned(sizes)
    (pack,) = plan.shared
    assert ("a", "b", "c") == pack.paths
    ends = 0
    for path in pack.paths:
        (extent,) = plan.files[path].extents
        assert Extent("small0", ends, sizes[path]) == extent
        ends = -(-(extent.offset + extent.length) // ALIGNMENT) * ALIGNMENT
    assert ends == pack.size == plan.new_packs()["small0"]


def test_a_shared_pack_ends_when_it_is_large() -> None:
    count = SHARED_PACK // (LARGE - 1) + 3
    plan = planned({f"{number:04}": LARGE - 1 for number in range(count)})
    first, second = plan.shared
    assert count == len(first.paths) + len(second.paths)
    assert first.size > SHARED_PACK >= first.size - LARGE


def test_a_large_file_is_a_pack() -> None:
    plan = planned({"m": LARGE}, Known({}, {}, {}, {}, {"m": "mine"}))
    assert {"m": "mine"} == plan.adoptions
    assert (Extent("mine", 0, LARGE),) == plan.files["m"].extents
    assert {"mine": LARGE} == plan.new_packs()
    assert () == plan.shared_packs()


def test_what_is_twice_in_a_commit_is_stored_once() -> None:
    """Small or large; of the large one the copy keeps its own chunks."""
    sizes = {"a": 5000, "b": 5000, "m": LARGE, "n": LARGE}
    known = Known({}, {"n": (Chunk(LARGE, b"s" * 16),)}, {}, {}, {"m": "mine"})
    plan = planned(sizes, known, b="a", n="m")
    assert plan.files["a"].extents == plan.files["b"].extents
    assert plan.files["m"].extents == plan.files["n"].extents
    assert (Chunk(LARGE, b"s" * 16),) == plan.files["n"].chunks
    assert {"mine", "small0"} == plan.new_packs().keys()


def test_what_is_stored_is_not_stored_again() -> None:
    sizes = {"a": 5000, "m": 2 * LARGE}
    stored = {path: known.digest for path, known in hashed(sizes).items()}
    known = Known(
        files={
            stored["a"]: (Extent("old", 64, 5000),),
            stored["m"]: (Extent("old", 9000, LARGE), Extent("older", 0, LARGE)),
        },
        chunks={},
        parts={},
        packs={"old": 1 << 30, "older": LARGE},
        own={},
    )
    plan = planned(sizes, known)
    assert {} == plan.new_packs()
    assert ("old", "older") == plan.shared_packs()
    assert {"old": 1 << 30, "older": LARGE} == {p: info.size for p, info in plan.packs.items()}


def test_of_a_file_in_parts_only_what_is_new_is_stored() -> None:
    """Neighbours are one extent, stored or new, and one piece to read."""
    mib = 1 << 20
    places = (
        Extent("old", 0, mib),
        Extent("old", mib, mib),
        None,
        None,
        Extent("old", 0, mib),
        None,
    )
    chunks = tuple(Chunk(mib, bytes(16)) for _ in places)
    known = Known({}, {"m": chunks}, {"m": places}, {"old": 2 * mib}, {"m": "mine"})
    plan = planned({"m": 6 * mib}, known)
    (parts,) = plan.parts
    assert ((2 * mib, 2 * mib), (5 * mib, mib)) == parts.fresh
    assert 3 * mib == parts.size == plan.new_packs()["mine"]
    assert (
        Extent("old", 0, 2 * mib),
        Extent("mine", 0, 2 * mib),
        Extent("old", 0, mib),
        Extent("mine", 2 * mib, mib),
    ) == plan.files["m"].extents
    assert {} == plan.adoptions


def test_a_file_that_is_stored_in_parts_altogether_makes_no_pack() -> None:
    chunks = (Chunk(LARGE, bytes(16)), Chunk(LARGE, bytes(16)))
    places = (Extent("old", LARGE, LARGE), Extent("old", 0, LARGE))
    known = Known({}, {"m": chunks}, {"m": places}, {"old": 2 * LARGE}, {"m": "mine"})
    plan = planned({"m": 2 * LARGE}, known)
    assert ((), {}) == (plan.parts, plan.new_packs())
    assert ("old",) == plan.shared_packs()


def test_a_part_may_be_of_a_file_of_the_same_commit() -> None:
    chunks = (Chunk(LARGE, bytes(16)),) * 2
    known = Known(
        {}, {"b": chunks}, {"b": (Extent("a's", 0, LARGE), None)}, {}, {"a": "a's", "b": "b's"}
    )
    plan = planned({"a": 4 * LARGE, "b": 2 * LARGE}, known)
    assert {"a's": 4 * LARGE, "b's": LARGE} == plan.new_packs()
    assert {"a": "a's"} == plan.adoptions


def test_a_quarter_is_enough_to_store_a_file_in_parts() -> None:
    assert in_parts(4000, [Extent("p", 0, 1000), None])
    assert not in_parts(4001, [Extent("p", 0, 1000), None])
    assert not in_parts(LARGE, [])
