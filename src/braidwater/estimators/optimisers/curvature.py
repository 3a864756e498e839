"""A guess at the Hessian, which tells an optimiser what a step of the right length is."""

from __future__ import annotations

import numpy as np

from braidwater.blocks.base import Array


class Curvature:
    """A symmetric positive matrix: its diagonal ``(n,)``, or all of it ``(n, n)``, made definite where it is not.

    >>> guess = Curvature(np.array([2.0, 4.0]))
    >>> guess.solve(np.array([1.0, 1.0]))
    array([0.5 , 0.25])
    """

    def __init__(self, matrix: Array) -> None:
        self._matrix = np.asarray(matrix, np.float64)
        self._vectors: Array | None = None
        if self._matrix.ndim == 1:
            self._values = np.maximum(self._matrix, 1e-12 * max(float(np.max(self._matrix, initial=0)), 1e-300))
            return
        self._size = np.sqrt(np.maximum(np.diag(self._matrix), 0))
        self._size[self._size == 0] = 1.0
        values, self._vectors = np.linalg.eigh(self._matrix / np.outer(self._size, self._size))
        # directions without curvature get that of a column nearly a sum of others: long steps, but no endless ones
        self._values = np.maximum(values, 1e-6 * max(float(np.max(values, initial=0)), 1e-300))

    def solve(self, vector: Array) -> Array:
        """``matrix^-1 vector``."""
        if self._vectors is None:
            return np.asarray(vector / self._values)
        inner = self._vectors.T @ (vector / self._size)
        return np.asarray((self._vectors @ (inner / self._values)) / self._size)

    def times(self, vector: Array) -> Array:
        """``matrix vector``."""
        if self._vectors is None:
            return np.asarray(vector * self._values)
        inner = self._vectors.T @ (vector * self._size)
        return np.asarray((self._vectors @ (inner * self._values)) * self._size)
