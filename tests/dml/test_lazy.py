"""Lazy matrices: numpy's operators give numpy's numbers, and nothing is computed before it is asked for."""

from __future__ import annotations

import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import sparse

from braidwater.dml.lazy import FUNCTIONS, UFUNCS, Matrix, compute
from braidwater.errors import DMLShapeError, UnsupportedError, UserError
from braidwater.options import options
from braidwater.tables import table

rng = np.random.default_rng(0)
X = rng.normal(size=(300, 7))
Y = rng.normal(size=(300, 7))
v = rng.normal(size=7)
w = rng.normal(size=(300, 1))
A = rng.normal(size=(7, 7)) + 9 * np.eye(7)

EXPRESSIONS: list[Callable[[Any], Any]] = [
    lambda M: M(X).T @ (w * (M(X) @ v[:, None])),
    lambda M: (np.ones((3, 300)) @ M(X)) * 2.0,
    lambda M: 1 / (1 + np.exp(-(M(X) @ A))),
    lambda M: (M(X) - M(X).mean(axis=0)) / 3 + 2 - M(Y) ** 2,
    lambda M: np.where(M(X) > 0, M(Y), 5.0),
    lambda M: np.maximum(M(X), M(Y)) - np.minimum(M(X), 0.0),
    lambda M: abs(M(X)) + (-M(Y)),
    lambda M: np.linalg.solve(M(A), M(X).T @ w),
    lambda M: np.linalg.inv(M(A)) @ (M(X).T @ w),
    lambda M: np.hstack([M(X), M(Y)])[5:9, 3:-2],
    lambda M: np.vstack([M(X), M(Y)])[-3:, :],
    lambda M: np.transpose(M(X))[2:3, 10:20],
    lambda M: np.cumsum(M(X), axis=0),
    lambda M: 2.0 ** M(X) - np.sqrt(abs(M(Y))),
]


