"""What the kernel has of a file in memory.

Decided here: how it is asked, in microseconds. Not decided here: what is done with the answer.
"""

import os

__all__ = ["is_in_memory"]


def is_in_memory(descriptor: int, offset: int, length: int) -> bool:
    """Tell whether the first and the last of these bytes of a file are in the page cache.

    False as well where the file system cannot tell.
    """
    try:
        return all(
            os.preadv(descriptor, [bytearray(1)], place, os.RWF_NOWAIT) == 1
            for place in (offset, offset + length - 1)
        )
    except OSError:  # EAGAIN: it is not there; EOPNOTSUPP
        return False
