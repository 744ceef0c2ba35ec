"""An option that is empty is refused: a shell passes one for a variable that is not set."""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import click
import pytest

from mregfs.api import Registry
from mregfs.cli.main import group
from mregfs.cli.verbs import VERBS
from mregfs.errors import InvalidError
from mregfs.model.forms import AUTHOR, COMMANDS, QUESTIONS, REASON, Form
from mregfs.model.grammar import parse_line
from mregfs.model.names import DEFAULT_PROJECT
from mregfs.model.queries import parse_query
from tests.cli.conftest import CommandLine

MAY_BE_EMPTY = {
    ("mount", "options"): "mount(8) takes -o '' as well, from scripts that compose options",
}


def valued(form: Form) -> list[str]:
    return [option.name for option in form.options if not option.is_flag]


COMMAND_OPTIONS = [
    (form, name) for form in COMMANDS.values() for name in (*valued(form), REASON.name, AUTHOR.name)
]
QUESTION_OPTIONS = [
    (form, name) for form in QUESTIONS.values() for name in (*valued(form), "project")
]


@pytest.mark.parametrize(
    ("form", "name"), COMMAND_OPTIONS, ids=lambda each: getattr(each, "name", each)
)
def test_the_control_file_refuses_it(form: Form, name: str) -> None:
    for said in (f"--{name} ''", f"--{name}="):
        with pytest.raises(InvalidError, match=f"--{name} is empty"):
            parse_line(f"{form.examples[0]} {said}", DEFAULT_PROJECT)


@pytest.mark.parametrize(
    ("form", "name"), QUESTION_OPTIONS, ids=lambda each: getattr(each, "name", each)
)
def test_a_question_refuses_it(form: Form, name: str) -> None:
    with pytest.raises(InvalidError, match=f"--{name} is empty"):
        parse_query(f"{form.name} --{name}=", DEFAULT_PROJECT)


def verbs() -> Iterator[tuple[list[str], click.Command]]:
    context = click.Context(group)
    for name, row in VERBS.items():
        if row.attribute:
            command = getattr(import_module(f"mregfs.cli.{row.module}"), row.attribute)
        else:
            command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from (([name, below], each) for below, each in command.commands.items())
        else:
            yield [name], command


def word_for(argument: click.Parameter) -> str:
    choices = argument.type
    return choices.choices[0] if isinstance(choices, click.Choice) else "x"


VERB_OPTIONS = [
    (words, command, option)
    for words, command in verbs()
    for option in command.params
    if isinstance(option, click.Option)
    and not option.is_flag
    and not option.count
    and (words[0], option.name) not in MAY_BE_EMPTY
]


@pytest.mark.parametrize(
    ("words", "command", "option"),
    VERB_OPTIONS,
    ids=[" ".join((*words, option.opts[0])) for words, _, option in VERB_OPTIONS],
)
def test_the_command_line_refuses_it(
    cli: CommandLine, words: list[str], command: click.Command, option: click.Option
) -> None:
    needed = [
        f"{each.opts[0]}=x" if isinstance(each, click.Option) else word_for(each)
        for each in command.params
        if each.required and each is not option
    ]
    code, said = cli.fail(*words, *needed, option.opts[0], "")

    numeric = option.type.name not in ("text", "string")
    assert (code, numeric) in ((5, False), (2, True)), said
    assert numeric or "is empty" in said


@pytest.mark.parametrize("option", ["--store", "--mount", "--project"])
def test_before_the_verb_it_is_refused_too(cli: CommandLine, option: str) -> None:
    assert "is empty" in cli.fail(option, "", "ls")[1]


CALLS: list[tuple[str, tuple[Any, ...], tuple[str, ...]]] = [
    *(
        (
            form.method,
            tuple("mnist:best" if each.name != "source" else "mnist:v0" for each in form.operands),
            tuple(
                each.key
                for each in form.options
                if not each.is_flag and not each.many and each.takes != "json"
            ),
        )
        for form in COMMANDS.values()
        if form.method and form.method not in ("commit", "move", "tag", "protect")
    ),
    ("commit", (".", "mnist"), ("type", "description", "run", "link")),
    ("move", ("shelf", "other"), ()),
    ("tag", ("mnist", ["x"]), ()),
    ("protect", ("mnist:best", "daemon"), ()),
    ("move_alias", ("mnist:v0", "mnist:best"), ("expect",)),
    ("set_metadata", ("mnist", {"a": 1}), ()),
    ("set_access", (), ("readers", "writers")),
    ("create_collection", ("shelf",), ("type", "description")),
    ("create_artifact", ("cifar",), ("type", "description")),
    ("run", ("tag mnist x",), ()),
]


@pytest.mark.parametrize(
    ("method", "operands", "option"),
    [
        (method, words, option)
        for method, words, options in CALLS
        for option in (*options, "reason")
    ],
)
def test_python_refuses_it(
    promoted: CommandLine, method: str, operands: tuple[Any, ...], option: str
) -> None:
    with Registry(promoted.store) as registry:
        head = registry.head()
        with pytest.raises(InvalidError, match=f"--{option} is empty"):
            getattr(registry, method)(*operands, **{option: ""})
        assert head == registry.head()


def test_an_alias_does_not_move_when_what_was_expected_is_not_set(promoted: CommandLine) -> None:
    words = ("ln", "mnist:v0", "classifier:production", "--expect")

    assert 5 == promoted.fail(*words, "")[0]
    assert "v1" == promoted.json("show", "classifier")["aliases"]["production"]
