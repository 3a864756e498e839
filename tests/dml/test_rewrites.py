"""Rewrites: what becomes of an expression, that it costs less, and that its value stays the same."""

from __future__ import annotations

import sys
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

sys.path.insert(0, str(Path(__file__).parent))  # the folder has no package, as the other tests have none

from hop_cases import Case, read_cases, roots_of

from braidwater.dml.context import Context
from braidwater.dml.hops import Dag, Hop, reachable, to_text
from braidwater.dml.plan.cost import seconds
from braidwater.dml.rewrites import Rule, optimise, rules, total
from braidwater.dml.runtime.evaluate import evaluate
from braidwater.dml.runtime.kernels import ALL
from braidwater.errors import DMLShapeError

CASES = Path(__file__).parent.parent / "cases" / "dml" / "rewrites"
RULES = {rule.name.replace(" ", "_").replace("_a_", "_"): rule for rule in rules(seconds)}
FILES = sorted(CASES.glob("*.txt"))
ALL_CASES = [(path.stem, case) for path in FILES for case in read_cases(path)]


@pytest.mark.parametrize(("name", "case"), ALL_CASES, ids=lambda part: str(part))
def test_a_rule_makes_what_its_case_file_says(name: str, case: Case) -> None:
    dag, roots = case.graph()
    found, _ = optimise(roots, dag, [RULES[name]], seconds)
    texts = [to_text(root) for root in found]
    assert case.after == (texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]")


def test_every_rule_has_cases_that_apply_and_the_cost_decides() -> None:
    assert {path.stem for path in FILES} == set(RULES)
    for path in FILES:
        cases = read_cases(path)
        assert any(case.before.replace(" ", "") != case.after.replace(" ", "") for case in cases), path.stem


@pytest.mark.parametrize(("name", "case"), ALL_CASES, ids=lambda part: str(part))
def test_all_rules_together_never_raise_the_estimated_cost(name: str, case: Case) -> None:
    dag, roots = case.graph()
    found, weighed = optimise(roots, dag, rules(seconds), seconds)
    assert total(found, seconds) <= total(roots, seconds)
    assert all(choice.gain > 0 for choice in weighed.applied)


SIZES = {1: 1}  # sizes of the case files as small ones, different where they differed


def small(size: int) -> int:
    return SIZES.setdefault(size, 3 + len(SIZES))


def cell_values(rng: np.random.Generator, shape: tuple[int, int], kind: str) -> Any:
    """Whole numbers, so that sums are exact in any order."""
    dense = rng.integers(-4, 5, shape).astype(float)
    if kind == "spoilt":
        dense[rng.integers(shape[0]), rng.integers(shape[1])] = rng.choice([np.nan, np.inf, -np.inf])
    if kind == "sparse":
        return sparse.csr_array(dense * (rng.random(shape) < 0.3))
    if kind == "empty":
        return sparse.csr_array(shape)
    return dense


def computed(order: list[Hop], values: dict[str, Any]) -> dict[Hop, Any]:
    """The value of every hop by its own kernel, nothing rewritten."""
    found: dict[Hop, Any] = {}
    with np.errstate(all="ignore"):
        for hop in order:
            if hop.op == "leaf":
                found[hop] = values[hop.attributes["name"]]
            elif hop.op == "literal":
                found[hop] = hop.attributes["value"]
            else:
                found[hop] = ALL[hop.op].kernel([found[each] for each in hop.inputs], hop.attributes)
    return found


def as_array(value: Any) -> Any:
    return np.atleast_2d(value.toarray() if sparse.issparse(value) else value)


def check_candidates(roots: list[Hop], dag: Dag, values: dict[str, Any], chosen: list[Rule]) -> int:
    """Every candidate of every rule at every place has the value of what it would replace."""
    order = reachable(roots)
    before = computed(order, values)
    scale = max(1.0, *(float(np.nanmax(np.abs(as_array(value)), initial=0, where=np.isfinite(as_array(value))))
                       for hop, value in before.items() if not isinstance(value, str)))  # fmt: skip
    checked = 0
    for hop in order:
        for rule in chosen:
            if hop.op not in rule.operators:
                continue
            for candidate in rule.candidates(hop, dag):
                after = computed(reachable([candidate]), values)[candidate]
                one, other = as_array(before[hop]), as_array(after)
                assert one.shape == other.shape, (rule.name, to_text(hop), to_text(candidate))
                assert candidate.facts.kind == hop.facts.kind
                np.testing.assert_allclose(
                    other, one, rtol=1e-12, atol=1e-13 * scale, err_msg=f"{rule.name}: {to_text(candidate)}"
                )
                checked += 1
    return checked


def graph_of(case: Case, rng: np.random.Generator, kind: str) -> tuple[Dag, list[Hop], dict[str, Any]]:
    values: dict[str, Any] = {}
    for name, facts in case.leaves().items():
        shape = small(facts.rows or 0), small(facts.cols or 0)
        values[name] = cell_values(rng, shape, kind)
        if name == "A" and "inv" in case.before:
            values[name] = np.diag(np.full(shape[0], 8.0)) + cell_values(rng, shape, "dense")
    dag = Dag(ALL)
    leaves = {name: dag.leaf(name, value) for name, value in values.items()}
    return dag, roots_of(case.before, dag, leaves), values


