"""Which rows of a block ring early enough to be drawn, compiled by numba. Importing this module imports numba."""
# mypy: disable-error-code="untyped-decorator, assignment"

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_A = np.uint64(0x9E3779B97F4A7C15)
_B = np.uint64(0xBF58476D1CE4E5B9)
_C = np.uint64(0x94D049BB133111EB)
_ONE, _11, _27, _30, _31 = (np.uint64(v) for v in (1, 11, 27, 30, 31))


@njit(nogil=True, cache=True, error_model="numpy")
def early_rows(mixed: Any, start: Any, speed: Any, limit: float, found: Any) -> int:
    """The rows that may ring before `limit`: their numbers to `found`, and how many there are.

    `mixed` (uint64) is what the seed makes of row 0, `start` (uint64) the number of the first row, `speed` ``(rows,)`` how
    fast the clocks run. A clock of speed s and uniform number u rings at ``-log(u) / s``, which is not before
    ``(1 - u) / s``: a look that saves the logarithm.
    """
    count = 0
    for i in range(speed.shape[0]):
        x = start + np.uint64(i) + mixed
        x = (x + _ONE) * _A
        x = (x ^ (x >> _30)) * _B
        x = (x ^ (x >> _27)) * _C
        x = x ^ (x >> _31)
        late = 1.0 - (np.float64(x >> _11) + 0.5) / 9007199254740992.0
        if speed[i] > 0 and late <= limit * speed[i]:
            found[count] = i
            count += 1
    return count
