"""Progress on stderr, for what can take over a second.

Decided here: when a bar appears (on a terminal, after half a second) and how it looks. Not decided
here: what is counted. Verbs that copy or replay wrap their work in `progress`.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Report", "progress"]

Report = Callable[[str, int, int], None]
"""Called with what is being done, how much is done, how much there is; (…, 0, 0): unknown."""

DELAY = 0.5
"""Seconds before a bar appears: what is faster needs none, and rich takes 0.1 s to import."""


class _Bar:
    def __init__(self, *, sizes: bool) -> None:
        self._sizes = sizes
        self._started = time.monotonic()
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __call__(self, what: str, done: int, total: int) -> None:
        if self._bar is None:
            if time.monotonic() - self._started < DELAY:
                return
            self._show(total)
        assert self._bar is not None
        assert self._task is not None
        self._bar.update(self._task, description=what, completed=done, total=total or None)

    def _show(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        amount = DownloadColumn(binary_units=True) if self._sizes else MofNCompleteColumn()
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            *((amount, TimeRemainingColumn()) if total else (TimeElapsedColumn(),)),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("", total=None)
        self._bar.start()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()


@contextmanager
def progress(*, sizes: bool = True) -> Iterator[Report | None]:
    """Yield what to call as work gets done; None when stderr is no terminal.

    Args:
        sizes: the numbers are bytes; else they are items.
    """
    if not sys.stderr.isatty():
        yield None
        return
    bar = _Bar(sizes=sizes)
    try:
        yield bar
    finally:
        bar.close()
