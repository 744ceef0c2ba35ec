"""The wheel without extras: looking through a mount with nothing that has to be compiled.

Decided here: what an installation without `[mount]` can do and what it says of the rest; that its
modules use nothing that only Linux has. pip takes the three packages it needs from where it always
takes them.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import Mount

TOP = Path(__file__).parents[2]
NOBODY = 65534
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
VERBS = (
    ("ls",),
    ("ls", "mnist"),
    ("ls", "mnist:v0"),
    ("tree",),
    ("show", "mnist:best"),
    ("history", "mnist"),
    ("du",),
    ("diff", "mnist:v0", "mnist:v1"),
    ("path", "mnist:best"),
    ("wait", "mnist:best"),
    ("log", "--since", "0"),
    ("status",),
    ("export", "mnist:best", "out"),
)
LACKS = {"blake3", "lmdb", "numpy", "pyfastcdc", "pyfuse3", "trio", "zstandard"}

pytestmark = pytest.mark.slow


class Client:
    """A directory that everybody may look into, with the wheel in an environment of its own."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.python = top / "venv" / "bin" / "python"

    def build(self) -> list[str]:
        """Make the wheel of any host, and install it; return the names in it."""
        source = self.top / "source"
        for name in ("Makefile", "pyproject.toml", "README.md", "LICENSE"):
            source.mkdir(exist_ok=True)
            shutil.copy(TOP / name, source / name)
        ignored = shutil.ignore_patterns("*.so", "__pycache__")
        shutil.copytree(TOP / "mregfs", source / "mregfs", ignore=ignored)
        pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input")
        make = ("make", "--silent", "-C", source, "any-wheel", f"PIP={' '.join(pip)}")
        subprocess.run(make, check=True)
        found = source / "dist" / "mregfs-0.1.0-py3-none-any.whl"
        venv.create(self.top / "venv", with_pip=False)
        subprocess.run([*pip, "--python", self.python, "install", found], check=True)
        listed = subprocess.run(
            [self.python, "-c", "import importlib.metadata as m, json; "
             "print(json.dumps([d.metadata['Name'] for d in m.distributions()]))"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        return list(json.loads(listed.stdout))


@pytest.fixture(scope="module")
def top() -> Iterator[Path]:
    found = Path(tempfile.mkdtemp(prefix="mregfs-wheel-"))
    found.chmod(0o755)
    yield found
    shutil.rmtree(found)


@pytest.fixture(scope="module")
def client(top: Path) -> Client:
    found = Client(top)
    installed = {name.lower().replace("_", "-") for name in found.build()}
    assert {"mregfs", "click", "msgspec", "rich"} <= installed
    assert not LACKS & installed
    return found


@pytest.fixture(scope="module")
def mount(top: Path, model_files: dict[str, bytes]) -> Iterator[Mount]:
    found = Mount(top, options=("--allow-other",), environment={"MREGFS_STORE": ""})
    try:
        found.init()
        found.start()
        found.commit("mnist", model_files, "--alias best")
        found.commit("mnist", {"config.json": b"{}"})
        found.store.chmod(0o700)
        (top / "home").mkdir()
        os.chown(top / "home", NOBODY, NOBODY)
        yield found
    finally:
        assert [] == found.clear()


def run(
    client: Client, mount: Mount, *words: str, check: bool = True
) -> subprocess.CompletedProcess[str]:
    command = (*AS_NOBODY, client.python, "-m", "mregfs", *words)
    return mount.run(*command, cwd=client.top / "home", check=check)


def test_it_looks_through_a_mount_as_an_owner_looks_into_his_store(
    client: Client, mount: Mount
) -> None:
    for words in VERBS:
        theirs = run(client, mount, *words, "--json")
        if words[0] in ("status", "export"):
            continue
        mine = mount.cli("--store", mount.store, *words, "--json")
        assert mine.stdout == theirs.stdout

    assert (client.top / "home" / "out" / "config.json").is_file()


def test_it_has_the_manual(client: Client, mount: Mount) -> None:
    assert run(client, mount, "help", "aliases").stdout.startswith("# Aliases")


def test_it_writes_through_a_mount_as_far_as_it_may(client: Client, mount: Mount) -> None:
    refused = run(client, mount, "ln", "mnist:v1", "mnist:best", check=False)
    mount.cli("access", "--writers", "nogroup")
    try:
        run(client, mount, "ln", "mnist:v1", "mnist:best")
        assert "v1" == json.loads(run(client, mount, "show", "mnist:best", "--json").stdout)[
            "version"
        ]  # fmt: skip
    finally:
        mount.cli("ln", "mnist:v0", "mnist:best")
        mount.cli("access", "--writers", "-")

    assert 7 == refused.returncode


@pytest.mark.parametrize(
    "words", [("init", "store"), ("mount", "store", "point"), ("--store", "store", "ls")], ids=str
)
def test_what_it_lacks_it_says(client: Client, mount: Mount, words: tuple[str, ...]) -> None:
    (client.top / "home" / "point").mkdir(exist_ok=True)
    (client.top / "home" / "store").mkdir(exist_ok=True)
    done = run(client, mount, *words, check=False)

    assert 13 == done.returncode, done.stderr
    assert "mregfs[mount]" in done.stderr
    assert 1 == done.stderr.count("\n")


IMPORTED = """
import contextlib, io, json, sys
from mregfs.cli.main import run
import mregfs
with mregfs.Registry(mount=sys.argv[1]) as registry:
    registry.read("mnist:best", "config.json")
for words in json.loads(sys.argv[2]):
    with contextlib.redirect_stdout(io.StringIO()):
        assert 0 == run([*words, "--mount", sys.argv[1]]), words
print(json.dumps(sorted(name for name in sys.modules if name.split(".")[0] == "mregfs")))
"""


def test_it_uses_nothing_that_only_linux_has(client: Client, mount: Mount) -> None:
    """By what typeshed knows of macOS: nothing here runs there."""
    verbs = json.dumps([list(words) for words in VERBS if words[0] != "export"])
    command = (*AS_NOBODY, client.python, "-c", IMPORTED, mount.path, verbs)
    modules = json.loads(mount.run(*command, cwd=client.top / "home").stdout)
    asked = [word for name in (*modules, "mregfs.stores.export_dir") for word in ("-m", name)]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--platform", "darwin", "--follow-imports=silent"),
            *("--no-warn-unused-ignores", "--no-warn-unreachable", "--cache-dir", client.top),
            *asked,
        ],
        cwd=TOP,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (0, "") == (done.returncode, done.stderr), done.stdout
    assert {"mregfs.cli.follow", "mregfs.api.in_mount", "mregfs.registry.read.diff"} <= set(modules)
    others = ("mregfs.fuse", "mregfs.vfs", "mregfs.stores.", "mregfs.host.beneath")
    assert not [name for name in modules if name.startswith(others)]
