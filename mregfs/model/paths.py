"""The shape of a mount: its directories, and how a path from its top is read and written.

    artifacts/NAME/vN|ALIAS|next        projects/ENTITY/PROJECT/…    the same of another project
    collections/NAME/vN|ALIAS           .mregfs/control, events, status, query/QUESTION
    staging/DRAFT/…

Decided here: the names of these directories and files, and their order in a path. Not decided here:
which names are valid (`names`), what a path means as a version or an alias (`reference`), which of
these a mount shows (`vfs.tree`).

Nothing is imported: the list of verbs is shown without loading what they need.
"""

from typing import NamedTuple

__all__ = [
    "ARTIFACTS",
    "COLLECTIONS",
    "CONTROL",
    "DIRECTORIES",
    "EVENTS",
    "META",
    "OWNER_FORMS",
    "PROJECTS",
    "QUERY",
    "STAGING",
    "STATUS",
    "TreePath",
    "directory_of",
    "is_path",
    "join",
    "kind_of",
    "special",
    "split",
]

ARTIFACTS = "artifacts"
COLLECTIONS = "collections"
STAGING = "staging"
PROJECTS = "projects"
DIRECTORIES = (ARTIFACTS, COLLECTIONS, PROJECTS, STAGING)
"""What a path from the top begins with; no entity and no project may be called so."""

META = ".mregfs"
CONTROL = "control"
EVENTS = "events"
STATUS = "status"
QUERY = "query"

OWNER_FORMS = (f"{ARTIFACTS}/NAME", f"{COLLECTIONS}/NAME")
"""How a message shows the paths of an artifact and of a collection."""

_KINDS = {ARTIFACTS: "artifact", COLLECTIONS: "collection"}
_HOMES = {kind: directory for directory, kind in _KINDS.items()}


class TreePath(NamedTuple):
    """A path from the top of a mount, in its parts."""

    directory: str
    """One of `artifacts`, `collections`, `staging`, or any other word; empty: the top itself."""
    names: tuple[str, ...] = ()
    """What is below that directory."""
    project: str = ""
    """`ENTITY/PROJECT`; empty: the mount's own."""

    @property
    def kind(self) -> str | None:
        """`artifact` or `collection`, when the path is in a directory of these."""
        return _KINDS.get(self.directory)

    @property
    def is_draft(self) -> bool:
        """Tell whether it is the staging area, or below it."""
        return self.directory == STAGING

    @property
    def is_owner(self) -> bool:
        """Tell whether it is the directory of an artifact or collection."""
        return self.kind is not None and len(self.names) == 1

    def __str__(self) -> str:
        return join(self.directory, *self.names, project=self.project)


def split(path: str) -> TreePath:
    """Return the parts of a path from the top of a mount; empty ones and `.` are left out."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    project = ""
    if parts[:1] == [PROJECTS] and len(parts) >= 3:
        project = f"{parts[1]}/{parts[2]}"
        parts = parts[3:]
    return TreePath(parts[0] if parts else "", tuple(parts[1:]), project)


def join(directory: str, *names: str, project: object = "", own: object = "") -> str:
    """Return the path from the top of a mount.

    Args:
        directory: one of `DIRECTORIES`.
        names: what follows.
        project: `ENTITY/PROJECT`; empty: the mount's own.
        own: the mount's own project, which is not written.
    """
    path = "/".join((directory, *names))
    return path if str(project) in ("", str(own)) else f"{PROJECTS}/{project}/{path}"


def is_path(text: str) -> bool:
    """Tell whether a text is a path from the top of a mount, and not a reference."""
    first, slash, _ = text.partition("/")
    return bool(slash) and first in DIRECTORIES


def directory_of(kind: str) -> str:
    """Return the directory that has the artifacts, or the collections."""
    return _HOMES[kind]


def kind_of(directory: str) -> str | None:
    """Return what a directory has: `artifact`, `collection`, or None for any other."""
    return _KINDS.get(directory)


def special(mount: str, name: str) -> str:
    """Return the path on this host of a file in `.mregfs`, such as `CONTROL`."""
    return f"{mount}/{META}/{name}"
