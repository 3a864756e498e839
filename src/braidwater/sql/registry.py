"""The functions of the SQL face: declared once as Python functions, with the names, orders and defaults of MADlib's.

A function's parameters, their defaults, how its arguments are read and the text of its help all follow from its signature and
its docstring::

    @function(table=True)
    def summary(place: Place, source_table: Source, output_table: Output, target_cols: Columns = None, ...) -> Record:
        '''Figures of the columns of a table.

        source_table: the table.
        '''
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from typing import Any

from sqlglot import exp

from braidwater.errors import OptionError
from braidwater.sql.names import Name, parse_columns, parse_expression, parse_name

HELP = ("", "usage", "help", "?", "example", "examples")
REQUIRED = inspect.Parameter.empty

# How a parameter is annotated: the SQL type that it has, and what its argument is turned into
Source = Name  # a table that is there
Output = Name  # a table that must not be there
Expression = exp.Expression
Columns = tuple[str, ...] | None
Vectors = list[list[float]]
Numbers = list[float | None]
Integers = list[int]
Binary = bytes
Count = int | float
_TYPES = {
    "Source": "text", "Output": "text", "Expression": "text", "Columns": "text", "Vectors": "float8[][]", "str": "text",
    "int": "integer", "float": "float8", "bool": "boolean", "Numbers": "float8[]", "Count": "numeric", "Integers": "integer[]",
    "Binary": "bytea",
}  # fmt: skip


@dataclass(frozen=True)
class Parameter:
    """A parameter: `kind` is the name of its annotation, `default` is `REQUIRED` where it has none."""

    name: str
    kind: str
    default: Any
    about: str

    @property
    def sql_type(self) -> str:
        return _TYPES[self.kind]

    def convert(self, value: Any) -> Any:
        """The argument as the function wants it; `OptionError` where it cannot be that."""
        if value is None:
            if self.default is REQUIRED:
                raise OptionError(self.name, None, f"given: {self.about.rstrip('.') or self.sql_type}")
            return self.default
        try:
            return _CONVERT[self.kind](self.name, value)
        except (TypeError, ValueError, ArithmeticError) as error:
            if isinstance(error, OptionError):
                raise
            raise OptionError(self.name, value, f"of type {self.sql_type}") from error


@dataclass(frozen=True)
class Function:
    """A function: called with a place and its converted arguments. `columns` are those of the row it gives, if it gives one."""

    name: str
    parameters: tuple[Parameter, ...]
    about: str
    columns: tuple[str, ...]
    run: Callable[..., Any]

    @property
    def signature(self) -> str:
        parts = []
        for one in self.parameters:
            default = "" if one.default is REQUIRED else f" = {sql_text(one.default)}"
            parts.append(f"{one.name} {one.sql_type}{default}")
        return f"{self.name}({', '.join(parts)})"

    def accepts(self, arguments: Sequence[Any], named: Mapping[str, Any]) -> bool:
        """Whether the arguments could be for this one among functions of one name."""
        known = {one.name for one in self.parameters}
        if len(arguments) > len(self.parameters) or not set(named) <= known:
            return False
        for parameter, value in zip(self.parameters, arguments, strict=False):
            is_list = isinstance(value, (list, tuple)) or (isinstance(value, str) and value.lstrip().startswith("{"))
            if value is not None and is_list != parameter.sql_type.endswith("[]"):
                return False
        return all(one.default is not REQUIRED or one.name in named for one in self.parameters[len(arguments) :])

    def bind(self, arguments: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments by name, converted, with the defaults of those left out."""
        if len(arguments) > len(self.parameters):
            raise OptionError("arguments", len(arguments), f"at most {len(self.parameters)}: {self.signature}")
        names = [one.name for one in self.parameters]
        given = dict(zip(names, arguments, strict=False))
        for name, value in named.items():
            if name not in names:
                near = get_close_matches(name, names, n=1)
                raise OptionError(
                    name, value, f"one of {', '.join(names)}" + (f" (did you mean {near[0]}?)" if near else "")
                )
            if name in given:
                raise OptionError(name, value, "given once")
            given[name] = value
        missing = [one.name for one in self.parameters if one.default is REQUIRED and one.name not in given]
        if missing:
            raise OptionError(missing[0], None, f"given: {self.signature}")
        return {one.name: one.convert(given.get(one.name)) for one in self.parameters}

    def help(self) -> str:
        """What ``SELECT madlib.f()`` answers."""
        width = max(len(one.name) for one in self.parameters)
        lines = [self.about, "", f"SELECT madlib.{self.name}("]
        for place, one in enumerate(self.parameters):
            comma = "," if place < len(self.parameters) - 1 else ""
            default = "" if one.default is REQUIRED else f", {sql_text(one.default)} where left out"
            lines.append(f"    {one.name + comma:<{width + 1}}  -- {one.sql_type}{default}: {one.about}")
        return "\n".join([*lines, ")"])


FUNCTIONS: dict[str, list[Function]] = {}


