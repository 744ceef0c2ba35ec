"""Deleting and renaming artifacts and collections; tags, descriptions, metadata (rules.md)."""

import pytest

from mregfs.errors import ExistsError, ForbiddenError, InvalidError, NotEmptyError, NotFoundError
from mregfs.model.commands import DeleteOwner, Describe, RenameCollection, SetMetadata, Tag


def test_what_is_empty_is_deleted(book):
    book.run("mkdir collections/a\nmkdir artifacts/b")

    assert {
        "project": "default/default",
        "name": "a",
        "kind": "collection",
        "versions": 0,
        "links": 0,
    } == book.run("rmdir collections/a")
    assert "artifact" == book.run("rm b")["kind"]
    book.refuse("rmdir collections/a", NotFoundError, "'a'")


def test_what_is_not_empty_needs_force(mnist):
    mnist.refuse("rmdir mnist", NotEmptyError, "3 versions", "--force")
    mnist.refuse("rm collections/classifier", NotEmptyError, "2 links")
    mnist.run("rm classifier:v1")
    mnist.refuse("rm collections/classifier", NotEmptyError, "has 1 link:")


def test_force_deletes_all_that_is_in_an_artifact_and_its_links_elsewhere(mnist):
    mnist.run("ln mnist:v0 other/team/shortlist:best")
    entries = len(mnist.entries)
    result = mnist.run("rm --force mnist")

    assert (3, 3) == (result["versions"], result["links"])
    assert entries + 1 == len(mnist.entries)
    assert None is mnist.state.artifact("default/default", "mnist")
    assert ([], {}) == (mnist.numbers("classifier"), mnist.aliases("classifier"))
    assert ([], {}) == (mnist.numbers("other/team/shortlist"), {})


def test_force_deletes_all_links_of_a_collection_and_no_version(mnist):
    result = mnist.run("rm --force classifier")

    assert (0, 2) == (result["versions"], result["links"])
    assert [0, 1, 2] == mnist.numbers("mnist")
    assert [] == mnist.state.links_to(mnist.owner("mnist").inode, 0)


@pytest.mark.parametrize("script", ["rm -f classifier", "rm -f mnist", "mv classifier digits"])
def test_a_protected_alias_keeps_its_owner_from_all_but_the_group(mnist, script):
    mnist.run("protect classifier:production --group ml")
    mnist.refuse(script, ForbiddenError, "'production'", principal=mnist.bob)
    mnist.refuse(script, ForbiddenError, "'production'", principal=mnist.root)
    mnist.run(script)


def test_a_protected_name_counts_even_without_its_alias(book):
    book.run("mkdir collections/a\nprotect a:gold --group ml")
    book.refuse("rmdir a", ForbiddenError, "'gold'", principal=book.bob)
    book.run("rmdir a\nmkdir collections/a")

    assert [] == list(book.state.protections(book.owner("a").inode))


def test_a_recreated_name_goes_on_counting(mnist):
    mnist.run("rm -f mnist")

    assert "v3" == mnist.run("commit one mnist")["version"]
    mnist.run("rm -f classifier\nln mnist classifier")
    assert [2] == mnist.numbers("classifier")
    mnist.run("rm -f classifier\nrm -f mnist\nmkdir collections/mnist\nmkdir artifacts/classifier")
    assert "v3" == mnist.run("commit one classifier")["version"]
    mnist.run("ln classifier mnist")
    assert [4] == mnist.numbers("mnist")


def test_a_name_that_was_recreated_and_never_used_remembers_its_numbers(mnist):
    mnist.run("rm -f classifier\nmkdir collections/classifier\nrmdir classifier")
    mnist.run("ln mnist classifier")

    assert [2] == mnist.numbers("classifier")


def test_history_of_a_deleted_name_is_not_that_of_the_new_one(mnist):
    mnist.run("rm -f classifier\nln mnist classifier:production")

    assert [(2, None)] == mnist.history("classifier", "production")
    mnist.refuse("rollback classifier:production", NotFoundError)


@pytest.mark.parametrize("target", ["mnist:v0", "mnist:best", "mnist@abcd"])
def test_only_a_whole_is_deleted_or_renamed_as_a_whole(mnist, target):
    mnist.refuse(DeleteOwner(mnist.at(target)), InvalidError, "as a whole")
    mnist.refuse(RenameCollection(mnist.at(target), "x"), InvalidError, "as a whole")


# ---- renaming


def test_a_renamed_collection_keeps_links_numbers_aliases_and_history(mnist):
    inode = mnist.owner("classifier").inode
    assert {
        "project": "default/default",
        "collection": "digits",
        "previous": "classifier",
    } == mnist.run("mv collections/classifier collections/digits")

    assert inode == mnist.owner("digits").inode
    assert ("digits", [0, 1]) == (mnist.state.inode(inode).name, mnist.numbers("digits"))
    assert {"production": "v0", "latest": "v1"} == mnist.aliases("digits")
    assert [(0, None)] == mnist.history("digits", "production")
    assert "digits" == mnist.state.owner_by_inode(inode).name
    mnist.refuse("ln v1 classifier:production", NotFoundError, "'classifier'")
    assert "v2" == mnist.run("ln mnist:v1 digits")["version"]


