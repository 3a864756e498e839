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