def function(
    *, columns: Sequence[str] = (), name: str | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare a function of the SQL face; see the module's docstring. Several of one `name` are told apart by arguments."""

    def declare(run: Callable[..., Any]) -> Callable[..., Any]:
        about, described = _described(inspect.getdoc(run) or "")
        given = list(inspect.signature(run).parameters.values())[1:]
        parameters = tuple(
            Parameter(one.name, str(one.annotation).removesuffix(" | None"), one.default, described.get(one.name, ""))
            for one in given
        )
        found = Function(name or run.__name__, parameters, about, tuple(columns), run)
        FUNCTIONS.setdefault(found.name, []).append(found)
        return run

    return declare


def sql_text(value: Any) -> str:
    """A default as SQL writes it."""
    if value is None or value == ():
        return "NULL"
    if isinstance(value, bool):
        return str(value).upper()
    return f"'{value}'" if isinstance(value, str) else str(value)


def _described(text: str) -> tuple[str, dict[str, str]]:
    """The first part of a docstring, and its lines ``name: what it is``."""
    head, *rest = text.split("\n\n")
    entries = re.findall(r"^(\w+): (.+(?:\n    .+)*)", "\n".join(rest), flags=re.MULTILINE)
    return " ".join(head.split()), {name: " ".join(about.split()) for name, about in entries}


def parse_array(name: str, value: Any) -> Any:
    """Nested lists of numbers, from a list or from PostgreSQL's ``{{1,2},{3,4}}``.

    >>> parse_array("centroids", "{{1, 2.5}, {-3e2, NULL}}")
    [[1.0, 2.5], [-300.0, None]]
    """
    if not isinstance(value, str):
        return _floats(name, value)
    number = r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|nan|infinity|inf)|null"
    if re.fullmatch(rf"\s*\{{(?:[{{}},\s]|{number})*\}}\s*", value, flags=re.IGNORECASE) is None:
        raise OptionError(name, value, "an array of numbers such as {1,2,3} or ARRAY[1,2,3]")
    import json

    names = {"nan": "NaN", "infinity": "Infinity", "inf": "Infinity", "null": "null"}

    def spelt(match: re.Match[str]) -> str:
        text = match[0]
        sign, bare = ("-", text[1:]) if text.startswith("-") else ("", text.lstrip("+"))
        return sign + names.get(bare.lower(), repr(float(bare)) if bare.lower() not in names else bare)

    text = re.sub(number, spelt, value, flags=re.IGNORECASE).replace("{", "[").replace("}", "]")
    try:
        return _floats(name, json.loads(text))
    except json.JSONDecodeError as error:
        raise OptionError(name, value, "an array of numbers such as {1,2,3}") from error


def _floats(name: str, value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, (list, tuple)) or hasattr(value, "tolist"):
        return [_floats(name, one) for one in (value.tolist() if hasattr(value, "tolist") else value)]
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        raise OptionError(name, value, "an array of numbers")
    return float(value)


def _vectors(name: str, value: Any) -> list[list[float]]:
    found = parse_array(name, value)
    if not found or not all(isinstance(row, list) and row for row in found):
        raise OptionError(name, value, "an array of arrays of numbers, such as ARRAY[[0, 0], [1, 2]]")
    widths = {len(row) for row in found}
    flat = [number for row in found for number in row]
    if len(widths) > 1 or None in flat or any(number != number or abs(number) == float("inf") for number in flat):
        raise OptionError(name, value, "an array of arrays of as many finite numbers each")
    return list(found)


def _integer(name: str, value: Any) -> int:
    if isinstance(value, bool) or int(value) != value:
        raise OptionError(name, value, "an integer")
    return int(value)


def _boolean(name: str, value: Any) -> bool:
    words = {"t": True, "true": True, "f": False, "false": False, "yes": True, "no": False, "on": True, "off": False}
    if isinstance(value, str) and value.strip().lower() in words:
        return words[value.strip().lower()]
    if not isinstance(value, bool):
        raise OptionError(name, value, "TRUE or FALSE")
    return value


def _string(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise OptionError(name, value, "a text")
    return value


def _columns(name: str, value: Any) -> tuple[str, ...] | None:
    text = _string(name, value).strip()
    return None if text in ("", "*") or text.lower() == "null" else parse_columns(name, text)


def _binary(name: str, value: Any) -> bytes:
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise OptionError(name, type(value).__name__, "a bytea")
    return bytes(value)


def _count(name: str, value: Any) -> int | float:
    """MADlib tells 1 component from a share of 1.0: the type of the argument decides."""
    return value if isinstance(value, int) and not isinstance(value, bool) else float(value)


_CONVERT: dict[str, Callable[[str, Any], Any]] = {
    "Source": lambda name, value: parse_name(name, _string(name, value)),
    "Output": lambda name, value: parse_name(name, _string(name, value)),
    "Expression": lambda name, value: parse_expression(name, _string(name, value)),
    "Columns": _columns,
    "Vectors": _vectors,
    "Numbers": parse_array,
    "Integers": lambda name, value: [_integer(name, one) for one in parse_array(name, value)],
    "Count": _count,
    "Binary": _binary,
    "str": _string,
    "int": _integer,
    "float": lambda name, value: float(value),
    "bool": _boolean,
}
