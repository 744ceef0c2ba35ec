"""Logging and deleting versions, and taking links out (rules.md)."""

import pytest

from mregfs.errors import ConflictError, ExistsError, ForbiddenError, InvalidError, NotFoundError
from mregfs.model.commands import CreateArtifact, DeleteVersion, LogVersion, Unlink
from mregfs.model.names import DEFAULT_PROJECT
from mregfs.model.records import Parent


def test_the_first_version_brings_artifact_project_and_entity_into_being(book):
    result = book.run("commit one mnist --alias best --tag b --tag a --run r1 --description text")

    assert {
        "project": "default/default",
        "artifact": "mnist",
        "version": "v0",
        "digest": b"one".hex().rjust(64, "0"),
        "created": True,
        "aliases": ["best"],
    } == result
    assert {"best": "v0", "latest": "v0"} == book.aliases("mnist")
    artifact = book.owner("mnist")
    assert ("artifact", "model", 1, 1) == (
        artifact.kind,
        artifact.type,
        artifact.count,
        artifact.next_number,
    )
    version = book.state.version(artifact.inode, 0)
    assert (("a", "b"), "r1", "text", "ann", 10**9) == (
        version.tags,
        version.run,
        version.description,
        version.author,
        version.created_at_ns,
    )


def test_numbers_count_up_and_latest_follows(mnist):
    assert [0, 1, 2] == mnist.numbers("mnist")
    assert {"best": "v0", "latest": "v2"} == mnist.aliases("mnist")
    assert [(2, 1), (1, 0), (0, None)] == mnist.history("mnist", "latest")


def test_identical_content_makes_no_version_but_moves_the_aliases(mnist):
    result = mnist.run("commit two mnist --alias best --alias best --alias new")

    assert ("v1", False, ["best", "new"]) == (
        result["version"],
        result["created"],
        result["aliases"],
    )
    assert {"best": "v1", "new": "v1", "latest": "v2"} == mnist.aliases("mnist")
    assert [0, 1, 2] == mnist.numbers("mnist")


def test_committing_again_what_is_there_with_its_aliases_changes_nothing(mnist):
    entries = len(mnist.entries)

    assert not mnist.run("commit one mnist --alias best")["created"]
    assert entries == len(mnist.entries)


def test_identical_content_of_another_artifact_is_a_version_of_its_own(mnist):
    assert mnist.run("commit one digits")["created"]


def test_identical_content_is_a_new_version_once_the_old_one_is_deleted(mnist):
    mnist.run("rm mnist:v1")

    assert "v3" == mnist.run("commit two mnist")["version"]


def test_parents_are_facts_and_may_come_through_links_and_other_projects(mnist):
    mnist.run("commit base other/base")
    mnist.run("commit four mnist --parent classifier:production --parent mnist --parent mnist:v2 "
              "--parent other/base:v0")  # fmt: skip

    digests = [name.encode().hex().rjust(64, "0") for name in ("one", "three", "base")]
    assert (
        Parent("default/default", "mnist", 0, digests[0]),
        Parent("default/default", "mnist", 2, digests[1]),
        Parent("default/other", "base", 0, digests[2]),
    ) == mnist.state.version(mnist.owner("mnist").inode, 3).parents


def test_a_parent_may_be_logged_in_the_same_transaction(book):
    book.run("commit base base\ncommit tuned tuned --parent base")

    assert "base" == book.state.version(book.owner("tuned").inode, 0).parents[0].artifact


def test_a_commit_can_link_the_version_and_move_an_alias_there(mnist):
    result = mnist.run("commit four mnist --link classifier:production")

    assert ("v2", True, "v0") == (result["version"], result["linked"], result["previous"])
    assert {"production": "v2", "latest": "v2"} == mnist.aliases("classifier")
    assert not mnist.run("commit four mnist --link classifier:production")["moved"]


