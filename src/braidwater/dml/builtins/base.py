"""The table of built-in functions, and what one of them sees when it is called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from braidwater.dml.builtins.signature import Parameter, Signature
from braidwater.dml.interpreter.lazy import Lazy, is_matrix_value, settled
from braidwater.dml.interpreter.scalars import number_in, to_integer
from braidwater.dml.values import Frame, ListValue, dense, kind_of, with_article
from braidwater.errors import DMLError, DMLTypeError, OptionError, UnsupportedError

if TYPE_CHECKING:
    from braidwater.dml.context import Context
    from braidwater.dml.interpreter.interpreter import Interpreter
    from braidwater.dml.syntax import Span

Given = Sequence[tuple[str | None, Any]]


@dataclass(frozen=True)
class Builtin:
    """A function of the language. `family` is the file it is declared in, by which the reference is ordered."""

    signature: Signature
    run: Callable[..., Any]
    doc: str
    family: str
    aliases: tuple[str, ...] = ()


BUILTINS: dict[str, Builtin] = {}
"""All built-in functions by name, aliases included."""


def builtin(signature: str, doc: str, *aliases: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare the decorated function as a built-in. It gets a `Caller` and its arguments by name, dots as underscores."""
    parsed = Signature.parse(signature)

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        made = Builtin(parsed, function, doc, function.__module__.rpartition(".")[2], aliases)
        for name in (parsed.name, *aliases):
            BUILTINS[name] = made
        return function

    return declare


class Caller:
    """What a built-in sees of the call: the place, the run's context, and how to compute."""

    def __init__(self, interpreter: Interpreter, name: str, span: Span) -> None:
        self.interpreter = interpreter
        self.name = name
        self.span = span

    @property
    def context(self) -> Context:
        return self.interpreter.context

    def node(self, op: str, *inputs: Any, **attributes: Any) -> Any:
        """An operator that will be computed when it is needed."""
        return self.interpreter.block.node(op, *inputs, span=self.span, **attributes)

    def force(self, value: Any) -> Any:
        """A value that is computed."""
        return self.interpreter.block.force(value)

    def gathered(self, value: Any) -> Any:
        """A value that is computed, and in memory."""
        return self.interpreter.block.gathered(value)

    def array(self, value: Any) -> Any:
        """A matrix as a dense array, computed."""
        return dense(self.gathered(value))

    def shape(self, matrix: Any) -> tuple[int, int]:
        return self.interpreter.block.shape(matrix)

    def run(self, builtin: Builtin, given: Given) -> Any:
        """Match the arguments to the signature and call."""
        try:
            arguments = {
                parameter.python_name: self._accepted(parameter, value)
                for parameter, value in builtin.signature.bind(given)
            }
            return builtin.run(self, **arguments)
        except DMLError as error:
            raise error.at(self.span)  # noqa: B904 - the same error, with its place
        except OptionError as error:
            raise DMLTypeError(str(error), self.span) from error
        except UnsupportedError as error:
            place = f"{self.span.file}:{self.span.line}:{self.span.column}"
            raise error if str(error).startswith(place) else UnsupportedError(f"{place}: {error}") from error

    def _accepted(self, parameter: Parameter, value: Any) -> Any:
        if parameter.many:
            return [(name, settled(each)) for name, each in value]
        if value is None or value is parameter.default:
            return value
        value = settled(value)
        accept = _ACCEPT[parameter.kind]
        return accept(self, parameter, value)

    def wrong(self, parameter: Parameter, wanted: str, value: Any) -> DMLTypeError:
        found = kind_of(settled(value)) if not isinstance(value, Lazy) else "matrix" if value.is_matrix else "double"
        hint = None
        if wanted == "a matrix" and found in ("integer", "double", "boolean"):
            hint = "as.matrix(x) makes a 1 x 1 matrix of a number."
        elif found == "matrix" and wanted != "a matrix":
            hint = "as.scalar(X) takes the number out of a 1 x 1 matrix."
        elif found == "frame":
            hint = "as.matrix(F) makes a matrix of a frame of numbers."
        elif found == "list":
            hint = 'Take an item out of the list: L[1] or L["name"].'
        return DMLTypeError(
            f"{self.name} needs {wanted} as {parameter.name}, and got {with_article(found)}.", self.span, hint=hint
        )


def _matrix(caller: Caller, parameter: Parameter, value: Any) -> Any:
    if isinstance(value, ListValue) and len(value) == 1:
        value = settled(value.items[0])
    if not is_matrix_value(value):
        raise caller.wrong(parameter, "a matrix", value)
    return value


def _number(caller: Caller, parameter: Parameter, value: Any) -> Any:
    if isinstance(value, Lazy) and not value.is_matrix:
        return value
    return _scalar(caller, parameter, value)


def _scalar(caller: Caller, parameter: Parameter, value: Any) -> Any:
    if isinstance(value, ListValue) and len(value) == 1:
        value = settled(value.items[0])
    if is_matrix_value(value):
        if caller.context.strict or caller.shape(value) != (1, 1):
            raise caller.wrong(parameter, "a number", value)
        return float(caller.array(value)[0, 0])
    if isinstance(value, Frame | ListValue):
        raise caller.wrong(parameter, "a number", value)
    return caller.force(value)


def _double(caller: Caller, parameter: Parameter, value: Any) -> float:
    found = _scalar(caller, parameter, value)
    number = number_in(found) if isinstance(found, str) and not caller.context.strict else found
    if number is None or isinstance(number, str):
        raise caller.wrong(parameter, "a number", found)
    return float(number)


def _int(caller: Caller, parameter: Parameter, value: Any) -> int:
    return to_integer(_double(caller, parameter, value))


def _boolean(caller: Caller, parameter: Parameter, value: Any) -> bool:
    found = _scalar(caller, parameter, value)
    if isinstance(found, str):
        raise caller.wrong(parameter, "TRUE or FALSE", found)
    return bool(found)


def _string(caller: Caller, parameter: Parameter, value: Any) -> str:
    found = _scalar(caller, parameter, value)
    if not isinstance(found, str):
        raise caller.wrong(parameter, "a string", found)
    return found


def _frame(caller: Caller, parameter: Parameter, value: Any) -> Frame:
    if not isinstance(value, Frame):
        raise caller.wrong(parameter, "a frame", value)
    return value


def _list(caller: Caller, parameter: Parameter, value: Any) -> ListValue:
    if not isinstance(value, ListValue):
        raise caller.wrong(parameter, "a list", value)
    return value


def _any(caller: Caller, parameter: Parameter, value: Any) -> Any:
    return value


_ACCEPT: dict[str, Callable[[Caller, Parameter, Any], Any]] = {
    "matrix": _matrix, "number": _number, "value": _any, "double": _double, "int": _int, "boolean": _boolean,
    "string": _string, "scalar": _scalar, "frame": _frame, "list": _list,
}  # fmt: skip
