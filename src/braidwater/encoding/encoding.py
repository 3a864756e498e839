"""A table's columns as features, label and weights: declared, fitted, applied, saved."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from braidwater.blocks.base import Array, Block, BlockColumn, BlockSchema
from braidwater.encoding.base import FITTED, Coding, ColumnEncoder, Encoded, FittedColumn, check_choice
from braidwater.encoding.boolean import Boolean
from braidwater.encoding.categorical import Categorical, FittedCategorical
from braidwater.encoding.design import CodeTerm, Design, NumberTerm, Term, WideTerm, design_of
from braidwater.encoding.facts import gather
from braidwater.encoding.hashed import FittedHashed
from braidwater.encoding.label import FittedClasses, LabelKind, fit_label, fit_weight, label_needs
from braidwater.encoding.numeric import Numeric, is_number
from braidwater.encoding.selectors import Selector, is_text, matching
from braidwater.encoding.sequence import FittedSequence
from braidwater.encoding.wide import FittedWide, Vector, is_list
from braidwater.errors import ColumnNotFoundError, ColumnTypeError
from braidwater.tables.base import Table

Features = Sequence[str | Selector] | Mapping[Any, ColumnEncoder] | None
NULL_POLICIES = ("refuse", "drop", "mean", "mode", "category")


@dataclass(frozen=True)
class Encoding:
    """What the columns of a table are to a model, as declared.

    `features` are column names, shell patterns (``"x_*"``) or selectors (`of_type`, `matching`), in a list or as the keys of
    a mapping to encoders; None means every column but `exclude`, `label`, `weight` and `offset`. A column without an encoder
    gets one by its type: numbers `Numeric`, truth values `Boolean`, text `Categorical`, lists `Vector`; `nulls` is the
    policy of those. `coding` is how categories become columns where their encoder does not say.

    >>> from braidwater.tables import table
    >>> rows = table(pa.table({"x": [1.5, 2.5], "colour": ["red", "blue"], "y": [0, 1]}))
    >>> Encoding(label="y", label_kind="class").fit(rows).design.names
    ('x', 'colour[red]')
    """

    features: Features = None
    exclude: Sequence[str] = ()
    label: str | None = None
    label_kind: LabelKind = "number"
    weight: str | None = None
    offset: str | None = None
    nulls: str | float = "refuse"
    coding: Coding = "treatment"

    def __post_init__(self) -> None:
        if not isinstance(self.nulls, (int, float)):
            check_choice("nulls", self.nulls, NULL_POLICIES, ", or a number to put in")
        check_choice("coding", self.coding, ("treatment", "one_hot"))
        check_choice("label_kind", self.label_kind, ("class", "number"))

    def encoders(self, table: Table) -> dict[str, ColumnEncoder]:
        """The encoder of every feature, in the order of the features; wrong names and types are errors here."""
        roles = [name for name in (self.label, self.weight, self.offset) if name is not None]
        table.require([*roles, *self.exclude])
        left_out = {*roles, *self.exclude}
        chosen: dict[str, ColumnEncoder] = {}
        if self.features is None:
            chosen = {f.name: self._by_type(f) for f in table.schema if f.name not in left_out}
        elif isinstance(self.features, Mapping):
            for pick, encoder in self.features.items():
                chosen |= {f.name: encoder for f in _picked(table, pick, left_out)}
        else:
            for pick in [self.features] if isinstance(self.features, str) else self.features:
                chosen |= {f.name: self._by_type(f) for f in _picked(table, pick, left_out) if f.name not in chosen}
        if not chosen:
            raise ColumnTypeError(f"Table {table.name!r} has no column left for a feature.")
        return chosen

    def _by_type(self, field: pa.Field) -> ColumnEncoder:
        nulls: Any = self.nulls
        if pa.types.is_boolean(field.type):
            return Boolean(nulls=nulls if nulls in ("refuse", "drop") else "mode")
        if is_number(field.type):
            return Numeric(nulls=nulls if nulls != "category" else "mean")
        if is_text(field.type):
            return Categorical(nulls=nulls if nulls in ("refuse", "drop", "mode") else "category")
        if is_list(field.type):
            return Vector(nulls=nulls if nulls == "drop" else "refuse")
        raise ColumnTypeError(
            f"Column {field.name!r} is {field.type}, which is no feature as it is. Exclude it, give it an encoder such as "
            "Image(shape), or turn it into a number in a SELECT."
        )

    def fit(self, table: Table) -> FittedEncoding:
        """Look at `table` as far as the encoders need to: dictionaries, means, bounds. Plain doubles need no look at all."""
        encoders = self.encoders(table)
        schema = table.schema
        needs = {name: encoder.needs(schema.field(name).type) for name, encoder in encoders.items()}
        asked = dict(needs)
        if self.label is not None:
            asked[self.label] = label_needs(schema.field(self.label).type, self.label_kind)
        for role in (self.weight, self.offset):
            if role is not None:
                asked[role] = frozenset()
        facts = gather(table, asked)
        label = None if self.label is None else fit_label(facts[self.label], self.label_kind, str(self.nulls))
        return FittedEncoding(
            features=tuple(encoder.fit(facts[name], self.coding) for name, encoder in encoders.items()),
            label=label,
            weight=None if self.weight is None else fit_weight(facts[self.weight]),
            offset=None if self.offset is None else fit_weight(facts[self.offset]),
        )


@dataclass(frozen=True)
class FittedEncoding:
    """An encoding that knows its table: it turns Arrow rows into blocks, and describes the design that they make.

    It is the `BlockEncoder` of a `BlockSource`. It pickles, has no state, and goes into a saved model as JSON.
    """

    features: tuple[FittedColumn, ...]
    label: FittedColumn | None = None
    weight: FittedColumn | None = None
    offset: FittedColumn | None = None

    @property
    def _all(self) -> tuple[FittedColumn, ...]:
        return tuple(c for c in (*self.features, self.label, self.weight, self.offset) if c is not None)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(column.column for column in self._all))

    @cached_property
    def block_schema(self) -> BlockSchema:
        columns: dict[str, BlockColumn] = {}
        for column in self._all:
            columns |= {stored.name: stored for stored in column.stored}
        return BlockSchema.ordered(list(columns.values()))

    @cached_property
    def key(self) -> str:
        return hashlib.sha256(json.dumps(self.to_json(), default=str).encode()).hexdigest()

    @property
    def classes(self) -> list[Any] | None:
        """The classes of the label, in the order of their codes; None where the label is a number or there is none."""
        return list(self.label.classes) if isinstance(self.label, FittedClasses) else None

    def encode(self, batch: pa.RecordBatch) -> dict[str, Array]:
        return self._encode(batch)[0]

    def block(self, batch: pa.RecordBatch) -> tuple[Block, Array | None]:
        """The rows of a batch as a block, and which of them it holds; None where the NULL policy left none out."""
        arrays, kept = self._encode(batch)
        return Block.from_arrays(arrays, self.block_schema), kept

    def _encode(self, batch: pa.RecordBatch) -> tuple[dict[str, Array], Array | None]:
        encoded = [column.encode(_column(batch, column.column)) for column in self._all]
        arrays: dict[str, Array] = {}
        for part in encoded:
            arrays |= part.arrays
        keep = _kept(encoded)
        return (arrays if keep is None else {name: values[keep] for name, values in arrays.items()}), keep

    @cached_property
    def design(self) -> Design:
        names = [name for column in self.features for name in column.names]
        center, scale = np.zeros(len(names)), np.ones(len(names))
        begin, standardised = 0, False
        for column in self.features:
            affine, width = column.affine(), len(column.names)
            if affine is not None:
                center[begin : begin + width], scale[begin : begin + width] = affine
                standardised = True
            begin += width
        design = design_of(
            self._terms(),
            names,
            label=self.label.column if self.label else None,
            weight=self.weight.column if self.weight else None,
            offset=self.offset.column if self.offset else None,
        )
        return design.standardised(center, scale) if standardised else design

    def _terms(self) -> list[Term]:
        """The terms of the design; numbers that are neighbours in the design and in the block become one."""
        stored = [(column.name, column.dtype) for column in self.block_schema.columns]
        terms: list[Term] = []
        begin = 0
        for column in self.features:
            if isinstance(column, (FittedCategorical, FittedHashed)):
                terms.append(CodeTerm(column.column, begin, len(column.names), column.skip))
            elif isinstance(column, FittedWide):
                terms.append(WideTerm(column.column, begin, len(column.names)))
            else:
                for offset, part in enumerate(column.stored):
                    last = terms[-1] if terms else None
                    place = stored.index((part.name, part.dtype))
                    if isinstance(last, NumberTerm) and place and stored[place - 1] == (last.columns[-1], part.dtype):
                        terms[-1] = NumberTerm((*last.columns, part.name), last.begin)
                    else:
                        terms.append(NumberTerm((part.name,), begin + offset))
            begin += len(column.names)
        return terms

    def for_prediction(self) -> FittedEncoding:
        """The features alone, with room for values that were not there when it was fitted."""
        return FittedEncoding(tuple(column.widened() for column in self.features))

    def for_evaluation(self) -> FittedEncoding:
        """Features, label and weights, with room for values that were not there when it was fitted."""
        label = None if self.label is None else self.label.widened()
        return replace(self, features=tuple(column.widened() for column in self.features), label=label)

    @property
    def whole(self) -> FittedWide | None:
        """The image or sequence that is the only feature, which modules get in its own shape; None for any other features."""
        only = self.features[0]
        shaped = isinstance(only, FittedSequence) or (isinstance(only, FittedWide) and len(only.shape) > 1)
        return only if len(self.features) == 1 and isinstance(only, FittedWide) and shaped else None

    def to_json(self) -> dict[str, Any]:
        return {
            "features": [column.to_json() for column in self.features],
            "label": self.label.to_json() if self.label else None,
            "weight": self.weight.to_json() if self.weight else None,
            "offset": self.offset.to_json() if self.offset else None,
        }

    @staticmethod
    def from_json(document: dict[str, Any]) -> FittedEncoding:
        roles = {
            role: FITTED.load(document[role]) if document[role] else None for role in ("label", "weight", "offset")
        }
        return FittedEncoding(tuple(FITTED.load(column) for column in document["features"]), **roles)


def _picked(table: Table, pick: str | Selector, left_out: set[str]) -> list[pa.Field]:
    if isinstance(pick, str) and pick in table.schema.names:
        return [table.schema.field(pick)]
    chosen = matching(pick) if isinstance(pick, str) else pick
    found = [field for field in table.schema if chosen(field) and field.name not in left_out]
    if not found and isinstance(pick, str):
        raise ColumnNotFoundError(table.name, pick, table.column_names)
    return found


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    place = batch.schema.get_field_index(name)
    if place < 0:
        raise ColumnNotFoundError("the rows to encode", name, batch.schema.names)
    return batch.column(place)


def _kept(encoded: list[Encoded]) -> Array | None:
    """The rows that no column wants left out; None when all stay."""
    missing = [part.missing for part in encoded if part.missing is not None]
    return None if not missing else ~np.logical_or.reduce(missing)
