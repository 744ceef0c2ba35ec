"""`mregfs help`: the manual where there is nothing but the package."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

MREGFS = (sys.executable, "-m", "mregfs", "help")


def run(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*MREGFS, *words], capture_output=True, text=True, check=False,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **environment},
    )  # fmt: skip


def test_without_a_topic_it_lists_the_pages() -> None:
    done = run()

    assert 0 == done.returncode
    assert "getting-started" == done.stdout.splitlines()[1].split()[0]
    assert "troubleshooting" in done.stdout


def test_a_topic_is_printed_as_it_is_written() -> None:
    done = run("aliases")

    assert done.stdout.startswith("# Aliases and collections\n")
    assert "<!--" not in done.stdout


def test_links_to_pages_are_what_one_can_type() -> None:
    assert "`mregfs help drafts`" in run("getting-started").stdout


def test_a_verb_shows_its_help() -> None:
    done = run("rollback")

    assert done.stdout.startswith("Usage: mregfs rollback [OPTIONS] TARGET")


def test_what_there_is_not_is_said_with_what_is_near() -> None:
    done = run("alises")

    assert 3 == done.returncode
    assert "did you mean 'aliases'?" in done.stderr


def test_programs_get_json() -> None:
    listed = json.loads(run("--json").stdout)
    page = json.loads(run("events", "--json").stdout)

    assert "getting-started" == listed[0]["topic"]
    assert ("events", "Follow changes") == (page["topic"], page["title"])


def test_no_store_and_no_driver_is_needed(tmp_path: Path) -> None:
    for driver in ("lmdb", "trio", "pyfuse3", "blake3"):
        (tmp_path / f"{driver}.py").write_text("raise ImportError('not here')")

    done = run("aliases", PYTHONPATH=str(tmp_path), MREGFS_STORE="/nowhere")

    assert (0, "") == (done.returncode, done.stderr)


def test_a_terminal_gets_it_rendered_by_its_pager(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    pager = tmp_path / "pager"
    pager.write_text("#!/bin/sh\ntr a-z A-Z\n")
    pager.chmod(0o755)
    environment = {**os.environ, "PAGER": str(pager), "TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen(
        [*MREGFS, "drafts"], stdin=theirs, stdout=theirs, env=environment
    ) as done:
        os.close(theirs)
        shown = b""
        while piece := _read(ours):
            shown += piece
    os.close(ours)

    assert 0 == done.returncode
    assert b"DRAFTS AND COMMITS" in shown
    assert b"# DRAFTS" not in shown


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:  # the other end is closed
        return b""
