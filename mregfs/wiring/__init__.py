"""The one room that names adapters: a store is put together here, for daemon, CLI and API.

    holding.py   the directory of a store, made or held by descriptor; whose store may be acted on
    store.py     everything of one open store
    exports.py   directories that versions are copied into

Nothing is imported with the room itself: a host that only looks through mounts lacks what a store
needs.
"""
