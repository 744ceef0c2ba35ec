"""Users and groups of this host, as the registry's rules speak of them.

Decided here: what a user is called in history, which groups a caller is in and which there are, who
is privileged. Not decided here: what a group may do (`model.rules`), how the groups of a caller are
learnt (`callers`).

Groups stand in the log by name, or by number where there is no name; what a name stands for is
looked up on each host.
"""

import contextlib
import functools
import grp
import pwd
import re
import time
from collections.abc import Iterable

from mregfs.model.commands import Principal

__all__ = ["group_number", "principal", "user_name", "user_of"]

_NUMBER = re.compile(r"0|[1-9][0-9]{0,9}")

_NO_NUMBER = (1 << 32) - 1
"""What chown(2) takes for none."""

_NAMES_SECONDS = 60
"""How long names of users and groups are believed: a directory service may take long to tell."""


def principal(uid: int, gids: Iterable[int], owner: int, author: str = "") -> Principal:
    """Return who a user is for the rules and for history.

    Args:
        uid: of the user.
        gids: all groups that he is in.
        owner: the uid of the owner of the store.
        author: whom he says to be.
    """
    return Principal(
        user=user_name(uid),
        groups=_Groups(gids),
        privileged=uid in (0, owner),
        author=author,
        known_groups=_KNOWN,
    )


class _Groups:
    """Some groups, by their names and by their numbers."""

    def __init__(self, gids: Iterable[int]) -> None:
        self._gids = frozenset(gids)

    def __contains__(self, group: object) -> bool:
        return isinstance(group, str) and group_number(group) in self._gids


class _Known:
    """The groups that this host knows."""

    def __contains__(self, group: object) -> bool:
        return isinstance(group, str) and _known_number(group) is not None


_KNOWN = _Known()


def user_name(uid: int) -> str:
    """Return the name of a user, or `uid N` for one without."""
    return _user_name(uid, _now()) or f"uid {uid}"


def user_of(name: str) -> tuple[int, int] | None:
    """Return the uid and the first group of a user, by name or number; None: there is none.

    A number that this host knows no user of stands for itself, with no group (-1).
    """
    with contextlib.suppress(KeyError, ValueError):
        found = pwd.getpwnam(name)
        return found.pw_uid, found.pw_gid
    if not _NUMBER.fullmatch(name) or int(name) >= _NO_NUMBER:
        return None
    with contextlib.suppress(KeyError):
        return int(name), pwd.getpwuid(int(name)).pw_gid
    return int(name), -1


def group_number(group: str) -> int | None:
    """Return the number of a group; None where this host knows none of that name.

    What is a number stands for itself, where no group has it as its name.
    """
    known = _known_number(group)
    if known is None and _NUMBER.fullmatch(group) and int(group) < _NO_NUMBER:
        return int(group)
    return known


def _known_number(group: str) -> int | None:
    """Return the number of a group that this host knows, by name or number; or None."""
    known = _group_number(group, _now())
    # That there is none is not believed for a while: it may have been made a moment ago.
    return _look_up_group(group) if known is None else known


def _now() -> int:
    return int(time.monotonic() / _NAMES_SECONDS)


@functools.lru_cache(1024)
def _user_name(uid: int, now: int) -> str:
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return ""


@functools.lru_cache(1024)
def _group_number(group: str, now: int) -> int | None:
    return _look_up_group(group)


def _look_up_group(group: str) -> int | None:
    with contextlib.suppress(KeyError, ValueError):
        return grp.getgrnam(group).gr_gid
    with contextlib.suppress(KeyError, OverflowError, ValueError):
        found = grp.getgrgid(int(group)).gr_gid
        if str(found) == group:
            return found
    return None
