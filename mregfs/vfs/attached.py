"""Where other trees begin: `.mregfs` at the top of the mount, `staging` in each project.

Decided here: where another tree begins, and under which name. Not decided here: what is in it.
"""

from mregfs.model import paths
from mregfs.vfs.appearance import Node, NodeKind
from mregfs.vfs.interface import Attributes, DraftTree, FileTree
from mregfs.vfs.numbers import META

__all__ = ["NAMES", "Attached"]

_NAMES = {
    NodeKind.ROOT: (paths.META, paths.STAGING),
    NodeKind.PROJECT: (paths.STAGING,),
}
NAMES = frozenset({paths.META, paths.STAGING})
"""All names at which another tree may begin."""


class Attached:
    """The first directories of the other trees."""

    def __init__(self, special: FileTree, drafts: DraftTree) -> None:
        self._special = special
        self._drafts = drafts

    def names(self, node: Node) -> tuple[str, ...]:
        """Return the names in a directory at which another tree begins, sorted."""
        return _NAMES.get(node.kind, ())

    def find(self, node: Node, name: str) -> Attributes:
        """Return what is attached under one of these names.

        Where the staging area is may be asked again: the store may be removed, and put back.

        Raises:
            NotFoundError: there is no staging area; the disk may be read-only.
        """
        if name == paths.META:
            return self._special.getattr(META)
        return self._drafts.root(node.project)
