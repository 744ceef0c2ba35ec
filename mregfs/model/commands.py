"""Commands: what people ask of the registry, before the rules have decided.

Decided here: which commands there are and what each can say. Not decided here: whether one is
allowed and what it leads to (`rules.decide`), how one is written (`grammar`). The control file, the
CLI and the Python API all make these.
"""

from collections.abc import Container, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from mregfs.model.bounds import said_of
from mregfs.model.names import ProjectName
from mregfs.model.reference import Location

__all__ = [
    "Asked",
    "Command",
    "CommitRequest",
    "CreateArtifact",
    "CreateCollection",
    "DeleteOwner",
    "DeleteVersion",
    "Describe",
    "DropAlias",
    "GiveDraft",
    "LinkVersion",
    "LogVersion",
    "MarkDamage",
    "MoveAlias",
    "Principal",
    "Protect",
    "RenameCollection",
    "ReplaceLayout",
    "RetirePacks",
    "Rollback",
    "SetAccess",
    "SetMetadata",
    "Tag",
    "Unlink",
    "Unprotect",
    "User",
    "signature",
]


class _Everything:
    """A container that holds whatever one asks for."""

    def __contains__(self, item: object) -> bool:
        return True


class User(msgspec.Struct, frozen=True):
    """A user of this host who asks for something, by what the kernel says of him."""

    uid: int
    gids: frozenset[int]
    """All groups that he is in."""


class Principal(msgspec.Struct, frozen=True):
    """Who asks: what the rules look at, and what history remembers."""

    user: str
    """The user that this host knows him as."""
    groups: Container[str] = frozenset()
    """The groups he is in, by name and by number."""
    privileged: bool = False
    """True for root and for the owner of the store: reads and changes everything, says who else
    may, and can take a protection away, not ignore it."""
    author: str = ""
    """Whom he says to be, which history shows beside the user; empty: nobody else."""
    known_groups: Container[str] = _Everything()
    """The groups that there are on this host: others cannot be given any right."""

    @property
    def signature(self) -> str:
        """What history calls him: the user, or `author (user)`."""
        return signature(self.author, self.user)


def signature(author: str, user: str) -> str:
    """Return how somebody is shown who called himself `author` and was `user`."""
    return f"{author} ({user})" if author and user and author != user else author or user


class LogVersion(msgspec.Struct, frozen=True):
    """Make the described content the next version of an artifact (created if need be).

    Content identical to an existing version's makes none: the aliases move to that one.
    """

    project: ProjectName
    artifact: str
    digest: str
    layout: str
    size: int
    files: int
    entries: int
    packs: dict[str, int] = {}
    """The packs that were stored for it, and their sizes in bytes."""
    shared: tuple[str, ...] = ()
    """Packs of other versions that have bytes of it."""
    known: bool = False
    """Nothing was stored for it: a version of the artifact has this content. Refused when that one
    is gone by now."""
    type: str | None = None
    """Of the artifact; None: its type, or `model` for a new one."""
    aliases: tuple[str, ...] = ()
    description: str = ""
    metadata: dict[str, Any] = {}
    tags: tuple[str, ...] = ()
    run: str = ""
    parents: tuple[Location, ...] = ()


class LinkVersion(msgspec.Struct, frozen=True):
    """Link a version into a collection (created if need be), and move an alias there to it.

    A version that is in the collection already is not linked again. `source` may be a link: its
    version is what gets linked. `target.alias` None: link only.
    """

    source: Location
    target: Location
    expect: str | None = None
    """`vN`: refuse unless the alias points there now; `none`: unless it does not exist."""


class MoveAlias(msgspec.Struct, frozen=True):
    """Point an alias of an artifact or collection at one of its own numbers."""

    target: Location
    """The alias."""
    source: Location
    """The number, as any reference within the same artifact or collection."""
    expect: str | None = None


class DropAlias(msgspec.Struct, frozen=True):
    """Drop an alias."""

    target: Location
    expect: str | None = None


class Unlink(msgspec.Struct, frozen=True):
    """Take a link out of a collection. Its aliases keep it there unless `force` drops them too."""

    target: Location
    force: bool = False


class DeleteVersion(msgspec.Struct, frozen=True):
    """Delete a version. Aliases and links keep it there unless `force` drops them too."""

    target: Location
    force: bool = False


class RetirePacks(msgspec.Struct, frozen=True):
    """Let no version use these packs any more: after the grace period their bytes are deleted.

    Refused while a version uses one of them. A pack that no entry has named (a commit left it
    behind) can be retired, too; then no commit can be logged with it.
    """

    packs: tuple[str, ...]


class ReplaceLayout(msgspec.Struct, frozen=True):
    """Let a version's bytes be read from other packs; its content stays the same."""

    target: Location
    """The version."""
    previous: str
    """The layout that was looked at: refused when the version has another one by now."""
    layout: str
    packs: dict[str, int] = {}
    """As in `LogVersion`."""
    shared: tuple[str, ...] = ()


