"""A store that a team shares, as its manual says one is made."""

import os
from typing import Any

from tests.attack.machine import TEAM

__all__ = ["init_for_team"]


def init_for_team(mount: Any) -> None:
    """Make the store of a mount: everybody reads, the team's members write."""
    mount.init()
    os.chown(mount.store, 0, TEAM)
    mount.store.chmod(0o2775)
