"""What all parts of `Registry` stand on: a way to look, perhaps an open store, and who is asking.

Decided here: when a mount is looked at in place of the store, how text becomes a location, that
nothing is submitted to a store opened for reading. Not decided here: what can be asked (`looking`,
`changing`, `maintenance`).
"""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Self

from mregfs.api.way import Way
from mregfs.config import default_store, said_author
from mregfs.errors import (
    ForbiddenError,
    HostError,
    ImmutableError,
    InvalidError,
    MregfsError,
    NotFoundError,
    UnsupportedError,
)
from mregfs.host.mounts import Mount, mounts_of, read_status
from mregfs.model.commands import User
from mregfs.model.names import DEFAULT_PROJECT, ProjectName, parse_project
from mregfs.model.reference import Location, parse_location
from mregfs.wiring.address import StoreAddress

if TYPE_CHECKING:
    from mregfs.model.commands import Asked
    from mregfs.model.grammar import Statement
    from mregfs.registry.write.changes import Drafts
    from mregfs.registry.write.progress import CommitProgress
    from mregfs.wiring.store import Store

__all__ = ["Connection"]

_CLOSED = (ForbiddenError, HostError, InvalidError, NotFoundError, UnsupportedError)
"""What opening a store ends with when this user may not, or there is none to be seen."""


class Connection:
    """A registry that one program looks at; see `Registry`."""

    def __init__(
        self,
        store: str | os.PathLike[str] | None = None,
        project: str | None = None,
        *,
        mount: str | os.PathLike[str] | None = None,
        author: str | None = None,
        read_only: bool = False,
    ) -> None:
        self._store: Store | None = None
        self._why_no_store: MregfsError | None = None
        point = None if mount is None else os.path.abspath(mount)
        if store is not None or point is None:
            address = StoreAddress.parse(store or default_store())
            try:
                self._store = _open(address, read_only=read_only)
            except _CLOSED as exc:
                point = point or next((each.point for each in mounts_of(str(address))), None)
                if point is None:
                    raise
                self._why_no_store = exc
        self._way: Way
        if self._store is not None:
            from mregfs.api.in_store import InStore

            self._way = InStore(self._store)
            self.project = parse_project(project) if project else DEFAULT_PROJECT
        else:
            from mregfs.api.in_mount import InMount

            assert point is not None
            self._way = through = InMount(point)
            through.head()
            self.project = parse_project(project) if project else _project_of(point)
        self._author = author or said_author()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of store and mount; calling it again does nothing."""
        self._way.close()

    @property
    def store(self) -> "Store":
        """The open store.

        Raises:
            MregfsError: why it could not be opened; or ForbiddenError, it was never asked for.
        """
        if self._store is None:
            raise self._why_no_store or ForbiddenError(
                "this registry is open through a mount only",
                "name the store, as a user who may open it",
            )
        return self._store

    # ---- what the methods have in common

    def _project(self, project: str | None) -> ProjectName:
        return self.project if project is None else parse_project(project, self.project)

    def _locate(self, text: str) -> Location:
        return parse_location(text, self.project)

    def _catch_up(self) -> int:
        return self._way.head()

    def _check_writable(self) -> None:
        if self._store is None:
            why = self._why_no_store or "no store is named"
            raise ForbiddenError(
                f"this registry is open for reading only ({why})",
                "write to .mregfs/control of a mount, or use a verb of mregfs",
            )
        if self._store.read_only:
            raise ImmutableError(
                f"the store {self._store.address} is open for reading only",
                "open it as a user who may write in it",
            )

    def _submit(self, asked: "Asked", reason: str | None) -> dict[str, Any]:
        from mregfs.model.grammar import Statement

        return self._submit_all([Statement(asked)], reason)[0]

    def _submit_all(
        self,
        statements: "Sequence[Statement]",
        reason: str | None,
        drafts: "Drafts | None" = None,
        progress: "CommitProgress | None" = None,
    ) -> list[dict[str, Any]]:
        self._check_writable()
        from mregfs.model.tokenizer import refuse_empty

        refuse_empty("reason", reason)
        changed = self.store.changes.submit(
            statements,
            User(os.geteuid(), frozenset({os.getegid(), *os.getgroups()})),
            drafts,
            author=self._author,
            reason=reason or "",
            progress=progress,
        )
        return changed.results


def _open(address: StoreAddress, *, read_only: bool) -> "Store":
    if find_spec("lmdb") is None:
        raise UnsupportedError(
            "this installation only reads through mounts",
            "name a mount, or install the rest with: pip install 'mregfs[mount]'",
        )
    from mregfs.wiring.opening import open_store

    return open_store(str(address), read_only=read_only)


def _project_of(point: str) -> ProjectName:
    """Return the project of a mount that has just answered."""
    return parse_project(str(read_status(Mount(point, "")).get("project", DEFAULT_PROJECT)))
