"""Temporary files in a store's directory that nobody will finish any more.

Decided here: where they may be, and from which age they are left over. Not decided here: who
removes them (each adapter its own).
"""

import contextlib
import time

from mregfs.host.beneath import Beneath

__all__ = ["STALE_AFTER_SECONDS", "find_leftovers"]

STALE_AFTER_SECONDS = 24 * 3600
"""As the adapters have it: no writer leaves its temporary file untouched for a day."""

_KEPT = ("tmp/exclusive", "tmp/reserve")
"""What stands among them and is none."""

_FOLDERS = ("tmp", "packs/tmp", "cache/whole/tmp")


def find_leftovers(store: Beneath) -> list[str]:
    """Return the names of temporary files that crashes left, below the store's directory."""
    found = []
    now = time.time()
    for folder in _FOLDERS:
        with contextlib.suppress(OSError):
            for last in store.listdir(folder):
                name = f"{folder}/{last}"
                if name in _KEPT:
                    continue
                with contextlib.suppress(FileNotFoundError):
                    if now - store.stat(name).st_mtime > STALE_AFTER_SECONDS:
                        found.append(name)
    return sorted(found)
