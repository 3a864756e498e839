"""Calls: which function a name means, its arguments, and functions written in the language."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from braidwater.dml.builtins import BUILTINS, Caller
from braidwater.dml.interpreter.convert import converted
from braidwater.dml.interpreter.scope import Module, Scope, unknown
from braidwater.dml.syntax import Span
from braidwater.dml.syntax.nodes import Argument, Call, Function
from braidwater.errors import DMLNameError, DMLTypeError, DMLValueError, UnsupportedError

if TYPE_CHECKING:
    from braidwater.dml.interpreter.interpreter import Interpreter

DEEPEST = 200
Given = list[tuple[str | None, Any]]


class Calls:
    """Runs calls for an interpreter."""

    def __init__(self, interpreter: Interpreter) -> None:
        self._interpreter = interpreter

    def single(self, call: Call, scope: Scope) -> Any:
        """The value of a call that stands in an expression: the first result."""
        found = self.run(call, scope)
        if isinstance(found, tuple):
            if not found:
                raise DMLTypeError(f"{call.name} has no result that could be used here.", call.span)
            return found[0]
        if found is None:
            raise DMLTypeError(f"{call.name} has no result that could be used here.", call.span)
        return found

    def run(self, call: Call, scope: Scope) -> Any:
        """What a call gives: a value, a tuple of several, or None."""
        if call.name == "ifdef":
            return self._ifdef(call, scope)
        evaluate = self._interpreter.expressions.value
        given = [(each.name, evaluate(each.value, scope)) for each in call.arguments]
        return self.apply(call.name, given, scope, call.span)

    def apply(self, name: str, given: Given, scope: Scope, span: Span) -> Any:
        """Call a function by its name: of the script, built in, or of the library."""
        found = scope.module.find(name)
        if found is None and name in BUILTINS:
            return Caller(self._interpreter, name, span).run(BUILTINS[name], given)
        found = found or self._interpreter.loader.of_library(name)
        if found is None:
            raise self._unknown(name, scope, span)
        return self.function(*found, given, span)

    def exists(self, name: str, scope: Scope) -> bool:
        known = scope.module.find(name) is not None or name in BUILTINS
        return known or self._interpreter.loader.of_library(name) is not None

    def function(self, module: Module, function: Function, given: Given, span: Span) -> tuple[Any, ...]:
        """Call a function of the language. Its results come in the order of its ``return (...)``."""
        if function.external:
            replaced = self._interpreter.loader.of_library(function.name)
            if replaced is None:
                raise UnsupportedError(
                    f"{function.name} is an externalFunction of Java, which cannot be called here. "
                    f"A function m_{function.name} in a folder of library= takes its place."
                )
            return self.function(*replaced, given, span)
        interpreter = self._interpreter
        if len(interpreter.scopes) > DEEPEST:
            raise DMLValueError(
                f"{function.name} was called more than {DEEPEST} levels deep.",
                span,
                hint="Does its recursion end? A while loop has no such limit.",
            )
        scope = Scope(module, module.liveness(function))
        scope.variables.update(self._bound(function, given, scope, span))
        interpreter.scopes.append(scope)
        try:
            interpreter.run_statements(function.body, scope)
            scope.live = scope.liveness.at_end
            results = [self._result(function, place, scope, span) for place in range(len(function.results))]
        finally:
            interpreter.scopes.pop()
        return tuple(results)

    def _bound(self, function: Function, given: Given, scope: Scope, span: Span) -> dict[str, Any]:
        names = [parameter.name for parameter in function.parameters]
        found: dict[str, Any] = {}
        waiting = [value for name, value in given if name is None]
        for name, value in given:
            if name is not None:
                if name not in names:
                    error = unknown("parameter", name, names, span)
                    error.problem = f"{function.name} has no parameter {name!r}."
                    error.hint = error.hint or f"It has {', '.join(names) or 'none'}."
                    raise error
                found[name] = value
        if self._interpreter.context.strict and waiting and found:
            raise DMLTypeError(f"{function.name} is given some arguments by name and others by position.", span)
        free = [name for name in names if name not in found]
        if len(waiting) > len(free):
            raise DMLTypeError(f"{function.name} takes {len(names)} arguments, and is given {len(given)}.", span)
        found.update(zip(free, waiting, strict=False))
        convert = self._interpreter
        for parameter in function.parameters:
            if parameter.name in found:
                found[parameter.name] = converted(convert, found[parameter.name], parameter, function.name, span)
            elif parameter.default is None:
                hint = f"Its parameters are {', '.join(names)}."
                raise DMLTypeError(f"{function.name} needs the argument {parameter.name!r}.", span, hint=hint)
            else:
                default = self._interpreter.expressions.value(parameter.default, scope)
                found[parameter.name] = converted(convert, default, parameter, function.name, span)
        return found

    def _result(self, function: Function, place: int, scope: Scope, span: Span) -> Any:
        result = function.results[place]
        if result.name not in scope.variables:
            raise DMLNameError(
                f"{function.name} ended without a value for its result {result.name!r}.",
                result.span,
                hint="Assign to it on every way through the function.",
            )
        return converted(
            self._interpreter, scope.variables[result.name], result, function.name, result.span, is_result=True
        )

    def _ifdef(self, call: Call, scope: Scope) -> Any:
        if len(call.arguments) != 2 or not isinstance(call.arguments[0].value, Argument):
            raise DMLTypeError("ifdef takes an argument of the script and a default: ifdef($name, 0).", call.span)
        wanted = call.arguments[0].value
        if wanted.name in self._interpreter.arguments:
            return self._interpreter.argument(wanted)
        return self._interpreter.expressions.value(call.arguments[1].value, scope)

    def _unknown(self, name: str, scope: Scope, span: Span) -> DMLNameError:
        namespace, _, plain = name.rpartition("::")
        if namespace:
            module = scope.module.imports.get(namespace)
            if module is None:
                return unknown("namespace", namespace, list(scope.module.imports), span)
            return unknown("function", name, [f"{namespace}::{each}" for each in module.functions], span)
        known = [*scope.module.functions, *BUILTINS, *self._interpreter.loader.library_names()]
        return unknown("function", plain, known, span)
