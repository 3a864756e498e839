"""Calls of our functions in a statement: found, run, and replaced by what they gave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from sqlglot import exp

from braidwater.sql.mistakes import CallError
from braidwater.sql.place import Place
from braidwater.sql.registry import FUNCTIONS, HELP, Function
from braidwater.sql.rows import literal
from braidwater.sql.scalars import SCALARS

Evaluate = Callable[[list[exp.Expression]], list[Any]]
_NAMED = (exp.Kwarg, exp.PropertyEQ)  # name => value, name := value
_SCALARS = {one.name: one for one in SCALARS}


@dataclass(frozen=True)
class Call:
    """A call in a statement: the `node` to be replaced, which is an expression or stands in a FROM (`in_from`)."""

    node: exp.Expression
    name: str
    arguments: list[exp.Expression]
    in_from: bool


def calls_in(statement: exp.Expression, schema: str) -> list[Call]:
    """The calls of functions of the registry in `schema`, in the order in which they are written.

    Functions of a row are left to the database, but for a call without arguments or for help. A name that is in neither is an
    error here, with one that is near.
    """
    found = []
    for node in statement.find_all(exp.Dot, exp.Table):
        in_from = isinstance(node, exp.Table)
        owner, function = (node.args.get("db"), node.this) if in_from else (node.this, node.expression)
        if not isinstance(owner, exp.Identifier) or owner.name.lower() != schema or not isinstance(function, exp.Func):
            continue
        name, arguments = _parts(function)
        if name not in FUNCTIONS and name not in _SCALARS:
            near = get_close_matches(name, [*FUNCTIONS, *_SCALARS], n=1)
            hint = f"Did you mean {schema}.{near[0]}?" if near else f"SELECT {schema}.help() lists those that are."
            if name != "help":
                raise CallError(name, f"There is no function {schema}.{name}. {hint}")
        asks = not arguments or (len(arguments) == 1 and _text_of(arguments[0]) in HELP)
        if name in FUNCTIONS or asks or name == "help":
            found.append(Call(node, name, arguments, in_from))
    return sorted(found, key=lambda call: _depth(call.node), reverse=True)


def run_call(place: Place, call: Call, evaluate: Evaluate) -> None:
    """Run a call, and put what it gives in its place in the statement."""
    if not call.arguments or (len(call.arguments) == 1 and _text_of(call.arguments[0]) in HELP):
        _replace(place, call, _help(call.name), (call.name,))
        return
    values_of = [one.expression if isinstance(one, _NAMED) else one for one in call.arguments]
    columns = [one.find(exp.Column) for one in values_of if one.find(exp.Subquery) is None]
    column = next((one for one in columns if one is not None), None)
    if column is not None:
        raise CallError(
            call.name,
            f"{call.name} is called once, not for each row: its argument {column.sql('postgres')} is a column. "
            "Names of tables and columns are written as texts, in quotes.",
        )
    named = {one.this.name.lower(): one.expression for one in call.arguments if isinstance(one, _NAMED)}
    plain = [one for one in call.arguments if not isinstance(one, _NAMED)]
    values = evaluate([*plain, *named.values()])
    given = dict(zip(named, values[len(plain) :], strict=True))
    function = _chosen(call.name, values[: len(plain)], given)
    result = function.run(place, **function.bind(values[: len(plain)], given))
    _replace(place, call, result, function.columns or (call.name,))


def overview(schema: str = "madlib") -> str:
    """All functions, a line each."""
    lines = [f"{schema}.{one.signature}" for name in sorted(FUNCTIONS) for one in FUNCTIONS[name]]
    lines += [f"{schema}.{one.signature}" for one in SCALARS]
    return "\n".join(lines)


def _help(name: str) -> str:
    if name == "help":
        return overview()
    if name in FUNCTIONS:
        return "\n\n".join(one.help() for one in FUNCTIONS[name])
    return _SCALARS[name].help()


def _chosen(name: str, values: list[Any], named: dict[str, Any]) -> Function:
    overloads = FUNCTIONS[name]
    return next((one for one in overloads if one.accepts(values, named)), overloads[0])


def _replace(place: Place, call: Call, result: Any, columns: tuple[str, ...]) -> None:
    record = isinstance(result, dict)
    if call.in_from:
        values = result if record else {columns[0]: "" if result is None else result}
        query = exp.select(*(literal(value).as_(name, quoted=True) for name, value in values.items()))
        alias = call.node.args.get("alias")
        call.node.replace(exp.Subquery(this=query, alias=alias or exp.TableAlias(this=exp.to_identifier(call.name))))
        return
    if record:
        parent = call.node.parent
        while isinstance(parent, exp.Paren):
            parent = parent.parent
        if isinstance(parent, exp.Dot):  # (kmeanspp(...)).centroids, (kmeanspp(...)).*
            part = parent.expression
            if isinstance(part, exp.Star):
                _expand(parent, result)
            elif part.name.lower() in result:
                parent.replace(literal(result[part.name.lower()]))
            else:
                raise CallError(call.name, f"{call.name} gives {', '.join(result)}, and no {part.name!r}.")
            return
        value = _record(result, place.dialect)
    else:
        value = literal("" if result is None else result)
    is_whole = isinstance(call.node.parent, exp.Select)
    call.node.replace(value.as_(call.name) if is_whole else value)


def _record(result: dict[str, Any], dialect: str) -> exp.Expression:
    if dialect == "postgres":
        return exp.Anonymous(this="row", expressions=[literal(value) for value in result.values()])
    entries = [exp.PropertyEQ(this=exp.to_identifier(name), expression=literal(v)) for name, v in result.items()]
    return exp.Struct(expressions=entries)


def _expand(node: exp.Expression, result: dict[str, Any]) -> None:
    select = node.parent
    if not isinstance(select, exp.Select):
        raise CallError("", "(function(...)).* can only stand in a list of columns.")
    columns = []
    for one in select.expressions:
        columns += [literal(v).as_(name, quoted=True) for name, v in result.items()] if one is node else [one]
    select.set("expressions", columns)


def _parts(function: exp.Expression) -> tuple[str, list[exp.Expression]]:
    if isinstance(function, exp.Anonymous):
        return str(function.this).lower(), list(function.expressions)
    # a name that sqlglot knows as a function of its own
    arguments = [
        one for value in function.args.values() if value for one in (value if isinstance(value, list) else [value])
    ]
    return function.sql_name().lower(), [one for one in arguments if isinstance(one, exp.Expression)]


def _text_of(argument: exp.Expression) -> str | None:
    is_text = isinstance(argument, exp.Literal) and argument.is_string
    return str(argument.this).strip().lower() if is_text else None


def _depth(node: exp.Expression) -> int:
    depth, parent = 0, node.parent
    while parent is not None:
        depth, parent = depth + 1, parent.parent
    return depth