@pytest.mark.parametrize("kind", ["dense", "sparse", "empty"])
def test_no_candidate_of_a_case_changes_the_value(kind: str) -> None:
    rng = np.random.default_rng(3)
    checked: dict[str, int] = {}
    for name, case in ALL_CASES:
        if name != "needless_index":
            dag, roots, values = graph_of(case, rng, kind)
            checked[name] = checked.get(name, 0) + check_candidates(roots, dag, values, list(RULES.values()))
    assert all(checked.values())


def test_rules_that_declare_no_difference_keep_nan_and_infinity() -> None:
    """A rule whose two forms disagree on cells that are not finite has to say so in `differs`."""
    rng = np.random.default_rng(4)
    silent = [rule for rule in RULES.values() if not rule.differs]
    assert len(silent) >= 8
    for name, case in ALL_CASES * 5:
        if name not in ("needless_index", "inverse_product"):
            dag, roots, values = graph_of(case, rng, "spoilt")
            check_candidates(roots, dag, values, silent)


# --- expressions that nobody thought of ------------------------------------------------------------------------------

DIMENSIONS = (1, 2, 5)


class Drawn(list[Hop]):
    """Roots that hypothesis prints as text."""

    def __repr__(self) -> str:
        return f"[{', '.join(map(to_text, self))}]"


class Builder:
    """Draws an expression of a given shape."""

    def __repr__(self) -> str:
        return f"with {self.values}"

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.dag = Dag(ALL)
        self.values: dict[str, Any] = {}
        self.rng = np.random.default_rng(draw(st.integers(0, 10**6)))

    def leaf(self, rows: int, cols: int) -> Hop:
        number = self.draw(st.integers(0, 2))
        name = f"M{rows}{cols}{number}"
        if name not in self.values:
            self.values[name] = cell_values(self.rng, (rows, cols), ("dense", "sparse", "empty")[number])
        return self.dag.leaf(name, self.values[name])

    def matrix(self, rows: int, cols: int, depth: int) -> Hop:
        if depth == 0:
            return self.leaf(rows, cols)
        forms = ["cells", "vector", "scaled", "product", "t", "neg", "square", "leaf", "weighted"]
        forms += (
            ["rows"] * (cols == 1) + ["columns"] * (rows == 1) + ["diag"] * (rows == cols) + ["diagonal"] * (cols == 1)
        )
        return getattr(self, "_" + self.draw(st.sampled_from(forms)))(rows, cols, depth - 1)

    def _leaf(self, rows: int, cols: int, depth: int) -> Hop:
        return self.leaf(rows, cols)

    def _cells(self, rows: int, cols: int, depth: int) -> Hop:
        op = self.draw(st.sampled_from(["+", "-", "*", "pmax", "<", "!="]))
        return self.dag.node(op, self.matrix(rows, cols, depth), self.matrix(rows, cols, depth))

    def _vector(self, rows: int, cols: int, depth: int) -> Hop:
        shape = self.draw(st.sampled_from([(rows, 1), (1, cols), (1, 1)]))
        return self.dag.node(
            self.draw(st.sampled_from(["+", "*", "-"])), self.matrix(rows, cols, depth), self.matrix(*shape, depth)
        )

    def _scaled(self, rows: int, cols: int, depth: int) -> Hop:
        number = self.draw(st.sampled_from([0, 1, 2, -1, 4, 0.5]))
        scalar = self.scalar(depth) if self.draw(st.booleans()) else self.dag.literal(number)
        return self.dag.node(self.draw(st.sampled_from(["+", "*", "-"])), self.matrix(rows, cols, depth), scalar)

    def _product(self, rows: int, cols: int, depth: int) -> Hop:
        inner = self.draw(st.sampled_from(DIMENSIONS))
        return self.dag.node("matmul", self.matrix(rows, inner, depth), self.matrix(inner, cols, depth))

    def _weighted(self, rows: int, cols: int, depth: int) -> Hop:
        gap = self.dag.node("-", self._product(rows, cols, 0), self.matrix(rows, cols, depth))
        return self.dag.node(
            "*", self.leaf(rows, cols), self.dag.node("^", gap, self.dag.literal(self.draw(st.sampled_from([1, 2]))))
        )

    def _t(self, rows: int, cols: int, depth: int) -> Hop:
        return self.dag.node("t", self.matrix(cols, rows, depth))

    def _neg(self, rows: int, cols: int, depth: int) -> Hop:
        return self.dag.node("neg", self.matrix(rows, cols, depth))

    def _square(self, rows: int, cols: int, depth: int) -> Hop:
        return self.dag.node("^", self.matrix(rows, cols, depth), self.dag.literal(2))

    def _rows(self, rows: int, cols: int, depth: int) -> Hop:
        op = self.draw(st.sampled_from(["rowSums", "rowMaxs", "rowMins", "rowIndexMax"]))
        return self.dag.node(op, self.matrix(rows, self.draw(st.sampled_from(DIMENSIONS)), depth))

    def _columns(self, rows: int, cols: int, depth: int) -> Hop:
        op = self.draw(st.sampled_from(["colSums", "colMaxs", "colMins"]))
        return self.dag.node(op, self.matrix(self.draw(st.sampled_from(DIMENSIONS)), cols, depth))

    def _diag(self, rows: int, cols: int, depth: int) -> Hop:
        return self.dag.node("diag", self.matrix(rows, 1, depth)) if rows > 1 else self.matrix(rows, cols, depth)

    def _diagonal(self, rows: int, cols: int, depth: int) -> Hop:
        return self.dag.node("diag", self.matrix(rows, rows, depth)) if rows > 1 else self.matrix(rows, cols, depth)

    def scalar(self, depth: int) -> Hop:
        rows, cols = self.draw(st.sampled_from(DIMENSIONS)), self.draw(st.sampled_from(DIMENSIONS))
        op = self.draw(st.sampled_from(["sum", "sum", "min", "max", "trace", "as.scalar", "nrow"]))
        if op == "as.scalar":
            rows, cols = 1, 1
        return self.dag.node(op, self.matrix(rows, rows if op == "trace" else cols, depth))


