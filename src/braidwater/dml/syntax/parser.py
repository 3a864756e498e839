"""Statements: what a script is made of. Written by hand, so that errors can say what was expected.

After a mistake the parser goes on at the next line that looks like a statement, so that a script's mistakes are told at once.
"""

from __future__ import annotations

from braidwater.dml.syntax.expressions import ExpressionParser
from braidwater.dml.syntax.lexer import tokenize, unescaped
from braidwater.dml.syntax.nodes import (
    Assign,
    AssignMany,
    Branch,
    Call,
    Expression,
    For,
    Function,
    If,
    Import,
    Index,
    Name,
    Parameter,
    Perform,
    Script,
    Statement,
    While,
)
from braidwater.dml.syntax.span import Source, Span
from braidwater.errors import DMLSyntaxError

MOST_ERRORS = 10
VALUE_TYPES = {
    "double": "double", "int": "int", "integer": "int", "string": "string", "boolean": "boolean", "unknown": "unknown",
    "scalar": "unknown",
}  # fmt: skip
DATA_TYPES = ("matrix", "frame", "list", "tensor", "scalar")


def parse(text: str, file: str = "script") -> Script:
    """The tree of a script.

    Raises DMLSyntaxError with the first mistake; up to nine further ones are in its `others`. Cost: linear in the text.

    >>> script = parse("y = x [p, q] = f(3)")
    >>> [type(statement).__name__ for statement in script.statements]
    ['Assign', 'AssignMany']
    """
    source = Source(text, file)
    tokens, errors = tokenize(source)
    parser = Parser(source, tokens)
    script = parser.script()
    errors = sorted(errors + parser.errors, key=lambda error: error.span.start if error.span else 0)  # type: ignore[attr-defined]
    if errors:
        errors[0].others = errors[1:MOST_ERRORS]
        raise errors[0]
    return script


