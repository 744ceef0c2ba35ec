"""Shell completion: the script for a shell, and the answers to what it asks.

Decided here: that bash's habit of splitting words at `:` and `@` does not spoil references; that a
name is one word of the line whatever it holds. Not decided here: what completes to what
(`arguments`). zsh and fish quote what they insert; for bash this module does it.
"""

import os
import re

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ZshComplete,
    add_completion_class,
    get_completion_class,
    shell_complete,
    split_arg_string,
)

from mregfs.cli.session import Session, verb
from mregfs.cli.verbs import COMPLETE_VARIABLE

__all__ = ["complete", "completion"]

SHELLS = ("bash", "zsh", "fish")


class _Bash(BashComplete):
    """click's bash completion, given the line as typed instead of bash's split words.

    bash breaks words at the characters of COMP_WORDBREAKS, `:` and `@` among them, and puts only
    what follows the last break in place of a completion. So the script hands over the whole line,
    and gets completions without what stands before the break.
    """

    source_template = """\
%(complete_func)s() {
    local response type value
    COMPREPLY=()
    while IFS= read -r response; do
        type="${response%%%%,*}"
        value="${response#*,}"
        if [[ $type == dir ]]; then
            COMPREPLY=()
            compopt -o dirnames
        elif [[ $type == file ]]; then
            COMPREPLY=()
            compopt -o default
        elif [[ $type ]]; then
            COMPREPLY+=("$value")
            [[ $value == *[:/] ]] && compopt -o nospace
        fi
    done < <(env COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_WORDBREAKS="$COMP_WORDBREAKS" \\
        %(complete_var)s=bash_complete "$1")
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
        """Return one line for the script: what takes the place of what is typed, as bash reads it.

        In an open quotation that is all since its quote; else what follows the last break.
        """
        value = str(item.value)
        if item.type != "plain":
            return f"{item.type},{value}"
        quote, before = _open_quote(os.environ.get("COMP_LINE", ""))
        typed = self.get_completion_args()[1]
        if quote:
            cut = len(before)
        else:
            breaks = os.environ.get("COMP_WORDBREAKS", ":@=")
            cut = max((typed.rfind(char) for char in ":@=" if char in breaks), default=-1) + 1
        if value.startswith(typed[:cut]):
            value = value[cut:]
        return f"{item.type},{_quoted(value, quote)}"


def _quoted(text: str, quote: str) -> str:
    """Return a text as bash reads it after this quotation mark, or after none."""
    if quote == "'":
        return text.replace("'", "'\\''")
    if quote:
        text = re.sub(r'(["$`\\])', r"\\\1", text)
        return text.replace("!", "\"'!'\"")  # a backslash before it would stay
    return re.sub(r"([^\w%+,./:@^-])", r"\\\1", text)


def _open_quote(line: str) -> tuple[str, str]:
    """Return the quotation mark that is open at the end of a line, and its word before the mark."""
    quote = before = word = ""
    escaped = False
    for char in line:
        if escaped:
            word += char
            escaped = False
        elif char == "\\" and quote != "'":
            escaped = True
        elif quote:
            if char == quote:
                quote = ""
            else:
                word += char
        elif char in "'\"":
            quote, before = char, word
        elif char.isspace():
            word = ""
        else:
            word += char
    return quote, before if quote else ""


class _Zsh(ZshComplete):
    """click's zsh completion; `_describe` takes a backslash out of what it inserts."""

    def format_completion(self, item: CompletionItem) -> str:
        """Return the lines for the script."""
        value = str(item.value)
        if item.help:
            value = value.replace("\\", "\\\\")
        return super().format_completion(CompletionItem(value, type=item.type, help=item.help))


class _Fish(FishComplete):
    """click's fish completion, for names with commas as well."""

    source_template = FishComplete.source_template.replace(
        'string split ","', 'string split --max 1 ","'
    )


def _add_shells() -> None:
    for kind in (_Bash, _Zsh, _Fish):
        add_completion_class(kind)


def complete(command: click.Command, variable: str, instruction: str) -> int:
    """Answer a shell's question for completions, or print its script; return the exit code."""
    _add_shells()
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
    from mregfs.cli.output import print_json

    _add_shells()
    kind = get_completion_class(shell)
    assert kind is not None
    program = click.get_current_context().find_root()
    script = kind(program.command, {}, "mregfs", COMPLETE_VARIABLE).source()
    if session.as_json:
        print_json({"shell": shell, "script": script})
    else:
        click.echo(script)
