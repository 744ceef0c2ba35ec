"""The pages for whoever changes the code name what there is, in the words that are agreed.

Decided here: that packages, threads, locks and terms are all in their page. Not decided here: links
and the manual (`test_readme.py`), whether what a page shows works (`mount/test_readme.py`).
"""

import ast
import itertools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from mregfs.cli.verbs import VERBS

TOP = Path(__file__).parents[1]
CODE = TOP / "mregfs"
ARCHITECTURE = (CODE / "ARCHITECTURE.md").read_text()
GLOSSARY = (CODE / "GLOSSARY.md").read_text()
CONCURRENCY = (CODE / "CONCURRENCY.md").read_text()
MODULES = {
    path.relative_to(CODE).as_posix(): ast.parse(path.read_text()) for path in CODE.rglob("*.py")
}


def calls(tree: ast.AST, *names: str) -> Iterator[ast.Call]:
    """Yield the calls of functions of these names, with or without a module before them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in names:
            yield node


def texts(node: ast.Call) -> list[str]:
    found = [*node.args, *(keyword.value for keyword in node.keywords)]
    return [
        each.value
        for each in found
        if isinstance(each, ast.Constant) and isinstance(each.value, str)
    ]


def test_what_pages_name_is_there() -> None:
    """No page names a module or a page that has moved or gone."""
    there = [
        path.relative_to(TOP).as_posix()
        for top in (CODE, TOP / "tests")
        for path in top.rglob("*.*")
        if path.suffix in (".py", ".c", ".md")
    ]
    missing = [
        f"{page.relative_to(TOP)}: {name}"
        for page in (TOP / "README.md", TOP / "CONTRIBUTING.md", *CODE.rglob("*.md"))
        for name in re.findall(r"`([\w./-]+\.(?:py|c|md))(?:::\w+)?`", page.read_text())
        if not any(
            f"/{each}".endswith(f"/{name.lstrip('./')}") for each in [*there, "CHANGELOG.md"]
        )
    ]
    assert [] == missing


def test_every_package_is_in_the_architecture() -> None:
    """So is each of the registry's, and each module that stands beside the packages."""
    packages = {
        f"{path.parent.relative_to(CODE).as_posix()}/"
        for top in (CODE, CODE / "registry")
        for path in top.glob("*/__init__.py")
    }
    modules = {path.name for path in CODE.glob("*.py")} - {"__init__.py", "__main__.py"}
    named = set(re.findall(r"^\| `([\w/.]+)` \|", ARCHITECTURE, re.MULTILINE))
    assert packages | modules | {"manual/", "decisions/"} == named


def test_arrows_between_packages_are_imports() -> None:
    picture = (
        ARCHITECTURE.partition("## Packages")[2].partition("graph TD\n")[2].partition("```")[0]
    )
    arrows = {
        (user.strip(), used.strip())
        for line in picture.splitlines()
        for before, after in itertools.pairwise(line.split("-->"))
        for user in before.split("&")
        for used in after.split("&")
    }
    assert len(arrows) > 10
    imports = {
        (module.partition("/")[0].removesuffix(".py"), name.split(".")[1])
        for module, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for name in (f"{node.module}.{alias.name}" for alias in node.names)
        if name.startswith("mregfs.")
    }
    assert set() == arrows - imports


def test_paths_in_the_architecture_are_there() -> None:
    for path in re.findall(r"`([\w/]+(?:/|\.py|\.toml))`", ARCHITECTURE):
        assert (CODE / path).exists() or (TOP / path).exists(), path


def test_what_happens_has_a_picture_each() -> None:
    for section in ("Nouns", "Packages", "A read", "A write", "A commit", "An alias move"):
        text = ARCHITECTURE.partition(f"## {section}\n")[2].partition("\n## ")[0]
        assert 1 == len(re.findall(r"^```mermaid\n(?:graph|sequenceDiagram)", text, re.MULTILINE))


