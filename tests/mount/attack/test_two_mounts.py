"""Two mounts of one store, by root and for all users; three users who try everything.

`make attack STEPS=200000` makes as many steps as one has time for; every day makes some hundreds.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.attack.canaries import Canaries
from tests.attack.machine import World, machine_in
from tests.attack.team import init_for_team

EVERY_DAY = 600
BYSTANDER = 64004
"""Who takes no part; what the three do to themselves is theirs to decide."""

STEPS_OF_AN_EXAMPLE = 30
"""Rules; each makes up to 24 operations."""


@pytest.fixture
def world(two_mounts, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    wanted = request.config.getoption("--attack-steps") or EVERY_DAY
    first, second = two_mounts
    init_for_team(first)
    for mount in (first, second):
        mount.expect_log("the draft .* remains")
    first.start()
    second.start()
    canaries = Canaries(tmp_path / "canaries", {"root": 0, "dave": BYSTANDER})
    (first.path / "staging").stat()
    world = World([first.path, second.path], first.store, canaries, wanted)
    yield world
    world.end()
    first.cli("fsck", "--data")


@pytest.mark.timeout(0)  # each operation has a limit of its own
def test_nobody_gets_what_is_not_his(world: World) -> None:
    """Nothing outside the store changes, nobody reads what he may not, nothing hangs."""
    machine = machine_in(world, 0.1 if world.wanted == EVERY_DAY else 0.3)
    begun = time.monotonic()
    said_at = 0
    while not world.over:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=20,
                stateful_step_count=STEPS_OF_AN_EXAMPLE,
                phases=[Phase.generate],
                derandomize=False,
                database=None,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
        if world.steps >= said_at + 5000:
            said_at = world.steps
            sys.stderr.write(f"{world.steps} steps, {len(world.published)} versions\n")
    world.check_published(all_of_it=True)
    took = time.monotonic() - begun
    said = [f"{count:8} {answer}" for answer, count in world.answers.most_common()]
    sys.stderr.write(
        "\n".join(
            [
                *said,
                f"{world.steps} steps in {took:.0f} s, {len(world.published)} versions, "
                f"{len(world.violations)} violations\n",
            ]
        )
    )

    assert [] == world.violations
