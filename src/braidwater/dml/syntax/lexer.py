"""From the text of a script to tokens.

White space, newlines and comments mean nothing. A stray ``.`` is left out, as the language's reference implementation does.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from braidwater.dml.syntax.span import Source, Span
from braidwater.errors import DMLSyntaxError

DOTTED = (
    "as.scalar", "as.matrix", "as.frame", "as.list", "as.double", "as.integer", "as.logical", "as.boolean",
    "index.return", "empty.return", "lower.tail", "lower.tri", "upper.tri", "is.na", "is.nan", "is.infinite",
)  # fmt: skip
KEYWORDS = frozenset({"if", "else", "while", "for", "parfor", "in", "function", "externalFunction", "return", "source"})

PATTERNS = {
    "skip": r"\s+|\#[^\n]*|/\*.*?\*/",
    "name": r"(?:[A-Za-z]\w*::)?(?:" + "|".join(re.escape(word) + r"\b" for word in DOTTED) + r"|[A-Za-z]\w*)",
    "double": r"\d+\.\d*(?:[eE][+-]?\d+)?[lL]?|\.\d+(?:[eE][+-]?\d+)?[lL]?|\d+[eE][+-]?\d+[lL]?",
    "integer": r"\d+[lL]?",
    "string": r'"(?:\\.|[^"\\])*"' + r"|'(?:\\.|[^'\\])*'",
    "argument": r"\$(?:[A-Za-z]\w*|\d+)",
    "operator": r"%\*%|%/%|%%|<-|\+=|<=|>=|==|!=|&&|\|\||[-+*/^<>!&|=(){}\[\],;:]",
    "stray": r"\.",
}
_TOKENS = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in PATTERNS.items()), re.DOTALL | re.ASCII)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r"}


class Token(NamedTuple):
    """`kind` is the text itself for operators and keywords, else name, integer, double, string, argument or end."""

    kind: str
    text: str
    start: int
    end: int


def tokenize(source: Source) -> tuple[list[Token], list[DMLSyntaxError]]:
    """The tokens of a script, closed by one of kind ``end``, and what could not be read.

    >>> [token.text for token in tokenize(Source("y = t(X) %*% X  # Gram"))[0]]
    ['y', '=', 't', '(', 'X', ')', '%*%', 'X', '']
    """
    text, tokens, errors, place = source.text, list[Token](), list[DMLSyntaxError](), 0
    while place < len(text):
        found = _TOKENS.match(text, place)
        if found is None:
            errors.append(_unreadable(source, place))
            place = len(text) if text.startswith(("/*", '"', "'"), place) else place + 1
            continue
        kind, place = str(found.lastgroup), found.end()
        if kind in ("skip", "stray"):
            continue
        word = found.group()
        if kind == "operator" or word in KEYWORDS:
            kind = word
        tokens.append(Token(kind, word, found.start(), place))
    tokens.append(Token("end", "", len(text), len(text)))
    return tokens, errors


def unescaped(literal: str) -> str:
    """What a quoted string stands for."""
    return _ESCAPE.sub(lambda found: _ESCAPES.get(found[1], found[1]), literal[1:-1])


def _unreadable(source: Source, place: int) -> DMLSyntaxError:
    rest = source.text[place : place + 2]
    if rest == "/*":
        return DMLSyntaxError("This comment is not closed.", Span(source, place, place + 2), hint="Close it with */.")
    if rest[0] in "\"'":
        return DMLSyntaxError(
            "This string is not closed.", Span(source, place, place + 1), hint=f"Close it with {rest[0]}."
        )
    problem = f"The character {rest[0]!r} means nothing here."
    hint = "Arguments are written $name or $1." if rest[0] == "$" else None
    if rest[0] == "_":
        hint = "Names begin with a letter."
    return DMLSyntaxError(problem, Span(source, place, place + 1), hint=hint)
