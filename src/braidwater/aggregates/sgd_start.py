"""Where averaged SGD starts, and how its steps are scaled: the first rows, fitted, and the curvature that they show."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from braidwater.blocks.base import Array, Block
from braidwater.encoding.design import Design

NEWTON_STEPS = 10
# Added to the curvature of every standardised column: a level of a category that no row of the sample has would otherwise
# move without bounds when it turns up (one row in a mini-batch of 1024 has this much curvature)
FLOOR = 0.25 / 1024


@dataclass(frozen=True)
class Prior:
    """What is known beforehand: ``penalty / 2`` times squared weights of the raw columns ``(width,)`` is added to the mean loss;
    without an intercept, the linear predictor is 0 at the columns' `origin` ``(width,)``."""

    penalty: Array
    origin: Array
    fit_intercept: bool


@dataclass(frozen=True)
class Sample:
    """Rows written out in float64: `columns` ``(width, rows)``, raw; labels 0 or 1, row weights, offsets."""

    columns: Array
    labels: Array
    weights: Array
    offsets: Array

    @property
    def rows(self) -> int:
        return len(self.labels)

    @staticmethod
    def empty(width: int) -> Sample:
        return Sample(np.zeros((width, 0)), np.zeros(0), np.zeros(0), np.zeros(0))

    @staticmethod
    def of(design: Design, block: Block, rows: slice) -> Sample:
        """Some rows of a block, copied."""
        labels = (design.labels(block)[rows] > 0).astype(np.float64)
        weights, offsets = design.weights(block), design.offsets(block)
        return Sample(
            design.dense(block, rows),
            labels,
            np.ones(len(labels)) if weights is None else weights[rows].astype(np.float64),
            np.zeros(len(labels)) if offsets is None else offsets[rows].astype(np.float64),
        )

    def and_then(self, other: Sample) -> Sample:
        """These rows, then those of `other`."""
        return Sample(
            np.concatenate([self.columns, other.columns], axis=1),
            np.concatenate([self.labels, other.labels]),
            np.concatenate([self.weights, other.weights]),
            np.concatenate([self.offsets, other.offsets]),
        )

    def probabilities(self, raw: Array) -> Array:
        """Of the second class, by weights of the raw columns."""
        z = raw[:-1] @ self.columns + raw[-1] + self.offsets
        return np.asarray(0.5 * (1 + np.tanh(0.5 * z)))


@dataclass(frozen=True)
class Surface:
    """The loss around the weights as the rows so far show it; never changed, only replaced.

    `center` and `scale` ``(width,)`` standardise the raw columns. `curvature` ``(width + 1, width + 1)`` sums the second
    derivatives of the loss by standardised weights over rows that weigh `weight`. `spread` is the fourth moment of the rows
    over the second, in units of the curvature; `unit` the mean weight of a row.
    """

    center: Array
    scale: Array
    curvature: Array
    weight: float
    spread: float
    unit: float

    def and_then(self, sample: Sample, raw: Array) -> Surface:
        """With the curvature of more rows, at weights `raw`."""
        weight = float(sample.weights.sum())
        if not weight > 0:
            return self
        columns = self.columns(sample)
        p = sample.probabilities(raw)
        added = (columns * (sample.weights * p * (1 - p))) @ columns.T
        return replace(self, curvature=self.curvature + added, weight=self.weight + weight)

    def columns(self, sample: Sample) -> Array:
        """The standardised columns of a sample and a row of ones, ``(width + 1, rows)``."""
        standard = (sample.columns - self.center[:, None]) / self.scale[:, None]
        return np.concatenate([standard, np.ones((1, sample.rows))])

    def inverse(self, prior: Prior) -> Array:
        """The inverse of the mean curvature, penalty included; nothing by an intercept that is not fitted."""
        mean = self.curvature / self.weight
        diagonal = np.append(self.penalty(prior), 0.0) + FLOOR
        mean[range(len(mean)), range(len(mean))] += diagonal
        kept = len(mean) if prior.fit_intercept else len(mean) - 1
        inverse = np.zeros_like(mean)
        inverse[:kept, :kept] = np.linalg.inv(mean[:kept, :kept])
        return inverse

    def penalty(self, prior: Prior) -> Array:
        """The penalty by squared standardised weights ``(width,)``."""
        return np.asarray(prior.penalty / self.scale**2)

    def first_rate(self, batch: int) -> float:
        """The largest step that is safe for mini-batches of `batch` rows, as a share of Newton's."""
        return batch / (max(self.spread, 1.0) + batch - 1)

    def standardised(self, raw: Array) -> Array:
        """Weights for the standardised columns, from those for the raw ones."""
        return np.append(raw[:-1] * self.scale, raw[-1] + raw[:-1] @ self.center)

    def raw(self, weights: Array) -> Array:
        """Weights for the raw columns, from those for the standardised ones."""
        slopes = weights[:-1] / self.scale
        return np.asarray(np.append(slopes, weights[-1] - slopes @ self.center))

    def slope(self, gradient: Array, residual: float) -> Array:
        """The derivative by standardised weights, from sums over the raw columns."""
        return np.asarray(np.append((gradient - self.center * residual) / self.scale, residual))