class Parser(ExpressionParser):
    """Reads statements; the mistakes it meets are kept in `errors`."""

    errors: list[DMLSyntaxError]

    def script(self) -> Script:
        self.errors = []
        start, statements, functions = 0, list[Statement](), dict[str, Function]()
        while self.token.kind != "end":
            found = self._recovering()
            if isinstance(found, Function):
                functions[found.name] = found
            elif found is not None:
                statements.append(found)
        return Script(self.span(start), statements, functions)

    def _recovering(self) -> Statement | None:
        """The next statement, or None where there was a mistake, after which the parser stands at the next beginning."""
        place = self.place
        try:
            if self.accept(";"):
                return None
            return self.statement()
        except DMLSyntaxError as error:
            self.errors.append(error)
            self.depth = self.brackets = 0
            if len(self.errors) >= MOST_ERRORS:
                self.go_back(len(self.tokens) - 1)
            else:
                self._skip_to_statement(place)
            return None

    def _skip_to_statement(self, place: int) -> None:
        """To the next token that stands first on a line and can begin a statement."""
        self.go_back(max(self.place, place + 1) if place + 1 < len(self.tokens) else place)
        text = self.source.text
        while self.token.kind != "end":
            line = text.rfind("\n", 0, self.token.start) + 1
            first = not text[line : self.token.start].strip()
            if first and self.token.kind in ("name", "if", "while", "for", "parfor", "source", "["):
                return
            self.advance()

    def statement(self) -> Statement:
        """The statement that begins here."""
        self.deeper()
        match self.token.kind:
            case "if":
                found: Statement = self._if()
            case "while":
                found = self._while()
            case "for" | "parfor":
                found = self._for()
            case "source":
                found = self._import()
            case "[":
                found = self._assign_many()
            case "name" | "argument":
                found = self._assign_or_call()
            case _:
                raise self.unexpected("a statement", _statement_hint(self.token.kind))
        while self.accept(";"):
            pass
        self.depth -= 1
        return found

    def _assign_or_call(self) -> Statement:
        start, following = self.token.start, self.after().kind
        if following == "(":
            call = self.call()
            if self.token.kind in ("=", "<-", "+="):
                raise self.unexpected("a statement", "Only a variable, or cells of one, can be assigned to.")
            return Perform(self.span(start), call)
        if following in ("=", "<-") and self.after(2).kind in ("function", "externalFunction"):
            return self._function()
        target = self._target()
        if self.token.kind not in ("=", "<-", "+="):
            raise self.unexpected("'=', '<-', '+=' or '('", "A statement assigns to a variable or calls a function.")
        accumulate = self.advance().kind == "+="
        value = self.expression()
        return Assign(self.span(start), target, value, accumulate)

    def _target(self) -> Name | Index:
        name = self.expect("name", "the name of a variable")
        return self.index(name) if self.token.kind == "[" else Name(self.span(name.start), name.text)

    def _assign_many(self) -> AssignMany:
        start = self.advance().start
        targets = [self._target()]
        while self.accept(","):
            targets.append(self._target())
        self.expect("]", "',' or ']'")
        if not (self.accept("=") or self.accept("<-")):
            raise self.unexpected("'='")
        if self.token.kind != "name" or self.after().kind != "(":
            raise self.unexpected("a call", "Only a call of a function has several results.")
        return AssignMany(self.span(start), tuple(targets), self.call())

    def _if(self) -> If:
        start, branches, otherwise = self.token.start, list[Branch](), list[Statement]()
        while True:  # not by recursion: chains of else-if may be long
            begin = self.advance().start
            condition = self._condition()
            branches.append(Branch(self.span(begin), condition, self._body()))
            if not self.accept("else"):
                break
            if self.token.kind != "if":
                otherwise = self._body()
                break
        return If(self.span(start), branches, otherwise)

    def _while(self) -> While:
        start = self.advance().start
        condition = self._condition()
        return While(self.span(start), condition, self._body())

    def _condition(self) -> Expression:
        self.expect("(", "'('")
        self.brackets += 1
        found = self.expression()
        self.brackets -= 1
        self.expect(")", "')'")
        return found

    def _body(self) -> list[Statement]:
        """One statement, or several in braces."""
        opened = self.token
        if not self.accept("{"):
            return [self.statement()]
        body: list[Statement] = []
        while self.token.kind not in ("}", "end"):
            if self.accept(";"):
                continue
            statement = self.statement()
            if isinstance(statement, Function):
                raise DMLSyntaxError(
                    "A function is defined inside another block.", statement.span, hint="Define it outside of braces."
                )
            body.append(statement)
        if not self.accept("}"):
            raise self.unexpected("'}'", f"The block began in line {Span(self.source, opened.start, opened.end).line}.")
        while self.accept(";"):
            pass
        return body

    def _for(self) -> For:
        begin = self.advance()
        self.expect("(", "'('")
        self.brackets += 1
        variable = self.expect("name", "the loop's variable").text
        self.expect("in", "'in'")
        first = self.expression()
        step: Expression | None = None
        if self.accept(":"):
            last = self.expression()
        elif isinstance(first, Call) and first.name == "seq" and len(first.arguments) in (2, 3):
            first, last, *steps = (given.value for given in first.arguments)
            step = steps[0] if steps else None
        else:
            raise self.unexpected("':'", "A loop runs over first:last or seq(first, last, step).")
        options = []
        while self.accept(","):
            options.append(self.one_given())
        self.brackets -= 1
        self.expect(")", "')'")
        body = self._body()
        return For(self.span(begin.start), variable, first, last, step, body, begin.kind == "parfor", tuple(options))

    def _import(self) -> Import:
        start = self.advance().start
        self.expect("(", "'('")
        path = unescaped(self.expect("string", "the path of a script, as a string").text)
        self.expect(")", "')'")
        if self.token.text != "as":
            raise self.unexpected("'as'", 'Write source("file.dml") as name.')
        self.advance()
        namespace = self.expect("name", "a namespace").text
        return Import(self.span(start), path, namespace)

    def _function(self) -> Function:
        start, name = self.token.start, self.advance().text
        self.advance()
        external = self.advance().kind == "externalFunction"
        parameters = self._parameters()
        results = self._parameters() if self.accept("return") else ()
        if external:
            while self.token.kind not in ("(", "end"):
                self.advance()
            self.given("(", ")")
            return Function(self.span(start), name, parameters, results, external=True)
        if self.token.kind != "{":
            raise self.unexpected("'{'")
        body = self._body()
        return Function(self.span(start), name, parameters, results, body)

    def _parameters(self) -> tuple[Parameter, ...]:
        self.expect("(", "'('")
        self.brackets += 1
        found: list[Parameter] = []
        while self.token.kind != ")":
            found.append(self._parameter())
            if not self.accept(","):
                break
        self.brackets -= 1
        self.expect(")", "',' or ')'")
        return tuple(found)

    def _parameter(self) -> Parameter:
        start, data, value = self.token.start, *self._type()
        name = self.expect("name", "the parameter's name").text
        default = self.expression() if self.accept("=") else None
        return Parameter(self.span(start), name, data, value, default)

    def _type(self) -> tuple[str, str]:
        """``double`` or ``matrix[double]``, in any case, as (data type, value type)."""
        word = self.expect("name", "a type").text.lower()
        data, value = ("scalar", VALUE_TYPES[word]) if word in VALUE_TYPES else (word, "double")
        if data not in DATA_TYPES:
            self.go_back(self.place - 1)
            raise self.unexpected(
                "a type", "Types are double, int, string, boolean, matrix[double], frame[string], list[unknown]."
            )
        if self.accept("["):
            inner = self.expect("name", "the type of the cells").text.lower()
            value = VALUE_TYPES.get(inner, "unknown")
            self.expect("]", "']'")
        return data, value


def _statement_hint(kind: str) -> str | None:
    if kind == "else":
        return (
            "There is no if before this else; a newline or ';' between '}' and else is fine, another statement is not."
        )
    if kind == "}":
        return "There is a closing brace too many."
    return None


__all__ = ["parse"]
