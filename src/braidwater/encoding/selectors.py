"""Picking columns by their type or name."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase

import pyarrow as pa

from braidwater.encoding.base import check_choice
from braidwater.encoding.numeric import is_number
from braidwater.encoding.wide import is_list

Selector = Callable[[pa.Field], bool]


def is_text(type: pa.DataType) -> bool:
    """Whether a column of this type holds text, as it is or as codes into a dictionary."""
    if pa.types.is_dictionary(type):
        return is_text(type.value_type)
    return bool(pa.types.is_string(type) or pa.types.is_large_string(type) or pa.types.is_string_view(type))


_KINDS: dict[str, Callable[[pa.DataType], bool]] = {
    "number": is_number,
    "integer": pa.types.is_integer,
    "float": pa.types.is_floating,
    "boolean": pa.types.is_boolean,
    "string": is_text,
    "vector": is_list,
}


def of_type(kind: str) -> Selector:
    """Columns of a kind: ``number``, ``integer``, ``float``, ``boolean``, ``string`` or ``vector``.

    >>> of_type("number")(pa.field("x", pa.int32()))
    True
    """
    check_choice("kind", kind, tuple(_KINDS))
    return lambda field: bool(_KINDS[kind](field.type))


def matching(pattern: str) -> Selector:
    """Columns whose name matches a shell pattern, case counting.

    >>> matching("x_*")(pa.field("x_1", pa.int32()))
    True
    """
    return lambda field: fnmatchcase(field.name, pattern)
