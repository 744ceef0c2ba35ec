"""What the import contracts of pyproject.toml cannot see: rules that are read off the code."""

import ast
import functools
import re
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from vulture import Vulture

import mregfs
from mregfs import errors
from mregfs.errors import HostError, MregfsError

ROOM = Path(mregfs.__file__).parent
MODULES = {path.relative_to(ROOM).as_posix(): path for path in sorted(ROOM.rglob("*.py"))}


@functools.cache
def _trees() -> dict[str, ast.Module]:
    return {name: ast.parse(path.read_text(), name) for name, path in MODULES.items()}


CATCHES_ALL = {
    "fuse/adapter.py",  # an exception that leaves a handler ends the mount
    "cli/main.py",  # no traceback gets past it to the person at the terminal
    "host/mounts.py",  # what a thread ran into is raised by who waits for it
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


def test_every_module_says_what_it_decides():
    assert [] == [name for name, tree in _trees().items() if not ast.get_docstring(tree)]


CALLERS = re.compile(
    r"\bonly [`\w.]+( (and|or|package) ?[`\w.]*)* (call|make|use|import)s?\b"
    r"|\bcalled by\b"
    r"|\bcalls? (it|this|these|them)[.,;]"
    r"|[`y] makes? one\b"
    r"|; nobody else\."
    r"|\bmay call (it|this)\b",
    re.IGNORECASE,
)


def test_who_calls_a_module_is_not_said_in_its_docstring():
    """Nobody reads it again when a caller comes; what must stay is a contract in pyproject.toml."""
    said = {
        name: found[0]
        for name, tree in _trees().items()
        for found in CALLERS.finditer(" ".join((ast.get_docstring(tree) or "").split()))
    }

    assert {} == said


@pytest.mark.slow
def test_no_name_is_kept_from_vulture_that_it_would_not_find():
    """The list says why each is there; what is used by now, or gone, is no longer in it."""
    told = tomllib.loads((ROOM.parent / "pyproject.toml").read_text())["tool"]["vulture"]
    finder = Vulture()
    finder.scavenge([str(ROOM)])
    found = {item.name for item in finder.get_unused_code(min_confidence=told["min_confidence"])}

    assert set() == set(told["ignore_names"]) - found


# ---- size

MANY_LINES = 600
"""Of a module: a warning, no more. It may be one table, or ten small classes."""

CLASS_LINES = 300
CLASS_METHODS = 30
"""More, and nobody sees which of its methods share which of its fields."""

ONE_METHOD_EACH = {
    "fuse/adapter.py: Adapter": "one thin method for each operation of FUSE",
    "vfs/router.py: Router": "likewise, to the tree that it is about",
    "vfs/unchanging.py: Unchanging": "likewise, refused",
}
LARGE = {
    "host/beneath.py: Beneath": "one small method for each system call on a name",
    "model/state.py: State": "one small method for each key of the index",
    "registry/log/replay.py: Replay": "one transaction from the log to the index",
    "stores/index_lmdb/environment.py: Environment": "one environment: its map, readers, writer",
    "stores/index_lmdb/files.py: IndexFiles": "the files of an index and their locks",
    "stores/intake_dir/intake.py: IntakeDirectory": "one commit's draft, from scan to release",
    "stores/objects_dir/objects.py: ObjectsDirectory": "create-if-absent and what it falls back to",
    "stores/packs_dir.py: PacksDirectory": "all packs of a store, by descriptors",
}
"""Classes above the bounds, and what each is. A class that has become smaller is no longer here."""


def _classes_above_the_bounds() -> Iterator[str]:
    for name, tree in _trees().items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.ClassDef) or any(
                _dotted(base).endswith("Protocol") for base in node.bases
            ):
                continue
            methods = [
                inner
                for inner in node.body
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)
            ]
            lines = (node.end_lineno or 0) - node.lineno + 1
            if lines > CLASS_LINES or len(methods) > CLASS_METHODS:
                yield f"{name}: {node.name}"


def test_classes_stay_small():
    assert LARGE.keys() | ONE_METHOD_EACH.keys() == set(_classes_above_the_bounds())


@pytest.mark.filterwarnings("default")
def test_long_modules_are_told():
    for name, path in MODULES.items():
        lines = len(path.read_text().splitlines())
        if lines > MANY_LINES:
            warnings.warn(f"{name} has {lines} lines: is it one thing?", stacklevel=1)


