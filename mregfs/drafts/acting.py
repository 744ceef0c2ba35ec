"""System calls on drafts as whoever asked for them.

Decided here: with which credentials a call is made, and that supplementary groups are only learnt
when they may matter. Not decided here: which calls a request takes (`directory`, `reach`), how
credentials are taken and given back (`host/`).

A daemon that cannot act for others makes every call as itself. Then only its own user gets to the
mount, or the mount is read-only: `daemon` sees to that.
"""

import os
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from mregfs.host.callers import groups_of_process, why_not_for_others
from mregfs.host.calls import Who
from mregfs.vfs.interface import Caller

__all__ = ["Acting", "Actors"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Acting:
    """One caller, for as long as his request lasts: `acting(call, …)` makes a call as him."""

    __slots__ = ("_pid", "owns", "uid", "who")

    def __init__(self, who: Who, uid: int, pid: int, *, owns: bool) -> None:
        self.who = who
        self.uid = uid
        """Of the caller; of the daemon where that acts as itself."""
        self.owns = owns
        """The caller is the daemon's user, to whom the store belongs, packs and all."""
        self._pid = pid

    def __call__(
        self, call: Callable[Concatenate[Who, _P], _R], *args: _P.args, **kwargs: _P.kwargs
    ) -> _R:
        """Make a system call; once more with the caller's groups when it was not permitted."""
        try:
            return call(self.who, *args, **kwargs)
        except PermissionError:
            if not self.learn_groups():
                raise
        return call(self.who, *args, **kwargs)

    def learn_groups(self) -> bool:
        """Act with the caller's supplementary groups from now on; False if that is no news.

        To be called first where the kernel would silently do less without them: it takes the
        set-group-id bit of who is not in the group.
        """
        if self.who is None or self.who[2] is not None:
            return False
        uid, gid, _ = self.who
        groups = groups_of_process(self._pid)
        self.who = (uid, gid, groups)
        return bool(groups)


class Actors:
    """Says for each caller how calls are made for him."""

    def __init__(self) -> None:
        self._uid, self._gid = os.geteuid(), os.getegid()
        self._others = not why_not_for_others()
        self._self = Acting(None, self._uid, 0, owns=True)

    def of(self, caller: Caller) -> Acting:
        """Return what makes calls as `caller`."""
        if not self._others or (caller.uid == self._uid and caller.gid == self._gid):
            return self._self
        who = (caller.uid, caller.gid, None)
        return Acting(who, caller.uid, caller.pid, owns=caller.uid == self._uid)
