"""Notices to the kernel: what it must no longer remember.

Decided here: in which order and by which thread notices are sent. Not decided here: what has become
stale (the vfs). They start and stop together with the session (`serve`).

The kernel may let a notice wait for a lock that a request holds which this very daemon has yet to
answer. So notices have a thread of their own, and `stop` ends while requests are still answered. A
daemon that is killed answers none of them any more: `guard`.
"""

import errno
import logging
import queue
import threading

from mregfs.fuse.passthrough import pyfuse3

__all__ = ["Notices"]

log = logging.getLogger(__name__)

_UNKNOWN = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENOTEMPTY, errno.EBUSY})
"""The kernel does not know the thing, or keeps it because it is in use: no error."""

_Notice = tuple[int, bytes | None]
"""Parent, name, deleted inode; without a name: the inode whose attributes are stale."""


class Notices:
    """Sends notices in order, from a thread of its own; before `start` and after `stop`, none."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[_Notice | threading.Event | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._open = False

    def forget_name(self, parent: int, name: bytes) -> None:
        """Drop the cached entry (also a negative one) `name` of directory `parent`."""
        if self._open:
            self._queue.put((parent, name))

    def forget_attributes(self, inode: int) -> None:
        """Drop the cached attributes of `inode`, not its data."""
        if self._open:
            self._queue.put((inode, None))

    def start(self) -> None:
        """Begin to send; the session must be mounted."""
        if self._thread is not None:
            raise RuntimeError("the notices of one mount are started once")
        self._open = True
        self._thread = threading.Thread(target=self._run, name="mregfs-notices", daemon=True)
        self._thread.start()

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until everything told so far was sent; False when that took too long.

        Never call it from the task or thread that answers requests.
        """
        if not self._open:
            return True
        sent = threading.Event()
        self._queue.put(sent)
        return sent.wait(timeout)

    def stop(self, timeout: float | None = None) -> bool:
        """Send what is queued, then take nothing more; False when the thread is still at it.

        Call it, from another thread, while requests are still answered; again, to wait again.
        """
        if self._thread is None:
            return True
        if self._open:
            self._open = False
            self._queue.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (notice := self._queue.get()) is not None:
            if isinstance(notice, threading.Event):
                notice.set()
                continue
            inode, name = notice
            try:
                if name is None:
                    pyfuse3.invalidate_inode(inode, attr_only=True)
                else:
                    pyfuse3.invalidate_entry(inode, name, 0)
            except OSError as exc:
                if exc.errno not in _UNKNOWN:
                    log.debug("Notice for %r in inode %d: %s", name, inode, exc)
