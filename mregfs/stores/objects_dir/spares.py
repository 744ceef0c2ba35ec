"""Spare files: on the disk already, so that what is in a hurry need not make one.

Decided here: how many there are, and when more are made. Not decided here: what is written to one,
and that it is durable before it has a name (`objects`).

They have no name, so a crash leaves nothing behind.
"""

import errno
import logging
import os
import threading
import weakref
from collections.abc import Callable

from mregfs.host.descriptors import share

__all__ = ["Spares"]

log = logging.getLogger(__name__)

MOST = 32
"""An eighth of the descriptors of this process, if that is less."""


class Spares:
    """Descriptors of files of `size` zero bytes. Safe to use from several threads.

    Nothing depends on them: without one, an object takes longer to create. A child of os.fork has
    none to begin with: it would write to the files of its parent.

    Args:
        size: of each, in bytes.
        make: makes a file without a name, and returns its descriptor, open for writing.
    """

    def __init__(self, size: int, make: Callable[[], int]) -> None:
        self.size = size
        self._make = make
        self._lock = threading.Lock()
        self._ready: list[int] = []
        self._thread: threading.Thread | None = None
        self._ended = False
        _everyone.add(self)

    def take(self) -> int | None:
        """Return the descriptor of one, at its beginning and the caller's now; None: none left."""
        with self._lock:
            if len(self._ready) <= _most() // 4 and self._thread is None and not self._ended:
                self._thread = threading.Thread(target=self._refill, name="spares", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError as exc:  # too many of them, or the process is ending
                    self._thread = None
                    log.debug("no spare files: %s", exc)
            return self._ready.pop() if self._ready else None

    def fill(self) -> None:
        """Make as many as there should be; a disk that is full or gone has none."""
        made: list[int] = []
        most = _most()
        try:
            while len(self._ready) + len(made) < most:
                made.append(self._make())
                os.pwrite(made[-1], bytes(self.size), 0)
                # Begins to write it, so that the first sync below commits most of them.
                os.posix_fadvise(made[-1], 0, 0, os.POSIX_FADV_DONTNEED)
            for fd in made:
                os.fsync(fd)
        except OSError as exc:
            log.debug("no spare files: %s", exc)
            # A file system that has no files without a name will have none later.
            self._ended |= exc.errno in (errno.EOPNOTSUPP, errno.EISDIR)
            _close(made)
            return
        with self._lock:
            if not self._ended:
                self._ready += made
                return
        _close(made)

    def close(self) -> None:
        """Give them up; there are none from now on."""
        with self._lock:
            self._ended = True
            thread, ready, self._ready = self._thread, self._ready, []
        if thread is not None:
            thread.join()
        _close(ready)

    def start_anew_in_child(self) -> None:
        """Leave them to the process that this one was forked from."""
        self._lock = threading.Lock()  # another thread of the parent may have held it
        self._thread = None
        ready, self._ready = self._ready, []
        _close(ready)

    def _refill(self) -> None:
        try:
            self.fill()
        finally:
            self._thread = None


def _most() -> int:
    """Return how many there should be. A thread makes more when a quarter is left: many at a time,
    as they share a journal commit.
    """
    return min(MOST, share(8))


_everyone: weakref.WeakSet[Spares] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for spares in _everyone:
        spares.start_anew_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)


def _close(descriptors: list[int]) -> None:
    for fd in descriptors:
        os.close(fd)
