"""Colours for scripts, by Pygments (its entry point is declared in pyproject.toml)."""

from __future__ import annotations

from typing import ClassVar

from pygments.lexer import RegexLexer, words
from pygments.token import Comment, Keyword, Name, Number, Operator, Punctuation, String, Text

from braidwater.dml.syntax.lexer import DOTTED, KEYWORDS, PATTERNS


class DMLLexer(RegexLexer):  # type: ignore[misc] # Pygments has no types
    """DML, the language of SystemML and SystemDS."""

    name = "DML"
    url = "https://systemds.apache.org"
    aliases: ClassVar[list[str]] = ["dml"]
    filenames: ClassVar[list[str]] = ["*.dml"]
    tokens: ClassVar = {
        "root": [
            (r"\#[^\n]*|/\*(?s:.*?)\*/", Comment),
            (r"\s+", Text),
            (words(tuple(KEYWORDS), suffix=r"\b"), Keyword),
            (words(("TRUE", "FALSE", "NaN", "Inf", "pi"), suffix=r"\b"), Keyword.Constant),
            (
                words(
                    ("matrix", "frame", "list", "double", "int", "integer", "string", "boolean"),
                    suffix=r"(?=\s*[\[\s]\s*\w)",
                ),
                Keyword.Type,
            ),
            (PATTERNS["string"], String),
            (PATTERNS["argument"], Name.Variable),
            (words(DOTTED, suffix=r"\b"), Name.Builtin),
            (r"(?:[A-Za-z]\w*::)?[A-Za-z]\w*(?=\s*\()", Name.Function),
            (PATTERNS["double"], Number.Float),
            (PATTERNS["integer"], Number.Integer),
            (r"(?:[A-Za-z]\w*::)?[A-Za-z]\w*", Name),
            (r"%\*%|%/%|%%|<-|\+=|<=|>=|==|!=|&&|\|\||[-+*/^<>!&|=]", Operator),
            (r"[(){}\[\],;:.]", Punctuation),
        ]
    }
