"""What all parts of `Registry` stand on: an open store, a project, and who is asking.

Decided here: how text becomes a location, that nothing is submitted to a store opened for reading.
Not decided here: what can be asked (`looking`, `changing`, `upkeep`). Only they call this.
"""

import os
from collections.abc import Sequence
from typing import Any, Self

from msgspec.structs import replace

from mregfs.api.store import Store, open_store
from mregfs.config import default_store, said_author
from mregfs.errors import ImmutableError
from mregfs.host.principals import principal as principal_of
from mregfs.model.commands import Command
from mregfs.model.names import DEFAULT_PROJECT, ProjectName, parse_project
from mregfs.model.records import VersionRecord
from mregfs.model.reference import Location, parse_location
from mregfs.registry.catalog import Catalog

__all__ = ["Session"]


class Session:
    """A store that one program has open; see `Registry`."""

    def __init__(
        self,
        store: str | os.PathLike[str] | None = None,
        project: str | None = None,
        *,
        author: str | None = None,
        read_only: bool = False,
    ) -> None:
        self.project = parse_project(project) if project else DEFAULT_PROJECT
        self.store: Store = open_store(store or default_store(), read_only=read_only)
        self._principal = principal_of(
            os.geteuid(),
            {os.getegid(), *os.getgroups()},
            os.stat(self.store.path).st_uid,
            author or said_author(),
        )
        self._catalog = Catalog(self.store.index)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the store; calling it again does nothing."""
        self.store.close()

    # ---- what the methods have in common

    def _catch_up(self) -> int:
        return self.store.log.catch_up()

    def _project(self, project: str | None) -> ProjectName:
        return self.project if project is None else parse_project(project, self.project)

    def _locate(self, text: str) -> Location:
        return parse_location(text, self.project)

    def _content_of(self, ref: str) -> VersionRecord:
        self._catch_up()
        version = self._catalog.resolve(self._locate(ref)).version
        self.store.content.ensure(version)
        return version

    def _check_writable(self) -> None:
        if self.store.read_only:
            raise ImmutableError(
                f"the store {self.store.path} is open for reading only",
                "open it as a user who may write in it",
            )

    def _submit(self, command: Command, reason: str) -> dict[str, Any]:
        return self._submit_all([command], reason)[0]

    def _submit_all(
        self, commands: Sequence[Command], reason: str, author: str = ""
    ) -> list[dict[str, Any]]:
        self._check_writable()
        principal = self._principal
        if author:
            principal = replace(principal, author=author)
        return list(self.store.log.submit(commands, principal, reason).results)
