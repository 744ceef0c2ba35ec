"""What a Python program can change: each command of the control file has a method.

Decided here: how Python says each thing. Not decided here: what it leads to (`model.rules`); what
is written as text is parsed as in the control file. An option that is not said is None; an empty
text is refused, as everywhere.
"""

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from mregfs.api.connection import Connection
from mregfs.model import commands as ask
from mregfs.model.commands import Asked

if TYPE_CHECKING:
    from mregfs.registry.write.progress import CommitProgress

__all__ = ["Changing"]


class Changing(Connection):
    """Methods of `Registry` that append to the log."""

    def commit(
        self,
        directory: str | os.PathLike[str],
        artifact: str,
        *,
        aliases: Iterable[str] = (),
        type: str | None = None,  # noqa: A002 - it is what the noun is called
        metadata: Mapping[str, Any] | None = None,
        description: str | None = None,
        tags: Iterable[str] = (),
        run: str | None = None,
        parents: Iterable[str] = (),
        link: str | None = None,
        reason: str | None = None,
        progress: "CommitProgress | None" = None,
    ) -> dict[str, Any]:
        """Make a directory the next version of an artifact; the directory stays as it is.

        With `link`, the version is linked into a collection (`NAME` or `NAME:ALIAS`) in the same
        transaction; `result["link"]` says as what.

        Raises:
            ConflictError: files are open for writing; all are named.
            InvalidError: something cannot be in a version; all of it is named.
        """
        request = self._command(
            "commit",
            "directory",
            artifact,
            aliases=aliases,
            type=type,
            metadata=metadata,
            description=description,
            tags=tags,
            run=run,
            parents=parents,
            link=link,
        )
        from mregfs.model.grammar import Statement
        from mregfs.registry.write.changes import OneSource

        source = OneSource(lambda: self.store.open_intake(directory))
        first, *rest = self._submit_all([Statement(request)], reason, source, progress)
        return {**first, "link": rest[0]} if rest else first

    def link(
        self, source: str, target: str, *, expect: str | None = None, reason: str | None = None
    ) -> dict[str, Any]:
        """Link a version into a collection, and move an alias there (`NAME:ALIAS`) to it.

        Raises:
            ConflictError: the alias is not where `expect` says.
        """
        return self._change("ln", source, target, expect=expect, reason=reason)

    def move_alias(
        self, source: str, target: str, *, expect: str | None = None, reason: str | None = None
    ) -> dict[str, Any]:
        """Point the alias `target` at a version of the same artifact or collection."""
        _refuse_empty(expect=expect)
        command = ask.MoveAlias(self._locate(target), self._locate(source), expect)
        return self._submit(command, reason)

    def rollback(
        self,
        target: str,
        *,
        to: str | None = None,
        expect: str | None = None,
        reason: str | None = None,
    ) -> dict[str, Any]:
        """Move an alias back one move, or to where `to` says: moves, a time, or a version."""
        return self._change("rollback", target, to=to, expect=expect, reason=reason)

    def remove(
        self,
        target: str,
        *,
        force: bool = False,
        expect: str | None = None,
        reason: str | None = None,
    ) -> dict[str, Any]:
        """Drop an alias, unlink, delete a version, or an artifact or collection."""
        return self._change("rm", target, force=force, expect=expect, reason=reason)

    def move(self, source: str, target: str, *, reason: str | None = None) -> dict[str, Any]:
        """Give a collection another name.

        Raises:
            UnsupportedError: the source is a draft; those are moved in their mount.
        """
        return self._change("mv", source, target, reason=reason)

    def tag(
        self,
        target: str,
        add: Iterable[str] = (),
        remove: Iterable[str] = (),
        *,
        reason: str | None = None,
    ) -> dict[str, Any]:
        """Add and remove tags of a version, artifact or collection."""
        command = ask.Tag(self._locate(target), tuple(add), tuple(remove))
        return self._submit(command, reason)

    def describe(self, target: str, text: str, *, reason: str | None = None) -> dict[str, Any]:
        """Set the description of a version, artifact or collection."""
        return self._change("describe", target, text, reason=reason)

    def set_metadata(
        self,
        target: str,
        values: Mapping[str, Any],
        remove: Iterable[str] = (),
        *,
        replace: bool = False,
        reason: str | None = None,
    ) -> dict[str, Any]:
        """Set and remove top-level keys of the metadata of a version, artifact or collection."""
        command = ask.SetMetadata(self._locate(target), dict(values), tuple(remove), replace)
        return self._submit(command, reason)

    def protect(self, target: str, group: str, *, reason: str | None = None) -> dict[str, Any]:
        """Let only members of a group move or drop an alias."""
        return self._change("protect", target, group=group, reason=reason)

    def unprotect(self, target: str, *, reason: str | None = None) -> dict[str, Any]:
        """Let anyone move or drop an alias again."""
        return self._change("unprotect", target, reason=reason)

    def set_access(
        self,
        project: str | None = None,
        *,
        readers: str | None = None,
        writers: str | None = None,
        private_drafts: bool | None = None,
        reason: str | None = None,
    ) -> dict[str, Any]:
        """Say who may read and who may change a project, or the store; None leaves it as it is.

        `readers` and `writers` are a group, `*` for everybody, or `-` for the owner alone.

        Raises:
            ForbiddenError: you are neither root nor the owner of the store.
            InvalidError: this host has no such group.
        """
        drafts = None if private_drafts is None else "private" if private_drafts else "open"
        return self._change(
            "access", project, readers=readers, writers=writers, drafts=drafts, reason=reason
        )

    def create_collection(
        self,
        name: str,
        type: str | None = None,  # noqa: A002 - as above
        description: str | None = None,
        *,
        reason: str | None = None,
    ) -> dict[str, Any]:
        """Create a collection; without a type it takes that of the first version linked."""
        place = self._locate(name)
        _refuse_empty(type=type, description=description)
        command = ask.CreateCollection(place.project, place.name, type, description or "")
        return self._submit(command, reason)

    def create_artifact(
        self,
        name: str,
        type: str = "model",  # noqa: A002 - as above
        description: str | None = None,
        *,
        reason: str | None = None,
    ) -> dict[str, Any]:
        """Create an artifact that has no version yet."""
        place = self._locate(name)
        _refuse_empty(type=type, description=description)
        command = ask.CreateArtifact(place.project, place.name, type, description or "")
        return self._submit(command, reason)

    def run(self, script: str, reason: str | None = None) -> list[dict[str, Any]]:
        """Carry out commands as the control file takes them, one a line, in one transaction.

        Raises:
            UnsupportedError: one commits a draft; that is done in its mount.
            InvalidError: one is malformed; the message names its line.
        """
        from mregfs.model.grammar import parse_script

        return self._submit_all(parse_script(script, self.project), reason)

    def _command(self, name: str, *operands: object, **said: object) -> Asked:
        """Return a command as the control file would read it, said in Python's words."""
        self._check_writable()
        from mregfs.model.forms import COMMANDS
        from mregfs.model.grammar import build

        return build(COMMANDS[name], operands, said, self.project)

    def _change(
        self, name: str, *operands: object, reason: str | None, **said: object
    ) -> dict[str, Any]:
        return self._submit(self._command(name, *operands, **said), reason)


def _refuse_empty(**said: str | None) -> None:
    from mregfs.model.tokenizer import refuse_empty

    for option, value in said.items():
        refuse_empty(option, value)
