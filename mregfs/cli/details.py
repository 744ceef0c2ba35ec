"""The verbs that tell about one thing, or what happened: `show`, `path`, `history`, `log`.

Decided here: which facts are shown to people and in which order. Not decided here: the facts
(`mregfs.Registry`).
"""

from typing import TYPE_CHECKING, Any

import click
import msgspec

from mregfs.cli.arguments import declared
from mregfs.cli.output import (
    as_builtins,
    count,
    human_size,
    human_time,
    print_json,
    print_pairs,
    print_table,
)
from mregfs.cli.session import Session
from mregfs.errors import InvalidError, NotFoundError
from mregfs.host.mounts import Mount, check_alive
from mregfs.model import paths
from mregfs.model.bounds import said_of
from mregfs.model.forms import QUESTIONS

if TYPE_CHECKING:
    from mregfs.api import OwnerInfo, VersionInfo

__all__ = ["history", "log", "path", "show"]

NEWEST = 20
"""Entries that `log` shows when it is not said which."""


@declared(QUESTIONS["show"])
def show(session: Session, ref: str) -> None:
    """Show everything known about a version or its owner."""
    located, _ = session.split_path(ref)
    info: OwnerInfo | VersionInfo
    if session.names_owner(located):
        info = session.registry.owner(located)
        pairs = _owner_pairs(info)
    else:
        info = session.registry.get(located)
        pairs = _version_pairs(info)
    if session.as_json:
        print_json(as_builtins(info))
    else:
        print_pairs(pairs)


def _version_pairs(info: "VersionInfo") -> list[tuple[str, str]]:
    return [
        ("version", f"{info.project}/{info.artifact}:{info.version}"),
        ("damage", info.damage),
        ("digest", info.digest),
        ("size", f"{human_size(info.size)} in {count(info.files, 'file')}"),
        ("created", f"{human_time(info.created_at_ns)} by {info.author}"),
        ("aliases", ", ".join(info.aliases)),
        ("links", "\n".join(info.links)),
        ("parents", "\n".join(info.parents)),
        *((name, _said(value)) for name, value in said_of(info).items()),
    ]


def _said(value: str | tuple[str, ...] | dict[str, Any]) -> str:
    if isinstance(value, dict):
        return _metadata(value)
    return value if isinstance(value, str) else ", ".join(value)


def _owner_pairs(info: "OwnerInfo") -> list[tuple[str, str]]:
    aliases = [
        f"{alias} -> {version}"
        + (f"  (protected: group {info.protections[alias]})" if alias in info.protections else "")
        for alias, version in info.aliases.items()
    ]
    aliases += [
        f"{alias}  (protected: group {group})"
        for alias, group in info.protections.items()
        if alias not in info.aliases
    ]
    return [
        (info.kind, f"{info.project}/{info.name}"),
        ("type", info.type),
        ("versions", str(info.versions)),
        ("created", f"{human_time(info.created_at_ns)} by {info.author}"),
        ("aliases", "\n".join(aliases)),
        ("tags", ", ".join(info.tags)),
        ("description", info.description),
        ("metadata", _metadata(info.metadata)),
    ]


def _metadata(metadata: dict[str, Any]) -> str:
    if not metadata:
        return ""
    return msgspec.json.format(msgspec.json.encode(metadata), indent=2).decode()


@declared(QUESTIONS["path"])
def path(session: Session, ref: str) -> None:
    """Print the path of a version below the mount."""
    mount = _mount(session)
    info = session.registry.get(session.locate(ref))
    own = session.place.project_of(mount)
    check_alive(mount)
    below = paths.join(paths.ARTIFACTS, info.artifact, info.version, project=info.project, own=own)
    answer = f"{mount.point}/{below}"
    if session.as_json:
        print_json({"path": answer, "mount": mount.point})
    else:
        click.echo(answer)


def _mount(session: Session) -> Mount:
    for mount in session.place.mounts:
        if mount.is_whole:
            return mount
    raise NotFoundError(
        f"the store {session.place.store!r} is not mounted",
        f"mount it with: mregfs mount {session.place.store} MOUNTPOINT",
    )


@declared(QUESTIONS["history"])
def history(session: Session, ref: str, limit: int | None) -> None:
    """Show who moved what, when and why."""
    from itertools import islice

    lines = islice(session.registry.history(session.locate(ref)), limit)
    if session.as_json:
        print_json([as_builtins(line) for line in lines])
        return
    rows = [
        (str(line.sequence), human_time(line.at_ns), line.author, line.what, line.reason)
        for line in lines
    ]
    print_table(("entry", "when", "who", "what", "why"), rows, right=("entry",))


@declared(QUESTIONS["log"])
def log(session: Session, since: int | None, limit: int | None) -> None:
    """Show the entries of the log."""
    head = session.registry.head()
    if since is not None and since > head:
        raise InvalidError(f"the log ends at {head}, before {since}", "name an entry it has")
    if limit is None and since is None:
        limit = NEWEST
    start = max(since or 0, 0 if limit is None else head - limit)
    events = session.registry.log(start)
    if session.as_json:
        print_json(list(events))
        return
    rows = [
        (
            str(event["sequence"]),
            event["at"][:19].replace("T", " "),
            ", ".join(dict.fromkeys(change["author"] for change in event["changes"])),
            "; ".join(map(_changed, event["changes"])),
        )
        for event in events
    ]
    print_table(("entry", "when (utc)", "who", "what"), rows, right=("entry",))


def _changed(change: dict[str, Any]) -> str:
    name = change.get("name") or change.get("collection") or change.get("artifact")
    subject = f"{change['project']}/{name}" if name else str(change["project"])
    if "alias" in change:
        subject += f":{change['alias']}"
    number = change.get("number")
    if number is not None:
        subject += f" -> v{number}" if "alias" in change else f":v{number}"
    return f"{change['change']} {subject}"
