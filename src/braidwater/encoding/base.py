"""The contract of a column's encoder: declared by the user, fitted on what the table says of the column, then applied to rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

import pyarrow as pa

from braidwater.blocks.base import Array, BlockColumn
from braidwater.errors import OptionError

Coding = Literal["treatment", "one_hot"]


@dataclass(frozen=True)
class ColumnFacts:
    """What the table said of a column when the encoder was fitted. Figures that the encoder did not ask for are None."""

    name: str
    type: pa.DataType
    nulls: int | None = None  # NULLs, and NaNs of a floating column
    mean: float | None = None  # of the finite values
    deviation: float | None = None  # population standard deviation of the finite values
    mode: Any = None
    minimum: Any = None
    maximum: Any = None
    categories: list[tuple[Any, int]] | None = (
        None  # values with their counts, NULLs left out, in the order of the values
    )


@dataclass
class Encoded:
    """A column of some rows, encoded. `missing` marks the rows to leave out (policy 'drop'), None for none."""

    arrays: dict[str, Array]
    missing: Array | None = None


@dataclass(frozen=True)
class FittedColumn(ABC):
    """An encoder that knows its column. It pickles, keeps no state, and any thread may call it."""

    column: str

    @property
    @abstractmethod
    def stored(self) -> tuple[BlockColumn, ...]:
        """The block columns that it makes."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The design columns that they stand for, in order."""

    @abstractmethod
    def encode(self, values: pa.Array) -> Encoded:
        """The rows as arrays of the types in `stored`."""

    def affine(self) -> tuple[Array, Array] | None:
        """Centre and scale of the design columns, where the encoder standardises."""
        return None

    def widened(self) -> FittedColumn:
        """The same encoder for rows that were not there when it was fitted: with room for any value of the type."""
        return self

    def to_json(self) -> dict[str, Any]:
        return {"kind": type(self).__name__, **{f.name: _plain(getattr(self, f.name)) for f in fields(self)}}


@dataclass(frozen=True)
class ColumnEncoder(ABC):
    """How a column becomes numbers, as the user declares it. Values only, so it goes into a job file and a saved model."""

    wants: ClassVar[frozenset[str]] = frozenset()  # facts that every encoder of this class needs

    def needs(self, type: pa.DataType) -> frozenset[str]:
        """Names of the facts (fields of `ColumnFacts`) that it has to know of a column of this type."""
        return self.wants

    @abstractmethod
    def fit(self, facts: ColumnFacts, coding: Coding) -> FittedColumn:
        """The encoder for this column. `coding` is how categories become columns where the encoder does not say."""


@dataclass(frozen=True)
class Registry:
    """Fitted columns by their class names, for loading."""

    kinds: dict[str, type[FittedColumn]] = field(default_factory=dict)

    def add(self, kind: type[FittedColumn]) -> type[FittedColumn]:
        self.kinds[kind.__name__] = kind
        return kind

    def load(self, document: dict[str, Any]) -> FittedColumn:
        values = dict(document)
        kind: Any = self.kinds[values.pop("kind")]
        loaded: FittedColumn = kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})
        return loaded


FITTED = Registry()


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def check_choice(name: str, value: object, choices: tuple[str, ...], also: str = "") -> None:
    """Raise `OptionError` unless `value` is one of `choices`."""
    if value not in choices:
        raise OptionError(name, value, f"one of {', '.join(choices)}{also}")
