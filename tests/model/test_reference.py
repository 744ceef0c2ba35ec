"""References and paths: what is written is what is read back, and what is malformed says why."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mregfs.errors import InvalidError
from mregfs.model.names import (
    DEFAULT_PROJECT,
    ProjectName,
    check_alias,
    check_name,
    parse_number,
    parse_project,
)
from mregfs.model.reference import (
    Location,
    When,
    format_time,
    parse_location,
    parse_path,
    parse_reference,
    parse_when,
)

P = DEFAULT_PROJECT
TREE = {"artifacts", "collections", "projects", "staging"}

names = st.from_regex(r"[A-Za-z0-9_](?:[A-Za-z0-9_.\- ]{0,20}[A-Za-z0-9_.\-])?", fullmatch=True)
aliases = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,20}", fullmatch=True).filter(
    lambda alias: (
        alias.lower() != "latest"
        and alias != "next"
        and not (alias[0] in "vV" and alias[1:].isdigit())
    )
)
outer = names.filter(lambda name: name not in TREE)
projects = st.builds(ProjectName, outer, outer)
numbers = st.integers(0, 10**18 - 1)
moments = st.integers(0, 4 * 10**12).map(lambda us: When(at_ns=us * 1_000_000))
past = st.builds(When, steps=st.integers(0, 999_999_999)) | moments
locations = st.one_of(
    st.builds(Location, projects, names),
    st.builds(Location, projects, names, number=numbers),
    st.builds(Location, projects, names, digest=st.from_regex(r"[0-9a-f]{4,64}", fullmatch=True)),
    st.builds(Location, projects, names, alias=aliases | st.just("latest"), when=st.none() | past),
)


@given(locations, projects)
def test_a_reference_that_says_all_means_the_same_everywhere(location, project):
    assert location == parse_reference(str(location), project)
    assert location == parse_location(str(location), project)


@given(locations)
def test_what_a_reference_leaves_out_is_taken_from_the_project(location):
    text = f"{location.name}{location.selector}"

    assert location == parse_reference(text, location.project)
    assert location == parse_reference(f"{location.project.project}/{text}", location.project)


@given(projects, names, st.sampled_from(["artifact", "collection"]), aliases, numbers)
def test_paths_name_what_stands_there(project, name, kind, alias, number):
    top = f"{kind}s/{name}"
    below = f"projects/{project}/{top}"

    assert Location(P, name, kind) == parse_path(top, P)
    assert Location(project, name, kind) == parse_location(below, P)
    assert Location(P, name, kind, alias=alias) == parse_location(f"{top}/{alias}", P)
    assert Location(project, name, kind, number=number) == parse_path(f"{below}/v{number}/", P)
    assert Location(P, name, kind, alias="next") == parse_path(f"./{top}//next", P)
    assert Location(P, name, kind, alias="latest") == parse_path(f"{top}/latest", P)


@given(names)
def test_names_and_numbers_come_back(name):
    assert name == check_name(name)
    assert 12 == parse_number("v12")


@given(aliases)
def test_aliases_come_back(alias):
    assert alias == check_alias(alias)


@given(projects)
def test_projects_come_back(project):
    assert project == parse_project(str(project))
    assert project == parse_project(project.project, project)


@given(st.integers(0, 250_000_000_000).map(lambda seconds: seconds * 10**9 + 123_456_000))
def test_times_come_back(at_ns):
    assert When(at_ns=at_ns) == parse_when(format_time(at_ns))


@pytest.mark.parametrize(
    ("text", "at_ns"),
    [
        ("1970-01-02", 86_400 * 10**9),
        ("1970-01-01T00:00:01.5Z", 1_500_000_000),
        ("1970-01-01 01:00+01:00", 0),
        ("1969-12-31T23:59:59.5", -500_000_000),
    ],
)
def test_a_time_is_utc_unless_it_says_otherwise(text, at_ns):
    assert When(at_ns=at_ns) == parse_when(text)


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "-1", "1.5", "2026-13-01", "1234567890", "٣",
     "0001-01-01T00:00+14:00", "9999-12-31T23:59-14:00"],
)  # fmt: skip
def test_what_is_no_point_in_history_is_refused(text):
    with pytest.raises(InvalidError, match="not a point in history"):
        parse_when(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a reference"),
        ("a/b/c/d", "not a reference"),
        ("/a", "not a reference"),
        ("a//b", "not a reference"),
        ("a:", "not a valid alias"),
        ("a:b:c", "not a valid alias"),
        ("a:V1", "stand for numbers"),
        ("a:next", "stand for numbers"),
        ("a:Latest", "kept by the registry"),
        ("a:v01", "stand for numbers"),
        ("a@", "not a digest"),
        ("a@ABCD", "not a digest"),
        ("a@abc", "not a digest"),
        ("a:v1@{1}", "never moves"),
        ("a@abcd@{1}", "never moves"),
        ("a:b@{x}", "not a point in history"),
        ("-a", "not a valid artifact or collection name"),
        ("a ", "not a valid artifact or collection name"),
        ("a\n", "not a valid artifact or collection name"),
        ("x" * 129, "not a valid artifact or collection name"),
        ("staging/a", "names no artifact"),
        ("collections/a/b/c/d", "names no artifact"),
        ("artifacts/a", None),
        ("artifacts/", "names no artifact"),
        ("projects/a/b", "names no artifact"),
        ("projects/a/b/staging/c", "names no artifact"),
    ],
)
def test_what_is_malformed_says_which_part(text, said):
    if said is None:
        assert Location(P, "a", "artifact") == parse_location(text, P)
        return
    with pytest.raises(InvalidError) as caught:
        parse_location(text, P)
    assert said in str(caught.value)


@pytest.mark.parametrize("text", ["a/b/c", "artifacts/x", "a/staging", "-/a", "/"])
def test_what_is_no_project_is_refused(text):
    with pytest.raises(InvalidError):
        parse_project(text)


@given(st.text(max_size=30))
def test_any_text_is_a_location_or_refused(text):
    try:
        location = parse_location(text, P)
    except InvalidError:
        return
    assert location == parse_location(str(location), P) or location.kind or location.when
