"""Text is split into words as a POSIX shell would."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mregfs.errors import InvalidError
from mregfs.model.tokenizer import Options, sort_options, split_commands

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@pytest.mark.parametrize(
    ("script", "commands"),
    [
        ("", []),
        ("\n  \n\t\r\n", []),
        ("# nothing\n   # at all", []),
        ("a b  c", [(1, ["a", "b", "c"])]),
        ("a b\n\nc", [(1, ["a", "b"]), (3, ["c"])]),
        ("a\r\nb\r\n", [(1, ["a"]), (2, ["b"])]),
        ("a # b\n#c\nd", [(1, ["a"]), (3, ["d"])]),
        ("a#b c# '#' ", [(1, ["a#b", "c#", "#"])]),
        ("a '' \"\" b", [(1, ["a", "", "", "b"])]),
        ("'MNIST Grayscale'/v1 b\\ c", [(1, ["MNIST Grayscale/v1", "b c"])]),
        (r"""'a\b' "a\b" a\b """, [(1, ["a\\b", "a\\b", "ab"])]),
        (r""""\"\\\$\`\x" \" \' """, [(1, ['"\\$`\\x', '"', "'"])]),
        ("'a\nb' c\nd", [(1, ["a\nb", "c"]), (3, ["d"])]),
        ("a \\\n b\nc", [(1, ["a", "b"]), (3, ["c"])]),
        ('"a\\\nb"\nc', [(1, ["ab"]), (3, ["c"])]),
        ("\n'x\n'\\\n y\nz", [(2, ["x\n", "y"]), (5, ["z"])]),
        ("$A *.py; b | c & d", [(1, ["$A", "*.py;", "b", "|", "c", "&", "d"])]),
    ],
)
def test_quotes_comments_and_line_ends(script, commands):
    assert commands == list(split_commands(script))


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("a 'b", "line 1: the quote ' is never closed"),
        ('a\nb "c\nd', 'line 2: the quote " is never closed'),
        ('a "b\\"', 'line 1: the quote " is never closed'),
        ("a\\", "line 1: nothing follows a backslash"),
    ],
)
def test_what_is_never_closed_is_refused(script, said):
    with pytest.raises(InvalidError) as caught:
        list(split_commands(script))
    assert said == caught.value.message


@given(st.lists(st.lists(text, min_size=1, max_size=4), max_size=4))
def test_quoted_words_come_back(commands):
    script = "\n".join(map(shlex.join, commands))

    assert commands == [words for _, words in split_commands(script)]


@given(st.text("ab \t'\"\\#", max_size=20))
def test_one_line_is_split_as_shlex_does(line):
    try:
        expected = shlex.split(line, comments=False)
    except ValueError:
        expected = None
    if "#" in line:  # shlex knows no comment that begins only where a word could
        return
    if expected is None:
        with pytest.raises(InvalidError):
            list(split_commands(line))
    else:
        assert expected == [word for _, words in split_commands(line) for word in words]


@given(st.text(max_size=50))
def test_any_text_is_split_or_refused(script):
    try:
        for line, words in split_commands(script):
            assert words
            assert 1 <= line <= script.count("\n") + 1
    except InvalidError:
        pass


VALUES = frozenset({"alias", "type"})
LETTERS = {"f": "force", "s": "symbolic"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], Options([], {}, frozenset())),
        (["a", "-", "b"], Options(["a", "-", "b"], {}, frozenset())),
        (["-sf", "a", "--force"], Options(["a"], {}, frozenset({"force", "symbolic"}))),
        (
            ["--alias", "x", "a", "--alias=y=z", "--type=t"],
            Options(["a"], {"alias": ["x", "y=z"], "type": ["t"]}, frozenset()),
        ),
        (["--type", "--alias"], Options([], {"type": ["--alias"]}, frozenset())),
        (["a", "--", "-f", "--", "--x"], Options(["a", "-f", "--", "--x"], {}, frozenset())),
    ],
)
def test_options_may_stand_anywhere(words, expected):
    assert expected == sort_options(words, VALUES, LETTERS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--alias"], "--alias needs a value"),
        (["--none"], "no option '--none'"),
        (["--force=yes"], "no option '--force=yes'"),
        (["-fx"], "no option -x"),
    ],
)
def test_what_is_no_option_is_refused(words, said):
    with pytest.raises(InvalidError, match=said):
        sort_options(words, VALUES, LETTERS)


def test_a_minus_can_belong_to_the_word():
    options = sort_options(["-f", "--type=x"], VALUES, LETTERS, minus_is_operand=True)

    assert Options(["-f"], {"type": ["x"]}, frozenset()) == options


def test_what_can_be_given_once_is_refused_twice():
    options = sort_options(["--type", "a", "--type", "b", "--alias", "c"], VALUES, LETTERS)

    assert ("c", None) == (options.one("alias"), options.one("none"))
    with pytest.raises(InvalidError, match="--type is given twice"):
        options.one("type")
