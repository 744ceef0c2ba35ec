"""Taking a draft out of the staging area, to a place where no user has a path to it; and back.

Decided here: the steps (`../../registry/write/commit.md` §3): who may take it, what is written down
before, the exchange with a placeholder that keeps the name, and how each directory becomes ours and
later its owner's again. Not decided here: what is done with the files meanwhile.
"""

import contextlib
import errno
import logging
import os
import stat
from collections.abc import Callable, Iterable, Mapping

import msgspec

from mregfs.errors import ConflictError, HostError, NotFoundError
from mregfs.host.beneath import Beneath
from mregfs.host.callers import Credentials
from mregfs.host.listing import entries_in
from mregfs.host.renames import exchange, move
from mregfs.stores.intake_dir.rights import Rights
from mregfs.stores.intake_dir.tree import DIRECTORY, Directories, listed, remove_tree, translated
from mregfs.stores.intake_dir.work import (
    SLOTS,
    Adoption,
    Intent,
    Record,
    WorkDirectory,
    is_placeholder,
)

__all__ = ["DraftPlace", "TakenDraft", "give_back", "open_project", "remove_placeholder", "settle"]

log = logging.getLogger(__name__)

_STAGING = "staging"
_SLOT, _SPARE_SLOT = SLOTS
_PLACEHOLDER_MODE = 0o555
_PATH = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LONGEST_PATH = 4095  # of a version's; what is deeper is refused when it is scanned
_LONGEST_NAME = 255
_ATTEMPTS = 8  # to put a draft back under its name, while others make and remove things there
_OTHERS = stat.S_IROTH | stat.S_IXOTH


class DraftPlace(msgspec.Struct, frozen=True):
    """Which draft is meant."""

    project: str
    """ENTITY/PROJECT."""
    name: str
    inode: int = 0
    """Of its directory, when whoever asks has seen it; 0: whatever has the name."""


def open_project(store: Beneath, project: str) -> int:
    """Open the staging directory of a project, which is the store's owner's.

    Raises:
        OSError: there is none, or what is there is not his.
    """
    entity, _, short = project.partition("/")
    path = f"{store.path}/{_STAGING}/{project}"
    if not {"", ".", ".."}.isdisjoint((entity, short)) or "/" in short:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
    above = store.open_directory(f"{_STAGING}/{entity}")
    try:
        found = os.open(short, DIRECTORY, dir_fd=above)
    finally:
        os.close(above)
    # Others may write in it, that is what it is for; so what is in it is believed of nobody.
    if os.fstat(found).st_uid != store.owner:
        os.close(found)
        raise OSError(errno.EPERM, "it is not the directory of the store's owner", path)
    return found


