"""Expressions, by precedence climbing (Pratt 1973).

From loose to tight: ``|``, ``&``, ``!``, comparisons, ``+ -``, ``* /``, ``%% %/%``, ``%*%``, unary ``+ -``, ``^`` (right
associative, so that -2^2 is -4).
"""

from __future__ import annotations

from braidwater.dml.syntax.lexer import Token, unescaped
from braidwater.dml.syntax.nodes import (
    Argument,
    Binary,
    Bounds,
    Call,
    Constant,
    Expression,
    Given,
    Index,
    Items,
    Name,
    Unary,
)
from braidwater.dml.syntax.span import Source, Span
from braidwater.errors import DMLSyntaxError

LEVELS = [
    ("|", "||"),
    ("&", "&&"),
    (),
    ("<", "<=", ">", ">=", "==", "!="),
    ("+", "-"),
    ("*", "/"),
    ("%%", "%/%"),
    ("%*%",),
]
BINDS = {op: level for level, ops in enumerate(LEVELS, 1) for op in ops}
NOT, SIGN, POWER = 3, len(LEVELS) + 1, len(LEVELS) + 2
CONSTANTS = {
    "TRUE": True,
    "FALSE": False,
    "NaN": float("nan"),
    "Inf": float("inf"),
    "NA": float("nan"),
    "pi": 3.141592653589793,
}
DEEPEST = 100  # Python's own stack ends at about 1000 calls, and a level takes up to six


class Reader:
    """A place among the tokens, and the steps from it that all parts of the grammar take."""

    def __init__(self, source: Source, tokens: list[Token]) -> None:
        self.source = source
        self.tokens = tokens
        self.place = 0
        self.token = tokens[0]
        self.depth = 0
        self.brackets = 0  # open parentheses and index brackets: inside them no statement can begin

    def advance(self) -> Token:
        token = self.token
        if token.kind != "end":
            self.place += 1
            self.token = self.tokens[self.place]
        return token

    def go_back(self, place: int) -> None:
        self.place = place
        self.token = self.tokens[place]

    def after(self, steps: int = 1) -> Token:
        return self.tokens[min(self.place + steps, len(self.tokens) - 1)]

    def accept(self, kind: str) -> bool:
        if self.token.kind != kind:
            return False
        self.advance()
        return True

    def expect(self, kind: str, what: str) -> Token:
        if self.token.kind != kind:
            raise self.unexpected(what)
        return self.advance()

    def span(self, start: int) -> Span:
        """From character `start` to the end of the token just read."""
        return Span(self.source, start, max(self.tokens[self.place - 1].end if self.place else 0, start))

    def unexpected(self, wanted: str, hint: str | None = None) -> DMLSyntaxError:
        token = self.token
        found = "the script ends" if token.kind == "end" else f"{token.text!r} stands here"
        return DMLSyntaxError(f"Expected {wanted}, but {found}.", Span(self.source, token.start, token.end), hint=hint)

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > DEEPEST:
            span = Span(self.source, self.token.start, self.token.end)
            raise DMLSyntaxError(
                f"Nested more than {DEEPEST} levels deep.", span, hint="Put parts of it into variables or functions."
            )


