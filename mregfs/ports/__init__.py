"""The contracts between the use cases and the adapters under `stores/`, one module a capability.

Decided here: what an adapter promises. Not decided here: how. Anyone may import these; every
adapter is held to the same contract tests (`tests/contracts/`).

All ports are synchronous: the CLI and the Python API call them as they are, the daemon calls what
may block from worker threads. Every port may therefore be called from several threads at once.
Errors are those of `mregfs.errors`; no driver's exception leaves an adapter.
"""

from collections.abc import Callable

__all__ = ["Clock"]

Clock = Callable[[], int]
"""Nanoseconds since the epoch."""
