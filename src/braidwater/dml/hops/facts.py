"""What is known of a value before it is computed: kind, rows, columns, how many cells are not zero."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

from braidwater.dml.scipy_on_demand import issparse

Scalar = float | int | bool | str

DENSE_CELL = 8  # bytes of a float64
SPARSE_CELL = 12  # bytes of a cell in CSR: a float64 and an int32; each row adds 4 more


class Facts(NamedTuple):
    """Kind, sizes and bounds of the non-zero cells of a value; `None` says that something is not known.

    >>> Facts.matrix(1000, 20).cells
    20000
    >>> Facts.matrix(1000, 20, nnz=(0, 200)).sparsity
    0.01
    >>> Facts.scalar(3.0).value
    3.0

    `nnz` holds a lower and an upper bound. A dense array of which nobody counted the zeros has `None`, which the planner reads
    as "all cells": counting would cost a pass over the matrix. `value` is a scalar's value where it is known.
    """

    kind: Literal["matrix", "scalar"]
    rows: int | None = None
    cols: int | None = None
    nnz: tuple[int, int] | None = None
    value: Scalar | None = None

    @staticmethod
    def matrix(rows: int | None, cols: int | None, nnz: tuple[int, int] | None = None) -> Facts:
        return Facts("matrix", rows, cols, nnz)

    @staticmethod
    def scalar(value: Scalar | None = None) -> Facts:
        return Facts("scalar", value=value)

    @staticmethod
    def of(value: Any) -> Facts:
        """The facts of a value that exists. Cost: no pass over its cells.

        Beside arrays and scalars, takes whatever has a `shape` of two sizes (a streamed matrix: see `braidwater.dml.runtime`).
        """
        if isinstance(value, np.ndarray):
            return Facts("matrix", *_two(value.shape))
        if is_csr(value):
            return Facts("matrix", *_two(value.shape), (value.nnz, value.nnz))
        if isinstance(value, float | int | bool | str | np.generic):
            return Facts("scalar", value=value.item() if isinstance(value, np.generic) else value)
        return Facts("matrix", *_two(value.shape))

    @property
    def is_matrix(self) -> bool:
        return self.kind == "matrix"

    @property
    def shape(self) -> tuple[int | None, int | None]:
        return self.rows, self.cols

    @property
    def known(self) -> bool:
        """Whether both sizes are known (a scalar's always are)."""
        return self.kind == "scalar" or (self.rows is not None and self.cols is not None)

    @property
    def cells(self) -> int | None:
        """Rows times columns, 1 for a scalar."""
        if self.kind == "scalar":
            return 1
        return None if self.rows is None or self.cols is None else self.rows * self.cols

    @property
    def sparsity(self) -> float:
        """At most this share of the cells is not zero; 1 where nothing is known."""
        cells = self.cells
        return 1.0 if self.nnz is None or not cells else min(self.nnz[1] / cells, 1.0)

    @property
    def is_vector(self) -> bool:
        return self.is_matrix and (self.rows == 1 or self.cols == 1)

    @property
    def is_column(self) -> bool:
        return self.is_matrix and self.cols == 1

    @property
    def is_row(self) -> bool:
        return self.is_matrix and self.rows == 1

    def __str__(self) -> str:
        if self.kind == "scalar":
            return "scalar" if self.value is None else repr(self.value)
        size = " x ".join("?" if n is None else str(n) for n in self.shape)
        return size if self.sparsity == 1.0 else f"{size}, {self.sparsity:.2g} filled"


def is_csr(value: Any) -> bool:
    """Whether a value is held in a sparse format."""
    return type(value) is not np.ndarray and bool(issparse(value))


def _two(shape: tuple[int, ...]) -> tuple[int, int]:
    if len(shape) != 2:
        raise TypeError(f"A matrix has two dimensions, not {len(shape)}.")
    return shape[0], shape[1]
