"""`mregfs demo`: all of it in half a minute, in a throw-away store that is really mounted.

Decided here: the steps, and that every command is shown as a person types it and run as it is
shown, by a shell. Not decided here: anything the commands do. `demo_train` and `demo_serve` are the
programs of the demo; they are copied, and run without this package. The table of verbs names
this module.
"""

import os
import queue
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import click

from mregfs.errors import UnavailableError, UnsupportedError

__all__ = ["demo"]

STEPS = r"""
# Make a registry, and mount it.
$ mregfs init registry
$ mkdir models
$ mregfs mount registry models --log-file daemon.log
$ export MREGFS_MOUNT=$PWD/models

# Train a small model; training code writes files into a directory, as ever.
$ python train.py --hidden 4 --save models/staging/run-1

# Commit the draft: it becomes v0, and nobody can change it any more.
$ echo 'commit run-1 digits --alias first' > models/.mregfs/control

# Link v0 into a collection, as its production version.
$ echo 'ln -sf artifacts/digits/v0 collections/reader/production' > models/.mregfs/control
$ ls -l models/artifacts/digits models/collections/reader

# Serve the path that never changes; the server waits for the path to lead elsewhere.
$ python serve.py models/collections/reader/production --follow models/.mregfs/events &
? serving digits/v0

# Train a larger model. A rename commits just as well.
$ python train.py --hidden 32 --save models/staging/run-2
$ mv models/staging/run-2 models/artifacts/digits/next

# Promote it with plain tools. It is one atomic rename, and the server has the new weights.
$ ln -sfn $PWD/models/artifacts/digits/v1 models/collections/reader/production
? serving digits/v1

# Roll back: a move like any other, with its reason in the history.
$ mregfs rollback reader:production --reason 'too many weights'
? serving digits/v0
$ mregfs history reader:production

# Done: stop the server, and unmount.
$ kill $!
$ mregfs umount models
"""
"""`#` a remark, `$` a command, `?` wait until a command in the background has said this."""

PROGRAMS = {"train.py": "demo_train.py", "serve.py": "demo_serve.py"}
NEEDED = {"numpy": "numpy", "safetensors": "safetensors", "sklearn": "scikit-learn"}
"""What the programs import, and the package that has it."""

END = "--- exit code"
PATIENCE = 60.0
"""Seconds for one command; the slowest takes two when nothing else runs."""


class Shell:
    """A POSIX shell that is given one command after the other, as a person gives them.

    Use it as a context manager: leaving it ends the shell and what runs in its background.
    """

    def __init__(self, directory: Path, path: Path) -> None:
        """Start it in `directory`, with the programs in `path` before all others."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MREGFS_")}
        self._said: list[str] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._process = subprocess.Popen(
            ["/bin/sh"],
            cwd=directory,
            env={**kept, "PATH": f"{path}:{kept.get('PATH', os.defpath)}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        threading.Thread(target=self._listen, name="mregfs-demo", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self._process.pid, signal.SIGTERM)
        self._process.wait()

    def run(self, command: str) -> None:
        """Run one command, and show what it prints.

        Raises:
            UnavailableError: it failed (what it printed has been shown) or did not end.
        """
        self._said.clear()
        assert self._process.stdin is not None
        self._process.stdin.write(f"{{ {command}\n}} </dev/null\nprintf '\\n%s %s\\n' '{END}' $?\n")
        self._process.stdin.flush()
        if self._show_until(END, command) != f"{END} 0":
            raise UnavailableError("the demo stopped", f"this failed: {command}")

    def wait_for(self, text: str) -> None:
        """Wait until a command in the background has printed a line that holds `text`.

        Raises:
            UnavailableError: it did not.
        """
        if not any(text in line for line in self._said):
            self._show_until(text, f"waiting for {text!r}")

    def _show_until(self, text: str, command: str) -> str:
        """Show lines until one holds `text`, and return that one."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                raise UnavailableError("the demo stopped", f"this did not end: {command}")
            if line and not line.startswith(END):
                self._said.append(line)
                click.echo(line)
            if text in line:
                return line

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                self._lines.put(line.rstrip("\n"))
        self._lines.put(None)


def tell(shell: Shell) -> None:
    """Show each step, and run it."""
    for line in STEPS.strip().splitlines():
        kind, _, text = line.partition(" ")
        if kind == "$":
            click.echo(click.style(f"$ {text}", bold=True))
            shell.run(text)
        elif kind == "?":
            shell.wait_for(text)
        else:
            click.echo(click.style(line, dim=True))


def lay_out(directory: Path) -> Path:
    """Copy the programs of the demo, and return a directory that has `mregfs` and `python`."""
    for name, source in PROGRAMS.items():
        shutil.copyfile(Path(__file__).with_name(source), directory / name)
    path = directory / ".bin"
    path.mkdir()
    python = shlex.quote(sys.executable)
    for name, words in {"python": python, "mregfs": f"{python} -m mregfs"}.items():
        (path / name).write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        (path / name).chmod(0o755)
    return path


def clear_away(directory: Path) -> None:
    """Unmount what a demo that stopped early has left mounted, and remove the directory."""
    mount = str(directory / "models")
    for command in (["fusermount3", "-u", "-z", mount], ["umount", "-l", mount]):
        # Asked of the kernel's table: a mount whose daemon died answers no stat.
        if f" {mount} " in Path("/proc/self/mounts").read_text() and shutil.which(command[0]):
            subprocess.run(command, check=False)
    shutil.rmtree(directory)


@click.command()
def demo() -> None:
    """Show all of it in half a minute, in a throw-away store.

    Makes a store, mounts it, trains two versions of a model, promotes, serves, rolls back, and
    removes everything again. Each command is shown, and run as shown.
    """
    missing = [package for module, package in NEEDED.items() if find_spec(module) is None]
    if missing:
        raise UnsupportedError(
            f"the demo trains a real model, and {', '.join(missing)} cannot be imported",
            "install what it needs with: pip install 'mregfs[demo]'",
        )
    started = time.monotonic()
    directory = Path(tempfile.mkdtemp(prefix="mregfs-demo-"))
    try:
        click.echo(click.style(f"$ cd {directory}", bold=True))
        with Shell(directory, lay_out(directory)) as shell:
            tell(shell)
    finally:
        clear_away(directory)
    click.echo(f"This took {time.monotonic() - started:.0f} s. Everything is removed again.")
