"""The few words of Java that functions for `map` are written in: methods of strings, arithmetic, conditions.

Nothing of it is ever run as Python: a small parser builds functions from a fixed table.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any

from braidwater.dml.builtins.java_library import FUNCTIONS, METHODS, java_text
from braidwater.errors import DMLSyntaxError, UnsupportedError

_TOKEN = re.compile(
    r"\s*(?:(\d+\.\d+|\d+)|\"((?:\\.|[^\"\\])*)\"|'((?:\\.|[^'\\])*)'|([A-Za-z_][\w.]*(?=\s*\()|[A-Za-z_]\w*)|(->|&&|\|\||==|!=|<=|>=|[-+*/%<>!?:().,&|\[\]{}]))"
)
Term = Callable[[Any], Any]

BINARY: list[dict[str, Callable[[Any, Any], Any]]] = [
    {"||": lambda a, b: a or b, "|": lambda a, b: a or b},
    {"&&": lambda a, b: a and b, "&": lambda a, b: a and b},
    {"==": operator.eq, "!=": operator.ne},
    {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge},
    {
        "+": lambda a, b: java_text(a) + java_text(b) if isinstance(a, str) or isinstance(b, str) else a + b,
        "-": operator.sub,
    },
    {
        "*": operator.mul,
        "/": lambda a, b: int(a / b) if isinstance(a, int) and isinstance(b, int) else a / b,
        "%": lambda a, b: a - b * int(a / b),
    },
]


def compile_lambda(text: str) -> Callable[..., Any]:
    """A function from texts to a text, or to a list of texts where it ends in ``new String[]{...}``.

    >>> compile_lambda("x -> x.trim().length() > 2 ? x.toUpperCase() : 'short'")(" abc ")
    ' ABC '
    >>> compile_lambda("(x, y) -> UtilFunctions.jaccardSim(x, y)")("graz", "gratz")
    '0.8'

    Raises UnsupportedError for any other Java, with the word that is not known.
    """
    parser = _Parser(text)
    term = parser.function()

    def apply(*cells: Any) -> Any:
        found = term(cells)
        return [java_text(each) for each in found] if isinstance(found, list) else java_text(found)

    return apply


class _Parser:
    """Precedence climbing over a fixed set of words."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[tuple[str, str]] = []
        place = 0
        while text[place:].strip():
            found = _TOKEN.match(text, place)
            if found is None:
                raise self.refused(text[place:].strip()[0])
            kinds = ("number", "string", "string", "name", "operator")
            kind, word = next((k, w) for k, w in zip(kinds, found.groups(), strict=True) if w is not None)
            self.tokens.append(
                (
                    kind,
                    re.sub(r"\\(.)", r"\1", word)
                    if kind == "string" and "\\\\" not in word
                    else word.replace("\\\\", "\\"),
                )
            )
            place = found.end()
        self.place = 0

    def refused(self, word: str) -> UnsupportedError:
        return UnsupportedError(
            f"map cannot run {self.text!r}: {word!r} is not known. It knows x, strings, numbers, operators, c ? a : b and "
            f"{', '.join([*METHODS, *FUNCTIONS])}."
        )

    def next(self) -> tuple[str, str]:
        token = self.tokens[self.place] if self.place < len(self.tokens) else ("end", "")
        self.place += 1
        return token

    def peek(self) -> str:
        return (
            self.tokens[self.place][1]
            if self.place < len(self.tokens) and self.tokens[self.place][0] != "string"
            else ""
        )

    def accept(self, word: str) -> bool:
        if self.peek() == word:
            self.place += 1
            return True
        return False

    def expect(self, word: str) -> None:
        if not self.accept(word):
            raise DMLSyntaxError(f"map: expected {word!r} in {self.text!r}.")

    def function(self) -> Term:
        if len(self.tokens) > 500:
            raise self.refused("so long a function")
        self.parameters = self.names()
        self.expect("->")
        term = self.choice()
        if self.place < len(self.tokens):
            raise self.refused(self.tokens[self.place][1])
        return term

    def names(self) -> list[str]:
        """``x`` or ``(x, y)``."""
        if not self.accept("("):
            return [self.next()[1]]
        found = [self.next()[1]]
        while self.accept(","):
            found.append(self.next()[1])
        self.expect(")")
        return found

    def choice(self) -> Term:
        test = self.binary(0)
        if not self.accept("?"):
            return test
        yes = self.choice()
        self.expect(":")
        no = self.choice()
        return lambda x: yes(x) if test(x) else no(x)

    def binary(self, level: int) -> Term:
        if level == len(BINARY):
            return self.unary()
        left = self.binary(level + 1)
        while self.peek() in BINARY[level]:
            left = _combined(BINARY[level][self.next()[1]], left, self.binary(level + 1))
        return left

    def unary(self) -> Term:
        if self.accept("!"):
            term = self.unary()
            return lambda x: not term(x)
        if self.accept("-"):
            term = self.unary()
            return lambda x: -term(x)
        return self.methods(self.atom())

    def methods(self, term: Term) -> Term:
        while True:
            if self.accept("["):
                term = _combined(lambda items, place: items[int(place)], term, self.choice())
                self.expect("]")
            elif self.accept("."):
                name = self.next()[1]
                if name == "length" and self.peek() != "(":
                    term = _called(len, [term])
                    continue
                if name not in METHODS:
                    raise self.refused(name)
                term = _called(METHODS[name], [term, *self.arguments()])
            else:
                return term

    def arguments(self) -> list[Term]:
        self.expect("(")
        found: list[Term] = []
        while not self.accept(")"):
            found.append(self.choice())
            if self.peek() != ")":
                self.expect(",")
        return found

    def atom(self) -> Term:
        kind, word = self.next()
        if kind == "number":
            constant: Any = float(word) if "." in word else int(word)
            return lambda x: constant
        if kind == "string":
            return lambda x: word
        if word == "(":
            inside = self.choice()
            self.expect(")")
            return inside
        name, *methods = word.split(".")  # x.trim( was read as one name
        if kind == "name" and name in self.parameters:
            term = _cell(self.parameters.index(name))
            for method in methods[:-1]:
                term = _called(self._method(method), [term])
            return _called(self._method(methods[-1]), [term, *self.arguments()]) if methods else term
        if kind == "name" and word == "new":
            return self.array()
        if kind == "name" and word in FUNCTIONS:
            return _called(FUNCTIONS[word], self.arguments())
        if word in ("true", "false"):
            return lambda x: word == "true"
        raise self.refused(word or "the end")

    def array(self) -> Term:
        """``new String[]{a, b}`` after its first word."""
        for word in ("String", "[", "]", "{"):
            self.expect(word)
        terms: list[Term] = []
        while not self.accept("}"):
            terms.append(self.choice())
            if self.peek() != "}":
                self.expect(",")
        return lambda x: [term(x) for term in terms]

    def _method(self, name: str) -> Callable[..., Any]:
        if name not in METHODS:
            raise self.refused(name)
        return METHODS[name]


def _cell(place: int) -> Term:
    return lambda cells: cells[place]


def _combined(function: Callable[[Any, Any], Any], left: Term, right: Term) -> Term:
    return lambda x: function(left(x), right(x))


def _called(function: Callable[..., Any], terms: list[Term]) -> Term:
    return lambda x: function(*[term(x) for term in terms])
