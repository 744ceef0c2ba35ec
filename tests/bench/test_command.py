"""What the command of the bench refuses, and what it leaves alone."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.__main__ import fresh_directory


def test_the_directory_that_one_names_keeps_what_is_in_it(tmp_path: Path) -> None:
    """`--work DIR` means a place for the files, and not that DIR is the bench's."""
    (tmp_path / "thesis").write_text("x")

    made = fresh_directory(tmp_path)
    other = fresh_directory(tmp_path)

    assert {made, other, tmp_path / "thesis"} == set(tmp_path.iterdir())
    assert [] == list(made.iterdir())


@pytest.mark.parametrize("rounds", ["0", "-1", "many"])
def test_there_is_at_least_one_round(rounds: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "--rounds", rounds],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (2, True) == (done.returncode, "there is at least one round" in done.stderr)
