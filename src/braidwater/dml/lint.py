"""Mistakes that can be seen without running a script."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from braidwater.dml.builtins import BUILTINS
from braidwater.dml.interpreter.scope import Loader, Module, unknown
from braidwater.dml.syntax.nodes import (
    Assign,
    AssignMany,
    Branch,
    Call,
    Expression,
    For,
    Function,
    If,
    Index,
    Name,
    Perform,
    Statement,
    While,
    walk,
)
from braidwater.errors import DMLError, DMLTypeError


def lint(module: Module, loader: Loader) -> list[DMLError]:
    """Functions that are not there, calls whose arguments do not fit, variables that nothing ever assigns to; in order."""
    found = list(_scope(module, loader, module.script.statements, set()))
    for function in module.functions.values():
        if not function.external:
            found += _scope(module, loader, function.body, {parameter.name for parameter in function.parameters})
            found += _results(function)
    return sorted(found, key=lambda error: (error.line or 0, error.column or 0))


def _scope(module: Module, loader: Loader, statements: list[Statement], known: set[str]) -> Iterator[DMLError]:
    names = known | set(_assigned(statements))
    for expression in _expressions(statements):
        for node in walk(expression):
            if isinstance(node, Name | Index) and node.name not in names:
                yield unknown("variable", node.name, sorted(names), node.span)
            elif isinstance(node, Call):
                yield from _call(node, module, loader)


def _call(call: Call, module: Module, loader: Loader) -> Iterator[DMLError]:
    if call.name == "ifdef":
        return
    function = module.find(call.name)
    try:
        if function is None and call.name in BUILTINS:
            BUILTINS[call.name].signature.bind([(given.name, None) for given in call.arguments])
            return
        function = function or loader.of_library(call.name)
    except DMLError as error:
        yield error.at(call.span)
        return
    if function is None:
        known = [*module.functions, *BUILTINS, *loader.library_names()]
        yield unknown("function", call.name, known, call.span)
    else:
        yield from _arguments(call, function[1])


def _arguments(call: Call, function: Function) -> Iterator[DMLError]:
    names = [parameter.name for parameter in function.parameters]
    for given in call.arguments:
        if given.name is not None and given.name not in names:
            yield unknown("parameter", given.name, names, given.span)
    if len(call.arguments) > len(names):
        yield DMLTypeError(f"{call.name} takes {len(names)} arguments, and is given {len(call.arguments)}.", call.span)
    positional = sum(given.name is None for given in call.arguments)
    named = {given.name for given in call.arguments}
    free = [parameter for parameter in function.parameters if parameter.name not in named][positional:]
    for parameter in free:
        if parameter.default is None:
            yield DMLTypeError(f"{call.name} needs the argument {parameter.name!r}.", call.span)


def _results(function: Function) -> Iterator[DMLError]:
    assigned = set(_assigned(function.body)) | {parameter.name for parameter in function.parameters}
    for result in function.results:
        if result.name not in assigned:
            yield unknown("value for the result", result.name, sorted(assigned), result.span)


def _everything(statements: list[Statement]) -> Iterator[Statement | Branch]:
    waiting: list[Any] = list(statements)
    while waiting:
        found = waiting.pop()
        yield found
        if isinstance(found, If):
            waiting += [*found.branches, *found.otherwise]
        elif isinstance(found, While | For | Branch):
            waiting += found.body


def _assigned(statements: list[Statement]) -> Iterator[str]:
    for found in _everything(statements):
        if isinstance(found, Assign):
            yield found.target.name
        elif isinstance(found, AssignMany):
            yield from (target.name for target in found.targets)
        elif isinstance(found, For):
            yield found.variable


def _expressions(statements: list[Statement]) -> Iterator[Expression]:
    for found in _everything(statements):
        match found:
            case Assign():
                yield found.value
                yield found.target
            case AssignMany():
                yield found.call
            case Perform():
                yield found.call
            case While() | Branch():
                yield found.condition
            case For():
                yield from (end for end in (found.first, found.last, found.step) if end is not None)
