"""Asking for memory before it is needed, in compiled code. Importing this module imports numba."""
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

LINE_BYTES = 64
_SECOND_LEVEL = 2  # of LLVM's localities: the first level would lose what is being computed on


@intrinsic  # type: ignore[untyped-decorator, unused-ignore]
def _prefetch(context: Any, array: Any, index: Any) -> Any:
    """Start to read the cache line of a number of a contiguous array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        address = builder.bitcast(builder.gep(data, [arguments[1]]), byte)
        builder.call(function, [address, number(0), number(_SECOND_LEVEL), number(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@njit(inline="always")
def prefetch(X: Any, first: int, last: int, begin: int, end: int) -> None:
    """Start to read ``X[first:last, begin:end]``, as far as there is any, into the second-level cache; nobody waits for it."""
    for j in range(first, last):
        column = X[j]
        for i in range(begin, min(end, column.shape[0]), LINE_BYTES // column.itemsize):
            _prefetch(column, i)
