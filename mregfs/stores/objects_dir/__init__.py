"""Objects as files in a directory of the host.

`objects` creates, reads and lists them; `spares` has files ready that only need their bytes and a
name.
"""

from mregfs.stores.objects_dir.objects import ObjectsDirectory

__all__ = ["ObjectsDirectory"]
