"""The environments of this process, one per directory, and what becomes of them in a fork.

Decided here: who shares an environment, and when it closes.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Sequence

from mregfs.errors import InvalidError
from mregfs.host.beneath import Beneath
from mregfs.stores.index_lmdb.environment import Environment
from mregfs.stores.index_lmdb.files import IndexFiles

__all__ = ["acquire", "release"]

_registry = threading.RLock()
_environments: list[Environment] = []
_suspended: list[Environment] = []


def acquire(
    parent: Beneath,
    name: str,
    tables: Sequence[str],
    schema: bytes,
    map_size: int,
    *,
    read_only: bool,
    anchored: Callable[[int], bool],
) -> Environment:
    """Return the environment of this process on a directory, opened if it is the first.

    Args:
        parent: what the directory is in; it is the environment's to close.
        name: of the directory.
        tables: the names of all tables.
        schema: what the records look like.
        map_size: the first size of the map.
        read_only: never write.
        anchored: tells whether the log still has the entry of a sequence number.
    """
    with _registry:
        found = next((each for each in _environments if each.is_in(parent, name)), None)
        if found is None:
            files = IndexFiles(parent, name)
            found = Environment(
                files, tuple(tables), schema, map_size, read_only=read_only, anchored=anchored
            )
            try:
                found.attend()
            except BaseException:
                files.close()
                raise
            _environments.append(found)
        else:
            path = f"{parent.path}/{name}"
            parent.close()
            if found.schema != schema:
                raise InvalidError(
                    f"this process has the index in {path!r} open with another schema"
                )
            if not read_only:
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
        with contextlib.suppress(ValueError):
            _environments.remove(environment)


def _before_fork() -> None:
    # LMDB's locks and reader slots are the process's, and a child that as much as closes an
    # inherited environment frees its parent's slots. So none is open while the process doubles.
    _registry.acquire()
    for environment in _environments:
        if not environment.busy_here():
            environment.suspend()
            _suspended.append(environment)


def _after_fork_in_parent() -> None:
    while _suspended:
        _suspended.pop().end_alone()
    _registry.release()


def _after_fork_in_child() -> None:
    for environment in _environments:
        environment.start_anew_in_child()
    _suspended.clear()
    _registry.release()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