class TakenDraft:
    """One draft on its way; a `Guard` of the tree while it is scanned.

    Args:
        store: the directory of the store.
        place: which draft.
        who: for whom it is taken; None: for this process itself.
        work: where it is taken to.
    """

    def __init__(
        self, store: Beneath, place: DraftPlace, who: Credentials | None, work: WorkDirectory
    ) -> None:
        self.place = place
        self.path = f"{store.path}/{_STAGING}/{place.project}/{place.name}"
        self.mode = 0
        """Of its directory, before it was taken."""
        self.gid = 0
        self._store = store
        self._rights = Rights(who)
        self._work = work
        self._directory = -1
        self._slot = ""
        """Where it is, in the work directory; empty while it is where its user left it."""
        self._intent: Intent | None = None
        self._records: dict[int, Record] = {}

    # ---- taking

    def take(self, layout: str, since: int) -> None:
        """Take the draft away from everybody, and let a placeholder keep its name.

        Raises:
            NotFoundError: there is no such draft.
            HostError: EACCES, whoever asks could not take it himself; what he may not is named.
            ConflictError: it is another one by now, or is being committed.
        """
        try:
            self._directory = open_project(self._store, self.place.project)
            top = os.open(self.place.name, _PATH, dir_fd=self._directory)
        except OSError as exc:
            if exc.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise NotFoundError(
                    f"project {self.place.project!r} has no draft {self.place.name!r}",
                    "make it with mkdir",
                ) from exc
            raise translated(exc, "cannot open", self.path) from exc
        try:
            self._check(top)
            self._take(os.fstat(top), layout, since)
        except OSError as exc:
            if exc.errno == errno.EXDEV:
                raise HostError(
                    errno.EXDEV,
                    f"{self._store.path}/{_STAGING} is another mount than the store",
                    "have the staging area on the store's own",
                ) from exc
            raise translated(exc, "cannot take", self.path) from exc
        finally:
            os.close(top)

    def _check(self, top: int) -> None:
        """Ask the kernel whether he might; nobody is disturbed if not."""
        found = os.fstat(top)
        name = self.place.name
        if self.place.inode not in (0, found.st_ino):
            raise _changed(name)
        if found.st_uid == os.geteuid() and is_placeholder(self._store, found.st_ino):
            raise ConflictError(
                f"draft {name!r} is being committed already", "wait for that commit to end"
            )
        if not self._rights.take(self._directory, name):
            raise HostError(
                errno.EACCES,
                f"the draft {name!r} is not yours to commit: you could not rename it",
                f"ask its owner (uid {found.st_uid})",
            )
        if not self._rights.enter(top):
            raise _unreadable(name, ["."])
        self.mode, self.gid = stat.S_IMODE(found.st_mode), found.st_gid
        self._survey(top, found)

    def _survey(self, top: int, expected: os.stat_result) -> None:
        """Remember whose each directory is, and find those that he may not enter."""
        denied: list[str] = []
        tree = Directories(os.open(".", DIRECTORY, dir_fd=top))
        with contextlib.closing(tree):
            pending = [""]
            while pending:
                path = pending.pop()
                if len(path) > _LONGEST_PATH:
                    continue
                try:
                    fd = tree.descriptor(path)
                    found = os.fstat(fd)
                    if found.st_dev != expected.st_dev:
                        raise HostError(
                            errno.EXDEV,
                            f"{path!r} in the draft is another file system",
                            "unmount it, or copy its files",
                        )
                    if not self._rights.enter(fd):
                        denied.append(path)
                        continue
                    self._remember(found)
                    with entries_in(fd) as entries:
                        below = [e.name for e in entries if e.is_dir(follow_symlinks=False)]
                except PermissionError:
                    denied.append(path)
                    continue
                except (FileNotFoundError, NotADirectoryError):
                    raise _changed(self.place.name) from None
                pending += [f"{path}/{name}" if path else name for name in below]
        if denied:
            raise _unreadable(self.place.name, denied)

    def _remember(self, found: os.stat_result) -> bool:
        """Remember what a directory is like; True when that was not known."""
        mode = stat.S_IMODE(found.st_mode)
        record = Record(found.st_ino, found.st_uid, found.st_gid, mode, found.st_mtime_ns)
        known = self._records.get(found.st_ino)
        self._records[found.st_ino] = record
        return known is None or (known.uid, known.gid, known.mode) != (
            record.uid,
            record.gid,
            record.mode,
        )

    def _take(self, found: os.stat_result, layout: str, since: int) -> None:
        work = self._work.make()
        os.mkdir(_SLOT, 0o700, dir_fd=work)
        placeholder = os.open(_SLOT, DIRECTORY, dir_fd=work)
        try:
            self._intent = Intent(
                self.place.project,
                self.place.name,
                layout,
                since,
                found.st_ino,
                os.fstat(placeholder).st_ino,
                (),
            )
            self._write_intent()
            if not found.st_mode & stat.S_IWUSR and os.geteuid() != 0:
                self._let_it_move(found.st_ino)
            self._exchange(work)
            os.fchmod(placeholder, _PLACEHOLDER_MODE)
        finally:
            os.close(placeholder)
        if os.stat(self._slot, dir_fd=work, follow_symlinks=False).st_ino != found.st_ino:
            raise _changed(self.place.name)  # and `give_back` gives that one back

    def _let_it_move(self, inode: int) -> None:
        """Let its owner, who this process is, move a directory that he may not write."""
        top = os.open(self.place.name, DIRECTORY, dir_fd=self._directory)
        try:
            if os.fstat(top).st_ino == inode:
                os.fchmod(top, self.mode | stat.S_IWUSR)
        finally:
            os.close(top)

    def _exchange(self, work: int) -> None:
        name = self.place.name
        if exchange(work, _SLOT, self._directory, name):
            self._slot = _SLOT
            return
        move(self._directory, name, work, _SPARE_SLOT)
        self._slot = _SPARE_SLOT
        with contextlib.suppress(FileExistsError):  # then the name is somebody else's by now
            move(work, _SLOT, self._directory, name)

    def _write_intent(self, adoptions: Iterable[Adoption] = ()) -> None:
        assert self._intent is not None, "taken first"
        self._intent = msgspec.structs.replace(
            self._intent,
            directories=tuple(self._records.values()),
            adoptions=tuple(adoptions) or self._intent.adoptions,
        )
        self._work.write_intent(self._intent)

    def announce(self, adoptions: Iterable[Adoption]) -> None:
        """Remember durably, besides, which of its files become packs."""
        self._write_intent(adoptions)

    # ---- while it is taken

    def open_top(self) -> int:
        """Open the draft's directory, where it is now."""
        return os.open(self._slot, DIRECTORY, dir_fd=self._work.make())

    def enter(self, descriptor: int, path: str) -> None:
        """Make a directory ours, so that nobody gets further by a descriptor that he kept.

        Raises:
            HostError: EACCES, it is new, and may not be entered.
        """
        found = os.fstat(descriptor)
        if self._remember(found):
            if not self._rights.enter(descriptor):
                raise _unreadable(self.place.name, [path])
            self._write_intent()
        own = os.geteuid(), os.getegid()
        if own[0] == 0 and own != (found.st_uid, found.st_gid):
            os.fchown(descriptor, *own)
        # What is not root's is this user's: without write permission his other mounts make no
        # files in it, either.
        os.fchmod(descriptor, 0o700 if own[0] == 0 else 0o500)

    def may_read(self, descriptor: int, name: str, found: os.stat_result) -> bool:
        """Ask the kernel whether whoever asks for the commit may read a file."""
        return self._rights.read(descriptor, name, found)

    @property
    def is_private(self) -> bool:
        """Whether the draft's directory let in its owner, or its group, alone."""
        return self.mode & _OTHERS != _OTHERS

    # ---- the end

    def consume(self, known: Callable[[str, int], bool]) -> None:
        """It has become a version: its name goes, and all that is known of it.

        Raises:
            OSError: something remains.
        """
        assert self._intent is not None, "taken first"
        remove_placeholder(self._directory, self.place.name, self._intent.placeholder)
        if remove_tree(self.open_top(), known):
            os.rmdir(self._slot, dir_fd=self._work.make())
            self._slot = ""
            return
        log.warning(
            "files came into the draft %s while it became a version: they stay there", self.path
        )
        self.give_back()

    def give_back(self) -> None:
        """Put the draft back where it was, as it was.

        Raises:
            OSError: it stays in the work directory, for `recover`.
        """
        if self._intent is None:
            return
        if self._slot:
            give_back(self._work.make(), self._slot, self._directory, self._records, self._intent)
            self._slot = ""
        else:
            settle(self._directory, self._records, self._intent)

    def close(self) -> None:
        """Let go of the project's directory."""
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1


