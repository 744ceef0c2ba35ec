"""Spare files: on the disk already, so that what is in a hurry needs one journal commit less.

Decided here: how many there are, and when more are made. Not decided here: what is written to one,
and that it is durable before it has a name (`objects`). Only `objects` calls this.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Callable

__all__ = ["Spares"]

log = logging.getLogger(__name__)

MOST = 32
FEWEST = 8
"""When fewer are left, a thread makes more: many at a time, as they share a journal commit."""


class Spares:
    """Files of `size` zero bytes below `tmp/`, open for writing. Safe to use from several threads.

    Nothing depends on them: without one, or with one that a crash of the host has not kept whole,
    an object takes longer to create.

    Args:
        size: of each, in bytes.
        make: makes a new file, and returns its path and a descriptor.
    """

    def __init__(self, size: int, make: Callable[[], tuple[str, int]]) -> None:
        self.size = size
        self._make = make
        self._lock = threading.Lock()
        self._ready: list[tuple[str, int]] = []
        self._thread: threading.Thread | None = None
        self._closed = False

    def take(self) -> tuple[str, int] | None:
        """Return the path and the descriptor of one, which are the caller's now; None: none left.

        The descriptor is at the file's beginning.
        """
        with self._lock:
            found = self._ready.pop() if self._ready else None
            if len(self._ready) < FEWEST and self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._refill, name="spares", daemon=True)
                self._thread.start()
        if found is not None and os.fstat(found[1]).st_nlink != 1:  # another process swept it
            os.close(found[1])
            return None
        return found

    def fill(self) -> None:
        """Make as many as there should be; a disk that is full or gone has none."""
        made: list[tuple[str, int]] = []
        try:
            while len(self._ready) + len(made) < MOST:
                path, fd = self._make()
                made.append((path, fd))
                os.pwrite(fd, bytes(self.size), 0)
                # Begins to write it, so that the sync below commits all of them at once.
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            for _, fd in made:
                os.fsync(fd)
        except OSError as exc:
            log.debug("no spare files: %s", exc)
            _remove(made)
            return
        with self._lock:
            if not self._closed:
                self._ready += made
                return
        _remove(made)

    def close(self) -> None:
        """Remove them; there are none from now on."""
        with self._lock:
            self._closed = True
            thread, ready, self._ready = self._thread, self._ready, []
        if thread is not None:
            thread.join()
        _remove(ready)

    def _refill(self) -> None:
        try:
            self.fill()
        finally:
            self._thread = None


def _remove(files: list[tuple[str, int]]) -> None:
    for path, fd in files:
        os.close(fd)
        with contextlib.suppress(OSError):  # the sweep of `tmp/` gets what stays
            os.unlink(path)
