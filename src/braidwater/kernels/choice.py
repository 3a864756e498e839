"""Which form of a kernel to run: compiled on first use, or numpy."""

from __future__ import annotations

from typing import Literal

from braidwater.errors import OptionError

KernelName = Literal["fused", "blas"]

# Importing numba and loading the compiled code from its cache takes 0.7 s (1-3 s more when nothing is cached yet); the
# fused form of the logistic gradient saves 5-9 ns a row and pass. Ten passes over a million rows are about even.
FUSED_FROM_ROWS = 1_000_000


def choose_kernel(rows: int | None, kernel: str = "auto") -> KernelName:
    """``"fused"`` (numba) or ``"blas"`` (numpy) for a job of `rows` rows; `kernel` other than ``"auto"`` is an order.

    The choice depends on the rows alone, never on what the process did before: a result is the same in every process.

    >>> choose_kernel(1000), choose_kernel(5_000_000), choose_kernel(1000, "fused")
    ('blas', 'fused', 'fused')
    """
    if kernel == "fused":
        return "fused"
    if kernel == "blas":
        return "blas"
    if kernel != "auto":
        raise OptionError("kernel", kernel, "one of auto, fused, blas")
    return "fused" if rows is not None and rows >= FUSED_FROM_ROWS else "blas"
