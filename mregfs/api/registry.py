"""`Registry`: everything a Python program can ask of a store.

Decided here: how Python says each thing. Not decided here: what happens then; each method is a line
or two over a use case, and what is written as text is parsed as in the control file.
"""

import grp
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import msgspec

from mregfs.api.reading import FileInfo, export_version, files_of, open_file
from mregfs.api.store import Store, open_store
from mregfs.api.upkeep import Upkeep
from mregfs.config import default_author, default_store
from mregfs.errors import (
    ImmutableError,
    InvalidError,
    MregfsError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
)
from mregfs.model import commands as ask
from mregfs.model.changes import event_line
from mregfs.model.commands import Asker, Command
from mregfs.model.names import DEFAULT_PROJECT, ProjectName, parse_project
from mregfs.model.records import VersionRecord
from mregfs.model.reference import Location, parse_location
from mregfs.registry.catalog import Catalog, OwnerInfo, VersionInfo
from mregfs.registry.history import HistoryLine, history

if TYPE_CHECKING:
    from mregfs.model.phrases import CommitRequest
    from mregfs.registry.commit import CommitProgress
    from mregfs.registry.diff import Diff
    from mregfs.registry.usage import Usage

__all__ = ["Registry"]

POLL_SECONDS = 0.1
"""How often `events` and `wait` look for the next log entry: one stat each time."""


