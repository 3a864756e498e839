"""Encoding: raw columns of a table to numbers, declared once, fitted by the table's own SQL, saved with the model."""

from braidwater.encoding.base import ColumnEncoder, FittedColumn
from braidwater.encoding.boolean import Boolean
from braidwater.encoding.categorical import Categorical
from braidwater.encoding.design import CodeTerm, Design, NumberTerm, WideTerm
from braidwater.encoding.encoding import Encoding, FittedEncoding
from braidwater.encoding.hashed import Hashed
from braidwater.encoding.numeric import Numeric
from braidwater.encoding.selectors import matching, of_type
from braidwater.encoding.sequence import Sequence
from braidwater.encoding.wide import Image, Vector

__all__ = [
    "Boolean",
    "Categorical",
    "CodeTerm",
    "ColumnEncoder",
    "Design",
    "Encoding",
    "FittedColumn",
    "FittedEncoding",
    "Hashed",
    "Image",
    "NumberTerm",
    "Numeric",
    "Sequence",
    "Vector",
    "WideTerm",
    "matching",
    "of_type",
]
