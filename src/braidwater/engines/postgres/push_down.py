"""Aggregates that plain SQL computes: counts, moments and products of a few plain columns, without a block or Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from sqlglot import exp

from braidwater.aggregates import Count, Gram, Moments
from braidwater.aggregates.base import Aggregate
from braidwater.aggregates.gram import GramState
from braidwater.aggregates.moments import MomentsState
from braidwater.blocks.base import Array, BlockEncoder
from braidwater.encoding.design import NumberTerm
from braidwater.encoding.encoding import FittedEncoding
from braidwater.encoding.numeric import FittedNumeric
from braidwater.tables.postgres import PostgresTable


@dataclass(frozen=True)
class PushedDown:
    """One SELECT of figures of `names` and what makes a state of its answer."""

    names: tuple[str, ...]
    products: bool
    state: Callable[[Sequence[float]], Any]

    @property
    def size(self) -> int:
        """How many figures every row is added to."""
        count = len(self.names)
        return 1 + count + self.products * (count + count * (count + 1) // 2)

    def figures(self) -> list[exp.Expression]:
        found = _counts(self.names)
        if self.products:
            pairs = combinations_with_replacement(self.names, 2)
            found += [exp.Avg(this=_double(name)) for name in self.names]
            found += [_product(one, other) for one, other in pairs]
        return found

    def run(self, table: PostgresTable) -> tuple[Any, int] | None:
        """The state and the rows; None where a value is missing or not finite, for which the ordinary way has an error."""
        counted = exp.Count(this=exp.Star()).as_("rows")
        named = [figure.as_(f"f{place}", copy=False) for place, figure in enumerate(self.figures())]
        row = table.select(exp.select(counted, *named).from_("this")).to_pylist()[0]
        values = [row[f"f{place}"] for place in range(len(named))]
        if row["rows"] and any(value is None or not np.isfinite(value) for value in values):
            return None
        return self.state([row["rows"], *(value or 0 for value in values)]), int(row["rows"])


def pushed_down(aggregate: Aggregate[Any, Any], encoder: BlockEncoder | None) -> PushedDown | None:
    """The SQL form of an aggregate, None where it has none. Only for columns that are taken as they are."""
    if type(aggregate) is Count and (encoder is None or _plain(encoder)):
        return PushedDown(() if encoder is None else tuple(encoder.columns), False, lambda values: int(values[0]))
    if type(aggregate) not in (Gram, Moments) or encoder is None or not _plain(encoder):
        return None
    assert isinstance(aggregate, (Gram, Moments))
    design = aggregate.design
    if aggregate.columns.classes is not None or design.weight is not None or design.offset is not None:
        return None
    if not all(isinstance(term, NumberTerm) for term in design.terms):
        return None
    features = [column for term in design.terms if isinstance(term, NumberTerm) for column in term.columns]
    names = [*features, *([design.label] if design.label is not None else [])]
    make = _gram_state if isinstance(aggregate, Gram) else _moments_state
    known = len(names)
    return PushedDown(tuple(names), True, lambda values: make(values, len(features), len(names), known))


def _plain(encoder: BlockEncoder) -> bool:
    if not isinstance(encoder, FittedEncoding):
        return False
    return all(isinstance(c, FittedNumeric) and c.policy == "refuse" and not c.indicator for c in encoder._all)


def _counts(names: Sequence[str]) -> list[exp.Expression]:
    """NULL where the column has one: the count of its values must be that of the rows."""
    rows = exp.Count(this=exp.Star())
    found: list[exp.Expression] = []
    for name in names:
        full = exp.EQ(this=exp.Count(this=exp.column(name, quoted=True)), expression=rows.copy())
        found.append(exp.Case(ifs=[exp.If(this=full, true=exp.Literal.number(0))]))
    return found


_DOUBLE = exp.DataType.build("DOUBLE")


def _double(name: str) -> exp.Expression:
    return exp.Cast(this=exp.column(name, quoted=True), to=_DOUBLE.copy())


def _product(one: str, other: str) -> exp.Expression:
    """``sum((x - mean x) (y - mean y))``, which PostgreSQL accumulates as by Youngs and Cramer (1971): nothing cancels."""
    return exp.Anonymous(this="regr_sxy", expressions=[_double(one), _double(other)])


def _filled(values: Sequence[float], width: int, skip: int) -> tuple[int, Array, Array]:
    rows = int(values[0])
    means = np.array(values[1 + skip : 1 + skip + width], np.float64)
    products = np.zeros((width, width))
    products[np.triu_indices(width)] = values[1 + skip + width :]
    return rows, means, products + np.triu(products, 1).T


def _gram_state(values: Sequence[float], features: int, width: int, skip: int) -> GramState:
    rows, means, products = _filled(values, width, skip)
    return GramState(rows, float(rows), means, products)


def _moments_state(values: Sequence[float], features: int, width: int, skip: int) -> MomentsState:
    rows, means, products = _filled(values, width, skip)
    spread = np.diag(products)[:features].copy()
    return MomentsState(
        rows, float(rows), means, spread, products[:features, features:], products[features:, features:]
    )
