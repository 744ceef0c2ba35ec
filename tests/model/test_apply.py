"""What facts do to the state: inode numbers, keys, times, and facts that cannot be (rules.md)."""

import importlib
from typing import get_args

import msgspec
import pytest

from mregfs.errors import CorruptError
from mregfs.model import changes, commands
from mregfs.model.changes import (
    AliasDropped,
    AliasSet,
    ArtifactCreated,
    CollectionCreated,
    CollectionRenamed,
    Linked,
    OwnerDeleted,
    ProjectCreated,
    Tagged,
    Unlinked,
    VersionDeleted,
    VersionLogged,
)
from mregfs.model.records import InodeRecord
from mregfs.model.rules import Overlay, Stamp, apply_changes
from mregfs.model.state import FIRST_INODE, STATE_TABLES

P = "default/default"


def test_everything_gets_its_inode_numbers_in_the_order_of_the_facts(book):
    book.run("commit one mnist --alias best")  # a version with 3 entries
    book.run("ln mnist:v0 classifier:production")
    first = FIRST_INODE
    entity, project, artifact, version = first, first + 1, first + 9, first + 10
    latest, best, collection, link = version + 4, version + 5, version + 6, version + 7
    found = {
        inode: book.state.inode(inode)
        for inode in range(first, book.state.next_inode())
        if book.state.inode(inode)
    }

    assert {
        entity: InodeRecord("entity", 0, name="default"),
        project: InodeRecord("project", entity, name="default"),
        artifact: InodeRecord("artifact", project, name="mnist"),
        version: InodeRecord("version", artifact, number=0),
        latest: InodeRecord("alias", artifact, name="latest"),
        best: InodeRecord("alias", artifact, name="best"),
        collection: InodeRecord("collection", project, name="classifier"),
        link: InodeRecord("link", collection, number=0),
        link + 1: InodeRecord("alias", collection, name="latest"),
        link + 2: InodeRecord("alias", collection, name="production"),
    } == found
    assert link + 3 == book.state.next_inode()
    assert (version, found[version]) == book.state.inode_at_or_below(version + 3)


def test_a_second_project_shares_its_entity(book):
    book.run("commit one mnist\ncommit one other/digits\ncommit one team/x/digits")

    assert ["default", "team"] == [entity.name for entity in book.state.entities()]
    assert book.state.project(P).inode + 8 <= book.state.project("default/other").inode
    parents = [book.state.inode(project.inode).parent for project in book.state.projects()]
    assert 2 == len(set(parents))


def test_numbers_of_what_was_deleted_stay_its_own(mnist):
    alias = mnist.state.alias(mnist.owner("classifier").inode, "production")
    version = mnist.state.version(mnist.owner("mnist").inode, 0)
    mnist.run("rm -f mnist:v0\nrm -f classifier\nln mnist classifier:production")

    assert ("gone", "production") == (
        mnist.state.inode(alias.inode).kind,
        mnist.state.inode(alias.inode).name,
    )
    assert "gone" == mnist.state.inode_at_or_below(version.inode + 3)[1].kind
    again = mnist.state.alias(mnist.owner("classifier").inode, "production")
    assert again.inode > alias.inode
    assert None is mnist.state.owner_by_inode(alias.owner)


def test_an_alias_keeps_its_inode_while_it_moves(mnist):
    owner = mnist.owner("classifier").inode
    before = mnist.state.alias(owner, "production")
    mnist.run("ln v1 classifier:production", mnist.bob)
    after = mnist.state.alias(owner, "production")

    assert (before.inode, 1, "bob", 3 * 10**9) == (
        after.inode,
        after.number,
        after.author,
        after.moved_at_ns,
    )
    assert ([], ["latest", "production"]) == (
        mnist.state.aliases_of(owner, 0),
        mnist.state.aliases_of(owner, 1),
    )


@pytest.mark.parametrize(
    ("script", "changed"),
    [
        ("ln v1 classifier:production", "classifier"),
        ("rm classifier:production", "classifier"),
        ("ln mnist:v1 classifier", "classifier"),
        ("rm -f classifier:v0", "classifier"),
        ("commit four mnist", "mnist"),
        ("rm mnist:v1", "mnist"),
    ],
)
def test_what_comes_goes_or_moves_changes_the_directory(mnist, script, changed):
    entries = len(mnist.entries)
    mnist.run(script)

    times = {name: mnist.owner(name).changed_at_ns for name in ("mnist", "classifier")}
    assert (entries + 1) * 10**9 == times.pop(changed)
    assert all(time <= entries * 10**9 for time in times.values())


def test_what_is_said_does_not_change_the_directory(mnist):
    before = mnist.owner("mnist").changed_at_ns
    mnist.run("tag mnist a\ndescribe mnist:v0 x\nset mnist a=1\nprotect mnist:best --group ml")

    assert before == mnist.owner("mnist").changed_at_ns


def test_counts_are_those_of_what_is_there(mnist):
    mnist.run("rm mnist:v1")

    assert (2, 3) == (mnist.owner("mnist").count, mnist.owner("mnist").next_number)
    assert (2, 2) == (mnist.owner("classifier").count, mnist.owner("classifier").next_number)


def test_digests_find_versions_and_links(mnist):
    one = b"one".hex().rjust(64, "0")

    assert [(one, 0)] == list(mnist.state.numbers_with_digest(mnist.owner("mnist").inode, one))
    assert [(one, 0)] == list(mnist.state.numbers_with_digest(mnist.owner("classifier").inode, one))
    mnist.run("rm -f mnist:v0")
    for name in ("mnist", "classifier"):
        assert [] == list(mnist.state.numbers_with_digest(mnist.owner(name).inode, one))


