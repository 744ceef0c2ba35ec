"""One table says which commands there are: whatever shows or takes them is read off it."""

import difflib
import inspect
import subprocess
import sys

import pytest

from mregfs.api import Registry
from mregfs.model.forms import COMMANDS, QUESTIONS, Form
from mregfs.model.grammar import parse_line
from mregfs.model.names import DEFAULT_PROJECT
from tests.cli.commands_page import PAGE, page


def test_the_page_of_commands_is_what_the_table_gives(request: pytest.FixtureRequest) -> None:
    made = page()
    if request.config.getoption("--write-commands"):
        PAGE.write_text(made)
    there = PAGE.read_text()
    changes = "\n".join(difflib.unified_diff(there.splitlines(), made.splitlines(), lineterm=""))

    assert "" == changes, "write it anew with --write-commands"


ADDED = """
from mregfs.model import forms

forms.COMMANDS["annotate"] = forms.Form(
    "annotate",
    "Write something on a version.",
    (forms.Operand("target"), forms.Operand("text", "text")),
    (forms.Option("colour", "C", "Of the ink."),),
    examples=("annotate mnist:v3 good",),
    build="annotate_command",
)
from mregfs.model import operands

def annotate(target, text, project, *, colour="", strip):
    return operands.describe_command(target, f"{text} in {colour}", project, strip=strip)

operands.annotate_command = annotate
"""


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (
            "from mregfs.vfs.control import usage_text; print(usage_text())",
            "#   annotate TARGET TEXT [--colour C] [--reason TEXT]\n"
            "#       Write something on a version.\n",
        ),
        (
            "from mregfs.cli.main import run; run(['--help'])",
            "  annotate   Write something on a version.\n",
        ),
        (
            "from mregfs.cli.main import run; run(['annotate', '--help'])",
            "Usage: mregfs annotate [OPTIONS] TARGET TEXT\n",
        ),
        (
            "from mregfs.cli.main import run; run(['annotate', '--help'])",
            "--colour C       Of the ink.\n",
        ),
        (
            "from mregfs.model.grammar import parse_line\n"
            "from mregfs.model.names import DEFAULT_PROJECT\n"
            "print(parse_line('annotate mnist:v3 good --colour red', DEFAULT_PROJECT))",
            "description='good in red'",
        ),
        (
            "from tests.cli.commands_page import page; print(page())",
            "### annotate\n\n`mregfs annotate TARGET TEXT`\n",
        ),
        (
            "from tests.cli.commands_page import page; print(page())",
            "| `annotate TARGET TEXT [--colour C] [--reason TEXT]` | Write something on a version.",
        ),
    ],
)
def test_a_command_that_is_added_to_the_table_is_everywhere(code: str, says: str) -> None:
    """`cat control`, the help of the command line, the grammar and the page show it."""
    done = subprocess.run(
        [sys.executable, "-c", ADDED + code], capture_output=True, text=True, check=True
    )

    assert says in done.stdout


@pytest.mark.parametrize("form", COMMANDS.values(), ids=list(COMMANDS))
def test_every_example_is_a_command(form: Form) -> None:
    assert form.examples
    for example in form.examples:
        assert form.name == parse_line(example, DEFAULT_PROJECT).name


@pytest.mark.parametrize("form", QUESTIONS.values(), ids=list(QUESTIONS))
def test_every_example_is_a_question(form: Form) -> None:
    assert all(form.name == example.split()[0] for example in form.examples)


@pytest.mark.parametrize("form", COMMANDS.values(), ids=list(COMMANDS))
def test_methods_take_what_the_table_says(form: Form) -> None:
    """A method of Python's takes the options by what the table calls them, and a reason."""
    if not form.method:
        return
    takes = inspect.signature(getattr(Registry, form.method)).parameters.keys() - {"self"}
    said = {option.key for option in form.options if not option.ignored} | {"reason"}

    assert said <= takes
    assert len(form.operands) <= len(takes - said)
