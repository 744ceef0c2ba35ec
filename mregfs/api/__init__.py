"""The Python API: `Registry`; and `open_store`, by which every process opens a store.

connection.py  an open store, a project, and who is asking
looking.py     what a Python program can see, by one of two ways
way.py         what both ways can do
in_store.py    the first: in the store, by the index of this host
in_mount.py    the second: through a mount, by `.mregfs/query` (`asking.py`)
changing.py    what it can change
maintenance.py what it can do for this host's copy of things
registry.py    all of that: `Registry`
reading.py     open files and exports of a store

with mregfs.Registry("/var/lib/mregfs") as registry:
    registry.commit("out/run-17", "mnist", aliases=["best"])
    registry.link("mnist:best", "classifier:production")
"""

from typing import TYPE_CHECKING, Any

from mregfs.api.registry import Registry
from mregfs.config import default_store
from mregfs.registry.read.results import Diff, FileInfo, HistoryLine, OwnerInfo, Usage, VersionInfo

if TYPE_CHECKING:
    from mregfs.wiring.opening import init_store as init_store
    from mregfs.wiring.opening import open_store as open_store
    from mregfs.wiring.store import Store as Store

__all__ = [
    "Diff",
    "FileInfo",
    "HistoryLine",
    "OwnerInfo",
    "Registry",
    "Usage",
    "VersionInfo",
    "default_store",
]


def __getattr__(name: str) -> Any:
    """Import what opens a store when it is first asked for: not every host has what that needs."""
    if name in ("Store", "init_store", "open_store"):
        from mregfs.wiring import opening

        return getattr(opening, name)
    raise AttributeError(name)
