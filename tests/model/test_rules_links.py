"""Linking versions into collections (rules.md)."""

import pytest

from mregfs.errors import ConflictError, ExistsError, ForbiddenError, InvalidError, NotFoundError
from mregfs.model.commands import LinkVersion
from mregfs.model.names import DEFAULT_PROJECT
from mregfs.model.reference import Location


def test_the_first_link_brings_the_collection_into_being(book):
    book.run("commit one words --type dataset")
    result = book.run("ln words:v0 lists:good --expect none")

    assert {
        "project": "default/default",
        "collection": "lists",
        "version": "v0",
        "source": "default/default/words:v0",
        "linked": True,
        "alias": "good",
        "previous": None,
        "moved": True,
    } == result
    assert ("collection", "dataset") == (book.owner("lists").kind, book.owner("lists").type)
    assert {"good": "v0", "latest": "v0"} == book.aliases("lists")


def test_a_version_is_linked_once(mnist):
    result = mnist.run("ln mnist:v0 classifier:stable")

    assert ("v0", False, True) == (result["version"], result["linked"], result["moved"])
    assert [0, 1] == mnist.numbers("classifier")


def test_an_alias_moves_when_given_again(mnist):
    result = mnist.run("ln -sf artifacts/mnist/v1 collections/classifier/production")

    assert ("v2", "v0") == (result["version"], result["previous"])
    assert {"production": "v2", "latest": "v2"} == mnist.aliases("classifier")
    assert [(2, 0), (0, None)] == mnist.history("classifier", "production")


def test_an_alias_that_is_there_already_does_not_move(mnist):
    entries = len(mnist.entries)
    result = mnist.run("ln mnist:v0 classifier:production")

    assert (False, False, "v0") == (result["linked"], result["moved"], result["previous"])
    assert entries == len(mnist.entries)


@pytest.mark.parametrize("source", ["v1", "latest", "classifier:v1", "classifier:latest"])
def test_a_number_of_the_collection_itself_only_moves_the_alias(mnist, source):
    result = mnist.run(f"ln -sfn {source} collections/classifier/production")

    assert ("v1", False) == (result["version"], result["linked"])
    assert [0, 1] == mnist.numbers("classifier")


def test_a_link_to_a_link_links_its_source(mnist):
    result = mnist.run("ln classifier:production other/team/shortlist:best")

    assert ("v0", "default/default/mnist:v0") == (result["version"], result["source"])
    links = mnist.state.links_to(mnist.owner("mnist").inode, 0)
    assert {mnist.owner("classifier").inode, mnist.owner("other/team/shortlist").inode} == {
        collection for collection, _ in links
    }


def test_a_collection_takes_one_type(mnist):
    mnist.run("commit one words --type dataset")
    mnist.refuse(
        "ln words:v0 classifier",
        InvalidError,
        "collection 'classifier'",
        "'model'",
        "artifact 'words'",
        "'dataset'",
    )


def test_a_collection_without_a_type_takes_that_of_its_first_link(mnist):
    assert {
        "project": "default/default",
        "collection": "new",
        "type": "",
        "created": True,
    } == mnist.run("mkdir collections/new --description text")
    mnist.run("ln mnist collections/new")

    assert ("model", "text") == (mnist.owner("new").type, mnist.owner("new").description)
    mnist.run("mkdir collections/typed --type dataset")
    mnist.refuse("ln mnist typed", InvalidError, "'dataset'")
    mnist.refuse("mkdir collections/other --type /", InvalidError, "type")


