"""fs-verity is for packs that are in the log: a draft that is given back must stay writable."""

import os

import pytest

from mregfs.errors import ConflictError
from mregfs.model.commands import MoveAlias
from mregfs.model.names import DEFAULT_PROJECT
from mregfs.model.reference import Location
from tests.registry.rig import commit, commit_intake, draft_intake, packs_of

FILES = {"model.bin": bytes(400_000), "small.bin": os.urandom(5000)}


def test_the_packs_of_a_version_are_protected_once_it_is_in_the_log(store, draft):
    protected: list[tuple[int, list[str]]] = []
    store.committer.protect = lambda packs: protected.append((store.log.catch_up(), list(packs)))
    commit(store, draft(FILES))

    ((head, packs),) = protected
    assert 1 == head
    assert packs_of(store).keys() == set(packs)


def test_what_a_failed_commit_gives_back_is_not_protected(store, draft):
    protected: list[str] = []
    store.committer.protect = protected.extend
    commit(store, draft(FILES))
    protected.clear()

    with pytest.raises(ConflictError):
        fail(store, draft({"model.bin": os.urandom(400_000)}))
    assert [] == protected


def fail(store, path) -> None:
    from mregfs.model import operands

    request = operands.commit_request("run", "mnist", DEFAULT_PROJECT)
    where = Location(DEFAULT_PROJECT, "mnist", alias="best")
    wrong = MoveAlias(where, Location(DEFAULT_PROJECT, "mnist", number=0), "v7")
    intake = draft_intake(store, path)
    commit_intake(store, intake, request, wrong)


def test_where_it_is_not_offered_protecting_does_nothing(store, draft):
    commit(store, draft(FILES))
    store.protect_all()
    if store.verity.why_not:
        assert "_guard" not in vars(store)