def test_no_view_of_the_index_is_held_across_a_checkpoint():
    waits = (ast.Await, ast.AsyncFor, ast.AsyncWith)
    held = [
        f"{name}:{inner.lineno}"
        for name, tree in _trees().items()
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
        for name, tree in _trees().items()
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
        for name, tree in _trees().items()
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
    for name, tree in _trees().items():
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
    rooms = ("model/", "registry/", "vfs/", "errors.py", "ports/")
    guilty = {
        name: found
        for name, tree in _trees().items()
        if name.startswith(rooms) and (found := _imports(tree) & unfit)
    }

    assert {} == guilty


# ---- names that somebody else could swap (`mregfs/threat-model.md`)

GUARDED_ROOMS = ("stores/", "drafts/", "host/", "fuse/")
BY_NAME = {
    f"os.{name}"
    for name in (
        "chmod", "chown", "getxattr", "lchown", "link", "listdir", "listxattr", "makedirs",
        "mkdir", "mkfifo", "mknod", "open", "remove", "removedirs", "removexattr", "rename",
        "renames", "replace", "rmdir", "scandir", "setxattr", "symlink", "truncate", "unlink",
        "utime", "walk",
    )
} | {"open", "io.open"}  # fmt: skip
UNGUARDED_MODULES = {"glob", "pathlib", "shutil", "tempfile"}
"""What they offer goes by paths, or by names that it makes up."""

BARE_PATHS = {
    "fuse/guard.py: os.open": "O_PATH of the mount point, which the user named",
    "host/callers.py: open": "the status of a process, by its name in /proc",
    "host/mount_table.py: open": "a table of the kernel's, by its name in /proc",
    "host/mounts.py: open": "the status of a mount that the kernel lists",
    "fuse/mountpoint.py: import pathlib": "the mount point, which the user named",
    "fuse/mountpoint.py: import shutil": "to find fusermount3 in $PATH",
    "stores/export_dir.py: os.open": "the directory that holds the one that the user named",
    "host/beneath.py: os.open": "the directory that the user named: the one path there is",
    "host/plain.py: os.getxattr": "the path is of a descriptor, as for all of these: `path_of`",
    "host/plain.py: os.listxattr": "likewise",
    "host/plain.py: os.removexattr": "likewise",
    "host/plain.py: os.setxattr": "likewise",
    "host/plain.py: os.open": "relative to a directory, or, to open again, as above",
    "host/following.py: os.open": "where the way that the user named begins: / or .",
}
"""What is made by a path all the same, and why nobody can make that path another one."""


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _is_descriptor(node: ast.expr) -> bool:
    """Tell whether an argument is a descriptor, as its name says, or leads to one by /proc."""
    if isinstance(node, ast.Call):
        return _dotted(node.func).endswith(("fileno", "descriptor", "open_directory"))
    if isinstance(node, ast.JoinedStr) and node.values:
        node = node.values[0] if isinstance(node.values[0], ast.Constant) else node
    if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
        text = node.value if isinstance(node.value, str) else node.value.decode()
        return text.startswith(("/proc/", "/sys/", "/dev/"))
    last = _dotted(node).rpartition(".")[2].strip("_")
    return last in ("fd", "file", "opened") or last.endswith(("_fd", "descriptor"))


def _bare_paths(name: str) -> Iterator[str]:
    """Yield the system calls of a module that are made by a path, and the modules made of such."""
    for module in _imports(_trees()[name]) & UNGUARDED_MODULES:
        yield f"{name}: import {module}"
    for node in ast.walk(_trees()[name]):
        if not isinstance(node, ast.Call) or _dotted(node.func) not in BY_NAME:
            continue
        relative = {keyword.arg for keyword in node.keywords} & {"dir_fd", "src_dir_fd"}
        if not relative and not (node.args and _is_descriptor(node.args[0])):
            yield f"{name}: {_dotted(node.func)}"


def test_directories_are_listed_as_they_are_now():
    """On btrfs a descriptor shows newer names only after a seek, which `host/listing.py` makes."""
    found = {
        name
        for name, tree in _trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and _dotted(node.func) in ("os.listdir", "os.scandir")
        and _is_descriptor(node.args[0])
        and not isinstance(node.args[0], ast.Constant)
    }
    assert {"host/listing.py"} == found


def test_no_system_call_is_made_by_a_path():
    """Who may change a directory on the way decides what a path means; a descriptor stays."""
    found = {
        each for name in _trees() if name.startswith(GUARDED_ROOMS) for each in _bare_paths(name)
    }

    assert set() == found - BARE_PATHS.keys()


# ---- the shape of the mount (`mregfs/model/paths.py`)

MOUNT_NAMES = re.compile(r"(?:.*/)?(?:artifacts|collections|projects|staging|\.mregfs)(?:/.*)?")

SAME_WORD = {
    "api/in_mount.py: projects": "a question",
    "wiring/host_directories.py: staging": "a directory of this host's",
    "drafts/directory.py: staging": "likewise",
    "stores/intake_dir/taking.py: staging": "likewise",
    "model/forms.py: projects": "a question",
    "registry/read/answers.py: projects": "likewise",
    "registry/read/catalog.py: artifacts": "a key of the status",
    "registry/read/catalog.py: collections": "likewise",
    "registry/read/catalog.py: projects": "likewise",
}
"""Where a word is spelled that is no directory of a mount there."""


def _constants(tree: ast.Module) -> Iterator[str]:
    """Yield the words of a module that are no sentences: neither docstrings nor messages."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            text = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
            if not set(text) & set(" \n"):
                yield text


def test_the_shape_of_the_mount_is_spelled_in_one_module():
    found = {
        f"{name}: {text}"
        for name, tree in _trees().items()
        if name != "model/paths.py"
        for text in _constants(tree)
        if MOUNT_NAMES.fullmatch(text)
    }

    assert SAME_WORD.keys() == found
