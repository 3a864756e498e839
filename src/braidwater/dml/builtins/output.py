"""What a script tells: printing, ending, asserting, the clock."""

from __future__ import annotations

import re
import time as clock
from typing import Any

from braidwater.dml.builtins.base import Caller, builtin
from braidwater.dml.interpreter.printing import text_of, to_string
from braidwater.dml.values import ListValue
from braidwater.errors import DMLStopped, DMLTypeError, DMLValueError

_FORMAT = re.compile(r"%[-+ 0#,]*\d*(?:\.\d+)?[a-zA-Z]|%%")


def shown(caller: Caller, value: Any) -> Any:
    """A value with everything in it computed."""
    if isinstance(value, ListValue):
        return ListValue([shown(caller, item) for item in value.items], value.names)
    return caller.gathered(value)


@builtin(
    "print(text: value, more...: value)", "Show a value; or a text with the places %d, %f, %s filled by further values."
)
def show(caller: Caller, text: Any, more: list[tuple[str | None, Any]]) -> None:
    first = shown(caller, text)
    caller.context.show(_formatted(first, [shown(caller, value) for _, value in more]) if more else text_of(first))


def _formatted(template: Any, values: list[Any]) -> str:
    if not isinstance(template, str):
        raise DMLTypeError("print with several arguments needs a text with places such as %d first.")
    left = list(values)

    def filled(found: re.Match[str]) -> str:
        if found[0] == "%%":
            return "%"
        if not left:
            raise DMLTypeError("The text of print has more places than there are values.")
        value, kind = left.pop(0), found[0][-1]
        if kind == "s":
            return found[0] % text_of(value)
        if isinstance(value, str) or kind not in "dfeEgG":
            raise DMLTypeError(f"{found[0]} cannot show {value!r}.")
        return found[0].replace(",", "") % (int(value) if kind == "d" else float(value))

    return _FORMAT.sub(filled, template)


@builtin("toString(target: value, rows: int = 100, cols: int = 100, decimal: int = 3, sparse: boolean = FALSE, "
         "sep: string = ' ', linesep: string = '\\n')",
         "A matrix, frame or list as text.")  # fmt: skip
def to_text(
    caller: Caller, target: Any, rows: int, cols: int, decimal: int, sparse: bool, sep: str, linesep: str
) -> str:
    return to_string(shown(caller, target), rows, cols, decimal, sparse, sep, linesep.replace("\\n", "\n"))


@builtin("stop(message: value)", "End the script with an error.")
def stop(caller: Caller, message: Any) -> None:
    raise DMLStopped(text_of(caller.force(message)))


@builtin("assert(condition: value)", "End the script with an error unless the condition is true.")
def check(caller: Caller, condition: Any) -> None:
    if not caller.interpreter.expressions.to_scalar(condition, caller.span):
        raise DMLValueError(f"This does not hold: {caller.span.text}")


@builtin("time()", "Nanoseconds of a clock, after all that waits was computed.")
def time(caller: Caller) -> int:
    caller.interpreter.block.flush()
    return clock.perf_counter_ns()
