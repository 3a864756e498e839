"""The transition of `LogisticGradient` for one two-class model in compiled code. Importing this module imports numba."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from braidwater.aggregates.linear_map import LinearMap, _codes, _matrix
from braidwater.blocks.base import Array, Block
from braidwater.encoding.design import CodeTerm, NumberTerm, WideTerm
from braidwater.kernels import fused_logistic as fused
from braidwater.kernels import scratch

if TYPE_CHECKING:
    from braidwater.aggregates.logistic_gradient import LossState

# A tile of a design with several terms is several compiled calls of about a microsecond each
TILE_ROWS = 4096


def fused_transition(linear: LinearMap, state: LossState, block: Block) -> LossState | None:
    """Fold a block into the state: one compiled call where the features are one group of floats, else some a tile.

    None where there is no compiled form: for several models over anything else.
    """
    design = linear.design
    term = design.terms[0] if design.terms else None
    plain = design.weights(block) is None and design.offsets(block) is None
    if plain and len(design.terms) == 1 and isinstance(term, NumberTerm):
        matrix = block.matrix(term.columns)
        if matrix.dtype in (np.float32, np.float64):
            return (_one_model if linear.models == 1 else _many_models)(linear, state, block, matrix)
    if linear.models > 1:
        return None
    raw, intercept = linear.raw_weights()[:, 0], float(linear.raw_intercepts()[0])
    dtype = linear.compute_dtype(block)
    for tile in block.slices(TILE_ROWS):
        _tile(linear, state, block, tile, dtype, raw, intercept)
    return state


def fused_losses(z: Array, labels: Array, weights: Array | None) -> tuple[Array, Array]:
    """`logistic_loss` in compiled code: z ``(K, rows)`` becomes the residuals."""
    loss, wrong = np.empty(len(z)), np.empty(len(z))
    fused.log_losses(z, labels, weights, scratch("residuals", z.shape[1:], z.dtype), loss, wrong)
    return loss, wrong


def _one_model(linear: LinearMap, state: LossState, block: Block, matrix: Array) -> LossState:
    dtype = linear.compute_dtype(block)
    raw, intercept = linear.raw_weights()[:, 0].astype(dtype), dtype(linear.raw_intercepts()[0])
    z = scratch("predictors", (fused.TILE_ROWS,), dtype)
    r = scratch("residuals", (fused.TILE_ROWS,), dtype)
    gradient = np.zeros(len(raw))
    found = fused.logistic_pass(matrix, _codes_of(linear, block), raw, intercept, z, r, gradient)
    state.weight += block.rows
    _add(state, *found)
    state.gradient[:, 0] += gradient
    return state


def _many_models(linear: LinearMap, state: LossState, block: Block, matrix: Array) -> LossState:
    from braidwater.kernels.four_by_four import TILE_ROWS
    from braidwater.kernels.fused_logistic_path import logistic_path_pass

    dtype = linear.compute_dtype(block)
    models, width = linear.models, len(matrix)
    weights = np.zeros((-(-models // 4) * 4, -(-width // 4) * 4), dtype)
    weights[:models, :width] = linear.raw_weights().T
    gradient = np.zeros(weights.shape)
    tiles = (scratch(name, (len(weights) * TILE_ROWS,), dtype) for name in ("predictors", "residuals"))
    intercepts = linear.raw_intercepts().astype(dtype)
    sums = state.loss, state.wrong, state.residual
    logistic_path_pass(matrix, _codes_of(linear, block), weights, intercepts, *tiles, gradient, *sums)
    state.weight += block.rows
    state.gradient += gradient[:models, :width].T
    return state


def _codes_of(linear: LinearMap, block: Block) -> Array:
    """Labels as uint8, whatever they are stored as: one compiled form less."""
    return linear.design.labels(block).astype(np.uint8, copy=False)


def _tile(
    linear: LinearMap, state: LossState, block: Block, tile: slice, dtype: Any, raw: Array, intercept: float
) -> None:
    design = linear.design
    count = tile.stop - tile.start
    z = scratch("predictors", (count,), dtype)
    r = scratch("residuals", (count,), dtype)
    z[...] = intercept
    offsets = design.offsets(block)
    if offsets is not None:
        z += offsets[tile].astype(dtype)
    for term in design.terms:
        part = raw[term.begin : term.begin + term.width]
        if isinstance(term, CodeTerm):
            z += np.append(part, 0.0).astype(dtype)[_codes(term, block, tile)]
        elif (matrix := _floats(term, block)) is not None:
            fused.add_predictor(matrix, part.astype(dtype), z, tile.start, tile.stop)
        else:
            z += part.astype(dtype) @ _matrix(term, block, tile, dtype)
    labels = design.labels(block)[tile].astype(dtype)
    stored = design.weights(block)
    weights = None if stored is None else stored[tile].astype(dtype)
    state.weight += count if weights is None else float(weights.sum(dtype=np.float64))
    _add(state, *fused.log_loss(z, labels, weights, r))
    for term in design.terms:
        target = state.gradient[term.begin : term.begin + term.width, 0]
        if isinstance(term, CodeTerm):
            target += np.bincount(_codes(term, block, tile), weights=r, minlength=term.width + 1)[: term.width]
        elif (matrix := _floats(term, block)) is not None:
            part = np.zeros(term.width)
            fused.add_gradient(matrix, r, part, tile.start, tile.stop)
            target += part
        else:
            target += _matrix(term, block, tile, dtype) @ r


def _floats(term: NumberTerm | WideTerm, block: Block) -> Array | None:
    """The stored columns of a group of floats, for which there is compiled code; None for anything else."""
    if isinstance(term, WideTerm):
        return None
    matrix = block.matrix(term.columns)
    return matrix if matrix.dtype in (np.float32, np.float64) else None


def _add(state: LossState, loss: float, wrong: float, residual: float) -> None:
    state.loss += loss
    state.wrong += wrong
    state.residual += residual