class ExpressionParser(Reader):
    """Reads expressions."""

    def expression(self, loosest: int = 1) -> Expression:
        """The expression that begins here, as far as its operators bind at least as tightly as `loosest`."""
        self.deeper()
        left = self._prefix()
        while True:
            op = self._operator()
            level = POWER if op == "^" else BINDS.get(op, 0)
            if level < loosest or level == 0:
                break
            self._take(op)
            right = self.expression(SIGN if op == "^" else level + 1)
            left = Binary(Span(self.source, left.span.start, right.span.end), op, left, right)
        self.depth -= 1
        return left

    def _operator(self) -> str:
        """The operator here. Inside brackets nothing is assigned, so ``a<-1`` compares."""
        return "<" if self.token.kind == "<-" and self.brackets else self.token.kind

    def _take(self, op: str) -> None:
        if op == self.token.kind:
            self.advance()
        else:  # "<-" read as "<": its second half stays
            token = self.token
            self.tokens[self.place : self.place + 1] = [
                Token("<", "<", token.start, token.start + 1),
                Token("-", "-", token.start + 1, token.end),
            ]
            self.go_back(self.place + 1)

    def _prefix(self) -> Expression:
        token = self.token
        if token.kind in ("-", "+", "!"):
            self.advance()
            operand = self.expression(NOT + 1 if token.kind == "!" else SIGN)
            return Unary(Span(self.source, token.start, operand.span.end), token.kind, operand)
        return self._atom()

    def _atom(self) -> Expression:
        token = self.token
        match token.kind:
            case "integer" | "double":
                self.advance()
                digits = token.text.rstrip("lL")
                return Constant(self.span(token.start), int(digits) if token.kind == "integer" else float(digits))
            case "string":
                self.advance()
                return Constant(self.span(token.start), unescaped(token.text))
            case "argument":
                self.advance()
                return Argument(self.span(token.start), token.text[1:])
            case "name":
                return self._named()
            case "(":
                self.advance()
                self.brackets += 1
                inside = self.expression()
                self.brackets -= 1
                self.expect(")", "')'")
                return inside
            case "[":
                return self._items()
        raise self.unexpected("an expression")

    def _named(self) -> Expression:
        token = self.token
        if self.after().kind == "(":
            return self.call()
        self.advance()
        if token.text in CONSTANTS:
            return Constant(self.span(token.start), CONSTANTS[token.text])
        if self.token.kind != "[":
            return Name(self.span(token.start), token.text)
        place = self.place
        try:
            found = self.index(token)
        except DMLSyntaxError:
            if not self._begins_assignment(place):
                raise
            found = None
        # y = x
        # [p, q] = f(3)      are two statements: what looked like an index of x is the next one's targets
        if found is None or (self.brackets == 0 and self.token.kind in ("=", "<-")):
            self.go_back(place)
            return Name(self.span(token.start), token.text)
        return found

    def _begins_assignment(self, place: int) -> bool:
        """Whether the brackets that open at `place` hold targets: ``[a, b, c] =``."""
        depth = 0
        if self.brackets:
            return False
        for position in range(place, len(self.tokens)):
            depth += {"[": 1, "]": -1}.get(self.tokens[position].kind, 0)
            if depth == 0:
                return self.tokens[position + 1].kind in ("=", "<-")
        return False

    def call(self) -> Call:
        """``name(arguments)``."""
        token = self.advance()
        arguments = self.given("(", ")")
        while self.brackets and self.accept(";"):  # f(ceil(x);) is written in scripts that exist
            pass
        return Call(self.span(token.start), token.text, tuple(arguments))

    def given(self, opening: str, closing: str) -> list[Given]:
        """``(a, name = b)``."""
        self.expect(opening, f"'{opening}'")
        self.brackets += 1
        found: list[Given] = []
        while self.token.kind != closing:
            found.append(self.one_given())
            if not self.accept(","):
                break
        self.brackets -= 1
        self.expect(closing, f"',' or '{closing}'")
        return found

    def one_given(self) -> Given:
        start, name = self.token.start, None
        if self.token.kind == "name" and self.after().kind == "=":
            name = self.advance().text
            self.advance()
        value = self.expression()
        return Given(self.span(start), name, value)

    def index(self, name: Token) -> Index:
        """``[rows, columns]`` behind a name."""
        self.expect("[", "'['")
        self.brackets += 1
        rows = self._bounds()
        columns = self._bounds() if self.accept(",") else None
        self.brackets -= 1
        self.expect("]", "',' or ']'")
        return Index(self.span(name.start), name.text, rows, columns)

    def _bounds(self) -> Bounds:
        start = self.token.start
        if self.token.kind in (",", "]"):
            return Bounds(Span(self.source, start, start))
        lower = None if self.token.kind == ":" else self.expression()
        if not self.accept(":"):
            return Bounds(self.span(start), lower, None)
        upper = None if self.token.kind in (",", "]") else self.expression()
        return Bounds(self.span(start), lower, upper, is_range=True)

    def _items(self) -> Items:
        start = self.token.start
        return Items(self.span(start), tuple(each.value for each in self.given("[", "]")))
