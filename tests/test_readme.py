"""The README is complete, and its links lead somewhere (its tutorial: `mount/test_readme.py`)."""

import re
from pathlib import Path

from mregfs.cli.verbs import VERBS

README = Path(__file__).parents[1] / "README.md"


def test_links_lead_somewhere() -> None:
    """Every relative link of the README and of the pages next to the code is a file."""
    pages = [README, *(README.parent / "mregfs").rglob("*.md")]
    for page in pages:
        for link in re.findall(r"\]\(([^):#]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page}: {link}"


def test_every_verb_is_named() -> None:
    """The table of verbs in the README is complete."""
    table = README.read_text().partition("## Command line")[2].partition("**References**")[0]
    assert [] == [verb for verb in VERBS if not re.search(rf"`{verb}\b", table)]
