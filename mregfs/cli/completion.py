"""Shell completion: the script for a shell, and the names that it asks for.

Decided here: what completes to what; that bash's habit of splitting words at `:` and `@` does not
spoil references. Not decided here: which argument of which verb is a reference (the verb's own
module). Reads the index only; any error completes to nothing, and stays silent.
"""

import os
from typing import TYPE_CHECKING

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    get_completion_class,
    shell_complete,
    split_arg_string,
)

from mregfs.cli.session import Session, verb
from mregfs.errors import MregfsError

if TYPE_CHECKING:
    from mregfs.api import Registry

__all__ = ["complete", "completion", "owners", "references"]

SHELLS = ("bash", "zsh", "fish")
MAX_VERSIONS = 50
"""The newest numbers that are offered after `NAME:`; one can still type an older one."""


class _Bash(BashComplete):
    """click's bash completion, given the line as typed instead of bash's split words.

    bash breaks words at the characters of COMP_WORDBREAKS, `:` and `@` among them, and puts only
    what follows the last break in place of a completion. So the script hands over the whole line,
    and gets completions without what stands before the break.
    """

    source_template = """\
%(complete_func)s() {
    local IFS=$'\\n' response type value
    response=$(env COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_WORDBREAKS="$COMP_WORDBREAKS" \\
        %(complete_var)s=bash_complete "$1")
    COMPREPLY=()
    for response in $response; do
        type="${response%%%%,*}"
        value="${response#*,}"
        if [[ $type == dir ]]; then
            COMPREPLY=()
            compopt -o dirnames
        elif [[ $type == file ]]; then
            COMPREPLY=()
            compopt -o default
        else
            COMPREPLY+=("$value")
            [[ $value == *[:/] ]] && compopt -o nospace
        fi
    done
    return 0
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""

    @staticmethod
    def _check_version() -> None:
        """Every bash since 4.4 (2016) knows `nosort`; asking which one this is costs a process."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the finished words of the line, and the one that is being typed."""
        line = os.environ.get("COMP_LINE", "")
        words = split_arg_string(line)
        if words and not line[-1:].isspace():
            return words[1:-1], words[-1]
        return words[1:], ""

    def format_completion(self, item: CompletionItem) -> str:
        """Return one line for the script."""
        value = str(item.value)
        typed = self.get_completion_args()[1]
        breaks = os.environ.get("COMP_WORDBREAKS", ":@=")
        cut = max((typed.rfind(char) for char in ":@=" if char in breaks), default=-1) + 1
        if value.startswith(typed[:cut]):
            value = value[cut:]
        return f"{item.type},{value.replace(' ', chr(92) + ' ')}"


def complete(command: click.Command, variable: str, instruction: str) -> int:
    """Answer a shell's question for completions, or print its script; return the exit code."""
    add_completion_class(_Bash)
    try:
        return shell_complete(command, {}, "mregfs", variable, instruction)
    except Exception:
        if os.environ.get("MREGFS_DEBUG"):
            raise
        return 1  # a line on stderr would be written across the line that is being typed


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@verb
def completion(session: Session, shell: str) -> None:
    """Print a shell's completion script.

    \b
    bash:  mregfs completion bash > ~/.local/share/bash-completion/completions/mregfs
    zsh:   mregfs completion zsh > "${fpath[1]}/_mregfs"
    fish:  mregfs completion fish > ~/.config/fish/completions/mregfs.fish
    """
    from mregfs.cli.main import COMPLETE_VARIABLE, group
    from mregfs.cli.output import print_json

    add_completion_class(_Bash)
    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(group, {}, "mregfs", COMPLETE_VARIABLE).source()
    if session.as_json:
        print_json({"shell": shell, "script": script})
    else:
        click.echo(script)


def references(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a reference, or a path: names, then what follows the colon."""
    return _complete(ctx, incomplete, selectors=True)


def owners(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of an artifact or collection."""
    return _complete(ctx, incomplete, selectors=False)


def _complete(ctx: click.Context, incomplete: str, *, selectors: bool) -> list[CompletionItem]:
    first = incomplete.split("/", 1)[0]
    if first in ("", ".", "..", "artifacts", "collections", "projects") and "/" in incomplete:
        return [CompletionItem(incomplete, type="file")]
    session = _session(ctx)
    try:
        head, colon, start = incomplete.partition(":")
        if colon and selectors:
            return _selectors(session.registry, head, start)
        return _names(session.registry, str(session.project), incomplete)
    except (MregfsError, OSError):
        return []
    finally:
        session.close()


def _session(ctx: click.Context) -> Session:
    above = ctx.parent.params if ctx.parent else {}

    def option(name: str) -> str | None:
        value = ctx.params.get(name) or above.get(name)
        return value if isinstance(value, str) else None

    return Session(option("store"), option("mount"), option("project"), as_json=False)


def _names(registry: "Registry", project: str, incomplete: str) -> list[CompletionItem]:
    head, slash, start = incomplete.rpartition("/")
    if slash:
        project = head if "/" in head else f"{project.partition('/')[0]}/{head}"
    found = [
        CompletionItem(f"{head}{slash}{owner.name}", help=f"{owner.kind}, {owner.type}")
        for owner in (*registry.artifacts(project), *registry.collections(project))
        if owner.name.startswith(start)
    ]
    if not found and not slash:
        found = [
            CompletionItem(f"{name}/")
            for name in map(str, registry.projects())
            if name.startswith(incomplete)
        ]
    return found


def _selectors(registry: "Registry", head: str, start: str) -> list[CompletionItem]:
    from itertools import islice

    owner = registry.owner(head)
    found = [
        CompletionItem(f"{head}:{alias}", help=version)
        for alias, version in owner.aliases.items()
        if alias.startswith(start)
    ]
    if start[:1] in ("", "v"):
        found += [
            CompletionItem(f"{head}:{info.version}")
            for info in islice(registry.versions(head), MAX_VERSIONS)
            if info.version.startswith(start)
        ]
    return found
