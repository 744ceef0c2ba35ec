"""The only package that names adapters: a store is put together here, for daemon, CLI and API.

    address.py            where a store is
    host_directories.py   where this host keeps its own things of it
    place.py              what depends on the kind of place that a store is in
    holding.py            the directory of a store, made or held; whose store may be acted on
    opening.py            stores made and opened: which adapters
    store.py              everything of one open store
    exports.py            directories that versions are copied into

Nothing is imported with the package itself: a host that only looks through mounts lacks what a
store needs.
"""
