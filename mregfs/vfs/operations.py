"""What plain file operations mean: `ln -sfn`, `mv`, `rm`, `mkdir`, `rmdir` in the registry's tree.

Decided here: which system call on which node is which command, and the errno of those that mean
nothing. Not decided here: whether the command is allowed (`model.rules`), how it is carried out
(`transactions`).
"""

from collections.abc import Callable, Sequence

from mregfs.errors import (
    ExistsError,
    ForbiddenError,
    ImmutableError,
    InvalidError,
    MregfsError,
)
from mregfs.model import commands
from mregfs.model.names import LATEST, NEXT, ProjectName, check_alias, parse_number
from mregfs.model.operands import link_command
from mregfs.model.records import ArtifactRecord, CollectionRecord
from mregfs.model.reference import Location
from mregfs.model.state import State
from mregfs.ports.index import Index
from mregfs.vfs.appearance import Node, NodeKind
from mregfs.vfs.interface import Caller
from mregfs.vfs.tree import Tree

__all__ = ["FileOperations", "decode_name"]


def decode_name(name: bytes) -> str:
    """Return a name of the registry's tree as text.

    Raises:
        InvalidError: it is not UTF-8; no name of the registry is.
    """
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise InvalidError(f"{name!r} is not UTF-8", "names of the registry are ASCII") from None


