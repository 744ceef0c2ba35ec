"""What the import contracts of pyproject.toml cannot see: the house rules, read off the code."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import mregfs
from mregfs import errors
from mregfs.errors import HostError, MregfsError

ROOM = Path(mregfs.__file__).parent
MODULES = {path.relative_to(ROOM).as_posix(): path for path in sorted(ROOM.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(), name) for name, path in MODULES.items()}

CATCHES_ALL = {
    "fuse/adapter.py",  # an exception that leaves a handler ends the mount
    "daemon.py",  # the same for its tasks
    "cli/main.py",  # no traceback gets past it to the person at the terminal
    "cli/completion.py",  # nor into the line that somebody is typing
}


def _within(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what runs when `node` runs: not the bodies of functions defined in it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from _within(child)


def _imports(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert 0 == node.level
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_decides_and_stays_readable(name):
    assert ast.get_docstring(TREES[name])
    assert len(MODULES[name].read_text().splitlines()) <= 600


def test_no_view_of_the_index_is_held_across_a_checkpoint():
    waits = (ast.Await, ast.AsyncFor, ast.AsyncWith)
    held = [
        f"{name}:{inner.lineno}"
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.With)
        and any(
            isinstance(item.context_expr, ast.Call)
            and isinstance(item.context_expr.func, ast.Attribute)
            and item.context_expr.func.attr == "read"
            for item in node.items
        )
        for statement in node.body
        for inner in (statement, *_within(statement))
        if isinstance(inner, waits)
    ]

    assert [] == held


def test_only_the_edges_catch_everything():
    swallowed = {
        name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler)
        and _names(node.type) & {"", "Exception", "BaseException"}
        and not any(isinstance(inner, ast.Raise) and not inner.exc for inner in _within(node))
    }

    assert set() == swallowed - CATCHES_ALL


def _names(node: ast.expr | None) -> set[str]:
    if node is None:
        return {""}
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}


def _classes(base: type[MregfsError]) -> Iterator[type[MregfsError]]:
    for cls in base.__subclasses__():
        yield cls
        yield from _classes(cls)


def test_every_error_has_an_errno_and_an_exit_code_of_its_own():
    kinds = [cls for cls in _classes(MregfsError) if cls.__module__ == errors.__name__]
    codes = [cls.exit_code for cls in kinds]
    numbers = [cls.errno for cls in kinds if cls is not HostError]

    assert {cls.__name__ for cls in kinds} | {"MregfsError"} == set(errors.__all__)
    assert len(kinds) == len(set(codes))
    assert not {0, 1, 2} & set(codes)
    assert len(numbers) == len(set(numbers))


def test_errors_are_a_closed_set():
    elsewhere = {
        f"{name}:{node.name}"
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and name != "errors.py"
        and any(_names(base) & set(errors.__all__) for base in node.bases)
    }

    assert set() == elsewhere


def test_the_model_is_pure():
    contracts = tomllib.loads((ROOM.parent / "pyproject.toml").read_text())
    forbidden = next(
        set(contract["forbidden_modules"])
        for contract in contracts["tool"]["importlinter"]["contracts"]
        if contract["name"] == "the model is pure"
    )
    for name, tree in TREES.items():
        if not name.startswith("model/") and name != "errors.py":
            continue
        for module in _imports(tree):
            first, *rest = module.split(".")
            assert first not in forbidden, name
            assert first != "mregfs" or rest[:1] in ([], ["model"], ["errors"]), name
        assert not any(isinstance(node, ast.Await) for node in ast.walk(tree)), name


def test_nothing_below_the_edges_knows_the_time_or_rolls_dice():
    """Time and chance come in by argument."""
    unfit = {"time", "random", "uuid", "secrets"}
    rooms = ("model/", "registry/", "vfs/", "errors.py", "ports.py")
    guilty = {
        name: found
        for name, tree in TREES.items()
        if name.startswith(rooms) and (found := _imports(tree) & unfit)
    }

    assert {} == guilty
