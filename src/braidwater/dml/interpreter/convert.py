"""Values made to fit the types that a function declares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from braidwater.dml.interpreter.lazy import Lazy, is_matrix_value, settled
from braidwater.dml.interpreter.printing import text_of
from braidwater.dml.interpreter.scalars import to_integer
from braidwater.dml.syntax import Span
from braidwater.dml.syntax.nodes import Parameter
from braidwater.dml.values import Frame, ListValue, kind_of, with_article
from braidwater.errors import DMLTypeError

if TYPE_CHECKING:
    from braidwater.dml.interpreter.interpreter import Interpreter


def converted(
    interpreter: Interpreter, value: Any, parameter: Parameter, function: str, span: Span, *, is_result: bool = False
) -> Any:
    """`value` as the type of `parameter`: a double becomes an int towards zero, an int a double.

    A result that is no whole number though an int was declared stays a double, as in SystemDS.

    Raises DMLTypeError where data types differ (a matrix for a number), and when strict for such a result.
    """
    value = settled(value)
    if parameter.data == "scalar":
        return _scalar(interpreter, value, parameter, function, span, is_result)
    if isinstance(value, ListValue) and parameter.data != "list" and len(value) == 1:
        value = settled(value.items[0])
    found = _data_type(value)
    if found != parameter.data and not (parameter.data == "tensor" and found == "matrix"):
        what = "result" if is_result else "parameter"
        hint = (
            "as.matrix(x) makes a 1 x 1 matrix of a number."
            if parameter.data == "matrix" and found == "scalar"
            else None
        )
        raise DMLTypeError(
            f"The {what} {parameter.name!r} of {function} is {with_article(parameter.data)}, "
            f"and got {with_article(_word(value))}.",
            span,
            hint=hint,
        )
    return value


def _scalar(
    interpreter: Interpreter, value: Any, parameter: Parameter, function: str, span: Span, is_result: bool
) -> Any:
    if isinstance(value, ListValue) and len(value) == 1:
        value = settled(value.items[0])
    if parameter.value == "unknown" and not is_matrix_value(value):
        return value
    if is_matrix_value(value) or isinstance(value, Frame | ListValue):
        what = "result" if is_result else "parameter"
        hint = "as.scalar(X) takes the number out of a 1 x 1 matrix." if is_matrix_value(value) else None
        if not is_matrix_value(value) or interpreter.context.strict or interpreter.block.shape(value) != (1, 1):
            raise DMLTypeError(
                f"The {what} {parameter.name!r} of {function} is {with_article(parameter.value)}, "
                f"and got {with_article(_word(value))}.",
                span,
                hint=hint,
            )
        value = interpreter.expressions.to_scalar(value, span)
    if parameter.value == "double" and isinstance(value, Lazy):
        return value
    found = interpreter.block.force(value)
    return cast(found, parameter.value, parameter.name, span, is_result, interpreter.context.strict)


def cast(value: Any, kind: str, name: str, span: Span, is_result: bool = False, strict: bool = True) -> Any:
    """A scalar as double, int, boolean or string."""
    if kind == "string":
        return text_of(value)
    if kind == "unknown":
        return value
    if isinstance(value, str):
        raise DMLTypeError(f"{name!r} is {with_article(kind)}, and got the string {value!r}.", span)
    if kind == "double":
        return float(value)
    if kind == "boolean":
        return bool(value)
    if is_result and isinstance(value, float) and not value.is_integer():
        if not strict:
            return value  # SystemDS leaves it a double where it could not see that while compiling
        hint = "as.integer(x) cuts it, and round(x) rounds."
        raise DMLTypeError(f"The result {name!r} is an int, and got {text_of(value)}.", span, hint=hint)
    return to_integer(float(value)) if isinstance(value, float) else int(value)


def _data_type(value: Any) -> str:
    if is_matrix_value(value):
        return "matrix"
    return "frame" if isinstance(value, Frame) else "list" if isinstance(value, ListValue) else "scalar"


def _word(value: Any) -> str:
    return ("matrix" if value.is_matrix else "double") if isinstance(value, Lazy) else kind_of(value)