class FileOperations:
    """Turns operations into commands. `mountpoints`: the paths that a caller knows the mount by."""

    def __init__(
        self,
        tree: Tree,
        index: Index,
        project: ProjectName,
        mountpoints: Callable[[Caller], Sequence[str]],
    ) -> None:
        self._tree = tree
        self._index = index
        self._project = project
        self._mountpoints = mountpoints

    def location(self, node: Node) -> Location:
        """Return how a command names an artifact, a collection, a version, a link or an alias.

        Raises:
            InvalidError: the node is none of these.
        """
        if node.owner is None:
            raise InvalidError("this is no artifact, collection or version")
        project = _project(node.project)
        kind, name = node.owner.kind, node.owner.name
        if node.alias is not None:
            return Location(project, name, kind, alias=node.alias.name)
        if node.link is not None:
            return Location(project, name, kind, number=node.link.number)
        if node.version is not None:
            return Location(project, name, kind, number=node.version.number)
        return Location(project, name, kind)

    def strip(self, path: str, caller: Caller) -> str:
        """Return a path relative to the top of the mount; other text unchanged."""
        if path.startswith("/"):
            for mountpoint in self._mountpoints(caller):
                if path == mountpoint or path.startswith(mountpoint.rstrip("/") + "/"):
                    return path[len(mountpoint.rstrip("/")) :].lstrip("/")
        return path

    # ---- symlink

    def symlink(
        self, parent: Node, name: str, target: str, caller: Caller
    ) -> list[commands.Command]:
        """`ln -s TARGET ALIAS`: point an alias of an artifact or collection at a version.

        Raises:
            MregfsError: an alias cannot be made here, or the target is no version.
        """
        if parent.kind is not NodeKind.OWNER:
            raise self.refuse_new(parent, "a symbolic link")
        if name != NEXT or not isinstance(parent.owner, CollectionRecord):
            _check_given_by_people(name)
        place = f"{self._tree.path(parent)}/{name}"
        return [link_command(target, place, self._project, strip=lambda p: self.strip(p, caller))]

    # ---- rename

    def rename(self, source: Node, new_parent: Node, new_name: str) -> list[commands.Command]:
        """`mv` of something in the registry's tree: a collection, or an alias of one owner.

        Raises:
            MregfsError: it cannot be moved, or not there.
        """
        if source.kind is NodeKind.OWNER and isinstance(source.owner, CollectionRecord):
            if new_parent.kind is not NodeKind.COLLECTIONS or new_parent.project != source.project:
                raise ForbiddenError("a collection stays in its project's collections")
            return [commands.RenameCollection(self.location(source), new_name)]
        if source.kind is NodeKind.ALIAS:
            assert source.owner is not None
            assert source.alias is not None
            if new_parent.inode != source.owner.inode:
                raise ForbiddenError(
                    f"the alias {source.alias.name!r} belongs to {source.owner.name!r}",
                    "make an alias there with ln -sfn",
                )
            for name in (source.alias.name, new_name):
                _check_given_by_people(name)
            own = self.location(source)
            renamed = Location(own.project, own.name, own.kind, alias=check_alias(new_name))
            number = Location(own.project, own.name, own.kind, number=source.alias.number)
            expect = f"v{source.alias.number}"
            return [commands.MoveAlias(renamed, number), commands.DropAlias(own, expect)]
        raise self.refuse_rename(source)

    def refuse_rename(self, node: Node) -> MregfsError:
        """Return the error for a rename of what cannot be renamed, or not there."""
        if node.kind is NodeKind.VERSION:
            return ImmutableError("a published version cannot be moved", "versions never change")
        return ForbiddenError(
            "this cannot be renamed",
            "drafts, collections and aliases can; see: mregfs help plain-tools",
        )

    # ---- unlink, rmdir, mkdir

    def unlink(self, node: Node) -> list[commands.Command]:
        """`rm`: drop an alias, or take a link out of a collection.

        Raises:
            MregfsError: it is neither.
        """
        if node.alias is not None:
            _check_given_by_people(node.alias.name)
            return [commands.DropAlias(self.location(node))]
        if node.kind is NodeKind.LINK:
            return [commands.Unlink(self.location(node))]
        if node.kind is NodeKind.VERSION:
            raise ImmutableError(
                "a published version never changes",
                "delete the whole version with: mregfs rm NAME:vN",
            )
        raise ForbiddenError("this is part of every mount and cannot be removed")

    def rmdir(self, node: Node) -> list[commands.Command]:
        """`rmdir`: remove an empty collection or artifact.

        Raises:
            MregfsError: it is neither.
        """
        if node.kind is NodeKind.OWNER:
            return [commands.DeleteOwner(self.location(node))]
        if node.kind is NodeKind.VERSION:
            raise ImmutableError(
                "a published version never changes", "delete it with: mregfs rm NAME:vN"
            )
        raise ForbiddenError("this is part of every mount and cannot be removed")

    def mkdir(self, parent: Node, name: str) -> list[commands.Command]:
        """`mkdir`: create a collection, or an artifact that has no version yet.

        Raises:
            MregfsError: not here.
        """
        project = _project(parent.project) if parent.kind in _OWNER_LISTS else self._project
        if parent.kind is NodeKind.COLLECTIONS:
            return [commands.CreateCollection(project, name)]
        if parent.kind is NodeKind.ARTIFACTS:
            return [commands.CreateArtifact(project, name)]
        raise self.refuse_new(parent, "a directory")

    def commit_target(self, new_parent: Node, new_name: str) -> Location:
        """`mv staging/DRAFT artifacts/NAME/next`: return the artifact that gets a version.

        Raises:
            MregfsError: it is not that.
        """
        with self._index.read() as view:
            state = State(view)
            if new_parent.kind is NodeKind.OWNER and isinstance(new_parent.owner, ArtifactRecord):
                if new_name == NEXT:
                    return self.location(new_parent)
                number = parse_number(new_name)
                if number is not None and state.version(new_parent.inode, number) is not None:
                    raise ExistsError(f"{new_name} exists already", f"move the draft to '{NEXT}'")
                raise ForbiddenError(
                    f"a draft cannot become {new_name!r}",
                    f"move it to '{NEXT}': the registry gives it the next number",
                )
        if new_parent.kind is NodeKind.VERSION:
            raise ImmutableError("a published version never changes")
        raise self.refuse_draft()

    def refuse_draft(self) -> MregfsError:
        """Return the error for a move of a draft to where no version can be."""
        return ForbiddenError(
            "a draft can only become a version",
            f"move it to artifacts/NAME/{NEXT}",
        )

    def refuse_change(self, node: Node) -> MregfsError:
        """Return the error for a write to, or a change of the attributes of, `node`."""
        if node.kind is NodeKind.VERSION:
            return ImmutableError("a published version never changes")
        return ForbiddenError("the registry keeps the attributes of its own directories")

    def refuse_new(self, parent: Node, what: str) -> MregfsError:
        """Return the error for making `what` in `parent`."""
        if parent.kind is NodeKind.VERSION:
            return ImmutableError("a published version never changes")
        return ForbiddenError(
            f"{what} cannot be made here", "write files into a draft below staging/"
        )


_OWNER_LISTS = (NodeKind.COLLECTIONS, NodeKind.ARTIFACTS)


def _check_given_by_people(alias: str) -> None:
    """Refuse an operation on a name that the registry itself gives.

    With EPERM: at EINVAL or EXDEV, GNU mv would say that a directory is moved into itself, or
    would fall back to copying.
    """
    if parse_number(alias) is not None or alias in (LATEST, NEXT):
        raise ForbiddenError(
            f"{alias!r} is given by the registry itself", "name an alias, such as 'production'"
        )


def _project(text: str) -> ProjectName:
    entity, _, project = text.partition("/")
    return ProjectName(entity, project)