def test_a_type_is_kept_for_life(book):
    book.run("commit one words --type dataset")
    book.run("commit two words")
    book.run("commit three words --type dataset")
    book.refuse("commit four words --type model", InvalidError, "'dataset'", "'model'", "'words'")

    assert "dataset" == book.owner("words").type


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"artifact": "-x"}, "artifact name"),
        ({"digest": "AB" * 32}, "digest"),
        ({"digest": ""}, "digest"),
        ({"size": -1}, "negative"),
        ({"entries": -1}, "negative"),
        ({"type": "bad/type"}, "type"),
        ({"aliases": ("v1",)}, "numbers"),
        ({"aliases": ("Latest",)}, "kept by the registry"),
        ({"aliases": tuple(f"a{i}" for i in range(101))}, "101 aliases"),
        ({"tags": ("a b/",)}, "tag"),
        ({"tags": tuple(f"t{i}" for i in range(101))}, "101 tags"),
        ({"description": "x" * 65537}, "65536"),
        ({"description": "a\0b"}, "NUL"),
        ({"description": "a\udcffb"}, "plain text"),
        ({"run": "x" * 1025}, "1024"),
        ({"metadata": {"a": float("inf")}}, "metadata.a is infinite"),
        ({"metadata": {str(i): i for i in range(101)}}, "101 keys"),
    ],
)
def test_a_version_with_something_wrong_is_refused(book, fields, said):
    book.refuse(book.log_version(**fields), InvalidError, said)


def test_a_missing_parent_is_refused(mnist):
    for parent in ("mnist:v9", "nothing", "mnist:nowhere", "mnist@0000ffff"):
        mnist.refuse(f"commit four mnist --parent {parent}", NotFoundError)


def test_the_name_of_a_collection_is_taken(mnist):
    mnist.refuse("commit four classifier", ExistsError, "'classifier'", "a collection")
    mnist.refuse("mkdir artifacts/classifier", ExistsError)
    mnist.refuse("mkdir artifacts/mnist", ExistsError, "an artifact")


def test_a_protected_alias_is_moved_by_its_group_only(mnist):
    mnist.run("protect mnist:best --group ml")
    mnist.refuse(
        "commit two mnist --alias best", ForbiddenError, "'ml'", "bob", principal=mnist.bob
    )
    mnist.refuse("commit new mnist --alias best", ForbiddenError, principal=mnist.root)
    mnist.run("commit two mnist --alias best")

    assert "v1" == mnist.aliases("mnist")["best"]


def test_an_artifact_can_be_made_without_versions(book):
    result = book.run("mkdir artifacts/words --type dataset --description 'all of them'")

    assert {
        "project": "default/default",
        "artifact": "words",
        "type": "dataset",
        "created": True,
    } == result
    assert ("dataset", "all of them", 0) == (
        book.owner("words").type,
        book.owner("words").description,
        book.owner("words").count,
    )
    assert {} == book.aliases("words")
    assert "v0" == book.run("commit one words")["version"]


@pytest.mark.parametrize("command", [CreateArtifact(DEFAULT_PROJECT, "a", "b/c")])
def test_a_bad_type_is_refused(book, command):
    book.refuse(command, InvalidError, "type")


# ---- deleting


def test_a_free_version_is_deleted_and_its_number_never_comes_back(mnist):
    assert {
        "project": "default/default",
        "artifact": "mnist",
        "version": "v1",
        "digest": b"two".hex().rjust(64, "0"),
        "aliases": [],
        "links": [],
    } == mnist.run("rm artifacts/mnist/v1")
    assert [0, 2] == mnist.numbers("mnist")
    mnist.run("rm --force mnist:v2")

    assert {"best": "v0", "latest": "v0"} == mnist.aliases("mnist")
    assert "v3" == mnist.run("commit four mnist")["version"]


