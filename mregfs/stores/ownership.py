"""Whose the new files and directories of a store are: everybody's who may use the store.

Decided here: which owner, group and mode they get, by the store's top directory, whoever makes
them, with whatever umask. Not decided here: when. Every adapter may call this, and `api`.
"""

import contextlib
import os
import stat

__all__ = ["DIRECTORY", "READ_ONLY", "give", "make_directory"]

READ_ONLY = 0o444
"""The mode of what never changes; who may reach it is for the directories above to say."""


DIRECTORY = 0o755
"""The mode of the directories of a store; who may reach them is for the store's own to say."""


def give(place: str | int, top: str, mode: int) -> None:
    """Let a file, by its path or open, have this mode, and the group of the directory `top`.

    Root gives it to the owner of `top`, too. What is somebody else's stays as it is.
    """
    with contextlib.suppress(OSError):
        like, found = os.stat(top), os.stat(place)
        owner = like.st_uid if os.geteuid() == 0 else found.st_uid
        if (found.st_uid, found.st_gid) != (owner, like.st_gid):
            with contextlib.suppress(OSError):  # a group that we are not in, or NFS
                os.chown(place, owner, like.st_gid)
        if stat.S_IMODE(found.st_mode) != mode:
            os.chmod(place, mode)


def make_directory(path: str, top: str) -> None:
    """Make a directory that is like `top`.

    Raises:
        OSError: it is there, or cannot be made.
    """
    os.mkdir(path)
    give(path, top, stat.S_IMODE(os.stat(top).st_mode))