def start_from(sample: Sample, prior: Prior) -> tuple[Array, float, Surface]:
    """The weights (of raw columns) that fit a sample with some weight best, their mean loss, and the surface around them.

    Newton's method with halved steps; on separated rows it stops where `NEWTON_STEPS` lead.
    """
    weight = float(sample.weights.sum())
    mean = sample.columns @ sample.weights / weight
    center = mean if prior.fit_intercept else prior.origin
    square = (sample.columns - center[:, None]) ** 2 @ sample.weights / weight
    # a column without spread keeps its unit
    scale = np.where(square <= (1e-14 * np.abs(mean)) ** 2, 1.0, np.sqrt(square))
    width = len(mean) + 1
    unit = weight / int(np.count_nonzero(sample.weights))
    flat = Surface(center, scale, np.zeros((width, width)), 0.0, 1.0, unit)
    columns = flat.columns(sample)
    penalty = np.append(flat.penalty(prior), 0.0)
    fitted = width if prior.fit_intercept else width - 1
    weights = np.zeros(width)
    weights[:fitted] = _newton(columns[:fitted], sample, penalty[:fitted])
    raw = flat.raw(weights)
    surface = flat.and_then(sample, raw)
    p = sample.probabilities(raw)
    leverage = p * (1 - p) * np.einsum("ij,ij->j", columns, surface.inverse(prior) @ columns)
    first = float(sample.weights @ leverage)
    spread = float(sample.weights @ leverage**2) / first if first > 0 else 1.0
    loss, _, _ = _look(columns, sample, np.zeros(width), weights)
    return raw, loss, replace(surface, spread=spread)


def _newton(columns: Array, sample: Sample, penalty: Array) -> Array:
    weights: Array = np.zeros(len(columns))
    value, residual, curvature = _look(columns, sample, penalty, weights)
    for _ in range(NEWTON_STEPS):
        slope = columns @ residual + penalty * weights
        second = (columns * curvature) @ columns.T
        second[range(len(penalty)), range(len(penalty))] += penalty
        # lstsq, not solve: columns that add up to others leave the matrix without an inverse
        step = np.linalg.lstsq(second, slope, rcond=1e-12)[0]
        share, before = 1.0, value
        while share > 1e-3:
            value, residual, curvature = _look(columns, sample, penalty, weights - share * step)
            if value < before:
                break
            share /= 2
        else:
            break
        weights = weights - share * step
        if before - value <= 1e-12 * value:
            break
    return weights


def _look(columns: Array, sample: Sample, penalty: Array, weights: Array) -> tuple[float, Array, Array]:
    """The objective; residuals and curvature of each row as shares of the mean."""
    share = sample.weights / sample.weights.sum()
    z = weights @ columns + sample.offsets
    losses = np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z))) - sample.labels * z
    p = 0.5 * (1 + np.tanh(0.5 * z))
    value = float(share @ losses + 0.5 * penalty @ weights**2)
    return value, share * (p - sample.labels), share * p * (1 - p)
