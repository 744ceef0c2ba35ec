"""Commands into facts: the one place where it is decided what may happen.

Decided here: which rule answers which command, and that nobody decides anything who may not
change what it is about (`access`); the rules are in the `decide_*` modules, in words in
`rules.md`. Not decided here: what the facts do (`apply`), when they are appended
(`registry.log`).

A rule reads the state and changes nothing. It is asked again, against newer state, whenever another
writer was faster.
"""

from collections.abc import Callable
from typing import Any

from mregfs.model import commands
from mregfs.model.commands import Command, Principal
from mregfs.model.rules import (
    access,
    decide_aliases,
    decide_links,
    decide_owners,
    decide_packs,
    decide_versions,
)
from mregfs.model.rules.preconditions import Decision
from mregfs.model.state import State

__all__ = ["decide"]

_RULES: dict[type, Callable[[State, Any, Principal], Decision]] = {
    commands.LogVersion: decide_versions.log_version,
    commands.DeleteVersion: decide_versions.delete_version,
    commands.ReplaceLayout: decide_packs.replace_layout,
    commands.RetirePacks: decide_packs.retire_packs,
    commands.Unlink: decide_versions.unlink,
    commands.CreateArtifact: decide_versions.create_artifact,
    commands.CreateCollection: decide_links.create_collection,
    commands.LinkVersion: decide_links.link_version,
    commands.MoveAlias: decide_aliases.decide_move,
    commands.DropAlias: decide_aliases.drop_alias,
    commands.Rollback: decide_aliases.rollback,
    commands.Protect: decide_aliases.protect,
    commands.Unprotect: decide_aliases.unprotect,
    commands.SetAccess: access.set_access,
    commands.DeleteOwner: decide_owners.delete_owner,
    commands.RenameCollection: decide_owners.rename_collection,
    commands.Tag: decide_owners.tag,
    commands.Describe: decide_owners.describe,
    commands.SetMetadata: decide_owners.set_metadata,
    commands.MarkDamage: decide_versions.mark_damage,
}


def decide(state: State, command: Command, principal: Principal) -> Decision:
    """Return the facts that a command leads to, and the answer.

    Raises:
        MregfsError: it may not happen; the message says what, which, and what to do.
    """
    access.require(state, command, principal)
    decision = _RULES[type(command)](state, command, principal)
    access.require_all(state, decision.changes, principal)
    return decision
