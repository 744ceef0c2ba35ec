"""Moving, dropping, rolling back and protecting aliases (rules.md)."""

import pytest

from mregfs.errors import ConflictError, ForbiddenError, InvalidError, NotFoundError
from mregfs.model.commands import DropAlias, MoveAlias, Protect, Rollback, Unprotect


def test_an_alias_moves_within_its_collection(mnist):
    assert {
        "project": "default/default",
        "name": "classifier",
        "kind": "collection",
        "alias": "production",
        "version": "v1",
        "previous": "v0",
        "moved": True,
    } == mnist.do(MoveAlias(mnist.at("classifier:production"), mnist.at("classifier:v1")))


def test_a_version_that_is_linked_can_be_named_as_in_its_artifact(mnist):
    command = MoveAlias(mnist.at("classifier:production"), mnist.at("mnist:v2"))

    assert "v1" == mnist.do(command)["version"]


def test_a_version_that_is_not_linked_cannot(mnist):
    command = MoveAlias(mnist.at("classifier:production"), mnist.at("mnist:v1"))

    mnist.refuse(command, InvalidError, "v1 of artifact 'mnist'", "link it first")


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("classifier", InvalidError),
        ("classifier:v0", InvalidError),
        ("classifier:latest", InvalidError),
        ("classifier:production@{1}", InvalidError),
        ("nothing:production", NotFoundError),
    ],
)
@pytest.mark.parametrize("command", [DropAlias, lambda at: MoveAlias(at, at), Unprotect])
def test_only_aliases_that_people_give_move(mnist, target, error, command):
    mnist.refuse(command(mnist.at(target)), error)


def test_an_alias_is_dropped_and_its_history_stays(mnist):
    assert {
        "project": "default/default",
        "name": "classifier",
        "kind": "collection",
        "alias": "production",
        "previous": "v0",
    } == mnist.run("rm collections/classifier/production --reason 'too old'")
    assert {"latest": "v1"} == mnist.aliases("classifier")
    moves = list(mnist.state.reflog(mnist.owner("classifier").inode, "production"))
    assert [("ann", "too old", None, 0), ("ann", "", 0, None)] == [
        (move.author, move.reason, move.number, move.previous) for move in moves
    ]
    mnist.refuse("rm classifier:production", NotFoundError, "'production'")


def test_dropping_can_expect_too(mnist):
    mnist.refuse("rm classifier:production --expect v1", ConflictError, "points at v0")
    mnist.run("rm classifier:production --expect v0")


def test_latest_cannot_be_dropped(mnist):
    mnist.refuse("rm artifacts/mnist/latest", InvalidError, "kept by the registry")


# ---- rollback


def test_rollback_goes_one_move_back_and_back_again(mnist):
    mnist.run("ln v1 classifier:production")

    result = mnist.run("rollback classifier:production")
    assert ("v0", "v1") == (result["version"], result["previous"])
    assert "v1" == mnist.run("rollback classifier:production")["version"]
    assert [(1, 0), (0, 1), (1, 0), (0, None)] == mnist.history("classifier", "production")


def test_rollback_goes_any_number_of_moves_back_or_to_a_time_or_a_version(mnist):
    mnist.run("ln v1 classifier:production")  # entry 3
    mnist.run("ln mnist:v1 classifier:production")  # entry 4, v2

    assert "v0" == mnist.run("rollback classifier:production --to 2")["version"]
    assert "v1" == mnist.run("rollback classifier:production --to v1")["version"]
    assert (
        "v1"
        == mnist.run("rollback classifier:production --to '@{1970-01-01T00:00:03Z}'")["version"]
    )
    assert "v0" == mnist.run("rollback classifier:production --to 1970-01-01T00:00:02Z")["version"]
    assert "v1" == mnist.run("rollback 'classifier:production@{1}'")["version"]


def test_rollback_brings_a_dropped_alias_back(mnist):
    mnist.run("rm classifier:production")

    result = mnist.run("rollback classifier:production")
    assert ("v0", None) == (result["version"], result["previous"])


def test_rollback_to_nothing_is_refused(mnist):
    mnist.refuse("rollback classifier:production", NotFoundError, "points at nothing")
    mnist.refuse("rollback classifier:never", NotFoundError, "'never'")
    mnist.refuse("rollback classifier:production --to 1969-12-31", NotFoundError)
    mnist.refuse("rollback classifier:latest", InvalidError)
    mnist.refuse(Rollback(mnist.at("classifier:v1")), InvalidError, "names no alias")
    mnist.run("rm classifier:production")
    mnist.run("ln v0 classifier:production")
    mnist.refuse("rollback classifier:production", NotFoundError, "points at nothing")