def test_expecting_is_compare_and_swap(mnist):
    mnist.run("ln mnist:v1 classifier:production --expect v0")
    mnist.refuse(
        "ln mnist:v2 classifier:production --expect v0",
        ConflictError,
        "'production'",
        "points at v2",
        "v0",
    )
    mnist.refuse("ln mnist:v2 classifier:production --expect none", ConflictError, "points at v2")
    mnist.refuse("ln mnist:v2 classifier:new --expect v1", ConflictError, "does not exist")
    mnist.refuse("ln mnist:v2 fresh:new --expect v1", ConflictError, "does not exist")
    mnist.refuse("ln mnist:v2 classifier:new --expect 1", InvalidError, "--expect vN or none")
    mnist.refuse("ln mnist:v2 classifier --expect v1", InvalidError, "alias")
    mnist.run("ln mnist:v2 classifier:new --expect none")


def test_numbers_and_the_past_cannot_be_written(mnist):
    mnist.refuse("ln mnist:v0 collections/classifier/v7", InvalidError, "given by the registry")
    mnist.refuse("ln mnist:v0 classifier@abcd", InvalidError, "given by the registry")
    mnist.refuse("ln mnist:v0 classifier:production@{1}", InvalidError, "past")
    mnist.refuse("ln mnist:v0 classifier@{1}", InvalidError, "past")
    mnist.refuse("ln mnist:v0 classifier:latest", InvalidError, "kept by the registry")


def test_a_source_must_exist(mnist):
    mnist.refuse("ln mnist:v9 classifier", NotFoundError, "v9")
    mnist.refuse("ln nothing classifier", NotFoundError, "'nothing'")
    mnist.refuse("ln v9 collections/classifier/production", NotFoundError, "v9")


def test_the_name_of_an_artifact_is_taken(mnist):
    mnist.refuse("ln mnist:v0 collections/mnist", ExistsError, "artifact")
    mnist.refuse("mkdir collections/mnist", ExistsError, "an artifact")
    mnist.refuse("mkdir collections/classifier", ExistsError, "a collection")


def test_a_bad_name_is_refused(mnist):
    target = Location(DEFAULT_PROJECT, "-bad")
    mnist.refuse(LinkVersion(mnist.at("mnist:v0"), target), InvalidError, "collection name")


# ---- targets that are artifacts


@pytest.mark.parametrize("target", ["artifacts/mnist/best", "mnist:best"])
@pytest.mark.parametrize("source", ["v1", "mnist:v1", "artifacts/mnist/v1"])
def test_linking_within_an_artifact_moves_its_alias(mnist, source, target):
    result = mnist.run(f"ln {source} {target} --expect v0")

    assert ("best", "v1", "v0", True, "artifact") == (
        result["alias"],
        result["version"],
        result["previous"],
        result["moved"],
        result["kind"],
    )
    assert {"best": "v1", "latest": "v2"} == mnist.aliases("mnist")


def test_a_link_to_a_version_of_the_artifact_is_good_enough(mnist):
    assert "v2" == mnist.run("ln classifier:v1 mnist:best")["version"]


def test_a_foreign_version_cannot_be_named_by_an_artifacts_alias(mnist):
    mnist.run("commit one digits")
    mnist.refuse("ln digits:v0 mnist:best", InvalidError, "'digits'", "not in artifact 'mnist'")


def test_an_artifact_itself_is_no_target(mnist):
    mnist.refuse("ln mnist:v0 artifacts/mnist", InvalidError, "names no alias")
    mnist.refuse("ln mnist:v0 artifacts/none/best", NotFoundError, "'none'")


def test_protection_holds_while_linking(mnist):
    mnist.run("protect classifier:production --group ml")
    mnist.refuse(
        "ln mnist:v1 classifier:production", ForbiddenError, "'production'", principal=mnist.bob
    )
    mnist.run("ln mnist:v1 classifier", principal=mnist.bob)
    mnist.run("ln mnist:v1 classifier:production")

    assert "v2" == mnist.aliases("classifier")["production"]


def test_links_do_not_copy_and_follow_what_is_said_of_the_version(mnist):
    mnist.run("tag classifier:production good")

    assert ("good",) == mnist.state.resolve(mnist.at("mnist:v0")).version.tags
