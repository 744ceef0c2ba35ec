"""Temporary files in one directory, and which of them nobody will finish any more.

Decided here: from which age on they are left over. Not decided here: who makes them, and when they
are looked for.
"""

import contextlib
import logging
from collections.abc import Collection

from mregfs.host.beneath import Beneath

__all__ = ["TemporaryFiles"]

log = logging.getLogger(__name__)

STALE_AFTER_SECONDS = 24 * 3600
"""A temporary file this old was left by a crash: whoever writes one touches it within a day."""


class TemporaryFiles:
    """The temporary files of one adapter.

    Args:
        top: the directory that holds theirs; whoever opened it closes it.
        folder: the name of theirs, below it; it need not exist.
        kept: names in there that are no temporary files.
    """

    def __init__(self, top: Beneath, folder: str, kept: Collection[str] = ()) -> None:
        self._top = top
        self._folder = folder
        self._kept = kept

    def stale(self, now: float) -> list[str]:
        """Return the names, below the top, of those that crashes left; `now` in seconds."""
        found = []
        with contextlib.suppress(OSError):
            for last in self._top.listdir(self._folder):
                name = f"{self._folder}/{last}"
                with contextlib.suppress(OSError):
                    age = now - self._top.stat(name).st_mtime
                    if last not in self._kept and age > STALE_AFTER_SECONDS:
                        found.append(name)
        return sorted(found)

    def sweep(self, now: float) -> None:
        """Remove those that crashes left, where this user may."""
        for name in self.stale(now):
            self.remove(name)

    def remove(self, name: str) -> None:
        """Remove one of `stale`, if that can be; a name from another directory is left alone."""
        if name.rpartition("/")[0] == self._folder:
            with contextlib.suppress(OSError):
                self._top.unlink(name)
                log.info("removed %s/%s, left by a crash", self._top.path, name)
