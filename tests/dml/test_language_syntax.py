"""Reading scripts: whatever comes in, a tree or a message comes out."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braidwater import dml
from braidwater.dml.syntax import Source, Span, parse
from braidwater.dml.syntax.lexer import tokenize
from braidwater.dml.syntax.nodes import Assign, AssignMany, Binary, Index, Name
from braidwater.errors import BraidwaterError, DMLSyntaxError

PIECES = [
    "x", "X", "f", "sum", "matrix", "(", ")", "{", "}", "[", "]", ",", ";", ":", "=", "<-", "+=", "+", "-", "*", "/", "^", "%*%",
    "%/%", "!", "&", "|", "<", "==", "1", "2.5", ".", '"s"', "'t'", "$a", "$1", "if", "else", "while", "for", "parfor", "in",
    "function", "return", "source", "TRUE", "double", "\n", " ", "#c\n", "/*c*/", "as.scalar", "ns::g", "é", "\x00", '"', "/*",
]  # fmt: skip
WHOLE = """
f = function(matrix[double] X, double a = 0.5) return (matrix[double] Y, int n) { Y = X * a; n = nrow(X) }
X = matrix(seq(1, 6), rows=3, cols=2)
[Y, n] = f(X=X, a=2)
if (n > 2 & sum(Y) != 3) { print("n " + n) } else print(toString(Y))
for (i in seq(1, n)) Y[i, 1] = Y[i, 2] ^ 2 - as.scalar(X[i, 1])
"""
LOOP = "while (n > 0 & n < 9) { n = n - 1 }"


@given(st.text(max_size=80))
@settings(max_examples=150, deadline=None)
def test_any_text_gives_a_tree_or_a_message(text):
    reads(text)


@given(st.lists(st.sampled_from(PIECES), max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_words_of_the_language_give_a_tree_or_a_message(pieces):
    reads(" ".join(pieces))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_script_with_a_piece_changed_runs_or_says_what_is_wrong(data):
    whole = WHOLE + LOOP
    tokens, _ = tokenize(Source(whole))
    place = data.draw(st.integers(0, len(tokens) - 2))
    piece = data.draw(st.sampled_from(["", *PIECES]))
    changed = whole[: tokens[place].start] + piece + whole[tokens[place].end :]
    if LOOP in changed:
        runs(changed)
    else:  # a loop that is changed may have no end
        reads(changed)


def runs(text: str) -> None:
    try:
        dml.run(text, outputs=[], show=lambda text: None)
    except BraidwaterError as error:
        message = str(error)
    else:
        return
    assert message


def reads(text: str) -> None:
    try:
        parse(text)
    except DMLSyntaxError as error:
        message = (error.line, error.column, str(error))
    else:
        return
    assert min(message[:2]) >= 1
    assert "^" in message[2]


@pytest.mark.parametrize("opening", ["(", "-", "!", "f(", "x[", "{", "if (1) {", "while (0) {", "[", "2^"])
def test_deep_nesting_is_an_error_and_no_overflow(opening):
    with pytest.raises(DMLSyntaxError):
        parse("y = " * (opening[0] not in "{iw[") + opening * 5000)


def test_a_sum_of_thousands_of_terms_is_no_nesting():
    assert dml.run("x = " + " + ".join(["1"] * 5000), outputs=["x"])["x"] == 5000
    assert dml.run("x = 0\n" + "if (x == 1) x = 2 else " * 2000 + "x = 3", outputs=["x"])["x"] == 3


def test_two_statements_without_a_newline_between_them_are_two():
    found = parse("y = x\n[p, q] = f(3) z = A[1, 2] [r] = g(x[1])").statements
    assert [type(statement) for statement in found] == [Assign, AssignMany, Assign, AssignMany]
    assert isinstance(found[0].value, Name)
    assert isinstance(found[2].value, Index)
    assert [type(statement) for statement in parse("y = x\nX[1, 2] = 3").statements] == [Assign, Assign]


def test_spans_cover_what_they_name():
    text = "y = 2 *  (a + b)\n"
    value = parse(text).statements[0].value
    assert isinstance(value, Binary)
    assert value.right.span.text == "a + b"
    assert (value.span.line, value.span.column) == (1, 5)
    assert Span(Source("\tx"), 1, 2).underlined() == "   x\n   ^"


def test_all_mistakes_are_told_at_once_up_to_ten():
    with pytest.raises(DMLSyntaxError) as caught:
        parse("\n".join(["x = )", "y = 1"] * 30))
    lines = [error.line for error in [caught.value, *caught.value.others]]
    assert lines == list(range(1, 20, 2))


def test_the_colours_of_a_script_lose_nothing():
    from pygments.token import Error

    from braidwater.dml.syntax.highlight import DMLLexer

    found = list(DMLLexer().get_tokens(WHOLE))
    assert "".join(text for _, text in found) == WHOLE.lstrip("\n")
    assert Error not in {kind for kind, _ in found}
