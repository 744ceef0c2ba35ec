"""The environments of this process, one per directory, and what becomes of them in a fork.

Decided here: who shares an environment, and when it closes. Only `index` calls it.
"""

import os
import threading
from collections.abc import Sequence

from mregfs.errors import InvalidError
from mregfs.stores.index_lmdb.environment import Environment

__all__ = ["acquire", "release"]

_registry = threading.RLock()
_environments: dict[str, Environment] = {}
_suspended: list[Environment] = []


def acquire(
    path: str, tables: Sequence[str], schema: bytes, map_size: int, *, read_only: bool
) -> Environment:
    """Return the environment of this process on `path`, opened if it is the first."""
    path = os.path.realpath(path)
    with _registry:
        found = _environments.get(path)
        if found is None:
            found = Environment(path, tuple(tables), schema, map_size, read_only=read_only)
            found.attend()
            _environments[path] = found
        elif found.schema != schema:
            raise InvalidError(f"this process has the index in {path!r} open with another schema")
        elif not read_only:
            found.make_writable()
        found.references += 1
        return found


def release(environment: Environment) -> None:
    """Give one `acquire` back; the last one closes the environment."""
    with _registry:
        if environment.references > 1:
            environment.references -= 1
            return
        environment.close()
        environment.references = 0
        for path in [path for path, each in _environments.items() if each is environment]:
            del _environments[path]


def _before_fork() -> None:
    # LMDB's locks and reader slots are the process's, and a child that as much as closes an
    # inherited environment frees its parent's slots. So none is open while the process doubles.
    _registry.acquire()
    for environment in _environments.values():
        if not environment.busy_here():
            environment.suspend()
            _suspended.append(environment)


def _after_fork_in_parent() -> None:
    while _suspended:
        _suspended.pop().end_alone()
    _registry.release()


def _after_fork_in_child() -> None:
    for environment in _environments.values():
        environment.start_anew_in_child()
    _suspended.clear()
    _registry.release()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
