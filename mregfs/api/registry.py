"""`Registry`: everything a Python program can ask of a store.

Decided here: nothing; it is what `looking`, `changing` and `maintenance` are together.
"""

from mregfs.api.changing import Changing
from mregfs.api.looking import Looking
from mregfs.api.maintenance import Maintenance

__all__ = ["Registry"]


class Registry(Looking, Changing, Maintenance):
    """A registry, for a Python program: a store, or a mount of one; a context manager.

    References (`[[entity/]project/]name[:alias | :vN | @digest]`) and paths below a mount
    (`artifacts/NAME/vN`) are taken wherever a version is meant. Methods that change something
    return what the control file would answer. Safe to use from several threads.

    Args:
        store: the store's directory; by default the one of this user, unless there is a `mount`.
            Where it cannot be opened, and a mount of it is known, that is looked at in its place.
        project: that names are in when they do not say: `[entity/]project`.
        mount: where the registry is mounted. Nothing else is then needed to look at it, to read
            files and to follow it, and nothing can be changed; a `store` comes first.
        author: whom history names beside this user; by default `$MREGFS_AUTHOR`.
        read_only: refuse to change anything.

    Raises:
        InvalidError: there is no store.
    """
