"""Temporary files in a store's directory that nobody will finish any more.

Decided here: where they may be, and from which age they are left over. Not decided here: who
removes them (each adapter its own). `api` names it.
"""

import contextlib
import os
import time

__all__ = ["STALE_AFTER_SECONDS", "find_leftovers"]

STALE_AFTER_SECONDS = 24 * 3600
"""As the adapters have it: no writer leaves its temporary file untouched for a day."""

_FOLDERS = ("tmp", "packs/tmp", "cache/whole/tmp")


def find_leftovers(store: str) -> list[str]:
    """Return the paths of temporary files that crashes left, relative to the store."""
    found = []
    now = time.time()
    for folder in _FOLDERS:
        with contextlib.suppress(OSError), os.scandir(os.path.join(store, folder)) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if now - entry.stat(follow_symlinks=False).st_mtime > STALE_AFTER_SECONDS:
                        found.append(f"{folder}/{entry.name}")
    return sorted(found)
