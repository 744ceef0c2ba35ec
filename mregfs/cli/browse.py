"""The verbs that list: `ls` and `tree`.

Decided here: the columns, what is left out, the shape of the JSON. Not decided here: where the
facts come from (`mregfs.Registry`). Neither reads more than it shows: the store may hold 100 000
versions.
"""

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

import click

from mregfs.cli.arguments import declared, reference_argument
from mregfs.cli.output import (
    as_builtins,
    clean,
    count,
    human_size,
    human_time,
    print_json,
    print_table,
)
from mregfs.cli.session import Session, verb
from mregfs.model import paths
from mregfs.model.forms import QUESTIONS

if TYPE_CHECKING:
    from mregfs.api import OwnerInfo

__all__ = ["ls", "tree"]


@declared(QUESTIONS["ls"])
def ls(
    session: Session, ref: str | None, path: str | None, limit: int | None, *, everywhere: bool
) -> None:
    """List artifacts and collections, versions, or files."""
    if ref is None:
        _list_owners(session, everywhere=everywhere)
        return
    name, inside = session.split_path(ref)
    if session.names_owner(name) and not inside and path is None:
        _list_versions(session, name, limit)
    else:
        _list_files(session, name, path or inside)


def _owners(session: Session, *, everywhere: bool) -> "Iterator[OwnerInfo]":
    registry = session.registry
    projects = map(str, registry.projects()) if everywhere else [str(session.project)]
    for project in projects:
        yield from registry.artifacts(project)
        yield from registry.collections(project)


def _list_owners(session: Session, *, everywhere: bool) -> None:
    owners = _owners(session, everywhere=everywhere)
    if session.as_json:
        print_json([as_builtins(owner) for owner in owners])
        return
    rows = [
        (
            f"{owner.project}/{owner.name}" if everywhere else owner.name,
            owner.kind,
            owner.type,
            str(owner.versions),
            owner.aliases.get("latest", "-"),
            _aliases(owner),
        )
        for owner in owners
    ]
    columns = ("name", "kind", "type", "versions", "latest", "aliases")
    print_table(columns, rows, right=("versions",))


def _aliases(owner: "OwnerInfo") -> str:
    return ", ".join(
        f"{alias} -> {version}" for alias, version in owner.aliases.items() if alias != "latest"
    )


def _list_versions(session: Session, name: str, limit: int | None) -> None:
    versions = islice(session.registry.versions(name), limit)
    if session.as_json:
        print_json([as_builtins(info) for info in versions])
        return
    columns = ["version", "size", "created", "digest", "aliases"]
    rows = []
    for info in versions:
        row = [
            info.number,
            human_size(info.size),
            human_time(info.created_at_ns),
            info.digest[:12],
            ", ".join(info.aliases),
        ]
        if info.owner != f"{info.project}/{info.artifact}":
            row.insert(1, f"{info.artifact}:{info.version}")
        rows.append(row)
    if rows and len(rows[0]) > len(columns):
        columns.insert(1, "source")
    print_table(columns, rows, right=("size",))


def _list_files(session: Session, ref: str, path: str) -> None:
    files = session.registry.files(ref, path.strip("/"))
    if session.as_json:
        print_json([as_builtins(entry) for entry in files])
        return
    rows = []
    for entry in files:
        marks = {"directory": "/", "symlink": f" -> {entry.target}"}
        mark = marks.get(entry.kind, "*" if entry.executable else "")
        size = human_size(entry.size) if entry.kind == "file" else ""
        rows.append((size, f"{entry.path}{mark}"))
    print_table(("size", "path"), rows, right=("size",))


@click.command()
@reference_argument("ref", required=False)
@click.option("--all", "-a", "everything", is_flag=True, help="Versions without an alias too.")
@verb
def tree(session: Session, ref: str | None, *, everything: bool) -> None:
    """Draw artifacts, collections, versions and aliases.

    All versions of one artifact or collection when it is named; else, without --all, those with an
    alias.
    """
    if ref is None:
        owners = list(_owners(session, everywhere=False))
    else:
        owners = [session.registry.owner(session.locate(ref))]
    whole = everything or ref is not None
    if session.as_json:
        print_json([_tree_json(session, owner, whole=whole) for owner in owners])
        return
    lines = [str(session.project)] if ref is None else []
    if ref is None:
        groups = [
            (paths.directory_of(kind), [owner for owner in owners if owner.kind == kind])
            for kind in ("artifact", "collection")
        ]
        for position, (title, members) in enumerate(groups):
            last = position == len(groups) - 1
            lines.append(f"{'└── ' if last else '├── '}{title}")
            indent = "    " if last else "│   "
            for index, owner in enumerate(members):
                final = index == len(members) - 1
                lines.extend(_owner_lines(session, owner, indent, last=final, whole=whole))
    else:
        lines = list(_owner_lines(session, owners[0], None, last=True, whole=True))
    click.echo("\n".join(lines))


def _branches(
    session: Session, owner: "OwnerInfo", *, whole: bool
) -> list[tuple[str, str, list[str]]]:
    """Return (number, what it links to, aliases) of the versions that are drawn, newest first."""
    if whole:
        return [
            (
                info.number,
                f"{info.artifact}:{info.version}" if owner.kind == "collection" else "",
                list(info.aliases),
            )
            for info in session.registry.versions(f"{owner.project}/{owner.name}")
        ]
    found: dict[str, list[str]] = {}
    for alias, version in owner.aliases.items():
        found.setdefault(version, []).append(alias)
    newest = sorted(found, key=lambda version: -int(version[1:]))
    return [(version, "", found[version]) for version in newest]


def _owner_lines(
    session: Session, owner: "OwnerInfo", indent: str | None, *, last: bool, whole: bool
) -> Iterator[str]:
    branches = _branches(session, owner, whole=whole)
    left_out = owner.versions - len(branches)
    if indent is None:
        yield f"{clean(owner.name)} ({owner.type})"
        deeper = ""
    else:
        yield f"{indent}{'└── ' if last else '├── '}{clean(owner.name)} ({owner.type})"
        deeper = indent + ("    " if last else "│   ")
    for index, (number, source, aliases) in enumerate(branches):
        final = index == len(branches) - 1 and not left_out
        text = f"{number} -> {source}" if source else number
        names = f"  [{', '.join(aliases)}]" if aliases else ""
        yield f"{deeper}{'└── ' if final else '├── '}{text}{names}"
    if left_out:
        yield f"{deeper}└── … {count(left_out, 'more version')}"


def _tree_json(session: Session, owner: "OwnerInfo", *, whole: bool) -> dict[str, object]:
    return {
        "project": str(owner.project),
        "name": owner.name,
        "kind": owner.kind,
        "type": owner.type,
        "count": owner.versions,
        "versions": [
            {"version": number, "source": source or None, "aliases": aliases}
            for number, source, aliases in _branches(session, owner, whole=whole)
        ],
    }