# ---- giving back, also what another process has left


def give_back(
    work: int, slot: str, directory: int, records: Mapping[int, Record], intent: Intent
) -> None:
    """Put what was taken out of a project's staging directory back into it, as it was.

    Args:
        work: the work directory.
        slot: where in it what was taken is.
        directory: the project's staging directory.
        records: what its directories were like, by inode number.
        intent: of the commit that took it.

    Raises:
        OSError: it stays where it is.
    """
    found = os.stat(slot, dir_fd=work, follow_symlinks=False)
    record = records.get(found.st_ino)
    if not stat.S_ISDIR(found.st_mode) or record is None:
        _return(work, slot, directory, intent)  # another one had the draft's name, for a moment
        return
    top = os.open(slot, DIRECTORY, dir_fd=work)
    try:
        _restore_below(top, records)
        if os.geteuid() == 0:
            _restore(top, record)
            _return(work, slot, directory, intent)
        else:  # only what he may write may a user move to another directory
            os.fchmod(top, 0o700)
            _return(work, slot, directory, intent)
            _restore(top, record)
    finally:
        os.close(top)
    os.fsync(directory)


def settle(directory: int, records: Mapping[int, Record], intent: Intent) -> None:
    """Give a draft that is under its own name its mode again, where that had to change."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        top = os.open(intent.draft, DIRECTORY, dir_fd=directory)
        try:
            record = records.get(os.fstat(top).st_ino)
            if record is not None and record.inode == intent.inode:
                _restore(top, record)
        finally:
            os.close(top)


def remove_placeholder(directory: int, name: str, inode: int) -> None:
    """Remove what keeps the name of a draft, if nobody has put anything else there."""
    try:
        if os.stat(name, dir_fd=directory, follow_symlinks=False).st_ino == inode:
            os.rmdir(name, dir_fd=directory)
    except FileNotFoundError:
        pass
    except OSError as exc:
        log.warning("what was made under the name of the draft %r stays: %s", name, exc)


def _restore_below(top: int, records: Mapping[int, Record]) -> None:
    """Give every directory below the top back to its owner, the deepest ones first."""
    with contextlib.closing(Directories(os.open(".", DIRECTORY, dir_fd=top))) as tree:
        found, pending = [], [""]
        while pending:
            path = pending.pop()
            # One that we never made ours may be closed to us, and is as it was.
            with contextlib.suppress(PermissionError):
                with entries_in(tree.descriptor(path)) as entries:
                    below = [e.name for e in entries if e.is_dir(follow_symlinks=False)]
                found.append(path)
                pending += [f"{path}/{name}" if path else name for name in below]
        for path in reversed(found[1:]):
            fd = tree.descriptor(path)
            record = records.get(os.fstat(fd).st_ino)
            if record is not None:
                _restore(fd, record)


def _restore(descriptor: int, record: Record) -> None:
    found = os.fstat(descriptor)
    owner = found.st_uid, found.st_gid
    if owner != (record.uid, record.gid):
        os.fchown(descriptor, record.uid, record.gid)
    if owner != (record.uid, record.gid) or stat.S_IMODE(found.st_mode) != record.mode:
        os.fchmod(descriptor, record.mode)
    if found.st_mtime_ns != record.mtime_ns:
        os.utime(descriptor, ns=(found.st_atime_ns, record.mtime_ns))


def _return(work: int, slot: str, directory: int, intent: Intent) -> None:
    """Move what was taken to its name; if that is another's by now, to one like it."""
    name = intent.draft
    for _ in range(_ATTEMPTS):
        try:
            there = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):
                move(work, slot, directory, name)
                return
            continue
        if there.st_ino != intent.placeholder or not stat.S_ISDIR(there.st_mode):
            break
        if os.geteuid() != 0:
            _open_up(directory, name, intent.placeholder)
        if exchange(work, slot, directory, name):
            _clear(work, slot, directory, intent)
            return
        try:
            os.rmdir(name, dir_fd=directory)
        except OSError:  # it is not empty
            break
    new_name = _move_beside(work, slot, directory, name)
    log.warning(
        "the name of the draft %r was taken while it was being committed: it is %r now",
        name,
        new_name,
    )


