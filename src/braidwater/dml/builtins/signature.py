"""Declared signatures of built-in functions, and arguments matched to them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from braidwater.errors import DMLTypeError

REQUIRED: Any = object()
_PARAMETER = re.compile(r"^(?P<name>[\w.]*\w)(?P<many>\.\.\.)?\s*:\s*(?P<kind>\w+)(\s*=\s*(?P<default>.+))?$")


@dataclass(frozen=True)
class Parameter:
    """`kind` is what is accepted: matrix, number, value, double, int, boolean, string, scalar, frame or list."""

    name: str
    kind: str
    default: Any = REQUIRED
    many: bool = False  # takes all arguments that are left, with their names

    @property
    def python_name(self) -> str:
        return self.name.replace(".", "_").replace("lambda", "lambda_")


@dataclass(frozen=True)
class Signature:
    """Name and parameters, in the order of positions."""

    name: str
    parameters: tuple[Parameter, ...]
    text: str

    @staticmethod
    def parse(text: str) -> Signature:
        """From ``name(parameter: kind = default, ...)``.

        >>> Signature.parse("rev(X: matrix)").parameters
        (Parameter(name='X', kind='matrix', default=<object ...>, many=False),)
        """
        name, _, inside = text.partition("(")
        parts = [part.strip() for part in inside.rstrip(")").split(",") if part.strip()]
        return Signature(name, tuple(map(_parameter, parts)), text)

    def bind(self, given: Sequence[tuple[str | None, Any]]) -> list[tuple[Parameter, Any]]:
        """Each parameter that has a value, with it. Positional and named arguments may be mixed.

        Where no parameter can be left out and no other argument has a name, one that is not known counts as none: in the
        reference implementation such functions have no names for their arguments. Raises DMLTypeError for what is missing,
        unknown or given twice.
        """
        named = {parameter.name: parameter for parameter in self.parameters if not parameter.many}
        by_place = not any(name in named for name, _ in given) and all(
            parameter.default is REQUIRED for parameter in self.parameters
        )
        places = [parameter for parameter in self.parameters if not parameter.many]
        rest = next((parameter for parameter in self.parameters if parameter.many), None)
        found: dict[str, Any] = {}
        left: list[tuple[str | None, Any]] = []
        for name, value in given:
            if name is not None and name in named and name not in found:
                found[name] = value
            elif name is not None and name in found:
                raise DMLTypeError(f"{self.name} is given {name} twice.")
            else:
                left.append((None if by_place and rest is None else name, value))
        free = [parameter for parameter in places if parameter.name not in found]
        further: list[tuple[str | None, Any]] = []
        for name, value in left:
            if name is None and free:
                found[free.pop(0).name] = value
            elif rest is not None:
                further.append((name, value))
            else:
                wrong = (
                    f"{self.name} is given too many arguments."
                    if name is None
                    else f"{self.name} has no parameter {name!r}."
                )
                raise DMLTypeError(wrong, hint=f"It is called as {self.text}.")
        missing = [parameter.name for parameter in free if parameter.default is REQUIRED]
        if missing:
            raise DMLTypeError(f"{self.name} needs {', '.join(missing)}.", hint=f"It is called as {self.text}.")
        bound = [(parameter, found.get(parameter.name, parameter.default)) for parameter in places]
        return bound if rest is None else [*bound, (rest, further)]


def _parameter(text: str) -> Parameter:
    found = _PARAMETER.match(text)
    if found is None:
        raise ValueError(f"not a parameter: {text!r}")
    default = REQUIRED if found["default"] is None else _constant(found["default"])
    return Parameter(found["name"], found["kind"], default, bool(found["many"]))


def _constant(text: str) -> Any:
    if text[0] in "\"'":
        return text[1:-1]
    known = {"none": None, "TRUE": True, "FALSE": False, "NaN": float("nan"), "Inf": float("inf")}
    if text in known:
        return known[text]
    return int(text) if re.fullmatch(r"-?\d+", text) else float(text)
