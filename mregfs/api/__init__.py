"""The Python API: `Registry`; and `open_store`, by which every process opens a store.

    store.py      which adapters a store in a directory is made of: the only place that names them
    session.py    an open store, a project, and who is asking
    looking.py    what a Python program can see; each method is a line or two over a use case
    changing.py   what it can change
    upkeep.py     what it can do for this host's copy of things
    registry.py   all of that: `Registry`
    reading.py    open files and exports

The CLI, the daemon and other people's programs call it.

    with mregfs.Registry("/var/lib/mregfs") as registry:
        registry.commit("out/run-17", "mnist", aliases=["best"])
        registry.link("mnist:best", "classifier:production")
"""

from typing import TYPE_CHECKING, Any

from mregfs.api.reading import FileInfo
from mregfs.api.registry import Registry
from mregfs.api.store import Store, init_store, open_store
from mregfs.config import default_store
from mregfs.registry.catalog import OwnerInfo, VersionInfo
from mregfs.registry.history import HistoryLine

if TYPE_CHECKING:
    from mregfs.registry.diff import Diff as Diff
    from mregfs.registry.usage import Usage as Usage

__all__ = [
    "FileInfo",
    "HistoryLine",
    "OwnerInfo",
    "Registry",
    "Store",
    "VersionInfo",
    "default_store",
    "init_store",
    "open_store",
]


def __getattr__(name: str) -> Any:
    """Import what few programs need when it is first asked for."""
    if name == "Diff":
        from mregfs.registry.diff import Diff

        return Diff
    if name == "Usage":
        from mregfs.registry.usage import Usage

        return Usage
    raise AttributeError(name)
