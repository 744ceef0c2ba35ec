"""What a user may do with a draft, as the kernel says it.

Decided here: which calls are made as the user who asks for a commit, to learn whether he could do
by himself what it does: take the draft away, look into each directory, read each file. Not decided
here: what becomes of a commit that he may not make.
"""

import os
import stat

from mregfs.host.callers import Credentials, why_not_for_others

_built = True
try:
    from mregfs.host import _native
except ImportError:  # not built: this process knows its own rights alone
    _built = False

__all__ = ["Rights"]

_AT_EMPTY_PATH = 0x1000
_ENTER = os.R_OK | os.X_OK


class Rights:
    """The rights of one user.

    Args:
        who: that user; None: whoever this process is, who needs not be asked about.
    """

    def __init__(self, who: Credentials | None) -> None:
        euid = os.geteuid()
        self._unlimited = who is None or who.uid == 0
        self._uid = euid if who is None else who.uid
        self._who = None if self._uid == euid else who
        self._unknown = self._who is not None and not self._unlimited and why_not_for_others() != ""

    def take(self, directory: int, name: str) -> bool:
        """Tell whether he may take a directory's name away, as rename(2) would need it.

        unlink(2) asks the same of the directory above (write, search, the sticky bit), and ends
        with EISDIR for who may.
        """
        if self._unlimited or self._unknown:
            return self._unlimited
        try:
            if not _built:
                os.unlink(name, dir_fd=directory)
            else:
                _native.unlink(self._who, directory, os.fsencode(name), 0)
        except IsADirectoryError:
            return True
        except PermissionError:
            return False
        return False  # it was something else by then

    def enter(self, directory: int) -> bool:
        """Tell whether he may list an open directory, and use what is in it."""
        return self._unlimited or self._access(directory, _ENTER)

    def read(self, directory: int, name: str, found: os.stat_result) -> bool:
        """Tell whether he may read a file, whose directory is out of his reach by now.

        Of the owner's own right the kernel looks at nothing but the mode.
        """
        if self._unlimited or (found.st_uid == self._uid and found.st_mode & stat.S_IRUSR):
            return True
        descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            same = os.path.samestat(os.fstat(descriptor), found)
            return same and self._access(descriptor, os.R_OK)
        finally:
            os.close(descriptor)

    def _access(self, descriptor: int, mode: int) -> bool:
        if self._unknown:
            return False
        if not _built:
            return os.access(f"/proc/self/fd/{descriptor}", mode, effective_ids=True)
        try:
            _native.access(self._who, descriptor, b"", mode, _AT_EMPTY_PATH)
        except PermissionError:
            return False
        return True
