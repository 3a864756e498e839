"""The figures of aggregates against the same sums written out in numpy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from braidwater.aggregates import (
    ClassCounts,
    DrawnRows,
    Gram,
    LogisticGradient,
    LogisticHessian,
    Moments,
    NearestCenters,
    ProjectedProducts,
)
from braidwater.blocks.base import Block
from braidwater.encoding.design import NumberTerm, design_of
from braidwater.errors import DataError, LabelError
from test_aggregates_laws import BLOCK, MEAN, NAMES, POINTS, ROWS, SPREAD, STANDARD, TWO, WIDTH, design

X = design().dense(BLOCK).T
Z = np.hstack([(X - MEAN) / SPREAD, np.ones((ROWS, 1))])
W = BLOCK["weight"]


def result(aggregate, block=BLOCK):
    return aggregate.final(aggregate.transition(aggregate.initialize(), block))


def targets(classes):
    return BLOCK["number"][:, None] if classes is None else np.eye(3)[BLOCK["label"]]


@pytest.mark.parametrize("classes", [None, 3])
@pytest.mark.parametrize("kernel", ["blas", "fused"])
def test_gram_is_the_matrix_of_centred_products(kernel, classes):
    found = result(Gram(design("number" if classes is None else "label"), classes, kernel=kernel))
    both = np.hstack([X, targets(classes)])
    centred = both - np.average(both, axis=0, weights=W)
    expected = (centred * W[:, None]).T @ centred
    np.testing.assert_allclose(found.products, expected, rtol=1e-9, atol=1e-9 * abs(expected).max())
    np.testing.assert_allclose(
        found.about(np.zeros(WIDTH))[:WIDTH, :WIDTH], (X * W[:, None]).T @ X, rtol=1e-10, atol=1e-9
    )
    assert (found.rows, found.weight) == (ROWS, W.sum())


@pytest.mark.parametrize("classes", [None, 3])
def test_moments_are_those_of_numpy(classes):
    found = result(Moments(design("number" if classes is None else "label"), classes))
    t = targets(classes)
    mean, target_mean = np.average(X, axis=0, weights=W), np.average(t, axis=0, weights=W)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.variance, np.average((X - mean) ** 2, axis=0, weights=W), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.cross_products, ((X - mean) * W[:, None]).T @ (t - target_mean), atol=1e-8)
    np.testing.assert_allclose(found.target_products, ((t - target_mean) * W[:, None]).T @ (t - target_mean), atol=1e-8)


@pytest.mark.parametrize("label", ["number", "two", None])
def test_compiled_moments_are_those_of_numpy(label):
    values = np.random.default_rng(1).normal(size=(3, 5001)).astype(np.float32) + 7
    block = Block.from_arrays(
        {"x": values[0], "z": values[1], "number": values[2], "two": (values[2] > 7).astype(np.uint8)}
    )
    one = design_of([NumberTerm(("x", "z"), 0)], ["x", "z"], label=label)
    plain, fused = (result(Moments(one, 2 if label == "two" else None, kernel=k), block) for k in ("blas", "fused"))
    for name, expected in vars(plain).items():
        np.testing.assert_allclose(getattr(fused, name), expected, rtol=1e-9, atol=1e-9, err_msg=name)


def test_products_of_some_tiles_are_those_of_their_rows():
    values = np.random.default_rng(2).normal(size=(2, 20_000))
    one = design_of([NumberTerm(("x", "z"), 0)], ["x", "z"])
    some = result(Gram(one, every=3), Block.from_arrays({"x": values[0], "z": values[1]}))
    kept = np.hstack([values[:, begin : begin + 4096] for begin in (0, 3 * 4096)])
    assert some.rows == kept.shape[1]
    np.testing.assert_allclose(some.products / some.weight, np.cov(kept, bias=True), rtol=1e-9)
    np.testing.assert_allclose(some.correlations, np.corrcoef(kept), rtol=1e-9)


def test_a_mean_far_from_zero_costs_no_digits_of_the_variance():
    # the sum of squares of such numbers has no digit left for their spread
    values = 1e9 + np.random.default_rng(0).normal(size=20_000)
    block = Block.from_arrays({"x": values})
    one = design_of([NumberTerm(("x",), 0)], ["x"])
    for aggregate in (Moments(one), Gram(one)):
        found = result(aggregate, block)
        variance = found.variance[0] if hasattr(found, "variance") else found.features[0, 0] / found.weight
        assert variance == pytest.approx(values.var(), rel=1e-9)


def test_negative_weights_are_refused():
    block = Block.from_arrays({"x": np.ones(3), "w": np.array([1.0, -1.0, 1.0])})
    one = design_of([NumberTerm(("x",), 0)], ["x"], weight="w")
    for aggregate in (Moments(one), Gram(one)):
        with pytest.raises(DataError, match="'w' has negative weights"):
            result(aggregate, block)


def test_a_class_code_out_of_range_is_named():
    with pytest.raises(LabelError, match=r"class code 2.*there are 2 classes"):
        result(ClassCounts(design(), 2))


def test_class_counts_are_those_of_numpy():
    found = result(ClassCounts(design(), 3))
    assert found.rows.tolist() == np.bincount(BLOCK["label"]).tolist()
    np.testing.assert_allclose(found.weight, np.bincount(BLOCK["label"], weights=W))


def by_hand(points, codes, offset):
    """Loss, gradient, Hessian and mistakes of one softmax model with weights ``(classes, width + 1)``."""
    predictors = Z @ points.T + offset
    classes = len(points)
    p = softmax(predictors, axis=1)
    loss = -W @ log_softmax(predictors, axis=1)[np.arange(ROWS), codes]
    gradient = ((p - np.eye(classes)[codes]) * W[:, None]).T @ Z
    parts = [
        [(Z * (W * p[:, a] * ((a == b) - p[:, b]))[:, None]).T @ Z for b in range(classes)] for a in range(classes)
    ]
    wrong = np.count_nonzero((p.argmax(axis=1) != codes) & (W > 0))
    return loss, gradient, np.block(parts), wrong


@pytest.mark.parametrize("kernel", ["blas", "fused"])
def test_logistic_gradient_of_two_classes(kernel):
    offset = np.column_stack([np.zeros(ROWS), BLOCK["offset"]])
    for k in range(2):
        # two softmax columns of which the first is fixed at zero are one logistic column
        loss, gradient, _, wrong = by_hand(np.vstack([np.zeros(WIDTH + 1), POINTS[k, 0]]), BLOCK["two"], offset)
        found = result(LogisticGradient(TWO, POINTS[k : k + 1, :1], kernel=kernel))
        assert found.loss[0] == pytest.approx(loss, rel=1e-7)
        np.testing.assert_allclose(found.gradient[0, 0], gradient[1], atol=1e-6 * abs(gradient).max())
        assert found.wrong[0] == wrong
        together = result(LogisticGradient(TWO, POINTS[:, :1], kernel=kernel))
        assert together.loss[k] == pytest.approx(loss, rel=1e-7)
        np.testing.assert_allclose(together.gradient[k, 0], gradient[1], atol=1e-6 * abs(gradient).max())


@pytest.mark.parametrize("kernel", ["blas", "fused"])
def test_logistic_gradient_and_hessian_of_three_classes(kernel):
    gradients = result(LogisticGradient(STANDARD, POINTS))
    hessians = result(LogisticHessian(STANDARD, POINTS, kernel=kernel))
    for k in range(2):
        loss, gradient, hessian, wrong = by_hand(POINTS[k], BLOCK["label"], 0.0)
        assert gradients.loss[k] == pytest.approx(loss, rel=1e-7)
        assert hessians.loss[k] == pytest.approx(loss, rel=1e-12)
        np.testing.assert_allclose(gradients.gradient[k], gradient, atol=1e-6 * abs(gradient).max())
        np.testing.assert_allclose(hessians.gradient[k], gradient, atol=1e-11 * abs(gradient).max())
        np.testing.assert_allclose(hessians.hessian[k], hessian, atol=1e-11 * abs(hessian).max())
        assert gradients.wrong[k] == hessians.wrong[k] == wrong


@pytest.mark.parametrize("kernel", ["blas", "fused"])
def test_logistic_hessian_of_two_classes_with_offsets(kernel):
    offset = np.column_stack([np.zeros(ROWS), BLOCK["offset"]])
    found = result(LogisticHessian(TWO, POINTS[:, :1], kernel=kernel))
    for k in range(2):
        loss, gradient, hessian, _ = by_hand(np.vstack([np.zeros(WIDTH + 1), POINTS[k, 0]]), BLOCK["two"], offset)
        assert found.loss[k] == pytest.approx(loss, rel=1e-12)
        np.testing.assert_allclose(found.gradient[k, 0], gradient[1], atol=1e-11 * abs(gradient).max())
        inner = hessian[WIDTH + 1 :, WIDTH + 1 :]
        np.testing.assert_allclose(found.hessian[k], inner, atol=1e-11 * abs(inner).max())


def test_float32_columns_far_from_zero_are_multiplied_in_float64():
    # in float32 a million plus a spread of one leaves three digits of the spread after the product
    random = np.random.default_rng(0)
    raw = (random.normal(size=5000) + 1e6).astype(np.float32)
    block = Block.from_arrays({"x": raw, "y": (raw > 1e6).astype(np.uint8)})
    one = design_of([NumberTerm(("x",), 0)], ["x"], label="y")
    x = raw.astype(np.float64)
    one = one.standardised([x.mean()], [x.std()])
    z = 0.7 * (x - x.mean()) / x.std() + 0.2
    loss = np.sum(np.logaddexp(0, z) - block["y"] * z)
    for kernel in ("blas", "fused"):
        found = result(LogisticGradient(one, np.array([[[0.7, 0.2]]]), kernel=kernel), block)
        assert found.loss[0] == pytest.approx(loss, rel=1e-9)


def test_nearest_centers_are_those_of_all_distances():
    centers = np.random.default_rng(1).normal(size=(2, 4, WIDTH)) + MEAN
    found = result(NearestCenters(design(), centers, MEAN, SPREAD))
    for run in range(2):
        nearest = ((X[:, None] - centers[run]) ** 2).sum(axis=2).argmin(axis=1)
        for j in range(4):
            mine = (nearest == j) * W
            assert found.weight[run, j] == pytest.approx(mine.sum())
            np.testing.assert_allclose(found.sums[run, j], mine @ (X - MEAN), atol=1e-8)


def test_rows_are_drawn_as_often_as_their_squared_distance_says():
    rows, draws = 50, 400
    values = np.arange(rows, dtype=np.float64)
    block = Block.from_arrays({"x": values})
    one = design_of([NumberTerm(("x",), 0)], ["x"])
    drawn = np.concatenate(
        [result(DrawnRows(one, np.array([[0.0]]), 1, seed), block).rows.ravel() for seed in range(draws)]
    )
    assert 0 not in drawn
    expected = (values @ values**2) / (values**2).sum()
    error = np.sqrt((values**2 @ values**2) / (values**2).sum() - expected**2) / np.sqrt(draws)
    assert abs(drawn.mean() - expected) < 4 * error


def test_the_farthest_row_is_found():
    found = result(DrawnRows(design(weight=None), MEAN[None], 1, seed=0, farthest=True))
    distances = ((X - MEAN) ** 2).sum(axis=1)
    np.testing.assert_allclose(found.rows[0], X[distances.argmax()])


def test_projected_products_are_products_with_the_gram_matrix():
    directions = np.random.default_rng(2).normal(size=(WIDTH, 3))
    found = result(ProjectedProducts(STANDARD, directions))
    expected = (Z[:, :-1] * W[:, None]).T @ (Z[:, :-1] @ directions)
    np.testing.assert_allclose(found, expected, atol=1e-5 * abs(expected).max())


def test_names_match_the_design():
    assert len(NAMES) == WIDTH == X.shape[1]
