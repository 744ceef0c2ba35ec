"""Reading the state: what is listed in which order, and what a reference resolves to."""

import pytest

from mregfs.errors import CorruptError, InvalidError, NotFoundError
from mregfs.model.changes import MAX_ENTRY_SIZE, decode_entry
from mregfs.model.state import FIRST_INODE, number_key


def digest(name: str) -> str:
    return name.encode().hex().rjust(64, "0")


@pytest.mark.parametrize(
    ("reference", "owner", "number", "version"),
    [
        ("mnist", "mnist", 2, 2),
        ("mnist:latest", "mnist", 2, 2),
        ("mnist:best", "mnist", 0, 0),
        ("mnist:v1", "mnist", 1, 1),
        (f"mnist@{digest('two')}", "mnist", 1, 1),
        (f"mnist@{digest('two')[:60]}", "mnist", 1, 1),
        ("mnist:latest@{1}", "mnist", 1, 1),
        ("mnist:latest@{1970-01-01T00:00:01Z}", "mnist", 2, 2),
        ("classifier", "classifier", 1, 2),
        ("classifier:production", "classifier", 0, 0),
        ("collections/classifier/v1", "classifier", 1, 2),
        (f"classifier@{digest('three')}", "classifier", 1, 2),
    ],
)
def test_a_reference_resolves_to_a_version_through_links(mnist, reference, owner, number, version):
    found = mnist.state.resolve(mnist.at(reference))

    assert (owner, number, "mnist", version) == (
        found.owner.name,
        found.number,
        found.artifact.name,
        found.version.number,
    )


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("none", "no artifact or collection 'none' in project default/default"),
        ("other/mnist", "in project default/other"),
        ("collections/mnist", "no collection 'mnist'"),
        ("artifacts/classifier/v0", "no artifact 'classifier'"),
        ("mnist:v9", "artifact 'mnist' has no v9"),
        ("classifier:v9", "collection 'classifier' has no v9"),
        ("mnist:none", "has no alias 'none'"),
        ("mnist@ffff", "has the digest ffff"),
        ("mnist:best@{1}", "best@{1} points at nothing"),
        ("mnist:best@{1969-01-01}", "points at nothing"),
        ("mnist:none@{0}", "points at nothing"),
        ("empty", "has no version yet"),
    ],
)
def test_what_resolves_to_nothing_says_why(mnist, reference, said):
    mnist.run("mkdir collections/empty")
    with pytest.raises(NotFoundError) as caught:
        mnist.state.resolve(mnist.at(reference))
    assert said in caught.value.message


def test_a_number_that_went_meanwhile_is_not_found(mnist):
    artifact, collection = mnist.owner("mnist"), mnist.owner("classifier")

    with pytest.raises(NotFoundError, match="'mnist' has no v9"):
        mnist.state.resolve_number(artifact, 9)
    with pytest.raises(NotFoundError, match="'classifier' has no v9"):
        mnist.state.resolve_number(collection, 9)


def test_a_digest_prefix_must_fit_one_version(mnist):
    with pytest.raises(InvalidError, match="matches several versions"):
        mnist.state.resolve(mnist.at("mnist@0000"))


def test_identical_content_of_two_artifacts_is_no_contradiction_in_a_collection(mnist):
    mnist.run("commit one copy\nln copy:v0 classifier")

    assert 2 == mnist.state.resolve(mnist.at(f"classifier@{digest('one')}")).number


def test_lists_are_in_order_and_begin_where_asked(mnist):
    mnist.run("commit one b/x/words\ncommit one b/y/words\nmkdir artifacts/nets")
    state = mnist.state

    assert ["b", "default"] == [entity.name for entity in state.entities()]
    assert ["default"] == [entity.name for entity in state.entities("c")]
    assert ["x", "y", "default"] == [project.name for project in state.projects()]
    assert ["y"] == [project.name for project in state.projects("b", "xx")]
    assert ["mnist", "nets"] == [found.name for found in state.artifacts("default/default")]
    assert ["nets"] == [found.name for found in state.artifacts("default/default", "mnisu")]
    assert ["classifier"] == [found.name for found in state.collections("default/default")]
    artifact, collection = mnist.owner("mnist").inode, mnist.owner("classifier").inode
    assert [1, 2] == [version.number for version in state.versions(artifact, 1)]
    assert [1, 0] == [version.number for version in state.versions(artifact, 1, reverse=True)]
    assert [2, 1, 0] == [version.number for version in state.versions(artifact, reverse=True)]
    assert [1] == [link.number for link in state.links(collection, 1)]
    assert [1, 0] == [link.number for link in state.links(collection, reverse=True)]
    assert ["latest"] == [alias.name for alias in state.aliases(artifact, "c")]


def test_inodes_lead_back_to_owners(mnist):
    state, artifact = mnist.state, mnist.owner("mnist")
    version = state.version(artifact.inode, 0)

    assert artifact == state.owner_by_inode(artifact.inode)
    assert artifact == state.artifact_by_inode(artifact.inode)
    assert None is state.owner_by_inode(version.inode)
    assert None is state.owner_by_inode(1)
    assert None is state.inode_at_or_below(FIRST_INODE - 1)
    with pytest.raises(NotFoundError, match="no artifact has inode"):
        state.artifact_by_inode(mnist.owner("classifier").inode)


def test_a_damaged_index_leads_nowhere(mnist):
    artifact = mnist.owner("mnist")
    project = mnist.state.project("default/default").inode
    entity = mnist.state.entity("default").inode
    for inode in (entity, project):
        damaged = type(mnist)()
        damaged.view.apply(mnist.view.puts())
        damaged.view.apply([("inode", inode.to_bytes(8, "big"), None)])
        assert None is damaged.state.owner_by_inode(artifact.inode)


def test_backlinks_tell_every_link_to_a_version(mnist):
    mnist.run("ln mnist:v0 other/shortlist")
    artifact = mnist.owner("mnist").inode

    assert [
        (mnist.owner("classifier").inode, 0),
        (mnist.owner("other/shortlist").inode, 0),
    ] == mnist.state.links_to(artifact, 0)
    assert 32 == len(next(key for key, _ in mnist.view.scan("backlink")))
    assert number_key(artifact, 0) == next(key for key, _ in mnist.view.scan("backlink"))[:16]


def test_an_entry_that_is_too_large_is_not_even_parsed():
    with pytest.raises(CorruptError, match="too large"):
        decode_entry(bytes(MAX_ENTRY_SIZE + 1), "log/1")
