"""Threads for answers that take a while: a disk's, or a transaction's.

Decided here: how many threads, and that none outlives the process. Not decided here: what they do.
Handing a job over costs some 20 us, a fifth of what it takes through the event loop; the answer
does not come back to the loop either, the thread sends it by itself.
"""

import queue
import threading
from collections.abc import Callable

__all__ = ["Workers"]


class Workers:
    """Threads that run jobs, which must not raise.

    Args:
        limit: how many there may be; further jobs wait for one.
        name: of the threads, for whoever looks at the process.
    """

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._threads = 0
        self._unfinished = 0

    def submit(self, job: Callable[[], None]) -> None:
        """Have `job` run soon; by a thread that there is when the host gives no further one.

        Raises:
            RuntimeError, MemoryError: there is none at all. The job will not run.
        """
        with self._changed:
            if self._unfinished >= self._threads and self._threads < self._limit:
                self._add_thread()
            self._unfinished += 1
        self._jobs.put(job)

    def _add_thread(self) -> None:
        try:
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        except (RuntimeError, MemoryError):
            if not self._threads:
                raise
        else:
            self._threads += 1

    def join(self, timeout: float | None = None) -> bool:
        """Wait until all jobs are done; False when that takes longer than `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._unfinished, timeout)

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                job()
            finally:
                del job
                with self._changed:
                    self._unfinished -= 1
                    if not self._unfinished:
                        self._changed.notify_all()