@pytest.mark.parametrize("expression", EXPRESSIONS, ids=range(len(EXPRESSIONS)))
def test_an_expression_of_lazy_matrices_is_that_of_arrays(expression: Callable[[Any], Any]) -> None:
    lazy = expression(Matrix)
    expected = expression(lambda value: value)
    if expected.ndim == 1:  # X.mean(axis=0) of an array has one dimension, ours stays a row
        expected = expected[None, :]
    assert lazy.shape == expected.shape
    np.testing.assert_allclose(lazy.compute(), expected, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(np.asarray(lazy), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("reduction", [np.sum, np.mean, np.min, np.max])
def test_reductions_keep_two_dimensions(reduction: Callable[..., Any]) -> None:
    lazy = Matrix(X)
    assert reduction(lazy).shape == ()
    assert reduction(lazy).compute() == pytest.approx(reduction(X))
    for axis in (0, 1, -1):
        expected = reduction(X, axis=axis, keepdims=True)
        assert reduction(lazy, axis=axis).shape == expected.shape
        np.testing.assert_allclose(reduction(lazy, axis=axis).compute(), expected, rtol=1e-12)


@pytest.mark.parametrize("ufunc", sorted(UFUNCS, key=lambda each: each.__name__), ids=lambda each: each.__name__)
def test_every_ufunc_has_numpys_numbers(ufunc: Any) -> None:
    arguments = [np.abs(X) + 0.1, np.abs(Y) + 0.1][: ufunc.nin]
    if ufunc is np.matmul:
        arguments = [X, Y.T]
    np.testing.assert_allclose(ufunc(*map(Matrix, arguments)).compute(), ufunc(*arguments), rtol=1e-12)
    if ufunc.nin == 2:  # a lazy matrix on either side
        np.testing.assert_allclose(ufunc(arguments[0], Matrix(arguments[1])).compute(), ufunc(*arguments), rtol=1e-12)


def test_comparisons_make_zeros_and_ones() -> None:
    for compare in (operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne):
        np.testing.assert_array_equal(compare(Matrix(X), 0.3).compute(), compare(X, 0.3))
    np.testing.assert_array_equal(
        ((Matrix(X) > 0) & (Matrix(Y) > 0) | ~(Matrix(X) > 1)).compute(), (X > 0) & (Y > 0) | ~(X > 1)
    )


def test_a_lazy_value_is_neither_true_nor_false() -> None:
    with pytest.raises(UserError, match="not computed, so it is neither true nor false"):
        bool(Matrix(X).sum() > 3)
    with pytest.raises(UserError, match="neither true nor false"):
        _ = Matrix(X) in [Matrix(Y)]


def test_mistakes_are_ordinary_errors_and_leave_the_matrices_usable() -> None:
    lazy = Matrix(X)
    with pytest.raises(DMLShapeError, match="300 x 7"):
        lazy @ np.ones((8, 1))
    with pytest.raises(UnsupportedError, match="step 1, not 2"):
        lazy[::2]
    with pytest.raises(UnsupportedError, match="slices in brackets, not ndarray"):
        lazy[np.array([1, 2])]
    with pytest.raises(IndexError, match="no place 300"):
        lazy[300]
    with pytest.raises(UserError, match="two dimensions, and this array has 3"):
        Matrix(np.ones((2, 2, 2)))
    with pytest.raises(TypeError):
        np.fft.fft(lazy)
    assert lazy[-1].compute().tolist() == X[-1:].tolist()


def test_sparse_matrices_stay_sparse() -> None:
    S = sparse.random_array((2000, 1000), density=0.01, format="csr", rng=1)
    U, V = rng.normal(size=(2000, 10)), rng.normal(size=(10, 1000))
    lazy = Matrix(S) * (Matrix(U) @ V - S)
    found = lazy.compute()
    assert sparse.issparse(found)
    np.testing.assert_allclose(found.toarray(), S.toarray() * (U @ V - S.toarray()), rtol=1e-11, atol=1e-13)
    assert "applied   weighted product" in lazy.explain()


def test_what_is_computed_together_shares_a_scan() -> None:
    long = Matrix(rng.normal(size=(150_000, 20)))
    gradient, total, gram = long.T @ (long @ np.ones(20)[:, None]), (long * long).sum(), long.T @ long
    together = compute(gradient, total, gram)
    alone = [gradient.compute(), total.compute(), gram.compute()]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10)
    both = np.hstack([gradient, long.T @ (long @ np.ones(20)[:, None])])
    assert both.explain("runtime").count("scan(") == 1  # the same expression, written twice


def test_a_table_is_a_matrix_that_is_read_block_by_block(tmp_path: Path) -> None:
    pq.write_table(pa.table({f"x{i}": X[:, i] for i in range(7)}), tmp_path / "x.parquet")
    with options(cache_directory=tmp_path / "cache"):
        lazy = Matrix(table(tmp_path / "x.parquet"))
        assert lazy.shape == X.shape
        centred = lazy - lazy.mean(axis=0)
        covariance, norm = compute(centred.T @ centred / 299, (lazy @ v[:, None]).sum())
    np.testing.assert_allclose(covariance, np.cov(X.T), rtol=1e-12)
    assert norm == pytest.approx((X @ v).sum())


def test_every_function_of_numpy_that_is_taken_is_tried_above() -> None:
    tried = {
        np.sum,
        np.mean,
        np.min,
        np.max,
        np.transpose,
        np.where,
        np.linalg.solve,
        np.linalg.inv,
        np.cumsum,
        np.hstack,
        np.vstack,
    }
    assert np.trace(Matrix(A)).compute() == pytest.approx(np.trace(A))
    np.testing.assert_allclose(np.dot(Matrix(X), v[:, None]).compute(), np.dot(X, v[:, None]))
    assert set(FUNCTIONS) == tried | {np.trace, np.dot}
