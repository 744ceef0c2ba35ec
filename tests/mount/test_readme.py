"""README and manual tell the truth: what they show is run as it stands.

Decided here: how a page is run. A `console` block is typed into a shell that stands in the mount,
and prints what the page shows (`...` stands for anything). The `python` blocks of a page run one
after the other. An `sh` block needs a systemd, an /etc or another user, so it is not run: it must
be a script, and the verbs and options that it names must exist.

`<!-- given: NAME N [COLLECTION] -->` in a page makes an artifact with N versions before its blocks
run, and a collection whose `production` is the first of them.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from mregfs.cli.main import group
from tests.mount.conftest import Mount

README = Path(__file__).parents[2] / "README.md"
MANUAL = README.parent / "mregfs/manual"
PAGES = {page.stem: page.read_text() for page in sorted(MANUAL.glob("*.md"))}
END = "--- end of command"


def blocks(text: str, language: str) -> list[str]:
    """Return the code blocks of a page that are in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[tuple[str, str]]:
    """Return the commands of a page's console blocks, each with what it is said to print."""
    steps: list[tuple[str, str]] = []
    for block in blocks(text, "console"):
        for line in block.splitlines():
            if line.startswith("$ "):
                steps.append((line[2:], ""))
            elif line.startswith("> "):
                steps[-1] = (f"{steps[-1][0]}\n{line[2:]}", "")
            else:
                steps[-1] = (steps[-1][0], f"{steps[-1][1]}{line}\n")
    return steps


def type_all(mount: Mount, text: str, directory: Path) -> None:
    """Type the commands of a page into one shell: each succeeds, and prints what is shown."""
    steps = commands(text)
    script = "".join(f"{{ {command}\n}} 2>&1; echo; echo '{END}' $?\n" for command, _ in steps)
    done = mount.run("bash", "-c", script, cwd=directory)
    said = re.split(rf"{END} (\d+)\n", done.stdout)
    for (command, expected), output, code in zip(steps, said[::2], said[1::2], strict=False):
        assert "0" == code, f"$ {command}\n{output}"
        pattern = re.escape(expected.strip()).replace(r"\.\.\.", ".*")
        assert re.fullmatch(pattern, output.strip(), re.DOTALL), f"$ {command}\n{output}"
    assert len(steps) == len(said) // 2


@pytest.mark.slow
def test_the_tutorial_does_what_it_says(make_mount) -> None:
    """Every command of the README succeeds, in order, and prints what the README shows."""
    mount = make_mount()
    del mount.environment["MREGFS_STORE"], mount.environment["MREGFS_MOUNT"]
    directory = mount.path.parent
    mount.path = directory / "models"
    mount.log = Path("/var/log/mregfs") / f"{str(mount.path).strip('/').replace('/', '-')}.log"
    try:
        type_all(mount, README.read_text(), directory)
        assert not mount.mounted()
        assert [] == mount.problems()
    finally:
        mount.clear()
        mount.log.unlink(missing_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if commands(text)])
def test_the_manual_does_what_it_says(shared_mount: Mount, page: str) -> None:
    """Every command of a page succeeds, in order, and prints what the page shows."""
    prepare(shared_mount, PAGES[page])
    type_all(shared_mount, PAGES[page], shared_mount.path)


@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if blocks(text, "python")])
def test_the_python_of_the_manual_runs(shared_mount: Mount, tmp_path: Path, page: str) -> None:
    """The Python of a page runs, block after block."""
    prepare(shared_mount, PAGES[page])
    (tmp_path / "store").symlink_to(shared_mount.store)
    for program in blocks(PAGES[page], "python"):
        shared_mount.run(sys.executable, "-c", program, cwd=tmp_path)


def prepare(mount: Mount, text: str) -> None:
    """Make what a page says is there, unless another test of the page has."""
    for name, count, collection in re.findall(r"<!-- given: (\w+) (\d+) ?(\w*) -->", text):
        if mount.versions(name):
            continue
        for number in range(int(count)):
            mount.commit(name, {"model.bin": b"weights %d of %s" % (number, name.encode())})
        if collection:
            mount.control(f"ln {name}:v0 {collection}:production")


def test_the_python_example_runs(registry_mount, tmp_path) -> None:
    """The Python of the README runs against a store like that of the tutorial."""
    for number in range(2):
        registry_mount.commit("mnist", {"model.safetensors": b"%d" % number})
    registry_mount.control("ln -sf mnist:v0 classifier:production")
    registry_mount.control("ln -sf mnist:v1 classifier:production")
    (tmp_path / "out/run-19").mkdir(parents=True)
    (tmp_path / "out/run-19/model.safetensors").write_bytes(b"2")
    (tmp_path / "store").symlink_to(registry_mount.store)
    (program,) = blocks(README.read_text(), "python")
    done = registry_mount.run(sys.executable, "-c", program, cwd=tmp_path)
    assert "{'accuracy': 0.99}" == done.stdout.splitlines()[0]
    assert "better" in done.stdout
    production = registry_mount.path / "collections/classifier/production"
    assert "v2" == os.readlink(production)
    assert b"2" == (production / "model.safetensors").read_bytes()


@pytest.mark.parametrize("page", ["README", *PAGES])
def test_scripts_for_people_name_what_is_there(page: str) -> None:
    """An `sh` block is a script, and names no verb and no option that there is not."""
    text = PAGES.get(page) or README.read_text()
    for script in blocks(text, "sh"):
        subprocess.run(["bash", "-n", "-c", script], check=True)
        for line in script.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if "mregfs" in words:
                look_up(words[words.index("mregfs") + 1 :])


def look_up(words: list[str]) -> None:
    """Look for the verb and the options of a command line of mregfs."""
    command: click.Command | None = group
    context = group.make_context("mregfs", ["ls"])
    while isinstance(command, click.Group) and words:
        name, *words = words
        command = command.get_command(context, name)
        assert command is not None, f"there is no verb {name}"
    known = {option for each in command.params for option in each.opts}
    given = {word.partition("=")[0] for word in words if word.startswith("-") and word != "-"}
    assert set() == given - known, command.name
