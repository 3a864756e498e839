"""Kernels of single operators: the language's own, with short cuts where the plan knows that shapes fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from sys import getrefcount
from typing import Any

import numpy as np

from braidwater.dml.context import Context
from braidwater.dml.hops import Hop
from braidwater.dml.hops.facts import is_csr
from braidwater.dml.operators import OPERATORS
from braidwater.dml.operators.cellwise import BINARY
from braidwater.dml.operators.indexing import assign
from braidwater.dml.operators.numbers import NUMBERS
from braidwater.dml.operators.products import unspoilt
from braidwater.dml.plan.cost import CELLWISE
from braidwater.dml.rewrites import FUSED
from braidwater.dml.runtime.block_kernels import MAPS, NARROW
from braidwater.dml.runtime.workers import blas

ALL: Mapping[str, Any] = {**OPERATORS, **FUSED, **NUMBERS}
"""Every operator that a plan may hold."""

THREADED = frozenset(["matmul", "tmatmul", "matmult", "tsmm", "solve", "inv", "cholesky", "eigen", "svd", "qr"])
REUSED = 1 << 17  # bytes from which a dead input's memory is written again: fresh memory costs page faults
ROWS = frozenset({"rowSums", "rowMeans", "rowMins", "rowMaxs"})
MANY_FLOPS = 2e7  # of a product: below that starting BLAS's threads costs more than they save

Kernel = Callable[[list[Any], Context], list[Any]]


def kernel_of(hop: Hop) -> Kernel:
    """The kernel of one operator: takes the inputs' values, returns a list with its value."""
    if hop.op in CELLWISE and hop.op in MAPS and hop.facts.is_matrix and hop.facts.known:
        return _cellwise(hop)
    if hop.op in ROWS and hop.facts.rows is not None and 1 < (hop.inputs[0].facts.cols or 0) <= NARROW:
        return _of_narrow_rows(hop)
    if hop.op in BINARY and not any(each.facts.is_matrix for each in hop.inputs):
        return _of_numbers(hop)
    if hop.op in THREADED and flops(hop) > MANY_FLOPS:
        return _threaded(hop)
    if hop.op == "matmul":
        return _product(hop)
    if hop.op == "leftindex":
        return _left_index(hop)
    return _plain(hop)


def _plain(hop: Hop) -> Kernel:
    kernel, attributes = ALL[hop.op].kernel, hop.attributes

    def run(values: list[Any], context: Context) -> list[Any]:
        return [kernel(values, attributes)]

    return run


def _of_numbers(hop: Hop) -> Kernel:
    """Arithmetic of two numbers: nothing to check, nothing to unpack."""
    function, is_power = BINARY[hop.op][0], hop.op == "^"

    def run(values: list[Any], context: Context) -> list[Any]:
        a, b = values
        return [float(function(float(a) if is_power else a, b))]  # numpy refuses integers to negative powers

    return run


def _cellwise(hop: Hop) -> Kernel:
    """Dense inputs go to the ufunc at once: shapes were checked when the operator was made."""
    shape = (hop.facts.rows or 0, hop.facts.cols or 0)
    squared = hop.op == "^" and hop.inputs[1].facts.value == 2
    ufunc = MAPS["square" if squared else hop.op]
    slow = _plain(hop)

    large = 8 * shape[0] * shape[1] >= REUSED and hop.op != "ifelse"  # which reads its inputs after it began to write

    def run(values: list[Any], context: Context) -> list[Any]:
        for value in values:
            if is_csr(value):
                return slow(values, context)
        value = None  # a name that still held an input would make it look wanted
        out = _dead(values, shape) if large else None
        if out is None:
            out = np.empty(shape)
        ufunc(*values, out)
        return [out]

    return run


def _of_narrow_rows(hop: Hop) -> Kernel:
    """Sums and extremes of short rows."""
    kernel, shape, slow = MAPS[hop.op], (hop.facts.rows or 0, 1), _plain(hop)

    def run(values: list[Any], context: Context) -> list[Any]:
        if is_csr(values[0]):
            return slow(values, context)
        out = np.empty(shape)
        kernel(values[0], out)
        return [out]

    return run


def _dead(values: list[Any], shape: tuple[int, int]) -> Any:
    """An input that only `values` holds, to write the result over it."""
    for place in range(len(values)):
        # the list and getrefcount's argument
        if type(values[place]) is np.ndarray and getrefcount(values[place]) == 2:
            X = values[place]
            if X.shape == shape and X.base is None and X.flags.c_contiguous and X.flags.writeable:
                return X
    return None


def _product(hop: Hop) -> Kernel:
    slow = _plain(hop)

    def run(values: list[Any], context: Context) -> list[Any]:
        A, B = values
        if type(A) is np.ndarray and type(B) is np.ndarray:
            found = A @ B
            if unspoilt(A, B, found):
                return [found]
        return slow(values, context)

    return run


def _threaded(hop: Hop) -> Kernel:
    slow = _plain(hop)

    def run(values: list[Any], context: Context) -> list[Any]:
        if context.threads == 1:
            return slow(values, context)
        with blas.all_of(context.threads):
            return slow(values, context)

    return run


def flops(hop: Hop) -> float:
    rows, cols = (size or 1000 for size in hop.inputs[0].facts.shape)
    if hop.op in ("solve", "inv", "cholesky", "eigen", "svd", "qr"):
        return float(rows) * cols * min(rows, cols)
    inner = rows if hop.op in ("tmatmul", "tsmm") else cols
    return 2.0 * inner * (hop.facts.cells or 10**6)


def _left_index(hop: Hop) -> Kernel:
    """Writes into the matrix itself when nobody else holds it: a loop that fills a matrix stays linear."""
    slow = _plain(hop)

    def run(values: list[Any], context: Context) -> list[Any]:
        X, new, *bounds = values
        # a matrix of its own that `values`, X and getrefcount's argument hold: nobody else would see it change
        if type(X) is not np.ndarray or X.base is not None or not X.flags.writeable or getrefcount(X) > 3:
            return slow(values, context)
        return [assign(X, new, [int(bound) for bound in bounds])]

    return run
