"""Compiled kernels against numpy, and the polynomials in them against the C library."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from braidwater.errors import OptionError
from braidwater.kernels import FUSED_FROM_ROWS, choose_kernel, scratch
from braidwater.kernels.logistic_loss import logistic_loss, softmax_loss


@pytest.fixture(scope="module")
def compiled():
    """The polynomials over arrays."""
    from braidwater.kernels import exp_log

    names = [("exp32", "float32"), ("log1p32", "float32"), ("exp64", "float64"), ("log1p64", "float64")]
    return {name: _over_array(getattr(exp_log, name), kind) for name, kind in names}


def _over_array(function, kind):
    from numba import njit

    @njit
    def run(values, out):
        for i in range(len(values)):
            out[i] = function(values[i])

    def over(values):
        out = np.empty(len(values), kind)
        run(values.astype(kind), out)
        return out

    return over


@pytest.mark.parametrize(("kind", "low", "units"), [("32", -87.0, 2), ("64", -708.0, 2)])
def test_exp_is_right_to_two_units_in_the_last_place(compiled, kind, low, units):
    dtype = np.dtype(f"float{kind}")
    x = np.concatenate([np.linspace(low, 0, 200_001), -np.geomspace(1e-12, 1, 10_000)]).astype(dtype)
    found, exact = compiled[f"exp{kind}"](x), np.exp(x.astype(np.longdouble))
    assert np.max(np.abs(found - exact) / np.spacing(exact.astype(dtype))) < units


@pytest.mark.parametrize("kind", ["32", "64"])
def test_log1p_is_right_to_four_units_in_the_last_place(compiled, kind):
    dtype = np.dtype(f"float{kind}")
    u = np.concatenate([np.linspace(0, 1, 200_001), np.geomspace(1e-30, 1, 10_000)]).astype(dtype)
    found, exact = compiled[f"log1p{kind}"](u), np.log1p(u.astype(np.longdouble))
    spacing = np.maximum(np.spacing(exact.astype(dtype)), np.finfo(dtype).tiny)
    assert np.max(np.abs(found - exact) / spacing) < 4


def test_exp_stays_positive_and_finite_far_out(compiled):
    for kind in ("32", "64"):
        found = compiled[f"exp{kind}"](np.array([-1e30, -1e4, -100.0, 0.0]))
        assert np.all(np.isfinite(found))
        assert np.all(found > 0)
        assert found[-1] == 1


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_compiled_loss_is_that_of_numpy(dtype, weighted):
    from braidwater.kernels import fused_logistic as fused

    random = np.random.default_rng(0)
    z = np.concatenate([random.normal(size=1000) * 5, [0.0, -200.0, 200.0, 1e4, -1e4]]).astype(dtype)
    y = random.integers(0, 2, len(z)).astype(dtype)
    q = random.integers(0, 3, len(z)).astype(dtype) if weighted else None
    residual = np.empty_like(z)
    loss, wrong, total = fused.log_loss(z, y, q, residual)
    numpy_z = z[None].copy()
    numpy_loss, numpy_wrong = logistic_loss(numpy_z, y, q)
    assert loss == pytest.approx(numpy_loss[0], rel=1e-6 if dtype == np.float32 else 1e-13)
    assert wrong == numpy_wrong[0]
    assert total == pytest.approx(residual.sum(dtype=np.float64), abs=1e-3 if dtype == np.float32 else 1e-10)
    np.testing.assert_allclose(residual, numpy_z[0], atol=3e-7 if dtype == np.float32 else 1e-15)


@pytest.mark.parametrize("rows", [1, 63, 2048, 2049, 7001])
@pytest.mark.parametrize("columns", [1, 3, 4, 30])
def test_one_compiled_pass_is_loss_and_gradient(rows, columns):
    from braidwater.kernels import fused_logistic as fused

    random = np.random.default_rng(rows)
    X = random.normal(size=(columns, rows)).astype(np.float32)
    y = random.integers(0, 2, rows).astype(np.uint8)
    w = random.normal(size=columns)
    predictors = w @ X.astype(np.float64) + 0.3
    loss = np.sum(np.logaddexp(0, predictors) - y * predictors)
    gradient = X.astype(np.float64) @ (expit(predictors) - y)
    for dtype, tolerance in ((np.float32, 2e-6), (np.float64, 1e-12)):
        z, r, g = np.empty(fused.TILE_ROWS, dtype), np.empty(fused.TILE_ROWS, dtype), np.zeros(columns)
        found, wrong, residual = fused.logistic_pass(X, y, w.astype(dtype), dtype(0.3), z, r, g)
        assert found == pytest.approx(loss, rel=tolerance)
        assert residual == pytest.approx(np.sum(expit(predictors) - y), abs=tolerance * rows)
        np.testing.assert_allclose(g, gradient, atol=tolerance * max(rows, 10))
        assert wrong == np.count_nonzero((2.0 * y - 1) * predictors <= 0)


@pytest.mark.parametrize(("models", "columns", "rows"), [(1, 1, 1), (3, 5, 511), (4, 4, 513), (9, 30, 3000)])
def test_one_compiled_pass_of_many_models_is_that_of_each(models, columns, rows):
    from braidwater.kernels import fused_logistic as fused
    from braidwater.kernels.four_by_four import TILE_ROWS
    from braidwater.kernels.fused_logistic_path import logistic_path_pass

    random = np.random.default_rng(models)
    X = random.normal(size=(columns, rows)).astype(np.float32)
    y = random.integers(0, 2, rows).astype(np.uint8)
    weights = np.zeros((-(-models // 4) * 4, -(-columns // 4) * 4))
    weights[:models, :columns] = random.normal(size=(models, columns))
    biases = random.normal(size=models)
    gradient, sums = np.zeros(weights.shape), [np.zeros(models) for _ in range(3)]
    logistic_path_pass(X, y, weights, biases, *np.full((2, len(weights) * TILE_ROWS), np.nan), gradient, *sums)
    for k in range(models):
        alone = np.zeros(columns)
        scratch = np.empty((2, fused.TILE_ROWS))
        found = fused.logistic_pass(X, y, weights[k, :columns], biases[k], *scratch, alone)
        np.testing.assert_allclose([part[k] for part in sums], found, rtol=1e-12, atol=1e-10)
        np.testing.assert_allclose(gradient[k, :columns], alone, rtol=1e-10, atol=1e-10)


def test_softmax_of_two_columns_is_the_logistic_function():
    random = np.random.default_rng(1)
    z = random.normal(size=200) * 30
    codes = random.integers(0, 2, 200)
    weights = random.random(200)
    single, double = z[None].copy(), np.stack([np.zeros(200), z])[None].copy()
    loss, wrong = logistic_loss(single, codes.astype(np.float64), weights)
    loss2, wrong2 = softmax_loss(double, codes, weights)
    np.testing.assert_allclose(loss, loss2)
    np.testing.assert_allclose(wrong, wrong2)
    np.testing.assert_allclose(single[0], double[0, 1], atol=1e-12)


def test_the_kernel_depends_on_the_rows_alone():
    assert choose_kernel(FUSED_FROM_ROWS) == "fused"
    assert choose_kernel(FUSED_FROM_ROWS - 1) == choose_kernel(None) == "blas"
    assert choose_kernel(10, "fused") == "fused"
    with pytest.raises(OptionError, match="kernel='gpu'"):
        choose_kernel(10, "gpu")


def test_scratch_of_two_names_does_not_overlap():
    one, two = scratch("one", (4, 5), np.float64), scratch("two", (4, 5), np.float64)
    one[...], two[...] = 1, 2
    assert np.all(one == 1)
    assert scratch("one", (2, 2), np.float32).base is not None


@pytest.mark.parametrize("columns", [1, 3, 4, 7, 31])
def test_compiled_products_are_those_of_a_matrix_product(columns):
    from braidwater.kernels.fused_products import add_products

    random = np.random.default_rng(columns)
    rows, weights = random.normal(size=(columns, 777)), random.random(777)
    found = np.zeros((columns, columns))
    add_products(rows * weights, rows, found)
    np.testing.assert_allclose(found, (rows * weights) @ rows.T, rtol=1e-12, atol=1e-12)
    assert np.array_equal(found, found.T)