def _open_up(directory: int, name: str, inode: int) -> None:
    """Make the placeholder one that its owner may move."""
    fd = os.open(name, DIRECTORY, dir_fd=directory)
    try:
        if os.fstat(fd).st_ino == inode:
            os.fchmod(fd, 0o700)
    finally:
        os.close(fd)


def _clear(work: int, slot: str, directory: int, intent: Intent) -> None:
    """Remove the placeholder that was exchanged; what somebody made of its name stays his."""
    found = os.stat(slot, dir_fd=work, follow_symlinks=False)
    if found.st_ino == intent.placeholder:
        with contextlib.suppress(OSError):
            os.rmdir(slot, dir_fd=work)
            return
    new_name = _move_beside(work, slot, directory, intent.draft)
    log.warning(
        "what was made under the name of the draft %r while it was being committed is %r now",
        intent.draft,
        new_name,
    )


def _move_beside(work: int, slot: str, directory: int, name: str) -> str:
    number = 1
    while True:
        suffix = f".recovered-{number}"
        short = os.fsencode(name)[: _LONGEST_NAME - len(suffix)]
        new_name = os.fsdecode(short) + suffix
        try:
            move(work, slot, directory, new_name)
        except FileExistsError:
            number += 1
        else:
            return new_name


def _changed(name: str) -> ConflictError:
    return ConflictError(
        f"draft {name!r} changed while it was being committed", "commit again when it is finished"
    )


def _unreadable(name: str, paths: Iterable[str]) -> HostError:
    return HostError(
        errno.EACCES,
        f"you may not look into all of the draft {name!r}: {listed(paths)}",
        "ask whoever owns these directories; of your own: chmod u+rx",
    )
