"""Laws of every operator: sparse and dense agree, facts tell the truth, inputs stay as they are."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import sparse

from braidwater.dml.hops import Facts
from braidwater.dml.operators import OPERATORS
from braidwater.dml.operators.aggregates import AGGREGATES, SUFFIX
from braidwater.dml.operators.cellwise import BINARY, UNARY, round_half_up
from braidwater.dml.operators.products import product
from braidwater.dml.runtime.block_kernels import FOLDS, MAPS
from braidwater.errors import DMLShapeError

ALL = 3  # rows and columns of the examples
CHOICES = np.array([0.0, 0.0, 0.0, 0.0, 1.0, 2.0, -1.5, 3.0])


def square(numbers: np.random.Generator) -> np.ndarray:
    return numbers.choice(CHOICES, size=(ALL, ALL))


def codes(numbers: np.random.Generator) -> np.ndarray:
    return numbers.integers(1, 4, size=(ALL, 1)).astype(float)


def one(numbers):
    return [square(numbers)], {}


def two(numbers):
    return [square(numbers), square(numbers)], {}


def whole(numbers):
    return [np.abs(square(numbers)).round(), np.abs(square(numbers)).round()], {}


def index(numbers):
    return [square(numbers), 1, 2, 2, 3], {}


FUNCTIONS = ["sum", "centralmoment", "mean", "variance", "min", "max", "count"]
RANDOM = {"rows": 3, "cols": 2, "min": 0.0, "max": 1.0, "sparsity": 0.5, "pdf": "uniform", "lambda": 1.0, "seed": 3}
EXAMPLES = {
    **dict.fromkeys(BINARY, two), **dict.fromkeys([name for name in BINARY if name.startswith("bitw")], whole),
    **dict.fromkeys(UNARY, one), **dict.fromkeys(AGGREGATES, one),
    **{f"{side}{suffix}": one for suffix in SUFFIX.values() for side in ("row", "col")},
    **dict.fromkeys(["rowIndexMax", "rowIndexMin", "trace", "nrow", "ncol", "length", "t", "rev"], one),
    **dict.fromkeys(["rowcumsum", "cumsum", "cumprod", "cummin", "cummax"], one),
    "matmul": two, "cbind": two, "rbind": two, "index": index,
    "ifelse": lambda numbers: ([square(numbers), square(numbers), square(numbers)], {}),
    "diag": one,
    "inv": lambda numbers: ([square(numbers) + 5 * np.eye(ALL)], {}),
    "solve": lambda numbers: ([square(numbers) + 5 * np.eye(ALL), square(numbers)], {}),
    "fill": lambda numbers: ([2.5, 3, 2], {}),
    "seq": lambda numbers: ([1.0, 3.0, 0.5], {}),
    "rand": lambda numbers: ([], RANDOM),
    "sample": lambda numbers: ([], {"range": 9, "size": 4, "replacement": False, "seed": 3}),
    "leftindex": lambda numbers: ([square(numbers), square(numbers)[:2, :2], 1, 2, 2, 3], {}),
    "reshape": lambda numbers: ([square(numbers), 9, 1], {"byrow": bool(numbers.integers(2))}),
    "roll": lambda numbers: ([square(numbers), 1], {}),
    "order": lambda numbers: ([square(numbers)], {"by": (2, 1), "decreasing": bool(numbers.integers(2)), "index_return": False}),
    "removeEmpty": lambda numbers: ([square(numbers)], {"margin": str(numbers.choice(["rows", "cols"])), "empty_return": True}),
    "replace": lambda numbers: ([square(numbers), float(numbers.choice([0.0, 1.0])), 7.0], {}),
    "triangle": lambda numbers: ([square(numbers)], {"lower": True, "diag": False, "values": True}),
    "unique": lambda numbers: ([square(numbers)], {"dir": "r"}),
    "as.scalar": lambda numbers: ([square(numbers)[:1, :1]], {}),
    "as.matrix": lambda numbers: ([4.0], {}),
    "cumsumprod": lambda numbers: ([square(numbers)[:, :2]], {}),
    "table": lambda numbers: ([codes(numbers), codes(numbers), codes(numbers)], {"rows": 3, "cols": 2}),
    "aggregate": lambda numbers: ([square(numbers), codes(numbers)], {"fn": str(numbers.choice(FUNCTIONS))}),
    "outer": lambda numbers: ([square(numbers)[:, :1], square(numbers)[:1, :]], {"function": "-"}),
    "rexpand": lambda numbers: ([codes(numbers)], {"max": 2}),
}  # fmt: skip


def plain(value):
    return value.toarray() if sparse.issparse(value) else value


@pytest.mark.parametrize("name", sorted(OPERATORS))
@given(seed=st.integers(0, 2**32), which=st.integers(0, 7))
@settings(max_examples=12, deadline=None)
def test_sparse_and_dense_agree_and_facts_tell_the_truth(name, seed, which):
    if name not in EXAMPLES:
        pytest.fail(f"{name} has no example")
    inputs, attributes = EXAMPLES[name](np.random.default_rng(seed))
    mixed = [
        sparse.csr_array(each) if isinstance(each, np.ndarray) and which >> place & 1 else each
        for place, each in enumerate(inputs)
    ]
    before = [plain(each).copy() if hasattr(each, "shape") else each for each in mixed]
    operator = OPERATORS[name]
    with np.errstate(all="ignore"):
        expected = operator.kernel(inputs, attributes)
        found = operator.kernel(mixed, attributes)
    np.testing.assert_allclose(plain(found), plain(expected), rtol=1e-12, atol=1e-13)
    for each, was in zip(mixed, before, strict=True):
        np.testing.assert_array_equal(plain(each), was)
    facts = operator.facts([Facts.of(each) for each in mixed], attributes)
    assert facts.is_matrix == hasattr(found, "shape")
    if facts.is_matrix:
        assert all(said in (None, true) for said, true in zip(facts.shape, found.shape, strict=True))
        if facts.nnz is not None:
            assert facts.nnz[0] <= np.count_nonzero(plain(found)) <= facts.nnz[1]


ODD = np.array([0.0, 0.0, 1.0, -2.5, np.nan, np.inf, -np.inf])


@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_a_zero_on_either_side_of_a_product_counts_nothing_in_any_form_of_it(seed, rows, inner, cols):
    numbers = np.random.default_rng(seed)
    left, right = numbers.choice(ODD, size=(rows, inner)), numbers.choice(ODD, size=(inner, cols))
    mapped = np.empty((rows, cols))
    with np.errstate(all="ignore"):
        expected = [
            [sum(left[i, k] * right[k, j] for k in range(inner) if left[i, k] and right[k, j]) for j in range(cols)]
            for i in range(rows)
        ]
        MAPS["matmul"](left, right, mapped)
        found = {
            "dense": product(left, right),
            "sparse left": product(sparse.csr_array(left), right),
            "sparse right": product(left, sparse.csr_array(right)),
            "sparse": plain(product(sparse.csr_array(left), sparse.csr_array(right))),
            "of the rows of a table": mapped,
            "added up over a table": FOLDS["tmatmul"][0](np.ascontiguousarray(left.T), right),
        }
    for form, cells in found.items():
        np.testing.assert_array_equal(cells, expected, err_msg=form)


def test_a_zero_of_the_small_side_counts_nothing_in_a_large_product():
    left, right = np.ones((4000, 2)), np.array([[1.0, 2.0], [0.0, 3.0]])
    left[7, 1] = np.nan
    with np.errstate(all="ignore"):
        found = product(left, right)
    np.testing.assert_array_equal(found[7], [1, np.nan])
    np.testing.assert_array_equal(found[8:], np.broadcast_to([1, 5], (3992, 2)))


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6).filter(lambda x: abs(x) > 1e-3))
@example(a=1.0, b=0.001388888888888889)  # a / b is rounded up to 720, the exact rest is just below b
def test_a_truncating_division_and_its_rest_make_the_whole(a, b):
    quotient, rest = (BINARY[op][0](a, b) for op in ("%/%", "%%"))
    missing = Fraction(a) - int(quotient) * Fraction(b) - Fraction(rest)
    assert missing == 0 or (quotient == a / b and missing == -math.copysign(b, a))
    assert rest == 0 or (rest > 0) == (a > 0)
    assert abs(rest) < abs(b)


@given(st.integers(-(10**6), 10**6))
def test_halves_are_rounded_up(n):
    assert round_half_up(n + 0.5) == n + 1


@pytest.mark.parametrize("shapes", [((2, 3), (3, 2)), ((2, 1), (1, 2)), ((3, 3), (2, 3)), ((0, 2), (3, 2))])
def test_shapes_that_do_not_fit_are_refused_by_facts_and_by_kernels(shapes):
    first, second = (np.ones(shape) for shape in shapes)
    with pytest.raises(DMLShapeError):
        OPERATORS["+"].facts([Facts.of(first), Facts.of(second)], {})
    with pytest.raises(DMLShapeError):
        OPERATORS["+"].kernel([first, second], {})
    with pytest.raises(DMLShapeError):
        OPERATORS["+"].kernel([first, sparse.csr_array(second)], {})
