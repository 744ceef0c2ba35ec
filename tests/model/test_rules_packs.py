"""Packs in the log: who uses them, when they are free, that retired ones are never used again."""

import pytest

from mregfs.errors import ConflictError, CorruptError, ForbiddenError, InvalidError
from mregfs.model.changes import Entry, LayoutReplaced, PacksRetired, Request, VersionLogged
from mregfs.model.commands import DeleteVersion, Principal, ReplaceLayout, RetirePacks
from mregfs.model.names import DEFAULT_PROJECT
from mregfs.model.reference import Location
from mregfs.model.rules import apply_entry

OWNER = Principal("root", privileged=True)
A, B, C = ("a" * 32, "b" * 32, "c" * 32)
LAYOUT = "1" * 32
V0, V1 = (Location(DEFAULT_PROJECT, "mnist", "artifact", number=number) for number in (0, 1))


@pytest.fixture
def packed(book):
    """A registry in which v0 has brought the packs A and B, and v1 shares B and has brought C."""
    book.do(book.log_version(packs={A: 10, B: 20}))
    book.do(book.log_version(digest="cd" * 32, packs={C: 30}, shared=(B,)))
    return book


def users(book, pack):
    owner = book.owner("mnist")
    numbers = {version.inode: version.number for version in book.state.versions(owner.inode)}
    return [numbers[inode] for inode in book.state.users_of(pack)]


def free(book):
    return [(pack, record.size) for pack, record in book.state.free_packs()]


def test_the_state_knows_who_uses_which_pack(packed):
    assert ([0], [0, 1], [1]) == (users(packed, A), users(packed, B), users(packed, C))
    assert (10, 1) == (packed.state.pack(A).size, packed.state.pack(A).sequence)
    version = packed.state.version(packed.owner("mnist").inode, 1)
    assert [B, C] == packed.state.packs_of(version.inode)
    assert [] == free(packed)


def test_a_deletion_frees_what_no_other_version_uses(packed):
    packed.do(DeleteVersion(V0))
    assert [(A, 10)] == free(packed)
    packed.do(DeleteVersion(V1))
    assert [(A, 10), (B, 20), (C, 30)] == free(packed)


def test_free_packs_are_retired_once(packed):
    packed.do(DeleteVersion(V0))
    assert {"retired": [A]} == packed.do(RetirePacks((A, A)), principal=OWNER)
    assert [] == free(packed)
    entries = len(packed.entries)
    assert {"retired": []} == packed.do(RetirePacks((A,)), principal=OWNER)
    assert entries == len(packed.entries)


def test_a_pack_in_use_is_not_retired(packed):
    packed.do(DeleteVersion(V0))
    packed.refuse(RetirePacks((A, B)), ConflictError, B, principal=OWNER)
    assert [(A, 10)] == free(packed)


def test_only_the_owner_retires_packs_and_packs_anew(packed):
    packed.refuse(RetirePacks((A,)), ForbiddenError, "ann")
    again = ReplaceLayout(V1, LAYOUT, "d" * 32)
    packed.refuse(again, ForbiddenError)


def test_a_commit_cannot_use_what_was_retired_meanwhile(packed):
    packed.do(DeleteVersion(V0))
    packed.do(RetirePacks((A,)), principal=OWNER)
    late = packed.log_version(digest="ef" * 32, shared=(A,))
    packed.refuse(late, ConflictError, A, "retired meanwhile", "commit again")


def test_a_commit_cannot_bring_a_pack_that_was_retired_as_an_orphan(packed):
    """A commit that took longer than the grace period stores its bytes again."""
    orphan = "d" * 32
    assert {"retired": [orphan]} == packed.do(RetirePacks((orphan,)), principal=OWNER)
    late = packed.log_version(digest="ef" * 32, packs={orphan: 5})
    packed.refuse(late, ConflictError, orphan, "was retired", "commit again")


def test_ids_are_never_used_again(packed):
    packed.refuse(packed.log_version(digest="ef" * 32, packs={A: 10}), ConflictError, "already")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"packs": {"A" * 32: 1}}, "not the id"),
        ({"packs": {"../../etc": 1}}, "not the id"),
        ({"packs": {"d" * 32: -1}}, "-1 bytes"),
        ({"packs": {"d" * 32: 2**62}}, "cannot have"),
        ({"packs": {"d" * 32: 1}, "shared": ("d" * 32,)}, "is new"),
        ({"shared": ("x",)}, "not the id"),
    ],
)
def test_what_is_no_pack_is_refused(packed, fields, said):
    packed.refuse(packed.log_version(digest="ef" * 32, **fields), InvalidError, said)


def test_an_unknown_pack_cannot_be_shared(packed):
    late = packed.log_version(digest="ef" * 32, shared=("d" * 32,))
    packed.refuse(late, ConflictError, "unknown to the log")


def test_content_that_was_deleted_meanwhile_is_not_logged_without_bytes(packed):
    """Nothing was stored for it: who commits must do it again."""
    packed.do(DeleteVersion(V1))
    late = packed.log_version(digest="cd" * 32, known=True)
    packed.refuse(late, ConflictError, "deleted meanwhile", "commit again")


def test_a_version_is_packed_anew(packed):
    """Its content stays; the packs that no other version uses are free."""
    version = packed.state.version(packed.owner("mnist").inode, 1)
    new = ReplaceLayout(V1, version.layout, "d" * 32, packs={"e" * 32: 50})
    packed.do(new, principal=OWNER)
    after = packed.state.version(packed.owner("mnist").inode, 1)

    assert ("d" * 32, version.digest, version.inode) == (after.layout, after.digest, after.inode)
    assert ["e" * 32] == packed.state.packs_of(version.inode)
    assert ([0], [(C, 30)]) == (users(packed, B), free(packed))
    packed.refuse(new, ConflictError, "anew meanwhile", principal=OWNER)


def test_a_version_cannot_be_packed_into_a_retired_pack(packed):
    packed.do(DeleteVersion(V0))
    packed.do(RetirePacks((A,)), principal=OWNER)
    layout = packed.state.version(packed.owner("mnist").inode, 1).layout
    late = ReplaceLayout(V1, layout, "d" * 32, shared=(A,))
    packed.refuse(late, ConflictError, A, principal=OWNER)


@pytest.mark.parametrize(
    "fact",
    [
        PacksRetired("", (B,)),
        VersionLogged("default/default", "mnist", 2, "ef" * 32, LAYOUT, 1, 1, 1, packs={A: 1}),
        VersionLogged(
            "default/default", "mnist", 2, "ef" * 32, LAYOUT, 1, 1, 1, shared=("d" * 32,)
        ),
        LayoutReplaced("default/default", "mnist", 0, "d" * 32, "e" * 32),
        LayoutReplaced("default/default", "mnist", 7, "d" * 32, LAYOUT),
    ],
)
def test_facts_that_cannot_follow_are_damage(packed, fact):
    """Such a fact means that the log was changed by other means."""
    entry = Entry(9, "", "", 9 * 10**9, "host", (Request("ann", (fact,)),))
    with pytest.raises(CorruptError, match="log entry 9"):
        apply_entry(packed.view, entry)
