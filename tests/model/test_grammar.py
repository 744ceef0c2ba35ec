"""The command language: every operation of the control file, and everything that it refuses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mregfs.errors import ConflictError, InvalidError, MregfsError
from mregfs.model.commands import (
    CommitRequest,
    CreateArtifact,
    CreateCollection,
    DeleteOwner,
    DeleteVersion,
    Describe,
    DropAlias,
    LinkVersion,
    LogVersion,
    MoveAlias,
    Protect,
    RenameCollection,
    Rollback,
    SetMetadata,
    Tag,
    Unlink,
    Unprotect,
)
from mregfs.model.forms import COMMANDS
from mregfs.model.grammar import (
    Statement,
    at_statement,
    parse_line,
    parse_script,
    parse_words,
)
from mregfs.model.names import DEFAULT_PROJECT as P
from mregfs.model.names import ProjectName
from mregfs.model.reference import Location, When

Q = ProjectName("team", "x")


def strip(path: str) -> str:
    return path.removeprefix("/models/") if path != "/models" else ""


def parse(line: str):
    return parse_line(line, P, strip).command


def artifact(name: str, **selector) -> Location:
    return Location(P, name, "artifact", **selector)


def collection(name: str, **selector) -> Location:
    return Location(P, name, "collection", **selector)


def either(name: str, **selector) -> Location:
    return Location(P, name, **selector)


PRODUCTION = collection("classifier", alias="production")


@pytest.mark.parametrize(
    ("line", "source", "target"),
    [
        (
            "ln -sf artifacts/mnist/v3 collections/classifier/production",
            artifact("mnist", number=3),
            PRODUCTION,
        ),
        (
            "ln ./artifacts/mnist/v3 ./collections/classifier/production",
            artifact("mnist", number=3),
            PRODUCTION,
        ),
        (
            "ln -sfn /models/artifacts/mnist/v3 /models/collections/classifier/production",
            artifact("mnist", number=3),
            PRODUCTION,
        ),
        (
            "ln -sfnT v1 collections/classifier/production",
            collection("classifier", number=1),
            PRODUCTION,
        ),
        (
            "ln ./v1 collections/classifier/production",
            collection("classifier", number=1),
            PRODUCTION,
        ),
        (
            "ln staging collections/classifier/production",
            collection("classifier", alias="staging"),
            PRODUCTION,
        ),
        (
            "ln latest collections/classifier/production",
            collection("classifier", alias="latest"),
            PRODUCTION,
        ),
        (
            "ln ../../artifacts/mnist/v3 collections/classifier/production",
            artifact("mnist", number=3),
            PRODUCTION,
        ),
        (
            "ln ../digits/best collections/classifier/production",
            collection("digits", alias="best"),
            PRODUCTION,
        ),
        (
            "ln ..//.././artifacts/mnist/v3/ collections/classifier/production",
            artifact("mnist", number=3),
            PRODUCTION,
        ),
        (
            "ln ../../artifacts/mnist/v3 projects/team/x/collections/c/best",
            Location(Q, "mnist", "artifact", number=3),
            Location(Q, "c", "collection", alias="best"),
        ),
        (
            "ln ../../../../../artifacts/mnist/v3 projects/team/x/collections/c/best",
            artifact("mnist", number=3),
            Location(Q, "c", "collection", alias="best"),
        ),
        (
            "ln mnist:v3 classifier:production",
            either("mnist", number=3),
            either("classifier", alias="production"),
        ),
        (
            "ln v3 classifier:production",
            either("classifier", number=3),
            either("classifier", alias="production"),
        ),
        (
            "ln mnist classifier:production",
            either("mnist"),
            either("classifier", alias="production"),
        ),
        (
            "ln ../digits/v0 classifier:production",
            either("digits", number=0),
            either("classifier", alias="production"),
        ),
        (
            "ln ../../collections/digits/v0 classifier:production",
            collection("digits", number=0),
            either("classifier", alias="production"),
        ),
        (
            "ln ../other/v0 artifacts/mnist/best",
            artifact("other", number=0),
            artifact("mnist", alias="best"),
        ),
        (
            "ln mnist@abcd1234 collections/classifier",
            either("mnist", digest="abcd1234"),
            collection("classifier"),
        ),
        (
            "ln mnist 'MNIST Grayscale 28x28'",
            either("mnist"),
            either("MNIST Grayscale 28x28"),
        ),
        ("ln v3 collections/classifier", either("v3"), collection("classifier")),
        (
            "ln mnist:v1 collections/classifier/next",
            either("mnist", number=1),
            collection("classifier"),
        ),
        (
            "ln team/x/mnist:best@{1} classifier",
            Location(Q, "mnist", alias="best", when=When(steps=1)),
            either("classifier"),
        ),
    ],
)
def test_ln_takes_paths_symlink_targets_and_references(line, source, target):
    assert LinkVersion(source, target) == parse(line)


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("ln a:v1 b:c --expect v0", LinkVersion(
            either("a", number=1), either("b", alias="c"), "v0")),
        ("rm collections/classifier/production", DropAlias(PRODUCTION)),
        ("rm classifier:production --expect v1", DropAlias(
            either("classifier", alias="production"), "v1")),
        ("rm artifacts/mnist/latest", DropAlias(artifact("mnist", alias="latest"))),
        ("rm collections/classifier/v1", Unlink(collection("classifier", number=1))),
        ("rm classifier:v1", DeleteVersion(either("classifier", number=1))),
        ("rm -f artifacts/mnist/v3", DeleteVersion(artifact("mnist", number=3), force=True)),
        ("rm --force mnist@abcd", DeleteVersion(either("mnist", digest="abcd"), force=True)),
        ("rm collections/classifier/", DeleteOwner(collection("classifier"))),
        ("rm -f mnist", DeleteOwner(either("mnist"), force=True)),
        ("rmdir collections/classifier", DeleteOwner(collection("classifier"))),
        ("mkdir collections/classifier", CreateCollection(P, "classifier")),
        ("mkdir projects/team/x/collections/c", CreateCollection(Q, "c")),
        ("mkdir --type dataset --description all collections/lists", CreateCollection(
            P, "lists", "dataset", "all")),
        ("mkdir artifacts/words", CreateArtifact(P, "words")),
        ("mkdir artifacts/words --type=dataset --description=all", CreateArtifact(
            P, "words", "dataset", "all")),
        ("mv collections/a collections/b", RenameCollection(collection("a"), "b")),
        ("mv a b", RenameCollection(either("a"), "b")),
        ("mv a collections/b", RenameCollection(either("a"), "b")),
        ("mv team/x/a b", RenameCollection(Location(Q, "a"), "b")),
        ("tag mnist:v3 a +b -c", Tag(either("mnist", number=3), ("a", "b"), ("c",))),
        ("tag mnist -c", Tag(either("mnist"), (), ("c",))),
        ("describe collections/classifier 'a b'", Describe(collection("classifier"), "a b")),
        ("describe mnist -- --text", Describe(either("mnist"), "--text")),
        ("describe mnist '- text'", Describe(either("mnist"), "- text")),
        ("""set mnist:v3 a=1 b='"x=y"' c- d:=null e=null f:='"x=y"'""", SetMetadata(
            either("mnist", number=3),
            {"a": 1, "b": '"x=y"', "d": None, "e": "null", "f": "x=y"},
            ("c",))),
        ("protect classifier:production --group ml", Protect(
            either("classifier", alias="production"), "ml")),
        ("unprotect classifier:production", Unprotect(either("classifier", alias="production"))),
        ("rollback classifier:production", Rollback(either("classifier", alias="production"))),
        ("rollback collections/classifier/production --expect v1", Rollback(PRODUCTION, "v1")),
        ("rollback classifier:production@{3}", Rollback(
            either("classifier", alias="production", when=When(steps=3)))),
        ("rollback classifier:production --to 3", Rollback(
            either("classifier", alias="production", when=When(steps=3)))),
        ("rollback classifier:production --to @{3}", Rollback(
            either("classifier", alias="production", when=When(steps=3)))),
        ("rollback classifier:production --to 1970-01-02", Rollback(
            either("classifier", alias="production", when=When(at_ns=86400 * 10**9)))),
        ("rollback classifier:production --to v3 --expect v4", MoveAlias(
            either("classifier", alias="production"), either("classifier", number=3), "v4")),
        ("rollback classifier:production --to 2nd:v3", MoveAlias(
            either("classifier", alias="production"), either("2nd", number=3))),
        ("rollback collections/classifier/production --to staging", MoveAlias(
            PRODUCTION, collection("classifier", alias="staging"))),
        ("commit run-17 mnist", CommitRequest(P, "run-17", artifact("mnist"))),
        ("commit staging/run-17 artifacts/mnist/next", CommitRequest(
            P, "run-17", artifact("mnist"))),
        ("commit /models/staging/run-17/ team/x/mnist", CommitRequest(
            P, "run-17", Location(Q, "mnist", "artifact"))),
        ("commit projects/team/x/staging/a mnist", CommitRequest(Q, "a", artifact("mnist"))),
        ("mv staging/run-17 artifacts/mnist/next", CommitRequest(
            P, "run-17", artifact("mnist"))),
    ],
)  # fmt: skip
def test_each_command(line, command):
    assert command == parse(line)


def test_commit_says_all_about_the_version():
    request = parse(
        "commit 'run 17' mnist --alias best --alias stable --type model --description 'a b' "
        """--metadata '{"loss": NaN, "n": {"b": [1]}}' --tag t --run r --parent base:v3 """
        "--parent artifacts/other --link collections/classifier/production"
    )

    assert (
        CommitRequest(
            P,
            "run 17",
            artifact("mnist"),
            aliases=("best", "stable"),
            type="model",
            metadata={"loss": None, "n": {"b": [1]}},
            description="a b",
            tags=("t",),
            run="r",
            parents=(either("base", number=3), artifact("other")),
            link=PRODUCTION,
        )
        == request
    )
    logged, linked = request.commands(digest="ab" * 32, layout="1" * 32, size=1, files=2, entries=3)
    assert LinkVersion(artifact("mnist", digest="ab" * 32), PRODUCTION) == linked
    assert isinstance(logged, LogVersion)
    assert (P, "mnist", "ab" * 32, 1, 2, 3, ("best", "stable")) == (
        logged.project,
        logged.artifact,
        logged.digest,
        logged.size,
        logged.files,
        logged.entries,
        logged.aliases,
    )
    assert 1 == len(
        parse("commit a b").commands(digest="ab" * 32, layout="1" * 32, size=1, files=1, entries=1)
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("frobnicate a", "'frobnicate' is not a command: write one of: commit, ln, rm"),
        ("", "there are 0 commands"),
        ("rm a\nrm b", "there are 2 commands"),
        ("ln a", "too few words: usage: ln"),
        ("ln a b c", "too many words: usage: ln"),
        ("rm", "usage: rm"),
        ("rm -rf a", "no option -r"),
        ("ln --hard a b", "no option '--hard': usage: ln"),
        ("ln a b:c --expect", "--expect needs a value: usage: ln"),
        ("ln a b:c --reason x --reason y", "--reason is given twice: give it once; usage: ln"),
        (f"ln a b:c --reason {'x' * 4097}", "at most 4096"),
        ("ln a b:c --expect v1 --expect v2", "--expect is given twice"),
        ("ln /other/a b:c", "'/other/a' is not in this mount"),
        ("ln /models b:c", "'/models' is not in this mount"),
        ("ln a:b /other/b", "'/other/b' is not in this mount"),
        ("ln ../../../../artifacts/a/v1 b:c", "leads out of the mount"),
        ("ln ../../staging/a b:c", "names no artifact"),
        ("ln artifacts/a/v1/file b:c", "names no artifact"),
        ("ln 'a b' collections/x/y", "not a valid alias"),
        ("rm a --expect v1", "'a' is not an alias"),
        ("rm a:v3 --expect v1", "'a:v3' is not an alias"),
        ("mkdir a", "does not say what to create"),
        ("mkdir collections/a/b", "does not say what to create"),
        ("mkdir staging/a", "names no artifact"),
        ("mv a:b c", "'a:b' cannot become 'c'"),
        ("mv a b:c", "'a' cannot become 'b:c'"),
        ("mv a team/x/b", "stays in its project"),
        ("mv collections/a artifacts/b", "stays in its project"),
        ("mv staging/a staging/b", "names no artifact"),
        ("mv staging/a artifacts/b/v3", "cannot become 'artifacts/b/v3'"),
        ("mv staging/a artifacts/b", "cannot become 'artifacts/b'"),
        ("mv staging/a collections/b/next", "cannot become 'collections/b/next'"),
        ("mv staging/a/b artifacts/c/next", "'staging/a/b' is not a draft"),
        ("commit a/b c", "'a/b' is not a draft"),
        ("commit .. c", "'..' is not a draft"),
        ("commit a b:c", "give aliases with --alias"),
        ("commit a collections/b", "cannot become"),
        ("commit a b --alias v1", "numbers"),
        ("commit a b --tag ' '", "tag"),
        ("commit a b --type ''", "type"),
        ("commit a b --metadata '[1]'", "not a JSON object"),
        ("commit a b --metadata '{'", "not JSON"),
        ("commit a b --link c:latest", "kept by the registry"),
        ("commit a b --link c:v3", "names no alias"),
        ("commit a b --parent /x", "not in this mount"),
        ("tag a", "too few words: usage: tag"),
        ("tag a --b", "no option '--b'"),
        ("describe a b c", "too many words"),
        ("describe a --b", "no option '--b'"),
        ("set a b", "'b' sets nothing: write KEY=VALUE or KEY:=JSON"),
        ("set a b:=c", "'c' is not JSON"),
        ("set a b:=-Infinity", "infinite"),
        ("set a b=", "'b=' has an empty value"),
        ("set a b:=", """remove the key with b-, or write an empty text as b:='""'"""),
        ("protect a:b", "no group is named: usage: protect"),
        ("rollback a", "'a' is not an alias"),
        ("rollback a:b@{1} --to 2", "both"),
        ("rollback a:b --to @{x}", "not a point in history"),
        ("rm 'a", "never closed"),
    ],
)
def test_what_is_malformed_is_refused_with_what_to_do(line, said):
    with pytest.raises(InvalidError) as caught:
        parse(line)
    assert said in str(caught.value)


def test_reasons_are_kept_and_never_part_of_the_command():
    statement = parse_line("rm a:b --reason 'too slow'", P)

    assert Statement(DropAlias(either("a", alias="b")), "too slow", name="rm") == statement
    assert "" == parse_line("rm a:b", P).reason


def test_a_script_is_several_commands_and_errors_name_the_line():
    statements = parse_script("# both\nrm a:b\n\nrm a:c # second\n", P)

    assert [(2, "rm"), (4, "rm")] == [(s.line, s.name) for s in statements]
    assert [] == parse_script("# nothing\n", P)
    with pytest.raises(InvalidError, match=r"^line 3 \(ln\): 'ln' has too few words: usage"):
        parse_script("rm a:b\n\nln x", P)
    with pytest.raises(InvalidError, match=r"^'ln' has too few words"):
        parse_script("\n\nln x", P)
    with pytest.raises(InvalidError, match="1048577 characters"):
        parse_script("#" * (1 << 20 | 1), P)
    with pytest.raises(InvalidError, match="nothing is not a command"):
        parse_words([], P)


def test_an_error_of_the_rules_can_name_the_line_too():
    error = ConflictError("no", "wait")
    alone, second = parse_line("rm a:b", P), parse_script("rm a:b\nrm a:c", P)[1]

    assert error is at_statement(error, alone)
    named = at_statement(error, second)
    assert (ConflictError, "line 2 (rm): no: wait") == (type(named), str(named))


def test_the_table_tells_how_each_command_is_written():
    for name, form in COMMANDS.items():
        assert form.usage.startswith(f"{name} ")
        assert form.usage.endswith("[--reason TEXT]") or name == "give"
        assert form.summary.endswith(".")
        for option in form.values:
            assert f"--{option} " in form.usage


@given(st.lists(st.sampled_from([*COMMANDS, "a", "a:b", "a:v1", "artifacts/x/next", "staging/d",
    "--alias", "--to", "-f", "--force", "--expect", "v1", "../x", "b=1", "--", "\n", "'", "@{1}",
    "collections/c/p", "--group", "projects/a/b", "/", "", "."]), max_size=7))  # fmt: skip
def test_any_words_are_parsed_or_refused(words):
    try:
        parse_script(" ".join(words), P, strip)
    except MregfsError as exc:
        assert exc.message  # noqa: PT017 - most are refused, some are not
