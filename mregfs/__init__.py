"""A model registry that you mount.

The rooms, from the top down; imports point down only (import-linter holds them there):

    cli/        verbs, tables, exit codes; reads argv and the environment
    daemon/     the life of one mount: start, readiness, ordered shutdown
    fuse/       the only importer of pyfuse3: requests to vfs calls, errors to errnos
    vfs/        what the registry looks like as files; runs without a mount
    api/        what a Python program can see and change: `Registry`
    wiring/     opens a store; the only room that names adapters
    stores/     adapters: LMDB, the directory store, drafts on the host's file system
    registry/   the use cases: log, catalog, commit, content, history
    ports/      the contracts between use cases and adapters
    model/      pure: names, records, commands, rules, codecs, chunking
    errors.py   the closed set of errors
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mregfs.api import Registry as Registry

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import `Registry` when it is first asked for, so that CLI verbs start fast."""
    if name == "Registry":
        from mregfs.api import Registry

        return Registry
    raise AttributeError(name)
