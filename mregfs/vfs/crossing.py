"""Renames and hard links from one tree into another.

Decided here: that a draft moved into the registry is a commit, and that nothing else crosses. Not
decided here: where a draft may be moved to (`operations`), what a commit does (`transactions`).
"""

import errno
from functools import partial

from mregfs.errors import ForbiddenError, HostError, MregfsError
from mregfs.model.commands import CommitRequest
from mregfs.model.grammar import Statement
from mregfs.model.names import ProjectName
from mregfs.vfs.answers import InLoop
from mregfs.vfs.interface import Caller, DraftTree, KernelNotices, RenameMode
from mregfs.vfs.numbers import Space, space_of
from mregfs.vfs.operations import FileOperations, decode_name
from mregfs.vfs.registry_tree import RegistryTree
from mregfs.vfs.runner import Runner
from mregfs.vfs.special import SpecialTree

__all__ = ["Crossing"]


class Crossing:
    """What is asked of two trees of one mount."""

    def __init__(
        self,
        registry: RegistryTree,
        special: SpecialTree,
        drafts: DraftTree,
        operations: FileOperations,
        runner: Runner,
        notices: KernelNotices,
    ) -> None:
        self._registry = registry
        self._special = special
        self._drafts = drafts
        self._operations = operations
        self._runner = runner
        self._notices = notices

    def rename(
        self,
        parent: int,
        name: bytes,
        new_parent: int,
        new_name: bytes,
        mode: RenameMode,
        caller: Caller,
    ) -> InLoop[None]:
        """Commit a draft that is moved into the registry; refuse anything else."""
        if mode is RenameMode.EXCHANGE:
            raise HostError(errno.EINVAL, "names of the registry cannot be exchanged")
        if space_of(parent) is Space.DRAFTS:
            return InLoop(partial(self._commit, parent, name, new_parent, new_name, caller))
        return InLoop(partial(self._refuse, parent, name, new_parent))

    async def _commit(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, caller: Caller
    ) -> None:
        if space_of(new_parent) is Space.SPECIAL:
            raise self._operations.refuse_draft()
        target = self._registry.node(new_parent)
        artifact = self._operations.commit_target(target, decode_name(new_name))
        project = self._drafts.project_of(parent)
        if project is None:
            raise ForbiddenError(
                "only a whole draft can become a version",
                "move the directory directly below staging/",
            )
        entity, _, short = project.partition("/")
        request = CommitRequest(
            project=ProjectName(entity, short), draft=decode_name(name), artifact=artifact
        )
        await self._runner.statements([Statement(command=request)], caller)
        # The kernel has moved its entry; the registry may have given the name another inode.
        self._notices.forget_name(new_parent, new_name)

    async def _refuse(self, parent: int, name: bytes, new_parent: int) -> None:
        if space_of(parent) is Space.SPECIAL:
            raise self._special.refuse_removal(parent, name)
        await self._registry.refuse_crossing(
            parent, name, to_drafts=space_of(new_parent) is Space.DRAFTS
        )

    def refuse_link(self, parent: int) -> MregfsError:
        """Return the error of a hard link in a directory of another tree."""
        if space_of(parent) is Space.DRAFTS:
            return HostError(errno.EXDEV, "a published file cannot be hard-linked", "copy it")
        tree = self._special if space_of(parent) is Space.SPECIAL else self._registry
        return tree.refuse_new(parent, "a file")
