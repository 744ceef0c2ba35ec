"""A model registry that you mount.

The packages and what happens in them are in `ARCHITECTURE.md`, beside this file.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mregfs.api import Registry as Registry

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import `Registry` when it is first asked for, so that CLI verbs start fast."""
    if name == "Registry":
        from mregfs.api import Registry

        return Registry
    raise AttributeError(name)