def test_latest_goes_with_the_last_version(book):
    book.run("commit one mnist")
    book.run("rm mnist:v0")

    assert {} == book.aliases("mnist")
    assert [(None, 0), (0, None)] == book.history("mnist", "latest")
    book.refuse("rm mnist:v0", NotFoundError, "v0")


def test_aliases_and_links_keep_a_version_and_the_answer_names_them(mnist):
    mnist.run("ln mnist:v0 other/team/shortlist")
    mnist.run("ln mnist:v0 mnist:stable")
    mnist.refuse(
        "rm mnist:v0",
        ConflictError,
        "v0 of artifact 'mnist'",
        "alias 'best'",
        "alias 'stable'",
        "classifier:v0 in project default/default",
        "shortlist:v0 in project other/team",
        "--force",
    )
    mnist.refuse("rm mnist:v2", ConflictError, "classifier:v1")


def test_force_drops_aliases_and_links_in_the_same_entry(mnist):
    entries = len(mnist.entries)
    result = mnist.run("rm -f mnist:v0")

    assert (["best"], ["default/default/classifier:v0"]) == (result["aliases"], result["links"])
    assert entries + 1 == len(mnist.entries)
    assert {"latest": "v2"} == mnist.aliases("mnist")
    assert {"latest": "v1"} == mnist.aliases("classifier")
    assert [(None, 0), (0, None)] == mnist.history("classifier", "production")


def test_force_does_not_reach_protected_aliases(mnist):
    mnist.run("protect classifier:production --group ml")
    mnist.refuse("rm -f mnist:v0", ForbiddenError, "'production'", principal=mnist.bob)
    mnist.refuse("rm -f classifier:v0", ForbiddenError, "'production'", principal=mnist.bob)
    mnist.run("rm -f mnist:v0")

    assert [1] == mnist.numbers("classifier")


def test_a_version_is_deleted_by_digest_as_well(mnist):
    mnist.run(f"rm mnist@{b'two'.hex().rjust(64, '0')}")

    assert [0, 2] == mnist.numbers("mnist")


@pytest.mark.parametrize("command", [DeleteVersion, Unlink])
@pytest.mark.parametrize("target", ["classifier", "classifier:production"])
def test_what_is_deleted_is_named_by_number(mnist, command, target):
    mnist.refuse(command(mnist.at(target)), InvalidError, "does not say which")


# ---- unlinking


@pytest.mark.parametrize("target", ["classifier:v1", "collections/classifier/v1"])
def test_removing_through_a_collection_takes_the_link_out_and_the_version_stays(mnist, target):
    assert {
        "project": "default/default",
        "collection": "classifier",
        "version": "v1",
        "source": "default/default/mnist:v2",
        "aliases": [],
    } == mnist.run(f"rm {target}")
    assert [0, 1, 2] == mnist.numbers("mnist")
    assert {"production": "v0", "latest": "v0"} == mnist.aliases("classifier")
    assert "v2" == mnist.run("ln mnist:v2 classifier")["version"]


def test_an_alias_keeps_a_link_unless_forced(mnist):
    mnist.refuse("rm collections/classifier/v0", ConflictError, "alias 'production'")

    assert ["production"] == mnist.run("rm -f collections/classifier/v0")["aliases"]
    assert {"latest": "v1"} == mnist.aliases("classifier")


def test_an_artifact_has_no_links_to_take_out(mnist):
    mnist.refuse(Unlink(mnist.at("mnist:v1")), InvalidError, "not links")


def test_unknown_numbers_and_names_are_not_found(mnist):
    mnist.refuse("rm collections/classifier/v7", NotFoundError, "v7")
    mnist.refuse("rm collections/mnist/v0", NotFoundError, "no collection 'mnist'")
    mnist.refuse("rm nothing:v0", NotFoundError, "'nothing'")


def test_a_log_version_without_optional_fields_is_complete(book):
    assert book.do(LogVersion(DEFAULT_PROJECT, "a", "0" * 64, "1" * 32, 0, 0, 0))["created"]
