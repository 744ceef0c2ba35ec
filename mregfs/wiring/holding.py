"""Whose store may be acted on; the directory of a store, made or held by descriptor.

Decided here: which stores this user may read or write, and that a directory which took the place of
a store's is the same store. Not decided here: what a store is made of (`store`).

Whoever may write in a directory of the store may have put anything there. So a store is one user's
alone: its owner writes it, others may read it, and root acts on no store but its own.
"""

import contextlib
import errno
import logging
import os
import pwd
import stat
from collections.abc import Callable

from mregfs.errors import ExistsError, ForbiddenError, InvalidError, MregfsError
from mregfs.host import oserrors
from mregfs.host.beneath import Beneath
from mregfs.host.listing import names_in
from mregfs.host.temporary import TemporaryFiles
from mregfs.model.changes import ENTRY_GRAIN
from mregfs.registry.log.description import KEY, StoreDescription, read_description
from mregfs.stores.objects_dir import ObjectsDirectory
from mregfs.stores.packs_dir import PacksDirectory
from mregfs.stores.verity import FsVerity
from mregfs.wiring.place import Owner

__all__ = ["StoreDirectory", "hold_store", "make_directory"]

log = logging.getLogger(__name__)

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH

_FOLDERS = (
    *("cache", "cache/whole", "cache/whole/tmp", "checkpoints", "index", "intake", "layouts"),
    *("log", "manifests", "packs", "packs/tmp", "tmp"),
)
"""Those that nobody but the owner may write in. Not `staging`: its drafts are their makers'."""


class StoreDirectory:
    """A `Place`: the directory of a store that this user may act on.

    Args:
        top: the directory; it is this one's to close.
        objects: in it.
        description: what the store says of itself.
    """

    def __init__(
        self, top: Beneath, objects: ObjectsDirectory, description: StoreDescription
    ) -> None:
        self.top = top
        self.objects = objects
        self.description = description
        self.packs = PacksDirectory(top)
        self.verity = FsVerity(top)
        self.is_own = top.owner == os.geteuid()
        self.writable = self.is_own and os.access(".", os.W_OK, dir_fd=top.fd)

    @property
    def owner(self) -> Owner:
        """See `Place`."""
        found = os.fstat(self.top.fd)
        return Owner(found.st_uid, found.st_gid)

    def free_bytes(self) -> int:
        """See `Place`."""
        return self.packs.free_bytes()

    def give_room(self) -> bool:
        """See `Place`."""
        return self.objects.reserve.release()

    def expect_appends(self) -> None:
        """See `Place`: files for log entries, and room for deleting on a full disk."""
        self.objects.keep_spares(ENTRY_GRAIN)
        self.objects.reserve.fill()

    def do_housekeeping(self, *, writing: bool) -> None:
        """See `Place`: packs that others deleted are let go; the room for deleting is kept."""
        self.packs.release_deleted()
        if writing:
            self.objects.reserve.fill()

    def close_to_others(self) -> None:
        """See `Place`. It is never opened again by itself."""
        mode = stat.S_IMODE(os.fstat(self.top.fd).st_mode)
        if not mode & 0o077:
            return
        try:
            os.fchmod(self.top.fd, mode & 0o700)
        except OSError as exc:
            raise oserrors.translated(exc, f"cannot close {self.top.path!r} to others") from exc
        log.info("nobody else may look into %s any more: not everybody may read it", self.top.path)

    @property
    def temporary(self) -> list[TemporaryFiles]:
        """See `Place`."""
        return [self.objects.temporary, self.packs.temporary]

    def close(self) -> None:
        """See `Place`."""
        self.packs.close()
        self.objects.close()
        self.top.close()


def hold_store(where: str) -> StoreDirectory:
    """Hold the directory of a store by descriptor, if this user may act on it.

    Raises:
        InvalidError: there is no store.
        ForbiddenError: others may write in it, or this is root and it is somebody else's.
        UnsupportedError: a newer program made it.
    """
    top = _open(where)
    try:
        if top.exists(KEY):
            _check_whose(top)
        objects = ObjectsDirectory(top)
        description = read_description(objects, where)
        top.find_successor = _successor(where, description.id)
    except BaseException as exc:
        top.close()
        if isinstance(exc, OSError):
            raise oserrors.translated(exc, f"cannot open the store {where!r}") from exc
        raise
    return StoreDirectory(top, objects, description)


