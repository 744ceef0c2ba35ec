"""`mregfs help`: the pages of the manual, in a terminal.

Decided here: how a page is found, and how it looks. Not decided here: what the pages say. They are
the files of `mregfs/manual/`, and nothing else is needed: no store and no mount.

On a terminal a page is rendered and goes through the pager. Elsewhere it is printed as it is.
"""

import re
import sys
from difflib import get_close_matches
from importlib.resources import files
from io import StringIO

import click

from mregfs.cli.output import print_json, print_table
from mregfs.errors import NotFoundError

__all__ = ["help_", "topics"]

_LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")
_REMARK = re.compile(r"^<!--.*-->\n", re.MULTILINE)
_WIDTH = 100
"""Columns at most: longer lines are hard to read."""

_ORDER = (
    "getting-started",
    "install",
    "drafts",
    "aliases",
    "history-and-rollback",
    "transactions",
    "events",
)
"""The pages in the order of reading; all others follow by name."""


def topics() -> dict[str, str]:
    """Return the name of each page with its title, in the order of reading."""
    pages = {
        page.name.removesuffix(".md"): page.read_text(encoding="utf-8")
        for page in files("mregfs").joinpath("manual").iterdir()
        if page.name.endswith(".md")
    }
    names = sorted(pages, key=lambda name: (_place(name), name))
    return {name: pages[name].partition("\n")[0].removeprefix("# ") for name in names}


def _place(name: str) -> int:
    return _ORDER.index(name) if name in _ORDER else len(_ORDER)


@click.command("help")
@click.argument("topic", required=False, metavar="[TOPIC|VERB]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.help_option("-h", "--help")
@click.pass_context
def help_(ctx: click.Context, topic: str | None, *, as_json: bool) -> None:
    """Show a page of the manual.

    Without TOPIC: list the pages. With the name of a verb: show the help of that verb.
    """
    known = topics()
    if topic is None:
        _list(known, as_json=as_json)
    elif topic in known:
        page = _read(topic)
        if as_json:
            print_json({"topic": topic, "title": known[topic], "text": page})
        else:
            _show(page)
    else:
        text = _of_verb(ctx, topic, known)
        if as_json:
            print_json({"topic": topic, "title": topic, "text": text})
        else:
            click.echo(text)


def _list(known: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        print_json([{"topic": name, "title": title} for name, title in known.items()])
        return
    print_table(("TOPIC", "TITLE"), known.items())
    click.echo(
        "\nShow one with: mregfs help TOPIC. Show the help of a verb with: mregfs help VERB."
    )


def _read(topic: str) -> str:
    page = files("mregfs").joinpath("manual", f"{topic}.md").read_text(encoding="utf-8")
    return _LINK.sub(_as_reference, _REMARK.sub("", page))


def _as_reference(link: "re.Match[str]") -> str:
    """Write a link as what a person can type: another topic, or nothing but its text."""
    text, target = link.groups()
    if target.endswith(".md") and "/" not in target:
        return f"`mregfs help {target.removesuffix('.md')}`"
    return text if "://" not in target else f"{text} ({target})"


def _show(page: str) -> None:
    if not sys.stdout.isatty():
        click.echo(page, nl=False)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    width = min(Console().width, _WIDTH)
    rendered = StringIO()
    console = Console(file=rendered, force_terminal=True, width=width)
    console.print(Markdown(page, hyperlinks=False))
    click.echo_via_pager(rendered.getvalue())


def _of_verb(ctx: click.Context, verb: str, known: dict[str, str]) -> str:
    parent = ctx.parent
    assert parent is not None
    group = parent.command
    assert isinstance(group, click.Group)
    command = group.get_command(parent, verb)
    if command is None:
        near = get_close_matches(verb, [*known, *group.list_commands(parent)], n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise NotFoundError(
            f"there is no topic and no verb {verb!r}", f"{hint}list the topics: mregfs help"
        )
    with click.Context(command, info_name=verb, parent=parent) as shown:
        return command.get_help(shown)
