"""Rules about packs: which a version may use, when one may be retired.

Decided here: that no version ever uses a pack that is retired, and that none is retired which a
version uses. Not decided here: which packs are worth retiring or packing anew (`registry`), when
their bytes go.
"""

import re
from collections.abc import Iterable, Mapping

from mregfs.errors import ConflictError, InvalidError
from mregfs.model.changes import LayoutReplaced, PacksRetired
from mregfs.model.commands import Principal, ReplaceLayout, RetirePacks
from mregfs.model.records import ArtifactRecord
from mregfs.model.rules.preconditions import Decision, title
from mregfs.model.state import State

__all__ = ["check_packs", "replace_layout", "retire_packs"]

_ID = re.compile(r"[0-9a-f]{32}")
_MAX_SIZE = 1 << 62


def check_packs(state: State, packs: Mapping[str, int], shared: Iterable[str]) -> None:
    """Check that a version may add some packs, and use others.

    Raises:
        ConflictError: one that it would use was retired meanwhile.
        InvalidError: a new one is none, or one is no pack.
    """
    for pack, size in packs.items():
        _check_id(pack)
        if not 0 <= size < _MAX_SIZE:
            raise InvalidError(f"pack {pack} cannot have {size} bytes")
        known = state.pack(pack)
        if known is not None:
            what = "was retired" if known.retired_at_ns else "is in the store already"
            raise ConflictError(f"the new pack {pack} {what}", "commit again")
    for pack in shared:
        _check_id(pack)
        known = state.pack(pack)
        if pack in packs:
            raise InvalidError(f"pack {pack} is new: it cannot be shared with other versions")
        if known is None or known.retired_at_ns:
            what = "is unknown to the log" if known is None else "was retired meanwhile"
            raise ConflictError(
                f"pack {pack}, which has bytes of this version, {what}", "commit again"
            )


def retire_packs(state: State, command: RetirePacks, principal: Principal) -> Decision:
    """Retire packs that no version uses; those that are retired stay so."""
    fresh = []
    for pack in dict.fromkeys(command.packs):
        _check_id(pack)
        if next(state.users_of(pack), None) is not None:
            raise ConflictError(f"pack {pack} is used by a version", "retire those that none uses")
        known = state.pack(pack)
        if known is None or not known.retired_at_ns:
            fresh.append(pack)
    changes = (PacksRetired("", tuple(fresh)),) if fresh else ()
    return Decision(changes, {"retired": fresh})


def replace_layout(state: State, command: ReplaceLayout, principal: Principal) -> Decision:
    """Let a version be read from other packs, unless somebody else did that meanwhile."""
    owner = state.find_owner(command.target)
    if not isinstance(owner, ArtifactRecord):
        raise InvalidError(f"{title(owner)} has links, not versions", "name the artifact")
    number = state.find_number(owner, command.target)
    version = state.resolve_number(owner, number).version
    _check_id(command.layout)
    if version.layout != command.previous:
        raise ConflictError(f"v{number} of {title(owner)} was packed anew meanwhile", "look again")
    check_packs(state, command.packs, command.shared)
    fact = LayoutReplaced(
        owner.project,
        owner.name,
        number,
        command.layout,
        command.previous,
        dict(command.packs),
        tuple(dict.fromkeys(command.shared)),
    )
    return Decision(
        (fact,), {"project": owner.project, "artifact": owner.name, "version": f"v{number}"}
    )


def _check_id(pack: str) -> None:
    if not _ID.fullmatch(pack):
        raise InvalidError(f"{pack!r} is not the id of a pack")