def test_every_thread_is_in_the_page() -> None:
    """Every thread and pool has a name, and the page of threads has the name."""
    for module, tree in MODULES.items():
        for call in calls(tree, "Thread", "ThreadPoolExecutor"):
            if "name=self._name" in ast.unparse(call):  # of a pool, which is looked at below
                continue
            assert texts(call), f"{module}:{call.lineno}: a thread without a name"
            assert f"`{texts(call)[0]}`" in CONCURRENCY, f"{module}: {texts(call)[0]}"
        for call in calls(tree, "Workers"):
            assert f"`{texts(call)[0]}`" in CONCURRENCY, f"{module}: {texts(call)[0]}"
    for source in CODE.rglob("*.c"):
        for name in re.findall(r'pthread_setname_np\(.*"(.+)"', source.read_text()):
            assert f"`{name}`" in CONCURRENCY, f"{source.name}: {name}"


def test_every_lock_is_in_the_page() -> None:
    for module, tree in MODULES.items():
        stem = module.rpartition("/")[2].removesuffix(".py")
        for owner in (tree, *(each for each in ast.walk(tree) if isinstance(each, ast.ClassDef))):
            name = owner.name if isinstance(owner, ast.ClassDef) else stem
            for lock in locks(owner):
                assert f"`{name}.{lock}`" in CONCURRENCY, f"{module}: {name}.{lock}"


def locks(owner: ast.Module | ast.ClassDef) -> Iterator[str]:
    """Yield the names of the locks that a module or a class makes."""
    body = ast.walk(owner) if isinstance(owner, ast.ClassDef) else iter(owner.body)
    for node in body:
        if isinstance(node, ast.Assign) and any(
            node.value is call for call in calls(node, "Lock", "RLock", "Condition")
        ):
            yield ast.unparse(node.targets[0]).removeprefix("self.")


def test_the_man_page_has_every_verb() -> None:
    """What `make man` writes is roff that names all verbs, and acts upon nothing they say."""
    made = subprocess.run(
        [sys.executable, TOP / ".ci/man"], capture_output=True, text=True, check=True
    )
    assert set(VERBS) <= set(re.findall(r'^\.SS "([\w-]+)"', made.stdout, re.MULTILINE))
    assert set() == set(re.findall(r"^[.'](\w*)", made.stdout, re.MULTILINE)) - ROFF


ROFF = {"TH", "SH", "SS", "PP", "TP", "B", "BR", "nf", "fi"}


def test_the_glossary_is_short() -> None:
    terms = rows(GLOSSARY.partition("## Not used")[0])
    assert len(terms) <= 40
    assert len({term for term, _ in terms}) == len(terms)


def rows(text: str) -> list[tuple[str, str]]:
    """Return the rows of the two-column tables in a text, without their headings."""
    found = [line.strip("| ").split(" | ", 1) for line in text.splitlines() if line.startswith("|")]
    return [
        (row[0], row[1]) for row in found if row[0] not in ("term", "not") and "---" not in row[0]
    ]


ALLOWED = {
    ("express", "mregfs/vfs/semantics.md"): "a mode cannot express some rights",
}
"""A struck word and a file in which it has its ordinary meaning: why it stays."""


SAY_THEM = ("mregfs/GLOSSARY.md", "tests/test_pages.py")


def test_words_that_were_struck_occur_nowhere() -> None:
    struck = [word for word, _ in rows(GLOSSARY.partition("## Not used")[2])]
    assert struck
    pattern = re.compile(rf"\b({'|'.join(struck)})s?\b", re.IGNORECASE)
    sources = [
        each
        for end in ("py", "pyi", "md", "c")
        for folder in (CODE, TOP / "tests")
        for each in folder.rglob(f"*.{end}")
    ]
    found = [
        f"{name}: …{words[max(match.start() - 40, 0) : match.end() + 40]}…"
        for path in (*TOP.glob("*.md"), TOP / "Makefile", *sources)
        if (name := path.relative_to(TOP).as_posix()) not in SAY_THEM
        for words in (as_words(f"{name} {path.read_text()}"),)
        for match in pattern.finditer(words)
        if (match[1].lower(), name) not in ALLOWED
    ]
    assert [] == found


def as_words(text: str) -> str:
    """Take names of code apart, and put each space in one piece."""
    return " ".join(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text.replace("_", " ")).split())
