"""How many cells of a result are not zero, from bounds of the inputs: what sparse formats and prices are chosen by."""

from __future__ import annotations

from collections.abc import Sequence

from braidwater.dml.hops.facts import Facts

KEEPS_ZERO = frozenset({
    "neg", "abs", "sqrt", "sin", "tan", "asin", "atan", "sinh", "tanh", "sign", "floor", "ceil", "round", "t", "rev",
    "reshape", "cumsum", "removeEmpty", "as.matrix", "order",
})  # fmt: skip
WITH_SCALAR = frozenset({"*", "/", "%%", "%/%", "&"})  # zero stays zero, whatever the finite scalar but 0 on the right
BOUND_TOGETHER = frozenset({"+", "-", "|", "xor", "cbind", "rbind"})
AGAINST_ZERO = frozenset({"!=", ">", "<"})


def nnz_bounds(op: str, inputs: Sequence[Facts], facts: Facts) -> tuple[int, int] | None:
    """Bounds for a result with these facts, or None where nothing better than "all cells" is known."""
    high = _high(op, inputs, facts)
    if high is None:
        return None
    return 0, high if facts.cells is None else min(high, facts.cells)


def _high(op: str, inputs: Sequence[Facts], facts: Facts) -> int | None:
    first = _filled(inputs[0])
    if op in KEEPS_ZERO or (op == "index" and inputs[0].is_matrix):
        return first if op != "cumsum" else None
    if op == "*":
        return _least(inputs, facts)
    if op == "matmul" and len(inputs) == 2:
        return _product(inputs[0], inputs[1], first)
    if op == "diag" and inputs[0].cols == 1:
        return inputs[0].rows
    if len(inputs) != 2:
        return None
    second = inputs[1]
    if second.kind == "scalar" and ((op in WITH_SCALAR and second.value != 0) or (op == "^" and _positive(second))):
        return first
    if op in AGAINST_ZERO and second.kind == "scalar" and second.value == 0:
        return first
    if op in BOUND_TOGETHER and second.is_matrix and (op in ("cbind", "rbind") or inputs[0].shape == second.shape):
        other = _filled(second)
        return None if first is None or other is None else first + other
    return None


def _filled(facts: Facts) -> int | None:
    return facts.nnz[1] if facts.nnz is not None else None


def _least(inputs: Sequence[Facts], facts: Facts) -> int | None:
    """A product of cells is zero where one of them is; a repeated vector says nothing."""
    known = [_filled(each) for each in inputs if each.is_matrix and each.shape == facts.shape]
    found = [high for high in known if high is not None]
    return min(found) if found else None


def _product(A: Facts, B: Facts, first: int | None) -> int | None:
    """Each cell of A meets a row of B, each cell of B a column of A."""
    bounds = []
    if first is not None and B.cols is not None:
        bounds.append(first * B.cols)
    if (second := _filled(B)) is not None and A.rows is not None:
        bounds.append(second * A.rows)
    return min(bounds) if bounds else None


def _positive(facts: Facts) -> bool:
    return not isinstance(facts.value, str | None) and facts.value > 0
