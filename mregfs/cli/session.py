"""What every verb works with: its place, the registry, the way changes go, `--json`.

Decided here: the options that all verbs share; that a change goes through a live mount of the store
when there is one, else to the store itself. Not decided here: what a verb asks for. Verbs get a
`Session` as their first argument by `@verb`.

Both ways take the same line of the control file's grammar, so a verb means the same either way.
"""

import shlex
from collections.abc import Callable, Sequence
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mregfs.cli.place import Mount, Place, find_place

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from mregfs.api import Registry
    from mregfs.model.names import ProjectName

__all__ = ["Session", "owner_argument", "reference_argument", "verb"]

_F = TypeVar("_F", bound=Callable[..., Any])


class Session:
    """One command line: where it stands, and how it reaches the registry.

    Opens the store when first asked for it; `verb` closes it.
    """

    def __init__(
        self, store: str | None, mount: str | None, project: str | None, *, as_json: bool
    ) -> None:
        self.named_store = store
        self.named_mount = mount
        self.named_project = project
        self.as_json = as_json
        self._registry: Registry | None = None

    @cached_property
    def place(self) -> Place:
        """Which store, mount and project are meant."""
        return find_place(
            store=self.named_store, mount=self.named_mount, project=self.named_project
        )

    @property
    def project(self) -> "ProjectName":
        """The project that names are in."""
        return self.place.project

    @property
    def registry(self) -> "Registry":
        """The store, opened."""
        if self._registry is None:
            from mregfs.api import Registry

            self._registry = Registry(self.place.store, str(self.place.project))
        return self._registry

    def locate(self, text: str) -> str:
        """Return a reference or tree path for what a person wrote; see `Place.locate`."""
        return self.place.locate(text)

    def change(self, *commands: Sequence[str], reason: str = "") -> list[dict[str, Any]]:
        """Run commands as one transaction, and return one result for each.

        Each command is the words of a line for the control file; the ones that name things have
        been through `locate`.

        Raises:
            MregfsError: the registry said no; nothing changed.
        """
        from mregfs.cli.control import MountGoneError, transact

        mount = self.place.writable_mount()
        if mount is not None and self._speaks_for(mount):
            try:
                return transact(mount, _script(commands, reason))
            except MountGoneError:
                pass
        return self.registry.run(_script(commands, ""), reason=reason)

    def _speaks_for(self, mount: Mount) -> bool:
        """Names without a project mean the same in a mount's control file only if it is its own."""
        return self.place.project_of(mount) == self.place.project

    def close(self) -> None:
        """Close the store if it was opened."""
        if self._registry is not None:
            self._registry.close()
            self._registry = None


def _script(commands: Sequence[Sequence[str]], reason: str) -> str:
    tail = ["--reason", reason] if reason else []
    return "".join(shlex.join([*words, *tail]) + "\n" for words in commands)


def verb(function: Callable[..., None]) -> Callable[..., None]:
    """Give a click command the options that all verbs share, and a Session as first argument."""

    @click.option("--store", metavar="STORE", help="Store to use.")
    @click.option("--mount", metavar="DIR", help="Mount to use.")
    @click.option("--project", metavar="[E/]P", help="Project that names are in.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
    @click.pass_context
    @wraps(function)
    def run(
        ctx: click.Context,
        /,
        *args: Any,
        store: str | None,
        mount: str | None,
        project: str | None,
        as_json: bool,
        **kwargs: Any,
    ) -> None:
        above: dict[str, str | None] = ctx.obj or {}
        session = Session(
            store or above.get("store"),
            mount or above.get("mount"),
            project or above.get("project"),
            as_json=as_json,
        )
        ctx.call_on_close(session.close)
        function(session, *args, **kwargs)

    return run


def _complete_references(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> "list[CompletionItem]":
    from mregfs.cli.completion import references

    return references(ctx, param, incomplete)


def _complete_owners(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> "list[CompletionItem]":
    from mregfs.cli.completion import owners

    return owners(ctx, param, incomplete)


def reference_argument(name: str, *, required: bool = True) -> Callable[[_F], _F]:
    """Add an argument that is a reference or a path; a shell completes it."""
    return click.argument(
        name, required=required, metavar=name.upper(), shell_complete=_complete_references
    )


def owner_argument(name: str, *, required: bool = True) -> Callable[[_F], _F]:
    """Add an argument that is the name of an artifact or collection; a shell completes it."""
    return click.argument(
        name, required=required, metavar=name.upper(), shell_complete=_complete_owners
    )
