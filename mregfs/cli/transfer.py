"""The verbs that carry files in and out: `commit`, `import`, `export`.

Decided here: whether a name means a draft of a live mount or a directory on the host. Not decided
here: how a version is made (`registry.write.commit`), what a draft may hold (`stores`).

A draft goes by the control file of its mount: only the daemon knows which of its files are still
open, and takes its bytes over without a copy. Anything else is committed by this process.
"""

import os
from typing import Any

import click
import msgspec

from mregfs.cli.arguments import declared, reference_argument
from mregfs.cli.change import say
from mregfs.cli.output import count, human_size, print_json
from mregfs.cli.progress import progress
from mregfs.cli.session import Session, line_of, not_a_writer, read_text, verb
from mregfs.cli.verbs import VERBS
from mregfs.errors import InvalidError, NotFoundError, UnavailableError
from mregfs.host.mounts import Mount
from mregfs.model import paths
from mregfs.model.forms import COMMANDS, Form, Operand
from mregfs.wiring.address import StoreAddress

__all__ = ["commit", "export", "find_draft", "import_"]

_COMMIT = COMMANDS["commit"]
_IMPORT = Form(
    "import",
    VERBS["import"].summary,
    (Operand("source", "path", "SRC"), *_COMMIT.operands[1:]),
    _COMMIT.options,
    "A file becomes a version of one file. What is imported stays as it is. --metadata @FILE reads "
    "a file, and @- standard input.",
    ("import model.safetensors mnist --alias best",),
    build=_COMMIT.build,
)


@declared(
    _COMMIT._replace(operands=(Operand("draft", "draft", "DRAFT|DIR"), *_COMMIT.operands[1:]))
)
def commit(session: Session, draft: str, **said: Any) -> None:
    """Make a draft of a mount, or a directory of this host, the next version."""
    found = find_draft(session, draft)
    if found is None:
        _commit_directory(session, _directory(draft), said)
    else:
        _commit_draft(session, *found, said)


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


def _commit_draft(session: Session, mount: Mount, draft: str, said: dict[str, Any]) -> None:
    from mregfs.cli.control import MountGoneError, transact

    said["metadata"] = _metadata_text(said["metadata"])
    spelled = session.for_mount(_COMMIT, session.located(_COMMIT, said), mount)
    line = line_of(_COMMIT, {**spelled, "draft": session.place.for_mount(draft, mount)})
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


def _commit_directory(session: Session, directory: str, said: dict[str, Any]) -> None:
    _check_apart(directory, StoreAddress.parse(session.place.own_store))
    located = session.located(_COMMIT, said)
    artifact = located.pop("artifact")
    metadata = _metadata_text(located.pop("metadata"))
    if metadata is not None:
        located["metadata"] = msgspec.json.decode(metadata)
    with progress() as report:
        result = session.writing.commit(
            directory,
            artifact,
            progress=report,
            **{key: value for key, value in located.items() if value is not None},
        )
    _say_commit(session, result)


def _check_apart(directory: str, store: StoreAddress) -> None:
    """Refuse a directory that is the store, or holds it: the commit would be of itself.

    Raises:
        InvalidError: it is, or does.
    """
    if not store.is_directory:
        return
    real, home = os.path.realpath(directory), store.resolved().directory
    if os.path.commonpath([real, home]) == real:
        holds = "is the store" if real == home else f"holds the store {store.directory!r}"
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


@declared(_IMPORT)
def import_(session: Session, source: str, **said: Any) -> None:
    """Make what is somewhere on this host the next version."""
    if not os.path.lexists(source):
        raise NotFoundError(f"there is no {source!r}", "name a file or a directory")
    _commit_directory(session, source, said)


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