class Registry(Upkeep):
    """A store, opened for a Python program; a context manager.

    References (`[[entity/]project/]name[:alias | :vN | @digest]`) and paths below a mount
    (`artifacts/NAME/vN`) are taken wherever a version is meant. Methods that change something
    return what the control file would answer. Safe to use from several threads.

    Args:
        store: the store's directory; by default the one of this user.
        project: that names are in when they do not say: `[entity/]project`.
        author: whom history names; by default `$MREGFS_AUTHOR` or this user.
        read_only: refuse to change anything.

    Raises:
        InvalidError: there is no store.
    """

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
        self._asker = Asker(author or default_author(), _groups(), os.geteuid() == 0)
        self._catalog = Catalog(self.store.index)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the store; calling it again does nothing."""
        self.store.close()

    # ---- looking

    def projects(self) -> list[str]:
        """Return all projects, as `entity/project`."""
        self._catch_up()
        return [str(project) for project in self._catalog.projects()]

    def artifacts(self, project: str | None = None) -> list[OwnerInfo]:
        """Return the artifacts of a project."""
        self._catch_up()
        return list(self._catalog.artifacts(self._project(project)))

    def collections(self, project: str | None = None) -> list[OwnerInfo]:
        """Return the collections of a project."""
        self._catch_up()
        return list(self._catalog.collections(self._project(project)))

    def get(self, ref: str) -> VersionInfo:
        """Return the version that a reference resolves to.

        Raises:
            NotFoundError: there is none.
        """
        self._catch_up()
        return self._catalog.version(self._locate(ref))

    def owner(self, name: str) -> OwnerInfo:
        """Return an artifact or collection.

        Raises:
            NotFoundError: there is none of that name.
        """
        self._catch_up()
        return self._catalog.owner(self._locate(name))

    def versions(self, name: str) -> Iterator[VersionInfo]:
        """Yield what an artifact or collection has, newest first.

        Raises:
            NotFoundError: there is none of that name.
        """
        self._catch_up()
        return self._catalog.versions(self._locate(name))

    def history(self, ref: str) -> Iterator[HistoryLine]:
        """Yield what happened to an alias, a version, an artifact or a collection, newest first.

        Raises:
            NotFoundError: there is no such thing.
        """
        self._catch_up()
        return history(self.store.log, self.store.index, self._locate(ref))

    def diff(self, a: str, b: str) -> "Diff":
        """Compare the files of two versions."""
        from mregfs.registry.diff import diff

        return diff(self.store.content, self._content_of(a), self._content_of(b))

    def usage(self, target: str | None = None) -> "Usage":
        """Return the space of a version, of an artifact or collection, or of the whole store."""
        from mregfs.registry.usage import select, usage

        self._catch_up()
        index, content = self.store.index, self.store.content
        return usage(index, content, select(index, self._locate(target) if target else None))

    def status(self) -> dict[str, Any]:
        """Return figures of the store."""
        head = self._catch_up()
        owners = [
            info
            for project in self._catalog.projects()
            for each in (self._catalog.artifacts(project), self._catalog.collections(project))
            for info in each
        ]
        return {
            "store": self.store.address,
            "id": self.store.id,
            "format": self.store.description.format,
            "created_at": self.store.description.created_at,
            "entries": head,
            "projects": len(self._catalog.projects()),
            "artifacts": sum(info.kind == "artifact" for info in owners),
            "collections": sum(info.kind == "collection" for info in owners),
            "versions": sum(info.versions for info in owners if info.kind == "artifact"),
            "free": self.store.packs.free_bytes(),
            "index": self.store.index.path,
            "read_only": self.store.read_only,
        }

    def path(self, ref: str, mountpoint: str | None = None) -> str:
        """Return the path of a version's own directory below a mount.

        Without `mountpoint`: relative to the top of a mount of this project.

        Raises:
            NotFoundError: there is no such version.
        """
        info = self.get(ref)
        path = f"artifacts/{info.artifact}/{info.version}"
        if info.project != str(self.project):
            path = f"projects/{info.project}/{path}"
        return path if mountpoint is None else os.path.join(mountpoint, path)

    # ---- reading

    def files(self, ref: str, path: str = "") -> Iterator[FileInfo]:
        """Yield the files, directories and symlinks of a version, at and below a path.

        Raises:
            NotFoundError: there is no such version or path.
        """
        return files_of(self.store.content, self._content_of(ref), path)

    def open(self, ref: str, path: str) -> BinaryIO:
        """Open a file of a version; the bytes that it gives are verified.

        Raises:
            NotFoundError: there is no such version or file.
        """
        return open_file(self.store.content, self._content_of(ref), path)

    def read(self, ref: str, path: str) -> bytes:
        """Return all bytes of a file of a version."""
        with self.open(ref, path) as file:
            return file.read()

    def export(
        self, ref: str, destination: str, *, progress: "CommitProgress | None" = None
    ) -> None:
        """Copy a version's files into a directory that does not exist yet, or is empty.

        Raises:
            ExistsError: there is something.
        """
        version = self._content_of(ref)
        done = 0

        def report(count: int) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress("export", done, version.size)

        export_version(self.store.content, version, destination, report)

    # ---- changing

    def commit(
        self,
        directory: str | os.PathLike[str],
        artifact: str,
        *,
        aliases: Iterable[str] = (),
        type: str | None = None,  # noqa: A002 - it is what the noun is called
        metadata: Mapping[str, Any] | None = None,
        description: str = "",
        tags: Iterable[str] = (),
        run: str = "",
        parents: Iterable[str] = (),
        link: str | None = None,
        reason: str = "",
        progress: "CommitProgress | None" = None,
    ) -> dict[str, Any]:
        """Make a directory the next version of an artifact; the directory stays as it is.

        With `link`, the version is linked into a collection (`NAME` or `NAME:ALIAS`) in the same
        transaction; `result["link"]` says as what.

        Raises:
            ConflictError: files are open for writing; all are named.
            InvalidError: something cannot be in a version; all of it is named.
        """
        self._check_writable()
        from mregfs.model.phrases import commit_request

        request = commit_request(
            "directory",
            artifact,
            self.project,
            aliases=aliases,
            type=type,
            metadata=metadata,
            description=description,
            tags=tags,
            run=run,
            parents=parents,
            link=link,
        )
        intake = self.store.open_intake(directory, consume=False)
        receipt = self.store.committer.commit(
            intake, request, self._asker, progress=progress, reason=reason
        )
        first, *rest = receipt.results
        return {**first, "link": rest[0]} if rest else first

    import_directory = commit

    def link(
        self, source: str, target: str, *, expect: str | None = None, reason: str = ""
    ) -> dict[str, Any]:
        """Link a version into a collection, and move an alias there (`NAME:ALIAS`) to it.

        Raises:
            ConflictError: the alias is not where `expect` says.
        """
        from mregfs.model.phrases import link_command

        command = link_command(source, target, self.project, expect=expect)
        return self._submit(command, reason)

    def move_alias(
        self, source: str, target: str, *, expect: str | None = None, reason: str = ""
    ) -> dict[str, Any]:
        """Point the alias `target` at a version of the same artifact or collection."""
        command = ask.MoveAlias(self._locate(target), self._locate(source), expect)
        return self._submit(command, reason)

    def rollback(
        self, target: str, *, to: str | None = None, expect: str | None = None, reason: str = ""
    ) -> dict[str, Any]:
        """Move an alias back one move, or to where `to` says: moves, a time, or a version."""
        from mregfs.model.phrases import rollback_command

        command = rollback_command(target, self.project, to=to, expect=expect)
        return self._submit(command, reason)

    def remove(
        self, target: str, *, force: bool = False, expect: str | None = None, reason: str = ""
    ) -> dict[str, Any]:
        """Drop an alias, unlink, delete a version, or an artifact or collection."""
        from mregfs.model.phrases import remove_command

        command = remove_command(target, self.project, force=force, expect=expect)
        return self._submit(command, reason)

    def move(self, source: str, target: str, *, reason: str = "") -> dict[str, Any]:
        """Give a collection another name.

        Raises:
            UnsupportedError: the source is a draft; those are moved in their mount.
        """
        from mregfs.model.phrases import move_command

        command = move_command(source, target, self.project)
        return self._submit(_not_a_draft(command), reason)

    def tag(
        self, target: str, add: Iterable[str] = (), remove: Iterable[str] = (), *, reason: str = ""
    ) -> dict[str, Any]:
        """Add and remove tags of a version, artifact or collection."""
        command = ask.Tag(self._locate(target), tuple(add), tuple(remove))
        return self._submit(command, reason)

    def describe(self, target: str, text: str, *, reason: str = "") -> dict[str, Any]:
        """Set the description of a version, artifact or collection."""
        return self._submit(ask.Describe(self._locate(target), text), reason)

    def set_metadata(
        self,
        target: str,
        values: Mapping[str, Any],
        remove: Iterable[str] = (),
        *,
        replace: bool = False,
        reason: str = "",
    ) -> dict[str, Any]:
        """Set and remove top-level keys of the metadata of a version, artifact or collection."""
        command = ask.SetMetadata(self._locate(target), dict(values), tuple(remove), replace)
        return self._submit(command, reason)

    def protect(self, target: str, group: str, *, reason: str = "") -> dict[str, Any]:
        """Let only members of a group move or drop an alias."""
        return self._submit(ask.Protect(self._locate(target), group), reason)

    def unprotect(self, target: str, *, reason: str = "") -> dict[str, Any]:
        """Let anyone move or drop an alias again."""
        return self._submit(ask.Unprotect(self._locate(target)), reason)

    def create_collection(
        self,
        name: str,
        type: str | None = None,  # noqa: A002 - as above
        description: str = "",
        *,
        reason: str = "",
    ) -> dict[str, Any]:
        """Create a collection; without a type it takes that of the first version linked."""
        place = self._locate(name)
        command = ask.CreateCollection(place.project, place.name, type, description)
        return self._submit(command, reason)

    def create_artifact(
        self,
        name: str,
        type: str = "model",  # noqa: A002 - as above
        description: str = "",
        *,
        reason: str = "",
    ) -> dict[str, Any]:
        """Create an artifact that has no version yet."""
        place = self._locate(name)
        command = ask.CreateArtifact(place.project, place.name, type, description)
        return self._submit(command, reason)

    def run(self, script: str, reason: str = "") -> list[dict[str, Any]]:
        """Carry out commands as the control file takes them, one a line, in one transaction.

        Raises:
            UnsupportedError: one commits a draft; that is done in its mount.
            InvalidError: one is malformed; the message names its line.
        """
        from mregfs.model.grammar import at_statement, parse_script

        statements = parse_script(script, self.project)
        if not statements:
            raise InvalidError("there is no command")
        commands = [_not_a_draft(each.command) for each in statements]
        reasons = dict.fromkeys([reason, *(each.reason for each in statements)])
        try:
            return self._submit_all(commands, "; ".join(filter(None, reasons)))
        except MregfsError as exc:
            if exc.position is None:
                raise
            raise at_statement(exc, statements[exc.position]) from None

    # ---- following

    def events(self, since: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield each log entry after `since` (by default from now on); waits for the next one."""
        done = self._catch_up() if since is None else since
        while True:
            for entry in self.store.log.entries(done):
                done = entry.sequence
                yield msgspec.json.decode(event_line(entry))
            time.sleep(POLL_SECONDS)

    def wait(
        self, ref: str, *, changed_from: str | None = None, timeout: float | None = None
    ) -> VersionInfo:
        """Wait until a reference resolves to something else than `changed_from`, and return it.

        Args:
            ref: what is waited for.
            changed_from: `vN`, a digest or a reference; None: until it resolves to anything.
            timeout: seconds.

        Raises:
            UnavailableError: the time is over.
        """
        location = self._locate(ref)
        unwanted = changed_from
        if changed_from is not None and set(changed_from) & set(":@/"):
            unwanted = self.get(changed_from).digest
        deadline = None if timeout is None else time.monotonic() + timeout
        seen = -1
        while True:
            head = self._catch_up()
            if head != seen:
                seen = head
                try:
                    info = self._catalog.version(location)
                except NotFoundError:
                    pass
                else:
                    if unwanted is None or not _is_meant(unwanted, info):
                        return info
            if deadline is not None and time.monotonic() >= deadline:
                raise UnavailableError(
                    f"{ref!r} did not change within {timeout:g} seconds", "wait again"
                )
            time.sleep(POLL_SECONDS)

    def reindex(self, progress: Callable[[int, int], None] | None = None) -> int:
        """Build the index of this host anew from the log; return the number of log entries."""
        return self.store.log.rebuild(progress)

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

    def _submit_all(self, commands: Sequence[Command], reason: str) -> list[dict[str, Any]]:
        self._check_writable()
        return list(self.store.log.submit(commands, self._asker, reason).results)


def _not_a_draft(command: "Command | CommitRequest") -> Command:
    from mregfs.model.phrases import CommitRequest

    if isinstance(command, CommitRequest):
        raise UnsupportedError(
            f"the draft {command.draft!r} can only be committed in its mount",
            "write to .mregfs/control there, or give commit() a directory",
        )
    return command


def _is_meant(text: str, info: VersionInfo) -> bool:
    return text == info.number or (len(text) >= 4 and info.digest.startswith(text))


def _groups() -> frozenset[str]:
    names = set()
    for gid in {os.getegid(), *os.getgroups()}:
        try:
            names.add(grp.getgrgid(gid).gr_name)
        except KeyError:
            continue
    return frozenset(names)
