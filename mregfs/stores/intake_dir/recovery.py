"""What commits left that ended in a crash: finished or undone.

Decided here: what is believed (only what an earlier process of the same user wrote into directories
of his own), and where the draft is put: in the staging directory of its project, whatever a file
says else. Not decided here: whether the log has the version (`committed` says so).
"""

import contextlib
import logging
import os
import stat
from collections.abc import Callable

from mregfs.errors import MregfsError
from mregfs.host.beneath import Beneath
from mregfs.host.listing import names_in
from mregfs.ports.packs import PackStore
from mregfs.stores.intake_dir.taking import give_back, open_project, remove_placeholder, settle
from mregfs.stores.intake_dir.tree import DIRECTORY, Directories, remove_tree
from mregfs.stores.intake_dir.work import (
    SLOTS,
    WORK,
    Adoption,
    Intent,
    lock_of,
    open_work,
    read_intent,
    remove_work,
)

__all__ = ["put_back", "recover"]

log = logging.getLogger(__name__)


def recover(store: Beneath, packs: PackStore, committed: Callable[[str, int], bool]) -> None:
    """Finish or undo what dead commits began, as `ports.Intake.recover` says."""
    try:
        parent_fd = store.open_directory(WORK)
    except FileNotFoundError:
        return
    except OSError as exc:
        log.warning("not looking for interrupted commits: %s", exc)
        return
    try:
        for name in sorted(names_in(parent_fd)):
            try:
                _recover_one(store, packs, committed, parent_fd, name)
            except (OSError, ValueError, MregfsError) as exc:
                log.warning(
                    "cannot undo the commit that left %s/%s/%s: %s", store.path, WORK, name, exc
                )
    finally:
        os.close(parent_fd)


def _recover_one(
    store: Beneath,
    packs: PackStore,
    committed: Callable[[str, int], bool],
    parent_fd: int,
    name: str,
) -> None:
    with contextlib.ExitStack() as stack:
        try:
            work = open_work(parent_fd, name)
        except FileNotFoundError:  # it was alive, and has ended
            return
        stack.callback(os.close, work)
        try:
            lock = lock_of(work)
        except FileNotFoundError:  # just being made, or a crash right there
            with contextlib.suppress(OSError):
                os.rmdir(name, dir_fd=parent_fd)
            return
        if lock < 0:
            return  # alive
        stack.callback(os.close, lock)
        try:
            intent = read_intent(work)
        except ValueError:
            if _taken(work, None):
                raise
            intent = None  # the crash came while it was being written
        if intent is not None:
            directory = -1
            try:
                directory = open_project(store, intent.project)
                stack.callback(os.close, directory)
            except FileNotFoundError:
                if _taken(work, intent):
                    raise
                # Nothing of the draft had reached the disk, not even where it was.
            done = committed(intent.layout, intent.since)
            log.warning(
                "%s the commit of the draft %s/%s, which a crash interrupted",
                "finishing" if done else "undoing",
                intent.project,
                intent.draft,
            )
            if directory < 0:
                for adoption in () if done else intent.adoptions:
                    packs.delete(adoption.pack)
            elif done:
                _finish(work, directory, intent)
            else:
                _undo(work, directory, packs, intent)
        remove_work(parent_fd, name, work)


def _taken(work: int, intent: Intent | None) -> str:
    """Return the slot that what was taken is in; empty when it is not here."""
    for slot in SLOTS:
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(slot, dir_fd=work, follow_symlinks=False)
            if intent is None:
                if not stat.S_ISDIR(found.st_mode) or not _is_empty(work, slot):
                    return slot
            elif found.st_ino != intent.placeholder:
                return slot
    return ""


def _is_empty(work: int, slot: str) -> bool:
    fd = os.open(slot, DIRECTORY, dir_fd=work)
    try:
        return not names_in(fd)
    finally:
        os.close(fd)


def _finish(work: int, directory: int, intent: Intent) -> None:
    """Remove the draft that became a version."""
    remove_placeholder(directory, intent.draft, intent.placeholder)
    slot = _taken(work, intent)
    if slot:
        remove_tree(os.open(slot, DIRECTORY, dir_fd=work))


def _undo(work: int, directory: int, packs: PackStore, intent: Intent) -> None:
    """Take the packs back, and put the draft where it was."""
    records = {record.inode: record for record in intent.directories}
    slot = _taken(work, intent)
    for adoption in intent.adoptions:
        packs.delete(adoption.pack)
    if not slot:
        settle(directory, records, intent)
        return
    with contextlib.closing(Directories(os.open(slot, DIRECTORY, dir_fd=work))) as tree:
        for adoption in intent.adoptions:
            folder, _, name = adoption.path.rpartition("/")
            with contextlib.suppress(FileNotFoundError):
                fd = os.open(
                    name,
                    os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK,
                    dir_fd=tree.descriptor(folder),
                )
                try:
                    if os.fstat(fd).st_ino == adoption.inode:
                        put_back(fd, adoption)
                finally:
                    os.close(fd)
    give_back(work, slot, directory, records, intent)


def put_back(fd: int, adoption: Adoption) -> None:
    """Give a file its owner and mode again."""
    found = os.fstat(fd)
    if (found.st_uid, found.st_gid) != (adoption.uid, adoption.gid):
        os.fchown(fd, adoption.uid, adoption.gid)
    os.fchmod(fd, adoption.mode)
