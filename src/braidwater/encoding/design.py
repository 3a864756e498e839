"""The encoded features of a block as a matrix that is never built unless somebody asks for it.

A design says which stored columns make which columns of the matrix: numbers as they are, category codes as one-hot columns,
vectors as several. Standardisation is a property of the design, not of the stored numbers: linear algorithms fold `center`
and `scale` into their weights, `dense` applies them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from braidwater.blocks.base import Array, Block


@dataclass(frozen=True)
class NumberTerm:
    """Neighbouring stored columns of one type, each a column of the design."""

    columns: tuple[str, ...]
    begin: int  # the first column of the design that it makes

    @property
    def width(self) -> int:
        return len(self.columns)


@dataclass(frozen=True)
class CodeTerm:
    """A stored column of category codes, one-hot in the design.

    Code ``c`` makes design column ``begin + c - skip``. Codes below `skip` (1 where the first category is the reference)
    and codes from `skip + width` on (unseen categories) make none.
    """

    column: str
    begin: int
    width: int
    skip: int = 0


@dataclass(frozen=True)
class WideTerm:
    """A stored vector or image, one column of the design for each of its numbers."""

    column: str
    begin: int
    width: int


Term = NumberTerm | CodeTerm | WideTerm


@dataclass(frozen=True)
class Design:
    """The features as a matrix ``(rows, width)``; the intercept is no column of it.

    `center` and `scale` (float64, ``(width,)``, or None) standardise: column j is ``(raw_j - center_j) / scale_j``.
    `weighted` names the stored column of row weights, `offset` that of offsets, `label` that of the label, where there are any.
    """

    terms: tuple[Term, ...]
    names: tuple[str, ...]
    label: str | None = None
    weight: str | None = None
    offset: str | None = None
    center: Array | None = None
    scale: Array | None = None

    @property
    def width(self) -> int:
        return len(self.names)

    def standardised(self, center: Array, scale: Array) -> Design:
        """The same design with columns ``(raw - center) / scale``."""
        return replace(self, center=np.asarray(center, np.float64), scale=np.asarray(scale, np.float64))

    def raw(self) -> Design:
        """The same design without standardisation."""
        return replace(self, center=None, scale=None)

    def dense(
        self, block: Block, rows: slice | Array | None = None, *, dtype: Any = np.float64, out: Array | None = None
    ) -> Array:
        """The matrix ``(width, rows)``, column after column, standardised where the design is.

        `rows` picks rows: a slice, or an array of row numbers within the block. Cost: one pass over the columns.
        """
        rows = slice(0, block.rows) if rows is None else rows
        count = len(range(*rows.indices(block.rows))) if isinstance(rows, slice) else len(rows)
        out = np.empty((self.width, count), dtype) if out is None else out[:, :count]
        for term in self.terms:
            self._fill(term, block, rows, out)
        if self.center is not None and self.scale is not None:
            out -= self.center[:, None].astype(out.dtype)
            out /= self.scale[:, None].astype(out.dtype)
        return out

    def _fill(self, term: Term, block: Block, rows: slice | Array, out: Array) -> None:
        target = out[term.begin : term.begin + term.width]
        match term:
            case NumberTerm():
                matrix = block.matrix(term.columns)
                target[...] = matrix[:, rows] if isinstance(rows, slice) else np.take(matrix, rows, axis=1)
            case CodeTerm():
                codes = block[term.column][rows].astype(np.int64) - term.skip
                kept = np.flatnonzero((codes >= 0) & (codes < term.width))
                target[...] = 0
                target[codes[kept], kept] = 1
            case WideTerm():
                target[...] = block[term.column][rows].reshape(target.shape[1], term.width).T

    def times(self, block: Block, weights: Array) -> Array:
        """The product with `weights`, ``(width,)`` or ``(width, models)``, in float64: ``(rows,)`` or ``(rows, models)``."""
        weights = np.asarray(weights, np.float64)
        shift: Any = 0.0
        if self.center is not None and self.scale is not None:
            weights = (weights.T / self.scale).T
            shift = self.center @ weights
        total = np.zeros((block.rows, *weights.shape[1:]))
        for term in self.terms:
            part = weights[term.begin : term.begin + term.width]
            match term:
                case NumberTerm():
                    total += np.tensordot(block.matrix(term.columns), part, (0, 0))
                case CodeTerm():
                    # one row of zeros before and after stands for the reference and for unseen categories
                    table = np.zeros((term.skip + term.width + 1, *part.shape[1:]))
                    table[term.skip : term.skip + term.width] = part
                    total += table[np.minimum(block[term.column], len(table) - 1)]
                case WideTerm():
                    total += block[term.column].reshape(block.rows, -1) @ part
        product: Array = total - shift
        return product

    def labels(self, block: Block) -> Array:
        """The label column as it is stored: class codes, or numbers."""
        if self.label is None:
            raise ValueError("this design has no label")
        return block[self.label]

    def weights(self, block: Block) -> Array | None:
        """Row weights, or None where every row counts once."""
        return None if self.weight is None else block[self.weight]

    def offsets(self, block: Block) -> Array | None:
        """Offsets that are added to the linear predictor, or None."""
        return None if self.offset is None else block[self.offset]

    def to_json(self) -> dict[str, Any]:
        return {
            "terms": [{"kind": type(term).__name__, **vars(term)} for term in self.terms],
            "names": list(self.names),
            "label": self.label,
            "weight": self.weight,
            "offset": self.offset,
            "center": None if self.center is None else self.center.tolist(),
            "scale": None if self.scale is None else self.scale.tolist(),
        }


def design_of(terms: Sequence[Term], names: Sequence[str], **roles: Any) -> Design:
    """A design whose terms cover its columns, checked."""
    width = sum(term.width for term in terms)
    if width != len(names):
        raise ValueError(f"the terms make {width} columns, but {len(names)} names were given")
    return Design(tuple(terms), tuple(names), **roles)
