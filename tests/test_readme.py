"""The README is complete, and its links lead somewhere (its tutorial: `mount/test_readme.py`)."""

import ast
import functools
import re
from pathlib import Path

from mregfs.cli.help import topics
from mregfs.cli.main import group
from mregfs.cli.verbs import VERBS

README = Path(__file__).parents[1] / "README.md"
MANUAL = README.parent / "mregfs/manual"


def test_links_lead_somewhere() -> None:
    """Every relative link of the README and of the pages next to the code is a file."""
    pages = [*README.parent.glob("*.md"), *(README.parent / "mregfs").rglob("*.md")]
    for page in pages:
        for link in re.findall(r"\]\(([^):#]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page}: {link}"


def test_pages_that_are_named_are_there() -> None:
    """So is a page of which only the path is said."""
    for page in (README, *(README.parent / "mregfs").rglob("*.md")):
        for path in re.findall(r"`((?:mregfs|tests)/[\w/]+\.md)`", page.read_text()):
            assert (README.parent / path).exists(), f"{page}: {path}"


@functools.cache
def _functions(path: str) -> dict[str, ast.FunctionDef]:
    return {
        each.name: each
        for each in ast.walk(ast.parse((README.parent / path).read_text()))
        if isinstance(each, ast.FunctionDef)
    }


def test_promises_are_shown_by_tests() -> None:
    """Each promise of the threat model names tests that are there and have to pass."""
    page = (README.parent / "mregfs/threat-model.md").read_text()
    promises = [
        row
        for table in page.split("| promise | shown by |\n|---|---|\n")[1:]
        for row in table.partition("\n\n")[0].splitlines()
    ]
    assert len(promises) > 20
    for promise in promises:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", promise)
        assert named, f"no test shows: {promise}"
        for path, name in named:
            functions = _functions(path)
            assert name in functions, f"{path} has no {name}"
            marks = " ".join(ast.unparse(mark) for mark in functions[name].decorator_list)
            assert "xfail" not in marks.lower(), f"{path}: {name} may fail"


def test_every_variable_is_in_a_page() -> None:
    """What the code takes from the environment is said where people look."""
    pages = "".join(page.read_text() for page in (README, *MANUAL.glob("*.md")))
    code = "".join(path.read_text() for path in (README.parent / "mregfs").rglob("*.py"))
    named = set(re.findall(r"\bMREGFS_[A-Z_]*[A-Z]\b", code))
    assert [] == sorted(name for name in named if name not in pages)


def test_every_verb_takes_json_but_demo() -> None:
    context = group.make_context("mregfs", ["ls"])
    without = []
    for verb in VERBS:
        command = group.get_command(context, verb)
        assert command is not None
        verbs = getattr(command, "commands", {verb: command}).values()
        if not all("as_json" in {option.name for option in each.params} for each in verbs):
            without.append(verb)
    assert ["demo"] == without


def test_every_verb_is_named() -> None:
    """The page of commands is complete."""
    named = re.findall(r"^### ([\w-]+)", (MANUAL / "commands.md").read_text(), re.MULTILINE)
    assert set() == set(VERBS) - set(named)


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 160


def test_no_topic_of_the_manual_hides_a_verb() -> None:
    """`mregfs help NAME` is the page, or the help of the verb: never has one to guess."""
    assert set() == topics().keys() & VERBS.keys()


def test_every_page_of_the_manual_begins_with_its_title() -> None:
    for page in MANUAL.glob("*.md"):
        assert re.match(r"# \S.*\n\n\S", page.read_text()), page.name