def test_renaming_to_its_own_name_changes_nothing(mnist):
    entries = len(mnist.entries)
    mnist.run("mv classifier classifier")

    assert entries == len(mnist.entries)


def test_the_new_name_must_be_free_and_valid(mnist):
    mnist.run("mkdir collections/other")
    mnist.refuse("mv classifier mnist", ExistsError, "an artifact")
    mnist.refuse("mv classifier other", ExistsError, "a collection")
    mnist.refuse(RenameCollection(mnist.at("classifier"), "-x"), InvalidError, "collection name")
    mnist.refuse("mv nothing other", NotFoundError)


def test_artifacts_keep_their_names(mnist):
    mnist.refuse("mv mnist digits", InvalidError, "artifact 'mnist'")


def test_a_name_left_behind_goes_on_counting(mnist):
    mnist.run("mv classifier digits\nln mnist:v1 classifier")

    assert [2] == mnist.numbers("classifier")


def test_a_collection_can_go_back_to_its_name_but_not_take_that_of_another(mnist):
    mnist.run("mv classifier digits")
    mnist.run("mv digits classifier")
    mnist.run("mv classifier digits\nmkdir collections/classifier\nrmdir classifier")
    mnist.run("mv digits classifier")

    mnist.run("mv classifier digits\nln mnist classifier\nrm -f classifier")
    mnist.refuse("mv digits classifier", ExistsError, "two things")


def test_deleting_after_a_rename_remembers_the_higher_number(mnist):
    mnist.run("mv classifier digits\nln mnist:v1 digits\nmv digits classifier\nrm -f classifier")
    mnist.run("ln mnist:v0 classifier")

    assert [3] == mnist.numbers("classifier")


# ---- tags, descriptions, metadata


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("mnist:v0", "default/default/mnist:v0"),
        ("mnist:best", "default/default/mnist:v0"),
        ("classifier:v0", "default/default/mnist:v0"),
        ("collections/classifier/production", "default/default/mnist:v0"),
        ("classifier:production@{0}", "default/default/mnist:v0"),
        ("mnist", "default/default/mnist"),
        ("artifacts/mnist", "default/default/mnist"),
        ("mnist:latest", "default/default/mnist:v2"),
        ("classifier", "default/default/classifier"),
    ],
)
def test_what_is_said_is_said_of_a_version_or_of_its_owner(mnist, target, name):
    assert {"target": name, "tags": ["a", "b c"]} == mnist.run(f"tag {target} 'b c' +a")
    assert {"target": name, "tags": ["b c"]} == mnist.run(f"tag {target} -a -gone")
    assert {"target": name, "description": "text"} == mnist.run(f"describe {target} text")
    assert {"target": name, "metadata": {"a": {"b": [1]}, "c": None}} == mnist.run(
        f"""set {target} 'a:={{"b": [1]}}' c:=NaN"""
    )
    assert {"target": name, "metadata": {"c": 1.5}} == mnist.run(f"set {target} a- gone- c=1.5")
    record = (
        mnist.owner(target)
        if mnist.at(target).is_owner
        else mnist.state.resolve(mnist.at(target)).version
    )
    assert (("b c",), "text", {"c": 1.5}) == (record.tags, record.description, record.metadata)


def test_saying_the_same_again_changes_nothing(mnist):
    mnist.run("tag mnist a\ndescribe mnist text\nset mnist a=1")
    entries = len(mnist.entries)
    mnist.run("tag mnist +a\ndescribe mnist text\nset mnist a=1 b-")

    assert entries == len(mnist.entries)
    mnist.run("set mnist a:=true")
    assert {"a": True} == mnist.owner("mnist").metadata
    assert True is mnist.owner("mnist").metadata["a"]


def test_metadata_can_be_replaced_as_a_whole(mnist):
    mnist.run("set mnist a=1 b=2")
    mnist.do(SetMetadata(mnist.at("mnist"), {"c": (3, 4)}, replace=True))

    assert {"c": [3, 4]} == mnist.owner("mnist").metadata


def test_bounds_hold_for_what_comes_out(mnist):
    target = mnist.at("mnist:v0")
    mnist.do(SetMetadata(target, {f"a{i}": i for i in range(100)}))
    mnist.refuse(SetMetadata(target, {"b": 1}), InvalidError, "101 keys")
    mnist.do(SetMetadata(target, {"b": 1}, remove=("a0",)))
    mnist.do(Tag(target, tuple(f"t{i}" for i in range(100))))
    mnist.refuse(Tag(target, ("u",)), InvalidError, "101 tags")
    mnist.refuse(Tag(target, ("/",)), InvalidError, "tag")
    mnist.refuse(Tag(target, remove=("/",)), InvalidError, "tag")
    mnist.refuse(Describe(target, "x" * 65537), InvalidError, "65537")


def test_nothing_is_said_of_what_does_not_exist(mnist):
    mnist.refuse("tag mnist:v9 a", NotFoundError)
    mnist.refuse("describe nothing text", NotFoundError)
    mnist.refuse("set classifier:nowhere a=1", NotFoundError)
