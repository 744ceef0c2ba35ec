"""The verbs that carry files in and out: `commit`, `import`, `export`.

Decided here: whether a name means a draft of a live mount or a directory on the host. Not decided
here: how a version is made (`registry.write.commit`), what a draft may hold (`stores`).

A draft goes by the control file of its mount: only the daemon knows which of its files are still
open, and takes its bytes over without a copy. Anything else is committed by this process.
"""

import os
from collections.abc import Callable
from typing import Any

import click
import msgspec

from mregfs.cli.arguments import owner_argument, reason_option, reference_argument
from mregfs.cli.changes import say
from mregfs.cli.output import count, human_size, print_json
from mregfs.cli.progress import progress
from mregfs.cli.session import Session, command_line, not_a_writer, read_text, verb
from mregfs.errors import InvalidError, NotFoundError, UnavailableError
from mregfs.host.mounts import Mount
from mregfs.model import paths

__all__ = ["commit", "export", "find_draft", "import_"]

_Command = Callable[..., None]


def _version_options(command: _Command) -> _Command:
    """Add what can be said of a new version."""
    options = (
        click.option("--alias", "-a", "aliases", multiple=True, metavar="ALIAS"),
        click.option("--type", "kind", metavar="TYPE", help="Of a new artifact: model, if unsaid."),
        click.option("--metadata", "-m", metavar="JSON|@FILE", help="An object; @- for stdin."),
        click.option("--description", metavar="TEXT"),
        click.option("--tag", "tags", multiple=True, metavar="TAG"),
        click.option("--run", metavar="RUN", help="What made it: a run's name or address."),
        click.option("--parent", "parents", multiple=True, metavar="REF", help="Made from this."),
        click.option("--link", metavar="COLLECTION[:ALIAS]", help="Link it there as well."),
        reason_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@click.argument("source", metavar="DRAFT|DIR")
@owner_argument("artifact")
@_version_options
@verb
def commit(session: Session, source: str, artifact: str, **said: Any) -> None:
    """Make a draft or a directory the next version.

    A draft is a directory of staging/ in a mount, by its path or by its name alone; it becomes the
    version. Any other directory is copied (or shared, where the file system can), and stays.
    Content that is a version already makes no new one.
    """
    draft = find_draft(session, source)
    if draft is None:
        _commit_directory(session, _directory(source), artifact, said)
    else:
        _commit_draft(session, *draft, artifact, said)


def find_draft(session: Session, source: str) -> tuple[Mount, str] | None:
    """Return the draft that is meant, as a tree path, and its mount; None for any other directory.

    Raises:
        InvalidError: it could be a draft or a directory.
    """
    place = session.place
    for path in (os.path.abspath(source), os.path.realpath(source)):
        mount = place.mount_of(path)
        if mount is not None:
            located = place.locate(path)
            if paths.split(located).is_draft:
                return mount, located
            if os.path.lexists(source):
                return None
    bare = "/" not in source and source not in (".", "..")
    draft = paths.join(paths.STAGING, source) if bare else source.rstrip("/")
    if not paths.split(draft).is_draft:
        return None
    for mount in place.mounts:
        if mount.is_whole and os.path.isdir(f"{mount.point}/{place.for_mount(draft, mount)}"):
            if os.path.isdir(source):
                raise InvalidError(
                    f"{source!r} is a draft, and a directory here",
                    f"write {mount.point}/{draft} or ./{source}",
                )
            return mount, draft
    return None


def _directory(source: str) -> str:
    if not os.path.lexists(source):
        raise NotFoundError(
            f"there is no draft and no directory {source!r}",
            "name a directory of staging/ in the mount, or a path",
        )
    if not os.path.isdir(source):
        raise InvalidError(
            f"{source!r} is not a directory", f"use: mregfs import {source} ARTIFACT"
        )
    return source


def _commit_draft(
    session: Session, mount: Mount, draft: str, artifact: str, said: dict[str, Any]
) -> None:
    from mregfs.cli.control import MountGoneError, transact

    def name(text: str) -> str:
        return session.place.for_mount(session.locate(text), mount)

    line = command_line(
        "commit",
        [session.place.for_mount(draft, mount), name(artifact)],
        {
            "alias": said["aliases"],
            "type": said["kind"],
            "metadata": _metadata_text(said["metadata"]),
            "description": said["description"],
            "tag": said["tags"],
            "run": said["run"],
            "parent": list(map(name, said["parents"])),
            "link": name(said["link"]) if said["link"] else None,
            "reason": said["reason"],
        },
    )
    try:
        with progress() as report:
            waiting = None if report is None else lambda: report("committing", 0, 0)
            results = transact(mount, line, waiting)
    except MountGoneError as exc:
        if isinstance(exc.__cause__, PermissionError):
            raise not_a_writer(mount.point) from exc
        raise UnavailableError(
            f"{draft!r} is a draft of the mount {mount.point!r}, which takes no commands ({exc})",
            f"unmount it, and mount it again: mregfs umount --lazy {mount.point}",
        ) from exc
    first, *rest = results
    _say_commit(session, {**first, "link": rest[0]} if rest else first)


def _commit_directory(
    session: Session, directory: str, artifact: str, said: dict[str, Any]
) -> None:
    _check_apart(directory, session.place.own_store)
    metadata = _metadata_text(said["metadata"])
    with progress() as report:
        result = session.writing.commit(
            directory,
            session.locate(artifact),
            aliases=said["aliases"],
            type=said["kind"],
            metadata=None if metadata is None else msgspec.json.decode(metadata),
            description=said["description"] or "",
            tags=said["tags"],
            run=said["run"] or "",
            parents=[session.locate(parent) for parent in said["parents"]],
            link=session.locate(said["link"]) if said["link"] else None,
            reason=said["reason"] or "",
            progress=report,
        )
    _say_commit(session, result)


def _check_apart(directory: str, store: str) -> None:
    """Refuse a directory that is the store, or holds it: the commit would be of itself.

    Raises:
        InvalidError: it is, or does.
    """
    real, home = os.path.realpath(directory), os.path.realpath(store)
    if os.path.commonpath([real, home]) == real:
        holds = "is the store" if real == home else f"holds the store {store!r}"
        raise InvalidError(f"{directory!r} {holds}", "name the directory of the model alone")


def _metadata_text(given: str | None) -> str | None:
    """Return metadata as JSON text: what was given, or what the file that `@` names holds.

    Raises:
        InvalidError: it is no JSON object, or larger than metadata may be.
        NotFoundError: there is no such file.
    """
    if given is None:
        return None
    from mregfs.model.metadata import MAX_SIZE, encode_metadata, parse_metadata

    if given.startswith("@"):
        try:
            with click.open_file(given[1:], encoding="utf-8") as file:
                given = read_text(file, MAX_SIZE, "the metadata")
        except FileNotFoundError:
            raise NotFoundError(f"there is no file {given[1:]!r}", "write @FILE or JSON") from None
        except UnicodeDecodeError:
            raise InvalidError(f"{given[1:]!r} is not UTF-8", "write JSON into it") from None
    return encode_metadata(parse_metadata(given)).decode()


def _say_commit(session: Session, result: dict[str, Any]) -> None:
    session.done = True
    say(session, result)
    if "link" in result and not session.as_json:
        say(session, result["link"])


@click.command("import")
@click.argument("source", metavar="SRC")
@owner_argument("artifact")
@_version_options
@verb
def import_(session: Session, source: str, artifact: str, **said: Any) -> None:
    """Make a file or a directory the next version.

    A file becomes a version of one file.
    """
    if not os.path.lexists(source):
        raise NotFoundError(f"there is no {source!r}", "name a file or a directory")
    _commit_directory(session, source, artifact, said)


@click.command()
@reference_argument("ref")
@click.argument("destination", metavar="DEST")
@verb
def export(session: Session, ref: str, destination: str) -> None:
    """Copy a version's files out of the store.

    DEST is a directory that does not exist yet, or is empty.
    """
    located = session.locate(ref)
    info = session.registry.get(located)
    parent = os.path.dirname(os.path.abspath(destination))
    if not os.path.isdir(parent):
        raise NotFoundError(f"there is no directory {parent!r}", f"make it: mkdir -p {parent}")
    with progress() as report:
        session.registry.export(located, destination, progress=report)
    session.done = True
    if session.as_json:
        print_json(
            {
                "path": os.path.abspath(destination),
                "version": f"{info.project}/{info.artifact}:{info.version}",
                "digest": info.digest,
                "size": info.size,
                "files": info.files,
            }
        )
    else:
        click.echo(
            f"exported {info.artifact}:{info.version} to {destination}: "
            f"{human_size(info.size)} in {count(info.files, 'file')}"
        )
