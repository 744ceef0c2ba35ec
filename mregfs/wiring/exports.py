"""Directories outside a store that versions are copied into.

Decided here: which adapter writes them. Not decided here: which files are copied (`api.reading`,
`api.in_mount`). Nothing is imported that has to be compiled: a host that only looks through mounts
exports too.
"""

from mregfs.stores.export_dir import ExportDirectory

__all__ = ["open_export"]


def open_export(destination: str) -> ExportDirectory:
    """Return a directory to write files into: a new one, or one that is empty.

    Raises:
        ExistsError: there is something already.
    """
    return ExportDirectory(destination)
