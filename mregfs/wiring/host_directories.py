"""Where this host keeps its own things of a store: index, cache, staging area, commits under way.

Decided here: what stands in the store's directory and what in one of the host's, how that one is
named, made and held. Not decided here: which places the environment offers (`config`), what is in
the directories (`stores`, `drafts`).

In a store that is a directory all of it stands in there: the cache shares blocks with the packs,
and a draft becomes a pack without being copied. The index alone goes elsewhere: where this user may
not write in the store, where LMDB cannot work in it, or where a person says so. What is kept
elsewhere is in a directory named by the store's id *and* its address: a copy has the same id.
"""

import contextlib
import errno
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from mregfs.config import host_homes, is_remote
from mregfs.errors import ForbiddenError, MregfsError
from mregfs.host import oserrors
from mregfs.host.beneath import Beneath
from mregfs.wiring.address import StoreAddress

__all__ = ["STAGING", "HostDirectories"]

log = logging.getLogger(__name__)

STAGING = "staging"
"""Where drafts are, in `HostDirectories.drafts`."""

_OURS_ALONE = 0o700
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class HostDirectories:
    """The directories of this host for one store.

    Args:
        address: of the store.
        store_id: of the store.
        within: the store's own directory, if it is one; it stays the caller's.
        index_within: whether the index may stand in there.
        said: where a person wants what is kept elsewhere; None: where the environment offers.
    """

    def __init__(
        self,
        address: StoreAddress,
        store_id: str,
        *,
        within: Beneath | None,
        index_within: bool,
        said: str | None = None,
    ) -> None:
        self._address = address
        self._name = f"{store_id}-{address.digest}"
        self._within = within
        self._index_within = index_within
        self._said = said
        self._own: Beneath | None = None

    @property
    def cache(self) -> Beneath:
        """What holds `cache`, of whole files."""
        return self._files()

    @property
    def drafts(self) -> Beneath:
        """What holds `staging` and `intake`, which are on one file system, as the packs if can be.

        Raises:
            ForbiddenError: this user may make no directory for them.
        """
        return self._files()

    def _files(self) -> Beneath:
        if self._within is not None:
            return self._within
        if self._own is None:
            self._own = next(self._elsewhere())
        return self._own

    def for_index(self) -> Iterator[Beneath]:
        """Yield directories that may hold `index`, the best first; each is the caller's to close.

        Raises:
            ForbiddenError: there is none (any more).
        """
        if self._within is not None and self._index_within and self._said is None:
            yield self._within.duplicate()
        for place in self._elsewhere():
            if self._said is None and is_remote(place.fd):
                log.info("not keeping an index in %s: other hosts may share it", place.path)
                place.close()
            else:
                yield place

    def close(self) -> None:
        """Let go of what is held; calling it again does nothing."""
        if self._own is not None:
            self._own.close()

    def _elsewhere(self) -> Iterator[Beneath]:
        """Yield directories outside the store, each made if need be, and held."""
        if self._said is not None:
            try:
                yield _hold(Path(self._said), self._name, tighten=False)
            except OSError as exc:
                raise oserrors.translated(
                    exc, f"cannot use {self._said!r} for what this host keeps of {self._address}"
                ) from exc
        else:
            for home in host_homes():
                try:
                    yield _hold(home, self._name, tighten=True)
                except (OSError, MregfsError) as exc:
                    log.info("not keeping anything in %s: %s", home, exc)
        raise ForbiddenError(
            f"there is no directory for the index of {str(self._address)!r} that this user may "
            "write in",
            "set MREGFS_HOST_DIRECTORY to one",
        )


def _hold(home: Path, name: str, *, tighten: bool) -> Beneath:
    """Make a directory in another one, unless it is there, and hold it; both are this user's alone.

    Should it be removed, it is made again when something in it is asked for.

    Args:
        home: made if it is missing.
        name: of the directory in it.
        tighten: take others' right to write in `home` away, instead of refusing it.
    """
    home.mkdir(_OURS_ALONE, parents=True, exist_ok=True)
    with Beneath.at(home, owner=os.geteuid()) as above:
        found = os.fstat(above.fd)
        if found.st_uid != above.owner:
            reason = f"it belongs to uid {found.st_uid}; name a directory of your own"
            raise OSError(errno.EPERM, reason, str(home))
        if found.st_mode & _OTHERS_WRITE:
            if not tighten:
                reason = "others may write in it; take that right away: chmod go-w"
                raise OSError(errno.EPERM, reason, str(home))
            os.fchmod(above.fd, stat.S_IMODE(found.st_mode) & ~_OTHERS_WRITE)
        with contextlib.suppress(FileExistsError):
            above.make_directory(name, _OURS_ALONE)
        held = above.below(name)
    if stat.S_IMODE(os.fstat(held.fd).st_mode) != _OURS_ALONE:
        os.fchmod(held.fd, _OURS_ALONE)

    def again() -> int:
        with _hold(home, name, tighten=tighten) as made:
            return os.dup(made.fd)

    held.find_successor = again
    return held
