"""A store that a team shares, as its manual says one is made."""

from typing import Any

from tests.attack.machine import TEAM

__all__ = ["init_for_team"]


def init_for_team(mount: Any) -> None:
    """Make the store of a mount: everybody reads, the team's members write."""
    mount.init()
    mount.cli("access", "--writers", str(TEAM))
