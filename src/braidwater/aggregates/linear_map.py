"""Products of a design with weights, and of residuals with a design, tile by tile, for many models at once.

Standardisation is folded into the weights; categories are gathered and summed by code; numbers and vectors go through
BLAS (or through a compiled loop for a single model). Columns stored in float32, or in integers that float32 holds
exactly, are multiplied in float32; all others in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from braidwater.blocks.base import Array, Block
from braidwater.encoding.design import CodeTerm, Design, NumberTerm, Term, WideTerm
from braidwater.kernels import scratch

# "auto": float32 where that loses nothing of what is stored; "double": float64; "fast": float32 for wider numbers too
Precision = Literal["auto", "double", "fast"]

# A column whose mean is this many standard deviations from zero loses more than four of float32's 24 bits when its
# centre is taken off after the product instead of before: such columns are multiplied in float64.
FAR = 16.0
_EXACT_IN_FLOAT32 = ("float32", "float16", "int8", "uint8", "int16", "uint16", "bool")


@dataclass(frozen=True)
class LinearMap:
    """The linear predictors of K models over a design: ``z = intercepts + weights' ((x - center) / scale)``.

    `weights` ``(width, K)`` and `intercepts` ``(K,)``, float64, are for the standardised columns where the design is
    standardised. `precision` "double" multiplies everything in float64, "fast" wider columns in float32 too, unless they
    lie far from zero.
    """

    design: Design
    weights: Array
    intercepts: Array
    precision: Precision = "auto"

    @property
    def models(self) -> int:
        return int(self.weights.shape[1])

    def compute_dtype(self, block: Block) -> Any:
        """float32 when every term is multiplied in float32, else float64."""
        return np.float32 if all(self.term_dtype(t, block) == np.float32 for t in self.design.terms) else np.float64

    def term_dtype(self, term: Term, block: Block) -> Any:
        """The type in which a term is multiplied."""
        if self.precision == "double":
            return np.float64
        if isinstance(term, CodeTerm):
            return np.float32
        stored = block.schema._places[term.columns[0] if isinstance(term, NumberTerm) else term.column][1].dtype
        exact = stored in _EXACT_IN_FLOAT32 or self.precision == "fast"
        return np.float32 if exact and not self._is_far(term) else np.float64

    def raw_weights(self) -> Array:
        """Weights ``(width, K)`` for the raw columns."""
        return self.weights if self.design.scale is None else self.weights / self.design.scale[:, None]

    def raw_intercepts(self) -> Array:
        """Intercepts ``(K,)`` for the raw columns."""
        if self.design.center is None:
            return self.intercepts
        shift: Array = self.design.center @ self.raw_weights()
        return self.intercepts - shift

    def forward(self, block: Block, rows: slice, out: Array, raw: Array, intercepts: Array) -> None:
        """Write the linear predictors of some rows to `out` ``(K, rows)``, without offsets.

        `raw` and `intercepts` are `raw_weights()` and `raw_intercepts()`, which the caller computes once a block.
        """
        begun = False
        for term in self.design.terms:
            part = raw[term.begin : term.begin + term.width]
            if isinstance(term, CodeTerm):
                table = np.zeros((len(part.T), term.width + 1), out.dtype)
                table[:, :-1] = part.T
                product = np.take(table, _codes(term, block, rows), axis=1)
            else:
                dtype = self.term_dtype(term, block)
                matrix = _matrix(term, block, rows, dtype)
                # the first product goes where the sum will be: for many models a copy costs as much as the product
                straight = not begun and out.dtype == dtype
                product = out if straight else scratch("product", out.shape, dtype)
                np.matmul(part.T.astype(dtype), matrix, out=product)
            if not begun:
                if product is not out:
                    out[...] = product
            else:
                out += product
            begun = True
        if begun:
            out += intercepts[:, None].astype(out.dtype)
        else:
            out[...] = intercepts[:, None]

    def adjoint(self, block: Block, rows: slice, residuals: Array, into: Array) -> None:
        """Add ``sum(x r)`` over some rows to `into` ``(width, K)``, float64, for the raw columns; residuals ``(K, rows)``."""
        cast: dict[Any, Array] = {residuals.dtype.type: residuals}
        for term in self.design.terms:
            target = into[term.begin : term.begin + term.width]
            if isinstance(term, CodeTerm):
                codes = _codes(term, block, rows)
                for k, values in enumerate(residuals):
                    target[:, k] += np.bincount(codes, weights=values, minlength=term.width + 1)[: term.width]
            else:
                dtype = self.term_dtype(term, block)
                if dtype not in cast:
                    cast[dtype] = residuals.astype(dtype)
                target += _matrix(term, block, rows, dtype) @ cast[dtype].T

    def standardised_gradient(self, raw_gradient: Array, residual_sums: Array) -> Array:
        """The gradient ``(width, K)`` by the standardised weights, from sums over raw columns and sums of residuals ``(K,)``."""
        gradient = raw_gradient
        if self.design.center is not None:
            gradient = gradient - np.outer(self.design.center, residual_sums)
        return gradient if self.design.scale is None else gradient / self.design.scale[:, None]

    def _is_far(self, term: Term) -> bool:
        center, scale = self.design.center, self.design.scale
        if center is None or scale is None:
            return False
        part = slice(term.begin, term.begin + term.width)
        return bool(np.any(np.abs(center[part]) > FAR * scale[part]))


def _codes(term: CodeTerm, block: Block, rows: slice) -> Array:
    codes = block[term.column][rows].astype(np.intp) - term.skip
    codes[(codes < 0) | (codes > term.width)] = term.width
    return codes


def _matrix(term: Term, block: Block, rows: slice, dtype: Any) -> Array:
    """The stored numbers as a matrix ``(width, rows)`` of `dtype`: a view where they have that type, else scratch memory."""
    if isinstance(term, NumberTerm):
        stored = block.matrix(term.columns)[:, rows]
    else:
        assert isinstance(term, WideTerm)
        stored = block[term.column][rows]
        stored = stored.reshape(len(stored), term.width).T
    if stored.dtype == dtype:
        return stored
    out = scratch("matrix", stored.shape, dtype)
    out[...] = stored
    return out
