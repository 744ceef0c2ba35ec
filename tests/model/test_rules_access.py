"""Who may read and who may change the store and its projects."""

import pytest

from mregfs.errors import ForbiddenError, InvalidError
from mregfs.model.changes import AccessSet
from mregfs.model.commands import Principal
from mregfs.model.forms import COMMANDS
from mregfs.model.rules.access import access_of, may_read, may_write
from tests.model.conftest import Book

ANN = Principal("ann", frozenset({"ml"}))
BOB = Principal("bob", frozenset({"ops"}))
EVE = Principal("eve")
ROOT = Principal("root", privileged=True)


@pytest.fixture
def team(mnist: Book) -> Book:
    """A store that group `ml` changes and everybody reads, with a project of group `ops`."""
    mnist.run("mkdir artifacts/a\nmkdir projects/team/b/artifacts/theirs", ROOT)
    mnist.run("commit four team/b/theirs", ROOT)
    mnist.run("access --writers ml --readers '*'\naccess team/b --writers ops --readers ops", ROOT)
    return mnist


CHANGES = [
    "commit new mnist",
    "ln mnist:v0 classifier:gold",
    "ln mnist:v1 mnist:best",
    "rm mnist:best",
    "rm mnist:v1",
    "rm collections/classifier/v0 -f",
    "mkdir collections/other",
    "mkdir artifacts/other",
    "rmdir a",
    "mv collections/classifier collections/renamed",
    "tag mnist good",
    "describe mnist text",
    "set mnist a=1",
    "protect classifier:production --group ml",
    "rollback classifier:production --to v0",
]


@pytest.mark.parametrize("script", CHANGES)
def test_only_writers_change_anything(team: Book, script: str) -> None:
    """Who is not in the group is refused, and told who he is, which group, whom to ask."""
    for principal in (BOB, EVE):
        team.refuse(
            script,
            ForbiddenError,
            "'ml'",
            repr(principal.user),
            "default/default",
            "mregfs access",
            principal=principal,
        )
    if script != "rollback classifier:production --to v0":
        team.run(script, ANN)


def test_every_command_is_covered_by_the_table_above() -> None:
    covered = {script.split()[0] for script in CHANGES}
    assert set(COMMANDS) - covered == {"unprotect", "access", "give"}


def test_a_store_of_which_nothing_was_said_is_changed_by_its_owner_alone(book: Book) -> None:
    """Everybody reads; root and the owner write."""
    book.fact(AccessSet(""))  # takes the tests' own default away
    for principal in (ANN, EVE):
        book.refuse("mkdir artifacts/a", ForbiddenError, "only the owner", principal=principal)
        assert may_read(access_of(book.state, "e/p"), principal)
    book.run("mkdir artifacts/a", ROOT)
    assert access_of(book.state, "e/p").writers == ""


def test_a_project_says_for_itself(team: Book) -> None:
    """Its own setting overrides the store's, in both directions."""
    team.refuse("tag team/b/theirs x", ForbiddenError, "'ops'", "team/b", principal=ANN)
    team.run("tag team/b/theirs x", BOB)
    team.refuse("mkdir projects/team/b/collections/c", ForbiddenError, principal=ANN)
    team.run("access team/b --inherit", ROOT)
    team.run("tag team/b/theirs y", ANN)
    team.refuse("tag team/b/theirs z", ForbiddenError, principal=BOB)


def test_sources_are_read_by_readers_alone(team: Book) -> None:
    """Linking, naming as a parent and moving to: what one may not see, one does not get."""
    for script in (
        "ln team/b/theirs:v0 classifier",
        "ln team/b/theirs:v0 mine:gold",
        "commit new mnist --parent team/b/theirs:v0",
    ):
        team.refuse(script, ForbiddenError, "may read", "'ops'", "team/b", principal=ANN)
    team.run("access team/b --readers '*'", ROOT)
    team.run("ln team/b/theirs:v0 classifier", ANN)


def test_nothing_is_taken_out_of_another_project_with_force(team: Book) -> None:
    """A version with links elsewhere is deleted by who may change these, too."""
    team.run("ln mnist:v1 projects/team/b/collections/picks", ROOT)
    team.refuse("rm -f mnist:v1", ForbiddenError, "'ops'", "team/b", principal=ANN)
    both = Principal("cleo", frozenset({"ml", "ops"}))
    team.run("rm -f mnist:v1", both)


def test_only_root_and_the_owner_say_who_may(team: Book) -> None:
    for principal in (ANN, BOB, EVE):
        team.refuse("access --writers '*'", ForbiddenError, "the store", principal=principal)
        team.refuse("access team/b --readers -", ForbiddenError, "team/b", principal=principal)


def test_what_is_not_said_stays(team: Book) -> None:
    result = team.run("access --drafts private", ROOT)
    assert ("*", "ml", True) == (result["readers"], result["writers"], result["private_drafts"])
    result = team.run("access team/b --writers -", ROOT)
    assert ("ops", "", True) == (result["readers"], result["writers"], result["private_drafts"])
    assert ["private_drafts"] == result["inherited"]
    before = len(team.entries)
    team.run("access team/b --writers -", ROOT)
    assert before == len(team.entries)


def test_who_may_write_may_read(team: Book) -> None:
    team.run("access team/b --readers -", ROOT)
    access = access_of(team.state, "team/b")
    assert [False, True, False, True] == [may_read(access, each) for each in (ANN, BOB, EVE, ROOT)]
    assert [False, True, False, True] == [may_write(access, each) for each in (ANN, BOB, EVE, ROOT)]


@pytest.mark.parametrize(
    "script",
    ["access --inherit", "access --writers ''", "access --drafts no", "access a/b/c",
     "access --readers nobody-here", "access --readers " + "x" * 300],
)  # fmt: skip
def test_what_means_nothing_is_refused(team: Book, script: str) -> None:
    root = Principal("root", privileged=True, known_groups=frozenset({"ml"}))
    team.refuse(script, InvalidError, principal=root)


def test_a_new_project_is_as_the_store_says(team: Book) -> None:
    team.refuse("mkdir projects/new/one/artifacts/a", ForbiddenError, "'ml'", principal=BOB)
    team.run("mkdir projects/new/one/artifacts/a", ANN)
    team.run("access later/on --writers ops", ROOT)
    team.run("mkdir projects/later/on/artifacts/a", BOB)


def test_an_author_stands_beside_the_user(team: Book) -> None:
    """Nobody can appear as somebody else."""
    team.run("tag mnist x", Principal("ann", frozenset({"ml"}), author="root"))
    request = team.entries[-1].requests[0]
    assert ("root", "ann", "root (ann)") == (request.author, request.user, request.signature)
    team.run("mkdir artifacts/hers", Principal("ann", frozenset({"ml"}), author="root"))
    assert "root (ann)" == team.owner("hers").author
    team.run("mkdir artifacts/own", Principal("ann", frozenset({"ml"}), author="ann"))
    assert "ann" == team.owner("own").author
