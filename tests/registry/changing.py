"""One example of everything that can be asked of a registry, about a project of somebody else's."""

from typing import get_args

from mregfs.model.commands import (
    Asked,
    CommitRequest,
    CreateArtifact,
    CreateCollection,
    DeleteOwner,
    DeleteVersion,
    Describe,
    DropAlias,
    GiveDraft,
    LinkVersion,
    LogVersion,
    MarkDamage,
    MoveAlias,
    Protect,
    RenameCollection,
    ReplaceLayout,
    RetirePacks,
    Rollback,
    SetAccess,
    SetMetadata,
    Tag,
    Unlink,
    Unprotect,
)
from mregfs.model.names import ProjectName
from mregfs.model.reference import Location

THEIRS = ProjectName("team", "theirs")

_VERSION = Location(THEIRS, "m", "artifact", number=0)

WRITTEN: dict[type, str] = {
    CommitRequest: "commit mine team/theirs/m",
    GiveDraft: "give projects/team/theirs/staging/run root",
    LinkVersion: "ln mnist:v0 team/theirs/c:best",
    MoveAlias: "rollback team/theirs/m:best --to v0",
    DropAlias: "rm team/theirs/m:best",
    Unlink: "rm projects/team/theirs/collections/c/v0",
    DeleteVersion: "rm projects/team/theirs/artifacts/m/v0",
    CreateArtifact: "mkdir projects/team/theirs/artifacts/new",
    CreateCollection: "mkdir projects/team/theirs/collections/new",
    DeleteOwner: "rm projects/team/theirs/artifacts/m",
    RenameCollection: "mv projects/team/theirs/collections/c projects/team/theirs/collections/d",
    Tag: "tag team/theirs/m good",
    Describe: "describe team/theirs/m text",
    SetMetadata: "set team/theirs/m a=1",
    Protect: "protect team/theirs/m:best --group root",
    Unprotect: "unprotect team/theirs/m:best",
    SetAccess: "access team/theirs --writers '*'",
    Rollback: "rollback team/theirs/m:best",
}
"""As a line of the control file."""

UNWRITTEN: dict[type, Asked] = {
    LogVersion: LogVersion(THEIRS, "m", "0" * 64, "0" * 32, 0, 0, 0),
    MarkDamage: MarkDamage(_VERSION, "lost"),
    RetirePacks: RetirePacks(("0" * 32,)),
    ReplaceLayout: ReplaceLayout(_VERSION, "0" * 32, "1" * 32),
}
"""What has no words: programs ask for it."""

ALL = frozenset(get_args(Asked))
