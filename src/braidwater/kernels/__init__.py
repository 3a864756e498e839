"""Inner loops on plain arrays: compiled ones (numba, made on first use) beside numpy forms that give the same numbers.

Nothing here knows blocks or designs, and nothing here imports numba before it is needed.
"""

from braidwater.kernels.choice import FUSED_FROM_ROWS, choose_kernel
from braidwater.kernels.scratch import scratch

__all__ = ["FUSED_FROM_ROWS", "choose_kernel", "scratch"]
