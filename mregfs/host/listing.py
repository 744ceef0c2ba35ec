"""The names in a directory that is open.

Decided here: that they are the names there are now. Not decided here: what they are good for. A
test finds any other listing by a descriptor.

On btrfs a descriptor shows the names that were there when it was opened, and newer ones only after
a seek. Raises OSError.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["entries_in", "names_in"]


def names_in(directory_fd: int) -> list[str]:
    """Return the names in a directory; no other thread may list it by this descriptor meanwhile."""
    os.lseek(directory_fd, 0, os.SEEK_SET)
    return os.listdir(directory_fd)


@contextmanager
def entries_in(directory_fd: int) -> Iterator[Iterator[os.DirEntry[str]]]:
    """Scan a directory; no other thread may list it by this descriptor meanwhile."""
    os.lseek(directory_fd, 0, os.SEEK_SET)
    with os.scandir(directory_fd) as entries:
        yield entries
