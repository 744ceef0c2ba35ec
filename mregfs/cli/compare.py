"""The verbs that weigh: `diff` and `du`.

Decided here: how differences and sizes are shown. Not decided here: how they are found
(`mregfs.Registry`): from digests and layouts, no file is read but the headers of tensor files.
"""

from typing import TYPE_CHECKING

import click

from mregfs.cli.arguments import declared
from mregfs.cli.output import as_builtins, count, human_size, print_json, print_pairs, print_table
from mregfs.cli.session import Session
from mregfs.model.forms import QUESTIONS

if TYPE_CHECKING:
    from mregfs.api import Diff

__all__ = ["diff", "du"]


@declared(QUESTIONS["diff"])
def diff(session: Session, a: str, b: str) -> None:
    """Compare the files of two versions."""
    found = session.registry.diff(session.locate(a), session.locate(b))
    if session.as_json:
        print_json(as_builtins(found))
        return
    rows = _rows(found)
    if rows:
        print_table(("", "size", "was", "path"), rows, right=("size", "was"))
    else:
        click.echo("the files are the same")


def _rows(found: "Diff") -> list[tuple[str, str, str, str]]:
    rows = [("A", human_size(entry.size), "", entry.path) for entry in found.added]
    rows += [("D", "", human_size(entry.size), entry.path) for entry in found.removed]
    for entry in found.changed:
        rows.append(("M", human_size(entry.size), human_size(entry.was), entry.path))
        for tensor in entry.tensors:
            rows.append(("", "", "", f"  {tensor}"))
    return rows


@declared(QUESTIONS["du"])
def du(session: Session, ref: str | None) -> None:
    """Show how much space versions take."""
    located = None if ref is None else session.split_path(ref)[0]
    usage = session.registry.usage(located)
    if session.as_json:
        print_json(as_builtins(usage))
        return
    unknown = f"{count(usage.unknown, 'version')} with damaged layouts: mregfs fsck names them"
    print_pairs(
        [
            ("versions", count(usage.versions, "version") + f", {count(usage.files, 'file')}"),
            ("logical", human_size(usage.logical)),
            ("unique", human_size(usage.unique)),
            ("shared", human_size(usage.shared)),
            ("deleting frees", human_size(usage.freed_by_deleting)),
            *([("not counted", unknown)] if usage.unknown else []),
        ]
    )
