"""What an operator costs on this machine: seconds from flops and bytes, and the memory of its value.

Constants of the machine are the planner's, measured once (`braidwater.planner.constants`). What is particular to this language
was measured with `benchmarks/dml_constants.py` on the reference machine and stands below, for one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import log2

from braidwater.dml.hops import Facts, Hop
from braidwater.dml.hops.facts import DENSE_CELL, SPARSE_CELL
from braidwater.dml.values import SMALLEST_SPARSE
from braidwater.planner.constants import REFERENCE, Machine

CALL = 2e-6  # seconds of Python and dispatch for a kernel on a tiny matrix
UNKNOWN = 1000  # rows or columns of a matrix of which that is not known
SPARSE_BELOW = 0.2  # a matrix with a smaller share of cells is expected in CSR

SPARSE_PRODUCT = 0.8e-9  # seconds of a non-zero cell and a column of the other, dense matrix
SPARSE_SPARSE = 15e-9  # seconds of a product of two cells when both sides are sparse
SPARSE_CELLWISE = 2.5e-9  # seconds of a non-zero cell in a cell-wise operation of CSR
CACHED = 16 << 20  # bytes that stay in the third-level cache from one operator to the next
CACHE_SPEED = 4  # times the rate of memory
CSR_CALL = 45e-6  # seconds to make a CSR matrix, however small, with scipy's checks
SAMPLED_CELL = 1e-9  # seconds of a cell of a sampled product, over and above its multiplications
SAMPLED_PRODUCT = 0.5e-9  # seconds of one of these
STRIDED = 2e-9  # seconds of a cell that is read against the order in which it lies
SORT = 10e-9  # seconds of a cell and a level of sorting
CELL: Mapping[str, float] = {
    **dict.fromkeys(("exp", "log", "sin", "cos", "tanh"), 0.8e-9),  # numpy has vector forms of these
    **dict.fromkeys(("tan", "asin", "acos", "atan", "sinh", "cosh"), 6e-9),
    "sigmoid": 1.5e-9,
    "^": 3e-9,
    "%%": 20e-9,
    "%/%": 1e-9,
}
"""Seconds of a cell of a cell-wise operation, in cache."""
PLAIN_CELL = 0.2e-9  # seconds of a cell of any other cell-wise operation, in cache

CELLWISE = frozenset({
    "+", "-", "*", "/", "^", "%%", "%/%", "<", "<=", ">", ">=", "==", "!=", "&", "|", "!", "neg", "pmin", "pmax",
    "exp", "log", "sqrt", "abs", "round", "floor", "ceil", "sign", "sin", "cos", "tan", "tanh", "sinh", "cosh",
    "asin", "acos", "atan", "sigmoid", "ifelse", "xor", "is.nan", "is.na", "is.infinite",
})  # fmt: skip


def is_sparse(facts: Facts) -> bool:
    """Whether a value with these facts is expected in CSR: it is worth that, and operators make small ones dense."""
    return (
        facts.nnz is not None
        and facts.is_matrix
        and facts.sparsity < SPARSE_BELOW
        and (facts.cells is None or facts.cells >= SMALLEST_SPARSE)
    )


def cells(facts: Facts) -> float:
    """Rows times columns, with a guess for what is not known."""
    if not facts.is_matrix:
        return 1.0
    return float(UNKNOWN if facts.rows is None else facts.rows) * (UNKNOWN if facts.cols is None else facts.cols)


def filled(facts: Facts) -> float:
    """Cells that are not zero, at most."""
    return cells(facts) * facts.sparsity


def memory(facts: Facts) -> float:
    """Bytes of a value in the format in which it is expected."""
    if not facts.is_matrix:
        return 32.0
    if is_sparse(facts):
        return filled(facts) * SPARSE_CELL + 4.0 * (facts.rows or UNKNOWN)
    return cells(facts) * DENSE_CELL


def seconds(hop: Hop, machine: Machine = REFERENCE) -> float:
    """One operator by itself, its inputs given, on one core."""
    if hop.op in ("leaf", "literal"):
        return 0.0
    if not hop.facts.is_matrix and not any(each.facts.is_matrix for each in hop.inputs):
        return CALL / 10
    if hop.op == "t" and not is_sparse(hop.facts):
        return CALL  # a view
    turned = sum(_turned(hop, each) for each in hop.inputs if each.op == "t")
    call = CSR_CALL if any(is_sparse(each.facts) for each in (hop, *hop.inputs)) else CALL
    return call + traffic(hop, machine) + turned + PRICES.get(hop.op, _cellwise)(hop, machine)


def traffic(hop: Hop, machine: Machine = REFERENCE) -> float:
    """The part of `seconds` in which an operator waits for memory, or for the cache where all that it moves lies there."""
    read = sum(memory(each.facts) for each in hop.inputs)
    written = memory(hop.facts) if hop.op != "index" or not hop.facts.is_vector else 0.0
    moved = read / machine.memory_rate + written / machine.blas_bytes
    return moved if read + written > CACHED else moved / CACHE_SPEED


def _turned(hop: Hop, view: Hop) -> float:
    """What it costs to read a transposed view: nothing in BLAS, but a view cannot be read row by row in a scan."""
    if view.facts.is_vector or is_sparse(view.facts):
        return CALL / 10
    return 2 * CALL if hop.op in ("matmul", "tmatmul", "matmult") else cells(view.facts) * STRIDED


def _cellwise(hop: Hop, machine: Machine) -> float:
    if hop.op not in CELLWISE:
        return 0.0
    each = CELL.get(hop.op, PLAIN_CELL)
    if hop.op == "^" and hop.inputs[1].facts.value in (2, 0.5):
        each = PLAIN_CELL
    if is_sparse(hop.facts):
        return filled(hop.facts) * (each + SPARSE_CELLWISE)
    return cells(hop.facts) * each


def _free(hop: Hop, machine: Machine) -> float:
    return 0.0


def _product(hop: Hop, machine: Machine) -> float:
    A, B = hop.inputs[0].facts, hop.inputs[-1].facts
    inner, outer = _inner(hop), cells(hop.facts)
    if is_sparse(A) and is_sparse(B):
        return filled(A) * filled(B) / max(inner, 1.0) * SPARSE_SPARSE
    if is_sparse(A):
        return filled(A) * _other(outer, A, inner) * SPARSE_PRODUCT
    if is_sparse(B):
        return filled(B) * _other(outer, B, inner) * SPARSE_PRODUCT
    flops = 2.0 * outer * inner
    return flops * (0.55 if hop.op == "tsmm" else 1.0) / machine.gemm_float64


def _inner(hop: Hop) -> float:
    facts = hop.inputs[0].facts
    size = facts.rows if hop.op in ("tmatmul", "tsmm") else facts.cols
    return float(UNKNOWN if size is None else size)


def _other(outer: float, facts: Facts, inner: float) -> float:
    """Rows or columns of the other side of a product."""
    return outer * inner / max(cells(facts), 1.0)


def _sampled(hop: Hop, machine: Machine) -> float:
    rank = float(hop.inputs[-1].facts.rows or UNKNOWN)
    return filled(hop.inputs[0].facts) * (SAMPLED_CELL + rank * SAMPLED_PRODUCT) + _converted(
        hop.inputs[0].facts, machine
    )


def _sampled_loss(hop: Hop, machine: Machine) -> float:
    W, X = hop.inputs[0].facts, hop.inputs[1].facts
    return _sampled(hop, machine) + filled(W) * (SAMPLED_CELL if is_sparse(X) else 2 * SAMPLED_CELL)


def _converted(facts: Facts, machine: Machine) -> float:
    """Making CSR of what the kernel gets, and of what it makes."""
    return CSR_CALL if is_sparse(facts) else 2 * CSR_CALL + cells(facts) * 3e-9


def _factorised(share: float) -> Callable[[Hop, Machine], float]:
    """A dense factorisation: `share` times the cube of the rows in flops, at half the speed of a product."""

    def price(hop: Hop, machine: Machine) -> float:
        n = float(hop.inputs[0].facts.rows or UNKNOWN)
        right = cells(hop.inputs[1].facts) * n * 2 if len(hop.inputs) > 1 else 0.0
        return (share * n**3 + right) * 2 / machine.gemm_float64

    return price


def _sorted(hop: Hop, machine: Machine) -> float:
    n = cells(hop.inputs[0].facts)
    return n * log2(n + 2) * SORT


PRICES: Mapping[str, Callable[[Hop, Machine], float]] = {
    **dict.fromkeys(("matmul", "tmatmul", "matmult", "tsmm"), _product),
    "sddmm": _sampled,
    "wsloss": _sampled_loss,
    "inv": _factorised(2.0),
    "solve": _factorised(2 / 3),
    "cholesky": _factorised(1 / 3),
    "eigen": _factorised(9.0),
    "svd": _factorised(20.0),
    "order": _sorted,
    "as.scalar": _free,
}
