"""Whatever is killed, what was acknowledged stays, and everything that is read is right.

`make soak MINUTES=30` goes on for as long as one has time for; CI has a minute of it. The second
test, which every run of the tests has, shows that the judge can find something.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.soak.book import Book, Version
from tests.soak.soak import Soak

EVERY_DAY = 1.0
"""Minutes."""

DAY = 24 * 3600

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.slow,
    pytest.mark.timeout(DAY),
    pytest.mark.skipif(
        os.geteuid() != 0 or not os.access("/dev/fuse", os.R_OK | os.W_OK),
        reason="needs root and /dev/fuse",
    ),
]


@pytest.fixture
def place() -> Iterator[Path]:
    """Make a directory that every user can reach; pytest's own are in a private one."""
    path = Path(tempfile.mkdtemp(prefix="mregfs-soak-")).resolve()
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.mark.soak
def test_nothing_acknowledged_is_lost_by_kills(
    place: Path, pytestconfig: pytest.Config, capsys: pytest.CaptureFixture[str]
) -> None:
    """Users commit, move, delete and read through two mounts, while all of it is killed."""
    minutes = pytestconfig.getoption("--soak-minutes") or EVERY_DAY
    seed = time.time_ns()

    def say(text: str) -> None:
        with capsys.disabled():
            print(text, flush=True)

    soak = Soak(place, seed, say)
    soak.run(minutes * 60)
    say(f"\nseed {seed}\n{soak.report()}")

    must_not_be = {kind: soak.counts[kind] for kind in ("lost", "wrong", "damaged drafts")}
    assert {"lost": 0, "wrong": 0, "damaged drafts": 0} == must_not_be, soak.report()
    assert soak.counts["daemons"] > 0 < soak.counts["clients"]
    for kind in ("commits", "moves", "deletions", "reads", "revisions"):
        assert soak.counts[kind] > 0, soak.report()


def test_the_judge_finds_what_is_lost_wrong_and_damaged(
    place: Path,
) -> None:
    """Behind the clients' backs a version goes, an alias moves, a byte and a draft change."""
    spoiled: list[str] = []

    def spoil(mount: Path, books: list[Book]) -> None:
        versions = [each for book in books for each in book.versions.values()]
        made = [each for each in versions if each.number is not None and not each.deletion]
        aliases = {name: where for book in books for name, where in book.aliases.items()}
        gone = next(each for each in made if each.number not in aliases.get(each.artifact, ()))
        (mount / ".mregfs/control").write_text(f"rm {gone.artifact}:v{gone.number}\n")
        spoiled.append(f"lost: {gone.artifact}:v{gone.number} ({gone.token}) was acknowledged")

        def may_take(alias: str, version: Version) -> bool:
            return version.artifact == alias and version.number not in aliases[alias]

        alias, version = next(
            (alias, version)
            for alias in aliases
            for version in made
            if version is not gone and may_take(alias, version)
        )
        line = f"ln -sf {alias}:v{version.number} {alias}:chosen\n"
        (mount / ".mregfs/control").write_text(line)
        spoiled.append(f"wrong: {mount}/artifacts/{alias}/chosen is v{version.number}")

        draft = next(each for each in versions if each.state == "ready")
        path = mount / "staging" / draft.token / "config.json"
        path.write_bytes(path.read_bytes()[:-1])
        spoiled.append(f"damaged drafts: {mount}/staging/{draft.token}: ['config.json']")

        for pack in (place / "store/packs").glob("??/*"):
            data = bytearray(pack.read_bytes())
            data[len(data) // 2] ^= 1
            pack.write_bytes(data)
        spoiled.append("wrong: fsck: ")

    lives = {"daemons": 1000.0, "clients": 1000.0}
    soak = Soak(place, 7, lambda _: None, lives=lives, spoil=spoil)
    soak.run(8)

    for begin in spoiled:
        assert any(each.startswith(begin) for each in soak.findings), (begin, soak.findings)