def make_directory(where: str, *, private: bool) -> Beneath:
    """Make a directory that is to become a store, durably, or take one that is empty.

    Nobody but this user may write in it; with `private`, nobody else reads in it either.

    Raises:
        ExistsError: it holds something else.
        ForbiddenError: it is somebody else's.
    """
    try:
        is_new = _make_durably(where)
        top = Beneath.at(where)
    except (FileExistsError, NotADirectoryError):
        raise ExistsError(f"{where} is not a directory", "name a new or an empty one") from None
    except OSError as exc:
        raise oserrors.translated(exc, f"cannot make {where!r}") from exc
    try:
        # Others may write in it still, as the umask says: that changes below.
        others = set(names_in(top.fd)) - {"lost+found", "tmp"}
        if others and KEY not in others:
            raise ExistsError(f"{where} is not empty", "name a new or an empty directory")
        if top.owner != os.geteuid():
            raise ForbiddenError(
                f"{where} belongs to {_user(top.owner)}, and a store is one user's alone",
                f"run it as that user, or give the directory away first: chown {_self()} {where}",
            )
        if KEY not in others:
            mode = 0o777 if is_new else stat.S_IMODE(os.fstat(top.fd).st_mode)
            os.fchmod(top.fd, mode & (0o700 if private else 0o755))
    except BaseException as exc:
        top.close()
        if isinstance(exc, OSError):
            raise oserrors.translated(exc, f"cannot make {where!r} a store") from exc
        raise
    return top


def _make_durably(where: str) -> bool:
    """Make a directory and those above it that are missing; their names outlive a power cut.

    Returns whether it was missing.
    """
    missing = []
    above = where
    while not os.path.lexists(above):
        missing.append(above)
        above = os.path.dirname(above)
    for path in reversed(missing):
        with contextlib.suppress(FileExistsError):
            os.mkdir(path)
    for path in missing:
        fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    return bool(missing)


def _open(where: str) -> Beneath:
    try:
        return Beneath.at(where)
    except (FileNotFoundError, NotADirectoryError):
        raise InvalidError(
            f"{where} is not a store", f"make one with: mregfs init {where}"
        ) from None
    except OSError as exc:
        raise oserrors.translated(
            exc, f"cannot open the store {where!r}", forbidden="use it by its mount"
        ) from exc


def _check_whose(top: Beneath) -> None:
    user = os.geteuid()
    if user == 0 and top.owner != 0:
        name = _user(top.owner)
        raise ForbiddenError(
            f"the store {top.path} belongs to {name}, and root acts on no store but its own",
            f"run it as {name}: sudo -u '#{top.owner}' mregfs …",
        )
    for folder in (".", *_FOLDERS):
        try:
            found = os.fstat(top.fd) if folder == "." else top.stat(folder)
        except FileNotFoundError:
            continue
        path = top.path if folder == "." else f"{top.path}/{folder}"
        if stat.S_ISLNK(found.st_mode):
            raise ForbiddenError(
                f"{path} is a symbolic link, which mregfs never makes there", "remove it"
            )
        if found.st_uid != top.owner or found.st_mode & _OTHERS_WRITE:
            owner = _user(top.owner)
            raise ForbiddenError(
                f"others than {owner} may write in {path}, and so change the registry unseen",
                f"if all of them are to be trusted, end what they do there, and run: "
                f"chmod -R go-w {top.path} && chown -Rh {owner} {top.path}; from then on they use "
                "a mount",
            )


def _successor(where: str, store_id: str) -> Callable[[], int]:
    """Return what opens the same store when it is at its path again, or raises OSError."""

    def find() -> int:
        with Beneath.at(where) as top:
            try:
                _check_whose(top)
                found = read_description(ObjectsDirectory(top), where).id
            except MregfsError as exc:
                raise OSError(errno.ENOENT, str(exc), where) from exc
            if found != store_id:
                raise FileNotFoundError(errno.ENOENT, "another store is there", where)
            return os.dup(top.fd)

    return find


def _user(uid: int) -> str:
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return f"uid {uid}"


def _self() -> str:
    return _user(os.geteuid())
