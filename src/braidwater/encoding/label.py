"""The column that is learnt: a class, or a number."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from braidwater.blocks.arrow import null_mask, numpy_of
from braidwater.blocks.base import Array, BlockColumn
from braidwater.encoding.base import FITTED, ColumnFacts, Encoded, FittedColumn
from braidwater.encoding.categorical import code_type
from braidwater.encoding.numeric import FittedNumeric, Numeric
from braidwater.errors import LabelError, NullValueError

LabelKind = Literal["class", "number"]
MAX_CLASSES = 10_000


@FITTED.add
@dataclass(frozen=True)
class FittedClasses(FittedColumn):
    """A label that names a class, as codes in the order of `classes`."""

    classes: tuple[Any, ...] = ()
    policy: str = "refuse"

    @property
    def stored(self) -> tuple[BlockColumn, ...]:
        return (BlockColumn(self.column, code_type(len(self.classes))),)

    @property
    def names(self) -> tuple[str, ...]:
        return (self.column,)

    def encode(self, values: pa.Array) -> Encoded:
        if pa.types.is_floating(values.type):
            values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
        missing = null_mask(values)
        if missing is not None and self.policy != "drop":
            raise NullValueError(self.column, int(missing.sum()), len(values), "'drop'")
        if missing is None and self._table is not None and pa.types.is_integer(values.type):
            return Encoded({self.column: self._looked_up(numpy_of(values))})
        coded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
        try:
            known = pa.array(list(self.classes))
            places = pc.index_in(coded.dictionary.cast(known.type), value_set=known)
        except pa.ArrowInvalid as error:
            raise LabelError(
                f"Label {self.column!r} is {values.type}; the model was fitted on {known.type}."
            ) from error
        if places.null_count:
            raise self._stranger(coded.dictionary.filter(pc.is_null(places))[0].as_py())
        lookup = numpy_of(places) if len(places) else np.zeros(1, np.int64)
        codes = lookup[numpy_of(pc.fill_null(coded.indices, 0))]
        return Encoded({self.column: codes.astype(self.stored[0].dtype)}, missing)

    @cached_property
    def _table(self) -> Array | None:
        """Codes by value, for classes that are small integers: ten times faster than a dictionary. -1 stands for no class."""
        if not all(type(value) is int for value in self.classes) or self.classes[-1] - self.classes[0] >= 2**16:
            return None
        table = np.full(self.classes[-1] - self.classes[0] + 1, -1, np.int64)
        table[np.array(self.classes) - self.classes[0]] = np.arange(len(self.classes))
        return table

    def _looked_up(self, values: Array) -> Array:
        low, high = int(self.classes[0]), int(self.classes[-1])
        inside = (values >= low) & (values <= high)
        if not inside.all():
            raise self._stranger(int(values[~inside][0]))
        assert self._table is not None
        codes: Array = self._table[values.astype(np.int64) - low]
        if codes.min(initial=0) < 0:
            raise self._stranger(int(values[codes < 0][0]))
        return codes.astype(self.stored[0].dtype)

    def _stranger(self, value: object) -> LabelError:
        return LabelError(
            f"Label {self.column!r} has the value {value!r}, which is none of the {len(self.classes)} classes "
            "that the model was fitted on."
        )


def fit_label(facts: ColumnFacts, kind: LabelKind, nulls: str) -> FittedColumn:
    """The encoder of a label. Rows whose label is NULL are refused, or dropped where that is the policy; never filled in."""
    policy = "drop" if nulls == "drop" else "refuse"
    if kind == "class":
        classes = tuple(value for value, _ in facts.categories or [])
        if len(classes) > MAX_CLASSES:
            raise LabelError(
                f"Label {facts.name!r} has {len(classes)} different values; it looks like a number and no class."
            )
        if not classes:
            raise LabelError(f"Label {facts.name!r} is NULL in every row.")
        return FittedClasses(facts.name, classes, policy)
    if pa.types.is_boolean(facts.type) or not _is_numeric(facts.type):
        raise LabelError(f"Label {facts.name!r} is {facts.type}; a regression needs a number. Cast it in a SELECT.")
    return Numeric(nulls="drop" if policy == "drop" else "refuse").fit(facts, "treatment")


def label_needs(type: pa.DataType, kind: LabelKind) -> frozenset[str]:
    """The facts that `fit_label` has to know."""
    return frozenset({"categories"}) if kind == "class" else Numeric().needs(type)


def fit_weight(facts: ColumnFacts) -> FittedColumn:
    """The encoder of row weights and offsets: doubles without NULLs."""
    if not _is_numeric(facts.type):
        raise LabelError(f"Column {facts.name!r} is {facts.type}; row weights and offsets are numbers.")
    return FittedNumeric(facts.name, dtype="float64")


def _is_numeric(type: pa.DataType) -> bool:
    return bool(pa.types.is_integer(type) or pa.types.is_floating(type) or pa.types.is_decimal(type))
