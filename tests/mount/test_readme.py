"""The README tells the truth: its tutorial and its Python are run as they stand."""

import os
import re
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
END = "--- end of command"


def tutorial() -> list[tuple[str, str]]:
    """Return the commands of the README's console blocks, each with what it is said to print."""
    steps: list[tuple[str, str]] = []
    for block in re.findall(
        r"^```console\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE
    ):
        for line in block.splitlines():
            if line.startswith("$ "):
                steps.append((line[2:], ""))
            elif line.startswith("> "):
                steps[-1] = (f"{steps[-1][0]}\n{line[2:]}", "")
            else:
                steps[-1] = (steps[-1][0], f"{steps[-1][1]}{line}\n")
    return steps


@pytest.mark.slow
def test_the_tutorial_does_what_it_says(make_mount) -> None:
    """Every command of the tutorial succeeds, in order, and prints what the README shows."""
    mount = make_mount()
    del mount.environment["MREGFS_STORE"], mount.environment["MREGFS_MOUNT"]
    directory = mount.path.parent
    mount.path = directory / "models"
    mount.log = Path("/var/log/mregfs") / f"{str(mount.path).strip('/').replace('/', '-')}.log"
    steps = tutorial()
    script = "".join(f"{{ {command}\n}} 2>&1; echo; echo '{END}' $?\n" for command, _ in steps)
    try:
        done = mount.run("bash", "-c", script, cwd=directory)
        assert not mount.mounted()
        assert [] == mount.problems()
    finally:
        mount.clear()
        mount.log.unlink(missing_ok=True)
    said = re.split(rf"{END} (\d+)\n", done.stdout)
    for (command, expected), output, code in zip(steps, said[::2], said[1::2], strict=False):
        assert "0" == code, f"$ {command}\n{output}"
        pattern = re.escape(expected.strip()).replace(r"\.\.\.", ".*")
        assert re.fullmatch(pattern, output.strip(), re.DOTALL), f"$ {command}\n{output}"
    assert len(steps) == len(said) // 2


def test_the_python_example_runs(registry_mount, tmp_path) -> None:
    """The Python of the README runs against a store like that of the tutorial."""
    for number in range(2):
        registry_mount.commit("mnist", {"model.safetensors": b"%d" % number})
    registry_mount.control("ln -sf mnist:v0 classifier:production")
    registry_mount.control("ln -sf mnist:v1 classifier:production")
    (tmp_path / "out/run-19").mkdir(parents=True)
    (tmp_path / "out/run-19/model.safetensors").write_bytes(b"2")
    (tmp_path / "store").symlink_to(registry_mount.store)
    (program,) = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)
    done = registry_mount.run(sys.executable, "-c", program, cwd=tmp_path)
    assert "{'accuracy': 0.99}" == done.stdout.splitlines()[0]
    assert "better" in done.stdout
    production = registry_mount.path / "collections/classifier/production"
    assert "v2" == os.readlink(production)
    assert b"2" == (production / "model.safetensors").read_bytes()