@st.composite
def expressions(draw: Any) -> tuple[Builder, Drawn]:
    builder = Builder(draw)
    shape = draw(st.sampled_from(DIMENSIONS)), draw(st.sampled_from(DIMENSIONS))
    return builder, Drawn([builder.matrix(*shape, 3), builder.scalar(3)])


QUICK = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@QUICK
@given(expressions())
def test_no_candidate_changes_the_value_of_any_expression(drawn: tuple[Builder, Drawn]) -> None:
    builder, roots = drawn
    check_candidates(roots, builder.dag, builder.values, list(RULES.values()))


@QUICK
@given(expressions())
def test_the_optimised_program_computes_what_the_script_says(drawn: tuple[Builder, Drawn]) -> None:
    builder, roots = drawn
    expected = computed(reachable(roots), builder.values)
    found = evaluate(builder.dag, roots, Context(threads=2))
    for root, value in zip(roots, found, strict=True):
        scale = max(1.0, *(np.abs(as_array(each)).max(initial=0) for each in expected.values()))
        np.testing.assert_allclose(as_array(value), as_array(expected[root]), rtol=1e-12, atol=1e-13 * scale)


@pytest.mark.parametrize("op", ["tmatmul", "matmult", "tsmm"])
def test_products_of_transposed_sparse_matrices_are_in_the_form_of_all(op: str) -> None:
    A = sparse.csr_array(np.eye(60, 80))
    found = ALL[op].kernel([A, A][: 1 + (op != "tsmm")], {})
    assert found.format == "csr"  # scipy's come by columns, and cell-wise operators take them for rows


def test_hops_are_made_once_and_draws_are_not_merged() -> None:
    dag = Dag(ALL)
    X = dag.leaf("X", np.ones((3, 2)))
    assert dag.node("exp", X) is dag.node("exp", X)
    draws = {"rows": 2, "cols": 2, "min": 0.0, "max": 1.0, "sparsity": 1.0, "pdf": "uniform", "seed": -1}
    assert dag.node("rand", **draws) is not dag.node("rand", **draws)
    assert dag.literal(0.0) is not dag.literal(-0.0)
    assert dag.literal(1) is not dag.literal(True)


def test_shapes_that_do_not_fit_are_refused_before_anything_runs() -> None:
    dag = Dag(ALL)
    X, y = dag.leaf("X", np.ones((4, 3))), dag.leaf("y", np.ones((4, 1)))
    with pytest.raises(DMLShapeError, match=r"4 x 3.*4 x 1"):
        dag.node("matmul", X, y)
    with pytest.raises(DMLShapeError, match="4 x 3"):
        dag.node("tmatmul", X, dag.leaf("z", np.ones((5, 1))))


def test_a_declared_leaf_without_a_value_can_be_planned() -> None:
    case = Case("", "X: 10 x 3, 0.1", "sum(X * X)", "sumsquares(X)")
    _, roots = case.graph()
    assert roots[0].inputs[0].facts.nnz == (0, 3)
    assert MappingProxyType({"name": "X"}) == roots[0].inputs[0].inputs[0].attributes


@pytest.mark.parametrize("filled", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("filled_too", [0.0, 0.3])
def test_a_weighted_loss_takes_any_pattern_of_weights_and_of_values(filled: float, filled_too: float) -> None:
    rng = np.random.default_rng(0)
    W = sparse.random_array((20, 30), density=filled, format="csr", rng=rng)
    X = sparse.random_array((20, 30), density=filled_too, format="csr", rng=rng)
    U, V = rng.normal(size=(20, 3)), rng.normal(size=(3, 30))
    expected = (W.toarray() * (X.toarray() - U @ V) ** 2).sum()
    for values in (X, X.toarray()):
        assert ALL["wsloss"].kernel([W, values, U, V], {}) == pytest.approx(expected, rel=1e-12)
