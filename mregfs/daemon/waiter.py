"""The process that waits for a mount to be ready, which is `mregfs mount`.

Decided here: what it is told, and that nobody's mount is given up. Not decided here: when the mount
is ready (`lifecycle`), where the pipe comes from (`cli.mounting`).
"""

import contextlib
import logging
import os
import select
import signal
import threading

__all__ = ["Waiter"]

log = logging.getLogger(__name__)

WAITER_INTERVAL_MS = 200
"""Between two looks whether the mount is still waited for."""


class Waiter:
    """Whoever waits for the mount, at the other end of a pipe. When he is gone before it is ready,
    nobody wants it: the process gets SIGTERM.

    Args:
        descriptor: of the pipe; None: nobody waits.
    """

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        if descriptor is not None:
            threading.Thread(target=self._watch, name="mregfs-waiter", daemon=True).start()

    def tell(self) -> None:
        """Tell him that the mount is ready."""
        with self._lock:
            descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        with contextlib.suppress(OSError):  # he does not wait any more
            os.write(descriptor, b"ready\n")
        if descriptor > 2:  # a standard stream stays open, of which one is the log
            os.close(descriptor)

    def _watch(self) -> None:
        poller = select.poll()
        with self._lock:
            if self._descriptor is not None:
                poller.register(self._descriptor, 0)
        while True:
            gone = poller.poll(WAITER_INTERVAL_MS)
            with self._lock:
                if self._descriptor is None:
                    return
                if gone:
                    log.info("Nobody waits for the mount any more: it is given up")
                    os.kill(os.getpid(), signal.SIGTERM)
                    return
