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
    kind = "32" if dtype == np.float32 else "64"
    if weighted:
        loss, wrong = getattr(fused, f"weighted_loss{kind}")(z, y, q, residual)
    else:
        loss, wrong = getattr(fused, f"loss{kind}")(z, y, residual)
    numpy_z = z[None].copy()
    numpy_loss, numpy_wrong = logistic_loss(numpy_z, y, q)
    assert loss == pytest.approx(numpy_loss[0], rel=1e-6 if dtype == np.float32 else 1e-13)
    assert wrong == numpy_wrong[0]
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
    for dtype, run, tolerance in (
        (np.float32, fused.logistic_pass32, 2e-6),
        (np.float64, fused.logistic_pass64, 1e-12),
    ):
        z, r, g = np.empty(fused.TILE_ROWS, dtype), np.empty(fused.TILE_ROWS, dtype), np.zeros(columns)
        found, wrong, residual = run(X, y, w.astype(dtype), dtype(0.3), z, r, g)
        assert found == pytest.approx(loss, rel=tolerance)
        assert residual == pytest.approx(np.sum(expit(predictors) - y), abs=tolerance * rows)
        np.testing.assert_allclose(g, gradient, atol=tolerance * max(rows, 10))
        assert wrong == np.count_nonzero((2.0 * y - 1) * predictors <= 0)


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
