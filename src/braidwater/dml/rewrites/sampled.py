"""The product of two factors at some cells only: the kernel of matrix factorisation on ratings."""

from __future__ import annotations

import numpy as np
from numba import njit

from braidwater.dml.values import Array


def sampled_product(indptr: Array, indices: Array, U: Array, V: Array) -> Array:
    """The cells ``(U @ V)[i, j]`` of a CSR pattern: float64 ``(nnz,)`` in its order.

    `U` is ``(rows, rank)``, `V` ``(rank, columns)``, both float64. Cost: nnz * rank multiplications, and a transposed copy of
    `V` (its columns are read as rows). The product as a whole would be rows * columns * rank.
    """
    out = np.empty(len(indices))
    _sampled(indptr, indices, np.ascontiguousarray(U), np.ascontiguousarray(V.T), out)
    return out


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})  # type: ignore[untyped-decorator]
def _sampled(indptr: Array, indices: Array, U: Array, Vt: Array, out: Array) -> None:  # pragma: no cover - compiled
    rank = U.shape[1]
    for i in range(len(indptr) - 1):
        for place in range(indptr[i], indptr[i + 1]):
            j = indices[place]
            total = 0.0
            for k in range(rank):
                total += U[i, k] * Vt[j, k]
            out[place] = total