def test_only_state_tables_are_touched(mnist):
    mnist.run("protect mnist:best --group g\nrm -f classifier")

    assert {table for table, _, _ in mnist.view.puts()} <= set(STATE_TABLES)


def test_every_change_has_an_effect_and_every_command_a_rule():
    rules = importlib.import_module("mregfs.model.rules.decide")
    effects = importlib.import_module("mregfs.model.rules.apply")

    assert set(get_args(commands.Command)) == set(rules._RULES)
    assert set(get_args(changes.Change)) == set(effects._EFFECTS)


def version(artifact: str = "mnist", number: int = 3) -> VersionLogged:
    return VersionLogged(P, artifact, number, "a" * 64, "1" * 32, 0, 0, 0)


@pytest.mark.parametrize(
    ("fact", "said"),
    [
        (ArtifactCreated("no/where", "a", "model"), "no project no/where"),
        (ArtifactCreated(P, "mnist", "model"), "exists already"),
        (CollectionCreated(P, "mnist", "model"), "exists already"),
        (version("none"), "no artifact default/default/none"),
        (version(number=2), "v2 of default/default/mnist was used before"),
        (VersionDeleted(P, "mnist", 9), "no v9 of default/default/mnist"),
        (VersionDeleted(P, "mnist", 2), "is linked"),
        (VersionDeleted(P, "mnist", 1), "has aliases"),
        (OwnerDeleted(P, "mnist"), "not empty"),
        (OwnerDeleted(P, "none"), "no artifact or collection"),
        (CollectionRenamed(P, "mnist", "x"), "no collection"),
        (CollectionRenamed(P, "classifier", "mnist"), "exists already"),
        (Linked(P, "classifier", 2, P, "mnist", 9), "no v9"),
        (Linked(P, "none", 2, P, "mnist", 0), "no collection"),
        (Linked(P, "classifier", 1, P, "mnist", 1), "was used before"),
        (Unlinked(P, "classifier", 9), "no v9 in"),
        (Unlinked(P, "classifier", 0), "has aliases"),
        (AliasSet(P, "mnist", "best", 9), "no v9 in"),
        (AliasSet(P, "classifier", "best", 9), "no v9 in"),
        (AliasDropped(P, "mnist", "none", 0), "no alias 'none'"),
        (Tagged(P, "none", None, ()), "no artifact or collection"),
        (Tagged(P, "classifier", 0, ()), "no artifact"),
    ],
)
def test_a_fact_that_cannot_follow_means_a_damaged_log(mnist, fact, said):
    mnist.run("ln mnist:v1 mnist:second")
    before = mnist.view.puts()

    with pytest.raises(CorruptError) as caught:
        mnist.fact(fact)
    assert f"log entry {len(mnist.entries) + 1} cannot be applied" in caught.value.message
    assert said in caught.value.message
    assert before == mnist.view.puts()


def test_an_inode_that_was_never_allotted_means_a_damaged_index(mnist):
    record = mnist.state.alias(mnist.owner("mnist").inode, "best")
    damaged = Overlay(mnist.view)
    damaged.apply([("inode", record.inode.to_bytes(8, "big"), None)])

    with pytest.raises(CorruptError, match="never allotted"):
        apply_changes(damaged, [AliasDropped(P, "mnist", "best", 0)], Stamp(9, 9, "ann"))


def test_requests_that_share_an_entry_keep_their_authors_and_reasons(book):
    requests = (
        changes.Request("ann", (ProjectCreated(P), ArtifactCreated(P, "a", "model"))),
        changes.Request("bob", (version("a", 0),), "why"),
    )
    book.append(changes.Entry(1, "0" * 64, "t", 5, "host", requests))

    moves = list(book.state.reflog(book.owner("a").inode, "latest"))
    assert [("bob", "why", 5, 1)] == [(m.author, m.reason, m.at_ns, m.sequence) for m in moves]
    assert ("ann", "bob") == (
        book.owner("a").author,
        book.state.version(book.owner("a").inode, 0).author,
    )


def test_numbers_may_be_skipped_but_not_reused(book):
    book.fact(ProjectCreated(P), ArtifactCreated(P, "a", "model"), version("a", 7))

    assert 8 == book.owner("a").next_number


def test_puts_are_plain_and_one_per_key(mnist):
    mnist.run("ln v1 classifier:production\nln v0 classifier:production")

    keys = [(put.table, put.key) for put in mnist.last_puts]
    assert sorted(set(keys)) == keys
    assert all(put.value is None or type(put.value) is bytes for put in mnist.last_puts)
    assert msgspec.msgpack.decode(
        dict(mnist.view.scan("collection"))[b"default/default/classifier"]
    )


def test_the_entries_that_are_about_something_are_known(book):
    book.run("commit one mnist")
    book.run("ln mnist:v0 classifier:production")
    book.run("mv classifier reader")
    book.run("tag mnist +good")
    book.run("rm reader:production")

    assert [4, 2, 1] == list(book.state.owner_entries(book.owner("mnist").inode))
    reader = book.owner("reader").inode
    assert [5, 3, 2] == list(book.state.owner_entries(reader))
    book.run("rm -f reader")
    assert [] == list(book.state.owner_entries(reader))