class CreateArtifact(msgspec.Struct, frozen=True):
    """Create an artifact that has no version yet."""

    project: ProjectName
    name: str
    type: str = "model"
    description: str = ""


class CreateCollection(msgspec.Struct, frozen=True):
    """Create a collection. Without a type it takes that of the first version linked into it."""

    project: ProjectName
    name: str
    type: str | None = None
    description: str = ""


class DeleteOwner(msgspec.Struct, frozen=True):
    """Delete an artifact or a collection; one that is not empty only with `force`."""

    target: Location
    force: bool = False


class RenameCollection(msgspec.Struct, frozen=True):
    """Give a collection another name within its project."""

    target: Location
    new_name: str


class Tag(msgspec.Struct, frozen=True):
    """Add and remove tags of a version, artifact or collection."""

    target: Location
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()


class Describe(msgspec.Struct, frozen=True):
    """Set the description of a version, artifact or collection."""

    target: Location
    description: str


class SetMetadata(msgspec.Struct, frozen=True):
    """Set top-level keys of the metadata of a version, artifact or collection, and remove some."""

    target: Location
    values: dict[str, Any] = {}
    remove: tuple[str, ...] = ()
    replace: bool = False
    """True: `values` is the whole metadata."""


class MarkDamage(msgspec.Struct, frozen=True):
    """Say of a version that bytes of it are lost, or (nothing) that they are there again."""

    target: Location
    damage: str


class Protect(msgspec.Struct, frozen=True):
    """Let only members of a group move or drop an alias (which need not exist yet)."""

    target: Location
    group: str


class Unprotect(msgspec.Struct, frozen=True):
    """Let anyone move or drop the alias again."""

    target: Location


class SetAccess(msgspec.Struct, frozen=True):
    """Say who may read and who may change the store, or one project; None leaves a part alone."""

    project: ProjectName | None
    """None: the whole store, where no project says otherwise."""
    readers: str | None = None
    """A group by name or number, `*` for everybody, or `` for nobody but the owner and root."""
    writers: str | None = None
    private_drafts: bool | None = None
    """Whether a new draft can be read by its user alone, whatever his umask is."""
    inherit: bool = False
    """True: first forget what was said of the project; what holds for the store holds for it."""


class Rollback(msgspec.Struct, frozen=True):
    """Move an alias back to where it pointed before (`target.when`; one move ago if unsaid)."""

    target: Location
    expect: str | None = None


Command = (
    LogVersion
    | LinkVersion
    | MoveAlias
    | DropAlias
    | Unlink
    | DeleteVersion
    | CreateArtifact
    | CreateCollection
    | DeleteOwner
    | RenameCollection
    | Tag
    | Describe
    | SetMetadata
    | MarkDamage
    | Protect
    | Unprotect
    | SetAccess
    | Rollback
    | RetirePacks
    | ReplaceLayout
)


class CommitRequest(msgspec.Struct, frozen=True):
    """A draft is to become a version: all that is said about it before its content is known."""

    project: ProjectName
    """Of the draft."""
    draft: str
    """Its directory's name below `staging`."""
    artifact: Location
    """The artifact that gets the version; it may be of another project."""
    aliases: tuple[str, ...] = ()
    type: str | None = None
    metadata: dict[str, Any] = {}
    description: str = ""
    tags: tuple[str, ...] = ()
    run: str = ""
    parents: tuple[Location, ...] = ()
    link: Location | None = None
    """A collection, or an alias in one, to link the new version to."""

    def commands(
        self,
        *,
        digest: str,
        layout: str,
        size: int,
        files: int,
        entries: int,
        packs: Mapping[str, int] = MappingProxyType({}),
        shared: Sequence[str] = (),
        known: bool = False,
    ) -> tuple[Command, ...]:
        """Return the commands, now that the content is known and stored; see `LogVersion`."""
        artifact = self.artifact
        logged = LogVersion(
            project=artifact.project,
            artifact=artifact.name,
            digest=digest,
            layout=layout,
            size=size,
            files=files,
            entries=entries,
            packs=dict(packs),
            shared=tuple(shared),
            known=known,
            type=self.type,
            aliases=self.aliases,
            parents=self.parents,
            **said_of(self),
        )
        if self.link is None:
            return (logged,)
        # By digest: its number is known only when the first command has been decided.
        source = Location(artifact.project, artifact.name, "artifact", digest=digest)
        return logged, LinkVersion(source, self.link)


class GiveDraft(msgspec.Struct, frozen=True):
    """A draft is to be another user's."""

    project: ProjectName
    draft: str
    user: str
    """His name on this host, or his number."""


Asked = Command | CommitRequest | GiveDraft
"""All that may be asked of a registry. A commit becomes commands when its content is stored."""
