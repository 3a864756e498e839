"""Categories: codes into a dictionary, one-hot only in the design."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from braidwater.blocks.arrow import null_mask, numpy_of
from braidwater.blocks.base import Array, BlockColumn
from braidwater.encoding.base import (
    FITTED,
    Coding,
    ColumnEncoder,
    ColumnFacts,
    Encoded,
    FittedColumn,
    check_choice,
)
from braidwater.errors import ColumnTypeError, NullValueError, UnseenCategoryError

MAX_CATEGORIES = 100_000  # beyond it a dictionary in every worker and a coefficient each is seldom what is meant
NULL, OTHER = "NULL", "other"


@dataclass(frozen=True)
class Categorical(ColumnEncoder):
    """One of a number of values.

    The dictionary is every value of the table in their order, or the `top` most frequent, or those with at least
    `min_count` rows; with `top` or `min_count` the others share a category ``other``. `unseen` says what happens to a value
    that was not there: ``"refuse"``, ``"ignore"`` (a row of zeros), or ``"other"`` (the default where that category exists).
    `nulls`: ``"refuse"``, ``"drop"`` the row, the ``"mode"``, or a ``"category"`` of their own; where there was none when it
    was fitted, a NULL is then a value that was not there. `coding` makes a column for
    every category (``"one_hot"``), or for all but the first, the reference (``"treatment"``); by default what the model likes.
    """

    top: int | None = None
    min_count: int = 1
    unseen: Literal["auto", "refuse", "ignore", "other"] = "auto"
    nulls: Literal["refuse", "drop", "mode", "category"] = "refuse"
    coding: Coding | None = None

    def __post_init__(self) -> None:
        check_choice("unseen", self.unseen, ("auto", "refuse", "ignore", "other"))
        check_choice("nulls", self.nulls, ("refuse", "drop", "mode", "category"))

    def needs(self, type: pa.DataType) -> frozenset[str]:
        return frozenset({"categories", "nulls"} if self.nulls == "category" else {"categories"})

    def fit(self, facts: ColumnFacts, coding: Coding) -> FittedColumn:
        counted = facts.categories or []
        if not counted:
            raise ColumnTypeError(f"Column {facts.name!r} has no value but NULL, so there is no category. Exclude it.")
        mode = max(counted, key=lambda pair: pair[1])[0]
        kept = sorted(counted, key=lambda pair: -pair[1])[: self.top]
        names = {value for value, count in kept if count >= self.min_count}
        values = [value for value, _ in counted if value in names]
        other = self.unseen == "other" or len(values) < len(counted)
        if not other and len(values) > MAX_CATEGORIES:
            raise ColumnTypeError(
                f"Column {facts.name!r} has {len(values)} different values. Encode it as Hashed(buckets=...), as "
                "Categorical(top=...), or exclude it."
            )
        unseen = self.unseen if self.unseen != "auto" else "other" if other else "refuse"
        return FittedCategorical(
            facts.name,
            values=tuple(values),
            other=other,
            # a category that no row is in would be a column of zeros
            null_category=self.nulls == "category" and bool(facts.nulls),
            policy=self.nulls,
            mode=mode,
            unseen=unseen,
            reference=(self.coding or coding) == "treatment",
        )


@FITTED.add
@dataclass(frozen=True)
class FittedCategorical(FittedColumn):
    """`Categorical`, fitted. Codes follow the order of `values`, then ``other``, then ``NULL``; one more is for ignored ones."""

    values: tuple[Any, ...] = ()
    other: bool = False
    null_category: bool = False
    policy: str = "refuse"
    mode: Any = None
    unseen: str = "refuse"
    reference: bool = False

    @cached_property
    def levels(self) -> list[str]:
        """A word for every code."""
        return [
            *(str(v) for v in self.values),
            *([OTHER] if self.other else []),
            *([NULL] if self.null_category else []),
        ]

    @property
    def skip(self) -> int:
        return int(self.reference and len(self.levels) > 0)

    @property
    def stored(self) -> tuple[BlockColumn, ...]:
        return (BlockColumn(self.column, code_type(len(self.levels) + 1)),)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"{self.column}[{level}]" for level in self.levels[self.skip :])

    @cached_property
    def _dictionary(self) -> pa.Array:
        return pa.array(list(self.values))

    def encode(self, values: pa.Array) -> Encoded:
        missing = null_mask(values)
        unseen = self.policy == "category" and not self.null_category and self.unseen == "refuse"
        if missing is not None and (self.policy == "refuse" or unseen):
            raise NullValueError(self.column, int(missing.sum()), len(values), "'drop', 'mode' or 'category'")
        coded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
        lookup = self._lookup(coded.dictionary)
        if missing is None:
            indices = numpy_of(coded.indices)
        else:
            indices = numpy_of(pc.fill_null(coded.indices, 0))
        codes = lookup[indices] if len(lookup) else np.zeros(len(indices), np.int64)
        if missing is not None:
            codes = np.where(missing, self._null_code(), codes)
        self._refuse_unseen(codes, values)
        return Encoded({self.column: codes.astype(self.stored[0].dtype)}, missing if self.policy == "drop" else None)

    def _lookup(self, found: pa.Array) -> Array:
        """The code of every value of a batch's own dictionary; -1 for a value to be refused."""
        try:
            same = found.cast(self._dictionary.type)
        except pa.ArrowInvalid as error:
            raise ColumnTypeError(
                f"Column {self.column!r} is {found.type}, but was {self._dictionary.type} when the model was fitted."
            ) from error
        places = pc.index_in(same, value_set=self._dictionary)
        codes: Array = numpy_of(pc.fill_null(places, self._stranger))
        return codes.astype(np.int64)

    @property
    def _stranger(self) -> int:
        """The code of a value that was not there; -1 where it is refused."""
        return {"refuse": -1, "ignore": len(self.levels), "other": len(self.values)}[self.unseen]

    def _null_code(self) -> int:
        if self.policy == "category":
            return len(self.levels) - 1 if self.null_category else self._stranger
        return self.values.index(self.mode) if self.policy == "mode" and self.mode in self.values else 0

    def _refuse_unseen(self, codes: Array, values: pa.Array) -> None:
        strange = np.flatnonzero(codes < 0)
        if len(strange):
            raise UnseenCategoryError(
                f"Column {self.column!r} has {len(strange)} rows with values that were not there when the model was "
                f"fitted, such as {values[int(strange[0])].as_py()!r}. Encode it with Categorical(unseen='ignore') or 'other'."
            )


def code_type(count: int) -> str:
    """The narrowest unsigned type for `count` different codes."""
    return "uint8" if count <= 2**8 else "uint16" if count <= 2**16 else "uint32"
