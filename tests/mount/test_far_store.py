"""A mount over a store that is far away: everything works, and the log is clean."""

import json
import os
from pathlib import Path

from tests.far_store import FarMount, publish

DATA = os.urandom(3 << 20)


def test_versions_are_made_and_read_over_a_store_far_away(tmp_path: Path) -> None:
    with FarMount(tmp_path, 0.02) as far:
        files = {"model": DATA, "config": b"{}", "part": DATA[:30_000]}
        latest = publish(far.path, "mnist", files)

        assert files == {path.name: path.read_bytes() for path in latest.iterdir()}
        assert b"cached: stored elsewhere" == os.getxattr(latest / "model", "user.mregfs.read_path")
        assert not (far.path / "staging").joinpath("mnist").exists()
        assert not list(tmp_path.glob("store/packs/??/*"))
        assert 1 == json.loads((far.path / ".mregfs/status").read_bytes())["sequence"]

        second = publish(far.path, "mnist", files | {"config": b"{ }"})

        assert ("v1", b"{ }") == (os.readlink(second), (second / "config").read_bytes())
        assert DATA == (far.path / "artifacts/mnist/v1/model").read_bytes()

    lines = far.log.read_text().splitlines()
    assert [] == [line for line in lines if "WARNING" in line or "ERROR" in line]
