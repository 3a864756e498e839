"""Lists, and functions called by a name that is computed."""

from __future__ import annotations

from typing import Any

from braidwater.dml.builtins.base import Caller, builtin
from braidwater.dml.values import Frame, ListValue, kind_of, with_article
from braidwater.errors import DMLTypeError


@builtin("list(items...: value)", "A list; items may have names: list(a = 1, b = X).")
def make_list(caller: Caller, items: list[tuple[str | None, Any]]) -> ListValue:
    return ListValue([value for _, value in items], [name for name, _ in items])


@builtin(
    "remove(target: list, item: scalar)",
    "[rest, item]: a list without an item (by number or name), and the item in a list of one.",
)
def remove(caller: Caller, target: ListValue, item: Any) -> tuple[ListValue, ListValue]:
    place = target.position(item)
    rest = [each for each in range(len(target)) if each != place]
    left = ListValue([target.items[each] for each in rest], [target.names[each] for each in rest])
    return left, ListValue([target.items[place]], [target.names[place]])


@builtin("names(target: value)", "The names of a list's items or a frame's columns, as a frame of one row.")
def names(caller: Caller, target: Any) -> Frame:
    if not isinstance(target, ListValue | Frame):
        raise DMLTypeError(f"names needs a list or frame, and got {with_article(kind_of(caller.force(target)))}.")
    return Frame.of([[name or ""] for name in target.names], types=["string"] * len(target.names))


def _call(caller: Caller, function: Any, items: list[tuple[str | None, Any]]) -> tuple[Any, ...]:
    name = caller.force(function)
    if not isinstance(name, str):
        raise DMLTypeError(f"{caller.name} needs the name of a function, and got {with_article(kind_of(name))}.")
    given = items
    if (
        len(items) == 1
        and isinstance(items[0][1], ListValue)
        and items[0][0] is None
        and _takes_list(caller, name, items[0][1])
    ):
        given = list(zip(items[0][1].names, items[0][1].items, strict=True))
    found = caller.interpreter.calls.apply(name, given, _scope(caller, name), caller.span)
    return found if isinstance(found, tuple) else () if found is None else (found,)


def _scope(caller: Caller, name: str) -> Any:
    """Where a function given by its name is looked for: beside the call, else in the script that was started.

    A function of the library (gridSearch) is given the names of functions of the script.
    """
    scopes = caller.interpreter.scopes
    return scopes[-1] if caller.interpreter.calls.exists(name, scopes[-1]) else scopes[0]


def _takes_list(caller: Caller, name: str, given: ListValue) -> bool:
    """Whether a list stands for the function's arguments: unless its one parameter is a list."""
    found = _scope(caller, name).module.find(name) or caller.interpreter.loader.of_library(name)
    if found is None:
        return True
    parameters = found[1].parameters
    return not (parameters and parameters[0].data == "list" and sum(each.default is None for each in parameters) <= 1)


@builtin(
    "eval(function: value, items...: value)",
    "Call a function by name, with arguments, or with a list of them; its first result.",
)
def evaluate(caller: Caller, function: Any, items: list[tuple[str | None, Any]]) -> Any:
    found = _call(caller, function, items)
    return found[0] if found else None


@builtin("evalList(function: value, items...: value)", "Call a function by name; all its results as a list.")
def evaluate_list(caller: Caller, function: Any, items: list[tuple[str | None, Any]]) -> ListValue:
    return ListValue(_call(caller, function, items))


@builtin("local(X: value)", "The value itself.")
def local(caller: Caller, X: Any) -> Any:
    return X


@builtin(
    "compress(X: value)", "The matrix itself: what is kept sparse or dense is not a script's business.", "decompress"
)
def compress(caller: Caller, X: Any) -> Any:
    return X
