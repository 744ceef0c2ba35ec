"""Whatever is killed, what was acknowledged stays, and everything that is read is right."""

import os
import time
from pathlib import Path

import pytest

from tests.soak.soak import Soak

EVERY_DAY = 0.6
"""Minutes; `make soak MINUTES=n` runs for more."""

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


def test_nothing_acknowledged_is_lost_by_kills(
    tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    """Clients commit, move, delete and read through two mounts, while all of them are killed."""
    wanted = request.config.getoption("--soak-minutes")
    seed = time.time_ns() if wanted else 9

    def say(text: str) -> None:
        with capsys.disabled():
            print(text, flush=True)

    soak = Soak(tmp_path, seed, say if wanted else lambda _: None)
    soak.run((wanted or EVERY_DAY) * 60)
    if wanted:
        say(f"\n{soak.report()}")
    must_not_be = {kind: soak.counts[kind] for kind in ("lost", "wrong", "damaged drafts")}
    assert {"lost": 0, "wrong": 0, "damaged drafts": 0} == must_not_be, soak.report()
    assert soak.counts["daemons"] > 0 < soak.counts["clients"]
    for kind in ("commits", "moves", "deletions", "reads"):
        assert soak.counts[kind] > 0, soak.report()