def test_rollback_passes_over_times_without_the_alias(mnist):
    mnist.run("rm classifier:production")
    mnist.run("ln v1 classifier:production")  # as `ln -sfn` of BusyBox moves it
    mnist.refuse("rollback classifier:production --to 1", NotFoundError, "points at nothing")
    mnist.refuse("rollback 'classifier:production@{1}'", NotFoundError, "points at nothing")

    assert "v0" == mnist.run("rollback classifier:production")["version"]
    mnist.run("rm classifier:production")
    mnist.run("ln v0 classifier:production")
    assert "v1" == mnist.run("rollback classifier:production")["version"]


@pytest.mark.parametrize("alias", ["classifier:production", "mnist:best"])
def test_rollback_does_not_bring_deleted_numbers_back(mnist, alias):
    mnist.run(f"ln v1 {alias}")
    mnist.run(f"rm -f {alias.split(':')[0]}:v0")
    mnist.refuse(f"rollback {alias}", NotFoundError, "v0", "deleted")


def test_rollback_expects_and_is_protected(mnist):
    mnist.run("ln v1 classifier:production\nprotect classifier:production --group ml")
    mnist.refuse("rollback classifier:production --expect v0", ConflictError, "points at v1")
    mnist.refuse("rollback classifier:production", ForbiddenError, principal=mnist.bob)
    mnist.run("rollback classifier:production --expect v1")


# ---- protection


def test_protecting_an_alias_names_the_group(mnist):
    assert {
        "project": "default/default",
        "name": "classifier",
        "alias": "production",
        "group": "ml",
        "previous": None,
    } == mnist.run("protect classifier:production --group ml", mnist.bob)
    protection = mnist.state.protection(mnist.owner("classifier").inode, "production")
    assert ("ml", "bob") == (protection.group, protection.author)
    entries = len(mnist.entries)
    mnist.run("protect classifier:production --group ml")
    assert entries == len(mnist.entries)


def test_only_the_group_moves_drops_or_protects_otherwise_root_included(mnist):
    mnist.run("protect classifier:production --group ml")
    for principal in (mnist.bob, mnist.root):
        for script in (
            "ln v1 classifier:production",
            "ln mnist:v1 classifier:production",
            "rm classifier:production",
            "protect classifier:production --group other",
        ):
            mnist.refuse(
                script,
                ForbiddenError,
                "'production'",
                "'ml'",
                principal.user,
                principal=principal,
            )
    mnist.run("rm classifier:production")
    mnist.refuse("ln v1 classifier:production", ForbiddenError, principal=mnist.bob)
    mnist.run("ln v1 classifier:production")

    assert "ml" == mnist.run("protect classifier:production --group ops")["previous"]
    mnist.refuse("rm classifier:production", ForbiddenError, "'ops'")


def test_an_alias_that_does_not_exist_yet_can_be_protected(mnist):
    mnist.run("protect classifier:gold --group ml")
    mnist.refuse("ln mnist:v0 classifier:gold", ForbiddenError, principal=mnist.bob)
    mnist.refuse("ln mnist:v0 classifier:gold", ForbiddenError, principal=mnist.root)


def test_staying_where_one_is_needs_no_permission(mnist):
    mnist.run("protect classifier:production --group ml")

    assert not mnist.run("ln mnist:v0 classifier:production", mnist.bob)["moved"]


def test_the_group_and_root_take_a_protection_away(mnist):
    mnist.run("protect classifier:production --group ml")
    mnist.refuse("unprotect classifier:production", ForbiddenError, "'ml'", principal=mnist.bob)

    assert "ml" == mnist.run("unprotect classifier:production", mnist.root)["previous"]
    mnist.run("ln v1 classifier:production", mnist.bob)
    mnist.run("protect classifier:production --group ml\nunprotect classifier:production")
    mnist.refuse("unprotect classifier:production", NotFoundError, "not protected")


@pytest.mark.parametrize("group", ["", "a\nb", "a\0b", "x" * 257, "\udcff"])
def test_a_bad_group_is_refused(mnist, group):
    mnist.refuse(Protect(mnist.at("classifier:production"), group), InvalidError)


def test_history_tells_moves_of_one_entry_in_order(mnist):
    mnist.run("ln v1 classifier:production\nln v0 classifier:production\nrm classifier:production")

    assert [(None, 0), (0, 1), (1, 0), (0, None)] == mnist.history("classifier", "production")
    mnist.run("ln mnist:v0 classifier:production")
    assert [(0, None), (None, 0)] == mnist.history("classifier", "production")[:2]
